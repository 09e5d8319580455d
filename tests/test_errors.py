"""What an error of somebody else says, within a sentence of ours."""

import pytest

from aptheory.errors import InputError, reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("it is odd."), "it is odd"),
        (RuntimeError("Error in loading:\n\tsize mismatch for head.\n\tmore"),
         "Error in loading: size mismatch for head"),
        (OSError("\n\n first\nsecond"), "first"),
        (RuntimeError("announced:"), "announced"),
        (AssertionError(), "AssertionError"),
        (KeyError("\n"), "'\\n'"),
    ],
)  # fmt: skip
def test_a_reason_is_one_line_that_says_something(error, reason):
    assert reason_of(error) == reason


class Silent(Exception):
    def __str__(self):
        raise RuntimeError


def test_a_reason_may_tell_its_kind():
    assert reason_of(KeyError("a"), kind=True) == "KeyError: 'a'"
    assert reason_of(SystemExit(), kind=True) == "SystemExit"
    assert reason_of(Silent(), kind=True) == "Silent"


def test_a_message_holds_nothing_that_a_terminal_obeys():
    assert str(InputError("no file a\x1b[31m\r")) == r"no file a\x1b[31m\r."
    assert str(InputError("two\nlines with ä and 日本")) == "two\nlines with ä and 日本."
