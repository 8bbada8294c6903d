"""Datatypes of the Open Inference Protocol and NumPy's, and BYTES on the wire.

Table: kserve/open-inference-protocol, specification/protocol/inference_rest.md, "Tensor Data Types"; BF16 and the form
of BYTES: triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Malformed

Array = NDArray[Any]

BYTES, BF16 = "BYTES", "BF16"
NUMPY_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
    BF16: "bfloat16", BYTES: "str",
}  # fmt: skip
"""Datatype -> our name for it. NumPy knows no bfloat16: as everywhere here, such numbers are held as float32."""
DATATYPES = {name: datatype for datatype, name in NUMPY_NAMES.items()}
BINARY_ONLY = frozenset({"FP16", BF16})
"""JSON has no form of these."""
SIZES = {datatype: np.dtype(name).itemsize for datatype, name in NUMPY_NAMES.items() if datatype not in (BF16, BYTES)}
SIZES[BF16] = 2
_LENGTH = struct.Struct("<I")


def from_wire(datatype: str, data: memoryview) -> Array:
    """The elements of a tensor in its binary form, flat: little-endian, row-major. ``data`` has the right size.

    BYTES become an object array of ``bytes``; raises Malformed where their lengths do not add up.
    """
    if datatype == BYTES:
        return read_bytes_elements(data)
    if datatype == BF16:
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    array = np.frombuffer(data, np.dtype(NUMPY_NAMES[datatype]).newbyteorder("<"))
    if datatype == "BOOL" and array.size and np.frombuffer(data, np.uint8).max() > 1:
        raise Malformed("A BOOL element is one byte, 0 or 1.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def to_wire(datatype: str, array: Array) -> bytes:
    """``array`` in its binary form. BYTES are taken from ``str`` or ``bytes`` objects."""
    if datatype == BYTES:
        return b"".join(_LENGTH.pack(len(part)) + part for part in map(as_bytes, array.ravel()))
    if datatype == BF16:
        # Cut off, not rounded, as tritonclient does (``serialize_bf16_tensor``): numbers that were bfloat16 are exact.
        return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(array, np.dtype(NUMPY_NAMES[datatype]).newbyteorder("<")).tobytes()


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def read_bytes_elements(data: memoryview) -> Array:
    """Elements of 4 bytes of length (little-endian) and as many bytes, one after the other. Raises Malformed."""
    found: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        if end - at < _LENGTH.size:
            raise Malformed("The elements of a BYTES tensor do not add up to its size.")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > end - at:
            raise Malformed("The elements of a BYTES tensor do not add up to its size.")
        found.append(bytes(data[at : at + length]))
        at += length
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array
