"""Cells of the map and those beside them."""

import pytest

from aptheory.choosing.cells import Cell, with_neighbours

PLACES = (2, 5, 11, 12)
SCORES = {
    Cell(layer, read): float(10 * layer + read)
    for layer in PLACES
    for read in PLACES[1:]
    if layer <= read
}


def test_a_prompts_neighbours_are_the_next_places_of_the_map_and_a_probe_has_none():
    meaned = with_neighbours(SCORES)
    assert meaned[Cell(2, 11)] == pytest.approx((31 + 25 + 32 + 61) / 4)
    assert meaned[Cell(5, 12)] == pytest.approx((62 + 61 + 32 + 122) / 4)
    assert meaned[Cell(2, 5)] == pytest.approx((25 + 31) / 2)  # (5, 5) is a probe
    assert meaned[Cell(5, 5)] == SCORES[Cell(5, 5)]


def test_a_lucky_cell_alone_is_not_the_best():
    scores = dict.fromkeys(SCORES, 0.5) | {Cell(2, 5): 0.9}
    scores |= dict.fromkeys([Cell(5, 11), Cell(5, 12), Cell(11, 12)], 0.8)
    assert max(scores, key=scores.get) == Cell(2, 5)
    meaned = with_neighbours(scores)
    assert max(meaned, key=meaned.get) == Cell(11, 12)
