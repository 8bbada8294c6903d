"""Ways to change a file: single bytes, whole numbers, pieces moved, cut off or taken from another file.

In a zip the change is made inside one member and the zip written anew, half of the time: with the container whole,
what lies in it is reached.
"""

from __future__ import annotations

import io
import zipfile
from typing import Literal

from hypothesis import strategies as st

EXTREMES = (
    0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 50, (1 << 63) - 1, (1 << 64) - 1,
)  # fmt: skip
LOCAL_HEADER = b"PK\x03\x04"
MAX_CHANGES = 6
EDGE = 600
"""Bytes at either end of a file, where formats keep their headers and tables."""


@st.composite
def mutations(draw: st.DrawFn, seed: bytes, other: bytes) -> bytes:
    """``seed`` after one to six changes; pieces may come from ``other``."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, MAX_CHANGES))):
        if data.startswith(LOCAL_HEADER) and draw(st.booleans()):
            data = _inside_zip(draw, data, other)
        else:
            _change(draw, data, other)
    return bytes(data)


def _change(draw: st.DrawFn, data: bytearray, other: bytes) -> None:
    if not data:
        data += other[:100]
        return
    at = draw(_positions(len(data)))
    kind = draw(st.sampled_from(("byte", "bit", "number", "cut", "insert", "remove", "repeat", "splice")))
    if kind == "byte":
        data[at] = draw(st.integers(0, 255))
    elif kind == "bit":
        data[at] ^= 1 << draw(st.integers(0, 7))
    elif kind == "number":
        size = draw(st.sampled_from((2, 4, 8)))
        order: Literal["little", "big"] = "little" if draw(st.booleans()) else "big"
        value = draw(st.sampled_from(EXTREMES)) % (1 << 8 * size)
        data[at : at + size] = value.to_bytes(size, order)
    elif kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = draw(st.binary(min_size=1, max_size=16))
    else:
        length = draw(st.integers(1, 200))
        if kind == "remove":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 3))
        elif other:
            start = draw(_positions(len(other)))
            data[at : at + length] = other[start : start + length]


def _positions(size: int) -> st.SearchStrategy[int]:
    return st.one_of(
        st.integers(0, min(EDGE, size) - 1), st.integers(max(0, size - EDGE), size - 1), st.integers(0, size - 1)
    )


def _inside_zip(draw: st.DrawFn, data: bytearray, other: bytes) -> bytearray:
    """``data`` with one member changed, its CRC and sizes right; unchanged where it is no zip any more."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            # What an earlier change made huge or unreadable stays as it is.
            if not old.infolist() or sum(info.file_size for info in old.infolist()) > 1 << 20:
                return data
            members = [(info.filename, bytearray(old.read(info))) for info in old.infolist()]
    except Exception:
        _change(draw, data, other)
        return data
    index = draw(st.integers(0, len(members) - 1))
    _change(draw, members[index][1], other)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name, content in members:
            new.writestr(zipfile.ZipInfo(name or "x"), bytes(content))
    return bytearray(buffer.getvalue())
