"""How an answer is written: its head as waitress's, in one piece with a short body, whatever the socket takes."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waitress import wasyncore
from waitress.task import WSGITask
from waitress.trigger import trigger

from embedded_server.controller import ServerController
from embedded_server.waitress_adapter import channel as channels
from embedded_server.waitress_adapter.channel import ONE_WRITE, ClosingTask
from tests.embedded_server.conftest import BOTH_WAYS, until
from tests.embedded_server.wire import Wire
from tests.fakes import FakeEngine
from tests.fuzz.budget import quick

hot_lane = BOTH_WAYS
PREDICT = "/predict/digits-keras"


def task_of(kind: type[WSGITask], version: str, connection: str | None, draining: bool, ident: str | None) -> Any:
    """A task whose channel keeps what is written."""
    server = SimpleNamespace(adj=SimpleNamespace(ident=ident), draining=draining)
    written: list[bytes] = []
    channel: Any = SimpleNamespace(adj=server.adj, server=server, http_server=server, write_soon=written.append)
    headers = {} if connection is None else {"CONNECTION": connection}
    task: Any = kind(channel, SimpleNamespace(version=version, headers=headers))  # type: ignore[arg-type]  # stand-ins
    task.written = written
    task.start_time = 1_700_000_000.9
    return task


FIELDS = st.tuples(
    st.sampled_from(
        ("content-type", "Content-Length", "X-b", "x-B", "ETag", "date", "SERVER", "Connection", "WWW-Authenticate", "")
    ),
    st.sampled_from(("a", "3", "close", "b: c", "\xe9")),
)


@quick(500)
@given(
    st.lists(FIELDS, max_size=6), st.sampled_from(("1.0", "1.1")), st.sampled_from((None, "close", "Keep-Alive", "x")),
    st.booleans(), st.sampled_from((None, "me")), st.sampled_from(("200 OK", "204 No Content", "304 Not Modified")),
    st.sampled_from((None, 0, 3)), st.sampled_from((b"", b"abc")),
)  # fmt: skip
def test_what_is_written_is_what_waitress_writes(
    fields: list[tuple[str, str]], version: str, connection: str | None, draining: bool, ident: str | None,
    status: str, length: int | None, body: bytes,
) -> None:  # fmt: skip
    tasks = [task_of(kind, version, connection, draining, ident) for kind in (WSGITask, ClosingTask)]
    for task in tasks:
        task.status, task.response_headers, task.content_length, task.complete = status, list(fields), length, True
        if draining and isinstance(task, WSGITask) and not isinstance(task, ClosingTask):
            task.set_close_on_finish()  # what ours does besides
        task.write(body)
        task.finish()
    theirs, mine = tasks
    assert b"".join(mine.written) == b"".join(theirs.written)
    assert mine.close_on_finish == theirs.close_on_finish


def test_head_and_short_body_are_one_piece() -> None:
    task = task_of(ClosingTask, "1.1", None, False, None)
    task.response_headers, task.content_length, task.complete = [("Content-Length", "3")], 3, True
    task.write(b"abc")
    task.finish()
    assert [piece.partition(b"\r\n\r\n")[2] for piece in task.written] == [b"abc"]


def test_a_long_body_is_not_copied_behind_its_head() -> None:
    task = task_of(ClosingTask, "1.1", None, False, None)
    length = ONE_WRITE + 1
    task.response_headers, task.content_length, task.complete = [("Content-Length", str(length))], length, True
    task.write(b"x" * length)
    assert [len(piece) for piece in task.written[1:]] == [length]


@pytest.mark.parametrize("most", [1, 100])
def test_what_the_socket_does_not_take_at_once_follows(
    port: int, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    send = wasyncore.dispatcher.send
    calls: list[int] = []

    def little(self: Any, data: bytes, do_close: bool = True) -> int:
        if len(data) > most and len(calls) % 3 == 1:
            calls.append(0)
            return 0  # as when it would block
        calls.append(len(data))
        return int(send(self, data[:most], do_close))

    with Wire(port) as wire:
        monkeypatch.setattr(wasyncore.dispatcher, "send", little)
        for _ in range(3):
            assert wire.request("POST", PREDICT, b"x").answer().status == 200
    assert calls.count(0) > 3


def test_a_socket_that_breaks_ends_its_connection_alone(
    port: int, controller: ServerController, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = wasyncore.dispatcher.send
    broken: list[Any] = []

    def breaking(self: Any, data: bytes, do_close: bool = True) -> int:
        if broken == [] or self in broken:
            broken.append(self)
            raise OSError("broken")
        return int(send(self, data, do_close))

    assert controller._running is not None
    server: Any = controller._running.http._server
    with Wire(port) as wire:
        monkeypatch.setattr(wasyncore.dispatcher, "send", breaking)
        wire.request("POST", PREDICT, b"x")
        until(lambda: len(broken) >= 2, "waitress has seen the error as well")
        assert wire.closed()
        with Wire(port) as other:
            assert other.request("POST", PREDICT, b"x").answer().status == 200
    until(lambda: broken[0] not in server.active_channels.values(), "the connection is gone")


def test_the_loop_is_woken_once_until_it_looks(
    port: int, controller: ServerController, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert controller._running is not None
    server: Any = controller._running.http._server
    pulls: list[None] = []
    inside, go = threading.Event(), threading.Event()
    pull = trigger._physical_pull

    def counted(self: Any) -> None:
        pulls.append(None)
        pull(self)

    def hold() -> None:
        inside.set()
        go.wait(20)

    monkeypatch.setattr(trigger, "_physical_pull", counted)
    server.trigger.pull_trigger(hold)  # the loop stands in the middle of its round, and has read the trigger
    assert inside.wait(20)
    before = len(pulls)
    server.woken = False
    for _ in range(5):
        server.pull_trigger()
    assert len(pulls) == before + 1
    go.set()
    until(lambda: not server.woken, "it has looked again")
    server.pull_trigger()
    until(lambda: len(pulls) >= before + 2, "it is woken again")


def test_names_are_remembered_as_waitress_writes_them() -> None:
    assert [channels._capitalized(name) for name in ("etag", "WWW-Authenticate", "x--y")] == [
        "Etag", "Www-Authenticate", "X--Y",
    ]  # fmt: skip
