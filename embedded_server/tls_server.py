"""The server with TLS in front: terminator and waitress, started and stopped as one."""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from embedded_server.private_socket import open_private_socket
from embedded_server.tls_terminator import HANDSHAKE_S, OnRefused, TlsTerminator
from embedded_server.waitress_adapter import HttpServer
from embedded_server.waitress_adapter.proxied import ProxiedServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LAST_BYTES_S = 3.0
"""After the drain: how long clients may take to read what is left."""
MORE_THAN_BEHIND = 64
"""Connections above the server's own cap, which answers 503: only who is far beyond is closed without a word."""


class TlsServer:
    """:class:`HttpServer` behind a :class:`TlsTerminator` on ``listener``; both own what they are given.

    ``options`` are HttpServer's. Raises ServerStartError where there is no inner connection to be had.
    """

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        limits: dict[str, Any],
        context: ssl.SSLContext,
        *,
        connections: int,
        connections_per_address: int,
        on_refused: OnRefused,
        on_death: Callable[[], None],
        handshake_s: float = HANDSHAKE_S,
        **options: Any,
    ) -> None:
        self._behind = open_private_socket()
        try:
            self._http = HttpServer(
                app,
                self._behind.listener,
                limits | {"url_scheme": "https"},
                connections=connections,
                connections_per_address=connections_per_address,
                on_refused=on_refused,
                on_death=on_death,
                server_class=functools.partial(
                    ProxiedServer, port=int(listener.getsockname()[1]), secret=self._behind.secret
                ),
                **options,
            )
            self.terminator = TlsTerminator(
                listener,
                context,
                self._behind,
                connections=connections + MORE_THAN_BEHIND,
                connections_per_address=2 * connections_per_address,
                handshake_s=handshake_s,
                on_refused=on_refused,
                on_death=on_death,
            )
        except BaseException:
            self._behind.close()
            raise

    def start(self) -> None:
        """Raises RuntimeError where the system gives no more threads."""
        self._http.start()
        self.terminator.start()

    def listen(self, listener: socket.socket) -> None:
        """As :meth:`HttpServer.listen`."""
        self.terminator.listen(listener)

    def leave(self, address: str) -> None:
        """As :meth:`HttpServer.leave`."""
        self.terminator.leave(address)

    def renew(self, context: ssl.SSLContext) -> None:
        """Shake hands with ``context`` from now on; open connections keep theirs. Any thread."""
        self.terminator.renew(context)

    def stop(self, drain_s: float, on_expired: Callable[[], None]) -> bool:
        """As :meth:`HttpServer.stop`: whoever was shaken hands with is answered, then everything is closed."""
        self._http.say_goodbye()
        self.terminator.stop_accepting()
        ended = self._http.stop(drain_s, on_expired)
        ended = self.terminator.stop(LAST_BYTES_S) and ended
        self._behind.close()
        return ended
