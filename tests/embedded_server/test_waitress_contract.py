"""What we use of waitress and it does not promise: held here, so that a new version is met by a failing test.

The second half repeats the facts behind our stop (three ways to stop, with a request in flight).
"""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import pytest
from waitress import utilities, wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.receiver import ChunkedReceiver
from waitress.server import TcpWSGIServer, create_server
from waitress.task import ErrorTask, Task, ThreadedTaskDispatcher, WSGITask

from embedded_server.addresses import loopback_rules
from embedded_server.body_budget import BodyBudget
from embedded_server.door import Door
from embedded_server.listening import bind_listener
from embedded_server.waitress_adapter import HttpServer, adjustments
from embedded_server.waitress_adapter.channel import Channel
from tests.embedded_server.conftest import server_threads, settings, until
from tests.embedded_server.wire import Answer, Wire

NAMES: list[tuple[Any, str, list[str]]] = [
    (TcpWSGIServer, "accept", ["self"]),
    (TcpWSGIServer, "set_reuse_addr", ["self"]),
    (TcpWSGIServer, "set_socket_options", ["self", "conn"]),
    (TcpWSGIServer, "pull_trigger", ["self"]),
    (TcpWSGIServer, "handle_accept", ["self"]),
    (HTTPChannel, "__init__", ["self", "server", "sock", "addr", "adj", "map"]),
    (HTTPChannel, "service", ["self"]),
    (HTTPChannel, "received", ["self", "data"]),
    (HTTPChannel, "send", ["self", "data", "do_close"]),
    (TcpWSGIServer, "maintenance", ["self", "now"]),
    (TcpWSGIServer, "add_task", ["self", "task"]),
    (HTTPRequestParser, "close", ["self"]),
    (WSGITask, "get_environment", ["self"]),
    (HTTPChannel, "readable", ["self"]),
    (HTTPChannel, "handle_read", ["self"]),
    (HTTPChannel, "handle_write", ["self"]),
    (HTTPChannel, "handle_close", ["self"]),
    (HTTPChannel, "_flush_exception", ["self", "flush", "do_close"]),
    (HTTPChannel, "_flush_some", ["self", "do_close"]),
    (HTTPChannel, "check_client_disconnected", ["self"]),
    (HTTPRequestParser, "received", ["self", "data"]),
    (HTTPRequestParser, "parse_header", ["self", "header_plus"]),
    (HTTPRequestParser, "__init__", ["self", "adj"]),
    (HTTPRequestParser, "get_body_stream", ["self"]),
    (ChunkedReceiver, "received", ["self", "s"]),
    (ChunkedReceiver, "getbuf", ["self"]),
    (ChunkedReceiver, "__len__", ["self"]),
    (ThreadedTaskDispatcher, "start_new_thread", ["self", "target", "thread_no"]),
    (ThreadedTaskDispatcher, "set_thread_count", ["self", "count"]),
    (ErrorTask, "execute", ["self"]),
    (WSGITask, "build_response_header", ["self"]),
    (Task, "set_close_on_finish", ["self"]),
    (Task, "finish", ["self"]),
    (WSGITask, "execute", ["self"]),
    (ThreadedTaskDispatcher, "add_task", ["self", "task"]),
    (ThreadedTaskDispatcher, "handler_thread", ["self", "thread_no"]),
    (HTTPChannel, "write_soon", ["self", "data"]),
    (Task, "write", ["self", "data"]),
    (Task, "build_response_header", ["self"]),
    (utilities, "build_http_date", ["when"]),
]


def test_the_version_these_facts_were_read_from() -> None:
    assert version("waitress") == "3.0.2"


@pytest.mark.parametrize(("owner", "name", "parameters"), NAMES, ids=lambda value: getattr(value, "__name__", None))
def test_names_and_parameters(owner: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_the_loop_is_what_ours_is() -> None:
    """HttpServer runs its own, so as to look at the hot lane after each round."""
    assert list(inspect.signature(wasyncore.poll).parameters) == ["timeout", "map"]
    assert list(inspect.signature(wasyncore.poll2).parameters) == ["timeout", "map"]
    told = inspect.getsource(wasyncore.loop)
    assert "while map:\n            poll_fun(timeout, map)" in told


def test_fields_of_a_live_server() -> None:
    listener = bind_listener("127.0.0.1", 0)
    server: Any = create_server(lambda *_: [], sockets=[listener], threads=1)
    try:
        assert isinstance(server, TcpWSGIServer)
        assert server.active_channels == {}
        assert set(server._map.values()) == {server, server.trigger}
        assert list(inspect.signature(server.trigger.pull_trigger).parameters) == ["thunk"]
        parser: Any = HTTPRequestParser(Adjustments())
        fields = ("completed", "headers_finished", "header_plus", "chunked", "body_rcv", "version", "error")
        assert all(hasattr(parser, name) for name in (*fields, "expect_continue"))
        assert set(vars(parser)) == {"headers", "adj"}  # what StrictParser makes itself
        fields = ("requests_lock", "will_close", "close_when_flushed", "total_outbufs_len", "last_activity", "request")
        fields = (*fields, "outbuf_lock")
        with socket.socket() as conn:
            channel: Any = HTTPChannel(server, conn, ("127.0.0.1", 1), server.adj, map=server._map)
            assert all(hasattr(channel, name) for name in (*fields, "requests", "addr", "connected"))
            assert server.active_channels == {conn.fileno(): channel}
            channel.handle_close()
            assert server.active_channels == {}
        assert ThreadedTaskDispatcher.stop_count == 0
        fields = ("complete", "wrote_header", "content_length", "content_bytes_written", "chunked_response", "has_body")
        assert all(hasattr(Task, name) for name in fields)
    finally:
        server.task_dispatcher.shutdown()
        wasyncore.close_all(server._map)


@pytest.mark.parametrize(
    "channel_class", [pytest.param(HTTPChannel, id="waitress's"), pytest.param(Channel, id="ours")]
)
def test_two_threads_do_not_flush_one_connection_at_once(channel_class: type[HTTPChannel]) -> None:
    """waitress's loop does, beside a thread that says 100 Continue: the same bytes go out twice, and it stumbles."""
    server: Any = create_server(lambda *_: [], sockets=[bind_listener("127.0.0.1", 0)], threads=1)
    ours, theirs = socket.socketpair()
    inside, second_inside, go_on = threading.Semaphore(0), threading.Event(), threading.Event()
    try:
        with ours, theirs:
            channel: Any = channel_class(server, ours, ("127.0.0.1", 1), server.adj, map=server._map)

            def send(data: bytes, do_close: bool = True) -> int:
                if inside.acquire(blocking=False):
                    second_inside.set()
                inside.release()
                go_on.wait(20)
                return int(ours.send(data))

            channel.send = send
            channel.outbufs[-1].append(b"once")
            channel.total_outbufs_len = 4
            failed: list[BaseException] = []

            def flush() -> None:
                try:
                    channel._flush_some()
                except ValueError as error:  # "Can't skip 4 bytes in buffer of 0 bytes"
                    failed.append(error)

            threads = [threading.Thread(target=flush) for _ in range(2)]
            for thread in threads:
                thread.start()
            second_inside.wait(20 if channel_class is HTTPChannel else 0.3)
            go_on.set()
            for thread in threads:
                thread.join(20)
            theirs.setblocking(False)
            said = theirs.recv(100)
            channel.handle_close()
        assert (said, len(failed)) == ((b"once", 0) if channel_class is Channel else (b"onceonce", 1))
    finally:
        server.task_dispatcher.shutdown()
        wasyncore.close_all(server._map)


# -- three ways to stop -----------------------------------------------------------------------------------------
class Slow:
    """An application whose one request waits for ``go`` and answers a megabyte."""

    body = b"x" * (1 << 20)

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.go = threading.Event()

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        self.inside.set()
        self.go.wait(20)
        start_response("200 OK", [("Content-Length", str(len(self.body)))])
        return [self.body]


@pytest.fixture
def slow() -> Iterator[Slow]:
    app = Slow()
    yield app
    app.go.set()
    until(lambda: server_threads() == [], "every thread has ended")


class Bare:
    """waitress as it comes, on its own thread."""

    def __init__(self, app: Slow) -> None:
        listener = bind_listener("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.server: Any = create_server(app, sockets=[listener], threads=2, outbuf_overflow=1 << 22)
        self.thread = threading.Thread(target=self.server.run, name="server-bare")
        self.thread.start()

    def close_channels(self) -> None:
        for channel in list(self.server.active_channels.values()):
            channel.handle_close()

    def on_loop(self, call: Callable[[], None]) -> None:
        self.server.trigger.pull_trigger(call)


def ask(port: int) -> Wire:
    return Wire(port).send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def test_closing_the_listener_leaves_the_loop_running(slow: Slow) -> None:
    bare = Bare(slow)
    with ask(bare.port) as wire:
        assert slow.inside.wait(20)
        # What server.close() does, without its trigger; on the loop, which would else select a closed descriptor.
        bare.on_loop(lambda: wasyncore.dispatcher.close(bare.server))
        until(lambda: bare.server._fileno is None, "the listener is closed")
        slow.go.set()
        assert wire.answer().body == slow.body
        assert bare.thread.is_alive()
        bare.server.task_dispatcher.shutdown()
        bare.on_loop(lambda: wasyncore.close_all(bare.server._map))
        bare.thread.join(20)
        assert not bare.thread.is_alive()


def test_closing_the_channels_cuts_the_answer_off(slow: Slow) -> None:
    bare = Bare(slow)
    with ask(bare.port) as wire:
        assert slow.inside.wait(20)
        bare.on_loop(
            lambda: [channel.handle_close() for channel in list(bare.server.active_channels.values())] and None
        )
        assert wire.closed()
        slow.go.set()
        bare.server.task_dispatcher.shutdown()
        bare.on_loop(lambda: wasyncore.close_all(bare.server._map))
        bare.thread.join(20)


def test_our_stop_answers_ends_the_loop_and_frees_the_port(slow: Slow) -> None:
    listener = bind_listener("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = HttpServer(
        slow,
        listener,
        adjustments(settings(requests_inside=1)),
        connections=8,
        connections_per_address=8,
        on_refused=lambda *_: None,
        on_death=lambda: None,
        check=Door(loopback_rules(port)).check,
        budget=BodyBudget(1 << 20),
    )
    server.start()
    answers: list[Answer] = []
    with ask(port) as wire, Wire(port):
        assert slow.inside.wait(20)
        threading.Timer(0.05, slow.go.set).start()
        reader = threading.Thread(target=lambda: answers.append(wire.answer()))
        reader.start()
        assert server.stop(20.0, lambda: None)
        reader.join(20)
    assert answers[0].body == slow.body
    assert answers[0].headers["connection"] == "close"
    assert server_threads() == []
    bind_listener("127.0.0.1", port).close()


def test_a_handler_that_never_ends_is_reported_and_writes_nowhere(
    slow: Slow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedded_server.waitress_adapter.server.LAST_ANSWERS_S", 0.1)
    listener = bind_listener("127.0.0.1", 0)
    port = listener.getsockname()[1]
    expired = threading.Event()
    server = HttpServer(
        slow,
        listener,
        adjustments(settings(requests_inside=1)),
        connections=8,
        connections_per_address=8,
        on_refused=lambda *_: None,
        on_death=lambda: None,
        check=Door(loopback_rules(port)).check,
        budget=BodyBudget(1 << 20),
    )
    server.start()
    with ask(port):
        assert slow.inside.wait(20)
        assert not server.stop(0.0, expired.set)
    assert expired.is_set()
    assert "1 task thread(s) still running" in caplog.text
    assert [name for name in server_threads() if name.startswith("server-")] == []
