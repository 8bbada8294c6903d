"""One connection: JSON answers to what the parser refuses, Connection: close while draining, and a lingering close."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask

from embedded_server.access import LOOPBACK_PEERS, normal_peer
from embedded_server.door import json_headers, new_request_id, status_line
from embedded_server.errors import door_error
from embedded_server.waitress_adapter.parsing import StrictParser
from engine.prediction import Lane

if TYPE_CHECKING:
    from embedded_server.waitress_adapter.server import DrainableServer

LINGER_S = 5.0
QUIET_S = 0.25
"""A connection silent for this long has nothing on its way to us that it would miss."""

_CODES = {400: "malformed", 413: "body_too_large", 431: "headers_too_large", 501: "not_implemented"}


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
        body = answer.body(request_id)
        self.status = status_line(answer.status)
        self.response_headers = json_headers(answer, body)
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class ClosingTask(WSGITask):
    """Says ``Connection: close`` in every answer from the moment the server drains."""

    channel: Channel

    def build_response_header(self) -> bytes:
        if self.channel.http_server.draining:
            self.set_close_on_finish()
        return super().build_response_header()


class Channel(HTTPChannel):
    """waitress's channel with our parser and tasks.

    After a refusal in mid-upload the connection is closed for writing only, and what still arrives is thrown away for
    at most :data:`LINGER_S` seconds: closing with unread bytes resets the connection, and the client never reads why.
    """

    task_class = ClosingTask
    error_task_class = JsonErrorTask
    parser_class = StrictParser

    _refused = False
    _linger_until: float | None = None

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
        self._refused = self.requests[0].error is not None
        super().service()

    def readable(self) -> bool:
        return self._linger_until is not None or bool(super().readable())

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
