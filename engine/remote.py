"""The engine's face in a process that does not hold it: :class:`EngineClient` asks the host of a folder.

Any number of processes may have one: web workers of one application, a second program. A process that was forked
connects anew. Where the host is gone, what was under way fails with :class:`EngineLost` at once; the next call finds or
starts another host and makes the models known to it again that this client had opened.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from engine.errors import EngineClosed, EngineError, EngineLost
from engine.events import Event, EventBus
from engine.futures import reject, resolve
from engine.golden import GoldenReport, GoldenSample
from engine.host import IDLE_S
from engine.host_channel import close_all, connect
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
from engine.protocol import Message, ProtocolError, read_frame, write_frame
from engine.remote_values import pack, unpack
from engine.serving_types import RequestRecord
from engine.settings import EngineLimits, Settings, SettingsStore

log = logging.getLogger(__name__)

START_S = 60.0
"""How long a host may take from its start until it answers."""
REPLY_S = 60.0
"""How long an answer that needs no model may take (``stats``, ``offer``)."""
_PAUSE_S = 0.02
_ROOT = Path(__file__).resolve().parents[1]


class EngineClient:
    """See :class:`engine.ports.EnginePort` for the face. ``folder`` is the engine's; ``settings`` are those of a host
    that is started for it (the settings file's, where none are given). Thread-safe, and safe across forks.

    ``stats``, ``offer``, ``cancel``, ``requests`` and the id of a load's ticket ask the host and wait for its reply,
    some tenths of a millisecond.
    """

    def __init__(self, folder: Path, settings: Settings | None = None, *, idle_s: float = IDLE_S) -> None:
        self.folder = folder.expanduser().absolute()
        self.settings = settings or SettingsStore().load()
        self._idle_s = idle_s
        self._ids = itertools.count(1)
        self._opened: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {}
        """Loads and offers of this client by model id: what a new host is told again."""
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """A fresh state, also after a fork: what is inherited belongs to the parent."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._bus = EventBus()
        self._listeners = 0
        self._link: _Link | None = None

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the face --------------------------------------------------------------------------------------------------
    def load(
        self,
        source: str | Path | ModelSpec,
        device: str | None = None,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
    ) -> LoadTicket:
        return self._load("load", _whole(source), device, trust, runtime, precision)

    def offer(
        self,
        path: str | Path | ModelSpec,
        device: str | None = None,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
    ) -> str:
        arguments = (_whole(path), device, trust, runtime, precision)
        model_id = str(self._now("offer", *arguments))
        self._opened[model_id] = ("offer", arguments, {})
        return model_id

    def reload(
        self, model_id: str, trust: bool = False, device: str | None = None, precision: str | None = None
    ) -> LoadTicket:
        return self._load("reload", model_id, trust, device, precision)

    def rollback(self, model_id: str) -> Future[dict[str, Any]]:
        return self._later("rollback", model_id)

    def unload(self, model_id: str) -> Future[None]:
        self._opened.pop(model_id, None)
        return self._later("unload", model_id)

    def predict(self, request: PredictRequest) -> Future[Prediction]:
        return self._later("predict", request)

    def pin(self, model_id: str, pinned: bool) -> None:
        self._now("pin", model_id, pinned)

    def keep_spares(self, model: str | Path | None = None) -> None:
        self._now("keep_spares", model)

    def limit(self, limits: EngineLimits) -> None:
        """For everybody who shares the engine, and for a host that is started for this client later."""
        with self._lock:  # sent in the order in which they are kept
            self.settings = self.settings.model_copy(update={"limits": limits})
            told = self._later("limit", limits)
        told.result(REPLY_S)

    def cancel(self, request_id: str) -> bool:
        return bool(self._now("cancel", request_id))

    def requests(self) -> tuple[RequestRecord, ...]:
        found: tuple[RequestRecord, ...] = self._now("requests")
        return found

    def refine(self, prediction_id: str, params: dict[str, Any]) -> Future[Prediction]:
        return self._later("refine", prediction_id, params)

    def golden_sample(self, model_id: str) -> Future[GoldenSample | None]:
        return self._later("golden_sample", model_id)

    def check_golden(self, model_id: str) -> Future[GoldenReport]:
        return self._later("check_golden", model_id)

    def keep_golden(self, prediction_id: str) -> Future[GoldenReport]:
        return self._later("keep_golden", prediction_id)

    def forget_golden(self, model_id: str) -> Future[None]:
        return self._later("forget_golden", model_id)

    def record_golden(self, model_id: str, report: GoldenReport) -> None:
        self._now("record_golden", model_id, report)

    def save_sidecar(self, model_id: str, changes: Mapping[str, Any]) -> Future[Path]:
        return self._later("save_sidecar", model_id, dict(changes))

    def try_conventions(self, model_id: str, data: bytes, content_type: str | None = None) -> Future[list[Convention]]:
        return self._later("try_conventions", model_id, data, content_type)

    def apply_preprocessing(self, model_id: str, changes: Mapping[str, Any]) -> Future[ModelSpec]:
        return self._later("apply_preprocessing", model_id, dict(changes))

    def inspect(self, path: str | Path) -> Future[ModelSpec]:
        return self._later("inspect", _whole(path))

    def preview_image(self, source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        return self._later("preview_image", _whole(source), max_side)

    def preview_table(self, source: bytes | Path, max_rows: int = 1000) -> Future[TablePreview]:
        return self._later("preview_table", _whole(source), max_rows)

    def preview_audio(self, source: bytes | Path, points: int = 1000) -> Future[AudioPreview]:
        return self._later("preview_audio", _whole(source), points)

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self._now("stats")
        return found

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        link = self._linked()
        leave = self._bus.subscribe(listener)
        with self._lock:
            self._listeners += 1
            if self._listeners == 1:
                link.send({"type": "subscribe"})
        left = threading.Event()

        def end() -> None:
            leave()
            if left.is_set() or os.getpid() != self._pid:
                return
            left.set()
            with self._lock:
                self._listeners -= 1
                if not self._listeners and self._link is not None:
                    self._link.send({"type": "unsubscribe"})

        return end

    def close(self) -> None:
        """Leave; the host goes on for others, and ends when nobody is left."""
        if os.getpid() != self._pid:
            self._begin()
        with self._lock:
            self._closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close(hear_out=self._listeners > 0)

    # -- asking ----------------------------------------------------------------------------------------------------
    def _load(self, op: str, *arguments: Any) -> LoadTicket:
        number = next(self._ids)
        future: Future[dict[str, Any]] = Future()
        named: Future[str] = Future()
        try:
            link = self._linked()
            link.ask(number, op, arguments, future, named)
            model_id = named.result(REPLY_S)
        except EngineError as error:
            failed: Future[dict[str, Any]] = Future()
            failed.set_exception(error)
            return LoadTicket("", failed, lambda: None)
        if op == "load":
            self._opened[model_id] = ("offer", arguments, {})
        return LoadTicket(model_id, future, lambda: link.send({"type": "cancel", "id": number}))

    def _later(self, op: str, *arguments: Any) -> Future[Any]:
        number = next(self._ids)
        future: Future[Any] = Future()
        try:
            link = self._linked()
            link.ask(number, op, arguments, future)
        except EngineError as error:
            reject(future, error)
            return future
        except TypeError as error:
            reject(future, _unsendable(error))
            return future

        def on_done(done: Future[Any]) -> None:
            if done.cancelled():
                link.send({"type": "cancel", "id": number})

        future.add_done_callback(on_done)
        return future

    def _now(self, op: str, *arguments: Any) -> Any:
        return self._later(op, *arguments).result(REPLY_S)

    def _linked(self) -> _Link:
        """The connection, made where there is none. Raises EngineClosed, EngineLost (no host can be started)."""
        if os.getpid() != self._pid:
            inherited = self._link
            self._begin()
            if inherited is not None:
                inherited.forget()
        with self._lock:
            if self._closed:
                raise EngineClosed()
            if self._link is not None and self._link.alive:
                return self._link
            link = _Link(self._reach(), self._bus)
            self._link = link
            if self._listeners:
                link.send({"type": "subscribe"})
            for op, arguments, _ in list(self._opened.values()):
                link.ask(next(self._ids), op, arguments, Future())
            return link

    def _reach(self) -> socket.socket:
        """A connection to a host, started where there is none."""
        deadline = time.monotonic() + START_S
        started: subprocess.Popen[bytes] | None = None
        while True:
            try:
                return connect(self.folder)
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise EngineLost("The engine's process could not be started.", details=str(error)) from error
            # One that ends without being reachable had lost the lock to another, which then answers, or ends itself.
            if started is None or started.poll() is not None:
                started = self._start()
            time.sleep(_PAUSE_S)

    def _start(self) -> subprocess.Popen[bytes]:
        options = {"settings": self.settings.model_dump(mode="json"), "idle_s": self._idle_s}
        command = [sys.executable, "-P", "-m", "engine.host", str(self.folder), orjson.dumps(options).decode()]
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH", "")]))
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "host.log").open("ab") as log_file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log_file, env=environment,
                cwd=self.folder, **_apart(),
            )  # fmt: skip
        # It may outlive us; where it does not, somebody has to take note of its end.
        threading.Thread(target=process.wait, name="engine-host-end", daemon=True).start()
        return process


class _Link:
    """One connection to a host: sends calls, and settles their futures as the replies come."""

    def __init__(self, connection: socket.socket, bus: EventBus) -> None:
        self._connection = connection
        self._bus = bus
        self._sending = threading.Lock()
        self._stream = connection.makefile("wb")
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[Future[Any], Future[str] | None]] = {}
        self._heard = threading.Event()
        self.alive = True
        self._reader = threading.Thread(target=self._read, name="engine-client", daemon=True)
        self._reader.start()

    def ask(
        self,
        number: int,
        op: str,
        arguments: tuple[Any, ...],
        future: Future[Any],
        named: Future[str] | None = None,
    ) -> None:
        """Raises TypeError for arguments that cannot be sent. ``named`` resolves to the model's id of a load."""
        packed, buffers = pack((list(arguments), {}))
        with self._lock:
            lost = not self.alive
            if not lost:
                self._waiting[number] = (future, named)
        if lost:
            self._fail(future, named)
            return
        self.send({"type": "call", "id": number, "op": op} | packed, buffers)

    def send(self, header: dict[str, Any], buffers: Any = ()) -> None:
        try:
            with self._sending:
                write_frame(self._stream, header, buffers)
        except (OSError, ValueError):
            log.debug("the engine's process is gone")  # the reading thread says so to whoever waits

    def close(self, *, hear_out: bool = False) -> None:
        """``hear_out``: events that are on their way reach their listeners first."""
        if hear_out and threading.current_thread() is not self._reader:
            self.send({"type": "bye"})
            self._heard.wait(5.0)
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("the engine's process was gone already")
        if threading.current_thread() is not self._reader:
            self._reader.join(5.0)

    def forget(self) -> None:
        """After a fork: close this process's copy of the connection; the parent's stays as it is."""
        os.close(self._connection.detach())

    def _read(self) -> None:
        stream = io.BufferedReader(self._connection.makefile("rb", buffering=0), 1 << 16)
        try:
            while (message := read_frame(stream)) is not None:
                self._take(message)
        except (ProtocolError, OSError) as error:
            log.debug("the connection to the engine's process ended: %s", error)
        finally:
            self._heard.set()
            with self._lock:
                self.alive = False
                waiting, self._waiting = list(self._waiting.values()), {}
            for future, named in waiting:
                self._fail(future, named)
            close_all(stream, self._stream, self._connection)

    def _take(self, message: Message) -> None:
        header = message.header
        value = unpack(header, iter(message.buffers))
        if message.type == "event":
            self._bus.publish(value)
            return
        if message.type == "bye":
            self._heard.set()
            return
        number = header.get("id")
        if not isinstance(number, int):
            raise ProtocolError("a reply to nothing")
        if message.type == "ticket":
            with self._lock:
                _, named = self._waiting.get(number, (None, None))
            if named is not None:
                resolve(named, str(header.get("model_id", "")))
            return
        with self._lock:
            future, named = self._waiting.pop(number, (None, None))
        if future is None:
            return
        if header.get("cancelled"):
            future.cancel()
        elif header.get("failed"):
            if named is not None and not named.done():
                reject(named, value)
            reject(future, value)
        else:
            resolve(future, value)

    @staticmethod
    def _fail(future: Future[Any], named: Future[str] | None) -> None:
        error = EngineLost("The engine's process has ended. Ask again.")
        if named is not None and not named.done():
            reject(named, error)
        reject(future, error)


def _whole(source: Any) -> Any:
    """A path as the host, whose folder is another, understands it."""
    if isinstance(source, str | Path):
        return Path(source).expanduser().absolute()
    return source


def _unsendable(error: TypeError) -> EngineError:
    from engine.errors import Malformed

    return Malformed(f"The input cannot be sent to the engine: {error}.")


def _apart() -> dict[str, Any]:
    """Popen arguments of a process that goes on when its starter is interrupted."""
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}
