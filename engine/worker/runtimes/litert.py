"""LiteRT (TensorFlow Lite) models, ``.tflite``, on the interpreter of the ``ai-edge-litert`` package, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameworkMissing, LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, ReportStage, no_such_device, unique_names

DEFAULT_SIGNATURE = "serving_default"
_CLASSIFIES = "-classification"


class LiteRtRuntime:
    """One interpreter. Where the model's rows are free, its tensors are sized anew for each number of rows.

    Quantised scores of a classifier are given as the numbers they stand for (``scale * (q - zero_point)``); raw tensors
    are what the model takes and gives.
    """

    warm_up_runs = 1

    def __init__(self) -> None:
        self._interpreter: Any = None
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._signature = ""
        self._real_scores = False
        self._shapes: dict[str, tuple[int, ...]] = {}

    @property
    def device(self) -> str:
        return "cpu"

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        report(LoadStage.IMPORTING)
        module = _import_interpreter()
        if device not in ("auto", "cpu"):
            raise no_such_device(device, "LiteRT")
        report(LoadStage.READING)
        self._interpreter = _read(module, spec, threads)
        report(LoadStage.BUILDING)
        _allocate(self._interpreter, spec)
        signatures = self._interpreter.get_signature_list()
        self._signature = _choose_signature(signatures, spec)
        self._real_scores = spec.task.endswith(_CLASSIFIES)
        details = (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        if self._signature:
            runner = self._interpreter.get_signature_runner(self._signature)
            self._inputs, self._outputs = (dict(sorted(d.items())) for d in _of_runner(runner))
        else:
            self._inputs, self._outputs = (
                dict(zip(unique_names([d["name"] for d in side]), side, strict=True)) for side in details
            )
        return LoadedSignature(
            tuple(_spec_of(name, detail) for name, detail in self._inputs.items()),
            tuple(self._output_spec(name, detail) for name, detail in self._outputs.items()),
            self._signature,
            tuple(sorted(signatures, key=lambda name: name != self._signature)),
        )

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        given = {name: _fed(inputs[name], detail) for name, detail in self._inputs.items()}
        if self._signature:
            raw = self._interpreter.get_signature_runner(self._signature)(**given)
        else:
            raw = self._run_plain(given)
        return {name: self._answer(np.asarray(raw[name]), detail) for name, detail in self._outputs.items()}

    def failure(self, error: Exception) -> FailureKind:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return FailureKind.OUT_OF_MEMORY
        return FailureKind.INPUT

    def _run_plain(self, given: Arrays) -> Arrays:
        shapes = {name: array.shape for name, array in given.items()}
        if shapes != self._shapes:
            for name, detail in self._inputs.items():
                # Strict: only what the model leaves free may change its size.
                self._interpreter.resize_tensor_input(detail["index"], list(shapes[name]), strict=True)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, detail in self._inputs.items():
            self._interpreter.set_tensor(detail["index"], given[name])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(d["index"]) for name, d in self._outputs.items()}

    def _answer(self, array: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
        if array.dtype.kind == "S" or array.dtype.kind == "O":
            texts = np.empty(array.shape, dtype=object)
            for index, value in np.ndenumerate(array):
                texts[index] = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            return texts
        scale, zero = detail["quantization"]
        if self._real_scores and scale and array.dtype.kind in "iu":
            real: NDArray[np.float32] = (np.float32(scale) * (array.astype(np.int64) - zero)).astype(np.float32)
            return real
        return array

    def _output_spec(self, name: str, detail: Mapping[str, Any]) -> TensorSpec:
        spec = _spec_of(name, detail)
        if self._real_scores and detail["quantization"][0] and np.dtype(detail["dtype"]).kind in "iu":
            return TensorSpec(spec.name, "float32", spec.shape)
        return spec


def _import_interpreter() -> ModuleType:
    try:
        from ai_edge_litert import interpreter
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ai_edge_litert":
            raise
        raise FrameworkMissing(
            "LiteRT is not installed for this Python. Install it with: pip install ai-edge-litert"
        ) from error
    module: ModuleType = interpreter
    return module


def _read(module: ModuleType, spec: ModelSpec, threads: int) -> Any:
    """The interpreter. Raises ModelCorrupt, LoadFailed for operators this build has not."""
    try:
        return module.Interpreter(model_path=str(spec.model_file), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        raise _failed(spec, error) or ModelCorrupt(
            f"{spec.path.name} is damaged or incomplete: LiteRT could not read it."
        ) from error


def _allocate(interpreter: Any, spec: ModelSpec) -> None:
    try:
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise _failed(spec, error) or LoadFailed(f"{spec.path.name} could not be prepared by LiteRT.") from error


def _failed(spec: ModelSpec, error: Exception) -> LoadFailed | None:
    text = str(error)
    if "custom op" in text or "Select TensorFlow op" in text or "unresolved" in text:
        return LoadFailed(f"{spec.path.name} uses an operator whose code is not in the file and not in LiteRT.")
    return None


def _of_runner(runner: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return runner.get_input_details(), runner.get_output_details()


def _choose_signature(signatures: Mapping[str, Any], spec: ModelSpec) -> str:
    """The signature the spec puts first, else ``serving_default``, else the first there is; empty without any."""
    for name in (*spec.signatures[:1], DEFAULT_SIGNATURE, *signatures):
        if name in signatures:
            return str(name)
    return ""


def _spec_of(name: str, detail: Mapping[str, Any]) -> TensorSpec:
    shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    dtype = np.dtype(detail["dtype"])
    return TensorSpec(name, "str" if dtype.kind in "SO" else dtype.name, tuple(max(int(n), -1) for n in shape))


def _fed(array: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
    if array.dtype.kind == "O":
        return np.array([str(text).encode("utf-8") for text in array.ravel()], dtype=np.bytes_).reshape(array.shape)
    return np.ascontiguousarray(array, dtype=detail["dtype"])
