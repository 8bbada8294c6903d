"""What arrives on the socket: limits, framing, our error body, connection caps. Cases C8, C9 and C14 to C17."""

from __future__ import annotations

import http.client
import itertools
import random
import tracemalloc
from collections.abc import Callable
from io import BytesIO

import psutil
import pytest
from waitress.buffers import OverflowableBuffer

from embedded_server.controller import ServeOptions, ServerController
from embedded_server.waitress_adapter import adjustments
from embedded_server.waitress_adapter.parsing import MOST_CHUNKS, ChunkedBody, FixedBody
from tests.embedded_server.conftest import BOTH_WAYS, settings, until
from tests.embedded_server.wire import Answer, Wire
from tests.fakes import FakeEngine

hot_lane = BOTH_WAYS

PREDICT = "/predict/digits-keras"
POST = b"POST /predict/digits-keras HTTP/1.1\r\nHOST\r\n"


def raw(port: int, request: bytes) -> tuple[Answer, bool]:
    """The answer to exactly these bytes, and whether the server closed after it. ``HOST`` stands for our Host."""
    with Wire(port) as wire:
        wire.send(request.replace(b"HOST", f"Host: localhost:{port}".encode()))
        answer = wire.answer()
        return answer, answer.headers.get("connection") == "close" and wire.closed()


@pytest.mark.parametrize(
    "head",
    [
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict/digits-keras HTTP/1.0\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        POST + b"Content-Length: 1, 1\r\n\r\nx",
        POST + b"Content-Length: +5\r\n\r\nxxxxx",
        POST + b"Content-Length: 0x5\r\n\r\nxxxxx",
        POST + b"Content-Length: -1\r\n\r\n",
        b"GET /models HTTP/1.1\r\nHOST\r\nX: a\r\n b\r\n\r\n",
        b"GET /models HTTP/1.1\r\nHOST\r\nX : a\r\n\r\n",
        b"GET /models HTTP/1.1\nHOST\n\n",
        b"GET /models HTTP/1.1\r\nHOST\nX: a\r\n\r\n",
        b"GET /models HTTP/1.1\r\nHOST\r\nX: a\x00b\r\n\r\n",
        b"GET /models HTTP/2.0\r\nHOST\r\n\r\n",
        b"GET /models\r\nHOST\r\n\r\n",
        b"get /models HTTP/1.1\r\nHOST\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;ext=1\r\nx\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHost: evil\r\n\r\n",
    ],
)  # fmt: skip
def test_c16_ambiguous_messages_are_400_and_end_the_connection(port: int, engine: FakeEngine, head: bytes) -> None:
    pipelined = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 1\r\n\r\nx".encode()
    answer, closed = raw(port, head + pipelined)
    assert (answer.status, answer.code) == (400, "malformed")
    assert (answer.headers["content-type"], answer.headers["connection"]) == ("application/json", "close")
    assert answer.headers["cache-control"] == "no-store"
    assert closed
    assert engine.requests == []


def test_a_head_of_bare_line_feeds_is_not_waited_for(port: int) -> None:
    with Wire(port) as wire:
        for part in (b"GET /models HTTP/1.1\r", b"\nHost: localhost\r\n", b"X: y\n"):
            wire.send(part)
        assert wire.answer().code == "malformed"


def test_an_unknown_transfer_coding_is_501(port: int) -> None:
    answer, closed = raw(port, b"POST /models HTTP/1.1\r\nHOST\r\nTransfer-Encoding: gzip\r\n\r\n")
    assert (answer.status, answer.code, closed) == (501, "not_implemented", True)


@pytest.mark.parametrize(
    ("hosts", "status"),
    [("", 400), ("Host: localhost:PORT\r\nHost: evil\r\n", 400), ("Host: localhost:PORT, evil\r\n", 400)],
)
def test_c2_missing_and_repeated_hosts(port: int, hosts: str, status: int) -> None:
    head = f"GET /models HTTP/1.1\r\n{hosts.replace('PORT', str(port))}\r\n"
    answer, _ = raw(port, head.encode())
    assert (answer.status, answer.code) == (status, "bad_host")


@pytest.mark.parametrize(
    "target", ["//predict/digits-keras", "/predict/../digits-keras", "/predict/digits%2dkeras", "http://evil/models"]
)
def test_c9_targets_are_judged_as_sent(port: int, engine: FakeEngine, target: str) -> None:
    with Wire(port) as wire:
        assert wire.request("POST", target, b"x").answer().status == 404
    assert engine.requests == []


@pytest.mark.parametrize(("method", "status"), [("TRACE", 405), ("PUT", 405), ("CONNECT", 405), ("BREW", 405)])
def test_c8_odd_methods(port: int, method: str, status: int) -> None:
    with Wire(port) as wire:
        assert wire.request(method, "/models").answer().status == status


def test_head_has_the_length_and_no_body(port: int) -> None:
    with Wire(port) as wire:
        whole = wire.request("GET", "/docs").answer()
        head = wire.request("HEAD", "/docs").read(head_only=True)
    assert head is not None
    assert (head.status, head.headers["content-length"]) == (200, str(len(whole.body)))


@pytest.mark.parametrize("field", ["Content-Length: +5", "X: " + "y" * 20_000])
def test_f9_a_head_that_is_refused_has_no_body_either(port: int, field: str) -> None:
    with Wire(port) as wire:
        wire.send(f"HEAD /models HTTP/1.1\r\nHost: localhost:{port}\r\n{field}\r\n\r\n".encode())
        answer = wire.read(head_only=True)
        assert answer is not None
        assert answer.status in (400, 431)
        assert int(answer.headers["content-length"]) > 0
        assert wire.closed()


def test_no_answer_names_the_software(port: int) -> None:
    with Wire(port) as wire:
        assert "server" not in wire.request("GET", "/models").answer().headers


# -- limits -----------------------------------------------------------------------------------------------------
def test_c14_a_body_of_exactly_the_limit_passes_and_one_more_is_413(
    make_controller: Callable[..., ServerController], engine: FakeEngine
) -> None:
    port = make_controller(body_bytes=100_000).start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        assert wire.request("POST", PREDICT, b"x" * 100_000).answer().status == 200
        answer = wire.request("POST", PREDICT, b"x" * 100_001).answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert wire.closed()
    assert len(engine.requests) == 1


def test_c14_a_client_that_goes_on_sending_still_reads_why(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    size = settings().body_bytes + 1
    before = psutil.Process().memory_info().rss
    connection.request("POST", PREDICT, body=itertools.repeat(b"x" * 65_536, size // 65_536 + 1), headers={
        "Host": f"localhost:{port}", "Content-Length": str((size // 65_536 + 1) * 65_536),
    })  # fmt: skip
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"body_too_large" in answer.read()
    assert psutil.Process().memory_info().rss - before < 40 << 20
    connection.close()


@pytest.mark.parametrize("length", ["100000000000", "99999999999999999999"])
def test_c14_an_announced_giant_is_refused_by_its_head(port: int, length: str) -> None:
    with Wire(port) as wire:
        answer = wire.request("POST", PREDICT, Content_Length=length, Expect="100-continue").answer()
        assert (answer.status, answer.code) == (413, "body_too_large")


def test_c14_chunks_without_end_are_413(make_controller: Callable[..., ServerController]) -> None:
    port = make_controller(body_bytes=100_000).start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        wire.request("POST", PREDICT, Transfer_Encoding="chunked")
        for _ in range(8):
            wire.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert wire.answer().code == "body_too_large"


def test_c15_headers_over_the_limit_are_431(port: int) -> None:
    limit = settings().header_bytes
    head = f"GET /models HTTP/1.1\r\nHost: localhost:{port}\r\nX: ".encode()
    for extra, status in ((0, 200), (1, 431)):
        answer, _ = raw(port, head + b"x" * (limit - len(head) - 4 + extra) + b"\r\n\r\n")
        assert answer.status == status
    assert answer.code == "headers_too_large"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /models HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, 431),
        (b"GET /" + b"x" * 65_536, 414),
        (b"GET /" + b"x" * 8190 + b" HTTP/1.1", 414),
    ],
    ids=["many headers", "endless target", "long target"],
)
def test_c15_many_headers_are_431_and_long_targets_414(port: int, request_: bytes, status: int) -> None:
    answer, closed = raw(port, request_ + b"\r\n\r\n")
    assert (answer.status, closed) == (status, True)


def test_a_key_in_a_refused_head_is_not_logged(port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    for line in (b"Authorization : Bearer canary-key", b"Authorization: Bearer canary-key\r\n folded", b"canary-key"):
        answer, _ = raw(port, b"GET /models HTTP/1.1\r\nHOST\r\n" + line + b"\r\n\r\n")
        assert answer.status == 400
        assert b"canary" not in answer.body
    assert "canary" not in caplog.text


# -- chunks -----------------------------------------------------------------------------------------------------
def chunked(data: bytes, sizes: list[int]) -> bytes:
    stream, out = BytesIO(data), []
    for size in sizes:
        part = stream.read(size)
        if part:
            out.append(b"%x\r\n%s\r\n" % (len(part), part))
    return b"".join(out) + b"0\r\n\r\n"


@pytest.mark.parametrize("seed", range(20))
def test_chunked_bodies_are_read_whole_however_they_are_cut(seed: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(5000)
    wire = chunked(data, [rng.randint(1, 700) for _ in range(100)] + [5000]) + b"GET / next"
    body = ChunkedBody(OverflowableBuffer(1 << 20))
    at = 0
    while not body.completed:
        assert body.error is None
        at += body.received(wire[at : at + rng.randint(1, 900)])
    assert wire[at:] == b"GET / next"
    assert body.getfile().read() == data


@pytest.mark.parametrize("seed", range(20))
def test_bodies_of_known_length_are_read_whole_however_they_are_cut(seed: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(50_000)
    wire = data + b"GET / next"
    body = FixedBody(len(data))
    at, most = 0, rng.choice((1, 900, 20_000, len(wire)))
    while not body.completed:
        at += body.received(wire[at : at + rng.randint(1, most)])
        assert len(body) == at
    assert wire[at:] == b"GET / next"
    file = body.getfile()
    first, lines = file.read(10), [file.readline(), *file.readlines()]
    assert first + b"".join(lines) == data
    assert list(body.getfile()) == []  # handed out once


def test_a_body_that_came_in_large_pieces_is_copied_once_or_never() -> None:
    data = bytes(1 << 17)
    whole = FixedBody(len(data))
    whole.received(data)
    assert whole.getfile().read(len(data)) is data
    tracemalloc.start()
    try:
        in_bytes = FixedBody(len(data))
        for _ in range(len(data)):
            in_bytes.received(b"x")
        assert tracemalloc.get_traced_memory()[0] < 3 * len(data)  # not an object for each of them
    finally:
        tracemalloc.stop()


def test_chunked_requests_reach_the_engine(port: int, engine: FakeEngine) -> None:
    with Wire(port) as wire:
        wire.request("POST", PREDICT, Transfer_Encoding="chunked", Content_Type="image/png")
        wire.send(chunked(b"a picture", [3, 3, 3]))
        assert wire.answer().status == 200
        assert wire.request("GET", "/models").answer().status == 200
    assert (engine.requests[0].data, engine.requests[0].content_type) == (b"a picture", "image/png")


def test_c17_seventy_thousand_chunks_are_refused(port: int) -> None:
    with Wire(port) as wire:
        wire.request("POST", PREDICT, Transfer_Encoding="chunked")
        wire.send(b"1\r\nx\r\n" * (MOST_CHUNKS + 1000))
        assert wire.answer().code == "malformed"


# -- connections ------------------------------------------------------------------------------------------------
def test_connections_above_the_limit_read_503(make_controller: Callable[..., ServerController]) -> None:
    controller = make_controller(connections=8)
    port = controller.start_at(ServeOptions(port=0)).port
    wires = [Wire(port) for _ in range(8)]
    with Wire(port) as over:
        answer = over.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (503, "busy", "close")
        assert over.closed()
    # The answer can be read before it stands in the list.
    until(lambda: [refusal.code for refusal in controller.state.refusals] == ["busy"], "the refusal in the list")
    wires.pop().socket.close()

    def room_again() -> bool:
        with Wire(port) as wire:
            try:
                return wire.request("GET", "/models").answer().status == 200
            except OSError:
                return False

    until(room_again, "room after a client left")
    for wire in wires:
        wire.socket.close()


def test_an_address_of_the_lan_has_a_cap_and_this_computer_has_none(
    make_controller: Callable[..., ServerController],
) -> None:
    port = make_controller(connections_per_address=2).start_at(ServeOptions(port=0)).port
    try:
        lan = [Wire(port, source="127.0.0.2") for _ in range(2)]
    except OSError as error:
        pytest.skip(f"this system has one loopback address only: {error}")
    with Wire(port, source="127.0.0.2") as over:
        assert over.answer().status == 503
    own = [Wire(port) for _ in range(4)]
    for wire in (*lan, *own):
        assert wire.request("GET", "/health/live").answer().status == 200
        wire.socket.close()


def test_p10_the_settings_waitress_gets() -> None:
    values = adjustments(settings())
    assert values["threads"] == 264
    assert values["inbuf_overflow"] > values["max_request_body_size"] == (32 << 20) + 1
    assert values["max_request_header_size"] == (16 << 10) + 1
    assert values["connection_limit"] > settings().connections == 512
    assert values["channel_timeout"] == 15
    assert values["channel_request_lookahead"] == 1
    assert values["recv_bytes"] == 262_144
    assert values["outbuf_overflow"] >= 32 << 20
    assert values["ident"] is None
    assert values["expose_tracebacks"] is False
    assert values["clear_untrusted_proxy_headers"] is True
