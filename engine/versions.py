"""The versions of one model: which answers, which is kept for a rollback, which is being loaded beside it.

A folder of numbered folders (TensorFlow Serving's layout: ``model/1``, ``model/2``) names its versions, and the highest
number answers; any other model begins with the version its sidecar states, or 1, and a reload adds the next number.

A reload loads the new version in a worker of its own while the old one answers, and swaps only once it is ready and
its golden sample agrees. Requests stay with the version that took them; what that version can no longer answer goes to
the one that serves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import (
    Draining,
    EngineError,
    InternalError,
    LoadCancelled,
    LoadFailed,
    ModelFailed,
    ModelNotFound,
)
from engine.events import ModelState, ModelStateChanged
from engine.futures import all_settled, reject, resolve
from engine.golden import GoldenReport, golden_entry
from engine.identity import MODEL_SUFFIXES
from engine.jobs import Job
from engine.load_run import Loaded
from engine.memory import DeviceMemory
from engine.model_host import Counts, HostContext, ModelHost
from engine.model_spec import FAKE_RUNTIME, ModelSpec, fake_spec
from engine.prediction import LoadTicket, Prediction

log = logging.getLogger(__name__)

Entry = dict[str, Any]
_CAN_ANSWER = (ModelState.READY, ModelState.STARTING, ModelState.LOADING, ModelState.WARMING)
_MOST_DIGITS = 18


def numbered_folders(folder: Path) -> dict[int, Path]:
    """The versions of a folder of numbered folders, by number; empty where it is anything else.

    A folder that holds a model file itself, or a SavedModel, is that model and not its versions.
    """
    try:
        entries = list(folder.iterdir()) if folder.is_dir() else []
    except OSError:
        return {}  # the inspector says what is wrong with it
    if any(e.name in ("saved_model.pb", "saved_model.pbtxt") or e.suffix.lower() in MODEL_SUFFIXES for e in entries):
        return {}
    return {
        int(e.name): e
        for e in entries
        if e.name.isascii() and e.name.isdecimal() and len(e.name) <= _MOST_DIGITS and e.is_dir()
    }


@dataclass(frozen=True, slots=True)
class ModelContext:
    """What a model needs of the engine, beside what its hosts need. ``check_golden`` calls back with the report, or
    None where the model has no golden sample; it never blocks and never calls back on the caller's stack."""

    host: HostContext
    next_serial: Callable[[], int]
    later: Callable[..., None]
    """Call a function with its arguments on another thread, soon."""
    check_golden: Callable[[VersionedModel, ModelHost, Callable[[GoldenReport | None], None]], None]
    prepare: Callable[[VersionedModel, ModelHost], None]
    """Lets a version that is ready be made faster; never blocks."""
    on_removed: Callable[[VersionedModel], None]


@dataclass(slots=True, eq=False)
class _Swap:
    host: ModelHost
    tickets: list[Future[Entry]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Former:
    """A version that was replaced: ``host`` while its worker is kept, ``loaded`` to load it again."""

    host: ModelHost | None
    loaded: Loaded | None
    version: str


class VersionedModel:
    """One model under one id. Thread-safe; nothing here blocks.

    Lock order: a host may be asked for its entry, or to rest, under this lock; whatever settles futures runs after it
    is released.
    """

    def __init__(
        self,
        context: ModelContext,
        model_id: str,
        location: Path | ModelSpec,
        *,
        numbered: Mapping[int, Path],
        device: str,
        offered: bool,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
    ) -> None:
        self.id = model_id
        self.location = location
        self.precision = precision
        self._context = context
        self._host_context = replace(
            context.host, on_removed=self._on_host_removed, on_ready=self._on_ready, on_orphans=self._on_orphans
        )
        self._runtime = runtime
        self._lock = threading.Lock()
        self._labels: set[str] = set()
        self._hosts: list[ModelHost] = []
        self._past = Counts()
        self._keep_until: dict[ModelHost, float] = {}
        self._former: _Former | None = None
        self._other: ModelHost | None = None
        self._swap: _Swap | None = None
        self._swap_error: EngineError | None = None
        self._golden: dict[str, GoldenReport] = {}
        self._unloading = False
        self._removed = False
        self._pinned = False
        self._folders: dict[str, Path] = {}
        self._serving = self._new_host(
            self._newest(numbered), device=device, precision=precision, offered=offered, trust=trust, audible=True
        )

    # -- where the versions lie ------------------------------------------------------------------------------------
    def _newest(self, numbered: Mapping[int, Path]) -> tuple[Path | ModelSpec, str | None]:
        """What to load now, and its version where a folder names it."""
        if isinstance(self.location, ModelSpec):
            return self.location, None
        self._folders = {str(number): path for number, path in sorted(numbered.items(), reverse=True)}
        for version, path in self._folders.items():
            return self._source(path), version
        return self._source(self.location), None

    def _source(self, path: Path) -> Path | ModelSpec:
        return fake_spec(path) if self._runtime == FAKE_RUNTIME else path

    def _name(self, numbered: str | None, spec: ModelSpec) -> str:
        """The version of a model that has just been described: its folder's, its sidecar's, or the next number."""
        label = numbered or spec.version
        taken = {*self._labels, self._serving.version}
        if label in taken and numbered is None:
            numbers = [int(known) for known in taken if known.isdecimal()]
            label = str(max(numbers, default=len(taken)) + 1)
        return label

    def _new_host(
        self,
        source: tuple[Path | ModelSpec, str | None],
        *,
        device: str,
        precision: str | None,
        offered: bool = False,
        trust: bool = False,
        audible: bool = False,
        known: Loaded | None = None,
    ) -> ModelHost:
        host = ModelHost(
            self._host_context,
            self.id,
            source[0],
            serial=self._context.next_serial(),
            device=device,
            offered=offered,
            trust=trust,
            runtime=self._runtime,
            precision=precision,
            version=source[1] or "",
            name_version=partial(self._name, source[1]),
            audible=audible,
            known=known,
        )
        self._hosts.append(host)
        return host

    # -- the engine's calls ----------------------------------------------------------------------------------------
    @property
    def serving(self) -> ModelHost:
        return self._serving

    @property
    def device(self) -> str:
        """Where the serving version runs, or ran before it was let rest; before its first load, as was asked."""
        loaded = self._serving.loaded
        return loaded.device if loaded is not None else self._serving.device_asked

    def is_computing_in(self, precision: str | None) -> bool:
        """Whether a load asking for this precision (None: any) has nothing to change."""
        return precision is None or precision == self._serving.entry()["precision"]

    def load(self, trust: bool) -> LoadTicket | None:
        """Load the serving version unless it is loaded or loading. None where this model is history."""
        host = self._serving
        future = host.load(trust)
        if future is None:
            return None
        return LoadTicket(self.id, self._as_entry(future), host.cancel_load)

    def predict(self, job: Job) -> None:
        """Hand a request to the version it names, or to the one that serves. Errors come through ``job.future``."""
        while True:
            try:
                host = self.host_for(job.request.version)
            except EngineError as error:
                reject(job.future, error)
                return
            if host.predict(job):
                return

    def refine(self, prediction_id: str, params: dict[str, Any]) -> Future[Prediction] | None:
        """None where the prediction is none of this model's."""
        serial = prediction_id.partition("-")[0]
        for host in self.hosts():
            if f"m{host.serial}" == serial:
                return host.refine(prediction_id, params)
        return None

    def reload(self, trust: bool = False, device: str | None = None, precision: str | None = None) -> LoadTicket:
        """Load what now lies on the disk beside the serving version, and swap once it has proved itself."""
        host = self._serving
        if not host.was_ready:
            return self.load(trust) or _failed(self.id, ModelNotFound("No such model is open."))
        numbered = {} if isinstance(self.location, ModelSpec) else numbered_folders(self.location)
        with self._lock:
            make = partial(
                self._new_host,
                device=device or host.device_asked,
                precision=precision or self.precision,
                trust=trust,
            )
            return self._begin_swap(lambda: make(self._newest(numbered)))

    def rollback(self) -> Future[Entry]:
        """Let the version before this one answer again: at once where its worker is kept, else after a load."""
        with self._lock:
            former = self._former
            host = former.host if former is not None else None
            if host is None or host.state is not ModelState.READY or self._swap is not None:
                make = self._former_host(former)
                if make is None:
                    return _failed(self.id, LoadFailed(f"{self.id} has no earlier version to go back to.")).future
                return self._begin_swap(make).future
            effects = self._put_in_place(host)
        for effect in effects:
            effect()
        self._on_ready(host)
        done: Future[Entry] = Future()
        resolve(done, self.entry())
        return done

    def _former_host(self, former: _Former | None) -> Callable[[], ModelHost] | None:
        """Under the lock: how to load the version before this one, where there is one."""
        device = self._serving.device_asked
        if former is not None and (known := former.loaded) is not None:
            source = (known.spec, former.version)
            return partial(self._new_host, source, device=device, precision=None, known=known)
        version = self._folder_before()
        if version is None:
            return None
        source_there = (self._source(self._folders[version]), version)
        return partial(self._new_host, source_there, device=device, precision=self.precision)

    def _folder_before(self) -> str | None:
        """The highest numbered folder below the version that serves."""
        serving = self._serving.version
        lower = [v for v in self._folders if serving.isdecimal() and int(v) < int(serving)]
        return max(lower, key=int, default=None)

    def unload(self) -> Future[None]:
        """End every version's worker; the result comes once all are gone."""
        with self._lock:
            self._unloading = True
            hosts = list(self._hosts)
            swap, self._swap = self._swap, None
        self._reject(swap, LoadCancelled("The load was cancelled."))
        return all_settled([host.unload() for host in hosts])

    def close(self) -> None:
        """End everything now, and wait for it (bounded)."""
        with self._lock:
            self._unloading = True
            hosts = list(self._hosts)
            swap, self._swap = self._swap, None
        self._reject(swap, LoadCancelled("The load was cancelled."))
        closers = [threading.Thread(target=host.close, name=f"close-{host.serial}", daemon=True) for host in hosts[1:]]
        for thread in closers:
            thread.start()
        for host in hosts[:1]:
            host.close()
        for thread in closers:
            thread.join(15.0)

    def tick(self) -> float | None:
        """Do what time asks for. The clock time of the next tick, or None."""
        now = self._context.host.clock()
        with self._lock:
            expired = [host for host, until in self._keep_until.items() if until <= now]
            for host in expired:
                self._let_go(host)
            times: list[float | None] = list(self._keep_until.values())
        for host in expired:
            host.retire()
        times += [host.tick() for host in self.hosts()]
        return min((time for time in times if time is not None), default=None)

    def limits_changed(self) -> None:
        """Others hold from now on."""
        for host in self.hosts():
            host.limits_changed()

    # -- memory (engine.memory.Resident) -----------------------------------------------------------------------------
    @property
    def pids(self) -> tuple[int, ...]:
        """Of every worker it has, whichever version."""
        return tuple(pid for host in self.hosts() if (pid := host.worker_pid) is not None)

    @property
    def device_memory(self) -> tuple[DeviceMemory, ...]:
        """What its workers told last of the GPUs they run on."""
        return tuple(told for host in self.hosts() if (told := host.device_memory) is not None)

    def ask_device_memory(self) -> None:
        """Let its workers tell it anew, soon."""
        for host in self.hosts():
            host.ask_device_memory()

    @property
    def used_at(self) -> float:
        return self._serving.used_at

    def rest(self) -> bool:
        """Let the serving version's worker end where nobody asks it, no other version is being loaded, and it is not
        pinned. A swap or a pin that has begun before is seen: both are decided under this lock."""
        with self._lock:
            if self._swap is not None or self._unloading or self._pinned:
                return False
            end = self._serving.rest()
        if end is not None:
            end()
        return end is not None

    @property
    def pinned(self) -> bool:
        """Never closed to save memory."""
        return self._pinned

    def pin(self, pinned: bool) -> None:
        """Holds once it returns."""
        with self._lock:
            self._pinned = pinned

    def hosts(self) -> list[ModelHost]:
        with self._lock:
            return list(self._hosts)

    def record_golden(self, report: GoldenReport) -> None:
        """A check of the serving version is told in the entry; one of another version is not."""
        with self._lock:
            if report.version == self._serving.version:
                self._golden[report.door] = report
        self._context.host.mark_changed()

    def clear_golden(self) -> None:
        """The golden sample is another one, or none: what was found with it says nothing any more."""
        with self._lock:
            self._golden = {}
        self._context.host.mark_changed()

    def entry(self) -> Entry:
        with self._lock:
            return self._entry()

    def positions(self) -> dict[str, int]:
        """How many are before each request that waits, by its id; each version has a line of its own."""
        with self._lock:
            hosts = list(self._hosts)
        return {job: place for host in hosts for job, place in host.positions().items()}

    # -- which version answers -------------------------------------------------------------------------------------
    def host_for(self, version: str | None) -> ModelHost:
        """The version that is to answer. One that lies in a numbered folder is made known: a request loads it.

        Raises ModelNotFound naming the version that there is not.
        """
        with self._lock:
            if version is None:
                return self._serving
            named = [self._serving, *([self._former.host] if self._former and self._former.host else [])]
            if self._other is not None:
                named.append(self._other)
            for host in named:
                if host.version == version:
                    if host in self._keep_until:
                        self._keep(host)
                    return host
            path = self._folders.get(version)
            if path is None or self._unloading:
                raise ModelNotFound(f"{self.id} has no version {version[:64]}.")
            displaced = self._other
            if displaced is not None:
                self._let_go(displaced)
            host = self._other = self._new_host(
                (self._source(path), version),
                device=self._serving.device_asked,
                precision=self.precision,
                offered=True,
            )
            self._keep(host)
        if displaced is not None:
            displaced.retire()
        return host

    @property
    def _keep_previous_s(self) -> float:
        return self._context.host.load.limits().keep_previous_s

    def _keep(self, host: ModelHost) -> None:
        until = self._context.host.clock() + self._keep_previous_s
        self._keep_until[host] = until
        self._context.host.wake(until)

    def _let_go(self, host: ModelHost) -> None:
        """This host is to be retired: no request is to find it any more."""
        self._keep_until.pop(host, None)
        if self._other is host:
            self._other = None
        if self._former is not None and self._former.host is host:
            self._former = replace(self._former, host=None)

    # -- swapping --------------------------------------------------------------------------------------------------
    def _begin_swap(self, make: Callable[[], ModelHost]) -> LoadTicket:
        """Under the lock. One swap at a time: a second call gets a ticket for the one under way."""
        ticket: Future[Entry] = Future()
        if self._unloading:
            return _failed(self.id, Draining(f"{self.id} is being closed."))
        swap = self._swap
        if swap is None:
            swap = self._swap = _Swap(make())
            self._swap_error = None
            # Not on this stack: the load may fail at once, and its callbacks take the lock that is held here.
            self._context.later(self._load_candidate, swap)
        swap.tickets.append(ticket)
        return LoadTicket(self.id, ticket, partial(self._cancel_swap, swap))

    def _load_candidate(self, swap: _Swap) -> None:
        future = swap.host.load(trust=False)
        if future is None:
            self._end_swap(swap, LoadCancelled("The load was cancelled."))
        else:
            future.add_done_callback(partial(self._candidate_loaded, swap))

    def _candidate_loaded(self, swap: _Swap, future: Future[Entry]) -> None:
        error = future.exception()
        if error is None:
            self._context.check_golden(self, swap.host, partial(self._candidate_checked, swap))
        elif isinstance(error, EngineError):
            self._end_swap(swap, error)
        else:
            self._end_swap(swap, InternalError("Something unexpected went wrong while loading.", details=repr(error)))

    def _candidate_checked(self, swap: _Swap, report: GoldenReport | None) -> None:
        if report is not None and report.agreed is not True:
            self._end_swap(swap, LoadFailed(f"The new version did not pass its golden sample. {report.message}"))
            return
        effects: list[Callable[[], Any]] = []
        with self._lock:
            current = self._swap is swap
            if current:
                self._swap = None
                effects = self._put_in_place(swap.host)
                if report is not None:
                    self._golden[report.door] = report
                entry = self._entry()
        if not current:
            swap.host.unload()
            return
        for effect in effects:
            effect()
        for ticket in swap.tickets:
            resolve(ticket, entry)

    def _put_in_place(self, host: ModelHost) -> list[Callable[[], Any]]:
        """Under the lock: ``host`` answers from now on. What is to be called once the lock is released."""
        effects: list[Callable[[], Any]] = []
        old, former = self._serving, self._former
        self._serving = host
        # A version that never answered leaves its number to the next.
        self._labels |= {old.version, host.version}
        self._golden = {}
        self._swap_error = None
        self.precision = host.precision or (host.loaded.spec.precision if host.loaded is not None else None)
        host.audible, old.audible = True, False
        self._keep_until.pop(host, None)
        if former is not None and former.host is not None and former.host is not host:
            self._let_go(former.host)
            effects.append(former.host.retire)
        usable = old.state in _CAN_ANSWER and self._keep_previous_s > 0
        self._former = _Former(old if usable else None, old.loaded, old.version)
        if usable:
            self._keep(old)
        else:
            effects.append(old.retire)
        ready = ModelStateChanged(self.id, ModelState.READY)
        effects.append(partial(self._context.host.load.post, ready))
        self._context.host.mark_changed()
        return effects

    def _end_swap(self, swap: _Swap, error: EngineError) -> None:
        """The serving version stays; why the other did not come is told in the entry."""
        with self._lock:
            if self._swap is not swap:
                return
            self._swap = None
            if not isinstance(error, LoadCancelled):
                self._swap_error = error
        swap.host.unload()
        self._context.host.mark_changed()
        self._reject(swap, error)

    def _cancel_swap(self, swap: _Swap) -> None:
        self._end_swap(swap, LoadCancelled("The load was cancelled."))

    @staticmethod
    def _reject(swap: _Swap | None, error: EngineError) -> None:
        for ticket in swap.tickets if swap is not None else ():
            reject(ticket, error)

    # -- the hosts' calls ------------------------------------------------------------------------------------------
    def _on_host_removed(self, host: ModelHost) -> None:
        with self._lock:
            if host not in self._hosts:
                return
            self._hosts.remove(host)
            self._past += host.counts()
            self._let_go(host)
            others = list(self._hosts) if host is self._serving else []
            self._unloading = self._unloading or host is self._serving
            gone = self._unloading and not self._hosts and not self._removed
            self._removed = self._removed or gone
        for other in others:
            other.unload()
        if gone:
            self._context.on_removed(self)

    def _on_ready(self, host: ModelHost) -> None:
        """The golden sample is checked after each load; a candidate's check is the swap's."""
        self._context.prepare(self, host)
        with self._lock:
            swapping = self._swap is not None and self._swap.host is host
        if host is self._serving and not swapping:
            self._context.check_golden(self, host, lambda report: None)

    def _on_orphans(self, host: ModelHost, jobs: list[Job]) -> None:
        for job in jobs:
            if job.request.version is None and host is not self._serving:
                self.predict(job)
            else:
                reject(job.future, ModelFailed(f"Version {host.version} of {self.id} could not be loaded again."))

    # -- what is told ----------------------------------------------------------------------------------------------
    def _as_entry(self, future: Future[Entry]) -> Future[Entry]:
        """The host's future, resolving to the whole model's entry."""
        mine: Future[Entry] = Future()

        def on_done(done: Future[Entry]) -> None:
            if (error := done.exception()) is not None:
                reject(mine, error)
            else:
                resolve(mine, self.entry())

        future.add_done_callback(on_done)
        return mine

    def _entry(self) -> Entry:
        entry = self._serving.entry()
        briefs = [(host, host.entry()) for host in self._hosts if host is not self._serving]
        counts = sum((host.counts() for host in self._hosts), self._past)
        return entry | {
            "loads": counts.loads,
            "restarts": counts.restarts,
            "requests": {"window": counts.window, "network": counts.network},
            "inferences": counts.inferences,
            "statistics": counts.statistics.to_json(),
            "waiting": entry["waiting"] + sum(other["waiting"] for _, other in briefs),
            "running": entry["running"] + sum(other["running"] for _, other in briefs),
            "versions": self._versions(),
            "workers": [
                {"version": e["version"], "state": e["state"], "worker_pid": e["worker_pid"]}
                for e in (entry, *(other for _, other in briefs))
            ],
            "swap": str(self._swap.host.state) if self._swap is not None else None,
            "swap_error": _as_json(self._swap_error),
            "golden": golden_entry(self._golden),
            "pinned": self._pinned,
            "path": str(self.location.path if isinstance(self.location, ModelSpec) else self.location),
        }

    def _versions(self) -> list[str]:
        """The versions there are: the serving one last, and before it the one a rollback returns to."""
        former = self._former.version if self._former is not None else self._folder_before()
        serving = self._serving.version
        others = [version for version in self._folders if version not in (former, serving)]
        return [*sorted(others, key=int), *([former] if former is not None else []), *([serving] if serving else [])]


def _as_json(error: EngineError | None) -> dict[str, str] | None:
    return {"code": error.code, "message": error.message} if error is not None else None


def _failed(model_id: str, error: EngineError) -> LoadTicket:
    future: Future[Entry] = Future()
    future.set_exception(error)
    return LoadTicket(model_id, future, lambda: None)
