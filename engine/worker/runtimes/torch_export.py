"""``torch.export`` programs (``.pt2`` as torch.export.save writes them)."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, ReportStage
from engine.worker.runtimes.torch_setup import choose_device, failure_kind, import_torch, to_array, to_tensor
from engine.worker.runtimes.torchscript import flatten

if TYPE_CHECKING:
    import torch

_NO_BOUND = 1


class TorchExportRuntime:
    """One exported program. Its arguments that are no tensors are those it was exported with.

    A program exported for at least N rows is given N, the last row repeated, and the surplus answers are dropped.
    """

    warm_up_runs = 1

    def __init__(self) -> None:
        self._module: Any = None
        self._torch_device: torch.device | None = None
        self._tree: Any = None
        self._leaves: list[Any] = []
        self._names: tuple[str, ...] = ()
        self._output_names: tuple[str, ...] = ()
        self._declared_least = _NO_BOUND
        self._least = _NO_BOUND

    @property
    def device(self) -> str:
        return str(self._torch_device or "cpu")

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        report(LoadStage.IMPORTING)
        torch = import_torch()

        torch.set_num_threads(threads)
        self._torch_device = choose_device(device)
        report(LoadStage.READING)
        program = _read(spec)
        report(LoadStage.BUILDING)
        self._take_signature(program, spec)
        report(LoadStage.MOVING)
        if self._torch_device.type != "cpu":
            passes = import_module("torch.export.passes")
            program = passes.move_to_device_pass(program, self._torch_device)
        self._module = program.module()
        return LoadedSignature()

    def _take_signature(self, program: Any, spec: ModelSpec) -> None:
        """The program's arguments in their order. Raises LoadFailed where the declared inputs are others."""
        tensors = {s.arg.name for s in program.graph_signature.input_specs if type(s.arg).__name__ == "TensorArgument"}
        self._leaves = list(program.graph_signature.user_inputs)
        self._names = tuple(leaf for leaf in self._leaves if isinstance(leaf, str) and leaf in tensors)
        declared = tuple(tensor.name for tensor in spec.inputs)
        if declared and set(declared) != set(self._names):
            raise LoadFailed(
                f"The inputs {', '.join(map(repr, declared))} are declared, but the program takes "
                f"{', '.join(map(repr, self._names))}."
            )
        self._tree = program.call_spec.in_spec
        self._output_names = tuple(tensor.name for tensor in spec.outputs)
        self._declared_least = _least_rows(program, self._names)

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        rows = min((len(a) for a in inputs.values() if a.ndim), default=0)
        if rows >= self._least:
            try:
                return self._call(inputs)
            except AssertionError:
                # Two is also what torch writes where one row would do: only the guard itself knows.
                if rows >= self._declared_least:
                    raise
                self._least = self._declared_least
        padded = {name: _pad(array, self._least) for name, array in inputs.items()}
        return {name: a[:rows] if a.ndim and len(a) == self._least else a for name, a in self._call(padded).items()}

    def _call(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        import torch
        from torch.utils import _pytree as pytree

        with torch.inference_mode():
            given = {name: to_tensor(inputs[name]).to(self._torch_device) for name in self._names}
            leaves = [given[leaf] if isinstance(leaf, str) and leaf in given else leaf for leaf in self._leaves]
            args, kwargs = pytree.tree_unflatten(leaves, self._tree)
            answer = self._module(*args, **kwargs)
            return named_outputs(answer, self._output_names)

    def failure(self, error: Exception) -> FailureKind:
        return failure_kind(error, self._torch_device)


def named_outputs(answer: Any, declared: tuple[str, ...]) -> Arrays:
    """What is in an answer by the declared names, in the order of torch's pytrees; where their number is another, by
    the answer's own structure."""
    from torch.utils import _pytree as pytree

    leaves = [leaf for leaf in pytree.tree_leaves(answer) if leaf is not None]
    if len(leaves) == len(declared):
        return {name: to_array(leaf) for name, leaf in zip(declared, leaves, strict=True)}
    return {name: to_array(value) for name, value in flatten("output", answer)}


def _read(spec: ModelSpec) -> Any:
    import torch

    name = spec.path.name
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This version of file is deprecated")
            return torch.export.load(str(spec.model_file))
    except zipfile.BadZipFile as error:
        raise ModelCorrupt(f"{name} is damaged or is no torch.export program.") from error
    except (RuntimeError, ValueError, AssertionError, KeyError, OSError) as error:
        text = str(error)
        if "schema" in text or "version" in text:
            raise LoadFailed(f"{name} was exported by another version of PyTorch: export it again.") from error
        if "PytorchStreamReader" in text or "zip" in text.lower():
            raise ModelCorrupt(f"{name} is damaged or is no torch.export program.") from error
        if "CUDA" in text:
            raise LoadFailed(f"{name} was exported on a GPU that this machine does not have.") from error
        raise LoadFailed(f"{name} could not be loaded by PyTorch.") from error


def _least_rows(program: Any, names: tuple[str, ...]) -> int:
    """The fewest rows the program was exported for, where the first dimension of every tensor is free."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    least = _NO_BOUND
    for name in names:
        shape = placeholders[name].meta["val"].shape
        symbol = getattr(getattr(shape[0], "node", None), "expr", None) if len(shape) else None
        bounds = program.range_constraints.get(symbol)
        if bounds is None:
            return _NO_BOUND
        least = max(least, int(bounds.lower))
    return least


def _pad(array: NDArray[Any], rows: int) -> NDArray[Any]:
    if not array.ndim or len(array) >= rows or not len(array):
        return array
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])
