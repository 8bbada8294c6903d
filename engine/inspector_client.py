"""The parent's end of the inspector child: one call at a time, each bounded; a file that kills it costs one answer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from engine.errors import EngineClosed, ModelCorrupt, UnusableInput, error_from_code
from engine.futures import reject, resolve
from engine.protocol import Buffer, Limits, Message
from engine.worker_client import Exit, WorkerClient

Reply = tuple[dict[str, Any], list[Buffer]]
StartChild = Callable[[Callable[[Message], None], Callable[[Exit], None], Limits], WorkerClient]

_LIMITS = Limits(header_bytes=64 << 20, buffers=4, total_bytes=600 << 20)


@dataclass(slots=True, eq=False)
class _Call:
    id: int
    op: str
    args: dict[str, Any]
    buffers: Sequence[Buffer]
    timeout_s: float
    future: Future[Reply] = field(default_factory=Future)
    timer: threading.Timer | None = None


class InspectorClient:
    """Thread-safe. The child is started with the first call, and again after one that killed it."""

    def __init__(self, start_child: StartChild) -> None:
        self._start_child = start_child
        self._lock = threading.Lock()
        self._line: deque[_Call] = deque()
        self._current: _Call | None = None
        self._child: WorkerClient | None = None
        self._ids = 0
        self._closed = False

    @property
    def pid(self) -> int | None:
        child = self._child
        return child.pid if child else None

    def call(self, op: str, args: dict[str, Any], buffers: Sequence[Buffer] = (), *, timeout_s: float) -> Future[Reply]:
        """One call. The future raises what the inspector said, or says that the file could not be read in time.

        Cancelling the future takes the call out of line; one that runs is ended with the child.
        """
        with self._lock:
            self._ids += 1
            call = _Call(self._ids, op, args, buffers, timeout_s)
            if self._closed:
                call.future.set_exception(EngineClosed())
                return call.future
            self._line.append(call)
        call.future.add_done_callback(lambda future: self._on_done(call))
        self._next()
        return call.future

    def close(self) -> None:
        """End the child; calls in line get EngineClosed. Idempotent."""
        with self._lock:
            self._closed = True
            waiting = [*([self._current] if self._current else []), *self._line]
            self._line.clear()
            child, self._child = self._child, None
        for call in waiting:
            reject(call.future, EngineClosed())
        if child is not None:
            child.close(grace_s=1.0)

    # -- inside ----------------------------------------------------------------------------------------------------
    def _next(self) -> None:
        with self._lock:
            if self._current is not None or self._closed:
                return
            while self._line:
                call = self._line.popleft()
                if call.future.done():
                    continue
                self._current = call
                break
            else:
                return
            try:
                if self._child is None:
                    self._child = self._start_child(self._on_message, self._on_exit, _LIMITS)
                child = self._child
            except OSError as error:
                self._current = None
                failed: OSError | None = error
            else:
                failed = None
                call.timer = threading.Timer(call.timeout_s, self._on_timeout, (call,))
                call.timer.name = "inspector-timeout"
                call.timer.daemon = True
                call.timer.start()
                child.send({"type": "call", "id": call.id, "op": call.op, "args": call.args}, call.buffers)
        if failed is not None:
            reject(call.future, ModelCorrupt(f"The inspector could not be started: {failed.strerror or failed}."))
            self._next()

    def _on_done(self, call: _Call) -> None:
        if call.timer is not None:
            call.timer.cancel()
        with self._lock:
            is_current = call is self._current
            child = self._child
        if is_current and call.future.cancelled() and child is not None:
            child.kill("Its call was cancelled.")

    def _on_timeout(self, call: _Call) -> None:
        with self._lock:
            child = self._child if call is self._current else None
        if child is not None:
            child.kill(f"Reading took longer than {call.timeout_s:.0f} s.")

    def _on_message(self, message: Message) -> None:
        header = message.header
        with self._lock:
            call = self._current
            if call is None or message.type != "reply" or header.get("id") != call.id:
                child, call = self._child, None
            else:
                child, self._current = None, None
        if call is None:
            if child is not None:
                child.kill("The inspector answered what nobody asked.")
            return
        error = header.get("error")
        if isinstance(error, dict):
            reply = error_from_code(
                str(error.get("code", "internal")), str(error.get("message", "")), str(error.get("details", ""))
            )
            reject(call.future, reply)
        elif isinstance(header.get("result"), dict):
            resolve(call.future, (header["result"], message.buffers))
        else:
            reject(call.future, ModelCorrupt("The inspector's answer could not be read."))
        self._next()

    def _on_exit(self, exit_: Exit) -> None:
        with self._lock:
            call, self._current = self._current, None
            self._child = None
        if call is not None:
            sentence = exit_.reason if exit_.reason.startswith("Reading took") else "Reading it ended the inspector."
            cls = ModelCorrupt if call.op == "inspect" else UnusableInput
            name = str(call.args.get("path", "")).rsplit("/", 1)[-1].rsplit("\\", 1)[-1]
            reject(call.future, cls(f"{name or 'This file'} could not be read. {sentence}", details=exit_.last_words))
        self._next()
