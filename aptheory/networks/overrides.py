"""What a user says about a network instead of letting it be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aptheory.errors import InputError

LAYOUTS = ("map", "map_last", "tokens")
HEADLESS = "none"


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Each is None where execution decides.

    Attributes:
        classifier: dotted name of the module whose input is the last place; ``"none"``: there is
            no classifier, and the network's output is its features.
        blocks: dotted name of the list of blocks, or the names of the blocks.
        prefix: tokens that stand for no position, in front of the others; a negative number says
            that they stand behind.
        layout: ``"map"``, ``"map_last"`` or ``"tokens"``, of every place with that many axes.
        output: which field of what the network returns: a name, or an index.
    """

    classifier: str | None = None
    blocks: str | Sequence[str] | None = None
    prefix: int | None = None
    layout: str | None = None
    output: str | int | None = None

    def __post_init__(self) -> None:
        if self.layout is not None and self.layout not in LAYOUTS:
            raise InputError(f"layout is {self.layout!r}; expected one of {', '.join(LAYOUTS)}.")
        if self.prefix is not None and (
            isinstance(self.prefix, bool) or not isinstance(self.prefix, int)
        ):
            raise InputError(
                f"prefix is {self.prefix!r}; expected how many tokens stand in front of the "
                "others, or a negative number where they stand behind."
            )

    @property
    def block_names(self) -> tuple[str, ...]:
        """The names that ``blocks`` gives, in a row."""
        if self.blocks is None:
            return ()
        return (self.blocks,) if isinstance(self.blocks, str) else tuple(self.blocks)
