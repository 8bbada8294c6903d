"""CSV text to a table of strings (RFC 4180, as spreadsheets write it). Standard library only: app and worker use it."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from itertools import islice

from engine.errors import UnusableInput

MAX_CELLS = 2_000_000
DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_RECORDS = 20
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of text; every row has as many cells as there are columns.

    ``encoding`` is how the bytes were read: ``utf-8``, ``utf-8-sig``, ``utf-16`` or, where they were none of these,
    ``cp1252``.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    delimiter: str
    encoding: str

    @property
    def decimal_comma(self) -> bool:
        """Whether a number may be written with a comma: where the comma does not already part the columns."""
        return self.delimiter != ","


def parse_csv(data: bytes) -> Table:
    """Read a table whose first row holds the column names.

    The delimiter is the one of ``, ; tab |`` that parts the first records most evenly, or the one a first line
    ``sep=;`` names (Excel's convention). Blank lines are left out; names are stripped.
    Raises UnusableInput (``table_invalid``) naming the row: no text, no rows, ragged rows, the same column name twice,
    an open quote, more than ``MAX_CELLS`` cells.
    """
    text, encoding = _decode(data)
    text, delimiter = _delimiter(text)
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: tuple[str, ...] | None = None
    rows: list[tuple[str, ...]] = []
    cells = 0
    try:
        for record in records:
            if not record or record == [""]:
                continue
            if columns is None:
                columns = _column_names(record)
                continue
            if len(record) != len(columns):
                raise _invalid(
                    f"Row {len(rows) + 1} of the table (line {records.line_num}) has {len(record)} "
                    f"{_values(len(record))}, expected {len(columns)}, one for each column."
                )
            cells += len(record)
            if cells > MAX_CELLS:
                raise _invalid(f"The table has more than {MAX_CELLS:,} cells.")
            rows.append(tuple(record))
    except csv.Error as error:
        raise _invalid(
            f"The table cannot be read at row {len(rows) + 1} (line {records.line_num}): {_reason(error)}."
        ) from error
    if columns is None:
        raise _invalid("The table is empty: expected a row of column names, and rows below it.")
    if not rows:
        raise _invalid("The table has column names, but no rows below them.")
    return Table(columns, tuple(rows), delimiter, encoding)


def parse_number(text: str, decimal_comma: bool = False) -> float:
    """The number a cell holds: digits, a decimal point, an exponent. Raises ValueError for anything else.

    With ``decimal_comma`` a comma may stand for the point. No digit grouping (``1.234,5`` is ambiguous), no
    ``nan`` or ``inf``, nothing that overflows a float64.
    """
    stripped = text.strip()
    if _NUMBER.fullmatch(stripped) and (decimal_comma or "," not in stripped):
        value = float(stripped.replace(",", "."))
        if math.isfinite(value):
            return value
    raise ValueError(f"{_shorten(stripped)!r} is not a number")


def _decode(data: bytes) -> tuple[str, str]:
    if not data.strip():
        raise _invalid("The table is empty: expected a row of column names, and rows below it.")
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), None)
    candidates = (encoding,) if encoding else ("utf-8", "cp1252")
    for candidate in candidates:
        try:
            text = data.decode(candidate)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text, candidate
    raise _invalid("This is not a table: expected CSV text in UTF-8, UTF-16 or Windows-1252.")


def _delimiter(text: str) -> tuple[str, str]:
    """The text without a ``sep=`` line, and the delimiter."""
    first, _, rest = text.partition("\n")
    if (named := re.fullmatch(r"sep=([,;\t|])\r?", first)) is not None:
        return rest, named[1]
    best, best_rank = ",", (False, 1)
    for delimiter in DELIMITERS:
        widths = _sample_widths(text, delimiter)
        if not widths or widths[0] < 2:
            continue
        # Even rows count before many columns: "height, cm;weight, kg" has more commas than semicolons.
        rank = (all(w == widths[0] for w in widths), widths[0])
        if rank > best_rank:
            best, best_rank = delimiter, rank
    return text, best


def _sample_widths(text: str, delimiter: str) -> list[int]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [len(record) for record in islice((r for r in reader if r), _SAMPLE_RECORDS)]
    except csv.Error:
        return []


def _column_names(record: list[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in record)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _invalid(f"The table has two columns named {_shorten(name)!r}.")
        seen.add(name)
    if len(names) > MAX_CELLS:
        raise _invalid(f"The table has more than {MAX_CELLS:,} cells.")
    return names


def _reason(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "a quotation mark is never closed"
    if "field larger than" in text:
        return "a cell is longer than 131,072 characters"
    return text


def _values(count: int) -> str:
    return "value" if count == 1 else "values"


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"


def _invalid(message: str) -> UnusableInput:
    return UnusableInput(message, code="table_invalid")
