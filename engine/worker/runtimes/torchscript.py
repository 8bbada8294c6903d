"""TorchScript modules (``torch.jit.save``)."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from engine.errors import LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, NotPrepared, ReportStage, Variant
from engine.worker.runtimes.torch_setup import (
    choose_device,
    failure_kind,
    import_torch,
    to_array,
    to_tensor,
    use_threads,
)
from engine.worker.runtimes.torch_state import chosen_dtype, placed, widened
from engine.worker.runtimes.torch_variants import torch_variants

if TYPE_CHECKING:
    import torch


class TorchScriptRuntime:
    """One scripted or traced module. Its forward says how many arguments it has, but neither dtypes nor shapes: what
    the spec declares is kept, and its inputs are passed in their declared order."""

    # The profiling executor watches the first run and compiles in the second.
    warm_up_runs = 2
    computes_in_caller = True

    def __init__(self) -> None:
        self._module: torch.jit.ScriptModule | None = None
        self._torch_device: torch.device | None = None
        self._dtype: torch.dtype | None = None
        self._order: tuple[str, ...] = ()
        self._output_names: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        return str(self._torch_device or "cpu")

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        report(LoadStage.IMPORTING)
        import_torch()
        # Of this thread, which runs the model: the setting does not hold for others.
        use_threads(threads)
        self._torch_device = choose_device(device)
        report(LoadStage.READING)
        module = _read(spec)
        report(LoadStage.BUILDING)
        module.eval()
        self._order = _argument_order(module, spec)
        self._output_names = tuple(tensor.name for tensor in spec.outputs)
        report(LoadStage.MOVING)
        # Without a wish the module keeps the types it was saved with.
        self._dtype = chosen_dtype(spec, self._torch_device) if spec.precision else None
        self._module = module.to(device=self._torch_device, dtype=self._dtype)
        return LoadedSignature()

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        import torch

        assert self._module is not None
        with torch.inference_mode():
            tensors = {n: placed(to_tensor(array), self._torch_device, self._dtype) for n, array in inputs.items()}
            return {name: to_array(widened(value, self._dtype)) for name, value in self._call(self._module, tensors)}

    def _call(self, module: Any, tensors: Mapping[str, torch.Tensor]) -> list[tuple[str, Any]]:
        order = self._order if set(self._order) == set(tensors) else tuple(tensors)
        return named_by(self._output_names, module(*[tensors[name] for name in order]))

    def variants(self, sample: Mapping[str, NDArray[Any]]) -> Generator[Variant | NotPrepared, bool, None]:
        assert self._module is not None
        assert self._torch_device is not None
        return torch_variants(self._module, self._call, sample, self._torch_device, self._dtype)

    def use_threads(self, threads: int) -> None:
        use_threads(threads)

    def failure(self, error: Exception) -> FailureKind:
        return failure_kind(error, self._torch_device)


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


def named_by(declared: tuple[str, ...], answer: Any) -> list[tuple[str, Any]]:
    """What is in a forward's answer, under the declared names where it is no dict and has as many values."""
    flat = list(flatten("output", answer))
    if not isinstance(answer, dict) and len(declared) == len(flat):
        return [(name, value) for name, (_, value) in zip(declared, flat, strict=True)]
    return flat


def flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Tensors and numbers in a forward's answer with a name each: a dict's keys, else ``output``, ``output_0``…."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(str(key), inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from flatten(f"{name}_{index}", inner)
    elif value is not None:
        yield name, value
