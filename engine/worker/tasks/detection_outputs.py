"""From the raw output of one picture to boxes in pixels of the model's input, with a score and a class each.

The heads are those of :mod:`engine.detection_heads`. References: ``non_max_suppression`` in ultralytics/utils/ops.py
and yolov5/utils/general.py; ``post_process_object_detection`` in transformers 5.23 (DETR: softmax with a class for
nothing; Conditional and Deformable DETR, RT-DETR: a sigmoid for each class); exporter_lib_v2.py of TensorFlow's Object
Detection API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.detection_heads import Head
from engine.errors import UnusableInput
from engine.worker.tasks.base import Arrays
from engine.worker.tasks.classification import ROUNDING

Floats = NDArray[np.float64]
_BACKGROUNDS = ("???", "background", "__background__")


@dataclass(frozen=True, slots=True)
class Found:
    """``boxes`` (N, 4) are xmin, ymin, xmax, ymax in pixels of the input; ``scores`` (N,), ``classes`` (N,) from 0.
    ``overlapping`` says that one thing may have several boxes."""

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]
    overlapping: bool = False


def read_row(
    raw: Arrays, row: int, head: Head, tensor: tuple[int, int], labels: Sequence[str], activation: str
) -> Found:
    """What ``head`` found in picture ``row``; ``tensor`` is the input's (width, height) in pixels.

    Raises UnusableInput (``model_error``) for values that are not numbers, for scores outside 0 to 1, and for outputs
    that do not belong together.
    """
    parts = [np.asarray(raw[name][row], dtype=np.float64) for name in head.outputs]
    if head.kind in ("tensorflow", "litert"):
        # Rows after the count are left over from other pictures and mean nothing.
        found = _tensorflow(dict(zip(head.outputs, parts, strict=True)), head, tensor, labels)
    elif not all(np.isfinite(part).all() for part in parts):
        raise _not_numbers()
    elif head.kind == "detr":
        found = _detr(parts[0], parts[1], tensor, len(labels), activation)
    elif head.kind == "end-to-end":
        classes = parts[0][:, 5].astype(np.int64)
        found = Found(_in_pixels(parts[0][:, :4], tensor), parts[0][:, 4], classes)
    else:
        found = _yolo(parts[0], head, tensor, activation)
    if not np.isfinite(found.boxes).all() or not np.isfinite(found.scores).all():
        raise _not_numbers()
    if len(found.scores) and (found.scores.min() < -ROUNDING or found.scores.max() > 1.0 + ROUNDING):
        raise UnusableInput(
            "The model's scores do not lie between 0 and 1: set activation under [postprocessing] in the sidecar to "
            "sigmoid, or head to another one.",
            code="model_error",
        )
    return found


def _not_numbers() -> UnusableInput:
    return UnusableInput("The model answered this input with values that are not numbers.", code="model_error")


def corners(boxes: Floats) -> Floats:
    """(N, 4) middle x, middle y, width, height as xmin, ymin, xmax, ymax."""
    half = np.abs(boxes[:, 2:]) / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-values)))


def _in_pixels(boxes: Floats, tensor: tuple[int, int]) -> Floats:
    """Boxes of a whole output in pixels: as they are, or, where none leaves 0 to 1, as shares of the input.

    Ultralytics' exports for TensorFlow give shares, the others pixels. Cells lie all over the picture, so in pixels no
    output stays within its first one.
    """
    is_share = boxes.size > 0 and boxes.max() <= 2.0
    return boxes * np.array([*tensor, *tensor], dtype=np.float64) if is_share else boxes


def _yolo(rows: Floats, head: Head, tensor: tuple[int, int], activation: str) -> Found:
    cells = rows.T if head.kind == "yolov8" and not head.cells_first else rows
    first = 5 if head.kind == "yolov5" else 4
    sure = cells[:, 4:]
    if activation == "sigmoid":
        sure = _sigmoid(sure)
    scores = sure[:, first - 4 :]
    if head.kind == "yolov5":
        scores = scores * sure[:, :1]
    # One class for each cell, the best: what Ultralytics' predict does (multi_label is for validation alone).
    classes = scores.argmax(axis=1)
    boxes = corners(_in_pixels(cells[:, :4], tensor))
    return Found(boxes, scores[np.arange(len(scores)), classes], classes, overlapping=True)


def _detr(logits: Floats, boxes: Floats, tensor: tuple[int, int], labels: int, activation: str) -> Found:
    if logits.ndim != 2 or boxes.shape != (len(logits), 4) or logits.shape[1] < 1:
        raise UnusableInput(
            f"The model answered with logits {list(logits.shape)} and boxes {list(boxes.shape)} for one picture, which "
            "do not belong together.",
            code="model_error",
        )
    pixels = corners(boxes) * np.array([*tensor, *tensor], dtype=np.float64)
    # Of a softmax the last class stands for nothing; with a sigmoid there is none, and a query may be two things.
    softmax = activation == "softmax" or (activation == "none" and logits.shape[1] != labels)
    if softmax:
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = (exponents / exponents.sum(axis=1, keepdims=True))[:, :-1]
        if not shares.size:
            return Found(pixels[:0], np.zeros(0), np.zeros(0, dtype=np.int64))
        classes = shares.argmax(axis=1)
        return Found(pixels, shares[np.arange(len(shares)), classes], classes)
    scores = _sigmoid(logits).ravel()
    best = np.argsort(-scores, kind="stable")[: len(logits)]
    queries, classes = np.divmod(best, logits.shape[1])
    return Found(pixels[queries], scores[best], classes)


def _tensorflow(parts: Arrays, head: Head, tensor: tuple[int, int], labels: Sequence[str]) -> Found:
    litert = head.kind == "litert"
    names = head.outputs if litert else ("detection_boxes", "detection_classes", "detection_scores")
    boxes, classes, scores = (parts[name] for name in names[:3])
    if boxes.ndim != 2 or boxes.shape[1] != 4 or classes.shape != scores.shape or len(scores) != len(boxes):
        shapes = ", ".join(f"{name} {list(part.shape)}" for name, part in parts.items())
        raise UnusableInput(
            f"The model answered with {shapes} for one picture, which do not belong together.", code="model_error"
        )
    count = parts.get(names[3] if litert else "num_detections")
    number = float(count.ravel()[0]) if count is not None and count.size else float(len(scores))
    if not np.isfinite(number):
        raise _not_numbers()
    kept = slice(0, int(max(0.0, min(number, len(scores)))))
    pixels = boxes[kept][:, [1, 0, 3, 2]] * np.array([*tensor, *tensor], dtype=np.float64)
    if not np.isfinite(classes[kept]).all():
        raise _not_numbers()
    numbers = np.rint(classes[kept]).astype(np.int64)
    # The API counts classes from 1, LiteRT from 0 without the background; a list may name the background first.
    has_background = bool(labels) and labels[0].lower() in _BACKGROUNDS
    return Found(pixels, scores[kept], numbers + int(has_background) - (0 if litert else 1))
