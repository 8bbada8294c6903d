"""LiteRT's (TensorFlow Lite's) file, ``.tflite``: a flatbuffer of subgraphs, tensors, operators and signatures.

Format: tensorflow/compiler/mlir/lite/schema/schema.fbs, identifier ``TFL3``. Class *data* where every operator is one
of LiteRT's own, which only compute; *program* where it names custom or TensorFlow ("Flex") operators, whose code is
not in the file. One custom operator is LiteRT's own all the same: ``TFLite_Detection_PostProcess``, the end of a
detector of TensorFlow's Object Detection API (tensorflow/lite/kernels/detection_postprocess.cc).

A quantised number q stands for ``scale * (q - zero_point)`` (the quantisation specification of LiteRT). A quantised
picture input is therefore described by the range of q that black and white become; quantised class scores are
answered as the numbers they stand for.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from flatbuffers import number_types  # type: ignore[import-untyped]  # ships no type information

from engine.errors import ModelCorrupt
from engine.formats.disk import open_regular, read_head
from engine.formats.flatbuffer import Bytes, Table, reading
from engine.formats.guesses import picture_of
from engine.formats.litert_metadata import NAME as METADATA
from engine.formats.litert_metadata import Metadata, parse_metadata, read_labels
from engine.model_spec import ASSUMED, TENSOR_SIGNATURE, ModelSpec, Preprocessing, TensorSpec, TrustClass

NAME = "tflite"
COMPLETE = "a complete .tflite file as tf.lite.TFLiteConverter writes it"
IDENTIFIER = b"TFL3"
MAX_ITEMS = 50_000
"""Tensors, operators or buffers of a file."""
MAX_METADATA = 16 << 20
# Fields of schema.fbs.
MODEL_VERSION, MODEL_OPERATORS, MODEL_SUBGRAPHS, MODEL_BUFFERS, MODEL_METADATA, MODEL_SIGNATURES = 0, 1, 2, 4, 6, 7
OPERATOR_OLD_BUILTIN, OPERATOR_CUSTOM, OPERATOR_BUILTIN = 0, 1, 3
SUBGRAPH_TENSORS, SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS, SUBGRAPH_OPERATORS = 0, 1, 2, 3
STEP_OPERATOR, STEP_INPUTS, STEP_OUTPUTS = 0, 1, 2
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_BUFFER, TENSOR_NAME, TENSOR_QUANTISATION, TENSOR_SIGNATURE_SHAPE = 0, 1, 2, 3, 4, 7
QUANTISATION_SCALE, QUANTISATION_ZERO = 2, 3
BUFFER_DATA = 0
METADATA_NAME, METADATA_BUFFER = 0, 1
SIGNATURE_INPUTS, SIGNATURE_OUTPUTS, SIGNATURE_KEY, SIGNATURE_SUBGRAPH = 0, 1, 2, 4
MAP_NAME, MAP_TENSOR = 0, 1
CUSTOM = 32
"""BuiltinOperator.CUSTOM"""
DETECTIONS = "TFLite_Detection_PostProcess"
"""Its outputs are boxes, classes, scores and count."""
DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "str", 6: "bool", 7: "int16", 8: "complex64",
    9: "int8", 10: "float64", 11: "complex128", 12: "uint64", 15: "uint32", 16: "uint16", 18: "bfloat16",
}  # fmt: skip
"""TensorType -> NumPy's name. Resources, variants and packed 4-bit numbers cannot be fed from outside."""
QUANTISED = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}
_SCALINGS = {(127.5, 127.5): "-1..1", (0.0, 255.0): "0..1", (0.0, 1.0): "0..255"}


@dataclass(frozen=True, slots=True)
class _Tensor:
    spec: TensorSpec
    scale: float
    zero: int
    """``scale`` is 0 where the tensor is not quantised."""
    at: int
    """Which tensor of its graph it is."""

    def quantised(self, number: float) -> float:
        return number / self.scale + self.zero


@dataclass(frozen=True, slots=True)
class _Signature:
    name: str
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    graph: int


@dataclass(frozen=True, slots=True)
class _Model:
    """``signatures`` has one without a name where the file has none."""

    version: int
    signatures: tuple[_Signature, ...]
    custom: tuple[str, ...]
    detections: Mapping[int, tuple[int, ...]]
    """Graph -> the tensors of its detector's boxes, classes, scores and count."""
    metadata: Metadata | None


def recognise(path: Path) -> bool:
    """A file with LiteRT's identifier, or named so. Raises ModelUnreadable."""
    if not path.is_file():
        return False
    return path.suffix.lower() == ".tflite" or read_head(path, 8)[4:] == IDENTIFIER


def describe(path: Path, signature: str | None = None) -> ModelSpec:
    """What the file says of itself, by its ``signature`` (default: ``serving_default``, else the first). Raises
    ModelCorrupt, ModelUnreadable; KeyError where ``signature`` is not in the model."""
    model = _read(path)
    by_name = {s.name: s for s in model.signatures}
    names = sorted(by_name, key=lambda name: (name != (signature or "serving_default"), name))
    chosen = by_name[signature or names[0]]
    spec = ModelSpec(
        path=path,
        model_file=path,
        format=NAME,
        runtime="litert",
        task="raw-tensors",
        trust_class=TrustClass.PROGRAM if model.custom else TrustClass.DATA,
        inputs=tuple(t.spec for t in chosen.inputs),
        outputs=tuple(t.spec for t in chosen.outputs),
        signatures=tuple(name for name in names if name),
        files=(path,),
    )
    evidence = {
        "format": f"{path.name}: TFL3, version {model.version}",
        "runtime": f"{path.name}: TFL3",
        "inputs": TENSOR_SIGNATURE,
        "outputs": TENSOR_SIGNATURE,
        "trust_class": f"{path.name}: operators "
        + (f"{', '.join(model.custom[:3])} need code that is not in the file" if model.custom else "are LiteRT's own"),
    }
    if spec.signatures:
        evidence["signatures"] = f"{path.name}: signature_defs"
    spec = replace(spec, evidence=evidence)
    spec = _with_detections(_with_picture(spec, chosen, model.metadata), chosen, model.detections)
    return _with_labels(spec, model.metadata)


def _with_picture(spec: ModelSpec, signature: _Signature, metadata: Metadata | None) -> ModelSpec:
    """``spec`` with colours and range of its one picture input, and the scores of a classifier as real numbers."""
    picture = picture_of(spec.inputs[0]) if len(spec.inputs) == 1 else None
    quantised = signature.inputs[0] if spec.inputs and signature.inputs[0].scale else None
    if picture is None and quantised is not None:
        # picture_of knows the dtypes of pixels; int8 is one only where it is a quantised float.
        picture = picture_of(replace(quantised.spec, dtype="float32"))
    if picture is None:
        return spec
    stated: dict[str, Any] = {"layout": picture["layout"]} | _size(picture)
    sources = dict.fromkeys(stated, TENSOR_SIGNATURE)
    key = f"{spec.model_file.name}: {METADATA}"
    colors = metadata.colors if metadata is not None else ""
    if colors == ("grayscale" if picture.get("channel_order") == "grayscale" else "rgb"):
        stated["channel_order"] = colors
        sources["channel_order"] = f"{key} color_space"
    mean, std = (metadata.mean, metadata.std) if metadata is not None else ((), ())
    normalised = len(mean) == len(std) == 1 or len(mean) == len(std) == 3
    if quantised is not None:
        low, high = QUANTISED[quantised.spec.dtype]
        sources["scaling"] = f"{TENSOR_SIGNATURE}: scale {quantised.scale:.6g}, zero point {quantised.zero}"
        ends: list[float] = [low, high]
        if normalised and len(set(mean)) == len(set(std)) == 1:
            ends = [quantised.quantised((end - mean[0]) / std[0]) for end in (0.0, 255.0)]
            sources["scaling"] += f"; {key} NormalizationOptions"
        stated["scaling"] = f"{ends[0]:.10g}..{ends[1]:.10g}"
    elif normalised:
        named = _SCALINGS.get((mean[0], std[0])) if len(set(mean)) == len(set(std)) == 1 else None
        stated |= {"scaling": named} if named else {"scaling": "0..255", "mean": mean, "std": std}
        sources |= dict.fromkeys({"scaling", "mean", "std"} & set(stated), f"{key} NormalizationOptions")
    evidence = spec.evidence | {f"preprocessing.{name}": source for name, source in sources.items()}
    spec = replace(spec, preprocessing=replace(Preprocessing(), **stated), evidence=evidence)
    return _with_real_scores(spec, signature)


def _size(picture: dict[str, Any]) -> dict[str, Any]:
    return {key: picture[key] for key in ("size", "channel_order") if key in picture}


def _with_real_scores(spec: ModelSpec, signature: _Signature) -> ModelSpec:
    if len(spec.outputs) != 1 or len(spec.outputs[0].shape) != 2:
        return spec
    output = signature.outputs[0]
    evidence = dict(spec.evidence)
    if output.scale:
        spec = replace(spec, outputs=(replace(output.spec, dtype="float32"),))
        evidence["outputs"] = f"{TENSOR_SIGNATURE}: scale {output.scale:.6g}, zero point {output.zero}"
    evidence["task"] = TENSOR_SIGNATURE
    return replace(spec, task="image-classification", evidence=evidence)


def _with_detections(spec: ModelSpec, signature: _Signature, detections: Mapping[int, tuple[int, ...]]) -> ModelSpec:
    """A detector where the signature answers with what :data:`DETECTIONS` gives; its outputs then stand in that order,
    since their names tell nothing (``output_0``, ``StatefulPartitionedCall:3``)."""
    by_place = {tensor.at: tensor.spec for tensor in signature.outputs}
    places = detections.get(signature.graph, ())
    if not places or set(places) != set(by_place) or len(signature.inputs) != 1:
        return spec
    source = f"{spec.model_file.name}: operator {DETECTIONS}"
    return replace(
        spec,
        task="object-detection",
        outputs=tuple(by_place[place] for place in places),
        postprocessing=replace(spec.postprocessing, head="litert"),
        evidence=spec.evidence | {"task": source, "postprocessing.head": source},
    )


def _with_labels(spec: ModelSpec, metadata: Metadata | None) -> ModelSpec:
    if metadata is None or not metadata.labels_file:
        return spec
    name = metadata.labels_file
    labels = read_labels(spec.model_file, name, COMPLETE)
    classes = {tensor.shape[-1] for tensor in spec.outputs if tensor.shape}
    if labels and (len(labels) in classes or spec.task == "object-detection"):
        source = f"{spec.model_file.name}: {METADATA} {name}"
        return replace(spec, labels=labels, evidence=spec.evidence | {"labels": source})
    note = f"{ASSUMED} ({name} in {spec.model_file.name} has {len(labels)} lines, the model other outputs)"
    return replace(spec, evidence=spec.evidence | {"labels": note})


def _read(path: Path) -> _Model:
    try:
        with open_regular(path) as handle:
            data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        if bytes(data[4:8]) != IDENTIFIER:
            raise ValueError("it does not start as such a file does")
        with reading():
            return _parse(data)
    except ValueError as error:
        raise ModelCorrupt(
            f"{path.name} cannot be opened, it is cut off or damaged: expected {COMPLETE}.", details=str(error)
        ) from error


def _parse(data: Bytes) -> _Model:
    root = Table.root(data)
    subgraphs = root.tables(MODEL_SUBGRAPHS, 1000)
    if not subgraphs:
        raise ValueError("it holds no graph")
    operators = root.tables(MODEL_OPERATORS, MAX_ITEMS)
    buffers = root.count(MODEL_BUFFERS, MAX_ITEMS)
    tensors: list[list[Table]] = []
    left = MAX_ITEMS
    for subgraph in subgraphs:
        found = subgraph.tables(SUBGRAPH_TENSORS, left)
        left -= len(found)
        if any(t.number(TENSOR_BUFFER, number_types.Uint32Flags) >= max(buffers, 1) for t in found):
            raise ValueError("a tensor names data that are not in the file")
        tensors.append(found)
    left = MAX_ITEMS
    for subgraph, own in zip(subgraphs, tensors, strict=True):
        left -= _check_steps(subgraph, len(own), len(operators), left)
    version = int(root.number(MODEL_VERSION, number_types.Uint32Flags))
    detections = {
        number: outputs
        for number, subgraph in enumerate(subgraphs)
        if (outputs := _detections(subgraph, operators)) is not None
    }
    custom = tuple(name for name in _custom(operators) if name != DETECTIONS)
    return _Model(version, _signatures(root, subgraphs, tensors), custom, detections, _metadata(root))


def _check_steps(subgraph: Table, tensors: int, operators: int, limit: int) -> int:
    """Every step of a graph names operators and tensors that are there (-1: an optional one left out)."""
    steps = subgraph.tables(SUBGRAPH_OPERATORS, limit)
    for step in steps:
        if step.number(STEP_OPERATOR, number_types.Uint32Flags) >= operators:
            raise ValueError("a step names an operator that is not in the file")
        for field in (STEP_INPUTS, STEP_OUTPUTS):
            if any(not -1 <= i < tensors for i in step.numbers(field, number_types.Int32Flags, 1000)):
                raise ValueError("a step names a tensor that is not in the file")
    return len(steps)


def _detections(subgraph: Table, operators: list[Table]) -> tuple[int, ...] | None:
    """The tensors that the one step of :data:`DETECTIONS` makes, where there is one."""
    found = []
    for step in subgraph.tables(SUBGRAPH_OPERATORS, MAX_ITEMS):
        operator = operators[step.number(STEP_OPERATOR, number_types.Uint32Flags)]
        if _is_custom(operator) and operator.text(OPERATOR_CUSTOM, 1000) == DETECTIONS:
            found.append(tuple(step.numbers(STEP_OUTPUTS, number_types.Int32Flags, 1000)))
    return found[0] if len(found) == 1 and len(set(found[0])) == 4 else None


def _is_custom(operator: Table) -> bool:
    # Files from before there were more than 127 operators state the number in the old field alone.
    old = operator.number(OPERATOR_OLD_BUILTIN, number_types.Int8Flags)
    return CUSTOM in (old, operator.number(OPERATOR_BUILTIN, number_types.Int32Flags))


def _custom(operators: list[Table]) -> tuple[str, ...]:
    """The names of the operators that are not LiteRT's own."""
    names = [operator.text(OPERATOR_CUSTOM, 1000)[:60] or "custom" for operator in operators if _is_custom(operator)]
    return tuple(dict.fromkeys(names))


def _metadata(root: Table) -> Metadata | None:
    for entry in root.tables(MODEL_METADATA, 1000):
        if entry.text(METADATA_NAME, 1000) != METADATA:
            continue
        buffers = root.tables(MODEL_BUFFERS, MAX_ITEMS)
        at = entry.number(METADATA_BUFFER, number_types.Uint32Flags)
        if at >= len(buffers):
            raise ValueError("its metadata are not in the file")
        return parse_metadata(buffers[at].bytes(BUFFER_DATA, MAX_METADATA))
    return None


def _signatures(root: Table, subgraphs: list[Table], tensors: list[list[Table]]) -> tuple[_Signature, ...]:
    found = []
    for entry in root.tables(MODEL_SIGNATURES, 1000):
        graph = entry.number(SIGNATURE_SUBGRAPH, number_types.Uint32Flags)
        if graph >= len(subgraphs):
            raise ValueError("a signature names a graph that is not in the file")
        ends = [
            {
                pair.text(MAP_NAME): pair.number(MAP_TENSOR, number_types.Uint32Flags)
                for pair in entry.tables(field, 1000)
            }
            for field in (SIGNATURE_INPUTS, SIGNATURE_OUTPUTS)
        ]
        inputs, outputs = (tuple(_tensor(n, tensors[graph], at) for n, at in sorted(end.items())) for end in ends)
        found.append(_Signature(entry.text(SIGNATURE_KEY), inputs, outputs, graph))
    if found:
        return tuple(found)
    first = subgraphs[0]
    inputs, outputs = (
        tuple(_tensor("", tensors[0], at) for at in first.numbers(field, number_types.Int32Flags, 1000))
        for field in (SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS)
    )
    return (_Signature("", inputs, outputs, 0),)


def _tensor(name: str, tensors: list[Table], at: int) -> _Tensor:
    if not 0 <= at < len(tensors):
        raise ValueError("an input or output is not in the file")
    tensor = tensors[at]
    shape = tensor.numbers(TENSOR_SHAPE, number_types.Int32Flags, 32)
    free = tensor.numbers(TENSOR_SIGNATURE_SHAPE, number_types.Int32Flags, 32)
    kind = tensor.number(TENSOR_TYPE, number_types.Int8Flags)
    dtype = DTYPES.get(kind, f"litert-{kind}")
    scale, zero = 0.0, 0
    quantisation = tensor.table(TENSOR_QUANTISATION)
    if quantisation is not None and dtype in QUANTISED:
        scales = quantisation.numbers(QUANTISATION_SCALE, number_types.Float32Flags, MAX_ITEMS)
        zeros = quantisation.numbers(QUANTISATION_ZERO, number_types.Int64Flags, MAX_ITEMS)
        if len(scales) == 1 and isfinite(scales[0]) and scales[0] > 0:
            scale, zero = float(scales[0]), int(zeros[0]) if zeros else 0
    dims = tuple(-1 if n < 0 else n for n in (free or shape))
    return _Tensor(TensorSpec(name or tensor.text(TENSOR_NAME), dtype, dims), scale, zero, at)
