"""ONNX files: what is read of them, and what each fault says. The files are made by the onnx package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelCorrupt, ModelError, ModelFormatUnknown, ModelRefused, ModelUnreadable
from engine.formats import describe_model, onnx_graph, onnx_model, protobuf_wire
from engine.keypoint_heads import COCO_POINTS, COCO_SKELETON
from engine.model_spec import ModelSpec, TensorSpec, TrustClass

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def graph(*nodes: Any, initializers: list[Any] | None = None, inputs: list[Any] | None = None) -> Any:
    values = inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    made = nodes or (helper.make_node("MatMul", ["x", "w"], ["y"]),)
    return helper.make_graph(list(made), "g", values, [output], initializers or [numpy_helper.from_array(WEIGHTS, "w")])


def model(inner: Any = None, **changes: Any) -> Any:
    values: dict[str, Any] = {"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 9}
    return helper.make_model(inner or graph(), **(values | changes))


def written(folder: Path, made: Any, name: str = "net.onnx") -> Path:
    file = folder / name
    file.write_bytes(made.SerializeToString())
    return file


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    spec = describe_model(written(tmp_path, model(producer_name="tests")))
    assert (spec.format, spec.runtime, spec.trust_class) == ("onnx", "onnxruntime", TrustClass.DATA)
    assert spec.inputs == (TensorSpec("x", "float32", (-1, 3)),)
    assert spec.outputs == (TensorSpec("y", "float32", (-1, 4)),)
    assert spec.evidence["format"] == "net.onnx: ir_version 9, producer tests"
    assert spec.evidence["runtime"] == "net.onnx: opset_import ai.onnx 17"
    assert spec.evidence["inputs"] == "net.onnx: graph.input"
    assert (spec.postprocessing.activation, spec.evidence["postprocessing.activation"]) == (
        "softmax",
        "net.onnx: graph.node MatMul",
    )


def test_a_number_to_predict_is_taken_for_no_score(tmp_path: Path) -> None:
    file = written(tmp_path, model())
    sidecar = tmp_path / "net.deskside.toml"
    sidecar.write_text('task = "tabular-regression"\ncolumns = ["a", "b", "c"]\n')
    spec = describe_model(file)
    assert (spec.postprocessing.activation, spec.evidence["postprocessing.activation"]) == ("none", "sidecar")
    sidecar.write_text(sidecar.read_text() + '[postprocessing]\nactivation = "sigmoid"\n')
    assert describe_model(file).postprocessing.activation == "sigmoid"


def test_field_numbers_are_those_of_onnx() -> None:
    for message, fields in onnx_graph.FIELDS.items():
        descriptor = onnx
        for part in message.split("."):
            descriptor = getattr(descriptor, part)
        theirs = {field.name: field.number for field in descriptor.DESCRIPTOR.fields}
        assert {name: theirs[name] for name in fields} == fields, message
    for number, name in onnx_graph.DTYPES.items():
        ours = np.dtype(object) if name == "str" else name
        assert name == "bfloat16" or helper.tensor_dtype_to_np_dtype(number) == ours


def test_initializers_are_no_inputs(tmp_path: Path) -> None:
    """Before IR version 4 every initializer was listed among the inputs."""
    listed = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 3]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4]),
    ]
    spec = describe_model(written(tmp_path, model(graph(inputs=listed), ir_version=3)))
    assert spec.inputs == (TensorSpec("x", "float32", (5, 3)),)


def test_scores_that_went_through_a_softmax_get_no_other(tmp_path: Path) -> None:
    nodes = (
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["s"]),
        helper.make_node("Identity", ["s"], ["y"]),
    )
    spec = describe_model(written(tmp_path, model(graph(*nodes))))
    assert (spec.postprocessing.activation, spec.evidence["postprocessing.activation"]) == (
        "none",
        "net.onnx: graph.node Softmax",
    )


def test_an_open_rank_is_told(tmp_path: Path) -> None:
    open_rank = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    spec = describe_model(written(tmp_path, model(graph(inputs=[open_rank]))))
    assert spec.evidence["inputs"] == "assumed (the graph leaves the number of dimensions open: x)"


# -- files that are damaged --------------------------------------------------------------------------------------------
def test_a_file_that_is_cut_off_anywhere_is_corrupt(tmp_path: Path) -> None:
    whole = model().SerializeToString()
    file = tmp_path / "net.onnx"
    for keep in range(1, len(whole)):
        file.write_bytes(whole[:keep])
        with pytest.raises(ModelCorrupt, match=r"^net.onnx cannot be opened, it .*: expected a complete ONNX file"):
            describe_model(file)


@pytest.mark.parametrize(
    "data", [b"hello world, this is text", b"\x80\x02}q\x00.", bytes(500), b"\xff" * 400, b"\x08\x09"]
)
def test_other_bytes_are_corrupt(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(ModelCorrupt, match="expected a complete ONNX file"):
        describe_model(tmp_path / "net.onnx")


def test_an_empty_file_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    for describe in (describe_model, onnx_model.describe):
        with pytest.raises(ModelCorrupt, match=r"net.onnx is empty \(0 bytes\)"):
            describe(tmp_path / "net.onnx")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6)), min_size=1, max_size=6))
def test_mutated_files_raise_nothing_but_sentences(tmp_path: Path, edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(model().SerializeToString())
    for at, put in edits:
        data[at % len(data) : at % len(data) + 2] = put
    (tmp_path / "net.onnx").write_bytes(bytes(data) or b"x")
    problem = ""
    try:
        describe_model(tmp_path / "net.onnx")
    except ModelError as error:
        problem = error.message
    assert problem == "" or problem.startswith("net.onnx")


def test_a_tensor_that_declares_more_than_it_holds_is_corrupt(tmp_path: Path) -> None:
    huge = numpy_helper.from_array(WEIGHTS, "w")
    huge.dims[:] = [1 << 40, 1 << 20]
    with pytest.raises(ModelCorrupt, match=r"its tensor 'w' declares 1,152,921,504,606,846,976 elements, but holds 48"):
        describe_model(written(tmp_path, model(graph(initializers=[huge]))))
    huge.dims[:] = [-3, 4]
    with pytest.raises(ModelCorrupt, match="its tensor 'w' has a negative dimension"):
        describe_model(written(tmp_path, model(graph(initializers=[huge]))))


def test_an_input_of_impossible_size_is_corrupt(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1 << 40, 1 << 20])]
    with pytest.raises(ModelCorrupt, match="it declares 'x' with the impossible shape"):
        describe_model(written(tmp_path, model(graph(inputs=inputs))))


def test_graphs_nested_too_deeply_and_too_many_fields_are_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "MAX_DEPTH", 5)
    inner = graph()
    for _ in range(6):
        inner = graph(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=graph()))
    with pytest.raises(ModelCorrupt, match="its graphs are nested more than 5 deep"):
        describe_model(written(tmp_path, model(inner)))
    monkeypatch.setattr(protobuf_wire, "MAX_FIELDS", 20)
    with pytest.raises(ModelCorrupt) as caught:
        describe_model(written(tmp_path, model()))
    assert caught.value.details == "more than 20 fields"


def test_weights_are_not_read_into_memory(tmp_path: Path) -> None:
    """A gigabyte of weights is described in a process that may grow by far less."""
    resource = pytest.importorskip("resource")
    del resource
    tail = model(graph(initializers=[helper.make_tensor("z", TensorProto.FLOAT, [1], [0.0])])).SerializeToString()
    size = 1 << 30
    tensor = b"\x08" + varint(size // 4) + b"\x10\x01\x42\x01w\x4a" + varint(size)
    part = b"\x2a" + varint(len(tensor) + size) + tensor
    head = b"\x3a" + varint(len(part) + size) + part
    file = tmp_path / "large.onnx"
    with file.open("wb") as handle:
        # Protobuf merges a message that comes twice; here the first holds the weights and the second the rest.
        handle.write(head)
        handle.seek(size, 1)
        handle.write(tail)
    code = (
        "import resource; from pathlib import Path; from engine.formats import describe_model\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"print(len(describe_model(Path({str(file)!r})).outputs))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\nTrue\n", done.stderr


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# -- weights in other files --------------------------------------------------------------------------------------------
def external(location: str, **more: str) -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": location, "offset": "0", "length": "48"} | more).items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model(graph(initializers=[tensor]))


def test_files_with_weights_belong_to_the_model(tmp_path: Path) -> None:
    (tmp_path / "net.onnx.data").write_bytes(WEIGHTS.tobytes())
    spec = describe_model(written(tmp_path, external("net.onnx.data")))
    assert spec.files == (tmp_path / "net.onnx", tmp_path / "net.onnx.data")


def test_missing_and_short_weights_are_named(tmp_path: Path) -> None:
    file = written(tmp_path, external("net.onnx.data"))
    with pytest.raises(ModelCorrupt, match=r"^net.onnx keeps its weights in net.onnx.data, which is missing"):
        describe_model(file)
    (tmp_path / "net.onnx.data").write_bytes(b"\0" * 40)
    with pytest.raises(ModelCorrupt, match=r"net.onnx.data, in which .* is cut off: 40 of at least 48 bytes"):
        describe_model(file)
    (tmp_path / "net.onnx.data").unlink()
    (tmp_path / "net.onnx.data").mkdir()
    with pytest.raises(ModelUnreadable, match=r"net.onnx.data is not a regular file"):
        describe_model(file)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:\\secret", ""])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 100)
    folder = tmp_path / "opened"
    folder.mkdir()
    with pytest.raises(ModelRefused, match="its weights would lie outside its folder"):
        describe_model(written(folder, external(location)))


def test_a_link_to_weights_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 100)
    folder = tmp_path / "opened"
    folder.mkdir()
    (folder / "net.onnx.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelRefused, match=r"net.onnx.data leads outside its folder"):
        describe_model(written(folder, external("net.onnx.data")))


def test_weights_at_no_place_are_corrupt(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"\0" * 100)
    for place in ({"offset": "-5"}, {"offset": "x"}, {"length": "-1"}):
        with pytest.raises(ModelCorrupt, match="its tensor 'w' lies at no place in its file"):
            describe_model(written(tmp_path, external("d", **place)))


# -- operations --------------------------------------------------------------------------------------------------------
def test_an_operation_of_a_library_of_its_own_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    own = helper.make_node("Steal", ["x"], ["y"], domain="evil.corp")
    branch = graph(own)
    for inner in (graph(own), graph(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=graph()))):
        with pytest.raises(ModelRefused, match=r"it needs the operation evil.corp.Steal"):
            describe_model(written(tmp_path, model(inner)))


def test_a_graph_in_several_pieces_is_read_whole(tmp_path: Path) -> None:
    """Protobuf merges a message that comes twice: the last piece is not all that would run."""
    hidden = graph(helper.make_node("Steal", ["x"], ["y"], domain="evil.corp")).SerializeToString()
    file = tmp_path / "net.onnx"
    file.write_bytes(b"\x3a" + varint(len(hidden)) + hidden + model().SerializeToString())
    assert [node.op_type for node in onnx.load(file).graph.node] == ["Steal", "MatMul"]
    with pytest.raises(ModelRefused, match=r"evil.corp.Steal"):
        describe_model(file)


def test_a_function_the_file_brings_along_is_no_library(tmp_path: Path) -> None:
    own = helper.make_node("Double", ["x"], ["y"], domain="my.functions")
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    function = helper.make_function("my.functions", "Double", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.functions", 1)]
    made = model(graph(own), functions=[function], opset_imports=opsets)
    assert describe_model(written(tmp_path, made)).trust_class is TrustClass.DATA
    function.node[0].domain = "evil.corp"
    made = model(graph(own), functions=[function], opset_imports=opsets)
    with pytest.raises(ModelRefused, match=r"evil.corp.Add"):
        describe_model(written(tmp_path, made))


def test_a_graph_compiled_for_a_device_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="../blob", embed_mode=0)
    with pytest.raises(ModelRefused, match=r"compiled for one device \(EPContext\)"):
        describe_model(written(tmp_path, model(graph(node))))


def test_an_input_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [3]))
    inputs = [helper.make_value_info("x", kind)]
    with pytest.raises(ModelFormatUnknown, match="'x' as a optional"):
        describe_model(written(tmp_path, model(graph(inputs=inputs))))


# -- Ultralytics -------------------------------------------------------------------------------------------------------
def ultralytics(**props: str) -> Any:
    made = model()
    known = {"task": "detect", "names": "{0: 'cat', 1: 'dog'}", "imgsz": "[64, 32]", "stride": "32", "batch": "1"}
    for key, value in (known | props).items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return made


def test_ultralytics_detectors_keep_names_and_answer_tensors(tmp_path: Path) -> None:
    spec = describe_model(written(tmp_path, ultralytics(names="['a', 'cat', 'dog', 'z']")))
    assert (spec.task, spec.labels) == ("raw-tensors", ("a", "cat", "dog", "z"))
    assert spec.evidence["task"] == "net.onnx: metadata_props task detect (answered as raw tensors)"


@pytest.mark.parametrize(
    "names",
    ["{0: 'cat', 2: 'dog'}", "__import__('os').getcwd()", "[" * 5000, "{0: 'cat'", "7", "{0: " * 20 + "1" + "}" * 20],
)
def test_names_that_are_no_names_are_left_out(tmp_path: Path, names: str) -> None:
    spec = describe_model(written(tmp_path, ultralytics(names=names)))
    assert (spec.labels, spec.evidence["labels"]) == ((), "assumed")


def test_a_rectangular_classifier_is_stretched_and_wrong_names_are_told(tmp_path: Path) -> None:
    spec = describe_model(written(tmp_path, ultralytics(task="classify")))
    assert (spec.task, spec.preprocessing.size, spec.preprocessing.resize) == (
        "image-classification",
        (64, 32),
        "stretch",
    )
    assert spec.preprocessing.crop == "none"
    assert spec.labels == ()
    assert spec.evidence["labels"] == "assumed (net.onnx: metadata_props has 2 names, the model 4 classes)"


def pose(tmp_path: Path, shape: list[Any], **props: str) -> ModelSpec:
    x = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])]
    y = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape)]
    made = model(helper.make_graph([helper.make_node("Constant", [], ["output0"], value_float=0.0)], "g", x, y))
    known = {"task": "pose", "names": "{0: 'person'}", "imgsz": "[64, 64]", "batch": "1", "kpt_shape": "[17, 3]"}
    for key, value in (known | props).items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return describe_model(written(tmp_path, made))


CELLS = 8 * 8 + 4 * 4 + 2 * 2


def test_ultralytics_poses_are_ready_to_use(tmp_path: Path) -> None:
    spec = pose(tmp_path, [1, 4 + 1 + 51, CELLS])
    assert (spec.task, spec.labels, spec.keypoints) == ("keypoint-detection", ("person",), COCO_POINTS)
    assert spec.skeleton == COCO_SKELETON
    assert (spec.preprocessing.resize, spec.preprocessing.size) == ("letterbox", (64, 64))
    assert (spec.postprocessing.head, spec.postprocessing.threshold) == ("yolov8-pose", 0.25)
    assert spec.evidence["task"] == "net.onnx: metadata_props task pose"
    assert spec.evidence["keypoints"] == "net.onnx: metadata_props kpt_shape (the points of people in COCO)"


def test_poses_of_other_things_keep_their_names(tmp_path: Path) -> None:
    spec = pose(tmp_path, [1, 4 + 1 + 4, CELLS], kpt_shape="[2, 2]", kpt_names="{0: ['tip', 'base']}")
    assert (spec.keypoints, spec.skeleton) == (("tip", "base"), ())
    assert spec.evidence["keypoints"] == "net.onnx: metadata_props kpt_names"
    spec = pose(tmp_path, [1, 4 + 1 + 4, CELLS], kpt_shape="[2, 2]", kpt_names="{0: ['tip']}")
    assert spec.keypoints == ("POINT_0", "POINT_1")
    assert spec.evidence["keypoints"] == "net.onnx: metadata_props kpt_shape (without names)"


@pytest.mark.parametrize("shape", [[1, 4 + 1 + 50, CELLS], [1, 57, 10], [1, 56]])
def test_outputs_that_do_not_fit_the_points_stay_tensors(tmp_path: Path, shape: list[Any]) -> None:
    spec = pose(tmp_path, shape)
    assert (spec.task, spec.keypoints) == ("raw-tensors", ())
    assert spec.evidence["task"].endswith("task pose (its outputs are no points; answered as raw tensors)")


@pytest.mark.parametrize("points", ["[17, 4]", "[0, 3]", "17", "[17]", "['a', 'b']", "[1001, 3]", "os.getcwd()"])
def test_counts_of_points_that_are_none_are_left_out(tmp_path: Path, points: str) -> None:
    spec = pose(tmp_path, [1, 56, CELLS], kpt_shape=points)
    assert spec.task == "raw-tensors"
    assert spec.evidence["task"] == "net.onnx: metadata_props task pose (answered as raw tensors)"
