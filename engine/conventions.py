"""How a picture might have to be prepared where nothing states it: the few ways in use, to be tried side by side."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from engine.model_spec import ASSUMED, ModelSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Per channel (red, green, blue), of values 0..1: torchvision's and Hugging Face's constant of that name."""
IMAGENET_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN = (123.68, 116.779, 103.939)
"""Per channel (red, green, blue), of values 0..255: what Keras subtracts in its mode ``caffe``."""

Changes = dict[str, Any]


def candidates(spec: ModelSpec) -> list[tuple[Changes, str]]:
    """(changes by field of Preprocessing, words) of every plausible way: all combinations of what is only assumed.

    Empty where nothing is assumed, or the model takes no pictures.
    """
    if not spec.task.startswith("image") and spec.task not in ("object-detection", "depth-estimation"):
        return []
    axes = [axis for axis in (_scalings(spec), _orders(spec), _layouts(spec)) if axis]
    if not axes:
        return []
    combined = []
    for choice in product(*axes):
        changes: Changes = {}
        for part, _ in choice:
            changes |= part
        if changes.get("channel_order", spec.preprocessing.channel_order) == "bgr":
            # The constants are stated for red, green, blue; mean and deviation are per channel as the model has them.
            changes |= {key: changes[key][::-1] for key in ("mean", "std") if key in changes}
        combined.append((changes, ", ".join(words for _, words in choice)))
    return combined


def is_current(spec: ModelSpec, changes: Mapping[str, Any]) -> bool:
    """Whether ``spec`` prepares pictures so already."""
    now = spec.to_json()["preprocessing"]
    return all(now[name] == value for name, value in changes.items())


def _assumed(spec: ModelSpec, *names: str) -> bool:
    return all(spec.evidence.get(f"preprocessing.{name}", ASSUMED).startswith(ASSUMED) for name in names)


def _scalings(spec: ModelSpec) -> list[tuple[Changes, str]]:
    if not _assumed(spec, "scaling"):
        return []
    found: list[tuple[Changes, str]] = [
        ({"scaling": scaling}, f"values {scaling}") for scaling in ("0..255", "0..1", "-1..1")
    ]
    if _assumed(spec, "mean", "std") and spec.preprocessing.channel_order != "grayscale":
        constants = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
        found.append(({"scaling": "0..1"} | constants, "ImageNet mean and deviation"))
        means = {"mean": list(CAFFE_MEAN)}
        found.append(({"scaling": "0..255"} | means, "values 0..255 less ImageNet mean"))
    return found


def _orders(spec: ModelSpec) -> list[tuple[Changes, str]]:
    if not _assumed(spec, "channel_order") or spec.preprocessing.channel_order == "grayscale":
        return []
    return [({"channel_order": order}, order.upper()) for order in ("rgb", "bgr")]


def _layouts(spec: ModelSpec) -> list[tuple[Changes, str]]:
    if not _assumed(spec, "layout") or spec.preprocessing.layout == "nhw":
        return []
    words = {"nhwc": "channels last", "nchw": "channels first"}
    return [({"layout": layout}, text) for layout, text in words.items()]
