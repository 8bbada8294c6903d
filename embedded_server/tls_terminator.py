"""TLS in front of the server: one thread that accepts, shakes hands, and passes bytes both ways.

Behind it the server reads plain HTTP from a private socket (:mod:`embedded_server.private_socket`), whose connections
begin with the client's address in a PROXY line. One selector holds every connection, so a client that stalls in its
handshake costs a socket and nobody's time. What a connection may hold is bounded: :data:`BUFFER` bytes each way, beyond
which the side that sends is not read.

How a connection ends:

- The client ends its sending (close_notify or FIN): the server is told by a half-close, what it still sends is passed
  on.
- The server ends: what it sent is passed on, then close_notify and FIN, and what the client still sends is thrown away
  for at most :data:`LINGER_S` seconds; closing with unread bytes would reset the connection, and lose the answer.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from embedded_server.access import LOOPBACK_PEERS, network_of, normal_peer
from embedded_server.door import json_headers, new_request_id, status_line
from embedded_server.errors import STATUS, HttpError
from embedded_server.private_socket import NoRoomYet, PrivateSocket
from embedded_server.waitress_adapter.proxy_line import proxy_line
from embedded_server.waitress_adapter.server import KEPT_FOR_LOOPBACK
from engine.errors import SettingsInvalid
from engine.prediction import Lane

log = logging.getLogger(__name__)

HANDSHAKE_S = 5.0
BUFFER = 64 << 10
LINGER_S = 5.0
FLUSH_S = 30.0
"""So long a client may take to read the rest of an answer after the server has ended the connection."""
QUIET_S = 0.25
"""While stopping: a connection silent for this long has nothing on its way."""
BEGUN_S = 1.0
"""While stopping: so long a handshake that has begun may still take."""
JOIN_S = 5.0

_RECORD = 16 << 10
"""The most one TLS record holds (RFC 8446 §5.1): read in one piece, nothing is left decrypted inside OpenSSL."""
_AT_ONCE = 4
"""Records read of one connection before the others have their turn."""
_TICK_S = 0.05
_RETRY_S = 0.5
_HANDSHAKE = 0x16  # ContentType handshake, RFC 8446 §5.1: how every TLS connection begins
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

PLAIN = HttpError(STATUS["malformed"], "malformed", "This server speaks https: the address begins with https://.")

OnRefused = Callable[[str, str, Lane, str], None]
"""Called with request id, code, lane and address of who spoke plain HTTP."""


def tls_context(certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with forward secrecy and authenticated ciphers, HTTP/1.1 only; no compression, no renegotiation.

    Not ``ssl.create_default_context``: that writes session keys to the file that SSLKEYLOGFILE names. Raises
    SettingsInvalid where OpenSSL does not take the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate_file, key_file, password="")  # "": OpenSSL would ask on the terminal
    except OSError as error:  # ssl.SSLError is one
        raise SettingsInvalid(
            f"TLS does not take the certificate {certificate_file.name}.", details=str(error)
        ) from error
    return context


class _Stage(Enum):
    HELLO = "nothing has come yet"
    HANDSHAKE = "shaking hands"
    DIALLING = "the server behind is being called"
    OPEN = "bytes pass"
    SAYING_GOODBYE = "close_notify is being sent"
    LINGERING = "what still comes is thrown away"


_EARLY = frozenset({_Stage.HELLO, _Stage.HANDSHAKE, _Stage.DIALLING})


class _Link:
    """One client, and its connection to the server behind once it has one. Touched by the terminator's thread only."""

    def __init__(self, client: socket.socket, source: tuple[str, int], target: tuple[str, int]) -> None:
        self.client = client
        self.source = source
        self.target = target
        self.network = network_of(source[0])
        self.server: socket.socket | None = None
        self.stage = _Stage.HELLO
        self.deadline: float | None = None
        self.up = bytearray()
        self.down = bytearray()
        self.client_ended = False
        self.server_deaf = False
        """The server reads no more, or was told that nothing more comes."""
        self.read_needs_write = False
        self.write_needs_read = False

    @property
    def is_loopback(self) -> bool:
        return normal_peer(self.source[0]) in LOOPBACK_PEERS


class TlsTerminator:
    """Serves ``listener`` (bound and listening; owned from here on) with TLS, in front of ``behind``.

    ``connections`` are open at most, ``connections_per_address`` of one address (an IPv6 address counts by its /64;
    loopback is exempt): who comes beyond is closed at once. ``handshake_s`` is how long a client may take from its
    connect until it is shaken hands with. ``on_death`` is called where the thread ends by an error of its own.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        behind: PrivateSocket,
        *,
        connections: int,
        connections_per_address: int,
        handshake_s: float = HANDSHAKE_S,
        on_refused: OnRefused = lambda *_: None,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        listener.setblocking(False)
        self._listeners = [listener]
        self._context = context
        self._behind = behind
        self._connections = connections
        self._per_address = connections_per_address
        self._handshake_s = handshake_s
        self._on_refused = on_refused
        self._on_death = on_death
        self._links: set[_Link] = set()
        self._by_network: Counter[str] = Counter()
        self._selector = selectors.DefaultSelector()
        self._bell, self._ring = socket.socketpair()
        for end in (self._bell, self._ring):
            end.setblocking(False)
        self._selector.register(self._bell, _READ)
        self._selector.register(listener, _READ)
        self._calls: deque[Callable[[], None]] = deque()
        self._next_sweep = 0.0
        self._accept_again: float | None = None
        self._settled = threading.Event()
        self._settling = False
        self._end_by: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="server-tls", daemon=True)

    # -- from any thread ----------------------------------------------------------------------------------------------
    @property
    def open_connections(self) -> int:
        return len(self._links)

    @property
    def buffered_bytes(self) -> int:
        """What all connections hold of what was read and not passed on yet."""
        return sum(len(link.up) + len(link.down) for link in list(self._links))

    def start(self) -> None:
        """Raises RuntimeError where the system gives no more threads."""
        self._thread.start()

    def listen(self, listener: socket.socket) -> None:
        """Serve one more socket, bound and listening; owned from here on. Returns once it is served."""
        listener.setblocking(False)
        self._call_and_wait(lambda: self._add(listener))

    def leave(self, address: str) -> None:
        """Close the listener of ``address``; open connections stay. Returns once it is closed."""

        def close() -> None:
            for listener in [each for each in self._listeners if each.getsockname()[0] == address]:
                self._accept_all(listener)
                self._close_listener(listener)

        self._call_and_wait(close)

    def renew(self, context: ssl.SSLContext) -> None:
        """Shake hands with ``context`` from now on; open connections keep theirs."""
        self._context = context

    def stop_accepting(self) -> None:
        """Close the listeners and let handshakes that have begun end. Blocks about a second at most. Idempotent."""
        if self._thread.is_alive():
            self._call(self._settle)
            self._settled.wait(BEGUN_S + JOIN_S)
        else:
            for listener in self._listeners:
                listener.close()

    def stop(self, drain_s: float) -> bool:
        """Close the listeners, wait ``drain_s`` seconds at most until every client has read what is left, and end.

        The result is whether the thread has ended. Idempotent.
        """
        if self._thread.is_alive():
            self._call(lambda: self._end(drain_s))
            self._thread.join(drain_s + JOIN_S)
        if self._thread.is_alive():
            log.error("the TLS thread still runs")
            return False
        self._close_all()
        return True

    def _call_and_wait(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the thread and wait for it; here, where that thread does not run."""
        done = threading.Event()

        def act() -> None:
            try:
                call()
            finally:
                done.set()

        if self._thread.is_alive():
            self._call(act)
        else:
            act()
        while not done.wait(_TICK_S) and self._thread.is_alive():
            continue

    def _call(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        with contextlib.suppress(OSError):  # it rings already, or nobody is there to hear it
            self._ring.send(b"\0")

    # -- the thread ---------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            while not self._is_over():
                self._turn()
        except Exception:
            log.exception("the TLS thread ended by an error")
            self._close_all()
            self._on_death()
        finally:
            self._settled.set()
        self._close_all()

    def _turn(self) -> None:
        for key, events in self._selector.select(self._timeout()):
            if key.fileobj is self._bell:
                self._bell.recv(4096)
            elif key.fileobj in self._listeners:
                self._accept_all(key.fileobj)
            elif key.data in self._links:
                self._step(key.data, key.fileobj, events)
        while self._calls:
            self._calls.popleft()()
        self._sweep(time.monotonic())

    def _timeout(self) -> float | None:
        waits = self._settling or self._end_by is not None or self._accept_again is not None
        return _TICK_S if waits or self._links else None

    def _is_over(self) -> bool:
        return self._end_by is not None and (not self._links or time.monotonic() >= self._end_by)

    def _sweep(self, now: float) -> None:
        """What is due by time, looked at every :data:`_TICK_S` seconds."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + _TICK_S
        for link in [link for link in self._links if link.deadline is not None]:
            if link.deadline is not None and now >= link.deadline:
                self._drop(link)
            elif link.stage is _Stage.DIALLING and link.server is None:
                self._guarded(link, self._dial)
        if self._accept_again is not None and now >= self._accept_again:
            self._accept_again = None
            for listener in self._listeners:
                self._selector.register(listener, _READ)
        if self._settling and not any(link.stage in _EARLY for link in self._links):
            self._settling = False
            self._settled.set()

    def _settle(self) -> None:
        self._stop_listening()
        now = time.monotonic()
        for link in self._links:
            if link.stage in _EARLY and link.deadline is not None:
                link.deadline = min(link.deadline, now + (QUIET_S if link.stage is _Stage.HELLO else BEGUN_S))
        self._settling = True

    def _end(self, drain_s: float) -> None:
        self._stop_listening()
        now = time.monotonic()
        self._end_by = now + drain_s
        for link in list(self._links):
            if link.stage in _EARLY:
                self._drop(link)
            elif link.stage is _Stage.LINGERING:
                self._linger_until(link)

    def _add(self, listener: socket.socket) -> None:
        if self._settling or self._settled.is_set() or self._end_by is not None or self._closed:  # a stop came first
            listener.close()
            return
        self._listeners.append(listener)
        if self._accept_again is None:
            self._selector.register(listener, _READ)

    def _stop_listening(self) -> None:
        """Take in who waits in the backlogs, then close."""
        for listener in list(self._listeners):
            self._accept_all(listener)
            self._close_listener(listener)
        self._accept_again = None

    def _close_listener(self, listener: socket.socket) -> None:
        self._listeners.remove(listener)
        self._forget(listener)

    def _close_all(self) -> None:
        """Close what is left. Only where the thread does not run, or on it."""
        if self._closed:
            return
        self._closed = True
        for link in list(self._links):
            self._drop(link)
        for listener in self._listeners:
            listener.close()
        self._selector.close()
        self._bell.close()
        self._ring.close()

    # -- who comes ----------------------------------------------------------------------------------------------------
    def _accept_all(self, listener: socket.socket) -> None:
        while True:
            try:
                client, source = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # who knocked has left again
            except OSError as error:  # out of descriptors or memory, most likely
                log.warning("no connection could be taken in: %s", error)
                self._pause_accepting()
                return
            try:
                self._welcome(client, source)
            except OSError as error:
                log.debug("a client left before it was looked at: %s", error)
                client.close()

    def _pause_accepting(self) -> None:
        """The listeners would be ready again at once; there is nothing to be had for a while."""
        if self._accept_again is None:
            for listener in self._listeners:
                self._selector.unregister(listener)
        self._accept_again = time.monotonic() + _RETRY_S

    def _welcome(self, client: socket.socket, source: Any) -> None:
        client.setblocking(False)
        target = client.getsockname()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, (str(source[0]), int(source[1])), (str(target[0]), int(target[1])))
        if self._is_full_for(link):
            client.close()
            return
        link.deadline = time.monotonic() + self._handshake_s
        self._links.add(link)
        self._by_network[link.network] += 1
        self._selector.register(client, _READ, link)

    def _is_full_for(self, link: _Link) -> bool:
        if link.is_loopback:
            return len(self._links) >= self._connections + KEPT_FOR_LOOPBACK
        return len(self._links) >= self._connections or self._by_network[link.network] >= self._per_address

    def _drop(self, link: _Link) -> None:
        """Close both sides, whatever is on its way. Idempotent."""
        if link not in self._links:
            return
        self._links.remove(link)
        self._by_network[link.network] -= 1
        if not self._by_network[link.network]:
            del self._by_network[link.network]
        self._forget(link.client)
        self._drop_server(link)

    def _drop_server(self, link: _Link) -> None:
        if link.server is not None:
            self._forget(link.server)
            link.server = None

    def _forget(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0 and sock in self._selector.get_map():
            self._selector.unregister(sock)
        sock.close()

    # -- one connection -----------------------------------------------------------------------------------------------
    def _step(self, link: _Link, sock: Any, events: int) -> None:
        if link.stage is _Stage.HELLO:
            self._guarded(link, self._look)
        elif link.stage is _Stage.HANDSHAKE:
            self._guarded(link, self._shake_hands)
        elif link.stage is _Stage.DIALLING:
            self._guarded(link, self._connected)
        elif link.stage is _Stage.OPEN:
            self._guarded(link, lambda link: self._pump(link, sock, events))
        elif link.stage is _Stage.SAYING_GOODBYE:
            self._guarded(link, self._say_goodbye)
        else:
            self._guarded(link, self._throw_away)

    def _guarded(self, link: _Link, act: Callable[[_Link], None]) -> None:
        """Do ``act``; what fails in it ends this connection and no other."""
        try:
            act(link)
        except OSError as error:  # ssl.SSLError is one: a client that left, or speaks no TLS we take
            log.debug("the connection of %s ended while %s: %s", link.source[0], link.stage.value, error)
            self._drop(link)
        except Exception:
            log.exception("the connection of %s was ended by an error", link.source[0])
            self._drop(link)

    def _want(self, sock: socket.socket, events: int, link: _Link) -> None:
        """Be woken for ``events`` of ``sock``, 0 for none."""
        known = self._selector.get_map().get(sock)
        if not events:
            if known is not None:
                self._selector.unregister(sock)
        elif known is None:
            self._selector.register(sock, events, link)
        elif known.events != events:
            self._selector.modify(sock, events, link)

    def _look(self, link: _Link) -> None:
        """Decide by the first byte, which stays in the socket."""
        try:
            first = link.client.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        if not first:
            self._drop(link)
        elif first[0] == _HANDSHAKE:
            self._selector.unregister(link.client)  # it goes into another object
            link.client = self._context.wrap_socket(link.client, server_side=True, do_handshake_on_connect=False)
            link.stage = _Stage.HANDSHAKE
            self._shake_hands(link)
        elif first.isalpha() and first.isascii():
            self._answer_plain(link)
        else:
            self._drop(link)

    def _answer_plain(self, link: _Link) -> None:
        request_id = new_request_id()
        body = PLAIN.body(request_id)
        headers = [*json_headers(PLAIN, body), ("Connection", "close")]
        lines = [f"HTTP/1.1 {status_line(PLAIN.status)}", *(f"{name}: {value}" for name, value in headers)]
        link.client.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        lane = Lane.LOOPBACK if link.is_loopback else Lane.LAN
        self._on_refused(request_id, PLAIN.code, lane, link.source[0])
        self._linger(link)

    def _shake_hands(self, link: _Link) -> None:
        tls: Any = link.client
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self._want(tls, _READ, link)
        except ssl.SSLWantWriteError:
            self._want(tls, _WRITE, link)
        else:
            link.up += self._behind.secret + proxy_line(link.source, link.target)
            link.stage = _Stage.DIALLING
            self._want(tls, 0, link)
            self._dial(link)

    def _dial(self, link: _Link) -> None:
        try:
            link.server, connected = self._behind.dial()
        except NoRoomYet:
            return  # tried again in the next sweep
        if connected:
            self._open(link)
        else:
            self._want(link.server, _WRITE, link)

    def _connected(self, link: _Link) -> None:
        if link.server is None:
            return
        if number := link.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, "the server behind did not answer")
        self._open(link)

    def _open(self, link: _Link) -> None:
        link.stage, link.deadline = _Stage.OPEN, None
        self._pump(link, link.client, _READ)  # the first request often came with the end of the handshake

    # -- bytes --------------------------------------------------------------------------------------------------------
    def _pump(self, link: _Link, sock: Any, events: int) -> None:
        """Move what can be moved, then wait for what cannot."""
        if sock is link.client:
            if events & _READ or (link.read_needs_write and events & _WRITE):
                self._read_client(link)
        elif events & _READ:
            self._read_server(link)
        self._write_server(link)
        self._write_client(link)
        if link.server is None and not link.down:
            self._begin_goodbye(link)
        else:
            self._wait(link)

    def _wait(self, link: _Link) -> None:
        """Ask to be woken for what the next :meth:`_pump` can use."""
        reads = not link.client_ended and (link.server is None or len(link.up) <= BUFFER - _RECORD)
        client = _READ if (reads and not link.read_needs_write) or (link.down and link.write_needs_read) else 0
        if (link.down and not link.write_needs_read) or (reads and link.read_needs_write):
            client |= _WRITE
        self._want(link.client, client, link)
        if link.server is not None:
            server = _READ if len(link.down) < BUFFER else 0
            self._want(link.server, server | (_WRITE if link.up and not link.server_deaf else 0), link)

    def _read_client(self, link: _Link) -> None:
        link.read_needs_write = False
        for _ in range(_AT_ONCE):
            if link.client_ended or len(link.up) > BUFFER - _RECORD:
                return
            try:
                data = link.client.recv(_RECORD)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                link.read_needs_write = True
                return
            if not data:
                link.client_ended = True
            elif link.server is not None and not link.server_deaf:
                link.up += data

    def _read_server(self, link: _Link) -> None:
        if link.server is None or len(link.down) >= BUFFER:
            return
        try:
            data = link.server.recv(BUFFER - len(link.down))
        except BlockingIOError:
            return
        except (ConnectionResetError, BrokenPipeError):  # it closed with bytes of ours unread: all it said is here
            data = b""
        if data:
            link.down += data
            return
        self._drop_server(link)
        link.up.clear()
        link.deadline = time.monotonic() + FLUSH_S

    def _write_server(self, link: _Link) -> None:
        while link.server is not None and link.up and not link.server_deaf:
            try:
                sent = _send(link.server, link.up)
            except BlockingIOError:
                return
            except (ConnectionResetError, BrokenPipeError):  # it reads no more; what it said is still to be read
                link.server_deaf = True
                link.up.clear()
                return
            del link.up[:sent]
        if link.server is not None and link.client_ended and not link.server_deaf:
            link.server_deaf = True
            with contextlib.suppress(OSError):  # it has left already: its end is read next
                link.server.shutdown(socket.SHUT_WR)

    def _write_client(self, link: _Link) -> None:
        link.write_needs_read = False
        while link.down:
            try:
                sent = _send(link.client, link.down)
            except ssl.SSLWantWriteError:
                return
            except ssl.SSLWantReadError:
                link.write_needs_read = True
                return
            del link.down[:sent]

    # -- the end of a connection --------------------------------------------------------------------------------------
    def _begin_goodbye(self, link: _Link) -> None:
        link.stage = _Stage.SAYING_GOODBYE
        self._say_goodbye(link)

    def _say_goodbye(self, link: _Link) -> None:
        tls: Any = link.client
        try:
            tls.unwrap()
        except ssl.SSLWantWriteError:
            self._want(tls, _WRITE, link)
            return
        except ssl.SSLError as error:
            # Ours is sent and the client's was not there yet, or data came instead of it: both are thrown away below.
            log.debug("no close_notify of %s: %s", link.source[0], error)
        if link.client_ended:
            self._drop(link)
        else:
            self._linger(link)

    def _linger(self, link: _Link) -> None:
        link.stage = _Stage.LINGERING
        # Not SSLSocket's own: that forgets TLS first, and throws where it is over already.
        socket.socket.shutdown(link.client, socket.SHUT_WR)
        self._linger_until(link)
        self._want(link.client, _READ, link)

    def _linger_until(self, link: _Link) -> None:
        link.deadline = time.monotonic() + (LINGER_S if self._end_by is None else QUIET_S)

    def _throw_away(self, link: _Link) -> None:
        try:
            data = socket.socket.recv(link.client, BUFFER)  # encrypted or not: nobody reads it
        except BlockingIOError:
            return
        if not data:
            self._drop(link)


def _send(sock: socket.socket, data: bytearray) -> int:
    with memoryview(data) as whole, whole[:BUFFER] as part:
        return sock.send(part)
