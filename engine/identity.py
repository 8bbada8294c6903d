"""Which model a path means, and the id by which clients name it (``contract.md``, "Model ids")."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

MODEL_SUFFIXES = (
    ".keras", ".h5", ".hdf5", ".pt", ".pth", ".torchscript", ".pt2", ".tflite", ".onnx", ".safetensors",
)  # fmt: skip
"""Suffixes of files that are a model by themselves."""
BIOIMAGE_FILES = ("rdf.yaml", "bioimageio.yaml")
"""Names of the description of a BioImage.IO package, which stands for its folder."""
HUGGING_FACE_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""Names transformers gives to weights, in the order in which it looks for them."""

_FOLDER_NAMES_IT = frozenset({"model", "keras_model", "saved_model", "best", "last", "weights", "pytorch_model"})
_MAX = 64


def model_location(path: Path) -> Path:
    """The resolved path that stands for a model: its single file, or its folder.

    Links are followed; a folder that holds a single model file means that file; ``saved_model.pb`` means its folder.
    A path that does not exist stands for itself: the inspector says what is wrong with it.
    """
    folder = hugging_face_folder(path)
    if folder is not None:
        return folder
    resolved = _followed(path)
    if resolved.name in ("saved_model.pb", "saved_model.pbtxt", *BIOIMAGE_FILES):
        return resolved.parent
    if not resolved.is_dir() or any((resolved / name).exists() for name in ("saved_model.pb", *BIOIMAGE_FILES)):
        return resolved
    try:
        models = [p for p in resolved.iterdir() if p.suffix.lower() in MODEL_SUFFIXES and p.is_file()]
    except OSError:
        return resolved
    return models[0].resolve() if len(models) == 1 else resolved


def _followed(path: Path) -> Path:
    """``path`` with its links followed, or as it stands where they lead in a circle."""
    absolute = path.expanduser().absolute()
    try:
        return absolute.resolve()
    except (OSError, RuntimeError):
        return absolute


def is_hugging_face_folder(folder: Path) -> bool:
    """Whether a folder holds a ``config.json`` and weights under the names that transformers gives them, or such
    weights as no other program writes."""
    if not folder.is_dir():
        return False
    names = [name for name in HUGGING_FACE_WEIGHTS if (folder / name).is_file()]
    return bool(names) and ((folder / "config.json").is_file() or names != ["model.safetensors"])


def hugging_face_folder(path: Path) -> Path | None:
    """The resolved folder of transformers that ``path`` is, or that it is the config or the weights of, else None."""
    # Before links are followed: in the cache of the library the weights' names lead to files without a suffix.
    absolute = path.expanduser().absolute()
    if is_hugging_face_folder(absolute):
        return absolute.resolve()
    is_shard = absolute.name.startswith(("model-", "pytorch_model-")) and absolute.suffix in (".safetensors", ".bin")
    if (is_shard or absolute.name in ("config.json", *HUGGING_FACE_WEIGHTS)) and is_hugging_face_folder(
        absolute.parent
    ):
        return absolute.parent.resolve()
    return None


def base_id(path: Path) -> str:
    """The id a path asks for, before clashes: matches ``^[a-z0-9][a-z0-9._-]{0,63}$``."""
    absolute = hugging_face_folder(path) or path.expanduser().absolute()
    if absolute.is_dir():
        name = absolute.resolve().name
    else:
        name = absolute.name
        suffix = absolute.suffix.lower()
        if suffix in MODEL_SUFFIXES or suffix in (".pb", ".pbtxt"):
            name = absolute.stem
        if name.lower() in _FOLDER_NAMES_IT:
            name = _followed(absolute).parent.name
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
