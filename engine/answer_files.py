"""The pictures and numbers of answers as files: PNG from the worker, ``.npy`` for an array, ``.npz`` for tensors.

Knows the plain types only, and never decodes a picture.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.prediction import Prediction
from engine.settings import write_atomically

LONGEST_WORD = 40
_STRANGE = re.compile(r"[^A-Za-z0-9._-]+")


def files_of(prediction: Prediction) -> Iterator[tuple[str, bytes]]:
    """What an answer holds beside words, as (ending of a file's name, content): ``-depth.png``, ``-2-cat-mask.png``,
    ``-predicted_depth.npy``, ``.npz`` for raw tensors, ``.npy`` for a vector. Nothing for an answer in words alone."""
    if prediction.outputs is not None:
        yield ".npz", _npz(prediction.outputs)
    elif prediction.results is not None:
        for row in prediction.results:
            for ending, content in _of_answer(row.get("predictions")):
                yield f"-{int(row['input']) + 1}{ending}", content
    else:
        yield from _of_answer(prediction.predictions)


class AnswerFolder:
    """A folder for the files of a run's answers, each named after its input without the suffix; inputs with equal names
    are told apart by a number. Files of an earlier run are replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._used: Counter[str] = Counter()

    def write(self, name: str, prediction: Prediction) -> list[Path]:
        """Write :func:`files_of` the answer to the input ``name``. Raises OSError."""
        stem = _word(Path(name).stem)
        self._used[stem.lower()] += 1
        if (count := self._used[stem.lower()]) > 1:
            stem = f"{stem}({count})"
        written = []
        for ending, content in files_of(prediction):
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{stem}{ending}"
            write_atomically(path, content)
            written.append(path)
        return written


def _of_answer(predictions: Any) -> Iterator[tuple[str, bytes]]:
    if isinstance(predictions, list) and predictions and _is_numbers(predictions):
        yield ".npy", _npy(np.asarray(predictions, dtype=np.float32))
    elif isinstance(predictions, dict):
        yield from _of_entry("", predictions)
    elif isinstance(predictions, list):
        for number, entry in enumerate(predictions, 1):
            if isinstance(entry, dict):
                label = str(entry.get("label") or "")
                yield from _of_entry(f"-{number}{f'-{_word(label)}' if label else ''}", entry)


def _of_entry(start: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    for name, part in entry.items():
        if isinstance(part, bytes):
            yield f"{start}-{_word(str(name))}.png", part
        elif isinstance(part, np.ndarray):
            yield f"{start}-{_word(str(name))}.npy", _npy(part)


def _is_numbers(value: Any) -> bool:
    """Whether these are nested lists of numbers, as feature-extraction answers."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(text: str) -> str:
    """``text`` as a part of a file's name, on any system."""
    return _STRANGE.sub("_", text)[:LONGEST_WORD].strip("._") or "answer"


def _npy(array: NDArray[Any]) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array, allow_pickle=False)
    return packed.getvalue()


def _npz(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    packed = io.BytesIO()
    # Text is kept as NumPy's own strings: an object array would need pickle.
    plain: dict[str, Any] = {
        str(name): array.astype(str) if array.dtype.hasobject else array for name, array in tensors.items()
    }
    np.savez(packed, **plain)
    return packed.getvalue()
