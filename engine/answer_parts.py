"""Pictures and arrays inside answers: how they travel between a worker and the app, and what they are in JSON.

In an answer's tree of lists and dicts stand ``bytes`` (an encoded picture) and NumPy arrays. Between the processes they
are raw buffers, ``{"$part": n}`` stands in their place, and a list tells what each of them is. Nothing here decodes a
picture, and NumPy is imported only where there is an array: a window without a model does without.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.protocol import Buffer, ProtocolError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PLACE = "$part"
MOST_PARTS = 10_000
_DEEPEST = 32
"""Levels of lists and dicts that an answer with parts may have."""
_PLAIN = frozenset({str, int, float, bool, type(None), list, dict, bytes})


def _is_part(node: Any) -> bool:
    """Whether ``node`` is a picture or an array."""
    kind = type(node)
    if kind in _PLAIN:  # nearly every node
        return kind is bytes
    import numpy as np

    return isinstance(node, bytes | np.ndarray)


def pack_parts(value: Any) -> tuple[Any, list[dict[str, Any]], list[Buffer]]:
    """``value`` with placeholders for its parts, what each part is, and their buffers, in order.

    Raises TypeError for an array that cannot be sent.
    """
    told: list[dict[str, Any]] = []
    buffers: list[Buffer] = []

    def pack(part: Any) -> Any:
        if isinstance(part, bytes):
            meta: dict[str, Any] = {"kind": "bytes"}
            buffer: Buffer = part
        else:
            from engine.tensors import pack_tensor

            tensor, buffer = pack_tensor("", part)
            meta = {"kind": "tensor", **tensor}
        told.append(meta)
        buffers.append(buffer)
        return {PLACE: len(told) - 1}

    return _replaced(value, _is_part, pack), told, buffers


def unpack_parts(value: Any, told: Any, buffers: Iterator[Buffer]) -> Any:
    """Inverse of :func:`pack_parts`, taking from ``buffers`` as many as ``told`` tells. Raises ProtocolError."""
    if not isinstance(told, list) or len(told) > MOST_PARTS:
        raise ProtocolError("the parts of an answer are not told by a list")
    parts = [_part(meta, buffers) for meta in told]
    used: set[int] = set()

    def put_back(node: dict[str, Any]) -> Any:
        number = node[PLACE]
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(parts) or number in used:
            raise ProtocolError("an answer names a part that it does not have")
        used.add(number)
        return parts[number]

    found = _replaced(value, lambda node: isinstance(node, dict) and set(node) == {PLACE}, put_back)
    if len(used) != len(parts):
        raise ProtocolError("an answer has parts that it does not name")
    return found


def as_json(value: Any) -> Any:
    """``value`` as JSON has it: base64 without prefix of ``bytes``, ``{"dtype", "shape", "data"}`` of arrays."""
    return _replaced(value, _is_part, _json_part)


def array_json(array: NDArray[Any]) -> dict[str, Any]:
    """``{"dtype", "shape", "data"}``, data as nested lists."""
    return {"dtype": _dtype_text(array.dtype), "shape": list(array.shape), "data": _json_data(array)}


@lru_cache(64)
def _dtype_text(dtype: np.dtype[Any]) -> str:
    return str(dtype)  # NumPy puts the name together anew each time


def _part(meta: Any, buffers: Iterator[Buffer]) -> bytes | NDArray[Any]:
    buffer = next(buffers, None)
    if buffer is None:
        raise ProtocolError("an answer with fewer buffers than parts")
    kind = meta.get("kind") if isinstance(meta, dict) else None
    if kind == "bytes":
        return bytes(buffer)
    if kind == "tensor":
        from engine.tensors import unpack_tensor

        return unpack_tensor(meta, buffer)[1]
    raise ProtocolError(f"a part of unknown kind {kind!r}")


def _json_part(part: bytes | NDArray[Any]) -> Any:
    return base64.b64encode(part).decode("ascii") if isinstance(part, bytes) else array_json(part)


def _json_data(array: NDArray[Any]) -> Any:
    if array.dtype.kind == "f":
        import numpy as np

        # JSON has no NaN or Infinity (RFC 8259 §6): they become null rather than an unparseable token.
        finite = np.isfinite(array)
        if not finite.all():
            boxed = array.astype(object)
            boxed[~finite] = None
            return boxed.tolist()
    return array.tolist()


def _replaced(node: Any, wanted: Callable[[Any], bool], replace: Callable[[Any], Any], depth: int = 0) -> Any:
    if wanted(node):
        return replace(node)
    if depth > _DEEPEST:
        raise ProtocolError(f"an answer of more than {_DEEPEST} levels")
    if isinstance(node, dict):
        return {key: _replaced(inner, wanted, replace, depth + 1) for key, inner in node.items()}
    if isinstance(node, list) and not _are_numbers(node):
        return [_replaced(inner, wanted, replace, depth + 1) for inner in node]
    return node


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether this is a row of numbers (a vector, the runs of a mask), which holds no part: it may be long."""
    return bool(values) and isinstance(values[0], int | float)
