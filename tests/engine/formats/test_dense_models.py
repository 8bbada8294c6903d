"""Models of masks and of depth: which files are recognised as such, by what, and which stay raw tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from engine.errors import ModelCorrupt
from engine.formats import describe_model
from engine.model_spec import ModelSpec, TensorSpec
from tests.engine.formats.test_describe import complete
from tests.engine.formats.weights import VIT, folder_of

LABELS = ("cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "kite", "lynx", "yak")
SEGFORMER = {"image_processor_type": "SegformerImageProcessor", "size": {"height": 48, "width": 40}}


def folder(tmp_path: Path, architecture: str, processor: dict[str, Any] | None) -> ModelSpec:
    config = VIT | {"architectures": [architecture]}
    return complete(describe_model(folder_of(tmp_path / "zoo", config, preprocessor_config__json=processor)))


# -- transformers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "architecture",
    ["SegformerForSemanticSegmentation", "UperNetForSemanticSegmentation", "BeitForSemanticSegmentation",
     "DPTForSemanticSegmentation"],
)  # fmt: skip
def test_a_map_of_classes(tmp_path: Path, architecture: str) -> None:
    spec = folder(tmp_path, architecture, SEGFORMER | {"do_reduce_labels": True})
    assert (spec.task, spec.labels, spec.postprocessing.head) == ("image-segmentation", LABELS, "semantic")
    assert spec.outputs == (TensorSpec("logits", "float32", (-1, 11, -1, -1)),)
    assert (spec.preprocessing.size, spec.preprocessing.resize) == ((48, 40), "stretch")
    assert spec.evidence["task"] == spec.evidence["postprocessing.head"] == "config.json: architectures"
    assert "post_process_semantic_segmentation" in spec.evidence["postprocessing.activation"]


@pytest.mark.parametrize(
    ("architecture", "head", "names"),
    [
        ("MaskFormerForInstanceSegmentation", "maskformer", ["class_queries_logits", "masks_queries_logits"]),
        ("Mask2FormerForUniversalSegmentation", "mask2former", ["class_queries_logits", "masks_queries_logits"]),
        ("DetrForSegmentation", "detr-masks", ["logits", "pred_masks"]),
    ],
)
def test_queries_with_masks(tmp_path: Path, architecture: str, head: str, names: list[str]) -> None:
    spec = folder(tmp_path, architecture, {"image_processor_type": "Mask2FormerImageProcessor"})
    assert (spec.task, spec.postprocessing.head) == ("image-segmentation", head)
    assert [(tensor.name, len(tensor.shape)) for tensor in spec.outputs] == [(names[0], 3), (names[1], 4)]
    assert spec.outputs[0].shape == (-1, -1, 12)
    how = spec.preprocessing
    assert (how.resize, how.resize_size, how.multiple) == ("edges-up", (800, 1333), 32)
    assert spec.evidence["preprocessing.multiple"] == "preprocessor_config.json: image_processor_type"


@pytest.mark.parametrize(
    ("architecture", "processor", "resize", "size", "multiple"),
    [
        ("DPTForDepthEstimation", {"image_processor_type": "DPTImageProcessor", "size": 384}, "stretch", None, 1),
        ("DepthAnythingForDepthEstimation",
         {"image_processor_type": "DPTImageProcessor", "size": {"height": 518, "width": 518},
          "keep_aspect_ratio": True, "ensure_multiple_of": 14}, "least-change", (518, 518), 14),
        ("GLPNForDepthEstimation", {"image_processor_type": "GLPNImageProcessor"}, "multiples", None, 32),
        ("ZoeDepthForDepthEstimation",
         {"image_processor_type": "ZoeDepthImageProcessor", "size": {"height": 384, "width": 512},
          "ensure_multiple_of": 32}, "mirrored", (384, 512), 32),
    ],
)  # fmt: skip
def test_depth(
    tmp_path: Path, architecture: str, processor: dict[str, Any], resize: str, size: Any, multiple: int
) -> None:
    spec = folder(tmp_path, architecture, processor)
    assert (spec.task, spec.outputs) == ("depth-estimation", (TensorSpec("predicted_depth", "float32", (-1, -1, -1)),))
    how = spec.preprocessing
    assert (how.resize, how.resize_size, how.multiple) == (resize, size, multiple)
    assert spec.evidence["task"] == "config.json: architectures"
    assert not spec.evidence["preprocessing.resize"].startswith("assumed")


@pytest.mark.parametrize(
    ("processor", "words"),
    [
        ({"image_processor_type": "Mask2FormerImageProcessor", "size": {"shortest_edge": 5}}, "size: expected"),
        ({"image_processor_type": "GLPNImageProcessor", "size_divisor": 0.5}, "size_divisor: expected a whole number"),
        ({"image_processor_type": "DPTImageProcessor", "do_pad": True, "size_divisor": 14}, "do_pad: expected false"),
        ({"image_processor_type": "ZoeDepthImageProcessor", "keep_aspect_ratio": False}, "keep_aspect_ratio: expected"),
        ({"image_processor_type": "ZoeDepthImageProcessor", "resample": 3}, "resample: expected 2"),
        ({"image_processor_type": "ZoeDepthImageProcessor", "ensure_multiple_of": 0.03}, "ensure_multiple_of"),
    ],
)  # fmt: skip
def test_a_preparation_that_is_not_done_here_is_named(tmp_path: Path, processor: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelCorrupt, match=words):
        folder(tmp_path, "DPTForDepthEstimation", processor)


# -- ONNX --------------------------------------------------------------------------------------------------------------
def onnx(folder: Path, outputs: dict[str, list[Any]], props: dict[str, str] | None = None, side: int = 64) -> ModelSpec:
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])]
    nodes = [helper.make_node("Constant", [], [name], value_float=0.0) for name in outputs]
    told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "g", values, told), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    for key, value in (props or {}).items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    (folder / "net.onnx").write_bytes(made.SerializeToString())
    return complete(describe_model(folder))


ULTRALYTICS = {"task": "segment", "names": "{0: 'cat', 1: 'dog'}", "imgsz": "[64, 64]", "stride": "32", "batch": "1"}
CELLS = 8 * 8 + 4 * 4 + 2 * 2


@pytest.mark.parametrize(
    ("shapes", "head"),
    [
        ({"output0": [1, 4 + 2 + 32, CELLS], "output1": [1, 32, 16, 16]}, "yolov8-masks"),
        ({"output0": [1, 300, 6 + 32], "output1": [1, 32, 16, 16]}, "end-to-end-masks"),
        ({"output0": ["b", 38, "c"], "output1": ["b", 32, "h", "w"]}, "yolov8-masks"),
    ],
)
def test_ultralytics_masks_are_ready_to_use(tmp_path: Path, shapes: dict[str, list[Any]], head: str) -> None:
    spec = onnx(tmp_path, shapes, ULTRALYTICS)
    assert (spec.task, spec.labels) == ("image-segmentation", ("cat", "dog"))
    assert (spec.preprocessing.resize, spec.preprocessing.size) == ("letterbox", (64, 64))
    assert (spec.postprocessing.threshold, spec.postprocessing.iou) == (0.25, 0.7)
    assert spec.evidence["task"] == "net.onnx: metadata_props task segment"
    if shapes["output0"][0] == 1:
        assert spec.postprocessing.head == head
        assert "32 prototypes first" in spec.evidence["postprocessing.head"]


def test_ultralytics_outputs_of_another_kind_stay_tensors(tmp_path: Path) -> None:
    spec = onnx(tmp_path, {"output0": [1, 10, 10]}, ULTRALYTICS)
    assert (spec.task, spec.labels) == ("raw-tensors", ("cat", "dog"))
    assert spec.evidence["task"] == "net.onnx: metadata_props task segment (answered as raw tensors)"


def test_named_classes_and_as_many_channels_are_a_map_of_them(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("sky\nroad\n")
    spec = onnx(tmp_path, {"y": ["n", 2, 32, 32]})
    assert (spec.task, spec.labels) == ("image-segmentation", ("sky", "road"))
    assert (
        spec.evidence["task"]
        == "labels.txt: line order, tensor signature (output 'y' [-1, 2, 32, 32]: 2 channels first)"
    )
    assert (spec.preprocessing.size, spec.preprocessing.layout) == ((64, 64), "nchw")


@pytest.mark.parametrize(
    ("labels", "shape"),
    [("", ["n", 2, 32, 32]), ("", ["n", 1, 64, 64]), ("a\nb\nc\n", ["n", 2, 32, 32]), ("a\nb\n", ["n", 2, 30, 30]),
     ("a\n", ["n", 1, 64, 64]), ("", ["n", 3, 64, 64]), ("a\nb\n", ["n", 2, 32, 16])],
)  # fmt: skip
def test_shapes_alone_are_never_taken_for_a_map(tmp_path: Path, labels: str, shape: list[Any]) -> None:
    if labels:
        (tmp_path / "labels.txt").write_text(labels)
    assert onnx(tmp_path, {"y": shape}).task == "raw-tensors"


@pytest.mark.parametrize("task", ["image-segmentation", "depth-estimation"])
def test_a_sidecar_states_the_task(tmp_path: Path, task: str) -> None:
    (tmp_path / "deskside.toml").write_text(
        f'task = "{task}"\nlabels = ["cell"]\n[preprocessing]\nresize = "multiples"\nmultiple = 16\n'
        '[postprocessing]\nactivation = "sigmoid"\nhead = "semantic"\n'
    )
    spec = onnx(tmp_path, {"y": ["n", 1, 64, 64]})
    assert (spec.task, spec.evidence["task"], spec.labels) == (task, "sidecar", ("cell",))
    assert (spec.preprocessing.layout, spec.preprocessing.multiple) == ("nchw", 16)
    assert spec.postprocessing.head == "semantic"
    assert ModelSpec.from_json(spec.to_json()) == spec
