"""What is decided before a body is read, how slow a client may be, and what bodies may cost together."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from waitress.adjustments import Adjustments

from embedded_server.body_budget import BodyBudget, affordable
from embedded_server.controller import ServeOptions, ServerController
from embedded_server.keys import KeyStore
from embedded_server.waitress_adapter.parsing import StrictParser
from engine.prediction import Prediction, PredictRequest
from tests.embedded_server.conftest import BOTH_WAYS, BOUND_S, until
from tests.embedded_server.test_drain import release
from tests.embedded_server.wire import Answer, Wire
from tests.fakes import FakeEngine, answer_three

hot_lane = BOTH_WAYS

Make = Callable[..., ServerController]
PREDICT = "/predict/digits-keras"
LENGTH = "30000000"
"""Of bodies that are announced and never sent: an answer to them was made without them."""


def refused(wire: Wire, target: str = PREDICT, **headers: str) -> Answer:
    """The answer to a head that announces a body which does not come; the connection ends with it."""
    fields: dict[str, str] = {"Content_Length": LENGTH} | headers
    answer = wire.request("POST", target, **fields).answer()
    assert answer.headers["connection"] == "close"
    assert wire.closed()
    return answer


# -- the door is asked about the head ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 403, "bad_host"),
        ({"Host": "localhost, evil.example"}, 400, "bad_host"),
        ({"Origin": "https://evil.example"}, 403, "bad_origin"),
        ({"Origin": "null"}, 403, "bad_origin"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "bad_origin"),
        ({"Expect": "100-continue", "Origin": "null"}, 403, "bad_origin"),
        ({"Transfer-Encoding": "chunked", "Origin": "null"}, 403, "bad_origin"),
    ],
)
def test_a_foreign_head_is_refused_without_its_body(
    port: int, engine: FakeEngine, headers: dict[str, str], status: int, code: str
) -> None:
    with Wire(port) as wire:
        fields = dict(headers)
        if "Transfer-Encoding" in fields:
            lines = [f"POST {PREDICT} HTTP/1.1", f"Host: localhost:{port}", *(f"{k}: {v}" for k, v in fields.items())]
            answer = wire.send("\r\n".join([*lines, "", ""]).encode()).answer()
            assert wire.closed()
        else:
            answer = refused(wire, **{name.replace("-", "_"): value for name, value in fields.items()})
    assert (answer.status, answer.code) == (status, code)
    assert engine.requests == []


@pytest.mark.parametrize("target", ["/v2/models/digits-keras/infer", "/v1/models/digits-keras:predict"])
def test_protocol_routes_refuse_in_their_own_shape(port: int, target: str) -> None:
    with Wire(port) as wire:
        answer = refused(wire, target, Origin="null")
        assert (answer.status, answer.json) == (403, {"error": "Requests from other web sites are not answered."})
    with Wire(port) as wire:
        answer = wire.request("POST", target, Content_Length="100000000000").answer()
        assert (answer.status, set(answer.json)) == (413, {"error"})
        assert isinstance(answer.json["error"], str)


def test_without_a_key_no_body_is_read_and_with_one_it_is(make_controller: Make, tmp_path: Any) -> None:
    store = KeyStore(tmp_path / "data" / "keys.json")
    key = store.add("robot", at_once=1).secret
    controller = make_controller()
    port = controller.start_at(ServeOptions(port=0, named_keys=True)).port
    for headers in ({}, {"Authorization": "Bearer nope"}, {"Authorization": f"Basic {key}"}):
        with Wire(port) as wire:
            assert (answer := refused(wire, **headers)).status == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="deskside"'
    with Wire(port) as wire:
        assert wire.request("POST", PREDICT, b"x", Authorization=f"Bearer {key}").answer().status == 200
    until(lambda: len(controller.state.refusals) == 3, "three refusals")
    assert {record.size for record in controller.state.refusals} == {int(LENGTH)}


def test_a_key_at_its_quota_and_a_full_house_send_no_body(
    make_controller: Make, engine: FakeEngine, tmp_path: Any
) -> None:
    key = KeyStore(tmp_path / "data" / "keys.json").add("robot", at_once=1).secret
    port = make_controller(requests_inside=1).start_at(ServeOptions(port=0, named_keys=True)).port
    other = KeyStore(tmp_path / "data" / "keys.json").add("other").secret
    engine.hold = True
    with Wire(port) as first:
        first.request("POST", PREDICT, b"x", Authorization=f"Bearer {key}")
        until(lambda: len(engine.held) == 1, "one question inside")
        with Wire(port) as wire:
            answer = refused(wire, Authorization=f"Bearer {key}")
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "key_quota", "1")

        def busy() -> bool:  # the new key is read within a second
            with Wire(port) as wire:
                answer = refused(wire, Authorization=f"Bearer {other}")
                return (answer.status, answer.code) == (503, "busy")

        until(busy, "a full house")
        release(engine)
        assert first.answer().status == 200


def test_what_follows_a_refused_head_is_never_a_request(port: int, engine: FakeEngine) -> None:
    inner = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 1\r\n\r\nx".encode()
    with Wire(port) as wire:
        fields = f"Host: localhost:{port}\r\nOrigin: null\r\nContent-Length: {len(inner) * 51}"
        wire.send(f"POST {PREDICT} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + inner * 50)
        assert wire.answer().code == "bad_origin"
        wire.send(inner)
        assert wire.closed()
    assert engine.requests == []


def test_a_refused_request_whose_body_is_here_keeps_its_connection(port: int, engine: FakeEngine) -> None:
    with Wire(port) as wire:
        for _ in range(3):
            answer = wire.request("POST", PREDICT, b"x" * 1000, Origin="null").answer()
            assert (answer.status, answer.headers.get("connection")) == (403, None)
        assert wire.request("POST", PREDICT, b"x").answer().status == 200
    assert len(engine.requests) == 1


def test_a_good_head_is_told_to_go_on(port: int, engine: FakeEngine) -> None:
    with Wire(port) as wire:
        wire.request("POST", PREDICT, Content_Length="3", Expect="100-continue")
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.send(b"abc").answer().status == 200
    assert engine.requests[0].data == b"abc"


def test_a_key_that_ends_during_an_upload_lets_nothing_in(
    make_controller: Make, engine: FakeEngine, tmp_path: Any
) -> None:
    key = KeyStore(tmp_path / "data" / "keys.json").add("robot").secret
    controller = make_controller()
    port = controller.start_at(ServeOptions(port=0, named_keys=True)).port
    with Wire(port) as wire:
        wire.request("POST", PREDICT, Authorization=f"Bearer {key}", Content_Length="3", Expect="100-continue")
        assert wire.socket.recv(100).startswith(b"HTTP/1.1 100")  # let in so far
        controller.remove_key("robot")
        assert wire.send(b"abc").answer().status == 401
    assert engine.requests == []


# -- what bodies may cost ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_together_have_a_bound(make_controller: Make, engine: FakeEngine, chunked: bool) -> None:
    port = make_controller(bodies_bytes=100_000).start_at(ServeOptions(port=0)).port
    with Wire(port) as first, Wire(port) as second:
        first.request("POST", PREDICT, Content_Length="80000", Expect="100-continue")
        assert first.socket.recv(100).startswith(b"HTTP/1.1 100")
        if chunked:
            second.request("POST", PREDICT, Transfer_Encoding="chunked")
            second.send(b"6000\r\n" + b"x" * 0x6000 + b"\r\n")
        else:
            second.request("POST", PREDICT, Content_Length="30000")
        answer = second.answer()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "busy", "1")
        assert first.send(b"x" * 80_000).answer().status == 200

    def let_in() -> bool:
        with Wire(port) as wire:
            wire.request("POST", PREDICT, Content_Length="90000", Expect="100-continue")
            return wire.socket.recv(100).startswith(b"HTTP/1.1 100")  # and leaves in the middle

    # An answer can be read before its request's memory is given back.
    until(let_in, "room after an answer")
    until(let_in, "room after a client left in the middle")


def test_the_bound_fits_the_memory_that_is_free(caplog: pytest.LogCaptureFixture) -> None:
    assert affordable(1 << 30, 32 << 20, free=8 << 30) == 1 << 30
    assert caplog.text == ""
    assert affordable(1 << 30, 32 << 20, free=1 << 30) == 1 << 29
    assert affordable(1 << 30, 32 << 20, free=1 << 20) == 32 << 20
    assert "no more memory is free" in caplog.text


def test_the_budget_counts() -> None:
    budget = BodyBudget(10)
    assert (budget.take(6), budget.take(5), budget.take(4), budget.used) == (True, False, True, 10)
    budget.give(10)
    assert budget.used == 0


# -- slow clients -----------------------------------------------------------------------------------------------------
def test_c18_a_head_that_does_not_end_is_408(make_controller: Make) -> None:
    port = make_controller(head_timeout_s=0.2).start_at(ServeOptions(port=0)).port
    with Wire(port) as idle, Wire(port) as wire:
        wire.send(f"GET /models HTTP/1.1\r\nHost: localhost:{port}\r\n".encode())
        answer = wire.answer()
        assert (answer.status, answer.code) == (408, "too_slow")
        assert wire.closed()
        # Who has sent nothing yet is not slow.
        assert idle.request("GET", "/models").answer().status == 200


def test_c18_a_body_that_trickles_is_408(make_controller: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded_server.waitress_adapter.channel.BODY_GRACE_S", 0.1)
    port = make_controller(body_timeout_s=1000.0).start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        wire.request("POST", PREDICT, Content_Length="1000000")
        wire.socket.settimeout(0.05)
        received, until_s = b"", time.monotonic() + BOUND_S
        while not received:
            assert time.monotonic() < until_s, "a body of some bytes a second is read for ever"
            wire.send(b"x")
            try:
                received = wire.socket.recv(65_536)
            except TimeoutError:
                continue
        wire.socket.settimeout(BOUND_S)
        while more := wire.socket.recv(65_536):
            received += more
        assert received.startswith(b"HTTP/1.1 408 ")
        wire.socket.settimeout(BOUND_S)
        while b"too_slow" not in received:  # head and body may come one after the other
            more = wire.socket.recv(65_536)
            assert more, received
            received += more


def test_a_body_has_a_time_in_all(make_controller: Make) -> None:
    port = make_controller(body_timeout_s=0.2).start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        answer = wire.request("POST", "/v2/models/digits-keras/infer", Content_Length="1000").answer()
        assert (answer.status, answer.json) == (408, {"error": "The request came too slowly."})


def test_c18_an_answer_that_nobody_reads_is_cut_off(make_controller: Make, engine: FakeEngine) -> None:
    def large(request: PredictRequest) -> Prediction:
        return replace(answer_three(request), predictions=[{"label": "x" * (24 << 20), "score": 1.0}])

    engine.answer = large
    controller = make_controller(reply_timeout_s=0.5)
    port = controller.start_at(ServeOptions(port=0)).port
    with Wire(port) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.request("POST", PREDICT, b"x")
        running = controller._running
        assert running is not None
        server: Any = running.http._server
        until(lambda: any(channel.total_outbufs_len > 1 << 20 for channel in server.active_channels.values()), "much")
        until(lambda: not server.active_channels, "the end of the connection")
        with Wire(port) as other:
            assert other.request("GET", "/models").answer().status == 200


def test_a_client_that_works_through_slowly_is_not_slow(make_controller: Make, engine: FakeEngine) -> None:
    """The time of a request that waits behind another one on its connection does not count."""
    port = make_controller(head_timeout_s=0.2, body_timeout_s=0.2).start_at(ServeOptions(port=0)).port
    engine.hold = True
    with Wire(port) as wire:
        wire.request("POST", PREDICT, b"x")
        until(lambda: len(engine.held) == 1, "the question inside")
        wire.send(f"GET /models HTTP/1.1\r\nHost: localhost:{port}\r\n".encode())
        with Wire(port) as other:
            other.send(b"GET")
            assert other.answer().status == 408  # so much time has passed
        engine.hold = False
        release(engine)
        assert wire.answer().status == 200
        assert wire.send(b"\r\n").answer().status == 200


# -- the head itself --------------------------------------------------------------------------------------------------
def test_a_head_in_single_bytes_costs_each_byte_once() -> None:
    adjustments = Adjustments(max_request_header_size=300_000)
    head = b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n"
    parser = StrictParser(adjustments)
    began = time.process_time()
    for at in range(len(head)):
        assert parser.received(head[at : at + 1]) == 1
    assert parser.completed
    assert parser.error is None
    assert time.process_time() - began < 8, "reading what came before again at every byte takes 12 s and more"


@pytest.mark.parametrize("cut", range(1, 60, 3))
def test_a_request_is_the_same_however_it_is_cut(cut: int) -> None:
    wire = b"\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\nGET /next HTTP/1.1\r\n"
    parser: Any = StrictParser(Adjustments())
    at = 0
    while not parser.completed:
        at += parser.received(wire[at : at + cut])
    assert (parser.error, parser.command, parser.request_uri) == (None, "POST", "/x")
    assert parser.get_body_stream().read() == b"\r\n\r\n"
    assert wire[at:] == b"GET /next HTTP/1.1\r\n"


@pytest.mark.parametrize("length", ["", "Content-Length: 0\r\n"])
def test_an_expectation_without_a_body_is_answered_at_once(port: int, length: str) -> None:
    with Wire(port) as wire:
        for _ in range(2):
            head = f"GET /models HTTP/1.1\r\nHost: localhost:{port}\r\nExpect: 100-continue\r\n"
            wire.send((head + length + "\r\n").encode())
            assert wire.answer().status == 200


@pytest.mark.parametrize("value", ["", " ", " ,"])
def test_an_empty_transfer_coding_is_400(port: int, engine: FakeEngine, value: str) -> None:
    with Wire(port) as wire:
        wire.send(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost:{port}\r\nTransfer-Encoding:{value}\r\n\r\n".encode())
        assert wire.answer().code == "malformed"
        assert wire.closed()
    assert engine.requests == []


def test_a_client_that_left_before_it_was_told_to_go_on_stops_nobody(controller: ServerController, port: int) -> None:
    """waitress says 100 Continue under the lock that closing a connection takes."""

    class Gone:
        """A socket whose other end is reset when it is written to."""

        def __init__(self, real: socket.socket) -> None:
            self._real = real

        def send(self, data: bytes) -> int:
            if b"100 Continue" in data:
                self._real.shutdown(socket.SHUT_RDWR)
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")
            return self._real.send(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    with Wire(port) as gone, Wire(port) as other:
        gone.request("GET", "/models").answer()
        running = controller._running
        assert running is not None
        channels: Any = running.http._server.active_channels
        until(lambda: len(channels) >= 2, "both connections")  # the self-check's has closed, or is about to
        for channel in list(channels.values()):
            channel.socket = Gone(channel.socket)
        gone.request("POST", PREDICT, Content_Length="3", Expect="100-continue")
        assert gone.closed()
        assert other.request("POST", PREDICT, b"x").answer().status == 200
