"""Bodies of the public protocols: what they hold, and what each fault says."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.codecs import open_inference, tensorflow_serving
from engine.codecs.datatypes import NUMPY_NAMES, from_wire, to_wire
from engine.codecs.wire_inputs import ModelFace, WireInputs
from engine.errors import Malformed, RequestError, UnusableInput
from engine.model_spec import TensorSpec

FACE = ModelFace("m", (TensorSpec("x", "float32", (-1, 2)),), (TensorSpec("y", "float32", (-1, 2)),))
TEXT = ModelFace("m", (TensorSpec("x", "str", (-1,)),))
IMAGE = ModelFace("m", (TensorSpec("x", "float32", (-1, 8, 8, 3)),), images=True)
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]} | changes


def read(body: Any, face: ModelFace = FACE, tail: bytes = b"", **options: Any) -> WireInputs:
    head = body if isinstance(body, bytes) else json.dumps(body).encode()
    if tail:
        options.setdefault("header_bytes", len(head))
    return open_inference.read(head + tail, options, face)


@pytest.mark.parametrize("datatype", [name for name in NUMPY_NAMES if name not in ("BYTES", "BF16")])
def test_numbers_come_back_bit_for_bit(datatype: str) -> None:
    @given(hnp.arrays(np.dtype(NUMPY_NAMES[datatype]), st.integers(0, 20)))
    def check(array: np.ndarray) -> None:
        data = to_wire(datatype, array)
        assert to_wire(datatype, from_wire(datatype, memoryview(data))) == data

    check()


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_bytes_come_back(values: list[bytes]) -> None:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    assert list(from_wire("BYTES", memoryview(to_wire("BYTES", array)))) == values


def test_bfloat16_is_the_upper_half_of_a_float() -> None:
    data = struct.pack("<3H", 0x3F80, 0xC000, 0x7F80)  # 1.0, -2.0, infinity
    assert from_wire("BF16", memoryview(data)).tolist() == [1.0, -2.0, np.inf]
    assert to_wire("BF16", np.array([1.0, -2.0, np.inf], np.float32)) == data


@pytest.mark.parametrize("data", [[1.0, 2.0], [[1.0, 2.0]], [[[1.0], [2.0]]]])
def test_data_may_be_nested_or_flat(data: Any) -> None:
    assert read({"inputs": [tensor(data=data)]}).tensors["x"].tolist() == [[1.0, 2.0]]


def test_json_and_binary_may_be_mixed_and_the_order_is_that_of_the_inputs() -> None:
    face = ModelFace(
        "m", (TensorSpec("a", "int16", (-1,)), TensorSpec("b", "str", (-1,)), TensorSpec("c", "bool", (1,)))
    )
    inputs = [
        {"name": "b", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}},
        {"name": "c", "shape": [1], "datatype": "BOOL", "data": [True]},
        {"name": "a", "shape": [2], "datatype": "INT16", "parameters": {"binary_data_size": 4}},
    ]
    tail = b"\x02\0\0\0hi\x01\0\0\0!" + struct.pack("<2h", -1, 300)
    found = read({"id": "7", "inputs": inputs}, face, tail)
    assert found.tensors["a"].tolist() == [-1, 300]
    assert found.tensors["b"].tolist() == ["hi", "!"]
    assert found.tensors["c"].tolist() == [True]
    assert found.echo == {"id": "7"}


def test_a_size_that_is_not_stated_follows_from_the_shape() -> None:
    given_ = {"name": "x", "shape": [1, 2], "datatype": "FP32"}
    assert read({"inputs": [given_]}, tail=struct.pack("<2f", 1, 2)).tensors["x"].tolist() == [[1.0, 2.0]]


MALFORMED: list[tuple[Any, str]] = [
    (b"{", "failed to parse the request JSON buffer"),
    (b"[]", "Unable to parse 'request'"),
    (b"[" * 2000 + b"]" * 2000, "JSON"),
    ({}, "Unable to parse 'inputs'"),
    ({"inputs": []}, "Unable to parse 'inputs'"),
    ({"inputs": [{"name": "x"}]}, "Unable to parse 'inputs.0.shape'"),
    ({"inputs": [tensor(name=3)]}, "Unable to parse 'inputs.0.name'"),
    ({"inputs": [tensor(shape=[1, -1])]}, "Unable to parse 'shape': negative dimension"),
    ({"inputs": [tensor(datatype="FLOAT")]}, "Unable to parse 'datatype': 'FLOAT' is no datatype"),
    ({"inputs": [tensor(datatype="FP16")]}, "receiving FP16 data via JSON is not supported. Please use the binary"),
    ({"inputs": [tensor(datatype="BF16")]}, "receiving BF16 data via JSON is not supported."),
    ({"inputs": [tensor(data=[1.0])]}, "Unable to parse 'data': Shape does not match true shape of 'data' field"),
    ({"inputs": [tensor(data=[1.0] * 1000)]}, "Unable to parse 'data': Shape does not match true shape"),
    ({"inputs": [tensor(data=[1.0, True])]}, "Unable to parse 'data': expected FP32"),
    ({"inputs": [tensor(data=["a", "b"])]}, "Unable to parse 'data': expected FP32"),
    ({"inputs": [tensor(data="ab")]}, "Unable to parse 'data': attempt to access JSON non-array as array"),
    ({"inputs": [tensor(data=None)]}, "Unable to parse 'data': input 'x' has none"),
    ({"inputs": [tensor(), tensor()]}, "an input is given twice"),
    ({"inputs": [tensor(parameters={"binary_data_size": 8})]}, "input 'x' has both 'data' and 'binary_data_size'"),
    ({"inputs": [tensor()], "parameters": {"triton_x": 1}}, "parameter keys starting with 'triton_' are reserved"),
    ({"inputs": [tensor()], "id": 7}, "Unable to parse 'id'"),
]


@pytest.mark.parametrize(("body", "words"), MALFORMED)
def test_what_is_no_request_is_told(body: Any, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(body)
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize(
    ("size", "tail", "words"),
    [
        (8, b"1234", "unexpected size for input 'x', expecting 4 additional bytes for model 'm'"),
        (8, b"123456789", "unexpected additional input data for model 'm'"),
        (4, b"1234", "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 4"),
        (-1, b"12345678", "Unable to parse 'binary_data_size'"),
        (True, b"12345678", "Unable to parse 'binary_data_size'"),
        ("8", b"12345678", "Unable to parse 'binary_data_size'"),
    ],
)
def test_binary_parts_must_add_up(size: Any, tail: bytes, words: str) -> None:
    given_ = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    with pytest.raises(Malformed) as caught:
        read({"inputs": [given_]}, tail=tail)
    assert caught.value.message.startswith(words)


def test_the_length_of_the_header_must_lie_in_the_body() -> None:
    with pytest.raises(Malformed, match=r"inference header size should be in range \(0, 2\), got: 3"):
        read(b"{}", header_bytes=3)


@pytest.mark.parametrize("tail", [b"\x05\0\0\0hi", b"\x02\0\0", b"\xff\xff\xff\xffhi"])
def test_lengths_of_strings_must_add_up(tail: bytes) -> None:
    given_ = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    with pytest.raises(Malformed, match="do not add up"):
        read({"inputs": [given_]}, TEXT, tail)


def test_text_must_be_text() -> None:
    given_ = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}
    with pytest.raises(UnusableInput, match="not UTF-8"):
        read({"inputs": [given_]}, TEXT, b"\x02\0\0\0\xff\xfe")


@pytest.mark.parametrize(
    ("options", "data", "wanted"),
    [
        ({}, "iVBORw0KGgoAAAAAAAAAAA==", PNG),
        ({"content_type": "base64"}, "iVBORw0KGgoAAAAAAAAAAA==", PNG),
        ({"content_type": "pil_image"}, "data:image/png;base64,iVBORw0KGgoAAAAAAAAAAA==", PNG),
    ],
)
def test_an_encoded_picture_is_found_in_every_form(options: dict[str, Any], data: str, wanted: bytes) -> None:
    given_ = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": options, "data": [data]}
    assert read({"inputs": [given_]}, IMAGE).encoded == [wanted]
    whole = {"inputs": [given_ | {"parameters": {}}], "parameters": options}
    assert read(whole, IMAGE).encoded == [wanted]


def test_a_picture_that_is_none_is_told() -> None:
    for content, data in (("", "!!!"), ("base64", "!!!"), ("tabular", "AAAA")):
        given_ = {
            "name": "x",
            "shape": [1],
            "datatype": "BYTES",
            "parameters": {"content_type": content},
            "data": [data],
        }
        with pytest.raises(UnusableInput):
            read({"inputs": [given_]}, IMAGE)


def test_a_raw_body_is_the_one_tensor() -> None:
    found = read(struct.pack("<2f", 1, 2), header_bytes=0)
    assert (found.tensors["x"].tolist(), found.echo) == ([[1.0, 2.0]], {"binary_data_output": True})
    free = ModelFace("m", (TensorSpec("x", "int16", (-1, -1)),))
    assert read(struct.pack("<3h", 1, 2, 3), free, header_bytes=0).tensors["x"].tolist() == [[1, 2, 3]]
    assert read("grün".encode(), TEXT, header_bytes=0).tensors["x"].tolist() == ["grün"]
    assert read(PNG, IMAGE, header_bytes=0).encoded == [PNG]
    for face, data in (
        (FACE, b"123"),
        (ModelFace("m", (TensorSpec("x", "float32", (-1, -1, -1)),)), b"1234"),
        (ModelFace("m", FACE.inputs * 2), b"1234"),
    ):
        with pytest.raises(Malformed):
            read(data, face, header_bytes=0)


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ({}, (0, None)),
        ({"priority": 3}, (3, None)),
        ({"timeout": 2_000_000}, (0, 2.0)),
        ({"priority": 1, "timeout": 500}, (1, 0.0005)),
    ],
)
def test_priority_and_timeout_are_read_before_the_tensors(parameters: Any, wanted: Any) -> None:
    body = json.dumps({"inputs": [tensor()], "parameters": parameters}).encode()
    assert open_inference.scheduling(body, None) == wanted
    assert open_inference.scheduling(body + b"tail", len(body)) == wanted
    escaped = body.replace(b'"timeout"', b'"\\u0074imeout"')
    assert open_inference.scheduling(escaped, None) == wanted


@pytest.mark.parametrize("parameters", [{"priority": -1}, {"priority": "1"}, {"timeout": 1.5}, {"timeout": True}])
def test_priorities_that_are_none_are_told(parameters: Any) -> None:
    with pytest.raises(Malformed):
        open_inference.scheduling(json.dumps({"inputs": [tensor()], "parameters": parameters}).encode(), None)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["instances", "inputs", "examples", "x", "b64", "name", "shape", "datatype",
                                         "data", "parameters", "id", "outputs"]), inner, max_size=4),
                    max_leaves=20))  # fmt: skip
def test_any_json_is_a_request_or_told(value: Any) -> None:
    data = json.dumps(value).encode()
    for face in (FACE, TEXT, IMAGE):
        for reader, options in (
            (open_inference.read, {}),
            (tensorflow_serving.read, {"verb": "predict"}),
            (tensorflow_serving.read, {"verb": "classify"}),
        ):
            try:
                reader(data, options, face)
            except RequestError as error:
                assert error.message  # noqa: PT017  # any sentence: this is no crash
