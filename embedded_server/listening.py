"""Binding the listening socket, and saying in a sentence why it could not be bound."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable

from engine.errors import ServerStartError

BACKLOG = 1024
FREE_PORT_TRIES = 50

_SO_EXCLUSIVEADDRUSE = ~socket.SO_REUSEADDR  # winsock2.h: ((int)(~SO_REUSEADDR))
_WSAEACCES, _WSAEADDRINUSE, _WSAEADDRNOTAVAIL = 10013, 10048, 10049  # winsock2.h
_IN_USE = frozenset({errno.EADDRINUSE, _WSAEADDRINUSE})
_DENIED = frozenset({errno.EACCES, errno.EPERM})


def sharing_option(platform: str = sys.platform) -> int:
    """The socket option that keeps a port ours alone, yet lets it be bound again at once after a stop.

    On Windows SO_REUSEADDR would let a second program take over a port in use, and SO_EXCLUSIVEADDRUSE forbids that;
    elsewhere SO_REUSEADDR only skips the wait for closed connections.
    """
    return _SO_EXCLUSIVEADDRUSE if platform == "win32" else socket.SO_REUSEADDR


def bind_listener(host: str, port: int, platform: str = sys.platform) -> socket.socket:
    """A socket listening on ``host`` and ``port`` (0: any free one).

    Raises ServerStartError: ``port_in_use`` (with ``free_port`` where one is near), ``permission_denied``,
    ``address_unavailable``.
    """
    family, address = _resolve(host, port)
    try:
        return _listen(family, address, platform)
    except OSError as error:
        raise _start_error(error, host, port, family, address, platform) from error


def bind_listeners(addresses: Iterable[str], port: int) -> dict[str, socket.socket]:
    """A listener for each of ``addresses``, all on one port; one that has gone meanwhile is left out.

    Raises ServerStartError as :func:`bind_listener`, and then none is open. The first address has to be there.
    """
    listeners: dict[str, socket.socket] = {}
    try:
        for address in addresses:
            try:
                listeners[address] = bind_listener(address, port)
            except ServerStartError as error:
                if error.code != "address_unavailable" or not listeners:
                    raise
                continue
            port = int(listeners[address].getsockname()[1])
    except BaseException:
        for listener in listeners.values():
            listener.close()
        raise
    return listeners


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ServerStartError(
            f"This computer has no address {host}.", code="address_unavailable", port=port
        ) from error
    family, _, _, _, address = sorted(found, key=lambda info: info[0] != socket.AF_INET)[0]
    return family, (str(address[0]), int(address[1]))


def _listen(family: socket.AddressFamily, address: tuple[str, int], platform: str) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, sharing_option(platform), 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _start_error(
    error: OSError, host: str, port: int, family: socket.AddressFamily, address: tuple[str, int], platform: str
) -> ServerStartError:
    number = error.errno
    # An exclusively bound port answers WSAEACCES on Windows, where ports need no privilege.
    if number in _IN_USE or (platform == "win32" and number in (_WSAEACCES, errno.EACCES)):
        free = _free_port(family, address, platform)
        rest = "" if free is None else f" {free} is free."
        return ServerStartError(
            f"Port {port} is in use by another program.{rest}", code="port_in_use", port=port, free_port=free
        )
    if number in _DENIED:
        return ServerStartError(
            f"This account may not open port {port}. Ports from 1024 up need no permission.",
            code="permission_denied",
            port=port,
        )
    return ServerStartError(
        f"This computer has no address {host}.", code="address_unavailable", port=port, details=str(error)
    )


def _free_port(family: socket.AddressFamily, address: tuple[str, int], platform: str) -> int | None:
    host, port = address
    for candidate in range(port + 1, min(port + 1 + FREE_PORT_TRIES, 65_536)):
        try:
            _listen(family, (host, candidate), platform).close()
        except OSError:
            continue
        return candidate
    return None
