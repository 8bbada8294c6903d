"""The engine: the one object behind the window and the network.

A front end sees Futures, tickets and events, never a thread or a process. The app process imports no framework, decodes
no picture and parses no model file: workers and the inspector do.
"""

from __future__ import annotations

import itertools
import logging
import queue
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from engine.consent import ConsentStore
from engine.errors import EngineClosed, EngineError, InternalError, ModelNotFound, PredictionExpired, UnusableInput
from engine.events import Event, EventBus, Notice, Snapshot
from engine.futures import reject, resolve
from engine.identity import base_id, model_location, unique_id
from engine.inspector_client import InspectorClient, Reply
from engine.jobs import Job, make_job
from engine.journal import Journal
from engine.load_run import LoadContext
from engine.model_host import HostContext, ModelHost
from engine.model_spec import FAKE_RUNTIME, ModelSpec, fake_spec
from engine.prediction import ImagePreview, LoadTicket, Prediction, PredictRequest, TablePreview
from engine.protocol import Limits, Message
from engine.settings import Settings, SettingsStore, data_dir
from engine.supervisor import child_command, child_environment, intra_op_threads
from engine.worker_client import Exit, WorkerClient

log = logging.getLogger(__name__)

SNAPSHOT_EVERY_S = 0.1
RECORDS = 100
_PREVIEW_TIMEOUT_S = 30.0
T = TypeVar("T")


class Engine:
    """See :class:`engine.ports.EnginePort` for the face. A context manager; works without arguments.

    ``settings`` default to the settings file, ``folder`` (consents, journal) to the platform's data folder.
    """

    def __init__(self, settings: Settings | None = None, *, folder: Path | None = None) -> None:
        notice = None
        if settings is None:
            store = SettingsStore()
            settings = store.load()
            notice = store.notice
        self.settings = settings
        self.folder = folder or data_dir()
        self._lock = threading.Lock()
        self._closed = False
        self._hosts: dict[str, ModelHost] = {}
        self._by_key: dict[tuple[str, str], ModelHost] = {}
        self._serials = itertools.count(1)
        self._job_ids = itertools.count(1)
        self._jobs: deque[Job] = deque(maxlen=RECORDS)
        self._scratch = Path(tempfile.mkdtemp(prefix="deskside-"))
        self._bus = EventBus()
        self._events = _EventThread(self._bus, self._snapshot)
        self._journal = Journal(
            self.folder / "journal.sqlite3", lambda sentence: self._events.post(Notice("journal", sentence))
        )
        self._inspector = InspectorClient(
            lambda on_message, on_exit, limits: self._start_child(
                "inspector", on_message, on_exit, arguments=("--inspect",), limits=limits
            )
        )
        self._clock = _ClockThread(time.monotonic, self._tick_hosts)
        self._context = HostContext(
            load=LoadContext(
                limits=settings.limits,
                threads=settings.worker.threads,
                inspector=self._inspector,
                consents=ConsentStore(self.folder / "consents.json"),
                journal=self._journal,
                post=self._events.post,
                start_worker=self._start_child,
            ),
            clock=time.monotonic,
            wake=self._clock.wake,
            mark_changed=self._events.mark_changed,
            on_removed=self._forget,
        )
        self._events.start()
        self._clock.start()
        if notice:
            self._events.post(Notice("settings", notice))

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- models ----------------------------------------------------------------------------------------------------
    def load(
        self, source: str | Path | ModelSpec, device: str | None = None, trust: bool = False, runtime: str | None = None
    ) -> LoadTicket:
        while True:
            try:
                host = self._host(source, device, runtime, offered=False)
            except EngineError as error:
                return _failed_ticket(error)
            future = host.load(trust)
            if future is not None:
                return LoadTicket(host.id, future, host.cancel_load)
            self._forget(host)

    def offer(
        self, path: str | Path | ModelSpec, device: str | None = None, trust: bool = False, runtime: str | None = None
    ) -> str:
        """Raises EngineClosed."""
        return self._host(path, device, runtime, offered=True, trust=trust).id

    def unload(self, model_id: str) -> Future[None]:
        host = self._hosts.get(model_id)
        if host is None:
            return _rejected(ModelNotFound("No such model is open."))
        return host.unload()

    def inspect(self, path: str | Path) -> Future[ModelSpec]:
        location = Path(path).expanduser().absolute()
        call = self._inspector.call(
            "inspect", {"path": str(location)}, timeout_s=self.settings.limits.inspect_timeout_s
        )
        return _mapped(call, lambda reply: ModelSpec.from_json(reply[0]["spec"]).with_id(base_id(location)))

    # -- answers ---------------------------------------------------------------------------------------------------
    def predict(self, request: PredictRequest) -> Future[Prediction]:
        host = self._hosts.get(request.model)
        if host is None:
            return _rejected(ModelNotFound("No such model is open."))
        try:
            job = make_job(f"m{host.serial}-{next(self._job_ids)}", request)
        except EngineError as error:
            return _rejected(error)
        self._jobs.appendleft(job)
        host.predict(job)
        return job.future

    def refine(self, prediction_id: str, params: dict[str, Any]) -> Future[Prediction]:
        serial = prediction_id.partition("-")[0]
        for host in list(self._hosts.values()):
            if f"m{host.serial}" == serial:
                return host.refine(prediction_id, params)
        return _rejected(PredictionExpired("This answer is no longer kept. Ask again."))

    def preview_image(self, source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        return _mapped(self._preview("preview_image", source, {"max_side": max_side}), _image_preview)

    def preview_table(self, source: bytes | Path, max_rows: int = 1000) -> Future[TablePreview]:
        return _mapped(self._preview("preview_table", source, {"max_rows": max_rows}), _table_preview)

    # -- watching --------------------------------------------------------------------------------------------------
    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        return self._bus.subscribe(listener)

    def stats(self) -> dict[str, Any]:
        models = [host.entry() for host in list(self._hosts.values())]
        return {
            "models": models,
            "waiting": sum(m["waiting"] for m in models),
            "running": sum(m["running"] for m in models),
        }

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            hosts = list(self._hosts.values())
        closers = [threading.Thread(target=host.close, name=f"close-{host.id}", daemon=True) for host in hosts]
        for thread in closers:
            thread.start()
        self._inspector.close()
        for thread in closers:
            thread.join(15.0)
        self._clock.stop()
        self._journal.close()
        self._events.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    # -- inside ----------------------------------------------------------------------------------------------------
    def _host(
        self,
        source: str | Path | ModelSpec,
        device: str | None,
        runtime: str | None,
        *,
        offered: bool,
        trust: bool = False,
    ) -> ModelHost:
        """The host that stands for this model, made where there is none. Raises EngineClosed."""
        asked = device or self.settings.worker.device
        if isinstance(source, ModelSpec):
            spec = source if runtime is None else replace(source, runtime=runtime)
            location, wanted = f"spec:{spec.id or spec.path.name}", spec.id or base_id(spec.path)
            known: Path | ModelSpec = spec
        else:
            path = Path(source).expanduser().absolute()
            known = model_location(path)
            location, wanted = str(known), base_id(path)
            if runtime == FAKE_RUNTIME:
                known = fake_spec(path)
        with self._lock:
            if self._closed:
                raise EngineClosed()
            host = self._by_key.get((location, asked)) or self._same_model(location, device)
            if host is None:
                name = unique_id(wanted, self._hosts.__contains__)
                host = ModelHost(
                    self._context,
                    name,
                    known,
                    serial=next(self._serials),
                    device=asked,
                    offered=offered,
                    trust=trust,
                    runtime=runtime,
                )
                self._hosts[name] = host
                self._by_key[(location, asked)] = host
                self._events.mark_changed()
            return host

    def _same_model(self, location: str, device: str | None) -> ModelHost | None:
        """A model that is open on whichever device is the one asked for, where none, or just that one, was named."""
        for (other, _), host in self._by_key.items():
            if other == location and (device is None or host.entry()["device"] == device):
                return host
        return None

    def _forget(self, host: ModelHost) -> None:
        with self._lock:
            if self._hosts.get(host.id) is host:
                del self._hosts[host.id]
            for key in [key for key, other in self._by_key.items() if other is host]:
                del self._by_key[key]
        self._events.mark_changed()

    def _start_child(
        self,
        name: str,
        on_message: Callable[[Message], None],
        on_exit: Callable[[Exit], None],
        *,
        arguments: tuple[str, ...] = (),
        limits: Limits = Limits(),
    ) -> WorkerClient:
        """Raises OSError where the process cannot be started."""
        home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._scratch))

        def on_end(exit_: Exit) -> None:
            shutil.rmtree(home, ignore_errors=True)
            on_exit(exit_)

        return WorkerClient(
            child_command(self.settings.worker, *arguments),
            env=child_environment(self.settings.worker, intra_op_threads(self.settings.worker.threads), home),
            cwd=home,
            name=f"worker-{name}",
            on_message=on_message,
            on_exit=on_end,
            limits=limits,
        )

    def _preview(self, op: str, source: bytes | Path, args: dict[str, Any]) -> Future[Reply]:
        if isinstance(source, Path):
            return self._inspector.call(op, args | {"path": str(source.absolute())}, timeout_s=_PREVIEW_TIMEOUT_S)
        return self._inspector.call(op, args, [source], timeout_s=_PREVIEW_TIMEOUT_S)

    def _tick_hosts(self) -> None:
        for host in list(self._hosts.values()):
            due = host.tick()
            if due is not None:
                self._clock.wake(due)

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.stats(), tuple(job.record() for job in tuple(self._jobs)))


class _Wake(Enum):
    CHANGED = 1
    STOP = 2


class _EventThread:
    """Publishes events in the order they were posted, and a snapshot at most every ``SNAPSHOT_EVERY_S``."""

    def __init__(self, bus: EventBus, snapshot: Callable[[], Snapshot]) -> None:
        self._bus = bus
        self._snapshot = snapshot
        self._queue: queue.SimpleQueue[Event | _Wake] = queue.SimpleQueue()
        self._changed = False
        self._thread = threading.Thread(target=self._run, name="engine-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, event: Event) -> None:
        self._queue.put(event)

    def mark_changed(self) -> None:
        if not self._changed:
            self._changed = True
            self._queue.put(_Wake.CHANGED)

    def stop(self) -> None:
        """Publish what was posted, then end."""
        self._queue.put(_Wake.STOP)
        if self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _run(self) -> None:
        due: float | None = None
        last = 0.0
        while True:
            try:
                event = self._queue.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                self._changed, due = False, None
                last = time.monotonic()
                self._bus.publish(self._snapshot())
                continue
            if event is _Wake.STOP:
                return
            if event is _Wake.CHANGED:
                due = max(time.monotonic(), last + SNAPSHOT_EVERY_S)
            elif not isinstance(event, _Wake):
                self._bus.publish(event)


class _ClockThread:
    """Calls ``tick`` when the earliest time anybody asked for has come."""

    def __init__(self, clock: Callable[[], float], tick: Callable[[], None]) -> None:
        self._clock = clock
        self._tick = tick
        self._condition = threading.Condition()
        self._next = float("inf")
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="engine-clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self, at: float) -> None:
        with self._condition:
            if at < self._next:
                self._next = at
                self._condition.notify()

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify()
        self._thread.join(5.0)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._stopped and (wait := self._next - self._clock()) > 0:
                    self._condition.wait(min(wait, threading.TIMEOUT_MAX))
                if self._stopped:
                    return
                self._next = float("inf")
            try:
                self._tick()
            except Exception:
                log.exception("the engine's clock stumbled")


def _rejected(error: EngineError) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _failed_ticket(error: EngineError) -> LoadTicket:
    return LoadTicket("", _rejected(error), lambda: None)


def _mapped(call: Future[Reply], convert: Callable[[Reply], T]) -> Future[T]:
    """A future of the converted reply; cancelling it cancels the call."""
    future: Future[T] = Future()

    def on_done(done: Future[Reply]) -> None:
        if done.cancelled():
            future.cancel()
        elif (error := done.exception()) is not None:
            reject(future, error)
        else:
            try:
                value = convert(done.result())
            except (KeyError, IndexError, TypeError, ValueError) as bad:
                reject(future, InternalError("The inspector's answer could not be read.", details=repr(bad)))
            except EngineError as bad:
                reject(future, bad)
            else:
                resolve(future, value)

    future.add_done_callback(lambda f: call.cancel() if f.cancelled() else None)
    call.add_done_callback(on_done)
    return future


def _image_preview(reply: Reply) -> ImagePreview:
    result, buffers = reply
    width, height = int(result["width"]), int(result["height"])
    rgb = bytes(buffers[0])
    if width < 1 or height < 1 or len(rgb) != width * height * 3:
        raise UnusableInput("This picture could not be shown.", code="image_invalid")
    source = result["source_size"]
    return ImagePreview(width, height, rgb, (int(source[0]), int(source[1])), str(result.get("note", "")))


def _table_preview(reply: Reply) -> TablePreview:
    result, _ = reply
    return TablePreview(
        tuple(str(c) for c in result["columns"]),
        tuple(tuple(str(v) for v in row) for row in result["rows"]),
        int(result["total_rows"]),
    )
