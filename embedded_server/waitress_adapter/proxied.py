"""waitress behind the TLS terminator: its connections name their client in a PROXY line before anything else."""

from __future__ import annotations

import logging
import socket
from typing import Any

from waitress.adjustments import Adjustments

from embedded_server.waitress_adapter.channel import Channel
from embedded_server.waitress_adapter.proxy_line import ProxyLineInvalid, take_proxy_line
from embedded_server.waitress_adapter.server import DrainableServer

log = logging.getLogger(__name__)

NOT_NAMED_YET = ("", 0)


class ProxiedChannel(Channel):
    """A channel whose address is the one that its PROXY line names. Until that came, nothing else is read."""

    _front: bytearray | None = None
    """What came of the line so far, None once it was read."""

    def __init__(self, server: ProxiedServer, sock: socket.socket, adj: Adjustments, map: Any = None) -> None:
        self._front = bytearray()
        super().__init__(server, sock, NOT_NAMED_YET, adj, map=map)

    def received(self, data: bytes) -> bool:
        if self._front is None:
            return super().received(data)
        server: Any = self.server
        self._front += data
        try:
            peer = take_proxy_line(self._front, server.secret)
        except ProxyLineInvalid as error:
            log.error("a connection to the inner socket was closed: %s", error)
            self.handle_close()
            return False
        if peer is None:
            return False
        rest, self._front = bytes(self._front), None
        self.addr = peer
        if not server.admits(self):
            self.handle_close()
            return False
        return super().received(rest)


class ProxiedServer(DrainableServer):
    """The server over a private listener. ``port`` is the one that clients called, ``secret`` what a connection has to
    send first where anybody on this computer could open one."""

    def __init__(self, *args: Any, port: int, secret: bytes, **options: Any) -> None:
        self._port = port
        self.secret = secret
        super().__init__(*args, **options)

    def getsockname(self) -> tuple[str, str]:
        return "localhost", str(self._port)

    def set_socket_options(self, conn: socket.socket) -> None:
        if conn.family != getattr(socket, "AF_UNIX", None):  # whose sockets know no TCP_NODELAY
            super().set_socket_options(conn)

    def admits(self, channel: ProxiedChannel) -> bool:
        """Whether there is room for this client beside the others; if not, it is told so and its socket is closed."""
        others = [other for other in self.active_channels.values() if other is not channel]
        if self.has_room(channel.peer, others):
            return True
        conn: Any = channel.socket
        self.turn_away(conn, channel.peer)
        return False

    def _open_channel(
        self, server: DrainableServer, conn: socket.socket, addr: Any, adj: Adjustments, map: Any = None
    ) -> Channel | None:
        """Let everybody in: how many there may be is known once the line was read."""
        return ProxiedChannel(self, conn, adj, map=map)
