"""Our rules of framing against a second reader's: what both take they must read alike, and what h11 refuses for its
framing we refuse as well.

Ours may be stricter, and is: folded lines, bare line feeds, lengths given twice, both framings at once, extensions and
trailers of chunks. Where ours takes what h11 does not, it stands in :data:`LOOSER` with the reason it does no harm.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from tests.fuzz.budget import given_for_a_while, quick
from tests.fuzz.framing import Reading, Seen, ours, theirs
from tests.fuzz.mutations import mutations

_LINE = r"illegal request line: bytearray\(b['\"]"
_SPACE = r"(?:\s|\\[tnrvf]|\\x0[bc])"
LOOSER: tuple[tuple[str, str], ...] = (
    (r"Missing mandatory Host: header", "the door answers 400 bad_host"),
    (r"Found multiple Host: headers", "the door answers 400 bad_host"),
    (r"no request line received", "RFC 9112 §2.2: empty lines before a request are skipped"),
    (rf"{_LINE}.*{_SPACE}['\"]\)", "RFC 9112 §3: white space after a request line may be passed over"),
    (
        rf"{_LINE}[!-~]+ [^ ]*(?:[\x00-\x1f]|\\[xtnrvf])[^ ]* HTTP",
        "no route has such a character: the door answers 404",
    ),
)
"""What h11 refuses and we read: a regular expression for h11's sentence, and why that is no difference in framing."""

LINE_ENDS = st.sampled_from((b"\r\n",) * 30 + (b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n", b"\r\n "))
METHODS = st.sampled_from(
    (b"GET",) * 4 + (b"POST",) * 6 + (b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"G(T", b"")
)
TARGETS = st.sampled_from(
    (
        b"/",
        b"/predict/m",
        b"/predict/m?top_k=1",
        b"/a%2fb",
        b"//a",
        b"*",
        b"http://h/x",
        b"h:80",
        b"/\xe9",
        b"/a b",
        b"",
    )
)
VERSIONS = st.sampled_from(
    (b" HTTP/1.1",) * 12 + (b" HTTP/1.0", b" HTTP/1.2", b" HTTP/2.0", b" http/1.1", b" HTTP/1.10", b"", b" HTTP/1.1 ")
)
LENGTHS = st.sampled_from(
    (b"0", b"1", b"5", b"05", b"+5", b"-5", b"0x5", b"5, 5", b"5,6", b"", b" 5\t", b"5 5", b"\xb2", b"9" * 20, b"4095")
)
CODINGS = st.sampled_from(
    (b"chunked",) * 5
    + (
        b"Chunked", b" chunked ", b"chunked\x0b", b"xchunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"",
        b"chunked, chunked", b",chunked", b'"chunked"', b"chunked;q=1",
    )
)  # fmt: skip
FIELDS = st.one_of(
    st.tuples(st.sampled_from((b"Host", b"host")), st.sampled_from((b"a", b"localhost:1", b""))),
    st.tuples(
        st.sampled_from(
            (b"Content-Length",) * 4
            + (b"content-length", b"Content_Length", b"Content-Length ", b" Content-Length", b"Content-Length\x00")
        ),
        LENGTHS,
    ),
    st.tuples(
        st.sampled_from(
            (b"Transfer-Encoding",) * 4 + (b"transfer-encoding", b"Transfer_Encoding", b"Transfer-Encoding\t")
        ),
        CODINGS,
    ),
    st.tuples(st.just(b"Connection"), st.sampled_from((b"close", b"keep-alive", b"close, x", b"Upgrade"))),
    st.tuples(
        st.sampled_from((b"Upgrade", b"X", b"X-\xe9", b"X Y", b"")),
        st.sampled_from((b"a", b"", b"a\x00b", b"\x7f", b"\xff")),
    ),
)


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    out = b""
    sizes = ("%x",) * 8 + (
        "%X", "0%x", "%x;a=b", "%x ", " %x", "0x%x", "+%x", "%x\t;a", "-%x", "000000000000000000%x",
    )  # fmt: skip
    for part in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=3)):
        size = draw(st.sampled_from(sizes))
        out += (size % len(part)).encode() + draw(LINE_ENDS) + part + draw(LINE_ENDS)
    last = draw(st.sampled_from((b"0",) * 8 + (b"", b"00", b"0;x", b"-0")))
    trailer = draw(st.sampled_from((b"",) * 8 + (b"Host: b\r\n", b"Content-Length: 9\r\n")))
    return out + last + draw(LINE_ENDS) + trailer + draw(LINE_ENDS)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A request whose head and body go together more often than not."""
    end = b"\r\n" if draw(st.integers(0, 3)) else None

    def line_end() -> bytes:
        return end or draw(LINE_ENDS)

    kind = draw(st.sampled_from(("none", "length", "chunked", "anything")))
    fields = [] if not draw(st.integers(0, 19)) else [(b"Host", b"a")]
    body = b""
    if kind == "length":
        body = draw(st.binary(max_size=30))
        fields.append((b"Content-Length", str(len(body)).encode()))
    elif kind == "chunked":
        body = draw(chunks())
        fields.append((b"Transfer-Encoding", b"chunked"))
    elif kind == "anything":
        body = draw(st.one_of(chunks(), st.binary(max_size=10), st.just(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")))
    if not draw(st.integers(0, 5)):
        fields.append((b"Expect", b"100-continue"))
    fields += draw(st.lists(FIELDS, max_size=1 if kind != "anything" else 3))
    head = draw(st.sampled_from((b"",) * 12 + (b"\r\n", b"\n", b" ", b"\r\n\r\n")))
    head += draw(METHODS) + b" " + draw(TARGETS) + draw(VERSIONS) + line_end()
    for name, value in draw(st.permutations(fields)):
        separator = draw(st.sampled_from((b": ",) * 12 + (b":", b" : ", b":\t", b" ", b":\r\n ")))
        head += name + separator + value + line_end()
    return head + line_end() + body


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """Some requests one after the other, half of the time changed at random, and where they are cut."""
    data = b"".join(draw(st.lists(messages(), min_size=1, max_size=3)))
    if draw(st.booleans()):
        data = draw(mutations(data, b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"))
    return data, draw(st.lists(st.integers(1, max(1, len(data))), max_size=5))


def check(data: bytes, cuts: list[int]) -> None:
    mine, other = ours(data, cuts), theirs(data)
    event(f"ours {mine.end}, h11 {other.end}")
    compare(mine, other)
    whole = ours(data)
    assert (whole.requests, whole.end) == (mine.requests, mine.end), "how it was cut made a difference"


def compare(mine: Reading, other: Reading) -> None:
    both = min(len(mine.requests), len(other.requests))
    assert mine.requests[:both] == other.requests[:both]
    if len(mine.requests) > both and other.end == "refused":
        assert any(re.search(pattern, other.reason) for pattern, _ in LOOSER), (other.reason, mine.requests[both:])
    elif len(mine.requests) > both:
        assert other.end == "closed", mine.requests[both:]
    elif len(other.requests) > both:
        assert mine.end in ("refused", "closed"), other.requests[both:]


@quick(600)
@given(streams())
@example((b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", []))
@example((b"GET /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", [60]))
def test_both_read_the_same_requests(stream: tuple[bytes, list[int]]) -> None:
    check(*stream)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_both_read_the_same_requests_for_long() -> None:
    given_for_a_while(streams(), lambda stream: check(*stream), 2000)


@pytest.mark.parametrize("read", [ours, theirs])
def test_the_readers_read(read: object) -> None:
    """Without this, two readers that refuse everything would agree."""
    data = (
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n1\r\nz\r\n0\r\n\r\n"
        b"GET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        b"GET /d HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    seen = [Seen(b"POST", b"/a", b"abc"), Seen(b"POST", b"/b", b"xyz"), Seen(b"GET", b"/c", b"")]
    for size in (1, 7, len(data)):
        reading = read(data, range(0, len(data), size))  # type: ignore[operator]  # one of the two above
        assert (reading.requests, reading.end) == (seen, "closed")
