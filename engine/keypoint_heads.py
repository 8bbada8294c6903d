"""Which of the known kinds of key points a model's outputs are, told by their shapes and by how many points there are.

==================== ================================================================================================
``yolov8-pose``      (rows, 4 + classes + points x 3, cells), also with x 2, and with the last two dimensions exchanged:
                     a detector's box and scores (:mod:`engine.detection_heads`), then x, y and how sure it is of every
                     point, in pixels of the input (Ultralytics v8 and v11)
``end-to-end-pose``  (rows, boxes, 6 + points x 3): the same with overlaps already removed
``heat-maps``        (rows, points, height, width) or (rows, height, width, points): how likely each point is where
``coordinates``      (rows, points, 2 or 3) or (rows, points x 2 or x 3): x, y and perhaps a score, in pixels of the
                     input or as shares of it
==================== ================================================================================================

No framework here: what opens a file and what answers both ask this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.detection_heads import recognise_head

HEADS = ("yolov8-pose", "end-to-end-pose", "heat-maps", "coordinates")
COCO_POINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
"""The points of people in COCO's key point annotations (person_keypoints_val2017.json: ``keypoints``)."""
COCO_SKELETON = tuple(
    (COCO_POINTS[a], COCO_POINTS[b])
    for a, b in (
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    )
)  # fmt: skip
"""What is connected with what there (``skeleton`` of the same file, counted from 0)."""
_POSE = "-pose"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Head:
    """A kind, its ``output`` (a name), ``points`` (how many) and ``numbers`` (how many each has, 2 or 3; 1 for a heat
    map). ``channels_last`` is of heat maps, ``cells_first`` of ``yolov8-pose``. ``reason`` says what it was told by."""

    kind: str
    output: str
    reason: str
    points: int
    numbers: int
    cells_first: bool = False
    channels_last: bool = False


def recognise_keypoints(
    shapes: Shapes, classes: int, points: int, size: tuple[int, int] | None, stated: str = ""
) -> Head | None:
    """The head with outputs of these ``shapes`` (-1 where free), None where it is none of them or could be several.

    ``classes`` is how many labels are known, ``points`` how many names of points, both 0 for none; ``size`` the input's
    (height, width) in pixels; ``stated`` one of :data:`HEADS` leaves only that one.
    """
    found: list[Head] = []
    for name, shape in shapes.items():
        if len(shape) == 3 and stated in ("", "yolov8-pose", "end-to-end-pose"):
            found += _poses(name, shape, max(classes, 1), points, size, stated)
        if len(shape) == 4 and stated in ("", "heat-maps"):
            found += _heat_maps(name, shape, points, size)
        if stated == "coordinates":
            found += _coordinates(name, shape, points)
    return found[0] if len(found) == 1 else None


def _poses(
    name: str, shape: tuple[int, ...], classes: int, points: int, size: tuple[int, int] | None, stated: str
) -> list[Head]:
    found: list[tuple[bool, Head]] = []
    counts = [points] if points else [len(COCO_POINTS)]
    for count, numbers in ((count, numbers) for count in counts for numbers in (3, 2)):
        behind = count * numbers
        for by_rows, less in (
            (True, (shape[0], _less(shape[1], behind), shape[2])),
            (False, (shape[0], shape[1], _less(shape[2], behind))),
        ):
            if min(side for side in less[1:] if side != -1) < 1:
                continue
            box = recognise_head({name: less}, classes, size, stated.removesuffix(_POSE))
            if box is None or box.kind not in ("yolov8", "end-to-end"):
                continue
            if by_rows != (box.kind == "yolov8" and not box.cells_first):
                continue
            reason = f"{box.reason}, {count} points of {numbers} numbers"
            found.append((box.certain, Head(box.kind + _POSE, name, reason, count, numbers, box.cells_first)))
    certain = [head for sure, head in found if sure]
    # Without names of points their count is only a guess: then the cells have to tell.
    return certain or ([head for _, head in found] if points else [])


def _heat_maps(name: str, shape: tuple[int, ...], points: int, size: tuple[int, int] | None) -> list[Head]:
    found = []
    for last, count, sides in ((False, shape[1], shape[2:]), (True, shape[3], shape[1:3])):
        if (count == points if points else count > 0) and _covers(sides, size):
            where = "last" if last else "first"
            reason = f"output {name!r} {list(shape)}: {count} maps, {where}"
            found.append(Head("heat-maps", name, reason, count, 1, channels_last=last))
    return found


def _covers(sides: tuple[int, ...], size: tuple[int, int] | None) -> bool:
    """Whether maps of ``sides`` have the proportions of an input of ``size``; what is free may have them."""
    if -1 in sides or size is None:
        return min(sides) != 1
    return min(sides) > 1 and abs(size[0] / sides[0] - size[1] / sides[1]) <= 0.02 * size[0] / sides[0]


def _coordinates(name: str, shape: tuple[int, ...], points: int) -> list[Head]:
    reason = f"output {name!r} {list(shape)}"
    if len(shape) == 3 and shape[2] in (2, 3) and (not points or shape[1] in (-1, points)):
        return [Head("coordinates", name, reason, shape[1], shape[2])]
    if len(shape) == 2 and points and shape[1] in (2 * points, 3 * points):
        return [Head("coordinates", name, reason, points, shape[1] // points)]
    return []


def _less(side: int, count: int) -> int:
    """What is left of a dimension without ``count``; 0 where nothing is, -1 where it is free."""
    return -1 if side == -1 else max(0, side - count)
