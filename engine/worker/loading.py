"""Loading one model: the runtime, what its signature says against what the spec says, the task, and the warm-up."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import psutil

from engine.codecs.arrays import numpy_dtype, shape_text
from engine.errors import EngineError, LoadFailed
from engine.events import LoadStage
from engine.model_spec import ASSUMED, SIDECAR, TENSOR_SIGNATURE, ModelSpec, TensorSpec
from engine.worker.execution import Executor
from engine.worker.inputs import InputReader
from engine.worker.runtimes import runtime_for
from engine.worker.runtimes.base import FailureKind, LoadedSignature, Runtime
from engine.worker.tasks import create_task
from engine.worker.tasks.base import Task

log = logging.getLogger(__name__)

DEFAULT_MAX_BATCH = 8
_MAX_THREADS = 8
_MAX_VARIANTS = 64
_WARM_UP_BYTES = 256 << 20
_TRACEBACK_LINES = 12

SendStage = Callable[[LoadStage, int | None], None]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to answer. ``spec`` is what was asked for, completed by what the model itself says."""

    spec: ModelSpec
    runtime: Runtime
    task: Task
    reader: InputReader
    executor: Executor
    variants: dict[str, LoadedModel] = field(default_factory=dict)

    def prepared_by(self, preprocessing: dict[str, Any] | None) -> LoadedModel:
        """This model with pictures prepared in another way (the JSON of Preprocessing). The weights are shared.

        Raises LoadFailed where no picture can be prepared so for this model.
        """
        if preprocessing is None:
            return self
        key = repr(sorted(preprocessing.items()))
        if (known := self.variants.get(key)) is None:
            spec = ModelSpec.from_json(self.spec.to_json() | {"preprocessing": preprocessing})
            task = create_task(spec)
            known = replace(self, spec=spec, task=task, reader=InputReader(task, spec), variants={})
            if len(self.variants) >= _MAX_VARIANTS:
                self.variants.clear()
            self.variants[key] = known
        return known

    def info(self) -> dict[str, Any]:
        """The ``info`` of the ``ready`` message."""
        return {
            "device": self.runtime.device,
            "inputs": [t.to_json() for t in self.spec.inputs],
            "outputs": [t.to_json() for t in self.spec.outputs],
            "signatures": list(self.spec.signatures),
            "labels": list(self.spec.labels),
            "max_batch_size": self.executor.max_rows,
            "evidence": dict(self.spec.evidence),
        }


def load_model(spec: ModelSpec, device: str, threads: int, max_batch_size: int, send_stage: SendStage) -> LoadedModel:
    """Load ``spec`` and run it once. ``threads`` 0 means one per physical core, eight at most.

    Raises EngineError with one sentence and the last lines of the traceback in ``details``.
    """
    try:
        return _load(spec, device, resolve_threads(threads), max_batch_size, send_stage)
    except EngineError as error:
        error.details = error.details or last_lines(error)
        raise
    except MemoryError as error:
        raise LoadFailed(f"{spec.path.name} does not fit in memory.", details=last_lines(error)) from error
    except Exception as error:
        raise LoadFailed(
            f"{spec.path.name} could not be loaded ({type(error).__name__}).", details=last_lines(error)
        ) from error


def _load(spec: ModelSpec, device: str, threads: int, max_batch_size: int, send_stage: SendStage) -> LoadedModel:
    runtime = runtime_for(spec)
    total = total_bytes(spec)

    def report(stage: LoadStage) -> None:
        send_stage(stage, total if stage is LoadStage.READING else None)

    signature = runtime.load(spec, device, threads, report)
    spec = complete_spec(spec, signature)
    task = create_task(spec)
    fixed = fixed_rows(spec)
    executor = Executor(runtime, signature.signature, max_batch_size, fixed, threads)
    send_stage(LoadStage.WARMING, None)
    warm_up(runtime, spec, signature)
    return LoadedModel(spec, runtime, task, InputReader(task, spec), executor)


def last_lines(error: BaseException) -> str:
    """The end of the traceback of ``error``, for a "Details" fold."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-_TRACEBACK_LINES:])


def resolve_threads(threads: int) -> int:
    """``threads``, or for 0 one per physical core this process may use, eight at most."""
    if threads > 0:
        return threads
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or 1, usable, _MAX_THREADS))


def total_bytes(spec: ModelSpec) -> int | None:
    """Bytes of the model's files together, None where there are none to measure."""
    sizes = [path.stat().st_size for path in spec.files if path.is_file()]
    return sum(sizes) or None


def fixed_rows(spec: ModelSpec) -> int | None:
    """The first dimension of the model's only input where it is a constant."""
    if len(spec.inputs) != 1 or not spec.inputs[0].shape or spec.inputs[0].shape[0] < 1:
        return None
    return spec.inputs[0].shape[0]


def complete_spec(spec: ModelSpec, signature: LoadedSignature) -> ModelSpec:
    """``spec`` with what the loaded model says of itself. What a sidecar states stays, and must not contradict it.

    Raises LoadFailed naming the contradiction.
    """
    evidence = dict(spec.evidence)
    changes: dict[str, Any] = {}
    for name, real in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        stated: tuple[TensorSpec, ...] = getattr(spec, name)
        if real is None:
            continue
        if stated and evidence.get(name, ASSUMED) == SIDECAR:
            _check_against(name, stated, real)
        else:
            changes[name] = _in_order(real, stated)
            evidence[name] = TENSOR_SIGNATURE
    if signature.signatures and evidence.get("signatures", ASSUMED) != SIDECAR:
        changes["signatures"] = signature.signatures
        evidence["signatures"] = TENSOR_SIGNATURE
    labels = spec.options.get("labels")
    if labels and not spec.labels:
        changes["labels"] = tuple(str(label) for label in labels)
    return replace(spec, evidence=evidence, **changes)


def _in_order(real: tuple[TensorSpec, ...], stated: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """``real`` as the file's description orders it, where both name the same tensors: the order may mean something."""
    by_name = {tensor.name: tensor for tensor in real}
    names = [tensor.name for tensor in stated]
    return tuple(by_name[name] for name in names) if sorted(names) == sorted(by_name) else real


def _check_against(field: str, stated: tuple[TensorSpec, ...], real: tuple[TensorSpec, ...]) -> None:
    by_name = {tensor.name: tensor for tensor in real}
    if {t.name for t in stated} != set(by_name):
        ours, theirs = (", ".join(repr(t.name) for t in tensors) for tensors in (stated, real))
        raise LoadFailed(f"The sidecar names the {field} {ours}, but the model has {theirs}.")
    for tensor in stated:
        actual = by_name[tensor.name]
        pairs = zip(tensor.shape, actual.shape, strict=False)
        if len(tensor.shape) != len(actual.shape) or any(a != b and a != -1 and b != -1 for a, b in pairs):
            raise LoadFailed(
                f"The sidecar gives {tensor.name!r} the shape {shape_text(tensor.shape)}, but the model has "
                f"{shape_text(actual.shape)}."
            )
        if tensor.dtype != actual.dtype:
            raise LoadFailed(
                f"The sidecar gives {tensor.name!r} the dtype {tensor.dtype}, but the model has {actual.dtype}."
            )


def warm_up(runtime: Runtime, spec: ModelSpec, signature: LoadedSignature) -> None:
    """Run zeros of the declared shape, free dimensions being 1 (rows) or, for a picture, its size.

    Nothing is run where an input's inner shape is not known or is too large. A failure is a load that failed where the
    model itself or the sidecar states the shape; where it is only assumed, real input will show what holds.
    Raises LoadFailed.
    """
    zeros: dict[str, Any] = {}
    for tensor in spec.inputs:
        shape = sample_shape(tensor, spec)
        if shape is None or prod(shape) * 8 > _WARM_UP_BYTES:
            return
        empty = "" if tensor.dtype == "str" else 0
        zeros[tensor.name] = np.full(shape, empty, dtype=numpy_dtype(tensor.dtype))
    for _ in range(runtime.warm_up_runs if zeros else 0):
        try:
            runtime.run(zeros, signature.signature)
        except Exception as error:
            if runtime.failure(error) is FailureKind.DEVICE_LOST:
                raise LoadFailed("The device stopped working during the first run.") from error
            if runtime.failure(error) is FailureKind.OUT_OF_MEMORY:
                raise LoadFailed("The device has not enough memory to run this model.") from error
            if spec.evidence.get("inputs", ASSUMED) == ASSUMED:
                log.warning("the warm-up with an assumed shape failed", exc_info=error)
                return
            raise LoadFailed(f"The model failed in its first run with {type(error).__name__}.") from error


def sample_shape(tensor: TensorSpec, spec: ModelSpec) -> tuple[int, ...] | None:
    """The shape of one row, None where nothing tells it: free rows are 1, a picture's free sides its stated size."""
    shape = list(tensor.shape)
    if shape and shape[0] == -1:
        shape[0] = 1
    size = spec.preprocessing.size
    if spec.task.startswith("image") and size is not None and len(shape) >= 3:
        at = 2 if spec.preprocessing.layout == "nchw" else 1
        for offset in (0, 1):
            if len(shape) > at + offset and shape[at + offset] == -1:
                shape[at + offset] = size[offset]
    return None if -1 in shape else tuple(shape)
