"""The bundled example models as the first page offers them, read from their folders (on a task thread)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gui.intake import InputFile, input_file
from gui.language import mark, tr
from gui.words import format_words, size_words

MAX_SAMPLES = 8

_FRAMEWORKS = {
    "keras": "Keras",
    "torch": "PyTorch",
    "pytorch": "PyTorch",
    "tensorflow": "TensorFlow",
    "tf": "TensorFlow",
}
_DOES = {
    "image-classification": mark("names what is in a picture"),
    "object-detection": mark("finds things in a picture"),
    "image-segmentation": mark("tells which pixels are what"),
    "keypoint-detection": mark("finds joints of figures"),
    "depth-estimation": mark("tells near from far"),
    "image-to-image": mark("makes a new picture"),
    "text-classification": mark("reads a text"),
    "token-classification": mark("finds names in a text"),
    "audio-classification": mark("listens to a recording"),
    "tabular-classification": mark("reads a CSV table"),
    "tabular-regression": mark("reads a CSV table"),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One bundled model. ``samples`` are inputs it can be tried on."""

    path: Path
    title: str
    about: str
    task: str
    samples: tuple[InputFile, ...]


def title_of(folder: str) -> str:
    """``digits-torch`` -> ``Digits, PyTorch``."""
    words = folder.split("-")
    plain = [word for word in words if word not in _FRAMEWORKS]
    title = " ".join(plain).capitalize() or folder
    return ", ".join([title, *(_FRAMEWORKS[word] for word in words if word in _FRAMEWORKS)])


def sample_inputs(model_folder: Path) -> tuple[InputFile, ...]:
    """The first files of ``samples/`` beside a model that can be run. Blocks on the disk."""
    folder = model_folder if model_folder.is_dir() else model_folder.parent
    folder = folder / "samples"
    if not folder.is_dir():
        return ()
    found = (input_file(folder / name) for name in sorted(os.listdir(folder)))
    return tuple(item for item in found if item is not None)[:MAX_SAMPLES]


def read_examples(folders: Sequence[Path]) -> list[Example]:
    """Every folder of ``folders`` that holds a readable ``deskside.toml``. Blocks on the disk."""
    return [example for folder in folders if (example := _read(folder)) is not None]


def _read(folder: Path) -> Example | None:
    try:
        with (folder / "deskside.toml").open("rb") as handle:
            sidecar = tomllib.load(handle)
        size = sum(f.stat().st_size for f in folder.iterdir() if f.is_file() and f.name.startswith("model"))
        samples = sample_inputs(folder)
    except (OSError, tomllib.TOMLDecodeError):
        return None  # an example that is not there (an installed wheel) or damaged is not offered
    task, file_format = str(sidecar.get("task", "")), str(sidecar.get("format", ""))
    parts = [format_words(file_format), size_words(size) if size else "", tr(_DOES.get(task, ""))]
    return Example(folder, title_of(folder.name), " · ".join(part for part in parts if part), task, samples)
