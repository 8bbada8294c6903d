"""What a framework adapter is. Nothing here imports a framework."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from engine.errors import LoadFailed
from engine.events import LoadStage
from engine.model_spec import ModelSpec, TensorSpec
from engine.preparation import Reason, Step

Arrays = dict[str, NDArray[Any]]
ReportStage = Callable[[LoadStage], None]


@dataclass(frozen=True, slots=True)
class LoadedSignature:
    """What the loaded model itself says. ``None`` where it says nothing (a TorchScript forward has no shapes).

    ``signature`` is the one that answers; ``signatures`` are all there are.
    """

    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    signature: str = ""
    signatures: tuple[str, ...] = ()


class FailureKind(Enum):
    """What an exception raised by :meth:`Runtime.run` means for the worker."""

    INPUT = "input"
    """The model refuses this input; others may succeed."""
    OUT_OF_MEMORY = "out of memory"
    """Fewer rows may fit."""
    DEVICE_LOST = "device lost"
    """Nothing will run again in this process."""


class Runtime(Protocol):
    """One loaded model. ``load``, ``run`` and ``device`` are called from one thread, the one that executes."""

    warm_up_runs: int
    """How often a model must run before it has reached its speed (a profiling compiler needs two)."""

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        """Import the framework, open ``spec.model_file``, move it to ``device`` (``auto``, ``cpu``, ``cuda``,
        ``cuda:N``, ``mps``), calling ``report`` as each stage begins.

        Raises FrameworkMissing, ModelCorrupt or LoadFailed with one sentence; the framework's own exception is its
        cause. Other exceptions are a load that failed for a reason unknown to the adapter.
        """

    @property
    def device(self) -> str:
        """Where the loaded model runs: ``cpu``, ``cuda:N`` or ``mps``."""

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        """The outputs by name. ``inputs`` have the declared names; rows are the first dimension.

        Raises whatever the framework raises; :meth:`failure` says what it means.
        """

    def failure(self, error: Exception) -> FailureKind:
        """What ``error``, raised by :meth:`run`, means."""


class NotPrepared(Exception):
    """A faster way to run a model that cannot be had."""

    def __init__(self, reason: Reason, sentence: str = "") -> None:
        super().__init__(sentence or str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Variant:
    """Another way to run a loaded model, made of ``steps``. ``run`` shares nothing that it changes with the untouched
    model, so that both may run at once. ``is_shared``: it has no state at all, so that any number of threads may run it
    at once; else one."""

    steps: tuple[Step, ...]
    run: Callable[[Mapping[str, NDArray[Any]]], Arrays]
    is_shared: bool = False


@runtime_checkable
class Preparable(Protocol):
    """A runtime that knows faster ways to run what it has loaded."""

    def variants(self, sample: Mapping[str, NDArray[Any]]) -> Generator[Variant | NotPrepared, bool, None]:
        """One way after the other, each made when it is asked for; what is sent in answer says whether it is kept, and
        the next may stand on it. A NotPrepared says of one that it could not be made. ``sample`` are inputs like those
        to come. Called, and the variants run, in a thread that is not the executing one. Raises NotPrepared.
        """


@runtime_checkable
class Threaded(Protocol):
    """A runtime whose operators' threads are each calling thread's own affair, and may change from call to call."""

    computes_in_caller: bool
    """Whether a call of one thread is computed by the thread that calls: what that one worked is what the call took."""

    def use_threads(self, threads: int) -> None:
        """What the calling thread runs from now on takes so many threads for one operator."""


def unique_names(names: list[str]) -> list[str]:
    """``names`` with ``_1``, ``_2``… appended where one comes again (a layer used twice names both its outputs)."""
    seen: dict[str, int] = {}
    unique: list[str] = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        unique.append(name if count == 0 else f"{name}_{count}")
    return unique


def no_such_device(device: str, framework: str) -> LoadFailed:
    """The error for a device that was asked for by name and is not there."""
    return LoadFailed(f"{framework} finds no device {device!r} on this machine; choose 'cpu' or 'auto'.")


def cuda_index(device: str) -> int:
    """N of ``cuda:N``, 0 for ``cuda``. Raises LoadFailed for anything else."""
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdigit()) or device.endswith(":"):
        raise LoadFailed(f"{device!r} is no device; use 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    return int(index or 0)
