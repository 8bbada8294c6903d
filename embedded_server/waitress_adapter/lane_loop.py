"""The hot lane on waitress's loop: who arrived is asked about, who has an answer is written to, no thread waits.

A channel whose next request may be a question is kept from waitress's threads. After each round of the loop
:meth:`LaneLoop.run` asks the engine for those that arrived and answers those that are done, one batch's at a time. A
request has its answer written by waitress's own ``HTTPChannel.service``, which keeps pipelined requests in order, says
100-continue, and closes.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import Task, ThreadedTaskDispatcher, WSGITask

from embedded_server.hot_lane import SMALL, HotLane, Passage
from embedded_server.waitress_adapter.channel import Channel, ReplyTask
from engine.errors import Draining, EngineError, RequestCancelled

if TYPE_CHECKING:
    from embedded_server.waitress_adapter.server import DrainableServer

log = logging.getLogger(__name__)

RELIES_ON: tuple[tuple[type, str], ...] = (
    (TcpWSGIServer, "add_task"),
    (TcpWSGIServer, "pull_trigger"),
    (ThreadedTaskDispatcher, "add_task"),
    (ThreadedTaskDispatcher, "handler_thread"),
    (HTTPChannel, "service"),
    (HTTPChannel, "write_soon"),
    (HTTPChannel, "handle_close"),
    (HTTPChannel, "total_outbufs_len"),
    (WSGITask, "get_environment"),
    (Task, "build_response_header"),
    (Task, "finish"),
    (Task, "wrote_header"),
    (Task, "complete"),
)
"""What of waitress the lane uses and waitress does not promise."""


def missing_names() -> list[str]:
    """Which of :data:`RELIES_ON` this waitress does not have."""
    return [f"{owner.__name__}.{name}" for owner, name in RELIES_ON if not hasattr(owner, name)]


class _Later:
    """A call for one of waitress's threads, in the shape of a task."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.service = call

    def cancel(self) -> None:
        """Nothing: whoever cancels ends every passage."""


class LaneLoop:
    """The lane of one server. :meth:`takes` and what is done later may be on any thread, all else is on the loop's."""

    def __init__(self, server: DrainableServer, lane: HotLane) -> None:
        self._server = server
        self._lane = lane
        self._arrived: deque[Channel] = deque()
        self._done: deque[_Ride] = deque()
        self._under_way: set[_Ride] = set()
        self._lock = threading.Lock()
        """Held while the loop is woken, so that its trigger is not closed meanwhile."""
        self._woken = False
        self._closed = False

    def takes(self, task: Any) -> bool:
        """Whether the lane answers this channel's next request, or finds out who does."""
        if not isinstance(task, Channel) or self._closed:
            return False
        request: Any = task.requests[0]
        if request.error is not None or request.refused is not None or request.command != "POST":
            return False
        self._arrived.append(task)  # a thread that hands a channel over wakes the loop afterwards
        return True

    def run(self) -> None:
        """After each round of the loop."""
        self._woken = False
        while self._arrived or self._done:
            while self._done:
                self._guarded(self._done.popleft().answer)
            while self._arrived:
                self._guarded(partial(self._open, self._arrived.popleft()))

    def sweep(self) -> None:
        """Give up whatever nobody is to wait for any longer."""
        for ride in tuple(self._under_way):
            if (reason := ride.passage.no_longer()) is not None:
                ride.give_up(reason)

    def close(self) -> None:
        """The loop is about to end, or has ended: end every question that is under way, and wake the loop no more."""
        with self._lock:
            self._closed = True
        for ride in tuple(self._under_way):
            ride.give_up(Draining("The server is being switched off."))
        self.run()

    def _open(self, channel: Channel) -> None:
        request: Any = channel.requests[0]
        task = ReplyTask(channel, request)
        try:
            passage = self._passage(channel, request, task)
        except Exception:
            log.exception("the hot lane could not take a request: Flask's view answers it")
            passage = None
        if passage is None:
            self._threads.add_task(channel)
            return
        ride = _Ride(self, channel, task, passage)
        request.ride = ride
        self._under_way.add(ride)
        if passage.asks_much:
            self.later(ride.ask)
        else:
            ride.ask()

    def _passage(self, channel: Channel, request: Any, task: ReplyTask) -> Passage | None:
        decision = channel.check(request)
        if not (channel.connected and decision.allowed):
            return None
        return self._lane.open(decision, task.get_environment())

    def later(self, call: Callable[[], None]) -> None:
        self._threads.add_task(_Later(call))

    @property
    def _threads(self) -> Any:  # the stub wants a Task; whatever has service() and cancel() will do
        return self._server.task_dispatcher

    def done(self, ride: _Ride) -> None:
        """There is an answer. On any thread."""
        self._done.append(ride)
        if self._server.is_on_loop:
            return  # run() follows
        with self._lock:
            if self._woken or self._closed:
                return
            self._woken = True
            self._server.pull_trigger()

    def left(self, ride: _Ride) -> None:
        self._under_way.discard(ride)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.exception("the hot lane stumbled")


class _Ride:
    """One question, the channel that asks it, and the task that will write its answer."""

    def __init__(self, loop: LaneLoop, channel: Channel, task: ReplyTask, passage: Passage) -> None:
        self.passage = passage
        self.task = task
        self._loop = loop
        self._channel = channel
        self._lock = threading.Lock()
        self._is_done = False

    def ask(self) -> None:
        # The engine shows its last futures for a while, and they know whom they told: not to be the ride itself.
        reference = weakref.ref(self)

        def done() -> None:
            if (ride := reference()) is not None:
                ride._done()

        self.passage.ask(done)

    def give_up(self, reason: EngineError) -> None:
        """Answer with ``reason`` what has no answer yet. On the loop."""
        if self.passage.give_up(reason):
            self._done()

    def client_left(self) -> None:
        self.give_up(RequestCancelled("The client left before the answer was there."))

    def _done(self) -> None:
        with self._lock:
            if self._is_done:
                return
            self._is_done = True
        self._loop.done(self)

    def answer(self) -> None:
        """On the loop. A long answer, or one behind others that were not read yet, is written by a thread: it may have
        to wait for its client."""
        self._loop.left(self)
        if self.passage.says_much or self._channel.total_outbufs_len > SMALL:
            self._loop.later(self._write)
        else:
            self._write()

    def _write(self) -> None:
        try:
            self.task.ready = self.passage.finish()
        except Exception:
            log.exception("the hot lane could not make an answer")  # service() then says 500, and closes
        request: Any = self.task.request
        self._channel.service()
        request.ride = None  # else all of it would be a ring, and its memory the garbage collector's to find
