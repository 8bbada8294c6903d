"""How image processors of transformers size pictures for segmentation and depth, in ways that classifiers do not.

Reference: ``models/{mask2former,maskformer,dpt,glpn,zoedepth,swin2sr}/image_processing_pil_*.py`` of transformers 5.23.
``do_reduce_labels`` is read by none of them for a picture: it changes the maps a model is trained on.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.formats.image_processors import Defaults, Keys

Fields = dict[str, Any]
Evidence = dict[str, str]


def read_geometry(keys: Keys, defaults: Defaults, fields: Fields, evidence: Evidence) -> None:
    """Set ``resize``, ``size`` or ``resize_size``, and ``multiple`` in the way ``defaults.geometry`` names. Raises
    NotUnderstood."""
    if defaults.geometry == "filled":
        _filled(keys, defaults, fields, evidence)
        return
    if not keys.flag("do_resize", True):
        fields["resize"], evidence["resize"] = "none", keys.source("do_resize")
        return
    {"edges-up": _edges_up, "least-change": _least_change, "multiples": _multiples, "mirrored": _mirrored}[
        defaults.geometry
    ](keys, defaults, fields, evidence)


def _edges_up(keys: Keys, defaults: Defaults, fields: Fields, evidence: Evidence) -> None:
    """MaskFormer, Mask2Former: by both edges, then up to multiples of ``size_divisor``."""
    kind, size = keys.size("size", defaults.size, square=False)
    multiple = max(1, keys.whole("size_divisor", defaults.multiple))
    if kind == "square":
        up = (ceil(size[0] / multiple) * multiple, ceil(size[1] / multiple) * multiple)
        _stretch(up, keys, fields, evidence)
        return
    if kind != "edges":
        raise keys.wrong("size", "shortest_edge with longest_edge, or height and width")
    fields["resize"] = "edges-up"
    _sized("size_divisor", size, multiple, keys, fields, evidence)


def _least_change(keys: Keys, defaults: Defaults, fields: Fields, evidence: Evidence) -> None:
    """DPT, Depth Anything."""
    _, size = keys.size("size", defaults.size, square=True)
    multiple = max(1, keys.whole("ensure_multiple_of", defaults.multiple))
    if keys.flag("do_pad", False) and keys.value("size_divisor") is not None:
        raise keys.wrong("do_pad", "false")
    if not keys.flag("keep_aspect_ratio", False):
        nearest = (round(size[0] / multiple) * multiple, round(size[1] / multiple) * multiple)
        _stretch(nearest, keys, fields, evidence)
        return
    fields["resize"] = "least-change"
    _sized("ensure_multiple_of", size, multiple, keys, fields, evidence)


def _multiples(keys: Keys, defaults: Defaults, fields: Fields, evidence: Evidence) -> None:
    """GLPN: the picture's own size, rounded down."""
    fields["resize"], fields["multiple"] = "multiples", max(1, keys.whole("size_divisor", defaults.multiple))
    evidence["resize"], evidence["multiple"] = keys.source("do_resize"), keys.source("size_divisor")


def _mirrored(keys: Keys, defaults: Defaults, fields: Fields, evidence: Evidence) -> None:
    """ZoeDepth, in the only way its published models are prepared."""
    kind, size = keys.size("size", defaults.size, square=True)
    if kind != "square":
        raise keys.wrong("size", "height and width")
    for key in ("do_pad", "keep_aspect_ratio"):
        if not keys.flag(key, True):
            raise keys.wrong(key, "true")
    if keys.value("resample") not in (None, 2):
        raise keys.wrong("resample", "2, bilinear")
    fields["resize"] = "mirrored"
    _sized("ensure_multiple_of", size, max(1, keys.whole("ensure_multiple_of", 0)), keys, fields, evidence)


def _filled(keys: Keys, defaults: Defaults, fields: Fields, evidence: Evidence) -> None:
    """Swin2SR: the picture's own size, filled up to multiples of ``pad_size`` (or ``size_divisor``) with its mirror."""
    key = "size_divisor" if keys.value("size_divisor") is not None else "pad_size"
    pads = keys.flag("do_pad", True)
    fields["resize"] = "none"
    fields["multiple"] = max(1, keys.whole(key, defaults.multiple)) if pads else 1
    evidence["resize"], evidence["multiple"] = keys.source("do_pad"), keys.source(key)


def _stretch(size: tuple[int, int], keys: Keys, fields: Fields, evidence: Evidence) -> None:
    fields["resize"], fields["size"] = "stretch", size
    evidence["resize"] = evidence["size"] = keys.source("size")


def _sized(key: str, size: tuple[int, int], multiple: int, keys: Keys, fields: Fields, evidence: Evidence) -> None:
    fields["resize_size"], fields["multiple"] = size, multiple
    evidence["resize"] = evidence["resize_size"] = keys.source("size")
    evidence["multiple"] = keys.source(key)
