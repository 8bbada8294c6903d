"""What Ultralytics' exporter writes about a model beside its weights: task, class names, picture size.

Layout: ``Exporter.metadata`` in ultralytics/engine/exporter.py (8.x), as the extra file ``config.txt`` (JSON) of a
TorchScript archive and as ``metadata_props`` (Python literals as text) of an ONNX file. Preprocessing of its
classifiers: ``classify_transforms`` in ultralytics/data/augment.py, of its detectors ``LetterBox`` there; their
``conf`` and ``iou``: ultralytics/cfg/default.yaml and engine/predictor.py. No code of the package is used.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.detection_heads import recognise_head
from engine.keypoint_heads import COCO_POINTS, COCO_SKELETON, recognise_keypoints
from engine.model_spec import ASSUMED, ModelSpec, Postprocessing, Preprocessing, TensorSpec
from engine.segmentation_heads import Head as SegmentationHead
from engine.segmentation_heads import recognise_segmentation

MAX_TEXT = 4 << 20
MAX_CLASSES = 100_000
_MAX_NESTING = 16
TASKS = ("classify", "detect", "segment", "pose", "obb", "semantic", "depth")


@dataclass(frozen=True, slots=True)
class UltralyticsConfig:
    """``size`` is (height, width) in pixels, ``batch`` the rows the graph was exported for, -1 where they are free."""

    task: str
    labels: tuple[str, ...]
    size: tuple[int, int] | None
    channels: int
    batch: int
    points: tuple[int, int] | None = None
    """How many key points there are, and how many numbers each has (``kpt_shape``)."""
    point_names: tuple[str, ...] = ()


def from_json(text: bytes) -> UltralyticsConfig | None:
    """The ``config.txt`` of a TorchScript archive; None where it is another program's."""
    try:
        value = json.loads(text) if len(text) <= MAX_TEXT else None
    except (ValueError, RecursionError):
        return None
    return _config(value) if isinstance(value, dict) else None


def from_metadata(props: Mapping[str, str]) -> UltralyticsConfig | None:
    """The ``metadata_props`` of an ONNX file, whose values are Python literals; None where they are others'."""
    if props.get("task") not in TASKS or "names" not in props:
        return None
    values: dict[str, Any] = {"task": props["task"]}
    for key in ("names", "imgsz", "batch", "channels", "args", "dynamic", "kpt_shape", "kpt_names"):
        if key in props:
            values[key] = _literal(props[key])
    return _config(values)


def _literal(text: str) -> Any:
    """A Python literal, None where the text is none. Nothing is evaluated; depth and length are bounded."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if len(text) > MAX_TEXT or deepest > _MAX_NESTING:
        return None
    try:
        with warnings.catch_warnings():
            # A class name with an odd backslash is a name, not a reason to warn.
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _config(value: dict[str, Any]) -> UltralyticsConfig | None:
    task, names = value.get("task"), value.get("names")
    if task not in TASKS or not isinstance(names, dict | list):
        return None
    arguments = value.get("args")
    dynamic = value.get("dynamic") or (isinstance(arguments, dict) and arguments.get("dynamic"))
    batch: Any = value.get("batch")
    return UltralyticsConfig(
        task=str(task),
        labels=_labels(names),
        size=_size(value.get("imgsz")),
        channels=value["channels"] if value.get("channels") in (1, 3) else 3,
        batch=batch if _is_whole(batch) and 0 < batch < 1 << 16 and not dynamic else -1,
        points=_points(value.get("kpt_shape")),
        point_names=_point_names(value.get("kpt_names")),
    )


def _points(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list | tuple) and len(value) == 2 and all(_is_whole(number) for number in value):
        count, numbers = value
        return (count, numbers) if 0 < count <= 1000 and numbers in (2, 3) else None
    return None


def _point_names(value: Any) -> tuple[str, ...]:
    """Those of the first class: ``{0: ["nose", …]}``; empty where they are not given so."""
    names = next(iter(value.values()), None) if isinstance(value, dict) else value
    if not isinstance(names, list | tuple) or len(names) > 1000 or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names) if len(set(names)) == len(names) else ()


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _labels(names: dict[Any, Any] | list[Any]) -> tuple[str, ...]:
    """Class names in order; numbers are keys (as text in JSON). Empty where a number is missing."""
    if len(names) > MAX_CLASSES:
        return ()
    if isinstance(names, list):
        return tuple(str(name) for name in names)
    by_number = {str(number): str(name) for number, name in names.items()}
    try:
        return tuple(by_number[str(i)] for i in range(len(by_number)))
    except KeyError:
        return ()


def _size(value: Any) -> tuple[int, int] | None:
    sides = [value, value] if _is_whole(value) else value
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(_is_whole(side) for side in sides):
        return None
    height, width = sides
    return (height, width) if 0 < height <= 30_000 and 0 < width <= 30_000 else None


def with_config(spec: ModelSpec, config: UltralyticsConfig, where: str) -> ModelSpec:
    """``spec`` with what ``config`` states; ``where`` names its place (``best.onnx: metadata_props``).

    Classifiers, detectors, models of masks and of key points are ready to use. Of the other tasks the names and the
    size are kept and the raw tensors answered.
    """
    evidence: dict[str, str] = {}
    widths = [t.shape[1] for t in spec.outputs if len(t.shape) == 2 and t.shape[1] > 0]
    if config.labels and widths and len(config.labels) not in widths:
        evidence["labels"] = f"{ASSUMED} ({where} has {len(config.labels)} names, the model {widths[0]} classes)"
    elif config.labels:
        spec, evidence["labels"] = replace(spec, labels=config.labels), f"{where} names"
    size = config.size
    if not spec.inputs and size is not None:
        image = TensorSpec("images", "float32", (config.batch, config.channels, *size))
        spec = replace(spec, inputs=(image,))
        evidence["inputs"] = f"{where} imgsz, batch (the graph itself carries no input shape)"
    if config.task == "detect" and _may_detect(spec):
        return _with_detector(replace(spec, evidence=spec.evidence | evidence), config, where)
    if config.task == "segment" and _may_segment(spec):
        return _with_masks(replace(spec, evidence=spec.evidence | evidence), config, where)
    if config.task == "pose" and config.points is not None:
        return _with_pose(replace(spec, evidence=spec.evidence | evidence), config, config.points[0], where)
    if config.task != "classify":
        evidence["task"] = f"{where} task {config.task} (answered as raw tensors)"
        return replace(spec, evidence=spec.evidence | evidence)
    # A square: the shorter side is fitted and the middle cut out. Otherwise both sides are stretched.
    square = size is not None and size[0] == size[1]
    preprocessing = Preprocessing(
        size=size,
        resize="shortest" if square else "stretch",
        crop="center" if square else "none",
        channel_order="rgb" if config.channels == 3 else "grayscale",
        layout="nchw",
        scaling="0..1",
    )
    evidence["task"] = f"{where} task classify"
    if size is not None:
        evidence["preprocessing.size"] = f"{where} imgsz"
    for key in ("resize", "crop", "channel_order", "layout", "scaling"):
        evidence[f"preprocessing.{key}"] = f"{where} task classify (Ultralytics' classify_transforms)"
    # The exported head ends in a softmax.
    evidence["postprocessing.activation"] = f"{where} task classify"
    return replace(
        spec,
        task="image-classification",
        preprocessing=preprocessing,
        postprocessing=Postprocessing(activation="none"),
        evidence=spec.evidence | evidence,
    )


def _may_detect(spec: ModelSpec) -> bool:
    """Whether the outputs are boxes, or nothing tells what they are (a TorchScript archive)."""
    shapes = {tensor.name: tensor.shape for tensor in spec.outputs}
    free = any(-1 in shape[1:] for shape in shapes.values() if len(shape) == 3)
    return not shapes or free or recognise_head(shapes, len(spec.labels), None) is not None


def _may_segment(spec: ModelSpec) -> bool:
    """Whether the outputs are boxes with prototypes, or nothing tells what they are."""
    free = any(-1 in tensor.shape[1:] for tensor in spec.outputs)
    return not spec.outputs or free or _segmentation(spec, None) is not None


def _segmentation(spec: ModelSpec, size: tuple[int, int] | None) -> SegmentationHead | None:
    tensors = {tensor.name: (tensor.dtype, tensor.shape) for tensor in spec.outputs}
    head = recognise_segmentation(tensors, len(spec.labels), size)
    return head if head is not None and head.kind.endswith("-masks") else None


def _with_masks(spec: ModelSpec, config: UltralyticsConfig, where: str) -> ModelSpec:
    """Prepared and thresholded as a detector, with masks for its boxes."""
    spec = _with_detector(spec, config, where, "segment")
    head = _segmentation(spec, config.size)
    evidence = {key: value for key, value in spec.evidence.items() if key != "postprocessing.head"}
    if head is not None:
        evidence["postprocessing.head"] = head.reason
    return replace(
        spec,
        task="image-segmentation",
        postprocessing=replace(spec.postprocessing, head=head.kind if head is not None else ""),
        evidence=evidence,
    )


def _with_pose(spec: ModelSpec, config: UltralyticsConfig, count: int, where: str) -> ModelSpec:
    """Prepared and thresholded as a detector, with key points in its boxes. Seventeen without names are people's."""
    names, source = config.point_names, f"{where} kpt_names"
    skeleton: tuple[tuple[str, str], ...] = ()
    if len(names) != count:
        of_people = count == len(COCO_POINTS)
        names = COCO_POINTS if of_people else tuple(f"POINT_{number}" for number in range(count))
        source = f"{where} kpt_shape ({'the points of people in COCO' if of_people else 'without names'})"
    if names == COCO_POINTS:
        skeleton = COCO_SKELETON
    shapes = {tensor.name: tensor.shape for tensor in spec.outputs}
    head = recognise_keypoints(shapes, len(spec.labels), count, config.size)
    free = any(-1 in shape[1:] for shape in shapes.values())
    if shapes and head is None and not free:
        evidence = spec.evidence | {"task": f"{where} task pose (its outputs are no points; answered as raw tensors)"}
        return replace(spec, evidence=evidence)
    spec = _with_detector(spec, config, where, "pose")
    evidence = {key: value for key, value in spec.evidence.items() if key != "postprocessing.head"}
    evidence["keypoints"] = source
    if skeleton:
        evidence["skeleton"] = f"{source} (COCO)"
    if head is not None:
        evidence["postprocessing.head"] = head.reason
    return replace(
        spec,
        task="keypoint-detection",
        keypoints=names,
        skeleton=skeleton,
        postprocessing=replace(spec.postprocessing, head=head.kind if head is not None else ""),
        evidence=evidence,
    )


def _with_detector(spec: ModelSpec, config: UltralyticsConfig, where: str, task: str = "detect") -> ModelSpec:
    preprocessing = Preprocessing(
        size=config.size,
        resize="letterbox",
        resample="inter_linear",
        channel_order="rgb" if config.channels == 3 else "grayscale",
        layout="nchw",
        scaling="0..1",
    )
    source = f"{where} task {task}"
    evidence = {"task": source, "postprocessing.activation": source}
    if config.size is not None:
        evidence["preprocessing.size"] = f"{where} imgsz"
    for key in ("resize", "resample", "channel_order", "layout", "scaling"):
        evidence[f"preprocessing.{key}"] = f"{source} (Ultralytics' LetterBox)"
    for key in ("threshold", "iou"):
        evidence[f"postprocessing.{key}"] = f"{source} (the default of Ultralytics' predict)"
    shapes = {tensor.name: tensor.shape for tensor in spec.outputs}
    head = recognise_head(shapes, len(spec.labels), config.size)
    if head is not None:
        evidence["postprocessing.head"] = head.reason
    return replace(
        spec,
        task="object-detection",
        preprocessing=preprocessing,
        postprocessing=Postprocessing(threshold=0.25, iou=0.7, head=head.kind if head is not None else ""),
        evidence=spec.evidence | evidence,
    )
