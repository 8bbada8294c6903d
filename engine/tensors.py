"""Tensors between the app and its children: a description in a frame's header, and one buffer each.

Apart from :mod:`engine.protocol` because this needs NumPy, which a window without a model does without.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.protocol import Buffer, ProtocolError

_DTYPE_KINDS = frozenset("biuf")
# A table, not np.dtype(name): that reads a language of its own, and evaluates what it takes for a literal.
_DTYPES = {
    dtype.name: dtype.newbyteorder("<")
    for dtype in map(np.dtype, "?" + np.typecodes["AllInteger"] + np.typecodes["Float"])
}
_SENT_AS_IS = frozenset(_DTYPES.values())
STRING_DTYPE = "str"
"""Text tensors travel as one JSON list of strings, row-major."""


def pack_tensor(name: str, array: NDArray[Any]) -> tuple[dict[str, Any], Buffer]:
    """``array`` as its description and one buffer, C order, native little-endian. Raises TypeError on object arrays
    that are not text, and on complex or structured dtypes."""
    if array.dtype.kind in "US" or array.dtype.kind == "O":
        texts = [v.decode("utf-8") if isinstance(v, bytes) else v for v in array.ravel().tolist()]
        if not all(isinstance(t, str) for t in texts):
            raise TypeError(f"tensor {name!r} holds objects that are neither numbers nor text")
        return {"name": name, "dtype": STRING_DTYPE, "shape": list(array.shape)}, orjson.dumps(texts)
    if array.dtype.kind not in _DTYPE_KINDS:
        raise TypeError(f"tensor {name!r} has dtype {array.dtype}, which cannot be sent")
    contiguous = array
    if not (array.flags.c_contiguous and array.ndim and array.dtype in _SENT_AS_IS):
        contiguous = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    meta = {"name": name, "dtype": _dtype_name(contiguous.dtype), "shape": list(array.shape)}
    return meta, contiguous.reshape(-1).view(np.uint8).data if contiguous.size else b""


@lru_cache(64)
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # NumPy puts the name together anew each time


def unpack_tensor(meta: dict[str, Any], buffer: Buffer) -> tuple[str, NDArray[Any]]:
    """Inverse of :func:`pack_tensor`; the array is a view of ``buffer``. Raises ProtocolError where they disagree."""
    name, dtype, shape = meta.get("name"), meta.get("dtype"), meta.get("shape")
    if not isinstance(name, str) or not isinstance(dtype, str) or not isinstance(shape, list):
        raise ProtocolError("tensor without name, dtype or shape")
    if len(shape) > 32 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
        raise ProtocolError(f"tensor {name!r} has an impossible shape")
    if dtype == STRING_DTYPE:
        try:
            texts = orjson.loads(buffer)
        except orjson.JSONDecodeError as error:
            raise ProtocolError(f"tensor {name!r}: text is not JSON") from error
        if not isinstance(texts, list) or len(texts) != prod(shape) or not all(isinstance(t, str) for t in texts):
            raise ProtocolError(f"tensor {name!r}: text does not fill shape {shape}")
        return name, _shaped(name, np.array(texts, dtype=object), shape)
    numpy_dtype = _DTYPES.get(dtype)
    if numpy_dtype is None:
        raise ProtocolError(f"tensor {name!r} has dtype {dtype[:40]!r}")
    if prod(shape) * numpy_dtype.itemsize != memoryview(buffer).nbytes:
        raise ProtocolError(f"tensor {name!r}: {memoryview(buffer).nbytes} bytes do not fill {dtype}{shape}")
    return name, _shaped(name, np.frombuffer(buffer, dtype=numpy_dtype), shape)


def _shaped(name: str, flat: NDArray[Any], shape: list[int]) -> NDArray[Any]:
    try:
        return flat.reshape(shape)
    except (ValueError, OverflowError) as error:  # of no elements, but with sides beyond what an array may have
        raise ProtocolError(f"tensor {name!r} has an impossible shape") from error
