"""``preprocessor_config.json`` of transformers as our own preprocessing.

The reference are the PIL-backed image processors of transformers 5.23 (``image_processing_backends.PilBackend`` and
``models/*/image_processing_pil_*.py``). A file may leave keys out: then the defaults of the class it names hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from engine.formats.dense_geometry import read_geometry
from engine.model_spec import ASSUMED, Preprocessing

FILE = "preprocessor_config.json"
LONGEST_EDGE = 1333
"""Where only the shortest edge is stated (``max_size`` of DETR's processors)."""
_HALF = (0.5, 0.5, 0.5)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""``PIL.Image.Resampling``."""
_SUFFIXES = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a class of image processor does where its file does not say. ``square`` says what a bare number for
    ``size`` means: height and width, or the shortest edge. ``crop_size`` None: no crop unless asked for."""

    mean: tuple[float, ...] = _HALF
    std: tuple[float, ...] = _HALF
    size: tuple[str, int] = ("square", 224)
    crop_size: int | None = None
    resample: str = "bicubic"
    square: bool = True
    normalize: bool = True
    bgr: bool = False
    multiple: int = 1
    """What both sides are rounded down to a multiple of, where ``size`` is a shortest and a longest edge."""
    geometry: str = ""
    """The word of a way of its own (:mod:`engine.formats.dense_geometry`), which may round otherwise."""


_DETR = Defaults(*_IMAGENET, size=("edges", 800), resample="bilinear", square=False)
_MASKFORMER = replace(_DETR, multiple=32, geometry="edges-up")
_SHORTEST_224 = ("shortest_edge", 224)
KNOWN = {
    "ViT": Defaults(resample="bilinear"),
    "DeiT": Defaults(size=("square", 256), crop_size=224),
    "Beit": Defaults(),
    "Pvt": Defaults(*_IMAGENET),
    "Siglip": Defaults(square=False),
    "Blip": Defaults(*_CLIP, size=("square", 384)),
    "CLIP": Defaults(*_CLIP, size=_SHORTEST_224, crop_size=224, square=False),
    "ChineseCLIP": Defaults(*_CLIP, size=_SHORTEST_224, crop_size=224, square=False),
    "Bit": Defaults(*_CLIP, size=_SHORTEST_224, crop_size=224, square=False),
    "ConvNext": Defaults(size=("shortest_edge", 384), square=False),
    "Levit": Defaults(*_IMAGENET, size=_SHORTEST_224, crop_size=224, square=False),
    "MobileNetV1": Defaults(size=("shortest_edge", 256), crop_size=224, resample="bilinear", square=False),
    "MobileNetV2": Defaults(size=("shortest_edge", 256), crop_size=224, resample="bilinear", square=False),
    "Detr": _DETR,
    "ConditionalDetr": _DETR,
    "DeformableDetr": _DETR,
    "Yolos": replace(_DETR, multiple=16),
    "RTDetr": Defaults(*_IMAGENET, size=("square", 640), resample="bilinear", normalize=False),
    "Segformer": Defaults(*_IMAGENET, size=("square", 512), resample="bilinear"),
    "MaskFormer": _MASKFORMER,
    "Mask2Former": _MASKFORMER,
    "DPT": Defaults(size=("square", 384), geometry="least-change"),
    "GLPN": Defaults(resample="bilinear", normalize=False, multiple=32, geometry="multiples"),
    "ZoeDepth": Defaults(size=("square", 384), resample="bilinear", geometry="mirrored"),
    "Swin2SR": Defaults(normalize=False, multiple=8, geometry="filled"),
    "MobileViT": Defaults(size=_SHORTEST_224, crop_size=256, square=False, normalize=False, bgr=True),
}
"""The classes whose steps were read and are tested against the library, by the first part of their names."""


class NotUnderstood(Exception):
    """A value that is none the library would take. The text names the key."""


@dataclass(frozen=True, slots=True)
class Reading:
    """``preprocessing`` with the source of each field it sets."""

    preprocessing: Preprocessing
    evidence: dict[str, str]


class Keys:
    """A file's values with their checks. Each method raises NotUnderstood."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._table = table

    def source(self, *keys: str) -> str:
        """The first of ``keys`` that the file has, else the class whose default holds."""
        stated = next((key for key in keys if self._table.get(key) is not None), None)
        return f"{FILE}: {stated or 'image_processor_type'}"

    def value(self, key: str) -> Any:
        return self._table.get(key)

    def flag(self, key: str, default: bool) -> bool:
        value = self._table.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise NotUnderstood(f"{key}: expected true or false")
        return value

    def number(self, key: str, default: float) -> float:
        value = self._table.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) < 1e6:
            raise NotUnderstood(f"{key}: expected a number")
        return float(value)

    def whole(self, key: str, default: int) -> int:
        value = self._table.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 4096:
            raise NotUnderstood(f"{key}: expected a whole number of pixels")
        return value

    def wrong(self, key: str, expected: str) -> NotUnderstood:
        return NotUnderstood(f"{key}: expected {expected}")

    def channels(self, key: str, default: tuple[float, ...], count: int) -> tuple[float, ...]:
        value = self._table.get(key)
        if value is None:
            return default if len(default) == count else default[:1]
        values = [value] * count if isinstance(value, int | float) else value
        if (
            not isinstance(values, list)
            or len(values) != count
            or not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in values)
        ):
            raise NotUnderstood(f"{key}: expected {count} numbers")
        return tuple(float(n) for n in values)

    def size(self, key: str, default: tuple[str, int], *, square: bool) -> tuple[str, tuple[int, int]]:
        """``square`` or ``shortest_edge``, and (height, width); or ``edges``, and (shortest, longest)."""
        value = self._table.get(key)
        if value is None:
            return default[0], (default[1], LONGEST_EDGE if default[0] == "edges" else default[1])
        if default[0] == "edges" and isinstance(value, int):
            value = {"shortest_edge": value, "longest_edge": self._table.get("max_size", LONGEST_EDGE)}
        if isinstance(value, list) and len(value) == 2:
            value = {"height": value[0], "width": value[1]}
        if isinstance(value, int) and not isinstance(value, bool):
            value = {"height": value, "width": value} if square else {"shortest_edge": value}
        if isinstance(value, dict):
            stated = {name: n for name, n in value.items() if n is not None}
            numbers = [n for n in stated.values() if isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 30_000]
            if len(numbers) == len(stated):
                if set(stated) == {"height", "width"}:
                    return "square", (stated["height"], stated["width"])
                if set(stated) == {"shortest_edge"}:
                    return "shortest_edge", (stated["shortest_edge"], stated["shortest_edge"])
                if set(stated) == {"shortest_edge", "longest_edge"}:
                    return "edges", (stated["shortest_edge"], stated["longest_edge"])
        raise NotUnderstood(f"{key}: expected height and width, or shortest_edge, alone or with longest_edge")


def processor_class(table: dict[str, Any]) -> str:
    """``ViT`` for ``ViTImageProcessor``, its older and its newer names; "" where the file names none."""
    name = table.get("image_processor_type") or table.get("feature_extractor_type")
    if not isinstance(name, str):
        return ""
    return next((name.removesuffix(s) for s in _SUFFIXES if name.endswith(s)), name)[:80]


def read_image_processor(table: dict[str, Any], channels: int) -> Reading:
    """What an image processor's file says, for a model of ``channels`` channels (1 or 3).

    Of a class whose steps are not known here the common ones are taken, and called assumed. Raises NotUnderstood.
    """
    name = processor_class(table)
    known = KNOWN.get(name)
    defaults = known or Defaults()
    keys = Keys(table)
    evidence: dict[str, str] = {}
    fields: dict[str, Any] = {"layout": "nchw"}
    evidence["layout"] = keys.source()
    _read_geometry(name, keys, defaults, fields, evidence)
    _read_values(keys, defaults, channels, fields, evidence)
    if known is None:
        note = f"{ASSUMED} (the steps of {name or 'an image processor without a name'} are not known)"
        evidence = dict.fromkeys(evidence, note)
    return Reading(Preprocessing(**fields), evidence)


def _read_geometry(name: str, keys: Keys, defaults: Defaults, fields: dict[str, Any], evidence: dict[str, str]) -> None:
    if defaults.geometry:
        read_geometry(keys, defaults, fields, evidence)
        fields["resample"] = _filter(keys, defaults)
        evidence["resample"] = keys.source("resample")
        return
    kind, size = keys.size("size", defaults.size, square=defaults.square)
    # A crop given as one number is a square in every class.
    _, crop_size = keys.size("crop_size", ("square", defaults.crop_size or size[0]), square=True)
    resizes = keys.flag("do_resize", True)
    crops = keys.flag("do_center_crop", defaults.crop_size is not None)
    source = keys.source("size")
    if kind == "edges" and not crops:
        _read_edges(keys, defaults, size, fields, evidence)
        return
    resize, resized = ("stretch" if kind == "square" else "shortest"), size
    if name == "ConvNext" and resizes:
        resize, resized, crop_size, crops = _convnext(kind, size, keys.number("crop_pct", 224 / 256))
        evidence["resize_size"] = keys.source("crop_pct")
    elif name == "Levit" and kind == "shortest_edge":
        edge = int((256 / 224) * size[0])
        resized = (edge, edge)
    if not resizes:
        resize = "none"
    taken = crop_size if crops else resized
    fields["resize"], fields["crop"] = resize, "center" if crops else "none"
    evidence["resize"] = source if resizes else keys.source("do_resize")
    evidence["crop"] = keys.source("do_center_crop")
    if resizes or crops:
        fields["size"] = taken
        evidence["size"] = keys.source("crop_size") if crops and name != "ConvNext" else source
    if resizes and resized != taken:
        fields["resize_size"] = resized
        evidence.setdefault("resize_size", source)
    fields["resample"] = _filter(keys, defaults)
    evidence["resample"] = keys.source("resample")


def _read_edges(
    keys: Keys, defaults: Defaults, size: tuple[int, int], fields: dict[str, Any], evidence: dict[str, str]
) -> None:
    resizes = keys.flag("do_resize", True)
    fields["resize"] = "none" if not resizes else "edges" if defaults.multiple == 1 else f"edges-of-{defaults.multiple}"
    evidence["resize"] = keys.source("size") if resizes else keys.source("do_resize")
    if resizes:
        fields["resize_size"], evidence["resize_size"] = size, keys.source("size")
    fields["resample"] = _filter(keys, defaults)
    evidence["resample"] = keys.source("resample")


def _convnext(kind: str, size: tuple[int, int], crop_pct: float) -> tuple[str, tuple[int, int], tuple[int, int], bool]:
    """ConvNeXT scales up by ``crop_pct`` and cuts the middle out, but from 384 pixels on it stretches."""
    if kind != "shortest_edge":
        raise NotUnderstood("size: expected shortest_edge")
    edge = size[0]
    if edge >= 384:
        return "stretch", size, size, False
    larger = int(edge / crop_pct)
    return "shortest", (larger, larger), size, True


def _filter(keys: Keys, defaults: Defaults) -> str:
    number = keys.value("resample")
    if number is None:
        return defaults.resample
    if isinstance(number, bool) or not isinstance(number, int) or number not in _FILTERS:
        raise NotUnderstood("resample: expected a number from 0 to 5")
    return _FILTERS[number]


def _read_values(
    keys: Keys, defaults: Defaults, channels: int, fields: dict[str, Any], evidence: dict[str, str]
) -> None:
    fields["channel_order"] = "grayscale" if channels == 1 else "rgb"
    if channels == 3 and keys.flag("do_flip_channel_order", defaults.bgr):
        fields["channel_order"] = "bgr"
    evidence["channel_order"] = keys.source("do_flip_channel_order")
    high = keys.number("rescale_factor", 1 / 255) * 255 if keys.flag("do_rescale", True) else 255.0
    fields["scaling"] = f"0..{_plain(high)}"
    evidence["scaling"] = keys.source("rescale_factor", "do_rescale")
    if not keys.flag("do_rescale", True):
        evidence["scaling"] = keys.source("do_rescale")
    if keys.flag("do_normalize", defaults.normalize):
        fields["mean"] = keys.channels("image_mean", defaults.mean, channels)
        fields["std"] = keys.channels("image_std", defaults.std, channels)
        if min(fields["std"]) <= 0:
            raise NotUnderstood("image_std: expected numbers above 0")
        evidence["mean"], evidence["std"] = keys.source("image_mean"), keys.source("image_std")
    else:
        evidence["mean"] = evidence["std"] = keys.source("do_normalize")


def _plain(number: float) -> str:
    """A number without an exponent, whole where it is so up to rounding."""
    if number <= 0:
        raise NotUnderstood("rescale_factor: expected a number above 0")
    nearest = round(number)
    if nearest and math.isclose(number, nearest, rel_tol=1e-12):
        return str(nearest)
    return f"{number:.17f}".rstrip("0")
