"""The quick form of benchmarks/coverage.py: every interval and p is near what it promises."""

from benchmarks.coverage import coverage, worst


def test_every_interval_and_p_is_near_what_it_promises():
    """Within 2 % of nominal, but for the noise of fifty draws (three standard errors)."""
    table = coverage(draws=50)
    off = (table["found"] - table["nominal"]).abs() > 0.02 + 1.5 * table["error"]
    assert not off.any(), table[off].to_string()
    assert worst(table)["nominal"] == 0.95
    assert len(table) > 20
