"""The codecs: bodies to tensors, and everything a body can be wrong in."""

from __future__ import annotations

import base64
import io
import zipfile
from typing import Any

import numpy as np
import pytest

from engine.codecs import arrays, json_inputs, media_types, multipart
from engine.errors import EngineError, InputTooLarge, Malformed, UnusableInput
from engine.model_spec import TensorSpec


def npy(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


# -- media types -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("", None),
        ("Image/PNG", "image/png"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("application/vnd.ms-excel", "application/octet-stream"),
    ],
)
def test_media_type_drops_parameters_and_case(given: str | None, expected: str | None) -> None:
    assert media_types.media_type(given) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"\x00\x00\x00\x1cftypavif", "image/avif"),
        (npy(np.zeros(2)), "application/x-npy"),
        (b"PK\x03\x04", "application/x-npz"),
        (b'\xef\xbb\xbf \n {"rows": []}', "application/json"),
        (b"a,b\n1,2\n", None),
        (b"", None),
    ],
)
def test_recognise_goes_by_the_first_bytes(data: bytes, expected: str | None) -> None:
    assert media_types.recognise(data) == expected


# -- npy and npz -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.arange(4, dtype=">f8"),
        np.array(5, dtype=np.uint8),
        np.zeros((0, 3), dtype=np.float32),
        np.array([True, False]),
    ],
)
def test_read_npy_gives_back_what_numpy_wrote(array: np.ndarray) -> None:
    read = arrays.read_npy(npy(array))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype.newbyteorder("=")
    assert read.shape == array.shape


def test_read_npy_gives_text_as_str_objects() -> None:
    assert arrays.read_npy(npy(np.array([["é", "b"]]))).tolist() == [["é", "b"]]
    assert arrays.read_npy(npy(np.array([b"x", b"yz"]))).tolist() == ["x", "yz"]


def test_pickled_objects_are_never_read() -> None:
    data = npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(Malformed, match="neither numbers nor text"):
        arrays.read_npy(data)


WHOLE = npy(np.arange(6, dtype=np.float32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        WHOLE[:20],
        WHOLE[:-1],
        WHOLE + b"\0",
        WHOLE.replace(b"(6,)", b"(9,)"),
        # A header that claims an exabyte: nothing of that size may be allocated.
        WHOLE.replace(b"(6,), }       ", b"(1152921504,)}"),
        WHOLE.replace(b"'<f4'", b"'<c8'"),
        b"\x93NUMPY\x03\x00" + WHOLE[8:],
    ],
)
def test_damaged_npy_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        arrays.read_npy(data)


def test_read_npz_reads_every_array_by_name() -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.arange(3), b=np.ones((2, 2), dtype=np.float32))
    read = arrays.read_npz(stream.getvalue())
    assert read["a"].tolist() == [0, 1, 2]
    assert read["b"].shape == (2, 2)
    with pytest.raises(Malformed):
        arrays.read_npz(stream.getvalue()[:-30])


def test_an_archive_that_unpacks_to_too_much_is_refused_by_its_directory() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as entry:
        for _ in range(arrays.MAX_UNPACKED_BYTES // (16 << 20) + 1):
            entry.write(bytes(16 << 20))
    assert len(stream.getvalue()) < 4 << 20
    with pytest.raises(InputTooLarge):
        arrays.read_npz(stream.getvalue())


def test_an_archive_with_something_else_in_it_is_malformed() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(Malformed, match=r"document\.xml"):
        arrays.read_npz(stream.getvalue())


# -- dtypes and shapes -------------------------------------------------------------------------------------------------
FLOAT = TensorSpec("x", "float32", (-1, 2))
INT = TensorSpec("x", "int8", (-1,))
BOOL = TensorSpec("x", "bool", (-1,))
TEXT = TensorSpec("x", "str", (-1,))


@pytest.mark.parametrize(
    ("value", "declared", "dtype"),
    [
        ([[1, 2.5]], FLOAT, "float32"),
        ([1, 2], INT, "int8"),
        ([2.0], INT, "int8"),
        ([True], BOOL, "bool"),
        (["a"], TEXT, "object"),
        ([1.5], None, "float32"),
        ([1], None, "int64"),
        (["a"], None, "object"),
        ([], FLOAT, "float32"),
    ],
)
def test_json_numbers_become_the_declared_dtype(value: Any, declared: TensorSpec | None, dtype: str) -> None:
    array = arrays.nested_to_array("x", value, declared)
    assert array.dtype.name == dtype
    assert array.tolist() == value


@pytest.mark.parametrize(
    ("value", "declared", "code"),
    [
        ([1.5], INT, "invalid_dtype"),
        ([128], INT, "invalid_dtype"),
        ([-129], INT, "invalid_dtype"),
        ([1e300], TensorSpec("x", "float32", (-1,)), "invalid_dtype"),
        ([1], BOOL, "invalid_dtype"),
        (["1"], FLOAT, "invalid_dtype"),
        ([None], FLOAT, "invalid_dtype"),
        ([1, "a"], FLOAT, "invalid_dtype"),
        ([1, "a"], None, "invalid_dtype"),
        ([1], TEXT, "invalid_dtype"),
        ([{"a": 1}], FLOAT, "invalid_dtype"),
        ([[1, 2], [3]], FLOAT, "invalid_shape"),
        ([[1, 2], 3], FLOAT, "invalid_shape"),
    ],
)
def test_json_values_that_would_change_their_meaning_are_refused(
    value: Any, declared: TensorSpec | None, code: str
) -> None:
    with pytest.raises(UnusableInput) as caught:
        arrays.nested_to_array("x", value, declared)
    assert caught.value.code == code
    assert "'x'" in caught.value.message


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"y": np.zeros((1, 2))}, "unknown_input", "no input 'y'; its inputs are 'x'"),
        ({}, "unknown_input", "'x' is missing"),
        ({"x": np.zeros((1, 3))}, "invalid_shape", r"\[1, 3\], but the model takes \[any, 2\]"),
        ({"x": np.zeros(2)}, "invalid_shape", "add one"),
        ({"x": np.array([["a", "b"]], dtype=object)}, "invalid_dtype", "float32, not text"),
    ],
)
def test_fit_inputs_says_what_does_not_fit(given: dict[str, np.ndarray], code: str, words: str) -> None:
    with pytest.raises(UnusableInput, match=words) as caught:
        arrays.fit_inputs(given, (FLOAT,))
    assert caught.value.code == code


def test_fit_inputs_takes_what_numpy_makes_by_default() -> None:
    fitted = arrays.fit_inputs({"x": np.zeros((3, 2))}, (FLOAT,))
    assert fitted["x"].dtype == np.float32


# -- JSON --------------------------------------------------------------------------------------------------------------
def test_json_bodies_of_every_form() -> None:
    picture = base64.b64encode(b"picture")
    assert json_inputs.parse_input(b'{"image": "%s"}' % picture) == json_inputs.ImageBytes(b"picture")
    assert json_inputs.parse_input(b'{"image": "data:image/png;base64,%s"}' % picture).data == b"picture"  # type: ignore[union-attr]
    assert json_inputs.parse_input(b'{"rows": [{"a": 1}]}') == json_inputs.Rows([{"a": 1}])
    assert json_inputs.parse_input(b'{"inputs": {"x": [1]}}') == json_inputs.NestedTensors({"x": [1]})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", Malformed),
        (b"{", Malformed),
        (b"[]", Malformed),
        (b"{}", Malformed),
        (b'{"image": "aa==", "rows": []}', Malformed),
        (b'{"image": "aGVsbG8=", "topk": 3}', Malformed),
        (b'{"image": "%%%"}', Malformed),
        (b'{"image": 3}', Malformed),
        (b'{"rows": [3]}', Malformed),
        (b'{"rows": []}', UnusableInput),
        (b'{"inputs": [1]}', Malformed),
        (b'{"inputs": {"x": [NaN]}}', Malformed),
        (b'{"inputs": {"x": [Infinity]}}', Malformed),
        (b'{"rows": [{"a": NaN}]}', Malformed),
        (b'{"text": 5}', Malformed),
        (b'{"rows": ' + b"[" * 100_000, Malformed),
        (b'{"rows": [{"a": ' + b"[" * 120 + b"]" * 120 + b"}]}", Malformed),
        (b'{"inputs": {"x": [' + b"[]," * 4_000_000 + b"[]]}}", Malformed),
        ("\ud800".encode("utf-16", "surrogatepass"), Malformed),
    ],
)
def test_json_that_is_not_an_input(body: bytes, error: type[EngineError]) -> None:
    with pytest.raises(error):
        json_inputs.parse_input(body)


def test_two_million_values_outside_tensors_are_too_many() -> None:
    row = b'{"a": [' + b"0," * 2_000_000 + b"0]}"
    with pytest.raises(Malformed, match="2000000"):
        json_inputs.parse_input(b'{"rows": [' + row + b"]}")


def test_nesting_is_bounded_at_a_hundred() -> None:
    def rows(depth: int) -> bytes:
        return b'{"rows": [{"a": ' + b"[" * depth + b"]" * depth + b"}]}"

    assert json_inputs.parse_input(rows(98))
    with pytest.raises(Malformed, match="100 levels"):
        json_inputs.parse_input(rows(99))


# -- multipart ---------------------------------------------------------------------------------------------------------
def form(*parts: tuple[str, bytes]) -> bytes:
    return b"".join(b"--B\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + b"--B--\r\n"


FILE = 'Content-Disposition: form-data; name="f"; filename="../../etc/passwd"\r\nContent-Type: image/png'
FIELD = 'Content-Disposition: form-data; name="note"'
TYPE = "multipart/form-data; boundary=B"


def test_files_of_a_form_in_order_and_fields_skipped() -> None:
    body = form((FILE, b"one"), (FIELD, b"not a file"), (FILE.replace("image/png", "text/csv"), b"\r\n--two--\r\n"))
    files = multipart.parse_files(body, TYPE)
    assert files == [multipart.FilePart(b"one", "image/png"), multipart.FilePart(b"\r\n--two--\r\n", "text/csv")]


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (form((FILE, b"x")), "multipart/form-data", Malformed),
        (form((FILE, b"x")), "multipart/form-data; boundary=" + "B" * 71, Malformed),
        (form((FILE, b"x"))[:-10], TYPE, Malformed),
        (b"", TYPE, Malformed),
        (b"nothing of the kind", TYPE, Malformed),
        (form(("Content-Type: image/png", b"x")), TYPE, Malformed),
        (form((FIELD, b"x")), TYPE, UnusableInput),
        (form(*[(FIELD, b"")] * (multipart.MAX_PARTS + 1)), TYPE, InputTooLarge),
    ],
)
def test_forms_that_cannot_be_used(body: bytes, content_type: str, error: type[EngineError]) -> None:
    with pytest.raises(error):
        multipart.parse_files(body, content_type)
