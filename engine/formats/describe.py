"""From a path a person opened to a ModelSpec: find the model, ask its format, add what the neighbours say.

A folder and the single model file in it are the same model: ``path`` is then the folder, whichever was opened. What
the sidecar states wins over ``labels.txt``, that over the model's own file, that over what is assumed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import ModelCorrupt, ModelFormatUnknown, ModelUnreadable, SidecarInvalid
from engine.formats import (
    bioimage_io,
    exports,
    guesses,
    hugging_face,
    keras,
    keras_h5,
    litert,
    onnx_model,
    saved_model,
    state_dict,
    torch_export,
    torch_files,
)
from engine.formats.disk import EXPECTED, NotRegular, entries, read_bounded, read_head, unreadable
from engine.formats.sidecar import Sidecar, read_sidecar
from engine.identity import BIOIMAGE_FILES, MODEL_SUFFIXES, hugging_face_folder
from engine.model_spec import ASSUMED, SIDECAR, ModelSpec
from engine.settings import data_dir as default_data_dir
from engine.sidecar_file import find_sidecar

LABELS_FILE = "labels.txt"
MAX_LABELS_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Format:
    """One on-disk format. ``recognise`` says whether a path is of this kind, ``describe`` reads what it states."""

    recognise: Callable[[Path], bool]
    describe: Callable[[Path], ModelSpec]


FORMATS = {
    bioimage_io.NAME: Format(bioimage_io.recognise, bioimage_io.describe),
    hugging_face.NAME: Format(hugging_face.recognise, hugging_face.describe),
    saved_model.NAME: Format(saved_model.recognise, saved_model.describe),
    keras.NAME: Format(keras.recognise, keras.describe),
    keras_h5.NAME: Format(keras_h5.recognise, keras_h5.describe),
    litert.NAME: Format(litert.recognise, litert.describe),
    onnx_model.NAME: Format(onnx_model.recognise, onnx_model.describe),
    torch_export.NAME: Format(torch_export.recognise, torch_export.describe),
    state_dict.NAME: Format(state_dict.recognise, state_dict.describe),
    torch_files.NAME: Format(torch_files.recognise, torch_files.describe),
}
"""In the order they are tried."""


def describe_model(path: Path, data_dir: Path | None = None) -> ModelSpec:
    """What is known of the model at ``path``; every field of ``evidence_rows()`` has its source.

    ``data_dir`` is where sidecars of models in read-only places lie. Raises ModelUnreadable (missing, no permission,
    no regular file), ModelFormatUnknown, ModelCorrupt, ModelRefused, SidecarInvalid: each naming the file.
    """
    try:
        return _describe(path, data_dir or default_data_dir())
    except OSError as error:
        raise unreadable(path, error) from error


def _describe(path: Path, data_dir: Path) -> ModelSpec:
    whole, model_file = locate(path)
    sidecar_path = find_sidecar(whole, model_file, data_dir)
    sidecar = read_sidecar(sidecar_path) if sidecar_path is not None else None
    spec = exports.with_export(replace(_described(model_file), path=whole))
    if sidecar is not None:
        spec = _with_sidecar(spec, sidecar)
    spec = _with_labels_file(state_dict.with_architecture(spec))
    spec = guesses.with_picture_fields(guesses.with_task(spec))
    _check_columns(spec, sidecar)
    assumed = {name: ASSUMED for name, _, _ in spec.evidence_rows() if name not in spec.evidence}
    return replace(spec, evidence=spec.evidence | assumed)


def locate(path: Path) -> tuple[Path, Path]:
    """The resolved (path, model_file) of what was opened. Raises ModelUnreadable, ModelFormatUnknown."""
    part_of = hugging_face_folder(path)
    if part_of is not None:
        return part_of, part_of
    try:
        resolved = path.resolve(strict=True)
        kind_is_folder, kind_is_file = resolved.is_dir(), resolved.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise unreadable(path, error if isinstance(error, OSError) else OSError(str(error))) from error
    if kind_is_folder:
        if bioimage_io.recognise(resolved) or saved_model.recognise(resolved):
            return resolved, resolved
        return _locate_in(resolved)
    if not kind_is_file:
        raise unreadable(path, NotRegular())
    if resolved.name in (saved_model.PB, *BIOIMAGE_FILES):
        return resolved.parent, resolved.parent
    return (resolved.parent if _is_alone(resolved) else resolved), resolved


def _locate_in(folder: Path) -> tuple[Path, Path]:
    candidates = _candidates(folder)
    if all(c.name in hugging_face.OTHER_WEIGHTS for c in candidates) and hugging_face.names_a_model(
        folder / hugging_face.CONFIG
    ):
        return folder, folder  # the format says which weights are missing
    if not candidates:
        raise ModelFormatUnknown(f"The folder {folder.name} holds no model: expected {EXPECTED}.")
    if len(candidates) > 1:
        names = ", ".join(c.name for c in candidates[:5]) + (", …" if len(candidates) > 5 else "")
        raise ModelFormatUnknown(f"The folder {folder.name} holds several models ({names}): open one of them.")
    # A link leads to the model it names, so that both are the same model.
    return locate(candidates[0])


def _candidates(folder: Path) -> list[Path]:
    found = []
    for entry in entries(folder):
        path = Path(entry.path)
        is_model = path.suffix.lower() in MODEL_SUFFIXES and entry.is_file()
        if is_model or (entry.is_dir() and saved_model.recognise(path)):
            found.append(path)
    return found


def _is_alone(model_file: Path) -> bool:
    if bioimage_io.description_in(model_file.parent) is not None:
        return False  # the folder is the package, the file its weights alone
    try:
        return [c.resolve() for c in _candidates(model_file.parent)] == [model_file]
    except ModelUnreadable:
        # The file itself can be opened; its folder is too full or may not be listed, and so is not the model.
        return False


def _described(model_file: Path) -> ModelSpec:
    head = b"" if model_file.is_dir() else read_head(model_file, 16)
    if not head and not model_file.is_dir():
        raise ModelCorrupt(f"{model_file.name} is empty (0 bytes): expected {EXPECTED}.")
    for known in FORMATS.values():
        if known.recognise(model_file):
            return known.describe(model_file)
    raise ModelFormatUnknown(f"{model_file.name} is not a model that can be opened: expected {EXPECTED}.")


def _with_sidecar(spec: ModelSpec, sidecar: Sidecar) -> ModelSpec:
    stated, file = sidecar.fields, sidecar.path.name
    for key in ("format", "runtime"):
        actual = getattr(spec, key)
        if stated.get(key, actual) != actual:
            raise SidecarInvalid(f'{file}: {key}: expected "{actual}", which is what {spec.model_file.name} needs.')
    signatures = stated.get("signatures")
    if signatures is not None:
        unknown = [name for name in signatures if name not in spec.signatures]
        if unknown:
            there = ", ".join(spec.signatures) or "none"
            raise SidecarInvalid(f"{file}: signatures: {unknown[0]!r} is not in the model; there are: {there}.")
        describe = litert.describe if spec.format == litert.NAME else saved_model.describe
        chosen = describe(spec.model_file, signatures[0])
        spec = replace(spec, inputs=chosen.inputs, outputs=chosen.outputs)
    if strange := [n for pair in stated.get("skeleton", ()) for n in pair if n not in stated.get("keypoints", ())]:
        raise SidecarInvalid(f"{file}: skeleton: {strange[0]!r} is none of the keypoints.")
    spec = replace(
        spec,
        **stated,
        preprocessing=replace(spec.preprocessing, **sidecar.preprocessing),
        postprocessing=replace(spec.postprocessing, **sidecar.postprocessing),
    )
    sources = [
        *stated,
        *(f"preprocessing.{key}" for key in sidecar.preprocessing),
        *(f"postprocessing.{key}" for key in sidecar.postprocessing),
    ]
    if spec.task == "tabular-regression" and "activation" not in sidecar.postprocessing:
        # What the last operation told was told of scores; the sidecar says that the output is no score.
        spec = replace(spec, postprocessing=replace(spec.postprocessing, activation="none"))
        sources.append("postprocessing.activation")
    return replace(spec, evidence=spec.evidence | dict.fromkeys(sources, SIDECAR)) if sources else spec


def _class_count(spec: ModelSpec) -> int | None:
    """How many classes the one output tells, or None where it does not. A single score tells two."""
    if len(spec.outputs) != 1 or len(spec.outputs[0].shape) != 2 or spec.outputs[0].shape[1] < 1:
        return None
    return max(spec.outputs[0].shape[1], 2)


def _with_labels_file(spec: ModelSpec) -> ModelSpec:
    classes = _class_count(spec)
    if spec.labels:
        if classes is not None and len(spec.labels) not in (classes, spec.outputs[0].shape[1]):
            raise SidecarInvalid(
                f"The sidecar of {spec.model_file.name}: labels: expected {classes} class names, "
                f"one for each score, found {len(spec.labels)}."
            )
        return spec
    file = next((f for f in (spec.model_file / LABELS_FILE, spec.model_file.parent / LABELS_FILE) if f.is_file()), None)
    if file is None:
        return spec
    labels = parse_labels(read_bounded(file, MAX_LABELS_BYTES))
    if not labels or (classes is not None and len(labels) != classes):
        # It may belong to another model in the folder: the model opens without names, and says why.
        note = f"{ASSUMED} ({LABELS_FILE} has {len(labels)} lines, the model {classes or 'no'} classes)"
        return replace(spec, evidence=spec.evidence | {"labels": note})
    return replace(spec, labels=labels, evidence=spec.evidence | {"labels": f"{LABELS_FILE}: line order"})


def parse_labels(data: bytes) -> tuple[str, ...]:
    """One name a line, in class order; also "0 name" as Teachable Machine writes it, numbered from 0 without a gap."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    lines = [line.strip() for line in text.strip().splitlines()]
    numbered = [re.fullmatch(r"(\d+)[\s:,]+(\S.*)", line) for line in lines]
    if lines and all(m is not None and int(m[1]) == i for i, m in enumerate(numbered)):
        return tuple(m[2] for m in numbered if m is not None)
    return tuple(lines) if lines != [""] else ()


def _check_columns(spec: ModelSpec, sidecar: Sidecar | None) -> None:
    if sidecar is None or "columns" not in sidecar.fields or len(spec.inputs) != 1:
        return
    shape: Any = spec.inputs[0].shape
    if len(shape) == 2 and shape[1] > 0 and shape[1] != len(spec.columns):
        raise SidecarInvalid(
            f"{sidecar.path.name}: columns: expected {shape[1]} column names, as many as the model takes, "
            f"found {len(spec.columns)}."
        )
