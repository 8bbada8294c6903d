"""Which model a path means, and the id by which clients name it (``contract.md``, "Model ids")."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

MODEL_SUFFIXES = (
    ".keras", ".h5", ".hdf5", ".pt", ".pth", ".torchscript", ".pt2", ".tflite", ".onnx", ".safetensors",
)  # fmt: skip
"""Suffixes of files that are a model by themselves."""

_FOLDER_NAMES_IT = frozenset({"model", "keras_model", "saved_model", "best", "last", "weights", "pytorch_model"})
_MAX = 64


def model_location(path: Path) -> Path:
    """The resolved path that stands for a model: its single file, or its folder.

    Links are followed; a folder that holds a single model file means that file; ``saved_model.pb`` means its folder.
    A path that does not exist stands for itself: the inspector says what is wrong with it.
    """
    resolved = path.expanduser().resolve()
    if resolved.name in ("saved_model.pb", "saved_model.pbtxt"):
        return resolved.parent
    if not resolved.is_dir() or (resolved / "saved_model.pb").exists():
        return resolved
    try:
        models = [p for p in resolved.iterdir() if p.suffix.lower() in MODEL_SUFFIXES and p.is_file()]
    except OSError:
        return resolved
    return models[0].resolve() if len(models) == 1 else resolved


def base_id(path: Path) -> str:
    """The id a path asks for, before clashes: matches ``^[a-z0-9][a-z0-9._-]{0,63}$``."""
    absolute = path.expanduser().absolute()
    if absolute.is_dir():
        name = absolute.resolve().name
    else:
        name = absolute.name
        suffix = absolute.suffix.lower()
        if suffix in MODEL_SUFFIXES or suffix in (".pb", ".pbtxt"):
            name = absolute.stem
        if name.lower() in _FOLDER_NAMES_IT:
            name = absolute.resolve().parent.name
    slug = re.sub(r"[^a-z0-9._-]", "-", name.lower()).lstrip("._-")[:_MAX]
    return slug or "model"


def unique_id(wanted: str, taken: Callable[[str], bool]) -> str:
    """``wanted``, or with ``-2``, ``-3`` … where it is taken."""
    if not taken(wanted):
        return wanted
    number = 2
    while True:
        suffix = f"-{number}"
        candidate = wanted[: _MAX - len(suffix)] + suffix
        if not taken(candidate):
            return candidate
        number += 1
