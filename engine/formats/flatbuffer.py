"""Tables of a FlatBuffers file, by the number of their fields, every count bounded.

Layout: FlatBuffers internals (flatbuffers.dev, "FlatBuffer Binary Format"). A reader made from a schema trusts every
number in the file; here a count is bounded before it is used, and whatever points out of the file is a ValueError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# flatbuffers ships no type information.
from flatbuffers import encode, number_types  # type: ignore[import-untyped]
from flatbuffers.table import Table as RawTable  # type: ignore[import-untyped]

Bytes = Any
"""What can be indexed and sliced as bytes are: bytes, memoryview, mmap."""


@contextmanager
def reading() -> Iterator[None]:
    """What the library raises for numbers that lead out of the file becomes a ValueError."""
    try:
        yield
    except (struct.error, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"it points out of the file: {error}") from error


class Table:
    """One table. Fields are numbered from 0 in the order of the schema; a missing one gives the default."""

    def __init__(self, data: Bytes, position: int) -> None:
        self._data = data
        self._raw = RawTable(data, position)

    @classmethod
    def root(cls, data: Bytes) -> Table:
        """The table the file starts with."""
        return cls(data, encode.Get(number_types.UOffsetTFlags.packer_type, data, 0))

    def _at(self, field: int) -> int:
        """Where a field lies, 0 where it is missing."""
        offset = int(self._raw.Offset(4 + 2 * field))
        return self._raw.Pos + offset if offset else 0

    def number(self, field: int, kind: Any, default: Any = 0) -> Any:
        """A number of ``kind`` (of ``flatbuffers.number_types``)."""
        at = self._at(field)
        return self._raw.Get(kind, at) if at else default

    def table(self, field: int) -> Table | None:
        at = self._at(field)
        return Table(self._data, self._raw.Indirect(at)) if at else None

    def text(self, field: int, limit: int = 10_000) -> str:
        """A string, empty where it is missing. Raises ValueError for more than ``limit`` bytes or what is no UTF-8."""
        return bytes(self.bytes(field, limit)).decode("utf-8")

    def bytes(self, field: int, limit: int) -> Bytes:
        """A string or a vector of bytes, not copied where the file is a memoryview."""
        start, count = self._vector(field, 1, limit)
        return self._data[start : start + count]

    def numbers(self, field: int, kind: Any, limit: int) -> list[Any]:
        """A vector of numbers."""
        start, count = self._vector(field, kind.bytewidth, limit)
        return [self._raw.Get(kind, start + i * kind.bytewidth) for i in range(count)]

    def tables(self, field: int, limit: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(field, 4, limit)
        return [Table(self._data, self._raw.Indirect(start + 4 * i)) for i in range(count)]

    def count(self, field: int, limit: int) -> int:
        """How many entries a vector of tables or of four-byte numbers has."""
        return self._vector(field, 4, limit)[1]

    def _vector(self, field: int, width: int, limit: int) -> tuple[int, int]:
        """Where a vector's entries begin, and how many there are."""
        at = self._at(field)
        if not at:
            return 0, 0
        length_at = self._raw.Indirect(at)
        count = int(self._raw.Get(number_types.UOffsetTFlags, length_at))
        if count > limit or length_at + 4 + count * width > len(self._data):
            raise ValueError(f"a list of {count:,} entries does not belong here")
        return length_at + 4, count
