"""The process that holds the one engine of a folder: ``python -m engine.host FOLDER SETTINGS``.

Whoever finds no host starts one (:class:`engine.remote.EngineClient`). The folder's lock lets only one of them be; the
others end at once. It answers every process of this user that asks for the folder, and ends when nobody has been
connected for a while. So the model belongs to no web worker: those may be forked, reloaded and killed.

Frames are those of :mod:`engine.protocol`. From a client: ``call`` (id, op, args), ``cancel`` (id), ``subscribe``,
``unsubscribe``, ``bye``. To it: ``ticket`` (id, model_id) for a load, ``reply`` (id, result | error), ``event``, and
``bye`` once it has all events so far; what they hold is packed by :mod:`engine.remote_values`.
"""

from __future__ import annotations

import io
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import orjson

from engine.engine import Engine
from engine.errors import Malformed
from engine.folder_lock import try_lock
from engine.host_channel import Listener, close_all
from engine.prediction import LoadTicket
from engine.protocol import Message, ProtocolError, read_frame, write_frame
from engine.remote_values import as_engine_error, pack, unpack
from engine.settings import Settings

log = logging.getLogger(__name__)

LOCK_FILE = "engine.lock"
IDLE_S = 10.0
"""How long a host without a client waits for the next one."""
OPERATIONS = frozenset(
    {
        "load", "offer", "reload", "rollback", "unload", "predict", "refine", "cancel", "requests", "stats", "inspect",
        "pin", "limit", "keep_spares",
        "golden_sample", "check_golden", "keep_golden", "forget_golden", "record_golden", "save_sidecar",
        "try_conventions", "apply_preprocessing", "preview_image", "preview_table", "preview_audio",
    }
)  # fmt: skip
"""What a client may call: the engine's face but for ``subscribe`` and ``close``."""


class EngineHost:
    """Answers clients on ``listener`` until :meth:`close`, or until nobody has been connected for ``idle_s``."""

    def __init__(self, engine: Engine, listener: Listener, idle_s: float = IDLE_S) -> None:
        self._engine = engine
        self._listener = listener
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._clients: set[_Client] = set()
        self._closing = False
        self._idle_since = time.monotonic()
        self._accepting = threading.Thread(target=self._accept, name="host-accept", daemon=True)

    def run(self) -> None:
        """Serve; returns when it is over."""
        self._accepting.start()
        with self._changed:
            while not self._closing:
                left = self._idle_s - (time.monotonic() - self._idle_since) if not self._clients else None
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
        self._listener.close()
        with self._changed:
            clients = list(self._clients)
        for client in clients:
            client.close()

    def close(self) -> None:
        """End :meth:`run`. May be called from a signal's handler's thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                caller = self._listener.accept()
            except OSError:
                return
            if caller is None:
                continue
            client = _Client(caller, self._engine, self._left)
            with self._changed:
                self._clients.add(client)
            client.start()

    def _left(self, client: _Client) -> None:
        with self._changed:
            self._clients.discard(client)
            self._idle_since = time.monotonic()
            self._changed.notify_all()


class _Client:
    """One connection: reads calls on a thread of its own, answers as the futures settle."""

    def __init__(self, connection: socket.socket, engine: Engine, on_left: Callable[[_Client], None]) -> None:
        self._connection = connection
        self._engine = engine
        self._on_left = on_left
        self._sending = threading.Lock()
        self._stream = connection.makefile("wb")
        self._lock = threading.Lock()
        self._calls: dict[int, Future[Any]] = {}
        self._tickets: dict[int, LoadTicket] = {}
        self._leave: Callable[[], None] = lambda: None

    def start(self) -> None:
        threading.Thread(target=self._read, name="host-client", daemon=True).start()

    def close(self) -> None:
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("a client was gone already")

    def _read(self) -> None:
        stream = io.BufferedReader(self._connection.makefile("rb", buffering=0), 1 << 16)
        try:
            while (message := read_frame(stream)) is not None:
                self._take(message)
        except (ProtocolError, OSError) as error:
            log.debug("a client's connection ended: %s", error)
        finally:
            self._leave()
            with self._lock:
                calls = list(self._calls.values())
            for future in calls:
                future.cancel()  # nobody waits for it any more; loads go on, they belong to everybody
            close_all(stream, self._stream, self._connection)
            self._on_left(self)

    def _take(self, message: Message) -> None:
        header = message.header
        if message.type == "call":
            self._call(message)
        elif message.type == "cancel":
            with self._lock:
                future, ticket = self._calls.get(header["id"]), self._tickets.get(header["id"])
            if ticket is not None:
                ticket.cancel()
            elif future is not None:
                future.cancel()
        elif message.type == "subscribe":
            self._leave()
            self._leave = self._engine.subscribe(lambda event: self._send({"type": "event"}, event))
        elif message.type == "unsubscribe":
            self._leave()
        elif message.type == "bye":
            self._engine.after_events(lambda: self._send({"type": "bye"}, None))
        else:
            raise ProtocolError(f"a host knows no message {message.type!r}")

    def _call(self, message: Message) -> None:
        number, op = message.header.get("id"), message.header.get("op")
        if not isinstance(number, int) or op not in OPERATIONS:
            raise ProtocolError(f"a call that is none: {op!r}")
        args, kwargs = unpack(message.header, iter(message.buffers))
        try:
            result = getattr(self._engine, op)(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller reads it
            self._reply(number, error=error)
            return
        if isinstance(result, LoadTicket):
            with self._lock:
                self._tickets[number] = result
            self._send({"type": "ticket", "id": number, "model_id": result.model_id}, None)
            result = result.future
            result.add_done_callback(lambda _: self._tickets.pop(number, None))
        elif isinstance(result, Future):
            with self._lock:
                self._calls[number] = result
            result.add_done_callback(lambda _: self._calls.pop(number, None))
        if isinstance(result, Future):
            result.add_done_callback(lambda done: self._settle(number, done))
        else:
            self._reply(number, result)

    def _settle(self, number: int, done: Future[Any]) -> None:
        if done.cancelled():
            self._send({"type": "reply", "id": number, "cancelled": True}, None)
        elif (error := done.exception()) is not None:
            self._reply(number, error=error)
        else:
            self._reply(number, done.result())

    def _reply(self, number: int, result: Any = None, error: BaseException | None = None) -> None:
        if error is not None:
            self._send({"type": "reply", "id": number, "failed": True}, as_engine_error(error))
        else:
            self._send({"type": "reply", "id": number}, result)

    def _send(self, header: dict[str, Any], value: Any) -> None:
        try:
            packed, buffers = pack(value)
        except TypeError as error:
            packed, buffers = pack(Malformed(str(error)))
            header = header | {"failed": True}
        try:
            with self._sending:
                write_frame(self._stream, header | packed, buffers)
        except (OSError, ValueError) as error:
            log.debug("a client no longer reads: %s", error)


def main(folder: Path, settings: Settings, idle_s: float) -> int:
    """0 once it is over; 0 as well, at once, where another host has the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if try_lock(folder / LOCK_FILE) is None:
        return 0
    listener = Listener(folder)
    with Engine(settings, folder=folder) as engine:
        host = EngineHost(engine, listener, idle_s)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=host.close, daemon=True).start())
        host.run()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    _options = orjson.loads(sys.argv[2])
    raise SystemExit(main(Path(sys.argv[1]), Settings.model_validate(_options["settings"]), float(_options["idle_s"])))
