"""BioImage.IO model packages: a folder of ``rdf.yaml`` or ``bioimageio.yaml``, weights and test tensors.

Format: bioimageio.spec, model descriptions 0.4 and 0.5 (github.com/bioimage-io/spec-bioimage-io). What the package says
of tensors, axes and processing is kept; the weights are opened as the format they are in, and decide how much the
package is trusted. The first found of TorchScript, ONNX, Keras is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import ModelCorrupt, ModelFormatUnknown, ModelRefused
from engine.formats import keras, keras_h5, onnx_model, torch_files
from engine.formats.bioimage_steps import DTYPES, Step, StepProblem, read_steps
from engine.formats.bioimage_yaml import MAX_BYTES, YamlProblem, read_mapping
from engine.formats.container import LOCAL_HEADER, ZipContainer
from engine.formats.disk import NotRegular, open_regular, read_bounded, read_head, unreadable
from engine.formats.guesses import picture_of
from engine.identity import BIOIMAGE_FILES
from engine.model_spec import ModelSpec, Preprocessing, TensorSpec

NAME = "bioimage_io"
EXPECTED = "a BioImage.IO model package of version 0.4 or 0.5"
MAX_TENSORS = 50
MAX_RANK = 8
MAX_SIDE = 1 << 20
MAX_ELEMENTS = 1 << 31
CHUNK = 1 << 20

WEIGHTS: dict[str, Callable[[Path], ModelSpec]] = {
    "torchscript": torch_files.describe,
    "onnx": onnx_model.describe,
    "keras_v3": keras.describe,
    "keras_hdf5": keras_h5.describe,
}
"""The kinds of weights that are opened, in order of preference, and what describes them."""


class _Problem(ValueError):
    """What is wrong with the description; the text continues "rdf.yaml: "."""


def recognise(path: Path) -> bool:
    """A folder with a description, or a zip of one. Raises ModelCorrupt, ModelUnreadable."""
    if path.is_dir():
        return description_in(path) is not None
    if path.suffix.lower() != ".zip" or not path.is_file() or read_head(path, 4) != LOCAL_HEADER:
        return False
    with ZipContainer(path, EXPECTED) as container:
        return any(PurePosixPath(name).name in BIOIMAGE_FILES for name in container.names)


def description_in(folder: Path) -> Path | None:
    return next((folder / name for name in BIOIMAGE_FILES if (folder / name).is_file()), None)


def describe(path: Path) -> ModelSpec:
    """What the package says. Raises ModelCorrupt, ModelUnreadable, ModelRefused, ModelFormatUnknown (also for a step or
    weights that cannot be used here, each named)."""
    file = description_in(path)
    if file is None:
        raise ModelFormatUnknown(
            f"{path.name} is a packed BioImage.IO model: unpack it, and open the folder that holds rdf.yaml."
        )
    try:
        stated = read_mapping(read_bounded(file, MAX_BYTES))
        return _spec(path, file, stated)
    except YamlProblem as error:
        raise ModelCorrupt(f"{file.name} in {path.name} cannot be used, {error}: expected {EXPECTED}.") from error
    except StepProblem as error:
        raise ModelFormatUnknown(f"{file.name} in {path.name} cannot be followed: {error}.") from error
    except _Problem as error:
        raise ModelCorrupt(f"{file.name} in {path.name} cannot be used, {error}: expected {EXPECTED}.") from error


def _spec(folder: Path, file: Path, stated: dict[str, Any]) -> ModelSpec:
    version = str(stated.get("format_version", ""))[:20]
    if stated.get("type", "model") != "model" or not version.startswith(("0.4", "0.5")):
        raise _Problem(f"it describes {str(stated.get('type', 'model'))[:40]!r} of version {version!r}")
    kind, weights, checked = _weights(folder, stated)
    inner = WEIGHTS[kind](weights)
    inputs = _listed(stated, "inputs")
    outputs = _listed(stated, "outputs")
    axes = {_name(tensor): _axes(tensor) for tensor in (*inputs, *outputs)}
    if len(axes) != len(inputs) + len(outputs):
        raise _Problem("two of its tensors have one name")
    steps = [s for t in inputs for s in read_steps(t.get("preprocessing"), _name(t), axes[_name(t)], "before")]
    steps += [s for t in outputs for s in read_steps(t.get("postprocessing"), _name(t), axes[_name(t)], "after")]
    _check_references(steps, {_name(t) for t in inputs})
    sizes: dict[str, dict[str, int]] = {}
    evidence = {
        "format": f"{file.name}: format_version {version}",
        "runtime": f"{file.name}: weights.{kind} {weights.name}{checked}",
        "inputs": f"{file.name}: inputs",
        "outputs": f"{file.name}: outputs",
    }
    if steps:
        evidence["steps"] = f"{file.name}: preprocessing, postprocessing"
    if samples := _samples(folder, stated, inputs, outputs):
        evidence["golden"] = f"{file.name}: test tensors {samples}"
    spec = ModelSpec(
        path=folder,
        model_file=weights,
        format=NAME,
        runtime=inner.runtime,
        task="raw-tensors",
        trust_class=inner.trust_class,
        inputs=tuple(_tensor(t, axes[_name(t)], sizes) for t in inputs),
        outputs=tuple(_tensor(t, axes[_name(t)], sizes) for t in outputs),
        steps=tuple(steps),
        files=(file, *inner.files),
        evidence=evidence,
    )
    return _with_picture(_with_labels(spec, outputs, file), file)


def _with_labels(spec: ModelSpec, outputs: list[dict[str, Any]], file: Path) -> ModelSpec:
    """Class names, where the only output is one score for each named channel."""
    axes = outputs[0].get("axes")
    if len(outputs) != 1 or not isinstance(axes, list) or len(axes) != 2:
        return spec
    names = axes[1].get("channel_names") if isinstance(axes[1], dict) else None
    if not isinstance(names, list) or len(names) != spec.outputs[0].shape[-1]:
        return spec
    evidence = spec.evidence | {"labels": f"{file.name}: outputs[0].axes channel_names"}
    return replace(spec, labels=tuple(str(name)[:200] for name in names), evidence=evidence)


def _with_picture(spec: ModelSpec, file: Path) -> ModelSpec:
    """Of a picture the package's own steps take the numbers as they are."""
    if len(spec.inputs) != 1 or picture_of(spec.inputs[0]) is None:
        return spec
    key = "preprocessing.scaling"
    source = f"{file.name}: inputs[0].preprocessing"
    return replace(spec, preprocessing=Preprocessing(scaling="0..255"), evidence=spec.evidence | {key: source})


def _weights(folder: Path, stated: dict[str, Any]) -> tuple[str, Path, str]:
    """Kind, file, and what was checked of it. Raises ModelCorrupt, ModelRefused, ModelFormatUnknown."""
    entries = stated.get("weights")
    if not isinstance(entries, dict) or not entries:
        raise _Problem("it names no weights")
    kind = next((k for k in WEIGHTS if isinstance(entries.get(k), dict)), None)
    if kind is None:
        there = ", ".join(str(k)[:40] for k in list(entries)[:10])
        raise ModelFormatUnknown(
            f"{folder.name} has weights as {there} only: expected a package with torchscript, onnx or keras weights."
        )
    file = _member(folder, entries[kind].get("source"))
    digest = entries[kind].get("sha256")
    if not isinstance(digest, str):
        return kind, file, ""
    if _sha256(file) != digest.lower():
        raise ModelCorrupt(f"{file.name} in {folder.name} is not the file its package was made with (sha256 differs).")
    return kind, file, ", sha256 agrees"


def _member(folder: Path, source: Any) -> Path:
    """A file of the package. Raises ModelRefused for one outside of it, ModelCorrupt for one that is missing."""
    if isinstance(source, dict):
        source = source.get("source")
    if not isinstance(source, str) or not source or "\x00" in source:
        raise _Problem("it names a file by nothing")
    if "://" in source:
        raise ModelCorrupt(
            f"{folder.name} names {source[:120]} by its address: expected a package that holds its files."
        )
    inside = PurePosixPath(source)
    if inside.is_absolute() or ".." in inside.parts or "\\" in source or ":" in source:
        raise ModelRefused(f"{folder.name} is refused: it names a file outside of it, {source[:120]!r}.")
    file = folder / source
    if not file.exists():
        raise ModelCorrupt(f"{folder.name} lacks {source[:120]}, which its description names: expected {EXPECTED}.")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ModelRefused(f"{folder.name} is refused: {source[:120]} leads outside of it.")
    if not file.is_file():
        raise unreadable(file, NotRegular("not a regular file"))
    return file


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(file) as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _listed(stated: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tensors = stated.get(key)
    if not isinstance(tensors, list) or not 1 <= len(tensors) <= MAX_TENSORS:
        raise _Problem(f"it has no {key}, or more than {MAX_TENSORS}")
    if not all(isinstance(tensor, dict) for tensor in tensors):
        raise _Problem(f"its {key} are no descriptions of tensors")
    return tensors


def _name(tensor: dict[str, Any]) -> str:
    name = tensor.get("id", tensor.get("name"))
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise _Problem("one of its tensors has no name")
    return name


def _axes(tensor: dict[str, Any]) -> tuple[str, ...]:
    """The axes' names: letters in version 0.4 (``bcyx``), objects in 0.5."""
    stated = tensor.get("axes")
    if isinstance(stated, list):
        names = [_axis_name(axis) for axis in stated]
    elif isinstance(stated, str):
        names = list(stated)
    else:
        names = []
    if not 0 < len(names) <= MAX_RANK or len(set(names)) != len(names):
        raise _Problem(f"the axes of {_name(tensor)!r} are not readable")
    rows = [name in ("b", "batch") for name in names]
    if any(rows[1:]):
        raise _Problem(f"the batch of {_name(tensor)!r} is not its first axis")
    return tuple(names)


def _axis_name(axis: Any) -> str:
    kind = axis.get("type") if isinstance(axis, dict) else None
    name = kind if kind in ("batch", "channel") else axis.get("id", kind) if isinstance(axis, dict) else None
    if not isinstance(name, str):
        raise _Problem("one of its axes has no name")
    return name


def _tensor(tensor: dict[str, Any], axes: tuple[str, ...], sizes: dict[str, dict[str, int]]) -> TensorSpec:
    """Name, dtype and shape; ``sizes`` collects what is known of each tensor's axes for those that refer to them."""
    name = _name(tensor)
    stated = tensor["axes"]
    if isinstance(stated, list):
        shape = [_size(axis, sizes) for axis in stated]
        data = tensor.get("data")
        first = data[0] if isinstance(data, list) and data else data
        dtype = first.get("type", "float32") if isinstance(first, dict) else "float32"
    else:
        shape = _shape(tensor.get("shape"), len(axes), sizes)
        dtype = tensor.get("data_type", "float32")
    if dtype not in DTYPES:
        raise _Problem(f"{name!r} has the dtype {str(dtype)[:40]!r}")
    shape = [-1 if axis in ("b", "batch") else size for axis, size in zip(axes, shape, strict=True)]
    if any(not (n == -1 or 0 < n <= MAX_SIDE) for n in shape) or prod(n for n in shape if n > 0) > MAX_ELEMENTS:
        raise _Problem(f"{name!r} has the impossible shape {shape}")
    sizes[name] = dict(zip(axes, shape, strict=True))
    return TensorSpec(name, str(dtype), tuple(shape))


def _size(axis: dict[str, Any], sizes: dict[str, dict[str, int]]) -> int:
    """Of an axis of version 0.5: a number, names of channels, a lower bound and a step, or another tensor's axis."""
    kind, size = axis.get("type"), axis.get("size")
    if kind == "batch":
        return -1
    if kind == "channel" and isinstance(axis.get("channel_names"), list):
        return len(axis["channel_names"])
    if _is_whole(size):
        return _whole(size)
    if not isinstance(size, dict):
        raise _Problem("one of its axes has no size")
    if "tensor_id" not in size:
        return -1 if size.get("step") != 0 else _whole(size.get("min"))
    known = sizes.get(str(size["tensor_id"]), {}).get(str(size.get("axis_id")), -1)
    same_scale = axis.get("scale", 1.0) == 1.0
    # Whether the other axis has a scale of its own is not kept: only an axis without one is told exactly.
    return known + _whole(size.get("offset", 0)) if known > 0 and same_scale and "scale" not in axis else -1


def _shape(shape: Any, rank: int, sizes: dict[str, dict[str, int]]) -> list[int]:
    """Of version 0.4: numbers, ``min`` and ``step``, or ``reference_tensor``, ``scale`` and ``offset``."""
    if isinstance(shape, list):
        found = [_whole(n) for n in shape]
    elif isinstance(shape, dict) and "min" in shape:
        least, step = shape["min"], shape.get("step")
        if not isinstance(least, list) or not isinstance(step, list) or len(least) != len(step):
            raise _Problem("a shape of min and step is not readable")
        found = [_whole(n) if s == 0 else -1 for n, s in zip(least, step, strict=True)]
    elif isinstance(shape, dict) and "reference_tensor" in shape:
        known = list(sizes.get(str(shape["reference_tensor"]), {}).values())
        scale, offset = shape.get("scale"), shape.get("offset")
        if not isinstance(scale, list) or not isinstance(offset, list) or len(scale) != len(offset):
            raise _Problem("a shape of scale and offset is not readable")
        known = known if len(known) == len(scale) and None not in scale else [-1] * len(scale)
        triples = zip(known, scale, offset, strict=True)
        found = [_implied(n, s, o) for n, s, o in triples]
    else:
        raise _Problem("one of its tensors has no shape")
    if len(found) != rank:
        raise _Problem("the shape and the axes of one of its tensors differ in length")
    return found


def _implied(known: int, scale: Any, offset: Any) -> int:
    if not isinstance(offset, int | float) or not isinstance(scale, int | float | None) or not abs(offset) < MAX_SIDE:
        raise _Problem("a shape of scale and offset is not readable")
    if not scale:
        return int(2 * offset)
    return int(known * scale + 2 * offset) if known > 0 and 0 < scale < MAX_SIDE else -1


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(value: Any) -> int:
    if not _is_whole(value):
        raise _Problem("a size in it is no whole number")
    return int(value)


def _check_references(steps: list[Step], inputs: set[str]) -> None:
    for step in steps:
        if step.get("reference") not in (None, *inputs):
            raise StepProblem(f"the step {step['op']!r} refers to {step['reference'][:80]!r}, which is no input")


def _samples(folder: Path, stated: dict[str, Any], inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> str:
    """The names of the test tensors that are there: inputs, ``->``, outputs."""
    given = stated.get("test_inputs") or [t.get("test_tensor") for t in inputs]
    expected = stated.get("test_outputs") or [t.get("test_tensor") for t in outputs]
    named = []
    for side in (given, expected):
        if not isinstance(side, list) or len(side) > MAX_TENSORS:
            return ""
        sources = [s.get("source") if isinstance(s, dict) else s for s in side]
        names = [s for s in sources if isinstance(s, str) and (folder / PurePosixPath(s).name).is_file()]
        if not names or len(names) != len(sources):
            return ""
        named.append(", ".join(names))
    return " -> ".join(named)[:300]
