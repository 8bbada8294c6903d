"""keypoint-detection: a picture in, named points out, in pixels of the picture as people see it.

An answer is ``[{"label", "score", "box", "keypoints": [{"label", "x", "y", "score"}]}]``, best first: the box as
object-detection has it; heat maps and bare coordinates, which know of one thing in the picture, give one entry without
``label``, ``score`` and ``box``. A point's ``score`` is None where the model gives none. The pipelines of Hugging Face
have no such task; the words are those of its ``object-detection`` and of its pose models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.codecs.arrays import shape_text
from engine.detection_heads import Head as BoxHead
from engine.errors import EngineError, LoadFailed, UnusableInput
from engine.keypoint_heads import HEADS, Head, recognise_keypoints
from engine.model_spec import ModelSpec
from engine.worker.tasks import classification
from engine.worker.tasks.base import CONTEXT, Arrays, Params, TableRows, not_taken
from engine.worker.tasks.detection_outputs import read_row
from engine.worker.tasks.placed_pictures import PlacedPictures
from engine.worker.tasks.placement import Placement
from engine.worker.tasks.suppression import NonMaxSuppression

THRESHOLD, IOU, MOST = 0.25, 0.7, 300
"""What Ultralytics' predict takes."""
_EDGES = ("xmin", "ymin", "xmax", "ymax")
Floats = NDArray[np.float64]


class KeypointDetection:
    """See :class:`engine.worker.tasks.base.Task`."""

    takes_images = True
    takes_tables = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._pictures = PlacedPictures(spec, "A model of key points")
        self._suppression: NonMaxSuppression | None = None

    def check(self) -> None:
        self._pictures.check()
        post = self._spec.postprocessing
        if post.activation not in ("none", "sigmoid"):
            raise LoadFailed(f"The activation {post.activation!r} is not none or sigmoid.")
        if post.head not in ("", *HEADS):
            raise LoadFailed(f"The head {post.head!r} is none of {', '.join(HEADS)}.")
        shapes = {t.name: t.shape for t in self._spec.outputs}
        head = self._recognise(shapes, self._pictures.size)
        if head is None and shapes and not any(-1 in shape[1:] for shape in shapes.values()):
            raise LoadFailed(self._unfit(shapes))
        if head is None or head.kind == "yolov8-pose":
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
        outputs = {name: a for name, a in raw.items() if name != CONTEXT and a.dtype.kind in "biuf"}
        answers: list[list[Any] | EngineError] = []
        for row, placement in enumerate(placements):
            try:
                answers.append(self._post_row(outputs, row, placement, params))
            except UnusableInput as error:
                answers.append(error)
        return answers

    def _post_row(self, outputs: Arrays, row: int, placement: Placement, params: Params) -> list[Any]:
        shapes = {name: array.shape for name, array in outputs.items()}
        width, height = placement.tensor
        head = self._recognise(shapes, (height, width))
        if head is None:
            raise UnusableInput(self._unfit(shapes), code="model_error")
        values = outputs[head.output][row].astype(np.float64)
        if not np.isfinite(values).all():
            raise UnusableInput("The model answered this input with values that are not numbers.", code="model_error")
        if head.kind.endswith("-pose"):
            return self._poses(values, head, placement, params)
        scores: Floats | None
        if head.kind == "heat-maps":
            maps = np.moveaxis(values, -1, 0) if head.channels_last else values
            if self._spec.postprocessing.activation == "sigmoid":
                maps = _sigmoid(maps)
            places, scores = peaks(maps)
            places = places * np.array([width / maps.shape[2], height / maps.shape[1]])
        else:
            rows = values.reshape(-1, head.numbers)
            places, scores = rows[:, :2], rows[:, 2] if head.numbers == 3 else None
            if places.size and np.abs(places).max() <= 2.0:
                places = places * np.array([width, height])
        least = params.get("threshold", self._spec.postprocessing.threshold)
        points = self._points(placement.points_to_picture(places), scores)
        if least is not None and scores is not None:
            points = [point for point in points if point["score"] >= least]
        return [{"keypoints": points}] if points else []

    def _poses(self, values: Floats, head: Head, placement: Placement, params: Params) -> list[Any]:
        post = self._spec.postprocessing
        behind = head.points * head.numbers
        by_rows = head.kind == "yolov8-pose" and not head.cells_first
        cells = values.T if by_rows else values
        box_head = BoxHead(head.kind.removesuffix("-pose"), (head.output,), head.reason, cells_first=True)
        boxes_alone = {head.output: cells[np.newaxis, :, :-behind]}
        found = read_row(boxes_alone, 0, box_head, placement.tensor, self._spec.labels, post.activation)
        points = cells[:, -behind:].reshape(len(cells), head.points, head.numbers)
        stated, iou = params.get("threshold", post.threshold), params.get("iou", post.iou)
        likely = np.flatnonzero(found.scores >= (THRESHOLD if stated is None else stated))
        boxes, scores, classes = found.boxes[likely], found.scores[likely], found.classes[likely]
        if found.overlapping:
            assert self._suppression is not None
            order = self._suppression(boxes, scores, classes, IOU if iou is None else iou)
        else:
            order = np.argsort(-scores, kind="stable")
        answer = []
        for at, box in zip(order, placement.to_picture(boxes[order]), strict=True):
            if box[2] <= box[0] or box[3] <= box[1]:
                continue  # filled up to a fixed count with zeros, or outside the picture altogether
            mine = points[likely[at]]
            places = placement.points_to_picture(mine[:, :2])
            answer.append(
                {
                    "label": _name(self._spec.labels, int(classes[at]), "LABEL"),
                    "score": min(1.0, max(0.0, float(scores[at]))),
                    "box": {name: round(float(edge)) for name, edge in zip(_EDGES, box, strict=True)},
                    "keypoints": self._points(places, mine[:, 2] if head.numbers == 3 else None),
                }
            )
        return answer[: int(params.get("top_k", MOST))]

    def _points(self, places: Floats, scores: Floats | None) -> list[dict[str, Any]]:
        names = self._spec.keypoints
        return [
            {
                "label": _name(names, number, "POINT"),
                "x": round(float(x), 2),
                "y": round(float(y), 2),
                "score": None if scores is None else float(scores[number]),
            }
            for number, (x, y) in enumerate(places)
        ]

    def _recognise(self, shapes: Mapping[str, tuple[int, ...]], size: tuple[int, int] | None) -> Head | None:
        spec = self._spec
        return recognise_keypoints(shapes, len(spec.labels), len(spec.keypoints), size, spec.postprocessing.head)

    def _unfit(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        given = ", ".join(f"{name} {shape_text(shape)}" for name, shape in shapes.items()) or "nothing numeric"
        spec = self._spec
        stated = f" as {spec.postprocessing.head!r}" if spec.postprocessing.head else ""
        return (
            f"The model's outputs, {given}, cannot be read{stated} for {len(spec.keypoints)} key points and "
            f"{len(spec.labels)} labels: state keypoints, labels, or head under [postprocessing], in the sidecar "
            f"({', '.join(HEADS)})."
        )


def peaks(maps: Floats) -> tuple[Floats, Floats]:
    """Where each of (points, height, width) maps is highest, (points, 2) x and y in its pixels from their outer edge,
    and how high.

    A quarter of a pixel towards the higher neighbour, as ``get_final_preds`` of Xiao et al., Simple Baselines for Human
    Pose Estimation (2018) does.
    """
    count, height, width = maps.shape
    flat = maps.reshape(count, -1)
    best = flat.argmax(axis=1)
    y, x = np.divmod(best, width)
    places = np.stack([x, y], axis=1).astype(np.float64)
    rows = np.arange(count)
    for axis, (at, last) in enumerate(((x, width - 1), (y, height - 1))):
        inside = (at > 0) & (at < last)
        before, behind = np.maximum(at - 1, 0), np.minimum(at + 1, last)
        lower = maps[rows, y, before] if axis == 0 else maps[rows, before, x]
        higher = maps[rows, y, behind] if axis == 0 else maps[rows, behind, x]
        places[:, axis] += np.where(inside, 0.25 * np.sign(higher - lower), 0.0)
    return places + 0.5, flat[rows, best]


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-values)))


def _name(names: Sequence[str], number: int, word: str) -> str:
    return names[number] if 0 <= number < len(names) else f"{word}_{number}"
