"""ONNX: one protobuf file, whose weights may lie in other files beside it (onnx.ai/onnx/repo-docs/ExternalData.html).

Class *data*: the operations of the standard and of ONNX Runtime's own domains compute and touch neither files nor the
network. An operation that a library of its own would have to bring is refused; such libraries are never loaded.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import replace
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

from engine.errors import ModelCorrupt, ModelFormatUnknown, ModelRefused
from engine.formats import ultralytics
from engine.formats.disk import NotRegular, open_regular, unreadable
from engine.formats.onnx_graph import OnnxDamaged, OnnxFacts, read_facts
from engine.formats.protobuf_wire import WireError
from engine.model_spec import ASSUMED, ModelSpec, Postprocessing, TrustClass

NAME = "onnx"
RUNTIME = "onnxruntime"
EXPECTED = "a complete ONNX file"
MAX_FILE = (2 << 30) - 1
"""Protobuf's own bound: larger models keep their weights in external data."""
MAX_ELEMENTS = 1 << 31
BUILT_IN_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training", "com.microsoft",
     "com.microsoft.experimental", "com.microsoft.nchwc", "com.ms.internal.nhwc"}
)  # fmt: skip
"""Domains whose operations are part of every ONNX Runtime (onnxruntime/core/graph/constants.h)."""
_OTHER_FILES = frozenset({"EPContext"})
"""Built-in operations that open a file of their own: the compiled blob of a hardware vendor."""
_RAW_SCORES = frozenset({"Gemm", "MatMul", "Add"})


def recognise(path: Path) -> bool:
    """A file named ``.onnx``: protobuf has no mark of its own."""
    return path.suffix.lower() == ".onnx" and path.is_file()


def describe(path: Path) -> ModelSpec:
    """Inputs, outputs, metadata and files. Raises ModelCorrupt, ModelRefused, ModelFormatUnknown, ModelUnreadable."""
    facts = _read(path)
    _check_operations(path, facts)
    _check_tensors(path, facts)
    opset = next((f"ai.onnx {facts.opsets[d]}" for d in ("", "ai.onnx") if d in facts.opsets), "no ai.onnx")
    evidence = {
        "format": f"{path.name}: ir_version {facts.ir_version}, producer {facts.producer[:40] or 'unknown'}",
        "runtime": f"{path.name}: opset_import {opset}",
        "inputs": f"{path.name}: graph.input",
        "outputs": f"{path.name}: graph.output",
    }
    if facts.open_ranks:
        names = ", ".join(facts.open_ranks[:5])
        evidence["inputs"] = f"{ASSUMED} (the graph leaves the number of dimensions open: {names[:200]})"
    if facts.metadata:
        evidence["metadata"] = f"{path.name}: metadata_props " + ", ".join(sorted(facts.metadata)[:20])[:300]
    spec = ModelSpec(
        path=path,
        model_file=path,
        format=NAME,
        runtime=RUNTIME,
        task="raw-tensors",
        trust_class=TrustClass.DATA,
        inputs=facts.inputs,
        outputs=facts.outputs,
        files=(path, *_external_files(path, facts)),
        evidence=evidence,
    )
    config = ultralytics.from_metadata(facts.metadata)
    if config is not None:
        return ultralytics.with_config(spec, config, f"{path.name}: metadata_props")
    return _with_activation(spec, facts)


def _read(path: Path) -> OnnxFacts:
    try:
        with open_regular(path) as handle:
            size = os.fstat(handle.fileno()).st_size
            if size == 0:
                raise ModelCorrupt(f"{path.name} is empty (0 bytes): expected {EXPECTED}.")
            if size > MAX_FILE:
                raise ModelCorrupt(
                    f"{path.name} is larger than 2 GiB, which no ONNX file can be: its weights belong in external data."
                )
            # Mapped, not read: the weights of a large model are never touched here.
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                return read_facts(view)
    except WireError as error:
        raise _corrupt(path, "it is cut off or damaged", str(error)) from error
    except OnnxDamaged as error:
        raise _corrupt(path, str(error)) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _corrupt(path: Path, why: str, details: str = "") -> ModelCorrupt:
    return ModelCorrupt(f"{path.name} cannot be opened, {why}: expected {EXPECTED}.", details=details)


def _check_operations(path: Path, facts: OnnxFacts) -> None:
    for domain, operation in sorted(facts.operations):
        if domain not in BUILT_IN_DOMAINS:
            raise ModelRefused(
                f"{path.name} is refused: it needs the operation {domain[:80]}.{operation[:80]}, which only a library "
                "of its own could bring, and such libraries are not loaded."
            )
        if operation in _OTHER_FILES:
            raise ModelRefused(
                f"{path.name} is refused: it is compiled for one device ({operation}); expected the ONNX file it was "
                "compiled from."
            )


def _check_tensors(path: Path, facts: OnnxFacts) -> None:
    for tensor in (*facts.inputs, *facts.outputs):
        if prod(n for n in tensor.shape if n > 0) > MAX_ELEMENTS:
            raise _corrupt(path, f"it declares {tensor.name[:80]!r} with the impossible shape {list(tensor.shape)}")
    names = {t.name for t in facts.outputs}
    for name, kind in facts.other_types.items():
        if name not in names and kind != "sequence":
            raise ModelFormatUnknown(
                f"{path.name} gives or takes {name[:80]!r} as a {kind}: expected an ONNX file of tensors."
            )
    if not facts.outputs:
        raise ModelFormatUnknown(f"{path.name} gives no tensor: expected an ONNX file of tensors.")


def _external_files(path: Path, facts: OnnxFacts) -> list[Path]:
    """The files the weights lie in. Raises ModelCorrupt for one that is missing or too short, ModelRefused for one
    outside the model's folder."""
    files = []
    for location, least in sorted(facts.external.items()):
        shown = location[:120]
        windows = PureWindowsPath(location)
        outside = PurePosixPath(location).is_absolute() or bool(windows.anchor) or ".." in windows.parts
        if not location or "\x00" in location or outside:
            raise ModelRefused(f"{path.name} is refused: its weights would lie outside its folder, in {shown!r}.")
        file = path.parent / location
        if not file.exists():
            raise ModelCorrupt(f"{path.name} keeps its weights in {shown}, which is missing: put that file beside it.")
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise ModelRefused(f"{path.name} is refused: {shown} leads outside its folder.")
        try:
            if not file.is_file():
                raise NotRegular("not a regular file")
            size = file.stat().st_size
        except OSError as error:
            raise unreadable(file, error) from error
        if size < least:
            raise ModelCorrupt(
                f"{shown}, in which {path.name} keeps its weights, is cut off: {size:,} of at least {least:,} bytes."
            )
        files.append(file)
    return files


def _with_activation(spec: ModelSpec, facts: OnnxFacts) -> ModelSpec:
    """Whether the scores have been through an activation, told by the operation that makes the only output."""
    where = f"{spec.model_file.name}: graph.node {facts.last_operation}"
    if len(facts.outputs) != 1:
        return spec
    if facts.last_operation in ("Softmax", "Sigmoid"):
        return replace(spec, evidence=spec.evidence | {"postprocessing.activation": where})
    if facts.last_operation in _RAW_SCORES and len(facts.outputs[0].shape) == 2:
        activation = "sigmoid" if facts.outputs[0].shape[1] == 1 else "softmax"
        return replace(
            spec,
            postprocessing=Postprocessing(activation=activation),
            evidence=spec.evidence | {"postprocessing.activation": where},
        )
    return spec
