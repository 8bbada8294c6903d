"""How much memory models have, and who gives way: models nobody uses are closed until they are asked again.

A model that is being asked, loaded, swapped or is pinned is never touched; nor, to keep the budget, the one asked last:
larger than the whole budget, it would be closed after each answer and loaded again. A load makes room before it starts
a process. What a process has is its own memory (USS: what the system would get back, psutil's ``memory_full_info``),
else its resident set. Of a GPU's memory the workers tell what PyTorch counts; nobody gives way for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import psutil

from engine.protocol import ProtocolError

log = logging.getLogger(__name__)

_LONGEST_NAME = 64
EVERY_S = 2.0
SHORT = 0.1
"""Share of the computer's memory: where less is available, nothing waits for a load any more."""
WORTH_TELLING = 0.01
"""A change by this share of the computer's memory is told at once; less waits for the next event."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes: what one worker has on its device (``reserved`` by PyTorch, ``allocated`` of that by tensors; what the
    driver needs for the process is in neither), and the device's own."""

    device: str
    allocated: int
    reserved: int
    free: int
    total: int

    @classmethod
    def read(cls, told: Any) -> DeviceMemory:
        """What a worker told. Raises ProtocolError."""
        if not isinstance(told, dict) or set(told) != {"device", "allocated", "reserved", "free", "total"}:
            raise ProtocolError("a report of memory that is none")
        device = told["device"]
        sizes = [told[name] for name in ("allocated", "reserved", "free", "total")]
        if not isinstance(device, str) or len(device) > _LONGEST_NAME:
            raise ProtocolError("memory of a device without a name")
        if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 1 << 53 for n in sizes):
            raise ProtocolError("sizes of memory that are none")
        return cls(device, *sizes)


class Resident(Protocol):
    """A model as this module sees it. ``pids``: its worker processes. ``used_at``: clock time of its last question."""

    @property
    def id(self) -> str: ...

    @property
    def pids(self) -> tuple[int, ...]: ...

    @property
    def used_at(self) -> float: ...

    @property
    def pinned(self) -> bool: ...

    @property
    def device_memory(self) -> tuple[DeviceMemory, ...]:
        """What its workers told last of the GPUs they run on."""
        ...

    def ask_device_memory(self) -> None:
        """Let its workers tell it anew, soon."""

    def rest(self) -> bool:
        """End the idle worker; the next question loads it again. False, and nothing done, where it is not idle."""


class WaitingProcesses(Protocol):
    """Processes that wait for a load, and give way before any model does."""

    @property
    def pids(self) -> tuple[int, ...]: ...

    def end(self, reason: str) -> None: ...


class _NoneWait:
    pids: tuple[int, ...] = ()

    def end(self, reason: str) -> None:
        """There is nothing to end."""


@dataclass(frozen=True, slots=True)
class Policy:
    """``budget_bytes`` for all models together, ``idle_s`` until one nobody asks is closed; None: no such limit."""

    budget_bytes: int | None = None
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes. ``by_model`` has the models with a worker."""

    total: int = 0
    available: int = 0
    by_model: tuple[tuple[str, int], ...] = ()
    on_devices: tuple[tuple[str, DeviceMemory], ...] = ()
    """By model as well, for each worker on a GPU."""
    spares: int = 0
    """What the processes have that wait for a load."""

    @property
    def models(self) -> int:
        """Of all of them, and of what waits for the next one."""
        return sum(size for _, size in self.by_model) + self.spares

    def to_json(self, policy: Policy) -> dict[str, Any]:
        others = max(0, self.total - self.available - self.models)
        return {
            "total": self.total, "available": self.available, "models": self.models, "others": others,
            "budget": policy.budget_bytes, "devices": self._devices(),
        }  # fmt: skip

    def of_device(self, model_id: str) -> dict[str, int] | None:
        """What a model has of GPUs' memory; None where it runs on none, or has not told yet."""
        mine = [told for owner, told in self.on_devices if owner == model_id]
        if not mine:
            return None
        return {"allocated": sum(m.allocated for m in mine), "reserved": sum(m.reserved for m in mine)}

    def _devices(self) -> list[dict[str, Any]]:
        found = []
        for device in sorted({told.device for _, told in self.on_devices}):
            here = [told for _, told in self.on_devices if told.device == device]
            total, free, models = here[0].total, min(told.free for told in here), sum(told.reserved for told in here)
            others = max(0, total - free - models)
            found.append({"device": device, "total": total, "free": free, "models": models, "others": others})
        return found


def computer_memory() -> tuple[int, int]:
    """Total and available, in bytes."""
    memory = psutil.virtual_memory()
    return int(memory.total), int(memory.available)


def process_bytes(pid: int) -> int:
    """What would come back if the process ended; 0 where there is none of that number any more."""
    try:
        process = psutil.Process(pid)
        try:
            return int(process.memory_full_info().uss)
        except (psutil.AccessDenied, AttributeError):
            return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


class MemoryWatch:
    """Measures every :data:`EVERY_S` seconds on a thread of its own, and lets models rest as the policy asks.

    ``changed`` is called when the figures did; ``tight(sentence)`` once when a budget cannot be kept, and once for each
    model that alone is more than the budget.
    """

    def __init__(
        self,
        residents: Callable[[], Iterable[Resident]],
        clock: Callable[[], float],
        changed: Callable[[], None],
        tight: Callable[[str], None],
        policy: Policy,
        *,
        measure: Callable[[int], int] = process_bytes,
        spares: WaitingProcesses = _NoneWait(),
    ) -> None:
        self._spares = spares
        self._residents, self._clock, self._changed, self._tight = residents, clock, changed, tight
        self._measure_pid = measure
        self._policy = policy
        self._lock = threading.Lock()
        """Of what follows: loads make room on threads of their own."""
        self._told: set[str] = set()
        """Of which models, or "" for all of them together, it was said that they are too large."""
        self._seen: dict[str, int] = {}
        """What a process of a model had when it was measured last."""
        self._coming: dict[object, int] = {}
        """What the loads that run now will take."""
        self._wake = threading.Event()
        self._stopped = False
        self.measured = Measured()
        self._thread = threading.Thread(target=self._run, name="engine-memory", daemon=True)

    @property
    def policy(self) -> Policy:
        return self._policy

    def start(self) -> None:
        self._thread.start()

    def set_policy(self, policy: Policy) -> None:
        """Holds from the next look on, which comes at once."""
        self._policy = policy
        with self._lock:
            self._told.clear()
        self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self._thread.join(5.0)

    def look(self) -> None:
        """Measure once, and let rest who has to. Called by the thread, and by tests."""
        by_use, sizes = self._measure()
        now, policy = self._clock(), self._policy
        waiting = self._measure_spares()
        total, available = computer_memory()
        if policy.budget_bytes is not None and sum(sizes.values()) + waiting > policy.budget_bytes:
            waiting = self._end_spares("The memory budget is used up.")
        elif available < total * SHORT:
            waiting = self._end_spares("This computer is short of memory.")
        for resident in by_use:
            if resident.pinned:
                continue
            idle = policy.idle_s is not None and now - resident.used_at >= policy.idle_s
            over = policy.budget_bytes is not None and sum(sizes.values()) > policy.budget_bytes
            over = over and resident is not by_use[-1]
            if (idle or over) and resident.rest():
                why = "nobody asked it" if idle else "the memory budget is used up"
                log.info("%s rests until it is asked again: %s", resident.id, why)
                del sizes[resident.id]
        told = []
        for resident in by_use:
            if resident.id in sizes:
                told += [(resident.id, report) for report in resident.device_memory]
                resident.ask_device_memory()
        self._tell(Measured(total, available, tuple(sorted(sizes.items())), tuple(told), waiting))

    @contextmanager
    def room_for(self, model_id: str, at_least: int) -> Iterator[None]:
        """While a load of ``model_id`` runs, from before its process is started: who has to rests now, and what it will
        take counts for other loads. That is what a process of it had, else ``at_least`` (bytes). Where there is not
        enough room even so, that is said, and the load goes on."""
        load = object()
        with self._lock:
            needed = self._coming[load] = self._seen.get(model_id, at_least)
            coming = sum(self._coming.values())
        try:
            if (budget := self._policy.budget_bytes) is not None:
                by_use, sizes = self._measure()
                if sum(sizes.values()) + coming + self._measure_spares() > budget:
                    self._end_spares("A model is loaded, and the memory budget is used up.")
                for resident in by_use:
                    if sum(sizes.values()) + coming <= budget:
                        break
                    if resident.id != model_id and not resident.pinned and resident.rest():
                        log.info("%s rests until it is asked again: %s is loaded", resident.id, model_id)
                        del sizes[resident.id]
                self._say_if_tight(sizes | {model_id: sizes.get(model_id, 0) + needed}, coming - needed)
            yield
        finally:
            with self._lock:
                del self._coming[load]
            self._wake.set()  # the model is measured now, and not only at the next turn

    def _measure(self) -> tuple[list[Resident], dict[str, int]]:
        """The models with a worker, the one asked last at the end, and what each has."""
        found = sorted((r for r in self._residents() if r.pids), key=lambda r: r.used_at)
        sizes = {}
        for resident in found:
            each = [size for size in map(self._measure_pid, resident.pids) if size]
            sizes[resident.id] = sum(each)
            if each:
                with self._lock:
                    self._seen[resident.id] = max(each)
        return found, sizes

    def _measure_spares(self) -> int:
        return sum(map(self._measure_pid, self._spares.pids))

    def _end_spares(self, reason: str) -> int:
        """What they have then."""
        self._spares.end(reason)
        return 0

    def _say_if_tight(self, sizes: Mapping[str, int], more: int = 0) -> None:
        budget, total = self._policy.budget_bytes, sum(sizes.values()) + more
        if budget is None or total <= budget:
            with self._lock:
                self._told.discard("")
            return
        largest = max(sizes, key=sizes.__getitem__)
        alone = sizes[largest] > budget
        with self._lock:
            known = len(self._told)
            self._told.add(largest if alone else "")
            if len(self._told) == known:
                return
        if alone:
            self._tight(
                f"{largest} alone needs {_mb(sizes[largest])} MB, more than the {_mb(budget)} MB that models may have "
                "together. It stays open while it is the one asked last."
            )
        else:
            self._tight(
                f"The open models need {_mb(total)} MB, more than the {_mb(budget)} MB they may have, and none of them "
                "can be closed: they are in use, pinned, or the one asked last."
            )

    def _tell(self, found: Measured) -> None:
        before, self.measured = self.measured, found
        moved = max(abs(found.available - before.available), abs(found.models - before.models))
        others = {m for m, _ in found.by_model} != {m for m, _ in before.by_model}
        if others or moved > WORTH_TELLING * found.total or found.on_devices != before.on_devices:
            self._changed()
        self._say_if_tight(dict(found.by_model))

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.look()
            except Exception:
                log.exception("the memory of models could not be looked at")
            self._wake.wait(EVERY_S)
            self._wake.clear()


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f}"
