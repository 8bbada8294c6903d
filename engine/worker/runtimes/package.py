"""A package around weights: its own names of the tensors, and the steps before and after the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from engine.codecs.arrays import numpy_dtype, shape_text
from engine.errors import LoadFailed
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, ReportStage, Runtime
from engine.worker.tensor_steps import run_steps


class PackageRuntime:
    """Another runtime, asked under the package's names and shapes.

    Tensors are matched by name where the weights have the same names, else by their order: a TorchScript graph has no
    names of outputs, and converters make up their own.
    """

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner
        self.warm_up_runs = inner.warm_up_runs
        self._spec: ModelSpec | None = None
        self._inner_inputs: tuple[TensorSpec, ...] = ()
        self._given: dict[str, TensorSpec] = {}
        self._answered: dict[str, str] = {}

    @property
    def device(self) -> str:
        return self._inner.device

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        self._spec = spec
        signature = self._inner.load(spec, device, threads, report)
        pairs = _matched("inputs", spec.inputs, signature.inputs)
        self._given = {ours.name: theirs for ours, theirs in pairs}
        self._answered = {
            theirs.name: ours.name for ours, theirs in _matched("outputs", spec.outputs, signature.outputs)
        }
        inputs = tuple(_with_fixed_rows(ours, theirs) for ours, theirs in pairs)
        changed = inputs if inputs != spec.inputs else None
        return LoadedSignature(changed, None, signature.signature)

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        assert self._spec is not None
        prepared: Arrays = {}
        for tensor in self._spec.inputs:
            array = self._steps("before", tensor, inputs[tensor.name], inputs)
            theirs = self._given[tensor.name]
            # Steps compute in float32; the weights take what they were saved for.
            prepared[theirs.name] = array if theirs is tensor else array.astype(numpy_dtype(theirs.dtype), copy=False)
        answers = self._inner.run(prepared, signature)
        outputs: Arrays = {}
        for tensor in self._spec.outputs:
            name = next((theirs for theirs, ours in self._answered.items() if ours == tensor.name), tensor.name)
            array = self._steps("after", tensor, answers[name], inputs)
            outputs[tensor.name] = array.astype(numpy_dtype(tensor.dtype), copy=False)
        return outputs

    def _steps(
        self, when: str, tensor: TensorSpec, array: NDArray[Any], inputs: Mapping[str, NDArray[Any]]
    ) -> NDArray[Any]:
        assert self._spec is not None
        steps = [s for s in self._spec.steps if s["tensor"] == tensor.name and s["when"] == when]
        return run_steps(array, steps, inputs, has_rows=bool(tensor.shape) and tensor.shape[0] == -1)

    def failure(self, error: Exception) -> FailureKind:
        return self._inner.failure(error)


def _matched(
    kind: str, ours: tuple[TensorSpec, ...], theirs: tuple[TensorSpec, ...] | None
) -> list[tuple[TensorSpec, TensorSpec]]:
    """The package's tensors with the weights' own. Raises LoadFailed where they cannot belong together."""
    if theirs is None:
        return [(tensor, tensor) for tensor in ours]
    if len(ours) != len(theirs):
        raise LoadFailed(f"The package describes {len(ours)} {kind}, but its weights have {len(theirs)}.")
    by_name = {tensor.name: tensor for tensor in theirs}
    named = all(tensor.name in by_name for tensor in ours)
    pairs = [(tensor, by_name[tensor.name] if named else other) for tensor, other in zip(ours, theirs, strict=True)]
    for tensor, other in pairs:
        if len(tensor.shape) != len(other.shape) and other.shape not in ((), (-1,)):
            raise LoadFailed(
                f"The package describes {tensor.name!r} with the shape {shape_text(tensor.shape)}, but its weights "
                f"have {shape_text(other.shape)}."
            )
    return pairs


def _with_fixed_rows(ours: TensorSpec, theirs: TensorSpec) -> TensorSpec:
    """The package leaves the rows open; weights saved for one row at a time do not."""
    if ours.shape and ours.shape[0] == -1 and theirs.shape and theirs.shape[0] > 0:
        return replace(ours, shape=(theirs.shape[0], *ours.shape[1:]))
    return ours
