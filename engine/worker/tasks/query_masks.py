"""Instances and panoptic segments from queries that each give a class and a mask: MaskFormer and its like.

Reference: ``post_process_panoptic_segmentation``, ``post_process_instance_segmentation`` and
``post_process_semantic_segmentation`` of transformers 5.23 (``models/{maskformer,mask2former,detr}/
image_processing_pil_*.py``), with the thresholds of its ``image-segmentation`` pipeline. One thing differs: instances
that overlap keep their whole masks (the library's ``return_binary_maps``); its plain map gives shared pixels to
whichever came last, in an order that is not defined.

Memory: masks are brought to the picture in blocks of rows (:func:`engine.worker.tasks.interpolation.sampled`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.worker.tasks.class_maps import UNSEEN, best_classes, label_of, segments_of
from engine.worker.tasks.interpolation import Axis, Floats, axes, sampled
from engine.worker.tasks.masks import Mask, Segment, whole
from engine.worker.tasks.placement import Placement

SUBTASKS = ("panoptic", "instance", "semantic")
THRESHOLD = 0.9
MASK_THRESHOLD = 0.5
OVERLAP = 0.5
"""The pipeline's ``threshold``, ``mask_threshold`` and ``overlap_mask_area_threshold``."""
MASK2FORMER_SIZE = (384, 384)
MOST_QUERIES = 10_000


def segments(
    logits: Floats,
    masks: Floats,
    placement: Placement,
    labels: Sequence[str],
    kind: str,
    subtask: str,
    threshold: float,
) -> Iterator[Segment]:
    """The segments of ``logits`` (queries, classes + 1; the last class is nothing) and ``masks`` (queries, map height,
    map width; logits too), both finite. ``kind`` is a head of :mod:`engine.segmentation_heads`."""
    shares = _softmax(logits.astype(np.float32, copy=False))
    middle = MASK2FORMER_SIZE if kind == "mask2former" else None
    if subtask == "semantic":
        yield from _semantic(shares, masks, middle, placement, labels)
    elif subtask == "instance" and kind != "detr-masks":
        yield from _instances(shares, masks, middle, placement, labels, threshold)
    else:
        yield from _panoptic(shares, masks, middle, placement, labels, threshold)


def _panoptic(
    shares: Floats,
    masks: Floats,
    middle: tuple[int, int] | None,
    placement: Placement,
    labels: Sequence[str],
    threshold: float,
) -> Iterator[Segment]:
    """Each pixel belongs to the query whose mask, weighed by its score, is the highest there; queries that keep at most
    half of what they claimed are dropped."""
    classes, scores = shares.argmax(axis=1), shares.max(axis=1)
    kept = np.flatnonzero((classes != shares.shape[1] - 1) & (scores > np.float32(threshold)))
    if not len(kept):
        return
    scores = scores[kept]
    likely = _sigmoid(_brought(masks[kept], middle))
    down, across = axes(placement, likely.shape[1:])
    owners = np.full((down.length, across.length), UNSEEN, dtype=np.int16)
    seen = owners[down.begin : down.end, across.begin : across.end]
    claimed, owned = np.zeros(len(kept), dtype=np.int64), np.zeros(len(kept), dtype=np.int64)
    for begin, block in sampled(likely, down, across):
        block *= scores[:, np.newaxis, np.newaxis]
        best = block.argmax(axis=0)
        seen[begin : begin + len(best)] = best
        claimed += np.count_nonzero(block >= np.float32(MASK_THRESHOLD), axis=(1, 2))
        owned += np.bincount(best.ravel(), minlength=len(kept))
    for at, query in enumerate(kept):
        # Compared in float32, as the library's tensors are.
        if owned[at] and claimed[at] and np.float32(owned[at]) / np.float32(claimed[at]) > np.float32(OVERLAP):
            label = label_of(labels, int(classes[query]))
            yield Segment(label, round(float(scores[at]), 6), whole(owners == at))


def _instances(
    shares: Floats,
    masks: Floats,
    middle: tuple[int, int] | None,
    placement: Placement,
    labels: Sequence[str],
    threshold: float,
) -> Iterator[Segment]:
    """As many pairs of a query and a class as there are queries, best first."""
    likely = shares[:, :-1]
    if not likely.size:
        return
    best = np.argsort(-likely.ravel(), kind="stable")[: len(likely)]
    queries, classes = np.divmod(best, likely.shape[1])
    found = []
    for query, number, score in zip(queries, classes, likely.ravel()[best], strict=True):
        # The mask can only lower the score: what lies below already needs no mask.
        if score < threshold:
            continue
        logits = _brought(masks[query], middle)
        inside = logits > 0
        sure = float(_sigmoid(logits)[inside].sum(dtype=np.float64) / (np.count_nonzero(inside) + 1e-6))
        if inside.any() and float(score) * sure >= threshold:
            found.append((round(float(score) * sure, 6), int(number), inside))
    for score, number, inside in sorted(found, key=lambda entry: -entry[0]):
        down, across = axes(placement, inside.shape)
        yield Segment(label_of(labels, number), score, _nearest(inside, down, across, placement))


def _nearest(inside: NDArray[np.bool_], down: Axis, across: Axis, placement: Placement) -> Mask:
    pixels = inside[down.nearest()][:, across.nearest()]
    mask = whole(pixels)
    return Mask(mask.pixels, placement.picture, mask.left + across.begin, mask.top + down.begin)


def _semantic(
    shares: Floats, masks: Floats, middle: tuple[int, int] | None, placement: Placement, labels: Sequence[str]
) -> Iterator[Segment]:
    """A map of classes: each query's mask counts for every class as far as the query is that class."""
    likely = _sigmoid(_brought(masks, middle))
    scores = np.einsum("qc,qhw->chw", shares[:, :-1], likely, optimize=True).astype(np.float32)
    yield from segments_of(best_classes(scores, placement), labels)


def _brought(masks: Floats, size: tuple[int, int] | None) -> Floats:
    """``masks`` (…, height, width) brought to ``size`` (height, width), as they are where that is None."""
    if size is None or masks.shape[-2:] == size:
        return masks.astype(np.float32, copy=False)
    height, width = size
    square = Placement((width, height), (width, height), 0, 0, (width, height))
    down, across = axes(square, (masks.shape[-2], masks.shape[-1]))
    return np.concatenate([block for _, block in sampled(masks, down, across)], axis=-2)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(np.float32(1.0) / (np.float32(1.0) + np.exp(-values)), dtype=np.float32)
