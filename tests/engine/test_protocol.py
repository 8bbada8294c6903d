"""Frames: what goes in comes out, and whatever is not a frame is refused before anything large is allocated."""

from __future__ import annotations

import io
import struct

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.protocol import (
    MAGIC,
    Limits,
    Message,
    ProtocolError,
    encode_frame,
    read_frame,
    write_frame,
)
from engine.tensors import pack_tensor, unpack_tensor


def roundtrip(header: dict[str, object], buffers: list[bytes]) -> Message:
    stream = io.BytesIO()
    write_frame(stream, header, buffers)
    stream.seek(0)
    message = read_frame(stream)
    assert message is not None
    assert read_frame(stream) is None
    return message


@given(
    st.dictionaries(st.text(), st.none() | st.integers(-(2**53), 2**53) | st.text() | st.lists(st.booleans())),
    st.lists(st.binary(max_size=300), max_size=5),
)
def test_a_message_comes_out_as_it_went_in(header: dict[str, object], buffers: list[bytes]) -> None:
    message = roundtrip(header | {"type": "t"}, buffers)
    assert message.header == header | {"type": "t"}
    assert [bytes(b) for b in message.buffers] == buffers


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    stream = io.BytesIO(data)
    try:
        message = read_frame(stream, Limits(header_bytes=1000, buffers=10, total_bytes=1000))
    except ProtocolError:
        return
    assert message is None
    assert data == b""


TYPED = b'{"type":"t"}'


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"DSK0" + bytes(8), "not a frame"),
        (struct.pack("!4sII", MAGIC, 1 << 31, 0), "header of"),
        (struct.pack("!4sII", MAGIC, 2, 1 << 31), "buffers"),
        (struct.pack("!4sIIQ", MAGIC, len(TYPED), 1, 1 << 62) + TYPED, "bytes of buffers"),
        (struct.pack("!4sIIQQ", MAGIC, len(TYPED), 2, 1 << 29, (1 << 29) + 1) + TYPED, "bytes of buffers"),
        (struct.pack("!4sII", MAGIC, 4, 0) + b"null", "not an object"),
        (struct.pack("!4sII", MAGIC, 2, 0) + b"{}", "not an object"),
        (struct.pack("!4sII", MAGIC, 3, 0) + b"{]}", "not JSON"),
        (struct.pack("!4sII", MAGIC, 20, 0) + b"{", "closed after"),
        (b"".join(bytes(p) for p in encode_frame({"type": "t"}, [b"abc"]))[:-1], "closed after"),
    ],
    ids=[
        "magic", "header-2GB", "buffers-2G", "buffer-huge", "buffers-sum", "not-object", "no-type", "not-json", "cut",
        "cut-buffer",
    ],
)  # fmt: skip
def test_a_broken_frame_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        read_frame(io.BytesIO(frame))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4), (1, 2, 3, 4)])
def test_tensors_travel_exactly(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(int(np.prod(shape)) or 0).reshape(shape) % 2).astype(dtype) if shape else np.array(1, dtype)
    meta, buffer = pack_tensor("x", array)
    name, back = unpack_tensor(orjson.loads(orjson.dumps(meta)), bytes(buffer))
    assert name == "x"
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array)


def test_a_view_with_strides_travels_as_its_values() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::-1]
    meta, buffer = pack_tensor("x", array)
    assert np.array_equal(unpack_tensor(meta, bytes(buffer))[1], array)


def test_big_endian_becomes_little_endian() -> None:
    array = np.array([1.5, -2.0], dtype=">f8")
    meta, buffer = pack_tensor("x", array)
    assert np.array_equal(unpack_tensor(meta, bytes(buffer))[1], [1.5, -2.0])


def test_text_travels_as_text() -> None:
    array: NDArray[np.object_] = np.array([["ä", "b"], ["", "日本"]], dtype=object)
    meta, buffer = pack_tensor("t", array)
    assert unpack_tensor(meta, bytes(buffer))[1].tolist() == array.tolist()


@pytest.mark.parametrize("array", [np.array([object()], dtype=object), np.zeros(2, complex), np.zeros(2, "M8[s]")])
def test_what_cannot_be_sent_is_refused(array: NDArray[np.generic]) -> None:
    with pytest.raises(TypeError):
        pack_tensor("x", array)


@pytest.mark.parametrize(
    ("meta", "data"),
    [
        ({"name": "x", "dtype": "float32", "shape": [2, 2]}, bytes(15)),
        ({"name": "x", "dtype": "float32", "shape": [-1]}, bytes(4)),
        ({"name": "x", "dtype": "float32", "shape": [True]}, bytes(4)),
        ({"name": "x", "dtype": "float32", "shape": [1] * 33}, bytes(4)),
        ({"name": "x", "dtype": "float32", "shape": [2**31, 2**31, 2**31]}, bytes(4)),
        ({"name": "x", "dtype": "object", "shape": [1]}, bytes(8)),
        ({"name": "x", "dtype": "V8", "shape": [1]}, bytes(8)),
        ({"name": "x", "dtype": "no such", "shape": [1]}, bytes(8)),
        ({"name": 3, "dtype": "float32", "shape": [1]}, bytes(4)),
        ({"dtype": "float32", "shape": [1]}, bytes(4)),
        ({"name": "x", "dtype": "str", "shape": [2]}, b'["a"]'),
        ({"name": "x", "dtype": "str", "shape": [1]}, b"[1]"),
        ({"name": "x", "dtype": "str", "shape": [1]}, b"\x80"),
    ],
)
def test_a_tensor_that_disagrees_with_its_bytes_is_refused(meta: dict[str, object], data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_tensor(meta, data)
