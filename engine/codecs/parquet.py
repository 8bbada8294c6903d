"""Apache Parquet to rows of plain values, by pyarrow. For the worker and the inspector: the app never opens one.

What the file's footer says of sizes is checked before anything is unpacked: a small file may hold gigabytes.
"""

from __future__ import annotations

import datetime
import decimal
import io
import os
from dataclasses import dataclass
from typing import Any

from engine.codecs.tables import MAX_CELLS
from engine.errors import InputTooLarge, UnusableInput

MAGIC = b"PAR1"
MAX_UNPACKED = 512 << 20
"""Bytes that all columns together may take, as the footer tells them."""


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """``rows`` hold a value for each of ``columns``: a number (1 and 0 for true and false), a text, or None where there
    is none; dates are text (ISO 8601)."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    total_rows: int


def parse_parquet(data: bytes, max_rows: int | None = None) -> ParquetTable:
    """The table in ``data``, its first ``max_rows`` rows where that is given.

    Raises UnusableInput (``table_invalid``) for what is no Parquet file, is damaged, has no rows, or has a column of
    nested or binary values; InputTooLarge where it is too large to be unpacked.
    """
    # Its own allocator reserves more address space than a bounded process has.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        meta = file.metadata
        _check_sizes(meta)
        names = tuple(str(name) for name in file.schema_arrow.names)
        for field in file.schema_arrow:
            _check_type(field, pyarrow)
        table = file.read(use_threads=False)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _invalid("The Parquet file is damaged or cut off.") from error
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _invalid(f"The table has two columns named {twice[:60]!r}.")
    if not meta.num_rows or not names:
        raise _invalid("The table has no rows.")
    taken = table if max_rows is None else table.slice(0, max_rows)
    columns = [[_plain(value) for value in column.to_pylist()] for column in taken.columns]
    return ParquetTable(names, list(zip(*columns, strict=True)), int(meta.num_rows))


def _check_sizes(meta: Any) -> None:
    cells = int(meta.num_rows) * int(meta.num_columns)
    if cells > MAX_CELLS:
        raise InputTooLarge(f"The table has {cells:,} cells: at most {MAX_CELLS:,} are read.")
    unpacked = sum(int(meta.row_group(n).total_byte_size) for n in range(meta.num_row_groups))
    if unpacked > MAX_UNPACKED:
        raise InputTooLarge(f"The table would take {unpacked >> 20} MB unpacked: at most {MAX_UNPACKED >> 20} are.")


def _check_type(field: Any, pyarrow: Any) -> None:
    types = pyarrow.types
    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    if (
        types.is_nested(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
    ):
        raise _invalid(f"The column {field.name[:60]!r} holds {kind}: numbers, texts and dates are read.")


def _plain(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    return value


def _invalid(sentence: str) -> UnusableInput:
    return UnusableInput(sentence, code="table_invalid")
