"""Which of the known kinds of segmentation a model's outputs are, told by their names and shapes.

================== ==================================================================================================
``semantic``       (rows, classes, height, width) or (rows, height, width, classes): a score for each class and pixel;
                   with one channel, or (rows, height, width), how sure the model is of the only class
``class-map``      whole numbers, (rows, height, width), also with a dimension of 1: the number of a class
``maskformer``     ``class_queries_logits`` (rows, queries, classes + 1) and ``masks_queries_logits`` (rows, queries,
                   height, width), as MaskFormer and OneFormer
``mask2former``    the same, masks first brought to 384 x 384, as the library does for Mask2Former
``detr-masks``     ``logits`` and ``pred_masks`` of the same shapes, as DETR
``yolov8-masks``   a head of a detector (:mod:`engine.detection_heads`) with a coefficient for each of the prototypes
``yolov5-masks``   behind the classes, and the prototypes (rows, prototypes, height, width) or (rows, height, width,
``end-to-end-masks``  prototypes)
================== ==================================================================================================

No framework here: what opens a file and what answers both ask this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.detection_heads import recognise_head

HEADS = (
    "semantic", "class-map", "maskformer", "mask2former", "detr-masks", "yolov8-masks", "yolov5-masks",
    "end-to-end-masks",
)  # fmt: skip
_BY_NAMES = {
    "maskformer": ("class_queries_logits", "masks_queries_logits"),
    "mask2former": ("class_queries_logits", "masks_queries_logits"),
    "detr-masks": ("logits", "pred_masks"),
}
QUERIES = tuple(_BY_NAMES)
_MASKS = "-masks"
_MOST_PROTOTYPES = 256
_RATIO = 0.02
"""How far the proportions of a map may be from those of the input: its sides are whole numbers."""

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name -> (NumPy's name of the dtype, shape with -1 where free)."""


@dataclass(frozen=True, slots=True)
class Head:
    """A kind and its ``outputs`` (names). ``channels`` says where a map's classes or prototypes are: ``first``,
    ``last``, or ``none`` (a map without that dimension). ``count`` is how many there are. ``cells_first`` is of
    ``yolov8-masks`` only, as of a detector. ``reason`` says what it was told by."""

    kind: str
    outputs: tuple[str, ...]
    reason: str
    channels: str = "first"
    count: int = 1
    cells_first: bool = False


def recognise_segmentation(
    tensors: Tensors, classes: int, size: tuple[int, int] | None, stated: str = ""
) -> Head | None:
    """The head with these outputs, None where they are none of them or could be several.

    ``classes`` is how many labels are known, 0 for none; ``size`` the input's (height, width) in pixels; ``stated`` one
    of :data:`HEADS` leaves only that one.
    """
    for kind, names in _BY_NAMES.items():
        if set(names) <= set(tensors) and stated in ("", kind):
            return Head(kind, names, f"outputs {', '.join(names)}")
    if stated in QUERIES:
        return None
    if stated in ("", "yolov8-masks", "yolov5-masks", "end-to-end-masks"):
        found = _with_prototypes(tensors, classes, size, stated)
        if found is not None or stated:
            return found
    for name, (dtype, shape) in tensors.items():
        found = _map(name, dtype, shape, classes, size, stated)
        if found is not None:
            return found
    return None


# -- maps --------------------------------------------------------------------------------------------------------------
def _map(
    name: str, dtype: str, shape: tuple[int, ...], classes: int, size: tuple[int, int] | None, stated: str
) -> Head | None:
    whole = dtype.startswith(("int", "uint", "bool"))
    kind = stated or ("class-map" if whole else "semantic")
    said = f"output {name!r} {list(shape)}"
    if len(shape) == 3:
        if kind == "semantic" and classes > 2:
            return None  # a score of one class cannot tell several
        return Head(kind, (name,), f"{said}: one value a pixel", "none") if _covers(shape[1:], size) else None
    if len(shape) != 4:
        return None
    candidates = [("first", shape[1], shape[2:]), ("last", shape[3], shape[1:3])]
    counts = (1,) if kind == "class-map" else (classes, 1) if 0 < classes <= 2 else (classes,) if classes else ()
    fitting = [
        (where, count, sides)
        for where, count, sides in candidates
        if (count in counts if counts else count > 0) or (count == -1 and kind == "semantic")
    ]
    if not counts or len(fitting) > 1:
        fitting = [entry for entry in fitting if size is not None and _covers(entry[2], size)]
    if len(fitting) != 1:
        return None
    where, count, _ = fitting[0]
    return Head(kind, (name,), f"{said}: {count} channel{'s' * (count != 1)} {where}", where, count)


def map_of_named_classes(name: str, shape: tuple[int, ...], classes: int, size: tuple[int, int] | None) -> str:
    """By what an output is told to be a score of each of ``classes`` named classes at each pixel, "" where it could be
    anything else: that many channels, two at least, and sides that are the input's or divide them."""
    if len(shape) != 4 or classes < 2 or size is None:
        return ""
    head = _map(name, "float32", shape, classes, size, "")
    if head is None or head.count != classes:
        return ""
    sides = shape[2:] if head.channels == "first" else shape[1:3]
    if -1 in sides or any(whole % side for whole, side in zip(size, sides, strict=True)) or not _covers(sides, size):
        return ""
    return head.reason


def _covers(sides: tuple[int, ...], size: tuple[int, int] | None) -> bool:
    """Whether a map of ``sides`` has the proportions of an input of ``size``; what is free may have them."""
    if size is None or -1 in sides:
        return True
    height, width = sides
    down, across = size[0] / height, size[1] / width
    return height > 1 and width > 1 and abs(down - across) <= _RATIO * max(down, across)


# -- boxes with prototypes ---------------------------------------------------------------------------------------------
def _with_prototypes(tensors: Tensors, classes: int, size: tuple[int, int] | None, stated: str) -> Head | None:
    maps = {name: shape for name, (_, shape) in tensors.items() if len(shape) == 4}
    rows = {name: shape for name, (_, shape) in tensors.items() if len(shape) == 3}
    if len(maps) != 1 or len(rows) != 1:
        return None
    (prototypes, shape), (name, cells) = next(iter(maps.items())), next(iter(rows.items()))
    found = []
    for where, count, sides in (("first", shape[1], shape[2:]), ("last", shape[3], shape[1:3])):
        if not 0 < count <= _MOST_PROTOTYPES or not _covers(sides, size):
            continue
        for less in ((cells[0], _less(cells[1], count), cells[2]), (cells[0], cells[1], _less(cells[2], count))):
            if any(side < 1 and side != -1 for side in less[1:]):
                continue
            head = recognise_head({name: less}, classes, size, stated.removesuffix(_MASKS))
            if head is None:
                continue
            taken_first = head.kind == "yolov8" and not head.cells_first
            if taken_first == (less[1] != cells[1]):
                reason = f"{head.reason}, {count} prototypes {where}"
                kind = head.kind + _MASKS
                found.append((head.certain, Head(kind, (name, prototypes), reason, where, count, head.cells_first)))
    certain = [head for sure, head in found if sure] or [head for _, head in found]
    return certain[0] if len(certain) == 1 else None


def _less(side: int, count: int) -> int:
    """What is left of a dimension without ``count``; 0 where nothing is, -1 where it is free."""
    return -1 if side == -1 else max(0, side - count)
