"""From a map of scores to a class for each pixel of the picture, in bounded memory.

What transformers does (``post_process_semantic_segmentation``): scores are brought to the picture's size, and at each
pixel the best class wins. Done literally, 150 classes of a picture of 100 million pixels would take 60 GB. Here a class
that is the best at all four values around a pixel is taken without computing it, since no mixture of the four can have
another best; what is left is computed in pieces of at most ``PIECE_BYTES``. Beside them there is one int16 a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import UnusableInput
from engine.worker.tasks.classification import ROUNDING
from engine.worker.tasks.interpolation import Axis, Floats, Indices, axes, sampled
from engine.worker.tasks.masks import Bools, Segment, whole
from engine.worker.tasks.placement import Placement

PIECE_BYTES = 32 << 20
MOST_CLASSES = 32_000
MOST_FOUND = 1000
"""How many different classes one picture may show."""
_COUNTED_AT_ONCE = 4 << 20
UNSEEN = -1
"""What a pixel has that a crop has cut off."""

ClassMap = NDArray[np.int16]


def label_of(labels: Sequence[str], number: int) -> str:
    """The name of a class, ``LABEL_3`` without one."""
    return labels[number] if 0 <= number < len(labels) else f"LABEL_{number}"


def best_classes(scores: Floats, placement: Placement) -> ClassMap:
    """The best class of each pixel, (height, width), ``UNSEEN`` where there is none. ``scores`` are (classes, map
    height, map width), finite."""
    if len(scores) > MOST_CLASSES:
        raise UnusableInput(f"The model has {len(scores):,} classes a pixel; at most {MOST_CLASSES:,} can be told.")
    down, across = axes(placement, (scores.shape[1], scores.shape[2]))
    found = np.full((down.length, across.length), UNSEEN, dtype=np.int16)
    seen = found[down.begin : down.end, across.begin : across.end]
    best = scores.argmax(axis=0).astype(np.int16)
    (rows, row_weights), (columns, weights) = down.linear(), across.linear()
    # All rows of pixels between the same two rows of the map, at once.
    starts = np.flatnonzero(np.any(np.diff(rows, axis=0, prepend=-1) != 0, axis=1))
    for begin, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        top, bottom = rows[begin]
        corners = [best[row][columns[:, side]] for row in (top, bottom) for side in (0, 1)]
        seen[begin:end] = corners[0]
        unsure = np.flatnonzero(np.any([corner != corners[0] for corner in corners[1:]], axis=0))
        step = max(1, PIECE_BYTES // (4 * 8 * len(scores)))
        for first in range(0, len(unsure), step):
            places = unsure[first : first + step]
            pair = (scores[:, top], scores[:, bottom])
            _compute(seen, pair, places, (columns[places], weights[places]), row_weights[begin:end], int(begin))
    return found


def _compute(
    seen: ClassMap,
    pair: tuple[Floats, Floats],
    places: Indices,
    along: tuple[Indices, Floats],
    row_weights: Floats,
    begin: int,
) -> None:
    """The best classes of the pixels in columns ``places`` between two rows of the map, computed from the scores."""
    columns, weights = along
    upper, lower = (row[:, columns[:, 0]] * weights[:, 0] + row[:, columns[:, 1]] * weights[:, 1] for row in pair)
    step = max(1, PIECE_BYTES // (4 * 3 * upper.size))
    for first in range(0, len(row_weights), step):
        shares = row_weights[first : first + step]
        mixed = upper[:, np.newaxis] * shares[:, 0, np.newaxis] + lower[:, np.newaxis] * shares[:, 1, np.newaxis]
        rows = slice(begin + first, begin + first + len(shares))
        seen[rows, places] = mixed.argmax(axis=0)


def class_numbers(numbers: NDArray[Any], placement: Placement) -> ClassMap:
    """The class of each pixel from a map (height, width) of class numbers. Raises UnusableInput for others."""
    numbers = numbers.astype(np.float64)  # of every dtype the same, and exact up to any number of classes
    if not np.isfinite(numbers).all():
        raise not_numbers()
    if (numbers != np.floor(numbers)).any() or numbers.max(initial=0) > MOST_CLASSES:
        raise UnusableInput(
            "The model's map holds values that are no numbers of classes: set head under [postprocessing] in the "
            "sidecar to semantic where they are scores.",
            code="model_error",
        )
    down, across = axes(placement, (numbers.shape[0], numbers.shape[1]))
    found = np.full((down.length, across.length), UNSEEN, dtype=np.int16)
    whole_numbers = np.maximum(numbers, UNSEEN).astype(np.int16)
    found[down.begin : down.end, across.begin : across.end] = whole_numbers[down.middle()][:, across.middle()]
    return found


def segments_of(found: ClassMap, labels: Sequence[str]) -> Iterator[Segment]:
    """Each class that is there, by its number, as Hugging Face's pipeline orders them."""
    present = _present(found)
    if len(present) > MOST_FOUND:
        raise UnusableInput(
            f"The model found {len(present):,} different classes in this picture; at most {MOST_FOUND:,} are told.",
            code="model_error",
        )
    for number in present:
        yield Segment(label_of(labels, number), None, whole(found == number))


def _present(found: ClassMap) -> list[int]:
    counts = np.zeros(MOST_CLASSES + 2, dtype=np.int64)
    step = max(1, _COUNTED_AT_ONCE // max(1, found.shape[1]))
    for first in range(0, len(found), step):
        counts += np.bincount(found[first : first + step].ravel().astype(np.intp) + 1, minlength=len(counts))
    return [int(number) - 1 for number in np.flatnonzero(counts) if number > 0]


def at_least(values: Floats, placement: Placement, least: float) -> tuple[Bools, Bools]:
    """Where ``values`` (map height, map width), brought to the picture, are at least ``least``, and which pixels the
    model has seen: both (height, width)."""
    down, across = axes(placement, (values.shape[0], values.shape[1]))
    found = np.zeros((down.length, across.length), dtype=bool)
    inside = found[down.begin : down.end, across.begin : across.end]
    for begin, block in sampled(values, down, across):
        np.greater_equal(block, np.float32(least), out=inside[begin : begin + len(block)])
    return found, _seen(down, across)


def _seen(down: Axis, across: Axis) -> Bools:
    seen = np.zeros((down.length, across.length), dtype=bool)
    seen[down.begin : down.end, across.begin : across.end] = True
    return seen


def sure_segments(
    scores: Floats, placement: Placement, labels: Sequence[str], *, sigmoid: bool, threshold: float
) -> Iterator[Segment]:
    """Classes that each pixel has or has not, by a threshold of probability; a pixel may have several.

    ``scores`` are (classes, map height, map width). Of a single one with two labels the first label is what is left of
    the picture. Raises UnusableInput where they are no probabilities.
    """
    if not sigmoid and (scores.min() < -ROUNDING or scores.max() > 1.0 + ROUNDING):
        raise UnusableInput(
            "The model's scores do not lie between 0 and 1: set activation under [postprocessing] in the sidecar to "
            "sigmoid.",
            code="model_error",
        )
    least = _logit(threshold) if sigmoid else threshold
    two = len(scores) == 1 and len(labels) == 2
    for number, values in enumerate(scores):
        found, seen = at_least(values, placement, least)
        if two:
            yield Segment(labels[0], None, whole(seen & ~found))
        yield Segment(labels[1] if two else label_of(labels, number), None, whole(found))


def _logit(share: float) -> float:
    if share <= 0.0 or share >= 1.0:
        return -np.inf if share <= 0.0 else np.inf
    return float(np.log(share / (1.0 - share)))


def not_numbers() -> UnusableInput:
    return UnusableInput("The model answered this input with values that are not numbers.", code="model_error")
