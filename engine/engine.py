"""The engine: the one object behind the window and the network.

A front end sees Futures, tickets and events, never a thread or a process. The app process imports no framework, decodes
no picture and parses no model file: workers and the inspector do.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from engine.consent import ConsentStore
from engine.engine_threads import ClockThread, EventThread
from engine.errands import Errands
from engine.errors import (
    EngineClosed,
    EngineError,
    InternalError,
    Malformed,
    ModelNotFound,
    PredictionExpired,
    UnusableInput,
)
from engine.events import Event, EventBus, Notice, Snapshot
from engine.futures import reject, resolve
from engine.golden import GoldenReport, GoldenSample
from engine.golden_checks import GoldenChecks
from engine.identity import base_id, model_location, unique_id
from engine.inspector_client import InspectorClient, Reply
from engine.jobs import Job, make_job
from engine.journal import Journal
from engine.load_run import PRECISIONS, LoadContext
from engine.memory import MemoryWatch, Policy
from engine.model_host import HostContext
from engine.model_spec import ModelSpec
from engine.prediction import (
    AudioPreview,
    Convention,
    ImagePreview,
    LoadTicket,
    Prediction,
    PredictRequest,
    TablePreview,
)
from engine.protocol import Limits, Message
from engine.serving_types import RequestRecord
from engine.settings import EngineLimits, Settings, SettingsStore, data_dir
from engine.spares import Spare, SparePolicy, Spares, framework_of, likely_framework
from engine.supervisor import (
    COMPILED_PACKAGE,
    SANDBOX,
    child_command,
    child_environment,
    files_of_a_load,
    sandbox_order,
    share_of_cores,
)
from engine.tuning import Tuning
from engine.versions import ModelContext, VersionedModel, numbered_folders
from engine.worker_client import Exit, WorkerClient

if TYPE_CHECKING:
    from engine.remote import EngineClient

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
        """Its limits are those that hold now."""
        self.folder = folder or data_dir()
        self._lock = threading.Lock()
        self._limiting = threading.Lock()
        """Held while limits change, so that all of them are of one call."""
        self._closed = False
        self._models: dict[str, VersionedModel] = {}
        self._by_key: dict[tuple[str, str], VersionedModel] = {}
        self._serials = itertools.count(1)
        self._job_ids = itertools.count(1)
        self._jobs: deque[Job] = deque(maxlen=RECORDS)
        self._open_jobs: dict[str, Job] = {}
        """Those without an answer yet, by id."""
        self._scratch = Path(tempfile.mkdtemp(prefix="deskside-"))
        self._sandbox: dict[str, Any] | None = None
        self._bus = EventBus()
        self._events = EventThread(self._bus, self._snapshot)
        self._journal = Journal(
            self.folder / "journal.sqlite3", lambda sentence: self._events.post(Notice("journal", sentence))
        )
        self._inspector = InspectorClient(
            lambda on_message, on_exit, limits: self._start_child(
                "inspector", on_message, on_exit, arguments=("--inspect",), limits=limits
            )
        )
        self._clock = ClockThread(time.monotonic, self._tick_models)
        self._errands = Errands()
        self._spares = Spares(
            SparePolicy(
                settings=lambda: self.settings.worker,
                threads=lambda: self._threads_for(""),
                start=self._start_spare,
                later=self._errands.later,
                clock=time.monotonic,
                wake=self._clock.wake,
            )
        )
        self._golden = GoldenChecks(self.folder, self._errands.later, lambda: next(self._job_ids))
        self._tuning = Tuning(self._inspector, self._errands, self._golden, self.folder)
        host = HostContext(
            load=LoadContext(
                limits=lambda: self.settings.limits,
                room=lambda model_id, size: self._memory.room_for(model_id, size),
                threads=self._threads_for,
                data_dir=self.folder,
                inspector=self._inspector,
                consents=ConsentStore(self.folder / "consents.json"),
                journal=self._journal,
                post=self._events.post,
                head_start=self._head_start,
                not_needed=self._spares.offer,
                take_spare=self._take_spare,
                used=lambda spec: self._spares.used(framework_of(spec.runtime)),
                start_worker=self._start_worker,
            ),
            clock=time.monotonic,
            wake=self._clock.wake,
            mark_changed=self._events.mark_changed,
            # Each model puts itself here.
            on_removed=lambda host: None,
            on_ready=lambda host: None,
            on_orphans=lambda host, jobs: None,
        )
        self._context = ModelContext(
            host=host,
            next_serial=lambda: next(self._serials),
            later=self._errands.later,
            check_golden=self._golden.check,
            prepare=lambda model, host: self._golden.prepare(model, host, wanted=self.settings.worker.prepare),
            on_removed=self._forget,
        )
        self._memory = MemoryWatch(
            lambda: list(self._models.values()),
            time.monotonic,
            self._events.mark_changed,
            lambda sentence: self._events.post(Notice("memory", sentence)),
            _memory_policy(settings.limits),
            spares=self._spares,
        )
        self._events.start()
        self._clock.start()
        self._memory.start()
        if notice:
            self._events.post(Notice("settings", notice))

    @staticmethod
    def shared(folder: str | Path, settings: Settings | None = None) -> EngineClient:
        """The engine of ``folder`` for several processes: one of them all holds the models (:mod:`engine.remote`)."""
        from engine.remote import EngineClient

        return EngineClient(Path(folder), settings)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- models ----------------------------------------------------------------------------------------------------
    def load(
        self,
        source: str | Path | ModelSpec,
        device: str | None = None,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
    ) -> LoadTicket:
        while True:
            try:
                model = self._model(source, device, runtime, precision, offered=False)
            except EngineError as error:
                return _failed_ticket(error)
            if not model.is_computing_in(precision):
                return model.reload(trust, precision=precision)
            ticket = model.load(trust)
            if ticket is not None:
                return ticket
            self._forget(model)

    def offer(
        self,
        path: str | Path | ModelSpec,
        device: str | None = None,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
    ) -> str:
        """Raises EngineClosed, and Malformed for a precision that is none."""
        return self._model(path, device, runtime, precision, offered=True, trust=trust).id

    def reload(
        self, model_id: str, trust: bool = False, device: str | None = None, precision: str | None = None
    ) -> LoadTicket:
        try:
            return self._named(model_id).reload(trust, device, _checked_precision(precision))
        except EngineError as error:
            return _failed_ticket(error)

    def rollback(self, model_id: str) -> Future[dict[str, Any]]:
        try:
            return self._named(model_id).rollback()
        except EngineError as error:
            return _rejected(error)

    def unload(self, model_id: str) -> Future[None]:
        try:
            return self._named(model_id).unload()
        except EngineError as error:
            return _rejected(error)

    def inspect(self, path: str | Path) -> Future[ModelSpec]:
        location = Path(path).expanduser().absolute()
        newest = max(numbered_folders(location).items(), default=None)
        call = self._inspector.call(
            "inspect",
            {"path": str(newest[1] if newest else location), "data_dir": str(self.folder)},
            timeout_s=self.settings.limits.inspect_timeout_s,
        )

        def described(reply: Reply) -> ModelSpec:
            self._sandbox = reply[0].get("sandbox")
            spec = ModelSpec.from_json(reply[0]["spec"]).with_id(base_id(location))
            if newest is None:
                return spec
            return replace(spec, version=str(newest[0]), evidence=spec.evidence | {"version": "name of its folder"})

        return _mapped(call, described)

    def pin(self, model_id: str, pinned: bool) -> None:
        """Raises ModelNotFound."""
        self._named(model_id).pin(pinned)
        self._events.mark_changed()

    def keep_spares(self, model: str | Path | None = None) -> None:
        def keep() -> None:
            path = None if model is None else model_location(Path(model).expanduser().absolute())
            self._spares.keep(None if path is None else likely_framework(path))

        self._errands.later(keep)

    def limit(self, limits: EngineLimits) -> None:
        with self._limiting:
            self.settings = self.settings.model_copy(update={"limits": limits})
            # A model opened from here on asks the new ones itself.
            for model in list(self._models.values()):
                model.limits_changed()
            self._memory.set_policy(_memory_policy(limits))
        self._clock.wake(time.monotonic())
        self._events.mark_changed()

    # -- answers ---------------------------------------------------------------------------------------------------
    def predict(self, request: PredictRequest) -> Future[Prediction]:
        try:
            model = self._named(request.model)
            host = model.host_for(request.version)
            job = make_job(f"m{host.serial}-{next(self._job_ids)}", request)
        except EngineError as error:
            return _rejected(error)
        self._jobs.appendleft(job)
        self._open_jobs[job.id] = job
        job.future.add_done_callback(partial(self._close_job, job.id))  # not of the job: its future would hold itself
        model.predict(job)
        return job.future

    def _close_job(self, request_id: str, _: Future[Prediction]) -> None:
        self._open_jobs.pop(request_id, None)

    def cancel(self, request_id: str) -> bool:
        job = self._open_jobs.get(request_id)
        return job is not None and job.future.cancel()

    def refine(self, prediction_id: str, params: dict[str, Any]) -> Future[Prediction]:
        for model in list(self._models.values()):
            if (future := model.refine(prediction_id, params)) is not None:
                return future
        return _rejected(PredictionExpired("This answer is no longer kept. Ask again."))

    def preview_image(self, source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        return _mapped(self._preview("preview_image", source, {"max_side": max_side}), _image_preview)

    def preview_table(self, source: bytes | Path, max_rows: int = 1000) -> Future[TablePreview]:
        return _mapped(self._preview("preview_table", source, {"max_rows": max_rows}), _table_preview)

    def preview_audio(self, source: bytes | Path, points: int = 1000) -> Future[AudioPreview]:
        return _mapped(self._preview("preview_audio", source, {"points": points}), _audio_preview)

    # -- golden samples --------------------------------------------------------------------------------------------
    def golden_sample(self, model_id: str) -> Future[GoldenSample | None]:
        return self._tuning.golden_sample(self._find(model_id))

    def check_golden(self, model_id: str) -> Future[GoldenReport]:
        return self._tuning.check_golden(self._find(model_id))

    def keep_golden(self, prediction_id: str) -> Future[GoldenReport]:
        job = next((job for job in tuple(self._jobs) if job.id == prediction_id), None)
        return self._tuning.keep_golden(self._find(job.model) if job is not None else _no_model, job)

    def forget_golden(self, model_id: str) -> Future[None]:
        return self._tuning.forget_golden(self._find(model_id))

    def record_golden(self, model_id: str, report: GoldenReport) -> None:
        if (model := self._models.get(model_id)) is not None:
            model.record_golden(report)

    # -- what is stated of a model ---------------------------------------------------------------------------------
    def save_sidecar(self, model_id: str, changes: Mapping[str, Any]) -> Future[Path]:
        return self._tuning.save_sidecar(self._find(model_id), changes)

    def try_conventions(self, model_id: str, data: bytes, content_type: str | None = None) -> Future[list[Convention]]:
        return self._tuning.try_conventions(self._find(model_id), data, content_type, lambda: next(self._job_ids))

    def apply_preprocessing(self, model_id: str, changes: Mapping[str, Any]) -> Future[ModelSpec]:
        return self._tuning.apply_preprocessing(self._find(model_id), changes)

    # -- watching --------------------------------------------------------------------------------------------------
    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        return self._bus.subscribe(listener)

    def after_events(self, callback: Callable[[], None]) -> None:
        """Call ``callback``, on the events' thread, once listeners have heard everything so far."""
        self._events.after_all(callback)

    def stats(self) -> dict[str, Any]:
        measured, policy = self._memory.measured, self._memory.policy
        sizes = dict(measured.by_model)
        models = [
            model.entry() | {"memory": sizes.get(model.id), "device_memory": measured.of_device(model.id)}
            for model in list(self._models.values())
        ]
        return {
            "models": models,
            "memory": measured.to_json(policy),
            "waiting": sum(m["waiting"] for m in models),
            "running": sum(m["running"] for m in models),
            "sandbox": self._sandbox,
        }

    def requests(self) -> tuple[RequestRecord, ...]:
        places: dict[str, int] = {}
        for model in list(self._models.values()):
            places |= model.positions()
        records = (job.record() for job in tuple(self._jobs))
        return tuple(replace(r, position=places[r.id]) if r.id in places else r for r in records)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            models = list(self._models.values())
        closers = [threading.Thread(target=model.close, name=f"close-{model.id}", daemon=True) for model in models]
        for thread in closers:
            thread.start()
        self._inspector.close()
        for thread in closers:
            thread.join(15.0)
        self._errands.close()
        self._spares.close()
        self._memory.stop()
        self._clock.stop()
        self._journal.close()
        self._events.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    # -- inside ----------------------------------------------------------------------------------------------------
    def _named(self, model_id: str) -> VersionedModel:
        """Raises ModelNotFound."""
        model = self._models.get(model_id)
        if model is None:
            raise ModelNotFound("No such model is open.")
        return model

    def _find(self, model_id: str) -> Callable[[], VersionedModel]:
        return lambda: self._named(model_id)

    def _model(
        self,
        source: str | Path | ModelSpec,
        device: str | None,
        runtime: str | None,
        precision: str | None,
        *,
        offered: bool,
        trust: bool = False,
    ) -> VersionedModel:
        """The open model that this is, made where there is none. Raises EngineClosed, Malformed."""
        _checked_precision(precision)
        asked = device or self.settings.worker.device
        if isinstance(source, ModelSpec):
            spec = source if runtime is None else replace(source, runtime=runtime)
            location, wanted = f"spec:{spec.id or spec.path.name}", spec.id or base_id(spec.path)
            known: Path | ModelSpec = spec
        else:
            path = Path(source).expanduser().absolute()
            known = model_location(path)
            location, wanted = str(known), base_id(path)
        numbered = {} if isinstance(known, ModelSpec) else numbered_folders(known)
        with self._lock:
            if self._closed:
                raise EngineClosed()
            model = self._by_key.get((location, asked)) or self._same_model(location, device)
            if model is None:
                name = unique_id(wanted, self._models.__contains__)
                model = VersionedModel(
                    self._context,
                    name,
                    known,
                    numbered=numbered,
                    device=asked,
                    offered=offered,
                    trust=trust,
                    runtime=runtime,
                    precision=precision,
                )
                self._models[name] = model
                self._by_key[(location, asked)] = model
                self._events.mark_changed()
            return model

    def _same_model(self, location: str, device: str | None) -> VersionedModel | None:
        """A model that is open on whichever device is the one asked for, where none, or just that one, was named."""
        for (other, _), model in self._by_key.items():
            if other == location and (device is None or model.device == device):
                return model
        return None

    def _forget(self, model: VersionedModel) -> None:
        with self._lock:
            if self._models.get(model.id) is model:
                del self._models[model.id]
            for key in [key for key, other in self._by_key.items() if other is model]:
                del self._by_key[key]
        self._spares.look_again()
        self._events.mark_changed()

    def _threads_for(self, model_id: str) -> int:
        """A model's share of the cores, among the models that have a worker now."""
        others = [m for m in list(self._models.values()) if m.id != model_id and m.serving.has_worker]
        return share_of_cores(self.settings.worker, len(others) + 1)

    def _head_start(self, path: Path, threads: int) -> Spare | None:
        """None as well where memory has a budget: room is made before a process starts, for a model that is known."""
        if self.settings.limits.memory_budget_mb:
            return None
        return self._spares.head_start(likely_framework(path), threads)

    def _take_spare(
        self,
        ahead: Spare | None,
        spec: ModelSpec,
        on_message: Callable[[Message], None],
        on_exit: Callable[[Exit], None],
        threads: int,
    ) -> WorkerClient | None:
        reads, writes = files_of_a_load(spec)
        # Where a worker may write is settled when it starts; only the runtime of tests writes beside its own folder.
        framework = None if writes else framework_of(spec.runtime)
        client = self._spares.take(ahead, framework, threads, on_message, on_exit)
        if client is not None:
            order = sandbox_order(self.settings.worker, client.home, reads, writes)
            client.send({"type": "order", "order": order if self.settings.worker.sandbox else None})
        return client

    def _start_spare(
        self, framework: str, threads: int, on_message: Callable[[Message], None], on_exit: Callable[[Exit], None]
    ) -> WorkerClient:
        arguments = ("--spare", framework)
        return self._start_child(f"spare-{framework}", on_message, on_exit, threads, arguments=arguments, is_spare=True)

    def _start_worker(
        self,
        spec: ModelSpec,
        name: str,
        on_message: Callable[[Message], None],
        on_exit: Callable[[Exit], None],
        threads: int,
    ) -> WorkerClient:
        """Raises OSError where the process cannot be started."""
        reads, writes = files_of_a_load(spec)
        compiled = spec.runtime == "aot_inductor"
        return self._start_child(
            name, on_message, on_exit, threads, reads=reads, writes=writes, compiled_package=compiled
        )

    def _start_child(
        self,
        name: str,
        on_message: Callable[[Message], None],
        on_exit: Callable[[Exit], None],
        threads: int = 1,
        *,
        arguments: tuple[str, ...] = (),
        limits: Limits = Limits(),
        reads: tuple[Path, ...] | None = None,
        writes: tuple[Path, ...] = (),
        compiled_package: bool = False,
        is_spare: bool = False,
    ) -> WorkerClient:
        """A child that may read ``reads`` beside the system's own files (None: everything) and write ``writes`` beside
        its home. Raises OSError where the process cannot be started."""
        home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._scratch))
        environment = child_environment(self.settings.worker, threads, home)
        if self.settings.worker.sandbox:
            order = sandbox_order(self.settings.worker, home, reads, writes, is_spare=is_spare)
            environment[SANDBOX] = COMPILED_PACKAGE if compiled_package else order

        def on_end(exit_: Exit) -> None:
            shutil.rmtree(home, ignore_errors=True)
            on_exit(exit_)

        return WorkerClient(
            child_command(self.settings.worker, *arguments),
            env=environment,
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

    def _tick_models(self) -> None:
        for model in list(self._models.values()):
            due = model.tick()
            if due is not None:
                self._clock.wake(due)
        if (due := self._spares.tick()) is not None:
            self._clock.wake(due)

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.stats(), self.requests())


def _no_model() -> NoReturn:
    raise PredictionExpired("This answer is no longer kept. Ask again.")


def _memory_policy(limits: EngineLimits) -> Policy:
    """0 in the settings is no limit."""
    return Policy(limits.memory_budget_mb * 1_000_000 or None, limits.unload_idle_s or None)


def _checked_precision(precision: str | None) -> str | None:
    """Raises Malformed."""
    if precision not in (None, *PRECISIONS):
        raise Malformed(f"The precision {precision!r} is none of {', '.join(PRECISIONS)}.")
    return precision


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


def _audio_preview(reply: Reply) -> AudioPreview:
    import numpy as np  # here, so that a window that has no model yet does without

    result, buffers = reply
    low, high = (np.frombuffer(buffer, "<f4") for buffer in buffers)
    if len(low) != len(high):
        raise UnusableInput("This recording could not be shown.")
    return AudioPreview(
        float(result["seconds"]),
        int(result["rate"]),
        int(result["channels"]),
        tuple(low.tolist()),
        tuple(high.tolist()),
    )


def _table_preview(reply: Reply) -> TablePreview:
    result, _ = reply
    return TablePreview(
        tuple(str(c) for c in result["columns"]),
        tuple(tuple(str(v) for v in row) for row in result["rows"]),
        int(result["total_rows"]),
    )
