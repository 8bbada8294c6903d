"""The views of answers, one for each kind: what stands in the dock and what lies over the canvas.

A task is found in :data:`VIEWS`; raw tensors, whatever the task, have their own view, and what has none is JSON.
"""

from __future__ import annotations

from engine import Prediction
from gui.views.base import AnswerView, Canvas, Spec
from gui.views.classes import ClassesView
from gui.views.depth import DepthView
from gui.views.json_text import JsonView
from gui.views.masks import MasksView
from gui.views.pictures import PicturesView
from gui.views.spans import SpansView
from gui.views.tensors import TensorsView
from gui.views.things import PosesView, ThingsView
from gui.views.values import ValuesView
from gui.views.vectors import VectorsView

VIEWS: dict[str, type[AnswerView]] = {
    "image-classification": ClassesView,
    "text-classification": ClassesView,
    "audio-classification": ClassesView,
    "tabular-classification": ClassesView,
    "tabular-regression": ValuesView,
    "object-detection": ThingsView,
    "keypoint-detection": PosesView,
    "image-segmentation": MasksView,
    "depth-estimation": DepthView,
    "image-to-image": PicturesView,
    "token-classification": SpansView,
    "feature-extraction": VectorsView,
}


def view_of(prediction: Prediction) -> type[AnswerView]:
    """The view that shows ``prediction``."""
    if prediction.outputs is not None:
        return TensorsView
    if prediction.predictions is None:
        return JsonView
    return VIEWS.get(prediction.task, JsonView)


__all__ = ["VIEWS", "AnswerView", "Canvas", "ClassesView", "JsonView", "Spec", "view_of"]
