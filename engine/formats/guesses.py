"""What follows from a tensor signature alone: task, layout, size, colours. Nothing here overrides what was stated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.detection_heads import Head, recognise_head
from engine.model_spec import ASSUMED, TENSOR_SIGNATURE, ModelSpec, TensorSpec
from engine.segmentation_heads import map_of_named_classes

_PIXEL_DTYPES = frozenset({"float16", "float32", "float64", "bfloat16", "uint8"})
_FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})
_LEAST_SIDE = 8
"""Below this many pixels a side, three dimensions are more likely a sequence than a picture."""


def picture_of(tensor: TensorSpec) -> dict[str, Any] | None:
    """``layout``, ``size`` (None where free) and ``channel_order`` (absent where not told) of a tensor that can hold
    one picture per row, else None."""
    if tensor.dtype not in _PIXEL_DTYPES:
        return None
    shape = tensor.shape
    if len(shape) == 4 and shape[3] in (1, 3):
        layout, height, width, channels = "nhwc", shape[1], shape[2], shape[3]
    elif len(shape) == 4 and shape[1] in (1, 3):
        layout, height, width, channels = "nchw", shape[2], shape[3], shape[1]
    elif len(shape) == 3 and shape[1] == shape[2] and shape[1] >= _LEAST_SIDE:
        layout, height, width, channels = "nhw", shape[1], shape[2], 1
    else:
        return None
    facts: dict[str, Any] = {"layout": layout}
    if height > 0 and width > 0:
        facts["size"] = (height, width)
    if channels == 1:
        facts["channel_order"] = "grayscale"
    return facts


def with_task(spec: ModelSpec) -> ModelSpec:
    """``spec`` with the task its signature suggests, where none was stated."""
    if "task" in spec.evidence:
        return spec
    single = spec.inputs[0] if len(spec.inputs) == 1 else None
    classes = len(spec.outputs) == 1 and len(spec.outputs[0].shape) == 2 and spec.outputs[0].dtype in _FLOATS
    if single is not None and classes and picture_of(single) is not None:
        return _with_evidence(replace(spec, task="image-classification"), "task", TENSOR_SIGNATURE)
    if single is not None and (reason := _class_map(spec, single)):
        source = f"{spec.evidence['labels']}, {TENSOR_SIGNATURE} ({reason})"
        return _with_evidence(replace(spec, task="image-segmentation"), "task", source)
    head = _head(spec, single) if single is not None else None
    if single is not None and head is not None:
        stated = replace(spec, postprocessing=replace(spec.postprocessing, head=head.kind))
        stated = _with_evidence(stated, "postprocessing.head", head.reason)
        if head.kind.startswith("yolo") and "preprocessing.resize" not in spec.evidence:
            stated = replace(stated, preprocessing=replace(stated.preprocessing, resize="letterbox"))
            stated = _with_evidence(stated, "preprocessing.resize", f"{ASSUMED} (what models with such a head take)")
        return _with_evidence(replace(stated, task="object-detection"), "task", f"{TENSOR_SIGNATURE} ({head.reason})")
    if single is not None and spec.columns and len(single.shape) == 2 and single.dtype in _FLOATS:
        return _with_evidence(
            replace(spec, task="tabular-classification"), "task", spec.evidence.get("columns", TENSOR_SIGNATURE)
        )
    return spec


def _head(spec: ModelSpec, single: TensorSpec) -> Head | None:
    """The head of a detector whose outputs leave no doubt: by their names, or by as many cells as its input has."""
    picture = picture_of(single)
    if picture is None:
        return None
    shapes = {tensor.name: tensor.shape for tensor in spec.outputs}
    head = recognise_head(shapes, len(spec.labels), picture.get("size"))
    return head if head is not None and head.certain else None


def _class_map(spec: ModelSpec, single: TensorSpec) -> str:
    """Why the only output is a score of each class that is named for each pixel, "" where it may be anything else."""
    picture = picture_of(single)
    if picture is None or len(spec.outputs) != 1 or spec.outputs[0].dtype not in _FLOATS:
        return ""
    return map_of_named_classes(spec.outputs[0].name, spec.outputs[0].shape, len(spec.labels), picture.get("size"))


def with_picture_fields(spec: ModelSpec) -> ModelSpec:
    """``spec`` with layout, size, colours and range of its picture input, where those were not stated."""
    picture = picture_of(spec.inputs[0]) if len(spec.inputs) == 1 else None
    if picture is None or not spec.task.startswith(("image-", "object-", "depth-", "keypoint-")):
        return spec
    facts = dict(picture)
    if spec.inputs[0].dtype == "uint8":
        facts["scaling"] = "0..255"
    new = {key: value for key, value in facts.items() if f"preprocessing.{key}" not in spec.evidence}
    evidence = {f"preprocessing.{key}": TENSOR_SIGNATURE for key in new}
    return replace(spec, preprocessing=replace(spec.preprocessing, **new), evidence=spec.evidence | evidence)


def _with_evidence(spec: ModelSpec, key: str, source: str) -> ModelSpec:
    return replace(spec, evidence=spec.evidence | {key: source})
