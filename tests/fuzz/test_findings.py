"""What the fuzzers found, numbered, each by its smallest input, replayed at every run.

The list with what was wrong and where it is mended is ``docs/fuzzing.md``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from waitress.adjustments import Adjustments

from engine.codecs import open_inference, tensorflow_serving
from engine.codecs.arrays import read_npy
from engine.codecs.wire_inputs import ModelFace
from engine.errors import Malformed, UnusableInput
from engine.model_spec import TensorSpec
from engine.protocol import ProtocolError, encode_frame
from engine.tensors import unpack_tensor
from engine.worker.answers import error_json
from tests.fuzz.framing import Seen, ours
from tests.trust.evidence import missing_tests

LIST = Path(__file__).resolve().parents[2] / "docs" / "fuzzing.md"

HEAD = b"HTTP/1.1\r\nHost: a\r\n"


# F1: read again as the head of what followed. On the wire: tests/embedded_server/test_head_checks.py.
@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n"])
def test_f1_an_expectation_without_a_body_is_a_request_of_its_own(length: bytes) -> None:
    data = b"GET /a " + HEAD + length + b"Expect: 100-continue\r\n\r\nGET /b " + HEAD + b"\r\n"
    assert ours(data).requests == [Seen(b"GET", b"/a", b""), Seen(b"GET", b"/b", b"")]


# F2: read as no body (RFC 9112 §6.3: 400 where chunked is not the last coding). On the wire: as above.
@pytest.mark.parametrize("value", [b"", b" ", b"\t"])
def test_f2_a_transfer_encoding_that_names_none_is_refused(value: bytes) -> None:
    data = b"POST /a " + HEAD + b"Transfer-Encoding:" + value + b"\r\n\r\nGET /b " + HEAD + b"\r\n"
    assert ours(data).end == "refused"


@pytest.mark.parametrize("head", [b" GET / HTTP/1.1", b"GET / HTTP/2.0", b"GET /"])
def test_f3_request_lines_of_other_forms_are_refused(head: bytes) -> None:
    """White space before it, another version, none: once read as if nothing were wrong."""
    assert ours(head + b"\r\nHost: a\r\n\r\n").end == "refused"


@pytest.mark.parametrize("cuts", [(), (1,)])
def test_f4_a_bare_line_feed_before_a_request_is_refused_however_it_comes(cuts: tuple[int, ...]) -> None:
    """Once taken where it came with the rest, and refused where it came alone."""
    assert ours(b"\nPOST * HTTP/1.1\r\n\r\n", cuts).end == "refused"


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [("2f4(", [0], b""), (",", [0], b""), ("float32", [0, 1 << 62, 8], b""), ("str", [0, 1 << 63], b"[]")],
)
def test_f5_a_tensor_of_no_dtype_or_no_shape_is_a_broken_frame(dtype: str, shape: list[int], data: bytes) -> None:
    """Once ValueError, SyntaxError and OverflowError out of NumPy, which took the dtype for an expression."""
    with pytest.raises(ProtocolError):
        unpack_tensor({"name": "x", "dtype": dtype, "shape": shape}, data)


FACE = ModelFace("m", (TensorSpec("x", "float32", (-1,)),))


@pytest.mark.parametrize("text", [b'"\\ud800"', b'["a\\uDfFf"]', b'{"\\udc00": 1}'])
def test_f6_half_a_character_is_no_json(text: bytes) -> None:
    """Once read, and quoted in an error that no worker could send: its process ended over it."""
    with pytest.raises(Malformed):
        tensorflow_serving.read(b'{"inputs": ' + text + b"}", {"verb": "predict"}, FACE)
    with pytest.raises(UnusableInput):  # a whole one
        tensorflow_serving.read(b'{"inputs": ["\\ud83d\\ude00", NaN]}', {"verb": "predict"}, FACE)


def test_f6_every_error_can_be_sent() -> None:
    error = UnusableInput("There is no column \ud800.", details="in \udcff")
    encode_frame(error_json(error))
    assert (error.message, str(error)) == ("There is no column ?.",) * 2


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "data",
    [npy("'<f4'", "(0,)} (("), npy("'<f4'", "(0, 4611686018427387904, 8)"), npy("'2f4('", "(0,)"), npy("','", "()")],
)
def test_f7_a_damaged_header_of_an_array_is_malformed(data: bytes) -> None:
    """Once an open bracket was a TokenError, and an impossible shape without elements a ValueError: 500."""
    with pytest.raises(Malformed):
        read_npy(data)


@pytest.mark.parametrize("number", [0x110000, 0xFFFFFFFF, 0xD800, 0xDFFF])
@pytest.mark.parametrize("order", ["little", "big"])
def test_f8_text_of_no_characters_is_malformed(number: int, order: str) -> None:
    """Once SystemError beyond U+10FFFF where it stood alone, else a text that is none, as half a character was."""
    mark = "<" if order == "little" else ">"
    with pytest.raises(Malformed):
        read_npy(npy(f"'{mark}U1'", "(1,)", number.to_bytes(4, order)))  # type: ignore[arg-type]  # one of the two
    assert read_npy(npy(f"'{mark}U2'", "(1,)", "é😀".encode(f"utf-32-{order[0]}e"))).tolist() == ["é😀"]
    assert read_npy(npy(f"'{mark}U2'", "(0,)")).dtype == np.dtype(object)


def test_f10_what_a_request_wants_of_an_output_can_be_sent_back() -> None:
    """Once echoed as it came, nested more deeply than a frame's header may be: the worker ended."""
    deep = b"[" * 300 + b"]" * 300
    given = (
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"outputs":[{"name":"y","parameters":{%b}}]}'
    )
    found = open_inference.read(given % (b'"binary_data":true,"other":' + deep), {}, FACE)
    encode_frame({"type": "done", "items": [{"id": "r", "echo": found.echo}]})
    assert found.echo == {"outputs": [{"name": "y", "parameters": {"binary_data": True, "classification": 0}}]}
    with pytest.raises(Malformed, match="classification"):
        open_inference.read(given % (b'"classification":' + deep), {}, FACE)


@pytest.mark.parametrize(
    "head", [b"GET http://[/ HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n"]
)
def test_f11_what_python_cannot_read_in_a_head_is_malformed(head: bytes) -> None:
    """Once a ValueError of urlsplit() or int(), which waitress answers by closing the connection."""
    reading = ours(head + b"Host: a\r\n\r\n", limits=Adjustments(max_request_header_size=1 << 16))
    assert (reading.end, reading.requests) == ("refused", [])
    assert reading.reason.startswith("400 Unreadable head")


def test_every_finding_has_its_test() -> None:
    rows = re.findall(r"^\| F(\d+) \|.*", LIST.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [str(number) for number in range(1, len(rows) + 1)]
    for number, line in enumerate(re.findall(r"^\| F\d+ \|.*", LIST.read_text(encoding="utf-8"), re.MULTILINE), 1):
        names = re.findall(r"`([\w/]+\.py::\w+)`", line)
        assert names, f"F{number}"
        assert missing_tests(names) == []
