"""ONNX files through ONNX Runtime (onnxruntime.ai, Python API)."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameworkMissing, LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.runtimes.base import (
    Arrays,
    FailureKind,
    LoadedSignature,
    ReportStage,
    cuda_index,
    no_such_device,
)

_DTYPES = {"float": "float32", "double": "float64", "string": "str"}
_SAME = frozenset({"float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"})
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_MEMORY_MARKS = (
    "Failed to allocate memory", "bad allocation", "bad_alloc", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
)  # fmt: skip
_LOST_MARKS = ("CUDA failure", "CUDNN failure", "CUBLAS failure")
_UNKNOWN_OPERATIONS = ("No Op registered for", "is not a registered function/op")
_ERRORS_ONLY = 3


class OnnxRuntime:
    """One inference session. Outputs that are no tensors, as scikit-learn's converters write them, become arrays: a
    list of one map of scores per row is a matrix with a column per key, in the order of the keys."""

    warm_up_runs = 1

    def __init__(self) -> None:
        self._ort: ModuleType | None = None
        self._session: Any = None
        self._device = "cpu"
        self._outputs: list[str] = []

    @property
    def device(self) -> str:
        return self._device

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        report(LoadStage.IMPORTING)
        self._ort = ort = _import_onnxruntime()
        providers, self._device = _choose_providers(ort, device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # Threads that spin while they wait take the cores from other models' workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        report(LoadStage.READING)
        self._session = _open(ort, spec, options, providers)
        report(LoadStage.BUILDING)
        if self._device != "cpu" and _CUDA not in self._session.get_providers():
            if device != "auto":
                raise no_such_device(device, "ONNX Runtime")
            self._device = "cpu"
        self._outputs = [output.name for output in self._session.get_outputs()]
        return LoadedSignature(
            tuple(_tensor_spec(node, spec.inputs) for node in self._session.get_inputs()),
            tuple(_tensor_spec(node, spec.outputs) for node in self._session.get_outputs() if _is_tensor(node)),
        )

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        answers = self._session.run(self._outputs, dict(inputs))
        named: Arrays = {}
        for name, answer in zip(self._outputs, answers, strict=True):
            named |= _arrays(name, answer)
        return named

    def failure(self, error: Exception) -> FailureKind:
        text = str(error)
        if isinstance(error, MemoryError) or any(mark in text for mark in _MEMORY_MARKS):
            return FailureKind.OUT_OF_MEMORY
        return FailureKind.DEVICE_LOST if any(mark in text for mark in _LOST_MARKS) else FailureKind.INPUT


def _import_onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise FrameworkMissing(
            "ONNX Runtime is not installed for this Python. Install it with: pip install onnxruntime"
        ) from error
    return onnxruntime  # type: ignore[no-any-return]  # it ships no type information


def _choose_providers(ort: ModuleType, device: str) -> tuple[list[Any], str]:
    """Execution providers and the device they mean. Raises LoadFailed for a device that is not there."""
    has_cuda = _CUDA in ort.get_available_providers()
    if device == "cpu" or (device == "auto" and not has_cuda):
        return [_CPU], "cpu"
    if device == "mps":
        raise no_such_device(device, "ONNX Runtime")
    index = 0 if device == "auto" else cuda_index(device)
    if not has_cuda:
        raise no_such_device(device, "ONNX Runtime")
    return [(_CUDA, {"device_id": index}), _CPU], f"cuda:{index}"


def _open(ort: ModuleType, spec: ModelSpec, options: Any, providers: list[Any]) -> Any:
    """The session. Raises ModelCorrupt for a damaged file, LoadFailed for what this build cannot run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    name = spec.path.name
    try:
        return ort.InferenceSession(str(spec.model_file), options, providers=providers)
    except (state.InvalidProtobuf, state.NoSuchFile, state.NoModel) as error:
        raise ModelCorrupt(f"{name} is damaged or is no ONNX file.") from error
    except state.InvalidGraph as error:
        if any(mark in str(error) for mark in _UNKNOWN_OPERATIONS):
            raise LoadFailed(f"{name} uses an operation that this ONNX Runtime does not have.") from error
        raise ModelCorrupt(f"The graph in {name} is damaged or does not fit together.") from error
    except state.NotImplemented as error:
        raise LoadFailed(f"{name} uses an operation that this ONNX Runtime does not have.") from error
    except (state.Fail, state.InvalidArgument, state.RuntimeException, state.EPFail) as error:
        if any(mark in str(error) for mark in _MEMORY_MARKS):
            raise LoadFailed(f"{name} does not fit in memory.") from error
        raise LoadFailed(f"{name} could not be loaded by ONNX Runtime.") from error


def _is_tensor(node: Any) -> bool:
    return str(node.type).startswith("tensor(")


def _tensor_spec(node: Any, stated: tuple[TensorSpec, ...]) -> TensorSpec:
    """``tensor(float)`` and its shape in our words; of an open rank, which looks like a scalar's, what was stated.

    Raises LoadFailed for what cannot be fed: sequences, and numbers of less than eight bits.
    """
    word = str(node.type).removeprefix("tensor(").removesuffix(")")
    if not _is_tensor(node) or (word not in _DTYPES and word not in _SAME):
        raise LoadFailed(f"The model takes or gives {node.name!r} as {node.type}, which cannot be fed from outside.")
    shape = tuple(n if isinstance(n, int) and n > 0 else -1 for n in node.shape)
    if not shape:
        shape = next((t.shape for t in stated if t.name == node.name), ())
    return TensorSpec(str(node.name), _DTYPES.get(word, word), shape)


def _arrays(name: str, answer: Any) -> Arrays:
    if isinstance(answer, list) and answer and all(isinstance(row, dict) for row in answer):
        keys = sorted(answer[0])
        return {name: np.array([[row[key] for key in keys] for row in answer], dtype=np.float32)}
    if isinstance(answer, list):
        return {f"{name}_{i}": np.asarray(part) for i, part in enumerate(answer)}
    array = np.asarray(answer)
    return {name: array.astype(object) if array.dtype.kind == "U" else array}
