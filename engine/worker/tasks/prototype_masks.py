"""Instances from boxes with coefficients and a few prototype masks: Ultralytics' ``-seg`` models.

Reference: ``process_mask_native`` and ``crop_mask`` in ultralytics/utils/ops.py (8.x): a mask is the sum of the
prototypes, each times the box's coefficient, brought to the picture, cut at the box, and what is above 0. No code of
the package is used. Only the part under a box is ever brought to the picture's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np

from engine.detection_heads import Head as BoxHead
from engine.segmentation_heads import Head
from engine.worker.tasks.base import Arrays
from engine.worker.tasks.class_maps import label_of, not_numbers
from engine.worker.tasks.detection_outputs import Found, read_row
from engine.worker.tasks.interpolation import Axis, Floats, axes, sampled
from engine.worker.tasks.masks import Mask, Segment
from engine.worker.tasks.placement import Placement
from engine.worker.tasks.suppression import NonMaxSuppression

_ROUNDING = 1e-3
"""Pixels."""


def segments(
    raw: Arrays,
    row: int,
    head: Head,
    placement: Placement,
    labels: Sequence[str],
    activation: str,
    suppression: NonMaxSuppression,
    threshold: float,
    iou: float,
) -> Iterator[Segment]:
    """The instances in picture ``row``, best first. Raises UnusableInput as :func:`read_row` does."""
    rows, prototypes = raw[head.outputs[0]][row], raw[head.outputs[1]][row]
    if head.channels == "last":
        prototypes = np.moveaxis(prototypes, -1, 0)
    if not np.isfinite(prototypes).all() or not np.isfinite(rows).all():
        raise not_numbers()
    kind = head.kind.removesuffix("-masks")
    by_rows = kind == "yolov8" and not head.cells_first
    boxes_alone = rows[: -head.count] if by_rows else rows[:, : -head.count]
    coefficients = rows[-head.count :].T if by_rows else rows[:, -head.count :]
    name = head.outputs[0]
    box_head = BoxHead(kind, (name,), head.reason, head.cells_first)
    found = read_row({name: boxes_alone[np.newaxis]}, 0, box_head, placement.tensor, labels, activation)
    order = _chosen(found, suppression, threshold, iou)
    down, across = axes(placement, (prototypes.shape[1], prototypes.shape[2]))
    flat = prototypes.reshape(head.count, -1).astype(np.float32, copy=False)
    for at, box in zip(order, placement.to_picture(found.boxes[order]), strict=True):
        logits = (coefficients[at].astype(np.float32) @ flat).reshape(prototypes.shape[1:])
        score = min(1.0, max(0.0, float(found.scores[at])))
        yield Segment(label_of(labels, int(found.classes[at])), score, _under(box, logits, down, across, placement))


def _chosen(found: Found, suppression: NonMaxSuppression, threshold: float, iou: float) -> np.ndarray:
    """The numbers of the boxes that stay, best first."""
    likely = np.flatnonzero(found.scores >= threshold)
    boxes, scores, classes = found.boxes[likely], found.scores[likely], found.classes[likely]
    order = suppression(boxes, scores, classes, iou) if found.overlapping else np.argsort(-scores, kind="stable")
    return likely[order]


def _under(box: np.ndarray, logits: Floats, down: Axis, across: Axis, placement: Placement) -> Mask:
    """The mask of ``logits`` (map height, map width) inside ``box``, in pixels of the picture."""
    # A pixel counts where its beginning lies inside, but for what float32 rounds off.
    left, top, right, bottom = (ceil(edge - _ROUNDING) for edge in box)
    down, across = down.part(top, bottom), across.part(left, right)
    height, width = max(0, down.end - down.begin), max(0, across.end - across.begin)
    pixels = np.zeros((height, width), dtype=bool)
    if height and width:
        for begin, block in sampled(logits, down, across):
            np.greater(block, np.float32(0.0), out=pixels[begin : begin + len(block)])
    return Mask(pixels, placement.picture, across.begin, down.begin)
