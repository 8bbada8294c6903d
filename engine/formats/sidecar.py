"""The TOML sidecar: what a person states about a model, checked key by key.

``deskside.toml`` in the model's folder, ``<name>.deskside.toml`` beside a single file, or a file in the data folder
where the model's own is read-only (:mod:`engine.sidecar_file`). Keys: docs/sidecar.md. What it states wins over
what was read in the model.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.detection_heads import HEADS
from engine.errors import ModelUnreadable, SidecarInvalid
from engine.formats.disk import open_regular, unreadable
from engine.keypoint_heads import HEADS as KEYPOINT_HEADS
from engine.model_spec import TensorSpec
from engine.segmentation_heads import HEADS as SEGMENTATION_HEADS
from engine.sidecar_file import MAX_BYTES

TASKS = (
    "image-classification", "object-detection", "image-segmentation", "keypoint-detection", "depth-estimation",
    "image-to-image", "tabular-classification", "tabular-regression", "text-classification", "token-classification",
    "feature-extraction", "audio-classification", "raw-tensors",
)  # fmt: skip
DTYPES = frozenset(
    {"bool", "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16",
     "uint32", "uint64", "complex64", "complex128", "str"}
)  # fmt: skip
# fmt: off
_CHOICES = {
    "resize": (
        "stretch", "shortest", "longest", "letterbox", "edges", "edges-of-16", "edges-up", "least-change", "multiples",
        "mirrored", "fit", "none",
    ),
    "resample": ("bilinear", "bicubic", "lanczos", "box", "hamming", "nearest", "inter_linear"),
    "crop": ("none", "center", "square"),
    "channel_order": ("rgb", "bgr", "grayscale"),
    "layout": ("nhwc", "nchw", "nhw"),
    "activation": ("none", "softmax", "sigmoid"),
}
# fmt: on
_SCALING = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)", re.ASCII)

Check = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The stated fields, by ModelSpec's names; those of sections as ``preprocessing`` and ``postprocessing``."""

    path: Path
    fields: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    postprocessing: dict[str, Any] = field(default_factory=dict)


class _Wrong(Exception):
    """What was expected at a key."""


def read_sidecar(path: Path) -> Sidecar:
    """Parse and check. Raises SidecarInvalid naming file and key, ModelUnreadable."""
    try:
        with open_regular(path) as handle:
            data = handle.read(MAX_BYTES + 1)
    except OSError as error:
        problem = unreadable(path, error)
        raise ModelUnreadable(problem.message.partition(":")[0] + ".") from error
    if len(data) > MAX_BYTES:
        raise SidecarInvalid(f"{path.name} is larger than 1 MiB, which no sidecar should be.")
    return parse_sidecar(path, data)


def parse_sidecar(path: Path, data: bytes) -> Sidecar:
    """What ``data``, the content of ``path``, states. Raises SidecarInvalid naming file and key."""
    try:
        table = tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SidecarInvalid(f"{path.name} is not TOML: {_short(str(error))}.", details=str(error)) from error
    return Sidecar(
        path,
        _section(path.name, "", table, _TOP),
        _section(path.name, "preprocessing.", table.get("preprocessing", {}), _PREPROCESSING),
        _section(path.name, "postprocessing.", table.get("postprocessing", {}), _POSTPROCESSING),
    )


def _section(file: str, prefix: str, table: Any, checks: dict[str, Check]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise SidecarInvalid(f"{file}: {prefix.rstrip('.')}: expected a section, [{prefix.rstrip('.')}].")
    out: dict[str, Any] = {}
    for key, value in table.items():
        check = checks.get(key)
        if check is None:
            known = ", ".join(checks)
            raise SidecarInvalid(f"{file}: {prefix}{_short(key)}: unknown key; known here are {known}.")
        try:
            out[key] = check(value)
        except _Wrong as wrong:
            raise SidecarInvalid(f"{file}: {prefix}{key}: expected {wrong}.") from wrong
    if not prefix:
        out.pop("preprocessing", None)
        out.pop("postprocessing", None)
    return out


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 200:
        raise _Wrong("a short text")
    return value


def _one_of(*choices: str) -> Check:
    def check(value: Any) -> str:
        if value not in choices:
            raise _Wrong("one of " + ", ".join(f'"{c}"' for c in choices))
        return str(value)

    return check


def _version(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value):
        raise _Wrong('a version, as "1"')
    return _text(str(value))


def _texts(what: str, *, unique: bool) -> Check:
    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise _Wrong(f"a list of {what}")
        if unique and len(set(value)) != len(value):
            raise _Wrong(f"a list of {what}, each once")
        return tuple(value)

    return check


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(pair, list) and len(pair) == 2 for pair in value)
        or not all(isinstance(name, str) for pair in value for name in pair)
    ):
        raise _Wrong('pairs of names of key points, as ["neck", "hip"]')
    return tuple((pair[0], pair[1]) for pair in value)


def _tensors(value: Any) -> tuple[TensorSpec, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise _Wrong("tables with name, dtype and shape, each under a double-bracket heading")
    tensors = tuple(_tensor(item) for item in value)
    if len({t.name for t in tensors}) != len(tensors):
        raise _Wrong("tensors with different names")
    return tensors


def _tensor(item: dict[str, Any]) -> TensorSpec:
    if set(item) != {"name", "dtype", "shape"}:
        raise _Wrong("name, dtype and shape in every table, and nothing else")
    shape = item["shape"]
    if item["dtype"] not in DTYPES:
        raise _Wrong(f'a NumPy dtype such as "float32", not {_short(repr(item["dtype"]))}')
    if (
        not isinstance(shape, list)
        or len(shape) > 32
        or not all(isinstance(n, int) and not isinstance(n, bool) and (n == -1 or 0 < n < 1 << 31) for n in shape)
    ):
        raise _Wrong("shape to be a list of whole numbers, -1 for a free dimension")
    return TensorSpec(_text(item["name"]), str(item["dtype"]), tuple(shape))


def _size(value: Any) -> tuple[int, int]:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 30_000 for n in value)
    ):
        raise _Wrong("two whole numbers, height and width")
    return value[0], value[1]


def _multiple(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
        raise _Wrong("a whole number of pixels from 1 to 4096")
    return value


def _scaling(value: Any) -> str:
    match = _SCALING.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) >= float(match[2]):
        raise _Wrong('a range such as "0..1", "-1..1" or "0..255"')
    return match[0]


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("true or false")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise _Wrong("a number")
    return float(value)


def _share(value: Any) -> float:
    number = _number(value)
    if not 0.0 <= number <= 1.0:
        raise _Wrong("a number from 0 to 1")
    return number


def _per_channel(*, positive: bool) -> Check:
    def check(value: Any) -> tuple[float, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= 4:
            raise _Wrong("one number per channel")
        numbers = tuple(_number(item) for item in value)
        if positive and min(numbers) <= 0:
            raise _Wrong("one number above 0 per channel")
        return numbers

    return check


def _anything(value: Any) -> Any:
    return value


def _arguments(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(_is_plain(item) for item in value.values()):
        raise _Wrong("a table of numbers, texts, true, false and lists of these")
    if not all(key.isidentifier() for key in value):
        raise _Wrong("names of the class's arguments as keys")
    return dict(value)


def _categories(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or not value:
        raise _Wrong("a table from column to its categories")
    check = _texts("categories", unique=True)
    return {key: check(words) for key, words in value.items()}


def _missing(value: Any) -> dict[str, float | str]:
    """What stands for a missing value: a number, "nan", or a text for columns of text."""
    if not isinstance(value, dict) or not value:
        raise _Wrong('a table from column (or "*") to a number, "nan" or a text')
    found: dict[str, float | str] = {}
    for key, stands in value.items():
        if isinstance(stands, float) and stands != stands:
            found[key] = "nan"
        else:
            found[key] = stands if isinstance(stands, str) else _number(stands)
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, bool | int | float | str)


_TOP: dict[str, Check] = {
    "format": _text,
    "runtime": _text,
    "task": _one_of(*TASKS),
    "version": _version,
    "inputs": _tensors,
    "outputs": _tensors,
    "signatures": _texts("names of signatures", unique=True),
    "labels": _texts("class names", unique=False),
    "keypoints": _texts("names of key points", unique=True),
    "skeleton": _pairs,
    "columns": _texts("column names", unique=True),
    "one_hot": _texts("column names", unique=True),
    "categories": _categories,
    "missing": _missing,
    "precision": _one_of("float32", "float16", "bfloat16"),
    "architecture": _text,
    "architecture_kwargs": _arguments,
    "preprocessing": _anything,  # a section of its own, checked by itself
    "postprocessing": _anything,
}
_PREPROCESSING: dict[str, Check] = {
    "size": _size,
    "resize": _one_of(*_CHOICES["resize"]),
    "resize_size": _size,
    "multiple": _multiple,
    "resample": _one_of(*_CHOICES["resample"]),
    "crop": _one_of(*_CHOICES["crop"]),
    "channel_order": _one_of(*_CHOICES["channel_order"]),
    "layout": _one_of(*_CHOICES["layout"]),
    "scaling": _scaling,
    "mean": _per_channel(positive=False),
    "std": _per_channel(positive=True),
    "jpeg_scaled_decode": _yes_or_no,
}
_POSTPROCESSING: dict[str, Check] = {
    "activation": _one_of(*_CHOICES["activation"]),
    "threshold": _share,
    "iou": _share,
    "head": _one_of(*HEADS, *SEGMENTATION_HEADS, *KEYPOINT_HEADS),
    "scaling": _scaling,
}
