"""Which of the known heads a detector has, told by the names and shapes of its outputs.

==============  ======================================================================================================
``yolov8``      (rows, 4 + classes, cells): middle x, middle y, width, height and a score for each class (Ultralytics
                v8 and v11); also with the last two dimensions exchanged
``yolov5``      (rows, cells, 5 + classes): the same box, how sure it is of any object, a score for each class
``end-to-end``  (rows, boxes, 6): xmin, ymin, xmax, ymax, score, class, overlaps already removed (YOLOv10, ``nms=True``)
``detr``        ``logits`` (rows, queries, classes [+ 1]) and ``pred_boxes`` (rows, queries, 4) as shares of the picture
``tensorflow``  ``detection_boxes`` (ymin, xmin, ymax, xmax as shares), ``detection_scores``, ``detection_classes`` from
                1, ``num_detections``: TensorFlow's Object Detection API
``litert``      boxes, classes from 0, scores and count, in this order, as LiteRT's own operator
                ``TFLite_Detection_PostProcess`` gives them; by its names, or where the file or the sidecar says so
==============  ======================================================================================================

No framework here: what opens a file and what answers both ask this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

HEADS = ("yolov8", "yolov5", "end-to-end", "detr", "tensorflow", "litert")
LITERT_DETECTIONS = tuple(f"TFLite_Detection_PostProcess{end}" for end in ("", ":1", ":2", ":3"))
"""Boxes, classes, scores and count, as TensorFlow's export_tflite_graph names them."""
_TENSORFLOW = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32), (8, 16))
_MOST_END_TO_END = 1000
"""Above this many rows of six numbers, they are cells rather than what is left of them."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Head:
    """A head and its ``outputs`` (their names, in the order of the table above). ``cells_first`` is of ``yolov8`` only:
    (rows, cells, 4 + classes). ``reason`` says what it was told by; ``certain`` where that were names, or as many cells
    as the grids of the input have."""

    kind: str
    outputs: tuple[str, ...]
    reason: str
    cells_first: bool = False
    certain: bool = False


def recognise_head(shapes: Shapes, classes: int, size: tuple[int, int] | None, stated: str = "") -> Head | None:
    """The head with outputs of these ``shapes`` (-1 where free), None where it is none of them or could be several.

    ``classes`` is how many labels are known, 0 for none; ``size`` the input's (height, width) in pixels; ``stated``
    one of :data:`HEADS` leaves only that one. The order of ``shapes`` counts for ``litert``.
    """
    named = _by_names(shapes) or (_by_order(shapes) if stated == "litert" else None)
    if named is not None:
        return named if stated in ("", named.kind) else None
    for name, shape in shapes.items():
        if len(shape) != 3 or stated in ("detr", "tensorflow", "litert"):
            continue
        fits = [head for head in _fitting(name, shape, classes, size) if stated in ("", head.kind)]
        if stated and not fits:
            fits = _stated(name, shape, stated)
        if len(fits) == 1:
            return fits[0]
    return None


def _by_names(shapes: Shapes) -> Head | None:
    if {"logits", "pred_boxes"} <= set(shapes):
        return Head("detr", ("logits", "pred_boxes"), "outputs logits, pred_boxes", certain=True)
    if set(_TENSORFLOW[:3]) <= set(shapes):
        names = tuple(name for name in _TENSORFLOW if name in shapes)
        return Head("tensorflow", names, f"outputs {', '.join(names)}", certain=True)
    if set(LITERT_DETECTIONS) <= set(shapes):
        return Head("litert", LITERT_DETECTIONS, f"outputs {LITERT_DETECTIONS[0]}…", certain=True)
    return None


def _by_order(shapes: Shapes) -> Head | None:
    names = tuple(shapes)[:4]
    ranks = [len(shapes[name]) for name in names]
    if ranks != [3, 2, 2, 1] or shapes[names[0]][2] not in (4, -1):
        return None
    return Head("litert", names, f"outputs {', '.join(names)}: boxes, classes, scores, count", certain=True)


def _fitting(name: str, shape: tuple[int, ...], classes: int, size: tuple[int, int] | None) -> list[Head]:
    """Every head of one output that the number of classes and of cells allow; the number of cells decides."""
    first, last = shape[1:]
    grids = cell_counts(size) if size is not None else frozenset()

    def found(kind: str, cells: int, reason: str, *, cells_first: bool = False) -> tuple[bool, Head]:
        on_grid = (cells // 3 if kind == "yolov5" and cells % 3 == 0 else cells) in grids and cells > 0
        counted = f"{reason}, {cells} cells are the grids of the input" if on_grid else reason
        return on_grid, Head(kind, (name,), f"output {name!r} {list(shape)}: {counted}", cells_first, on_grid)

    candidates: list[tuple[bool, Head]] = []
    if first == 4 + classes if classes else first > 4:
        candidates.append(found("yolov8", last, f"4 + {first - 4} classes"))
    if last == 5 + classes if classes else last > 5:
        candidates.append(found("yolov5", first, f"5 + {last - 5} classes"))
    if last == 4 + classes if classes else last > 4:
        candidates.append(found("yolov8", first, f"4 + {last - 4} classes", cells_first=True))
    on_grid = [head for fits, head in candidates if fits]
    if on_grid:
        return on_grid
    if last == 6 and 0 < first <= _MOST_END_TO_END:
        return [Head("end-to-end", (name,), f"output {name!r} {list(shape)}: {first} boxes of six numbers")]
    # Without names of classes a width alone says nothing: any three-dimensional output would do.
    return [head for _, head in candidates] if classes else []


def _stated(name: str, shape: tuple[int, ...], stated: str) -> list[Head]:
    """The stated head where the output can be that at all."""
    first, last = shape[1:]
    reason = f"output {name!r} {list(shape)}"
    if stated == "yolov8" and (first > 4 or last > 4):
        # There are always more cells than classes, so the longer side is the cells.
        cells_first = first > last > 4 or (first == -1 and last > 4)
        return [Head(stated, (name,), reason, cells_first)]
    if (stated == "yolov5" and last > 5) or (stated == "end-to-end" and last == 6):
        return [Head(stated, (name,), reason)]
    return []


def cell_counts(size: tuple[int, int]) -> frozenset[int]:
    """How many cells the grids of the usual strides have together, for an input of (height, width) pixels."""
    height, width = size
    return frozenset(sum(ceil(height / s) * ceil(width / s) for s in strides) for strides in _STRIDES)
