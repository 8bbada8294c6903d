"""image-segmentation: a picture in, the masks of classes, things or both out, each of the picture's own size.

The shape is that of Hugging Face's ``image-segmentation`` pipeline, ``[{"label", "score", "mask"}]`` in its order, and
``area``, the share of the picture. Raw outputs stay at the model's resolution (that is what is kept for refining);
:mod:`class_maps`, :mod:`query_masks` and :mod:`prototype_masks` bring them to the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from engine.codecs.arrays import shape_text
from engine.errors import EngineError, LoadFailed, Malformed, UnusableInput
from engine.model_spec import ModelSpec
from engine.segmentation_heads import HEADS, QUERIES, Head, Tensors, recognise_segmentation
from engine.worker.tasks import class_maps, classification, masks, prototype_masks, query_masks
from engine.worker.tasks.base import CONTEXT, Arrays, Params, TableRows, not_taken
from engine.worker.tasks.masks import Segment
from engine.worker.tasks.placed_pictures import PlacedPictures
from engine.worker.tasks.placement import Placement
from engine.worker.tasks.suppression import NonMaxSuppression

BINARY_THRESHOLD = 0.5
YOLO_THRESHOLD, YOLO_IOU, MOST_BOXES = 0.25, 0.7, 300
"""What Ultralytics' predict takes."""
_NUMERIC = "biuf"


class ImageSegmentation:
    """See :class:`engine.worker.tasks.base.Task`."""

    takes_images = True
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._pictures = PlacedPictures(spec, "A segmentation model")
        self._suppression: NonMaxSuppression | None = None

    def check(self) -> None:
        self._pictures.check()
        post = self._spec.postprocessing
        if post.activation not in ("none", "softmax", "sigmoid"):
            raise LoadFailed(f"The activation {post.activation!r} is not none, softmax or sigmoid.")
        if post.head not in ("", *HEADS):
            raise LoadFailed(f"The head {post.head!r} is none of {', '.join(HEADS)}.")
        tensors = {t.name: (t.dtype, t.shape) for t in self._spec.outputs}
        head = self._recognise(tensors, self._pictures.size)
        if head is None and tensors and not any(-1 in shape[1:] for _, shape in tensors.values()):
            raise LoadFailed(self._unfit({name: shape for name, (_, shape) in tensors.items()}))
        if head is None or head.kind.startswith(("yolo", "end-to-end")):
            # Here and not with the first picture, which would wait for the library.
            self._suppression = NonMaxSuppression()

    def from_image(self, data: bytes) -> Arrays:
        return self._pictures.from_image(data)

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        raise not_taken(self._spec)

    def read_params(self, params: Params) -> Params:
        """``threshold`` and ``iou`` (0 to 1), ``top_k`` (a whole number from 1), ``masks`` (``png``, ``rle``,
        ``polygons``) and ``subtask`` (``panoptic``, ``instance``, ``semantic``). Raises Malformed."""
        checked = dict(classification.read_params(params))
        if (iou := params.get("iou")) is not None:
            checked["iou"] = classification.read_share("iou", iou)
        checked["masks"] = masks.read_form(params)
        if (subtask := params.get("subtask")) is not None:
            if subtask not in query_masks.SUBTASKS:
                raise Malformed(f"subtask must be one of {', '.join(query_masks.SUBTASKS)}.")
            checked["subtask"] = subtask
        return checked

    def post(self, raw: Arrays, params: Params) -> list[list[Any] | EngineError]:
        placements: list[Placement] = list(raw[CONTEXT])
        outputs = {name: a for name, a in raw.items() if name != CONTEXT and a.dtype.kind in _NUMERIC}
        answers: list[list[Any] | EngineError] = []
        for row, placement in enumerate(placements):
            try:
                found = self._segments(outputs, row, placement, params)
                answers.append(masks.entries(islice(found, params.get("top_k")), params["masks"]))
            except UnusableInput as error:
                answers.append(error)
        return answers

    def _segments(self, outputs: Arrays, row: int, placement: Placement, params: Params) -> Iterable[Segment]:
        post, labels = self._spec.postprocessing, self._spec.labels
        width, height = placement.tensor
        tensors = {name: (array.dtype.name, array.shape) for name, array in outputs.items()}
        head = self._recognise(tensors, (height, width))
        if head is None:
            raise UnusableInput(self._unfit({name: shape for name, (_, shape) in tensors.items()}), code="model_error")
        stated = params.get("threshold", post.threshold)
        if head.kind in QUERIES:
            threshold = query_masks.THRESHOLD if stated is None else stated
            return self._by_queries(outputs, row, head, placement, params.get("subtask", "panoptic"), threshold)
        if head.kind in ("semantic", "class-map"):
            threshold = BINARY_THRESHOLD if stated is None else stated
            return self._by_class(outputs[head.outputs[0]][row], head, placement, threshold)
        assert self._suppression is not None
        iou = params.get("iou", post.iou)
        threshold = YOLO_THRESHOLD if stated is None else stated
        overlap = YOLO_IOU if iou is None else iou
        found = prototype_masks.segments(
            outputs, row, head, placement, labels, post.activation, self._suppression, threshold, overlap
        )
        return islice(found, MOST_BOXES)

    def _by_queries(
        self, outputs: Arrays, row: int, head: Head, placement: Placement, subtask: str, threshold: float
    ) -> Iterable[Segment]:
        logits, maps = (outputs[name][row] for name in head.outputs)
        if logits.ndim != 2 or maps.ndim != 3 or len(logits) != len(maps) or logits.shape[1] < 2:
            raise UnusableInput(
                f"The model answered with {head.outputs[0]} {list(logits.shape)} and {head.outputs[1]} "
                f"{list(maps.shape)} for one picture, which do not belong together.",
                code="model_error",
            )
        _check_finite(logits, maps)
        return query_masks.segments(logits, maps, placement, self._spec.labels, head.kind, subtask, threshold)

    def _by_class(self, scores: np.ndarray, head: Head, placement: Placement, threshold: float) -> Iterable[Segment]:
        labels, activation = self._spec.labels, self._spec.postprocessing.activation
        if head.channels == "last":
            scores = np.moveaxis(scores, -1, 0)
        if head.kind == "class-map":
            numbers = scores if head.channels == "none" else scores[0]
            return class_maps.segments_of(class_maps.class_numbers(numbers, placement), labels)
        if head.channels == "none":
            scores = scores[np.newaxis]
        _check_finite(scores)
        scores = scores.astype(np.float32, copy=False)
        if len(scores) == 1 or activation == "sigmoid":
            return class_maps.sure_segments(
                scores, placement, labels, sigmoid=activation == "sigmoid", threshold=threshold
            )
        return class_maps.segments_of(class_maps.best_classes(scores, placement), labels)

    def _recognise(self, tensors: Tensors, size: tuple[int, int] | None) -> Head | None:
        return recognise_segmentation(tensors, len(self._spec.labels), size, self._spec.postprocessing.head)

    def _unfit(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        given = ", ".join(f"{name} {shape_text(shape)}" for name, shape in shapes.items()) or "nothing numeric"
        known = f"for {len(self._spec.labels)} labels" if self._spec.labels else "without labels"
        stated = f" as {self._spec.postprocessing.head!r}" if self._spec.postprocessing.head else ""
        return (
            f"The model's outputs, {given}, cannot be read{stated} {known}: state labels, or head under "
            f"[postprocessing], in the sidecar ({', '.join(HEADS)})."
        )


def _check_finite(*arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise class_maps.not_numbers()
