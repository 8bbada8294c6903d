"""object-detection: a picture in, boxes with a label and a score out, in pixels of the picture as people see it.

The shape is that of Hugging Face's ``object-detection`` pipeline: ``{"label", "score", "box": {"xmin", "ymin", "xmax",
"ymax"}}``, whole numbers, best first. Where the pipeline cuts fractions of a pixel off, they are rounded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.codecs.arrays import shape_text
from engine.detection_heads import HEADS, Head, recognise_head
from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.model_spec import ModelSpec
from engine.worker.tasks import classification
from engine.worker.tasks.base import CONTEXT, Arrays, Params, TableRows, not_taken
from engine.worker.tasks.detection_outputs import Found, read_row
from engine.worker.tasks.placed_pictures import PlacedPictures
from engine.worker.tasks.placement import Placement
from engine.worker.tasks.suppression import NonMaxSuppression

DEFAULT_TOP_K = 300
DEFAULT_IOU = 0.7
"""What Ultralytics' predict takes."""
_DEFAULT_THRESHOLDS = {
    "yolov8": 0.25,
    "yolov5": 0.25,
    "end-to-end": 0.25,
    "detr": 0.5,
    "tensorflow": 0.5,
    "litert": 0.5,
}
"""Ultralytics' ``conf``; the threshold of Hugging Face's pipeline, and of TensorFlow's tutorials."""
_EDGES = ("xmin", "ymin", "xmax", "ymax")


class ObjectDetection:
    """See :class:`engine.worker.tasks.base.Task`."""

    takes_images = True
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._pictures = PlacedPictures(spec, "A detector")
        self._suppression: NonMaxSuppression | None = None

    def check(self) -> None:
        self._pictures.check()
        post = self._spec.postprocessing
        if post.activation not in ("none", "softmax", "sigmoid"):
            raise LoadFailed(f"The activation {post.activation!r} is not none, softmax or sigmoid.")
        if post.head not in ("", *HEADS):
            raise LoadFailed(f"The head {post.head!r} is not one of {', '.join(HEADS)}.")
        outputs = self._spec.outputs
        head: Head | None = None
        if outputs:
            shapes = {t.name: t.shape for t in outputs}
            head = recognise_head(shapes, len(self._spec.labels), self._spec.preprocessing.size, post.head)
            if head is None and not any(-1 in shape[1:] for shape in shapes.values()):
                raise LoadFailed(self._unfit(shapes))
        if head is None or head.kind.startswith("yolo"):
            # Here and not with the first picture, which would wait for the library.
            self._suppression = NonMaxSuppression()

    def from_image(self, data: bytes) -> Arrays:
        return self._pictures.from_image(data)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        """``threshold`` and ``iou`` (0 to 1), ``top_k`` (a whole number from 1), also as text. Raises Malformed."""
        checked = dict(classification.read_params(params))
        if (iou := params.get("iou")) is not None:
            checked["iou"] = classification.read_share("iou", iou)
        return checked

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        placements: list[Placement] = list(raw[CONTEXT])
        outputs = {name: array for name, array in raw.items() if name != CONTEXT}
        answers: list[list[Any] | EngineError] = []
        for row, placement in enumerate(placements):
            try:
                answers.append(self._post_row(outputs, row, placement, params))
            except UnusableInput as error:
                answers.append(error)
        return answers

    def _post_row(self, outputs: Arrays, row: int, placement: Placement, params: Params) -> list[Any]:
        post = self._spec.postprocessing
        ordered = [t.name for t in self._spec.outputs if t.name in outputs] or list(outputs)
        shapes = {name: outputs[name].shape for name in ordered if outputs[name].dtype.kind in "biuf"}
        width, height = placement.tensor
        head = recognise_head(shapes, len(self._spec.labels), (height, width), post.head)
        if head is None:
            raise UnusableInput(self._unfit(shapes), code="model_error")
        found = read_row(outputs, row, head, placement.tensor, self._spec.labels, post.activation)
        threshold = params.get("threshold", post.threshold)
        found = _at_least(found, _DEFAULT_THRESHOLDS[head.kind] if threshold is None else threshold)
        order = np.argsort(-found.scores, kind="stable")
        if found.overlapping:
            assert self._suppression is not None
            iou = params.get("iou", post.iou)
            order = self._suppression(found.boxes, found.scores, found.classes, DEFAULT_IOU if iou is None else iou)
        boxes = placement.to_picture(found.boxes[order])
        # What lies outside the picture altogether, or is filled up to a fixed count with zeros, is no box.
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        kept = zip(order[inside], boxes[inside], strict=True)
        top_k = int(params.get("top_k", DEFAULT_TOP_K))
        return [self._entry(found, at, box) for (at, box), _ in zip(kept, range(top_k), strict=False)]

    def _entry(self, found: Found, at: int, box: Any) -> dict[str, Any]:
        number = int(found.classes[at])
        labels = self._spec.labels
        return {
            "label": labels[number] if 0 <= number < len(labels) else f"LABEL_{number}",
            "score": min(1.0, max(0.0, float(found.scores[at]))),
            "box": {name: round(float(edge)) for name, edge in zip(_EDGES, box, strict=True)},
        }

    def _unfit(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        given = ", ".join(f"{name} {shape_text(shape)}" for name, shape in shapes.items()) or "nothing numeric"
        known = f"for {len(self._spec.labels)} labels" if self._spec.labels else "without labels"
        stated = f" as {self._spec.postprocessing.head!r}" if self._spec.postprocessing.head else ""
        return (
            f"The model's outputs, {given}, cannot be read{stated} {known}: state labels, or head under "
            f"[postprocessing], in the sidecar ({', '.join(HEADS)})."
        )


def _at_least(found: Found, threshold: float) -> Found:
    kept = found.scores >= threshold
    return Found(found.boxes[kept], found.scores[kept], found.classes[kept], found.overlapping)
