"""safetensors files: tensors with a JSON header that says where each lies. Class *data*.

Format: safetensors 0.8, docs/format: eight bytes (little-endian) with the header's length, the header, then the buffer.
Every name maps to ``dtype``, ``shape`` and ``data_offsets`` (from the end of the header); ``__metadata__`` maps text to
text. Only the header is read here, and what it promises is checked against the file.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from engine.errors import ModelCorrupt
from engine.formats.disk import open_regular, unreadable

EXPECTED = "a complete .safetensors file"
MAX_HEADER = 8 << 20
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 32
_METADATA = "__metadata__"
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One entry. ``dtype`` is safetensors' word (``F32``); ``start`` and ``end`` are bytes into the buffer."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def recognise(path: Path) -> bool:
    """The suffix decides: the format has no mark of its own."""
    return path.is_file() and path.suffix.lower() == ".safetensors"


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors a file holds, by name.

    Raises ModelUnreadable; ModelCorrupt where the header is too large, is no such header, or promises anything but
    tensors that lie inside the file one after the other without a gap, each as long as its shape and dtype say.
    """
    try:
        with open_regular(path) as handle:
            size = os.fstat(handle.fileno()).st_size
            length = int.from_bytes(handle.read(8), "little")
            if size < 8 or length > size - 8:
                raise _corrupt(path, "it is cut off or is of another kind")
            if length > MAX_HEADER:
                raise _corrupt(path, f"its header is larger than {MAX_HEADER >> 20} MiB")
            header = handle.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    tensors = {name: _entry(path, name, value) for name, value in _parse(path, header).items() if name != _METADATA}
    _check_ranges(path, tensors, size - 8 - length)
    return tensors


def _parse(path: Path, header: bytes) -> dict[str, Any]:
    # A header may be padded with spaces at its end; it begins with the brace (the format's own rule).
    if not header.startswith(b"{"):
        raise _corrupt(path, "its header is not JSON")
    try:
        table = json.loads(header, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, "its header is not JSON, or names a tensor twice", str(error)) from error
    if not isinstance(table, dict):
        raise _corrupt(path, "its header is not a table")
    if len(table) > MAX_TENSORS:
        raise _corrupt(path, f"it holds more than {MAX_TENSORS:,} tensors")
    return table


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table


def _entry(path: Path, name: str, value: Any) -> StoredTensor:
    wrong = _corrupt(path, f"the entry of {name[:80]!r} in its header is damaged")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in _BITS or not _is_whole(shape, MAX_DIMENSIONS) or not _is_whole(offsets, 2) or len(offsets) != 2:
        raise wrong
    start, end = offsets
    if (end - start) * 8 != prod(shape) * _BITS[dtype]:
        raise _corrupt(path, f"{name[:80]!r} in it is not as long as its shape and dtype say")
    return StoredTensor(dtype, tuple(shape), start, end)


def _is_whole(value: Any, most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 63 for n in value)
    )


def _check_ranges(path: Path, tensors: dict[str, StoredTensor], size: int) -> None:
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.end > size:
            raise _corrupt(path, f"{name[:80]!r} reaches past its end, so it is cut off")
        if tensor.start != at:
            raise _corrupt(path, f"{name[:80]!r} overlaps another tensor or leaves a gap")
        at = tensor.end
    if at != size:
        raise _corrupt(path, "bytes follow its last tensor")


def _corrupt(path: Path, why: str, details: str = "") -> ModelCorrupt:
    return ModelCorrupt(f"{path.name} cannot be opened, {why}: expected {EXPECTED}.", details=details)
