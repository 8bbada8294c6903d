"""LiteRT files, read without LiteRT: tensors, quantisation, signatures, metadata, and files that lie."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from flatbuffers import Builder  # type: ignore[import-untyped]  # ships no type information
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ModelCorrupt, ModelError, SidecarInvalid
from engine.formats import describe_model, litert, litert_metadata
from engine.formats.flatbuffer import Table
from engine.model_spec import TensorSpec, TrustClass

pytestmark = pytest.mark.real


def test_the_numbers_of_the_fields_are_those_of_the_schema(tensorflow_files: Path) -> None:
    schema = json.loads((tensorflow_files / "litert_schema.json").read_text())
    ours = {
        "Model": (
            litert.MODEL_VERSION, litert.MODEL_OPERATORS, litert.MODEL_SUBGRAPHS, litert.MODEL_BUFFERS,
            litert.MODEL_METADATA, litert.MODEL_SIGNATURES,
        ),
        "OperatorCode": (litert.OPERATOR_OLD_BUILTIN, litert.OPERATOR_CUSTOM, litert.OPERATOR_BUILTIN),
        "SubGraph": (
            litert.SUBGRAPH_TENSORS, litert.SUBGRAPH_INPUTS, litert.SUBGRAPH_OUTPUTS, litert.SUBGRAPH_OPERATORS,
        ),
        "Operator": (litert.STEP_OPERATOR, litert.STEP_INPUTS, litert.STEP_OUTPUTS),
        "Tensor": (
            litert.TENSOR_SHAPE, litert.TENSOR_TYPE, litert.TENSOR_BUFFER, litert.TENSOR_NAME,
            litert.TENSOR_QUANTISATION, litert.TENSOR_SIGNATURE_SHAPE,
        ),
        "QuantizationParameters": (litert.QUANTISATION_SCALE, litert.QUANTISATION_ZERO),
        "Buffer": (litert.BUFFER_DATA,),
        "Metadata": (litert.METADATA_NAME, litert.METADATA_BUFFER),
        "SignatureDef": (
            litert.SIGNATURE_INPUTS, litert.SIGNATURE_OUTPUTS, litert.SIGNATURE_KEY, litert.SIGNATURE_SUBGRAPH,
        ),
        "TensorMap": (litert.MAP_NAME, litert.MAP_TENSOR),
    }  # fmt: skip
    assert {table: list(fields) for table, fields in ours.items()} == {
        table: list(fields.values()) for table, fields in schema["fields"].items()
    }
    named = {int(number): name for number, name in schema["types"].items()}
    assert {named[n] for n in litert.DTYPES} == {
        "STRING" if dtype == "str" else dtype.upper() for dtype in litert.DTYPES.values()
    }
    assert schema["custom"] == litert.CUSTOM


def test_signatures_and_the_one_a_sidecar_chooses(tensorflow_files: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(tensorflow_files / "sums.tflite", tmp_path))
    spec = describe_model(file)
    assert (spec.format, spec.runtime, spec.trust_class) == ("tflite", "litert", TrustClass.DATA)
    assert spec.signatures == ("add", "double")
    assert spec.inputs == (TensorSpec("x", "float32", (-1, 3)),)
    assert spec.outputs == (TensorSpec("sum", "float32", (-1, 1)),)
    assert spec.evidence["inputs"] == "tensor signature"
    assert spec.evidence["trust_class"] == "sums.tflite: operators are LiteRT's own"
    (tmp_path / "deskside.toml").write_text('signatures = ["double"]\n')
    assert describe_model(file).inputs[0].name == "y"
    (tmp_path / "deskside.toml").write_text('signatures = ["triple"]\n')
    with pytest.raises(SidecarInvalid, match="there are: add, double"):
        describe_model(file)


def test_a_quantised_picture_is_described_by_the_numbers_it_goes_in_as(tensorflow_files: Path) -> None:
    spec = describe_model(tensorflow_files / "int8.tflite")
    assert spec.task == "image-classification"
    assert spec.inputs == (TensorSpec("photo", "int8", (1, 16, 16, 1)),)
    assert spec.preprocessing.scaling == "-128..127"
    assert spec.evidence["preprocessing.scaling"].startswith("tensor signature: scale 0.0039")
    assert spec.preprocessing.size == (16, 16)
    assert spec.preprocessing.channel_order == "grayscale"
    # Scores are answered as the numbers they stand for.
    assert spec.outputs[0].dtype == "float32"
    assert spec.evidence["outputs"] == "tensor signature: scale 0.00390625, zero point -128"


def test_an_operator_that_is_not_litert_s_own_makes_it_a_program(tensorflow_files: Path) -> None:
    spec = describe_model(tensorflow_files / "custom.tflite")
    assert spec.trust_class is TrustClass.PROGRAM
    assert spec.evidence["trust_class"].startswith("custom.tflite: operators Betainc need code")


def metadata(mean: list[float], std: list[float], kind: int = litert_metadata.AXIS_LABELS) -> bytes:
    """A ModelMetadata with one input's normalisation and one output's file of labels."""
    b = Builder(0)

    def vector(values: list[int], *, floats: list[float] | None = None) -> int:
        b.StartVector(4, len(floats if floats is not None else values), 4)
        for value in reversed(floats or []):
            b.PrependFloat32(value)
        for value in reversed(values):
            b.PrependUOffsetTRelative(value)
        return int(b.EndVector())

    def table(count: int, *fields: tuple[int, int, bool]) -> int:
        b.StartObject(count)
        for slot, value, is_offset in fields:
            (b.PrependUOffsetTRelativeSlot if is_offset else b.PrependUint8Slot)(slot, value, 0)
        return int(b.EndObject())

    name = b.CreateString("classes.txt")
    means, stds = vector([], floats=mean), vector([], floats=std)
    unit = table(2, (0, 1, False), (1, table(2, (0, means, True), (1, stds, True)), True))
    units, files = vector([unit]), vector([table(5, (0, name, True), (2, kind, False))])
    inputs, outputs = vector([table(7, (4, units, True))]), vector([table(7, (6, files, True))])
    graphs = vector([table(7, (2, inputs, True), (3, outputs, True))])
    b.Finish(table(8, (3, graphs, True)), file_identifier=b"M001")
    return bytes(b.Output())


@pytest.mark.parametrize(
    ("mean", "std", "kind", "expected"),
    [
        ([127.5], [127.5], 2, ((127.5,), (127.5,), "classes.txt")),
        ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], 3, ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "classes.txt")),
        ([1.0], [0.0], 2, ((), (), "classes.txt")),
        ([], [1.0], 5, ((), (), "")),
    ],
)
def test_metadata(mean: list[float], std: list[float], kind: int, expected: tuple[object, ...]) -> None:
    found = litert_metadata.parse_metadata(metadata(mean, std, kind))
    assert (found.mean, found.std, found.labels_file) == expected
    assert found.colors == ""


@pytest.mark.parametrize("data", [b"", b"12345678", b"\xff\xff\xff\xffM001", b"\x08\0\0\0M001"])
def test_metadata_that_are_none_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        litert_metadata.parse_metadata(data)


def test_metadata_of_another_kind_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        litert_metadata.parse_metadata(metadata([0.0], [255.0]).replace(b"M001", b"M002"))


def test_labels_come_out_of_the_appended_zip(tensorflow_files: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(tensorflow_files / "int8.tflite", tmp_path))
    with zipfile.ZipFile(file, "a") as appended:
        appended.writestr("classes.txt", "one\ntwo\nthree\n")
    assert litert_metadata.read_labels(file, "classes.txt", "") == ("one", "two", "three")
    assert describe_model(file).labels == ()  # nothing in the model names that file
    with pytest.raises(ModelCorrupt, match=r"it holds no other\.txt"):
        litert_metadata.read_labels(file, "other.txt", litert.COMPLETE)


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.6, 0.95])
def test_a_cut_off_file_is_corrupt(tensorflow_files: Path, tmp_path: Path, keep: float) -> None:
    data = (tensorflow_files / "sums.tflite").read_bytes()
    (tmp_path / "cut.tflite").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ModelCorrupt, match=r"cut.tflite cannot be opened, it is cut off or damaged: expected a compl"):
        describe_model(tmp_path / "cut.tflite")


@pytest.mark.parametrize("content", [b"hello world " * 20, b"\x1c\0\0\0TFL3" + bytes(100), b"\xff\xff\xff\xffTFL3"])
def test_a_file_of_other_bytes_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(ModelCorrupt, match=r"model.tflite cannot be opened, it is cut off or damaged"):
        describe_model(tmp_path / "model.tflite")


def test_a_count_beyond_the_file_is_refused_before_it_is_used() -> None:
    b = Builder(0)
    b.StartVector(4, 3, 4)
    for _ in range(3):
        b.PrependInt32(1)
    vector = b.EndVector()
    b.StartObject(1)
    b.PrependUOffsetTRelativeSlot(0, vector, 0)
    b.Finish(b.EndObject())
    data = bytearray(b.Output())
    assert Table.root(bytes(data)).count(0, 10) == 3
    at = data.index(b"\x03\0\0\0\x01\0\0\0")
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    for limit in (10, 1 << 40):
        with pytest.raises(ValueError, match="entries does not belong here"):
            Table.root(bytes(data)).count(0, limit)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), count=st.integers(1, 12), name=st.sampled_from(["sums", "int8", "custom"]))
def test_changed_bytes_cost_one_error(tensorflow_files: Path, tmp_path: Path, seed: int, count: int, name: str) -> None:
    data = bytearray((tensorflow_files / f"{name}.tflite").read_bytes())
    chance = random.Random(seed)
    for _ in range(count):
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    file = tmp_path / "changed.tflite"
    file.write_bytes(data)
    with suppress(ModelError):
        describe_model(file)
