"""Parquet tables, whose sizes are looked at before they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aptheory.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

RATIO = 200
"""How many times as large as its file a table may be; packed text comes to about twenty."""
ALWAYS = 1 << 26
"""Bytes that are read whatever they were packed into."""


def refuse_swelling(file: Path) -> None:
    """Refuse a file whose pages would grow beyond reason in memory; one that is no parquet is left
    to whoever reads it.

    Raises:
        InputError: the footer says that it does.
    """
    import pyarrow
    from pyarrow.parquet import read_metadata

    if not file.is_file():
        raise InputError(f"{file} is no file; give a table.")
    try:
        footer = read_metadata(file)
        size = sum(footer.row_group(n).total_byte_size for n in range(footer.num_row_groups))
    except (pyarrow.ArrowException, OSError):
        return
    if size > max(ALWAYS, RATIO * file.stat().st_size):
        raise InputError(
            f"{file} would grow from {file.stat().st_size / 1e6:.1f} to {size / 1e6:,.0f} MB in "
            "memory; take out what makes it grow."
        )


def read_parquet(file: Path) -> pd.DataFrame:
    """The table, each text that occurs again kept once in memory.

    Raises:
        InputError: it would grow beyond reason.
    """
    import pyarrow
    from pyarrow.parquet import read_schema, read_table

    refuse_swelling(file)
    schema = read_schema(file)
    texts = [
        field.name
        for field in schema
        if pyarrow.types.is_string(field.type) or pyarrow.types.is_binary(field.type)
    ]
    table = read_table(file, read_dictionary=texts).to_pandas()
    for name in table.columns.intersection(texts):
        table[name] = table[name].astype(object)
    return table
