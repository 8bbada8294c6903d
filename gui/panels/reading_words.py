"""How a model reads a picture, in words."""

from __future__ import annotations

from typing import Any

from gui.language import mark, tr

_ORDERS = {"rgb": "RGB", "bgr": "BGR", "grayscale": mark("greyscale")}
_CROPS = {"center": mark("centre crop"), "square": mark("centre square")}


def reading_words(spec: dict[str, Any]) -> list[tuple[str, bool]]:
    """(words, assumed) from the spec's preprocessing and its evidence."""
    pre = spec.get("preprocessing") or {}
    evidence = spec.get("evidence") or {}

    def assumed(name: str) -> bool:
        return str(evidence.get(f"preprocessing.{name}", "assumed")).startswith("assumed")

    words = []
    if pre.get("size"):
        height, width = pre["size"]
        words.append((tr("{width} × {height} pixels").format(width=width, height=height), assumed("size")))
    if pre.get("channel_order"):
        words.append((tr(_ORDERS.get(pre["channel_order"], pre["channel_order"])), assumed("channel_order")))
    if pre.get("scaling"):
        words.append(
            (tr("scaled to {range}").format(range=str(pre["scaling"]).replace("..", " … ")), assumed("scaling"))
        )
    if pre.get("crop") in _CROPS:
        words.append((tr(_CROPS[pre["crop"]]), assumed("crop")))
    return words
