"""What a person dropped, pasted or chose: sorted into models, inputs and the rest, with a reason for each of the rest.

Runs on a task thread (:func:`take_in`, :func:`read_input`); only :func:`kind_of_name` is cheap enough for anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import EnginePort
from engine.errors import EngineError
from gui.error_text import FileProblem
from gui.language import counted, tr
from gui.words import size_words

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif"}
)
TABLE_SUFFIXES = frozenset({".csv", ".parquet"})
TENSOR_SUFFIXES = frozenset({".npy", ".npz"})
TEXT_SUFFIXES = frozenset({".txt", ".md"})
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg"})
INPUT_SUFFIXES = IMAGE_SUFFIXES | TABLE_SUFFIXES | TEXT_SUFFIXES | AUDIO_SUFFIXES | TENSOR_SUFFIXES
MODEL_SUFFIXES = frozenset(
    {".keras", ".pt", ".pth", ".pt2", ".ts", ".torchscript", ".h5", ".hdf5", ".onnx", ".tflite", ".safetensors", ".pb"}
)
MAX_INPUT_BYTES = 32 << 20
"""One input, as large as the network door takes it (bytes)."""
MAX_FILES = 5000
"""Files one drop may queue; the rest is counted and said."""
INSPECT_WAIT_S = 60.0

_CONTENT_TYPES = {
    "table": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    "text": "text/plain",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
}


@dataclass(frozen=True, slots=True)
class InputFile:
    """One thing to run: a file, or bytes that were pasted. ``kind`` is image, table, text, audio or tensor."""

    name: str
    kind: str
    path: Path | None = None
    data: bytes | None = None
    content_type: str | None = None


@dataclass(slots=True)
class Intake:
    """Everything dropped appears in exactly one of the three."""

    models: list[Path] = field(default_factory=list)
    inputs: list[InputFile] = field(default_factory=list)
    refused: list[tuple[str, FileProblem]] = field(default_factory=list)


def kind_of_name(name: str) -> str:
    """``model``, ``image``, ``table``, ``text``, ``audio``, ``tensor``, ``folder?`` (no suffix) or ``other``: by the
    name alone."""
    suffix = os.path.splitext(name.rstrip("/\\"))[1].lower()
    for kind, suffixes in (
        ("model", MODEL_SUFFIXES),
        ("image", IMAGE_SUFFIXES),
        ("table", TABLE_SUFFIXES),
        ("text", TEXT_SUFFIXES),
        ("audio", AUDIO_SUFFIXES),
        ("tensor", TENSOR_SUFFIXES),
    ):
        if suffix in suffixes:
            return kind
    return "other" if suffix else "folder?"


def summary(paths: Iterable[Path], is_folder: Callable[[Path], bool]) -> tuple[dict[str, int], list[str]]:
    """How many of each kind, and the names of what cannot be used. ``is_folder`` decides names without a known kind."""
    counts: dict[str, int] = {}
    refused = []
    for path in paths:
        kind = kind_of_name(path.name)
        if kind in ("other", "folder?"):
            kind = "folder" if is_folder(path) else "other"
        if kind == "other":
            refused.append(path.name)
        else:
            counts[kind] = counts.get(kind, 0) + 1
    return counts, refused


def take_in(paths: Sequence[Path], engine: EnginePort, still_wanted: Callable[[], bool]) -> Intake:
    """Sort ``paths``. Blocks on the disk and, for folders that may be models, on the inspector."""
    result = Intake()
    for path in paths:
        try:
            if path.is_dir():
                _take_folder(path, engine, still_wanted, result)
            elif not path.exists():
                result.refused.append(
                    (path.name, _problem("file_unreadable", tr("{name} is not there.").format(name=path.name)))
                )
            else:
                _take_file(path, result)
        except OSError as error:
            result.refused.append(
                (
                    path.name,
                    _problem("file_unreadable", tr("{name} cannot be read.").format(name=path.name), str(error)),
                )
            )
    if len(result.inputs) > MAX_FILES:
        left_out = len(result.inputs) - MAX_FILES
        del result.inputs[MAX_FILES:]
        files = counted("{count} file was left out", "{count} files were left out", left_out)
        message = tr("One drop takes {most} files; {files}.").format(most=MAX_FILES, files=files)
        result.refused.append((tr("{count} more").format(count=left_out), _problem("file_kind", message)))
    return result


def read_input(item: InputFile) -> bytes:
    """The bytes of one input. Raises FileProblem where it is too large, gone or unreadable."""
    if item.data is not None:
        return item.data
    assert item.path is not None
    try:
        with item.path.open("rb") as handle:
            data = handle.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise _problem("file_unreadable", tr("{name} cannot be read.").format(name=item.name), str(error)) from error
    if len(data) > MAX_INPUT_BYTES:
        limit = size_words(MAX_INPUT_BYTES)
        raise _problem(
            "file_too_large",
            tr("{name} is larger than {limit}, the most one input may be.").format(name=item.name, limit=limit),
        )
    return data


def input_file(path: Path) -> InputFile | None:
    """``path`` as something to run, by its name; None for what is no input."""
    kind = kind_of_name(path.name)
    if kind not in ("image", "table", "text", "audio", "tensor"):
        return None
    content_type = _CONTENT_TYPES.get(path.suffix.lower()) or _CONTENT_TYPES.get(kind)
    return InputFile(path.name, kind, path, content_type=content_type)


def _take_file(path: Path, result: Intake) -> None:
    item = input_file(path)
    if item is not None:
        result.inputs.append(item)
    elif kind_of_name(path.name) == "model":
        result.models.append(path)
    else:
        result.refused.append(
            (
                path.name,
                _problem(
                    "file_kind",
                    tr("{name} is not a picture, a table, a text, a recording or a model.").format(name=path.name),
                ),
            )
        )


def _take_folder(folder: Path, engine: EnginePort, still_wanted: Callable[[], bool], result: Intake) -> None:
    names = sorted(os.listdir(folder))
    looks_like_model = any(kind_of_name(name) == "model" or name.endswith("deskside.toml") for name in names)
    error: EngineError | None = None
    if looks_like_model:
        error = _inspect(folder, engine, still_wanted)
        if error is None:
            result.models.append(folder)
            return
    found = _walk(folder, result)
    if found:
        return
    if not looks_like_model:
        error = _inspect(folder, engine, still_wanted)
    if error is None:
        result.models.append(folder)
    else:
        message = tr("{name} holds no model and no pictures, tables, texts or recordings.").format(name=folder.name)
        result.refused.append((folder.name, _problem("file_kind", message, f"{error.code}: {error.message}")))


def _walk(folder: Path, result: Intake) -> bool:
    """Queue every input below ``folder``; hidden files and links to folders are passed over, the rest is listed."""
    found = False
    others: list[tuple[str, FileProblem]] = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            item = input_file(Path(root, name))
            if item is not None:
                result.inputs.append(item)
                found = True
            else:
                others.append(
                    (
                        name,
                        _problem(
                            "file_kind",
                            tr("{name} is not a picture, a table, a text or a recording.").format(name=name),
                        ),
                    )
                )
            if len(result.inputs) + len(others) > 2 * MAX_FILES:
                message = tr("{name} holds more than {most} files; the rest was not looked at.").format(
                    name=folder.name, most=2 * MAX_FILES
                )
                others.append((tr("{name}, the rest").format(name=folder.name), _problem("file_kind", message)))
                result.refused += others
                return found
    if found:
        result.refused += others
    return found


def _inspect(path: Path, engine: EnginePort, still_wanted: Callable[[], bool]) -> EngineError | None:
    """None where the inspector takes ``path`` for a model, else what it said."""
    future: Future[Any] = engine.inspect(path)
    waited = 0.0
    while still_wanted() and waited < INSPECT_WAIT_S:
        try:
            future.result(timeout=0.2)
            return None
        except FutureTimeout:
            waited += 0.2
        except EngineError as error:
            return error
    future.cancel()
    return _problem("file_unreadable", tr("{name} took too long to look at.").format(name=path.name))


def _problem(code: str, message: str, details: str = "") -> FileProblem:
    return FileProblem(message, code=code, details=details)
