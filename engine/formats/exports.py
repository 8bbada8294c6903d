"""What two tools that export models for other programs leave beside them, whatever the format of the model itself.

Lobe writes ``signature.json``: inputs, outputs, classes and the model's file name. The code it publishes with a model
cuts the largest square out of the middle of a picture, resizes it (Pillow's default, bicubic) and divides by 255.

Teachable Machine writes ``labels.txt``, a line ``0 name`` for each class, beside ``keras_model.h5``, the folder
``model.savedmodel`` or ``model_unquant.tflite``. The code it publishes with them prepares a picture with
``ImageOps.fit(image, (224, 224), LANCZOS)`` and ``x / 127.5 - 1``.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.formats.disk import read_bounded
from engine.formats.guesses import picture_of
from engine.formats.keras_graph import shape_of
from engine.model_spec import ASSUMED, ModelSpec, TensorSpec

LOBE_FILE = "signature.json"
TEACHABLE_MACHINE_FILES = frozenset({"keras_model.h5", "model.savedmodel", "model_unquant.tflite"})
TEACHABLE_MACHINE_SIZE = (224, 224)
_LABELS_FILE = "labels.txt"
_MAX_BYTES = 4 << 20
_NUMBERED = re.compile(rb"0 \S[^\n]*(?:\n\d+ \S[^\n]*)*\s*")
_LOBE_PICTURE = "Image"
_LOBE_SCORES = "Confidences"


def with_export(spec: ModelSpec) -> ModelSpec:
    """``spec`` with what such a file beside it says. Raises ModelUnreadable, ModelCorrupt (more than 4 MiB)."""
    return _with_teachable_machine(_with_lobe(spec))


def _with_lobe(spec: ModelSpec) -> ModelSpec:
    folder = spec.model_file if spec.model_file.is_dir() else spec.model_file.parent
    file = folder / LOBE_FILE
    signature = _lobe_signature(file, spec.model_file) if file.is_file() else None
    if signature is None:
        return spec
    labels, shape = signature
    scores = _scores(spec)
    spec = _with_steps(
        spec,
        {"crop": "square", "resize": "stretch", "resample": "bicubic", "scaling": "0..1"},
        f"{LOBE_FILE}: Lobe export",
    )
    if shape is not None and len(shape) == 4 and shape[1] > 0 and shape[2] > 0:
        spec = _with_steps(spec, {"size": shape[1:3]}, f"{LOBE_FILE}: inputs.{_LOBE_PICTURE}.shape")
    evidence = dict(spec.evidence)
    if scores is not None and scores.shape[-1] in (-1, len(labels)):
        spec = replace(spec, labels=labels)
        evidence["labels"] = f"{LOBE_FILE}: classes.Label"
    else:
        evidence["labels"] = f"{ASSUMED} ({LOBE_FILE} names {len(labels)} classes, the model gives other scores)"
    evidence["task"] = f"{LOBE_FILE}: outputs"
    evidence["postprocessing.activation"] = f"{LOBE_FILE}: outputs.{_LOBE_SCORES}"
    return replace(spec, task="image-classification", evidence=evidence)


def _with_steps(spec: ModelSpec, stated: dict[str, Any], source: str) -> ModelSpec:
    """``spec`` prepared so, except in what the model's own file states."""
    new = {key: value for key, value in stated.items() if f"preprocessing.{key}" not in spec.evidence}
    evidence = spec.evidence | {f"preprocessing.{key}": source for key in new}
    return replace(spec, preprocessing=replace(spec.preprocessing, **new), evidence=evidence)


def _lobe_signature(file: Path, model_file: Path) -> tuple[tuple[str, ...], tuple[int, ...] | None] | None:
    """The classes and the shape of the picture in Lobe's file, None where it is another tool's or another model's."""
    try:
        signature = json.loads(read_bounded(file, _MAX_BYTES))
    except (ValueError, RecursionError):
        return None  # Lobe writes JSON: this is no file of Lobe's
    if not isinstance(signature, dict):
        return None
    named = signature.get("filename", "saved_model.pb")
    classes, inputs = signature.get("classes"), signature.get("inputs")
    if named != (model_file.name if model_file.is_file() else "saved_model.pb"):
        return None
    labels = classes.get("Label") if isinstance(classes, dict) else None
    picture = inputs.get(_LOBE_PICTURE) if isinstance(inputs, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return None
    if not labels or not isinstance(picture, dict):
        return None
    return tuple(labels), shape_of(picture.get("shape"))


def _scores(spec: ModelSpec) -> TensorSpec | None:
    numbers = [tensor for tensor in spec.outputs if tensor.dtype != "str" and len(tensor.shape) == 2]
    return next((t for t in numbers if t.name == _LOBE_SCORES), numbers[0] if numbers else None)


def _with_teachable_machine(spec: ModelSpec) -> ModelSpec:
    labels = spec.model_file.with_name(_LABELS_FILE)
    picture = picture_of(spec.inputs[0]) if len(spec.inputs) == 1 else None
    if spec.model_file.name not in TEACHABLE_MACHINE_FILES or picture is None or not labels.is_file():
        return spec
    if picture.get("size") != TEACHABLE_MACHINE_SIZE or "preprocessing.scaling" in spec.evidence:
        return spec
    if _NUMBERED.fullmatch(read_bounded(labels, _MAX_BYTES).replace(b"\r\n", b"\n")) is None:
        return spec
    source = f"{_LABELS_FILE} beside {spec.model_file.name}: Teachable Machine export"
    stated = {"resize": "fit", "resample": "lanczos", "scaling": "-1..1", "channel_order": "rgb"}
    return _with_steps(spec, stated, source)
