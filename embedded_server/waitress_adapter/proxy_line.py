"""Who is at the other end of a connection that came through the TLS terminator: the PROXY protocol, version 1.

https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt, §2.1. Written and read by this program only, over a socket
that nobody else can open, so everything but the exact form is an error, ``PROXY UNKNOWN`` too.
"""

from __future__ import annotations

import hmac
import ipaddress
import re

LONGEST = 107
"""Bytes of the longest line, its CRLF counted (§2.1)."""

_BEGIN = b"PROXY TCP"
_LINE = re.compile(
    rb"PROXY (?:TCP4 ([0-9.]{7,15}) ([0-9.]{7,15})|TCP6 ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39})) "
    rb"(0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_HIGHEST_PORT = 65_535


class ProxyLineInvalid(Exception):
    """What came is no such line: the connection has to be closed."""


def proxy_line(source: tuple[str, int], target: tuple[str, int]) -> bytes:
    """The line for a client at ``source`` that called ``target``, each (IP address, port); an IPv6 zone is left out.

    Raises ValueError where they are no addresses of one kind.
    """
    client, server = (ipaddress.ip_address(host.partition("%")[0]) for host, _ in (source, target))
    if client.version != server.version:
        raise ValueError(f"{client} cannot have called {server}")
    return f"PROXY TCP{client.version} {client} {server} {source[1]} {target[1]}\r\n".encode("ascii")


def take_proxy_line(buffer: bytearray, secret: bytes = b"") -> tuple[str, int] | None:
    """Take ``secret`` and the line off the front of ``buffer``: the client's (address, port), None while it is not all
    there. Raises ProxyLineInvalid."""
    start = len(secret)
    if len(buffer) < start:
        return None
    if not hmac.compare_digest(bytes(buffer[:start]), secret):
        raise ProxyLineInvalid("the secret is wrong")
    line = bytes(buffer[start : start + LONGEST])
    if not line.startswith(_BEGIN[: len(line)]):
        raise ProxyLineInvalid("no PROXY line")
    end = line.find(b"\n") + 1
    if not end:
        if len(line) == LONGEST:
            raise ProxyLineInvalid("the PROXY line is too long")
        return None
    peer = _read(line[:end])
    del buffer[: start + end]
    return peer


def _read(line: bytes) -> tuple[str, int]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProxyLineInvalid("a malformed PROXY line")
    source4, target4, source6, target6, source_port, target_port = match.groups()
    try:
        if source4 is not None:
            address, target = (str(ipaddress.IPv4Address(part.decode())) for part in (source4, target4))
        else:
            address, target = (str(ipaddress.IPv6Address(part.decode())) for part in (source6, target6))
    except ValueError as error:
        raise ProxyLineInvalid("no address in the PROXY line") from error
    if max(int(source_port), int(target_port)) > _HIGHEST_PORT:
        raise ProxyLineInvalid(f"no port in the PROXY line to {target}")
    return address, int(source_port)
