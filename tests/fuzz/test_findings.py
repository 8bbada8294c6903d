"""What the fuzzers found, numbered, each by its smallest input, replayed at every run."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded_server.controller import ServeOptions, ServerController
from engine.settings import ServerSettings
from tests.embedded_server.wire import Wire
from tests.fakes import FakeEngine, spec
from tests.fuzz.framing import Seen, ours

HEAD = b"HTTP/1.1\r\nHost: a\r\n"
F1 = "F1: a request without a body that expects 100-continue is read again as the head of what follows it"
F2 = "F2: an empty Transfer-Encoding is read as no body (RFC 9112 §6.3: 400 where chunked is not the last coding)"


@pytest.mark.xfail(strict=True, reason=F1)
@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n"])
def test_f1_nothing_is_waited_for_where_no_body_is_to_come(length: bytes) -> None:
    first = b"GET /a " + HEAD + length + b"Expect: 100-continue\r\n\r\n"
    assert ours(first).requests == [Seen(b"GET", b"/a", b"")]


@pytest.mark.xfail(strict=True, reason=F1)
def test_f1_the_request_before_is_not_forgotten() -> None:
    data = b"GET /a " + HEAD + b"Expect: 100-continue\r\n\r\nGET /b " + HEAD + b"\r\n"
    assert [seen.target for seen in ours(data).requests] == [b"/a", b"/b"]


@pytest.mark.xfail(strict=True, reason=F1)
def test_f1_on_the_wire(tmp_path: Path) -> None:
    """Two requests, the first expecting 100-continue: two answers."""
    controller = ServerController(
        FakeEngine((spec("digits-keras"),)), ServerSettings.model_validate({}), tmp_path / "data"
    )  # fmt: skip
    try:
        port = controller.start_at(ServeOptions(port=0)).port
        host = f"Host: localhost:{port}\r\n".encode()
        with Wire(port) as wire:
            wire.socket.settimeout(3.0)
            wire.send(b"GET /models HTTP/1.1\r\n" + host + b"Expect: 100-continue\r\n\r\n")
            wire.send(b"GET /nothing HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n")
            received = b""
            while piece := wire.socket.recv(65_536):
                received += piece
        assert b'"models"' in received
        assert b"404" in received
    finally:
        controller.stop()


@pytest.mark.xfail(strict=True, reason=F2)
@pytest.mark.parametrize("value", [b"", b" ", b"\t"])
def test_f2_a_transfer_encoding_that_names_none_is_refused(value: bytes) -> None:
    data = b"POST /a " + HEAD + b"Transfer-Encoding:" + value + b"\r\n\r\nGET /b " + HEAD + b"\r\n"
    assert ours(data).end == "refused"


@pytest.mark.parametrize("head", [b" GET / HTTP/1.1", b"GET / HTTP/2.0", b"GET /"])
def test_f3_request_lines_of_other_forms_are_refused(head: bytes) -> None:
    """White space before it, another version, none: once read as if nothing were wrong."""
    assert ours(head + b"\r\nHost: a\r\n\r\n").end == "refused"


@pytest.mark.parametrize("cuts", [(), (1,)])
def test_f4_a_bare_line_feed_before_a_request_is_refused_however_it_comes(cuts: tuple[int, ...]) -> None:
    """Once taken where it came with the rest, and refused where it came alone."""
    assert ours(b"\nPOST * HTTP/1.1\r\n\r\n", cuts).end == "refused"
