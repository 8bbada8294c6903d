"""TorchScript modules (``torch.jit.save``)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameworkMissing, LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec
from engine.worker.runtimes.base import (
    Arrays,
    FailureKind,
    LoadedSignature,
    ReportStage,
    cuda_index,
    no_such_device,
)

if TYPE_CHECKING:
    import torch

_LOST_MARKS = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED")
_MEMORY_MARKS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class TorchScriptRuntime:
    """One scripted or traced module. Its forward says how many arguments it has, but neither dtypes nor shapes: what
    the spec declares is kept, and its inputs are passed in their declared order."""

    # The profiling executor watches the first run and compiles in the second.
    warm_up_runs = 2

    def __init__(self) -> None:
        self._module: torch.jit.ScriptModule | None = None
        self._torch_device: torch.device | None = None
        self._order: tuple[str, ...] = ()
        self._output_names: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        return str(self._torch_device or "cpu")

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        report(LoadStage.IMPORTING)
        torch = _import_torch()
        # Of the thread that runs the model, which is this one: the setting does not hold for others.
        torch.set_num_threads(threads)
        self._torch_device = _choose_device(device)
        report(LoadStage.READING)
        module = _read(spec)
        report(LoadStage.BUILDING)
        module.eval()
        self._order = _argument_order(module, spec)
        self._output_names = tuple(tensor.name for tensor in spec.outputs)
        report(LoadStage.MOVING)
        self._module = module.to(self._torch_device)
        return LoadedSignature()

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        import torch

        assert self._module is not None
        order = self._order if set(self._order) == set(inputs) else tuple(inputs)
        with torch.inference_mode():
            given = [_to_tensor(inputs[name]).to(self._torch_device) for name in order]
            answer = self._module(*given)
            return self._named(answer)

    def _named(self, answer: Any) -> Arrays:
        flat = list(_flatten("output", answer))
        declared = self._output_names
        if not isinstance(answer, dict) and len(declared) == len(flat):
            return {name: _to_array(value) for name, (_, value) in zip(declared, flat, strict=True)}
        return {name: _to_array(value) for name, value in flat}

    def failure(self, error: Exception) -> FailureKind:
        import torch

        text = str(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(mark in text for mark in _MEMORY_MARKS):
            if self._torch_device is not None and self._torch_device.type == "cuda":
                torch.cuda.empty_cache()
            return FailureKind.OUT_OF_MEMORY
        if isinstance(error, torch.AcceleratorError) or any(mark in text for mark in _LOST_MARKS):
            return FailureKind.DEVICE_LOST
        return FailureKind.INPUT


def _import_torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise FrameworkMissing(
            "PyTorch is not installed for this Python. Install it with: pip install torch"
        ) from error
    return torch


def _choose_device(device: str) -> torch.device:
    """``auto`` is CUDA, else MPS, else the CPU. Raises LoadFailed for a device that is not there."""
    import torch

    has_mps = torch.backends.mps.is_available()
    if device == "cpu":
        return torch.device("cpu")
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    if device == "mps":
        if not has_mps:
            raise no_such_device(device, "PyTorch")
        return torch.device("mps")
    index = cuda_index(device)
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise no_such_device(device, "PyTorch")
    return torch.device(f"cuda:{index}")


def _read(spec: ModelSpec) -> torch.jit.ScriptModule:
    """The module, on the CPU. Raises ModelCorrupt for anything that is no whole TorchScript archive."""
    import torch

    name = spec.path.name
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated from torch 2.13 on, and still what people have.
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
            return torch.jit.load(str(spec.model_file), map_location="cpu")  # type: ignore[no-untyped-call,no-any-return]
    except RuntimeError as error:
        text = str(error)
        if "PytorchStreamReader" in text or "constants.pkl" in text or "zip archive" in text:
            raise ModelCorrupt(f"{name} is damaged or is no TorchScript file.") from error
        if "Unknown builtin op" in text or "unknown operator" in text.lower():
            raise LoadFailed(f"{name} uses an operation that this PyTorch does not have.") from error
        raise LoadFailed(f"{name} could not be loaded by PyTorch.") from error
    except (OSError, ValueError) as error:
        raise ModelCorrupt(f"{name} cannot be read as a TorchScript file.") from error


def _argument_order(module: Any, spec: ModelSpec) -> tuple[str, ...]:
    """The names under which inputs come, in the order of the module's arguments: the declared ones, if there are any.

    Declared inputs that are named like the arguments may stand in any order. Raises LoadFailed where their number
    cannot be right.
    """
    arguments = module.forward.schema.arguments[1:]
    names = tuple(str(a.name) for a in arguments)
    declared = tuple(tensor.name for tensor in spec.inputs)
    if not declared:
        return names
    if set(declared) <= set(names):
        declared = tuple(name for name in names if name in declared)
    required = sum(1 for a in arguments if not a.has_default_value())
    if not required <= len(declared) <= len(arguments):
        raise LoadFailed(
            f"{len(declared)} inputs are declared, but the model's forward takes {required}: {', '.join(names)}."
        )
    return declared


def _to_tensor(array: NDArray[Any]) -> torch.Tensor:
    import torch

    if array.dtype.kind == "O":
        raise TypeError("TorchScript takes numbers, not text")
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())


def _to_array(value: Any) -> NDArray[Any]:
    import torch

    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    tensor = value.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Tensors and numbers in a forward's answer with a name each: a dict's keys, else ``output``, ``output_0``…."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(str(key), inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _flatten(f"{name}_{index}", inner)
    elif value is not None:
        yield name, value
