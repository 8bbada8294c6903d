"""The PROXY line as haproxy's document writes it, and everything near it refused."""

from __future__ import annotations

import pytest

from embedded_server.waitress_adapter.proxy_line import LONGEST, ProxyLineInvalid, proxy_line, take_proxy_line

LINE = b"PROXY TCP4 255.255.255.255 127.0.0.1 65535 8765\r\n"
HEAD = b"GET / HTTP/1.1\r\n"


def test_the_longest_lines_of_the_document_fit() -> None:
    wide = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    line = proxy_line((wide, 65_535), (wide, 65_535))
    assert line == f"PROXY TCP6 {wide} {wide} 65535 65535\r\n".encode()
    assert len(line) <= LONGEST
    assert take_proxy_line(bytearray(line)) == (wide, 65_535)


def test_what_was_written_is_read_and_the_rest_stays() -> None:
    assert proxy_line(("255.255.255.255", 65_535), ("127.0.0.1", 8765)) == LINE
    buffer = bytearray(LINE + HEAD)
    assert take_proxy_line(buffer) == ("255.255.255.255", 65_535)
    assert buffer == HEAD
    assert take_proxy_line(bytearray(proxy_line(("fe80::7%eth0", 1), ("fe80::1%eth0", 2)))) == ("fe80::7", 1)


@pytest.mark.parametrize("secret", [b"", b"0123456789abcdef\r\n"])
def test_it_may_come_in_single_bytes(secret: bytes) -> None:
    buffer, whole = bytearray(), secret + LINE
    for byte in whole[:-1]:
        buffer.append(byte)
        assert take_proxy_line(buffer, secret) is None
    buffer += whole[-1:] + HEAD
    assert take_proxy_line(buffer, secret) == ("255.255.255.255", 65_535)
    assert buffer == HEAD


def test_without_the_secret_nobody_is_named() -> None:
    with pytest.raises(ProxyLineInvalid):
        take_proxy_line(bytearray(LINE), b"0123456789abcdef\r\n")


@pytest.mark.parametrize(
    "line",
    [
        HEAD,
        b"P" + b"x" * 5,
        b"proxy TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\n",
        b"PROXY TCP4  10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2 \r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 65536 1\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 01 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 -1 2\r\n",
        b"PROXY TCP4 10.0.0.256 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 10.0.0.01 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY TCP6 ::1 ::1::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP5 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 " + b"1" * LONGEST,
        b"\r\n\r\n\x00\r\nQUIT\n",
    ],
)
def test_everything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ProxyLineInvalid):
        take_proxy_line(bytearray(line))


def test_addresses_of_two_kinds_are_no_connection() -> None:
    with pytest.raises(ValueError, match="cannot have called"):
        proxy_line(("10.0.0.1", 1), ("::1", 2))
