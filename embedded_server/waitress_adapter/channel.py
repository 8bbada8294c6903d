"""One connection: JSON answers to what the parser refuses, Connection: close while draining, and a lingering close."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import build_http_date

from embedded_server.access import DECIDING, LOOPBACK_PEERS, Decision, normal_peer, target_path
from embedded_server.body_budget import BodyBudget
from embedded_server.door import DECISION, json_headers, new_request_id, status_line
from embedded_server.errors import door_error
from embedded_server.protocols.shapes import shaped
from embedded_server.waitress_adapter.parsing import RequestTimeout, StrictParser
from engine.prediction import Lane

if TYPE_CHECKING:
    from embedded_server.waitress_adapter.server import DrainableServer

LINGER_S = 5.0
QUIET_S = 0.25
"""A connection silent for this long has nothing on its way to us that it would miss."""

BODY_GRACE_S = 5.0
"""So long after its head a body may come as slowly as it likes."""

_DECIDING = tuple((name, name.upper().replace("-", "_")) for name in DECIDING)
"""Header fields, and what waitress's parser calls them."""

ONE_WRITE = 1 << 16
"""Bytes of a body that is sent together with its head."""

_NAME = itemgetter(0)
_http_date = lru_cache(4)(build_http_date)
"""By whole seconds of Unix time."""

_CODES = {
    400: "malformed",
    408: "too_slow",
    413: "body_too_large",
    414: "uri_too_long",
    431: "headers_too_large",
    501: "not_implemented",
    503: "busy",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a client may send and read. Times in seconds; ``bytes_per_s`` is what a body and an answer have to
    make on average, a body after :data:`BODY_GRACE_S`, an answer after ``reply_s``."""

    head_s: float = 10.0
    body_s: float = 60.0
    reply_s: float = 30.0
    bytes_per_s: int = 16 << 10


@lru_cache(64)
def _capitalized(name: str) -> str:
    """The name of a field of an answer as waitress writes it. The application names them, not the client."""
    return "-".join([word.capitalize() for word in name.split("-")])


def peer_lane(address: str) -> Lane:
    return Lane.LOOPBACK if normal_peer(address) in LOOPBACK_PEERS else Lane.LAN


class JsonErrorTask(ErrorTask):
    """Answers what waitress itself refuses in our envelope; waitress would answer text/plain."""

    channel: Channel

    def execute(self) -> None:
        failure: Any = self.request.error  # type: ignore[attr-defined]  # the stub names the wrong class
        answer = door_error(_CODES.get(failure.code, "internal"))
        request_id = new_request_id()
        peer = self.channel.peer
        self.channel.http_server.refused(request_id, answer.code, peer)
        asked: Any = self.request  # a head that was no head has neither method nor target
        target = target_path(getattr(asked, "request_uri", "/"))
        answer, body = shaped(getattr(asked, "command", "GET"), target, answer, request_id)
        self.status = status_line(answer.status)
        self.response_headers = json_headers(answer, body)
        self.set_close_on_finish()
        self.content_length = len(body)
        # An answer to HEAD has no body (RFC 9110 §9.3.2): a client would take it for the next answer.
        self.write(b"" if getattr(asked, "command", "") == "HEAD" else body)


class ClosingTask(WSGITask):
    """Says ``Connection: close`` in every answer from the moment the server drains, and where the body was not read.

    What the door said to a head goes into the environment: the application asks it only about what was let in.
    """

    channel: Channel

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        if (refused := _refused(self.request)) is not None:
            environ[DECISION] = refused
        return environ

    def build_response_header(self) -> bytes:
        if self.channel.http_server.draining or _refused(self.request) is not None:
            self.set_close_on_finish()
        return self._short_header() or super().build_response_header()

    def _short_header(self) -> bytes:
        """What waitress would make, for an answer of a known length in HTTP/1.1; empty, and nothing is touched, for
        every other."""
        if self.version != "1.1" or self.channel.adj.ident or not self.has_body:
            return b""
        fields = [(_capitalized(name), value) for name, value in self.response_headers]
        names = {name for name, _ in fields}
        if "Content-Length" not in names or "Date" in names or "Server" in names:
            return b""
        self.response_headers = fields
        request: Any = self.request
        if request.headers.get("CONNECTION", "").lower() == "close":
            self.set_close_on_finish()
        fields.append(("Date", _http_date(int(self.start_time))))
        lines = "".join([f"{name}: {value}\r\n" for name, value in sorted(fields, key=_NAME)])
        return f"HTTP/1.1 {self.status}\r\n{lines}\r\n".encode("latin-1")

    def write(self, data: bytes) -> None:
        """Head and body in one piece, where that is not long: one call of the system, and one wake-up of the client."""
        length = self.content_length
        if self.wrote_header or not self.complete or length is None or not 0 < len(data) <= min(length, ONE_WRITE):
            super().write(data)
            return
        head = self.build_response_header()
        self.wrote_header = True
        if not self.has_body or self.chunked_response:
            self.channel.write_soon(head)
            super().write(data)
            return
        self.content_bytes_written = len(data)
        self.channel.write_soon(head + data)


class ReplyTask(ClosingTask):
    """Writes an answer that is there: ``ready`` is its status line, headers and body."""

    ready: tuple[str, list[tuple[str, str]], bytes]

    def execute(self) -> None:
        self.status, self.response_headers, body = self.ready
        self.complete = True
        self.content_length = len(body)
        if len(body) > ONE_WRITE:
            self.write(body)
            return
        head = self.build_response_header()
        self.wrote_header = True
        self.channel.write_soon(head + body)


def _refused(request: Any) -> Decision | None:
    return request.refused if isinstance(request, StrictParser) else None


class Channel(HTTPChannel):
    """waitress's channel with our parser and tasks.

    After a refusal in mid-upload the connection is closed for writing only, and what still arrives is thrown away for
    at most :data:`LINGER_S` seconds: closing with unread bytes resets the connection, and the client never reads why.
    """

    error_task_class = JsonErrorTask

    _refused = False
    requests: list[StrictParser]
    requests_lock: threading.Lock
    _linger_until: float | None = None
    _newest: StrictParser | None = None
    _since = 0.0
    _phase = ""
    _reply_since: float | None = None
    _reply_sent = 0
    _sent = 0

    def parser_class(self, adj: Adjustments) -> StrictParser:  # type: ignore[override]  # called like the class
        self._newest = StrictParser(adj, self)
        return self._newest

    def task_class(self, channel: Channel, request: Any) -> ClosingTask:  # type: ignore[override]  # as above
        return ClosingTask(channel, request) if request.ride is None else request.ride.task

    # -- what the parser asks ---------------------------------------------------------------------------------------
    def check(self, request: StrictParser) -> Decision:
        head: Any = request
        headers = [(name, head.headers[key]) for name, key in _DECIDING if key in head.headers]
        return self.http_server.check(head.command, head.request_uri, headers, self.peer)

    @property
    def budget(self) -> BodyBudget:
        return self.http_server.budget

    def received(self, data: bytes) -> bool:
        if self._newest is not None and self._newest.ends_connection:
            return False  # of the body of what was refused, or of what nobody can tell from it
        return bool(super().received(data))

    @property
    def http_server(self) -> DrainableServer:
        server: Any = self.server
        return server  # type: ignore[no-any-return]

    @property
    def peer(self) -> str:
        address: Any = self.addr
        return str(address[0])

    def is_busy(self, now: float) -> bool:
        """Whether an answer is owed, or was or a request might be on its way. ``now`` is Unix time in seconds."""
        if self._linger_until is not None:
            return False
        if self.requests or self.total_outbufs_len:
            return True
        return abs(now - self.last_activity) < (QUIET_S if self.request is None else 4 * QUIET_S)

    def has_unread(self) -> bool:
        """Whether bytes of the client wait in the socket."""
        if self.socket is None:
            return False
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def service(self) -> None:
        self._refused = self.requests[0].error is not None or _refused(self.requests[0]) is not None
        super().service()

    def send(self, data: bytes, do_close: bool = True) -> int:
        # Closed by the loop's next round, not here: waitress says 100 Continue under the lock that closing takes.
        sent = int(super().send(data, False))
        self._sent += sent
        return sent

    def write_soon(self, data: Any) -> int:
        """As waitress's. What is short goes to the socket at once where nothing waits before it: lying in a buffer it
        would send the loop round and round until this thread has sent it."""
        with self.outbuf_lock:
            if self.total_outbufs_len or not self.connected or type(data) is not bytes or len(data) > ONE_WRITE:
                return int(super().write_soon(data))
            try:
                sent = self.send(data, False)
            except OSError:
                sent = 0  # it is tried again, and waitress sees the error itself
            self.last_activity = time.time()
            return sent + (int(super().write_soon(data[sent:])) if sent < len(data) else 0)

    def _flush_some(self, do_close: bool = True) -> bool:
        # waitress's loop flushes without the lock where no request is under way, and so, at that moment, may the thread
        # that says 100 Continue to the next one: both would send the same bytes.
        with self.outbuf_lock:
            return bool(super()._flush_some(do_close=do_close))  # type: ignore[misc]  # the stub lacks it

    def handle_close(self) -> None:
        with self.requests_lock:
            unfinished, self.request = self.request, None
        if unfinished is not None:
            unfinished.close()
        super().handle_close()
        for request in self.requests[:1]:
            if request.ride is not None:
                request.ride.client_left()

    # -- clients that take their time ---------------------------------------------------------------------------------
    def keep_pace(self, now: float, pace: Pace) -> None:
        """End what is too slow. On the loop's thread, outside of its readable() round; ``now`` is monotonic.

        A request that is on its way is answered 408, an answer that is not read is cut off.
        """
        if self._linger_until is not None:
            if now > self._linger_until:
                self.handle_close()
        elif self._reads_too_slowly(now, pace):
            self.handle_close()
        elif self._sends_too_slowly(now, pace):
            self._time_out()

    def _reads_too_slowly(self, now: float, pace: Pace) -> bool:
        if not self.total_outbufs_len:
            self._reply_since = None
            return False
        if self._reply_since is None:
            self._reply_since, self._reply_sent = now, self._sent
        waited = now - self._reply_since
        return waited > pace.reply_s and self._sent - self._reply_sent < waited * pace.bytes_per_s

    def _sends_too_slowly(self, now: float, pace: Pace) -> bool:
        with self.requests_lock:
            request, busy = self.request, bool(self.requests)
            phase = "" if request is None or busy else "body" if request.headers_finished else "head"
            if phase != self._phase:
                self._phase, self._since = phase, now
            if not phase or request is None:
                return False
            waited = now - self._since
            if phase == "head":
                return waited > pace.head_s
            slow = request.body_bytes_received < (waited - BODY_GRACE_S) * pace.bytes_per_s
            return waited > pace.body_s or slow

    def _time_out(self) -> None:
        with self.requests_lock:
            request, self.request = self.request, None
            if not isinstance(request, StrictParser):
                return
            request.fail(RequestTimeout("too slow"))
            self.sent_continue = False
            self.requests.append(request)
            server: Any = self.server
            server.add_task(self)

    def handle_write(self) -> None:
        if not (self._refused and self.close_when_flushed):
            super().handle_write()
            return
        self._flush_exception(self._flush_some)  # type: ignore[attr-defined]  # private, held by the contract test
        if self.will_close:
            self.handle_close()
        elif not self.total_outbufs_len:
            self._linger()

    def _linger(self) -> None:
        self.close_when_flushed = False
        self._linger_until = time.monotonic() + LINGER_S
        # On this one alone: every channel is asked in every round of the loop.
        self.readable = lambda: True  # type: ignore[method-assign]
        try:
            if self.socket is not None:
                self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.handle_close()

    def handle_read(self) -> None:
        if self._linger_until is None:
            super().handle_read()
            return
        try:
            data = self.recv(self.adj.recv_bytes)  # closes the channel itself at the end of input
        except OSError:
            self.handle_close()
            return
        if data and time.monotonic() > self._linger_until:
            self.handle_close()
