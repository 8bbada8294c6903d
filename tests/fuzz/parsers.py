"""What reads bytes from outside, each as a function of bytes alone: for hypothesis (``test_parsers.py``) and for
atheris (``atheris_parsers.py``).

Each target has the errors that its documentation names; every other one is a finding. So is an error whose sentence
cannot be sent on.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from engine.codecs import arrays, json_inputs, media_types, multipart, open_inference, tables, tensorflow_serving, texts
from engine.codecs.wire_inputs import ModelFace, WireInputs
from engine.errors import EngineError, InputTooLarge, Malformed, UnusableInput
from engine.jobs import read_answer
from engine.model_spec import TensorSpec
from engine.protocol import Limits, ProtocolError, encode_frame, read_frame
from engine.worker.answers import error_json
from engine.worker.images import decode_image, sniff_image
from tests.fuzz.framing import ours
from tests.fuzz.wire_requests import COLUMNS, VALID, npy, npz
from tests.trust.catalogue import CASES, picture

NUMBERS = TensorSpec("image", "float32", (-1, 8, 8, 1))
FACES = (
    ModelFace("m", (NUMBERS,), (TensorSpec("probabilities", "float32", (-1, 10)),), images=True),
    ModelFace("m", (TensorSpec("image", "str", (-1,)), TensorSpec("b", "int8", (2, -1)))),
    ModelFace("m", (TensorSpec("image", "int64", (-1,)),), texts=True),
    ModelFace("m", (TensorSpec("features", "float32", (-1, 3)),), tables=True),
    ModelFace("m", ()),
)
"""Models that take a picture; text and whole numbers; text by its meaning; rows; nobody knows what."""
FRAME_LIMITS = Limits(header_bytes=4096, buffers=64, total_bytes=1 << 16)


@dataclass(frozen=True)
class Target:
    """``read`` may raise ``errors`` alone."""

    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def check(self, data: bytes) -> None:
        told = None
        try:
            self.read(data)
        except self.errors as error:
            told = error
        if isinstance(told, EngineError):
            encode_frame({"type": "t"} | error_json(told))
            assert told.message.strip()
            assert len(told.message) < 2000 + len(data)


def _npy(data: bytes) -> None:
    array = arrays.read_npy(data)
    assert array.dtype.kind in "biufO"
    if array.dtype.kind == "O":  # NumPy makes texts of what are no characters, and says nothing
        codes = [ord(character) for text in array.ravel() for character in text]
        assert not any(code > 0x10FFFF or 0xD800 <= code <= 0xDFFF for code in codes)
    for declared in ("float32", "int8", "str", "bool"):
        try:
            arrays.to_dtype("x", array, declared)
        except UnusableInput:
            continue


def _choice(data: bytes) -> tuple[int, bytes]:
    """A number from the first byte, and the rest."""
    return (data[0], data[1:]) if data else (0, data)


def _settled(found: WireInputs) -> None:
    """What a codec found is one thing, and can be told to others."""
    encode_frame({"type": "done", "items": [{"echo": found.echo}]})
    assert sum(map(bool, (found.tensors, found.encoded, found.texts, found.rows))) <= 1
    for array in found.tensors.values():
        assert array.dtype.kind in "biufO"


def _open_inference(data: bytes) -> None:
    """A body, and how much of it is JSON: all, the part before a line feed, or none."""
    choice, body = _choice(data)
    header = (None, 0, body.find(b"\n") + 1 or len(body), choice * 8)[choice % 4]
    open_inference.scheduling(body, header)
    _settled(open_inference.read(body, {} if header is None else {"header_bytes": header}, FACES[choice // 4 % 5]))


def _tensorflow_serving(data: bytes) -> None:
    choice, body = _choice(data)
    verb = ("predict", "predict", "classify", "regress")[choice % 4]
    _settled(tensorflow_serving.read(body, {"verb": verb}, FACES[choice // 4 % 5]))


def _native_json(data: bytes) -> None:
    choice, body = _choice(data)
    found = json_inputs.parse_input(body)
    if isinstance(found, json_inputs.NestedTensors):
        declared = {tensor.name: tensor for tensor in FACES[choice % 5].inputs}
        named = {name: arrays.nested_to_array(name, v, declared.get(name)) for name, v in found.values.items()}
        arrays.fit_inputs(named, FACES[choice % 5].inputs)


def _multipart(data: bytes) -> None:
    """The Content-Type's end, a line feed, the body."""
    head, _, body = data.partition(b"\n")
    for part in multipart.parse_files(body, "multipart/form-data; " + head.decode("latin-1")):
        media_types.media_type(part.content_type)
        media_types.charset(part.content_type)


def _image(data: bytes) -> None:
    assert sniff_image(data) is None or media_types.recognise(data) is not None or data[:4] in _RARE
    media_types.looks_like_text(data)
    if len(data) < 24 or max(data[16:24]) < 200 or not data.startswith(b"\x89PNG"):  # a bomb is another test's
        decode_image(data)


_RARE = frozenset({b"II+\x00", b"MM\x00+"}) | {bytes([0, 0, 0, n]) for n in range(256)}
"""Big TIFF, and brands of HEIF that stand second: pictures to the decoder alone."""


def _table(data: bytes) -> None:
    table = tables.parse_csv(data)
    assert all(len(row) == len(table.columns) for row in table.rows)
    for cell in table.rows[0]:
        try:
            tables.parse_number(cell, table.decimal_comma)
        except ValueError:
            continue


def _text(data: bytes) -> None:
    choice, body = _choice(data)
    texts.decode_text(body, (None, "utf-8", "utf-16", "latin1", "iso-8859-15", "nonsense")[choice % 6])


def _frames(data: bytes) -> None:
    """Frames one after the other; an answer of a worker in them is read as the app reads it."""
    stream = io.BytesIO(data)
    while (message := read_frame(stream, FRAME_LIMITS)) is not None:
        if message.type == "done":
            read_answer(message.header.get("item"), iter(message.buffers))


def _frame(header: dict[str, object], *buffers: bytes) -> bytes:
    return b"".join(bytes(piece) for piece in encode_frame(header, buffers))


def _answer(result: object, *buffers: bytes, **more: object) -> bytes:
    return _frame({"type": "done", "item": {"id": "r", "timing": {"infer": 1.5}, "result": result} | more}, *buffers)


def _bodies(*names: str, before: bytes = b"") -> tuple[bytes, ...]:
    return tuple(before + VALID[name].body for name in names)


def _with_line_feed(name: str, before: bytes) -> bytes:
    """A body of the binary extension with a line feed behind its JSON."""
    body, size = VALID[name].body, int(VALID[name].fields[0][1])
    return before + body[:size] + b"\n" + body[size:]


_FLOATS = {"name": "y", "dtype": "float32", "shape": [2]}
_TEXT_V2 = (
    b'\x08{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":["a"],"parameters":{"content_type":"str"}}],'
    b'"parameters":{"priority":1,"timeout":5},"outputs":[{"name":"y","parameters":{"classification":1}}]}'
)
_TWO_V2 = (
    b'\x06{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}},'
    b'{"name":"b","shape":[2,1],"datatype":"INT8","parameters":{"binary_data_size":2}}]}\n\1\0\0\0xyz'
)
_SEEDS: dict[str, tuple[bytes, ...]] = {
    "npy": (
        npy([[1.5, 2]]), npy(["é", "ab"]), npy([b"ab", b"c"]), npy([True]), npy([]),
        npy([1 << 40]).replace(b"<i8", b">i8"),
    ),
    "npz": (npz(a=[1, 2], b=["x"]), npz()),
    "open-inference": (
        *_bodies("v2", before=b"\0"), _with_line_feed("v2-binary", b"\x02"),
        _with_line_feed("v2-binary-bytes", b"\x02"),
        b"\x01" + picture("L", "PNG"), _TEXT_V2, _TWO_V2,
    ),
    "tensorflow-serving": (
        *_bodies("tfs-rows", "tfs-columns", "tfs-b64", before=b"\0"), *_bodies("tfs-classify", before=b"\x0e"),
        b'\x04{"inputs":{"image":["a",{"b64":"YQ=="}],"b":[[1],[2]]},"signature_name":"x"}', b'\0{"instances":[NaN]}',
    ),
    "native-json": (
        *_bodies("json-image", "json-inputs", "json-rows", before=b"\0"), b'\0{"text":"a"}',
        b'\x04{"inputs":{"a":[[1,2.5],[true,3]],"b":["x"]}}', b'\x01{"inputs":{"image":["x"],"b":[[1],[2]]}}',
    ),
    "multipart": (
        b"boundary=cut\n" + VALID["form"].body, b'boundary="cut"; charset=x\n' + VALID["form-of-two"].body,
        b"boundary=c\n--c\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--c--\r\n",
    ),
    "image": (
        picture("L", "PNG"), picture("P", "PNG"),
        *(case.body for case in CASES if case.number == 21 and len(case.body) < 3000),
    ),
    "table": (
        f"{','.join(COLUMNS)}\n1,2,3\n".encode(), 'a;b\r\n"1,5";"x""y"\r\n'.encode("utf-16"), b"sep=;\na;b\n1;2\n",
        b"a\tb\n\xe9\t\n",
    ),
    "text": (b"\0hello", b"\x02" + "hé".encode("utf-16"), b"\x03\xe9", b"\0\xff\xfe\0\0a\0\0\0"),
    "frames": (
        _frame({"type": "t", "a": [1]}, b"abc", b"") + _frame({"type": "hello", "pid": 1}),
        _answer({"kind": "outputs", "tensors": [_FLOATS]}, bytes(8), rows=1, echo={}),
        _answer(
            {"kind": "predictions", "value": [{"$part": 0}, {"$part": 1}],
             "parts": [{"kind": "bytes"}, {"kind": "tensor"} | _FLOATS]},
            b"png", bytes(8),
        ),
        _answer({"kind": "results", "value": [{"input": 0}]}), _answer(None, error={"code": "x", "message": "y"}),
    ),
    "http": (
        VALID["image"].wire(), VALID["image-in-chunks"].wire(), VALID["waits"].wire() + VALID["head"].wire(),
    ),
}  # fmt: skip
_READS: dict[str, tuple[Callable[[bytes], object], tuple[type[Exception], ...]]] = {
    "npy": (_npy, (Malformed,)),
    "npz": (arrays.read_npz, (Malformed, InputTooLarge)),
    "open-inference": (_open_inference, (Malformed, UnusableInput)),
    "tensorflow-serving": (_tensorflow_serving, (Malformed, UnusableInput)),
    "native-json": (_native_json, (Malformed, UnusableInput)),
    "multipart": (_multipart, (Malformed, InputTooLarge, UnusableInput)),
    "image": (_image, (UnusableInput,)),
    "table": (_table, (UnusableInput,)),
    "text": (_text, (UnusableInput, InputTooLarge)),
    "frames": (_frames, (ProtocolError,)),
    "http": (ours, ()),
}
TARGETS = {name: Target(*_READS[name], _SEEDS[name]) for name in _READS}
