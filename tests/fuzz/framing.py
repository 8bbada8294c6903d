"""One stream of bytes through two readers of HTTP/1.1: ours, driven as waitress's channel drives it, and h11."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h11
from waitress.adjustments import Adjustments

from embedded_server.waitress_adapter import adjustments
from embedded_server.waitress_adapter.parsing import StrictParser
from engine.settings import ServerSettings

SETTINGS = ServerSettings.model_validate({"body_bytes": 4096, "header_bytes": 2048})
ADJUSTMENTS = Adjustments(**adjustments(SETTINGS))


@dataclass(frozen=True)
class Seen:
    """One whole request as a reader saw it."""

    method: bytes
    target: bytes
    body: bytes


@dataclass
class Reading:
    """What a reader made of a stream. ``end``: ``open`` (it would read on), ``closed`` (the last request asked for
    that), ``refused`` (for ``reason``). ``partial``: it ends within a request."""

    requests: list[Seen] = field(default_factory=list)
    end: str = "open"
    reason: str = ""
    partial: bool = False
    last_method: bytes = b""
    """Of a request that was refused, or is not whole, once its head was read."""


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """``data`` as it might arrive: cut at these places."""
    at = 0
    for cut in (*sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)):
        if cut > at:
            yield data[at:cut]
        at = cut


def ours(data: bytes, cuts: Iterable[int] = (), limits: Adjustments = ADJUSTMENTS) -> Reading:
    """The loop of ``waitress.channel.HTTPChannel.received`` and ``service``, each request being answered at once."""
    reading = Reading()
    parser: Any = None
    continued = False
    for arrived in pieces(data, cuts):
        piece, owed = arrived, 0
        while piece and reading.end == "open":
            if parser is None:
                parser = StrictParser(limits)
            taken = parser.received(piece)
            if parser.expect_continue and parser.headers_finished and not owed and not continued:
                parser.expect_continue = parser.completed = False
                continued = True
            if parser.completed:
                continued = False
                if not parser.empty:
                    owed += 1
                    _settle(reading, parser)
                parser.close()
                parser = None
            piece = piece[taken:]
        if parser is not None and parser.expect_continue and parser.headers_finished and not continued:
            parser.expect_continue = parser.completed = False
            continued = True
    if parser is not None:
        reading.partial = reading.end == "open" and bool(parser._head or parser.headers_finished)
        reading.last_method = _method(parser)
        parser.close()
    return reading


def _method(parser: Any) -> bytes:
    return str(getattr(parser, "command", "")).encode("latin-1")


def _settle(reading: Reading, parser: Any) -> None:
    if parser.error is not None:
        reading.end, reading.reason = "refused", f"{parser.error.code} {parser.error.body}"
        reading.last_method = _method(parser)
        return
    body = parser.get_body_stream().read()
    reading.requests.append(Seen(parser.command.encode(), parser.request_uri.encode("latin-1"), body))
    if parser.connection_close or (
        parser.version != "1.1" and parser.headers.get("CONNECTION", "").lower() != "keep-alive"
    ):
        reading.end = "closed"


def theirs(data: bytes, cuts: Iterable[int] = (), most_head: int = SETTINGS.header_bytes) -> Reading:
    """h11's reading; each request is answered with 405, so that none switches to another protocol."""
    reading = Reading()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=most_head)
    request: h11.Request | None = None
    body = b""
    try:
        for piece in pieces(data, cuts):
            connection.receive_data(piece)
            while reading.end == "open" and (event := connection.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Request):
                    request, body = event, b""
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    assert request is not None
                    reading.requests.append(Seen(request.method, request.target, body))
                    connection.send(h11.Response(status_code=405, headers=[("Content-Length", "0")]))
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is h11.MUST_CLOSE:
                        reading.end = "closed"
                    else:
                        connection.start_next_cycle()
                else:
                    assert event is h11.PAUSED, event
                    break
    except h11.RemoteProtocolError as error:
        reading.end, reading.reason = "refused", str(error)
    return reading
