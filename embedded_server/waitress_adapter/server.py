"""waitress on a socket of ours, with a stop that answers everybody first.

The stop, each step on waitress's own loop: the listener takes in who already knocked and closes; running requests
finish, new ones on open connections are answered (the door says 503) and their connections close; connections that fall
silent are closed; then the task threads end, and only then the loop and its trigger, so that no thread writes to a
descriptor that means something else by now.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from embedded_server.access import Decision, network_of
from embedded_server.body_budget import BodyBudget
from embedded_server.door import json_headers, new_request_id, status_line
from embedded_server.errors import door_error
from embedded_server.hot_lane import HotLane
from embedded_server.waitress_adapter.channel import Channel, Pace, peer_lane
from embedded_server.waitress_adapter.lane_loop import LaneLoop, missing_names
from engine.prediction import Lane

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

# "Task queue depth is 1" says nothing here: a thread is free for every request the engine admits, and one that has just
# been started counts as busy.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)

TICK_S = 0.02
LAST_ANSWERS_S = 3.0
"""After the drain ran out: how long the answers saying so may take to be written."""
JOIN_S = 5.0

KEPT_FOR_LOOPBACK = 4
"""Connections that the network cannot take from this computer."""

Check = Callable[[str, str, Iterable[tuple[str, str]], str], Decision]
"""Method, target, headers and address of a request -> what the door says to it."""
OnRefused = Callable[[str, str, Lane, str], None]
"""Called with request id, code, lane and address of what was refused before the application saw it."""


class JoinedDispatcher(ThreadedTaskDispatcher):
    """waitress's thread pool whose threads can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: list[threading.Thread] = []

    def start_new_thread(self, target: Callable[[int], Any], thread_no: int) -> None:
        thread = threading.Thread(target=target, name=f"waitress-{thread_no}", args=(thread_no,), daemon=True)
        self.pool.append(thread)
        thread.start()

    def stop(self, timeout_s: float) -> int:
        """End the threads once their tasks are done; the result is how many still run."""
        self.set_thread_count(0)
        deadline = time.monotonic() + timeout_s
        for thread in self.pool:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self.pool)


class Entrance(wasyncore.dispatcher):
    """One more listening socket of a server: who comes in by it is treated as one who came by the server's own."""

    def __init__(self, server: DrainableServer, listener: socket.socket) -> None:
        super().__init__(listener, map=server._map)
        self.accepting = True
        self._server = server
        self.address = str(listener.getsockname()[0])

    def readable(self) -> bool:
        return self._server.accepting and not self._server.in_connection_overflow

    def writable(self) -> bool:
        return False

    def handle_accept(self) -> None:
        try:
            self.take_one()
        except OSError as error:  # who knocked has left again, most likely
            log.debug("a connection to %s could not be taken in: %s", self.address, error)

    def take_one(self) -> bool:
        """Take in who knocked first; False where nobody did. Raises OSError."""
        accepted = self.accept()
        if accepted is None:
            return False
        conn, addr = accepted
        self._server.set_socket_options(conn)
        self._server.open_channel(conn, addr)
        return True

    def take_all_and_close(self) -> None:
        with contextlib.suppress(OSError):
            while self.take_one():
                continue
        self.close()


class DrainableServer(TcpWSGIServer):
    """waitress's server over a listening socket of ours, with connection caps that answer and a way to wind down."""

    active_channels: dict[int, Channel]  # type: ignore[assignment]  # the stub names one channel
    _map: Any

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        adj: Adjustments,
        dispatcher: ThreadedTaskDispatcher,
        *,
        connections: int,
        connections_per_address: int,
        on_refused: OnRefused,
        check: Check,
        budget: BodyBudget,
        pace: Pace,
        lane: HotLane | None = None,
    ) -> None:
        self.draining = False
        self.loop_thread: int | None = None
        self.woken = False
        """Whether the loop was woken since it last looked at the lane and its channels."""
        self.lane = LaneLoop(self, lane) if lane is not None else None
        self.check = check
        self.budget = budget
        self._pace = pace
        self._connections = connections
        self._per_address = connections_per_address
        self._on_refused = on_refused
        sockinfo = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(app, {}, True, listener, dispatcher=dispatcher, adj=adj, sockinfo=sockinfo, bind_socket=False)
        self.channel_class = self._open_channel  # type: ignore[assignment]  # called like the class
        self.entrances: list[Entrance] = []

    def set_reuse_addr(self) -> None:
        """Nothing: the socket came bound. waitress would set SO_REUSEADDR, which on Windows shares the port."""

    def add_task(self, task: Any) -> None:
        if self.lane is None or not self.lane.takes(task):
            super().add_task(task)

    @property
    def is_on_loop(self) -> bool:
        """Whether this is the loop's thread."""
        return threading.get_ident() == self.loop_thread

    def pull_trigger(self) -> None:
        """Wake the loop, where that is not the caller itself, and nobody else has done so already."""
        if not (self.woken or self.is_on_loop):
            self.woken = True
            super().pull_trigger()

    def refused(self, request_id: str, code: str, peer: str) -> None:
        self._on_refused(request_id, code, peer_lane(peer), peer)

    def _open_channel(
        self, server: DrainableServer, conn: socket.socket, addr: Any, adj: Adjustments, map: Any = None
    ) -> Channel | None:
        if not self.has_room(str(addr[0]), list(self.active_channels.values())):
            self.turn_away(conn, str(addr[0]))
            return None
        return Channel(server, conn, addr, adj, map=map)

    def open_channel(self, conn: socket.socket, addr: Any) -> None:
        """For a connection that was accepted elsewhere than on waitress's own listener."""
        self._open_channel(self, conn, addr, self.adj, map=self._map)

    def has_room(self, peer: str, channels: list[Channel]) -> bool:
        """Whether the caps let in a client at ``peer`` beside ``channels``."""
        lan = peer_lane(peer) is Lane.LAN
        if len(channels) >= self._connections - (KEPT_FOR_LOOPBACK if lan else 0):
            return False
        network = network_of(peer)
        return not lan or sum(network_of(channel.peer) == network for channel in channels) < self._per_address

    def turn_away(self, conn: socket.socket, peer: str) -> None:
        answer, request_id = door_error("busy"), new_request_id()
        body = answer.body(request_id)
        headers = [*json_headers(answer, body), ("Connection", "close")]
        lines = [f"HTTP/1.1 {status_line(answer.status)}", *(f"{name}: {value}" for name, value in headers)]
        with conn, contextlib.suppress(OSError):  # who left again needs no answer
            conn.setblocking(False)
            conn.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            conn.shutdown(socket.SHUT_WR)
        self.refused(request_id, answer.code, peer)

    def maintenance(self, now: int) -> None:
        """waitress's round of idle connections, and ours of slow ones."""
        super().maintenance(now)
        # Not here: this is called while the loop counts who can be read, and a closed descriptor is none.
        trigger: Any = self.trigger
        trigger.pull_trigger(self._keep_pace)

    # -- on the loop's thread ---------------------------------------------------------------------------------------
    def _keep_pace(self) -> None:
        now = time.monotonic()
        for channel in list(self.active_channels.values()):
            channel.keep_pace(now, self._pace)
        self.sweep()

    def sweep(self) -> None:
        """Give up what on the hot lane nobody is to wait for any longer."""
        if self.lane is not None:
            self.lane.sweep()

    def add_entrance(self, listener: socket.socket) -> None:
        if self.accepting:
            self.entrances.append(Entrance(self, listener))
        else:  # a stop came first
            listener.close()

    def remove_entrance(self, address: str) -> None:
        for entrance in [entrance for entrance in self.entrances if entrance.address == address]:
            self.entrances.remove(entrance)
            entrance.take_all_and_close()

    def stop_accepting(self) -> None:
        """Take in the connections that wait in the backlog, then close the listeners. The trigger stays."""
        for entrance in self.entrances:
            entrance.take_all_and_close()
        self.entrances.clear()
        with contextlib.suppress(OSError):
            while (accepted := self.accept()) is not None:
                conn, addr = accepted
                self.set_socket_options(conn)
                self.open_channel(conn, addr)
        wasyncore.dispatcher.close(self)

    def close_quiet(self) -> None:
        """While nobody is owed an answer: close every connection that has nothing to say."""
        now = time.time()
        channels = list(self.active_channels.values())
        if any(channel.is_busy(now) for channel in channels):
            return
        for channel in channels:
            if not channel.has_unread():
                channel.handle_close()

    def close_channels(self) -> None:
        for channel in list(self.active_channels.values()):
            channel.handle_close()

    def close_loop(self) -> None:
        """Close what is left, the trigger too, which ends the loop."""
        if self.lane is not None:
            self.lane.close()
        self.pull_trigger = lambda: None  # type: ignore[method-assign]  # its descriptor is about to mean nothing
        wasyncore.close_all(self._map)


class HttpServer:
    """A WSGI application served on ``listener`` (bound and listening; owned from here on) by named threads.

    ``on_death`` is called on the loop's thread where the loop ends by an error of its own. ``check`` is asked about
    every head that announces a body, on the loop's thread: it must not block. ``lane``: the application's questions
    that need no thread.
    """

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        limits: dict[str, Any],
        *,
        connections: int,
        connections_per_address: int,
        on_refused: OnRefused,
        on_death: Callable[[], None],
        check: Check,
        budget: BodyBudget,
        pace: Pace = Pace(),
        server_class: Callable[..., DrainableServer] = DrainableServer,
        lane: HotLane | None = None,
    ) -> None:
        if lane is not None and (missing := missing_names()):
            log.warning("no hot lane: this waitress has no %s", ", ".join(missing))
            lane = None
        adj = Adjustments(sockets=[listener], **limits)
        self._dispatcher = JoinedDispatcher()
        self._server = server_class(
            app,
            listener,
            adj,
            self._dispatcher,
            connections=connections,
            connections_per_address=connections_per_address,
            on_refused=on_refused,
            check=check,
            budget=budget,
            pace=pace,
            lane=lane,
        )
        self._on_death = on_death
        self._thread = threading.Thread(target=self._run, name="server-loop", daemon=True)

    def start(self) -> None:
        """Raises RuntimeError where the system gives no more threads."""
        self._dispatcher.set_thread_count(self._server.adj.threads)
        self._thread.start()

    def listen(self, listener: socket.socket) -> None:
        """Serve one more socket, bound and listening; owned from here on. Any thread."""
        self._on_loop(lambda: self._server.add_entrance(listener))

    def leave(self, address: str) -> None:
        """Close the socket that :meth:`listen` was given for ``address``; open connections stay. Any thread."""
        self._on_loop(lambda: self._server.remove_entrance(address))

    def say_goodbye(self) -> None:
        """From now on every answer closes its connection."""
        self._server.draining = True

    def stop(self, drain_s: float, on_expired: Callable[[], None]) -> bool:
        """Answer everybody, then close. Blocks at most ``drain_s`` seconds and a few more.

        ``on_expired`` is called when ``drain_s`` is over: whoever still waits must then be answered at once. The result
        is whether every thread has ended.
        """
        self.say_goodbye()
        self._on_loop(self._server.stop_accepting)
        soft = time.monotonic() + drain_s
        while self._thread.is_alive() and time.monotonic() < soft + LAST_ANSWERS_S:
            if time.monotonic() >= soft:
                on_expired()
                self._on_loop(self._server.sweep)
            self._on_loop(self._server.close_quiet)
            if not self._server.active_channels:
                break
            time.sleep(TICK_S)
        on_expired()
        self._on_loop(self._server.close_channels)
        stuck = self._dispatcher.stop(LAST_ANSWERS_S)
        self._on_loop(self._server.close_loop)
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)
        if stuck or self._thread.is_alive():
            log.error("the server stopped with %d task thread(s) still running", stuck)
            return False
        return True

    def _on_loop(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the loop's thread and wait for it; here, where that thread does not run."""
        if not self._thread.is_alive():
            call()
            return
        done = threading.Event()

        def thunk() -> None:
            try:
                call()
            finally:
                done.set()

        trigger: Any = self._server.trigger
        trigger.pull_trigger(thunk)
        while not done.wait(TICK_S) and self._thread.is_alive():
            continue

    def _run(self) -> None:
        server: Any = self._server
        server.loop_thread = threading.get_ident()
        poll = wasyncore.poll2 if server.adj.asyncore_use_poll else wasyncore.poll
        try:
            while server._map:
                server.woken = False  # what changes after this wakes the loop anew, what did before is seen below
                if server.lane is not None:
                    server.lane.run()
                poll(server.adj.asyncore_loop_timeout, server._map)
        except Exception:
            log.exception("the server's loop ended by an error")
            if server.lane is not None:
                server.lane.close()
            self._on_death()
