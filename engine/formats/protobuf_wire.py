"""Protocol Buffers' wire format, walked in place: messages of gigabytes are described without being read whole.

Format: protobuf.dev/programming-guides/encoding. Only the bytes of tags, lengths and varints are touched; what a length
spans is handed out as an interval, so that weights stay on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MAX_FIELDS = 1_500_000
"""Fields of one file that are looked at, a few seconds' work. A graph of 50 000 operations has about one million."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_U64 = (1 << 64) - 1


class WireError(ValueError):
    """The bytes are no message of the wire format."""


class Field(NamedTuple):
    """One field: ``value`` of a varint; of the others, bytes ``start`` to ``end`` (not included)."""

    number: int
    kind: int
    value: int
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


class Wire:
    """A message, or a file of one, as bytes or a memory map."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self._left = MAX_FIELDS

    def __len__(self) -> int:
        return len(self._data)

    def fields(self, start: int = 0, end: int | None = None) -> Iterator[Field]:
        """The fields of the message in bytes ``start`` to ``end``. Raises WireError where it is damaged or cut off, or
        after ``MAX_FIELDS`` fields of this file."""
        data, at, stop = self._data, start, len(self._data) if end is None else end
        while at < stop:
            self._left -= 1
            if self._left < 0:
                raise WireError(f"more than {MAX_FIELDS:,} fields")
            # Nearly every tag and length is one byte: a call for each would double the time.
            tag = data[at]
            if tag < 0x80:
                at += 1
            else:
                tag, at = self._varint(at, stop)
            number, kind = tag >> 3, tag & 7
            if number == 0:
                raise WireError("a field with number 0")
            value, begin = 0, at
            if kind == VARINT:
                value, at = self._varint(at, stop)
            elif kind == LENGTH:
                if at < stop and data[at] < 0x80:
                    size, begin = data[at], at + 1
                else:
                    size, begin = self._varint(at, stop)
                at = begin + size
            elif kind in (FIXED64, FIXED32):
                at += 8 if kind == FIXED64 else 4
            else:
                raise WireError(f"a field of kind {kind}")
            if at > stop:
                raise WireError(f"a field ends at byte {at}, {at - stop} after the end")
            yield Field(number, kind, value, begin, at)

    def text(self, field: Field, limit: int) -> str:
        """A string field. Raises WireError where it is no UTF-8, longer than ``limit`` bytes or no string."""
        if field.kind != LENGTH or field.size > limit:
            raise WireError(f"a text of {field.size} bytes")
        try:
            return str(self._data[field.start : field.end], "utf-8")
        except UnicodeDecodeError as error:
            raise WireError("a text that is not UTF-8") from error

    def integers(self, field: Field) -> Iterator[int]:
        """The signed numbers of a (packed or single) repeated integer field."""
        if field.kind == VARINT:
            yield signed(field.value)
            return
        at = field.start
        while at < field.end:
            value, at = self._varint(at, field.end)
            yield signed(value)

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        result = shift = 0
        for _ in range(_MAX_VARINT_BYTES):
            if at >= stop:
                raise WireError("cut off within a number")
            byte = self._data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & _U64, at
            shift += 7
        raise WireError("a number of more than ten bytes")


def signed(value: int) -> int:
    """A varint as int64: negative numbers are written in two's complement of 64 bits."""
    return value - (1 << 64) if value >> 63 else value
