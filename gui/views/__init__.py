"""The views of answers, one for each kind: what stands in the dock and what lies over the canvas.

A task is found in a table; raw tensors, whatever the task, have their own view, and what has none is JSON. A view's
module is imported when a model or an answer wants it: half of them need NumPy, which a window without a model does
without.
"""

from __future__ import annotations

from importlib import import_module

from engine import Prediction
from gui.views.base import AnswerView, Canvas, Spec

_VIEWS = {
    "image-classification": ("gui.views.classes", "ClassesView"),
    "text-classification": ("gui.views.classes", "ClassesView"),
    "audio-classification": ("gui.views.classes", "ClassesView"),
    "tabular-classification": ("gui.views.classes", "ClassesView"),
    "tabular-regression": ("gui.views.values", "ValuesView"),
    "object-detection": ("gui.views.things", "ThingsView"),
    "keypoint-detection": ("gui.views.things", "PosesView"),
    "image-segmentation": ("gui.views.masks", "MasksView"),
    "depth-estimation": ("gui.views.depth", "DepthView"),
    "image-to-image": ("gui.views.pictures", "PicturesView"),
    "token-classification": ("gui.views.spans", "SpansView"),
    "feature-extraction": ("gui.views.vectors", "VectorsView"),
}
_TENSORS = ("gui.views.tensors", "TensorsView")
_JSON = ("gui.views.json_text", "JsonView")


def view_of_task(task: str) -> type[AnswerView]:
    """The view of answers of ``task``."""
    return _imported(*_VIEWS.get(task, _JSON))


def view_of(prediction: Prediction) -> type[AnswerView]:
    """The view that shows ``prediction``."""
    if prediction.outputs is not None:
        return _imported(*_TENSORS)
    if prediction.predictions is None:
        return _imported(*_JSON)
    return view_of_task(prediction.task)


def _imported(module: str, attribute: str) -> type[AnswerView]:
    view: type[AnswerView] = getattr(import_module(module), attribute)
    return view


__all__ = ["AnswerView", "Canvas", "Spec", "view_of", "view_of_task"]
