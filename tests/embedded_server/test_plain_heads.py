"""The one pass that reads plain heads, against waitress's own reader: what it takes, that one takes, and leaves the
same; what that one refuses is refused."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from embedded_server.waitress_adapter.parsing import _KEYS, MOST_LINE, StrictParser
from tests.fuzz.budget import quick
from tests.fuzz.mutations import mutations
from tests.fuzz.test_framing import messages

LIMITS = Adjustments(max_request_header_size=16_384, max_request_body_size=200)
LEFT = (
    "first_line", "command", "version", "request_uri", "proxy_scheme", "proxy_netloc", "path", "query", "fragment",
    "content_length", "chunked", "connection_close", "expect_continue", "url_scheme", "headers_finished", "completed",
    "empty", "error",
)  # fmt: skip
"""What waitress's channel and tasks, or ours, read of a request whose head was read."""
TOKEN = "!#$%&'*+-.^`|~" + string.ascii_letters + string.digits
LENGTHS = (("Content-Length", "0"), ("Content-Length", ""), ("Content-Length", "\xb2"), ("content-length", "9" * 20))
OTHERS = (("Expect", "100-Continue"), ("Connection", "CLOSE"), ("Connection", "Keep-Alive"))
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))


class Slow(StrictParser):
    """Reads no head as a plain one."""

    def _take_plain(self, data: bytes) -> int:
        return 0


class Counted(StrictParser):
    plain = 0

    def _take_plain(self, data: bytes) -> int:
        self.plain = super()._take_plain(data)
        return self.plain


def head_of(parser: Any, data: bytes) -> tuple[dict[str, Any], int]:
    """What ``parser`` leaves once it has all of ``data`` or is complete, and how many bytes it took."""
    taken = 0
    while taken < len(data) and not parser.completed:
        taken += parser.received(data[taken:])
    left = {name: getattr(parser, name, None) for name in LEFT} | {"headers": list(parser.headers.items())}
    left["error"] = None if parser.error is None else (parser.error.code, parser.error.body)
    left["body"] = parser.get_body_stream().read()
    left["bodied"] = parser.body_rcv is not None
    left["body length"] = parser.body_bytes_received
    left["head length"] = parser.header_bytes_received
    parser.close()
    return left, taken


def check(data: bytes) -> bool:
    """Whether the head of ``data`` was plain."""
    fast = Counted(LIMITS)
    mine, taken = head_of(fast, data)
    assert (mine, taken) == head_of(Slow(LIMITS), data)
    # waitress itself: another limit of bodies (it has none for those that come with their heads) is not of the head's.
    reader: Any = HTTPRequestParser(LIMITS)
    try:
        theirs, _ = head_of(reader, data)
    except ValueError:  # F11
        assert mine["error"] is not None
        assert mine["error"][0] == 400
        return False
    if theirs["error"] is not None and mine["head length"] < LIMITS.max_request_header_size:
        assert mine["error"] is not None or theirs["error"][0] == 413
    if fast.plain:
        assert theirs["error"] is None or theirs["error"][0] == 413
        of_the_head = {name for name in LEFT if name not in ("completed", "error", "expect_continue")} | {"headers"}
        assert {name: mine[name] for name in of_the_head} == {name: theirs[name] for name in of_the_head}
    return fast.plain > 0


@st.composite
def plain_messages(draw: st.DrawFn) -> bytes:
    """What most clients might write, and some that is not far from it."""
    method = draw(st.sampled_from(("GET", "POST", "HEAD", "OPTIONS", "DELETE", "M-SEARCH", "get")))
    path = "/" + draw(st.text(VISIBLE, max_size=12))
    query = draw(st.sampled_from(("", "?", "?a=b&c=%2f", "?a?b", "#f", "?a#b")))
    version = draw(st.sampled_from(("1.1", "1.1", "1.1", "1.0", "1.2")))
    names = st.one_of(st.sampled_from(sorted(_KEYS)), st.text(TOKEN, min_size=1, max_size=8), st.just("Content_Type"))
    values = st.text(VISIBLE + " \t\x80\xa0\x85\xff", max_size=12)
    fields = draw(st.lists(st.tuples(names, values), max_size=5, unique_by=lambda field: field[0].upper()))
    fields = [(name, value) for name, value in fields if name.lower() not in ("content-length", "expect")]
    body = draw(st.binary(max_size=260))
    whole = str(len(body))
    fields += draw(st.sampled_from(([], *([(name, value)] for name, value in LENGTHS)))) if not body else []
    fields += draw(st.sampled_from(([("Content-Length", whole)], [("content-length", f"00{whole} ")]))) if body else []
    fields += draw(st.sampled_from(([],) * 3 + tuple([field] for field in OTHERS)))
    space = draw(st.sampled_from(("", " ", "  ", "\t ")))
    lines = [f"{name}:{space}{value}\r\n" for name, value in draw(st.permutations(fields))]
    head = f"{method} {path}{query} HTTP/{version}\r\n" + "".join(lines)
    return (head + "\r\n").encode("latin-1") + body[: draw(st.sampled_from((None, None, 3)))]


@quick(1200)
@given(plain_messages())
@example(b"GET /%2f%zz%?%41 HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"GET //a HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\nabcde")
@example(b"POST / HTTP/1.1\r\nX-A: 5\r\nx-a: 6\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nContent_Length: 5\r\nContent-Length: 2\r\n\r\nabcde")
@example(b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde")
@example(b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 200\r\n\r\n" + b"x" * 300)
@example(b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\x7f\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n")
@example(b"GET / HTTP/1.1\r\n\r\n")
def test_near_a_plain_head_both_read_alike(data: bytes) -> None:
    event("plain" if check(data) else "not plain")


@quick(600)
@given(st.data())
def test_far_from_one_both_read_alike(data: st.DataObject) -> None:
    message = data.draw(messages())
    if data.draw(st.booleans()):
        message = data.draw(mutations(message, b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"))
    event("plain" if check(message) else "not plain")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /predict/wine HTTP/1.1\r\nHost: localhost:8765\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /models?x=/a:b HTTP/1.1\r\nhost: [::1]:8765\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
        b"POST /x%20y HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer k\r\nX: \xe9\r\nContent-Length: 9\r\n\r\nabc",
    ],
)
def test_what_clients_write_is_plain(head: bytes) -> None:
    """Without this, a pass that takes nothing would agree with every reader."""
    assert check(head)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nX_Y: a\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * MOST_LINE + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000000000000000\r\n\r\n",
    ],
)
def test_what_is_none_is_left_to_the_other_reader(head: bytes) -> None:
    assert not check(head)


def test_names_of_fields_stand_for_what_waitress_makes_of_them() -> None:
    assert {name: name.upper().replace("-", "_") for name in _KEYS} == _KEYS
