"""A stricter reader of HTTP/1.1 messages than waitress 3.0.2: what two readers could take differently is refused.

RFC 9112 §5.2 (folded lines), §6.1 and §6.3 (framing), §7.1 (chunked).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from io import BytesIO
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser, ParsingError, TransferEncodingNotImplemented
from waitress.receiver import ChunkedReceiver
from waitress.utilities import (
    BadRequest,
    Error,
    RequestEntityTooLarge,
    RequestHeaderFieldsTooLarge,
    ServerNotImplemented,
)

from embedded_server.access import Decision
from embedded_server.body_budget import BodyBudget

MOST_CHUNKS = 65_536
MOST_LINE = 8192
"""Bytes of a request line (RFC 9112 §3 asks for 8000 at least)."""
_LONGEST_LINE = 18  # 16 hexadecimal digits and CRLF
_LENGTH, _CODING = b"\r\ncontent-length:", b"\r\ntransfer-encoding:"  # waitress refuses a space before the colon
_PIECE = 1 << 13
"""Bytes of a body below which pieces are put together as they come."""
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_DIGITS = 18
"""Of a length in a plain head."""
_PLAIN = re.compile(
    rb"([A-Z]++) (/(?!/)[!\"$->@-~]*+)(\?[!\"$-~]*+)? HTTP/(1\.[01])\r\n"  # origin form, without a fragment
    rb"((?:[!#$%&'*+\-.^`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n)++)\r\n"  # no underscore: such fields are left out
)
"""A head that leaves no reader a choice: see :meth:`StrictParser._take_plain`. Nothing in it is tried twice."""
_USUAL = (
    "Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection", "Content-Encoding",
    "Content-Length", "Content-Type", "Cookie", "Expect", "Host", "Inference-Header-Content-Length", "Origin",
    "Referer", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "User-Agent", "X-Request-Timeout-Ms",
)  # fmt: skip
_KEYS = {name: usual.upper().replace("-", "_") for usual in _USUAL for name in (usual, usual.lower())}
"""Names of fields as most clients write them -> what waitress calls them."""


class ChunkedBody(ChunkedReceiver):
    """The chunked coding without extensions, trailers or more than :data:`MOST_CHUNKS` chunks.

    Reads each byte once; waitress's own reader copies what is left of its input for every chunk.
    """

    _left = 0
    _chunks = 0
    _line = b""
    _expects = "size"  # "size" | "data" | "end of chunk" | "end of body"

    def received(self, s: bytes) -> int:
        """Take ``s``; the result is how many of its bytes belong to this body."""
        if self.completed:
            return 0
        at = 0
        while at < len(s) and not self.completed and self.error is None:
            at = self._data(s, at) if self._expects == "data" else self._take_line(s, at)
        return at if self.completed else len(s)

    def _data(self, s: bytes, at: int) -> int:
        end = min(len(s), at + self._left)
        self.buf.append(s[at:end])
        self._left -= end - at
        if not self._left:
            self._expects = "end of chunk"
        return end

    def _take_line(self, s: bytes, at: int) -> int:
        newline = s.find(b"\n", at, at + _LONGEST_LINE)
        end = newline + 1 if newline >= 0 else min(len(s), at + _LONGEST_LINE)
        self._line += s[at:end]
        if len(self._line) > _LONGEST_LINE or (newline < 0 and len(self._line) == _LONGEST_LINE):
            self.error = BadRequest("Invalid chunk size")
        elif newline >= 0:
            line, self._line = self._line, b""
            self._read_line(line)
        return end

    def _read_line(self, line: bytes) -> None:
        text = line[:-2]
        if not line.endswith(b"\r\n"):
            self.error = BadRequest("Invalid line end in a chunk")
        elif self._expects == "size":
            self._begin_chunk(text)
        elif text:
            self.error = BadRequest("Chunk not properly terminated")
        elif self._expects == "end of chunk":
            self._expects = "size"
        else:
            self.completed = True

    def _begin_chunk(self, size: bytes) -> None:
        self._chunks += 1
        if _SIZE.fullmatch(size) is None or self._chunks > MOST_CHUNKS:
            self.error = BadRequest("Invalid chunk size or too many chunks")
            return
        self._left = int(size, 16)
        self._expects = "data" if self._left else "end of body"


class FixedBody:
    """A body of a known length in the pieces in which it came. They are joined when somebody reads, by whom it is read;
    waitress's own receiver copies each of them, and whoever reads copies all."""

    error = None

    def __init__(self, length: int) -> None:
        self._left = length
        self._length = 0
        self._pieces: list[bytes | bytearray] = []

    @property
    def completed(self) -> bool:
        return not self._left

    def __len__(self) -> int:
        """How much of it is here."""
        return self._length

    def received(self, data: bytes) -> int:
        """Take ``data``; the result is how many of its bytes belong to this body."""
        taken = min(len(data), self._left)
        piece = data if taken == len(data) else data[:taken]
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) < _PIECE:
            last += piece
        else:
            # Of a client that sends byte by byte not a Python object for each of them.
            self._pieces.append(piece if taken >= _PIECE or taken == self._left else bytearray(piece))
        self._left -= taken
        self._length += taken
        return taken

    def take(self) -> bytes:
        """All that came, which is not kept here any longer."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def getfile(self) -> BodyFile:
        return BodyFile(self)

    def getbuf(self) -> FixedBody:
        return self

    def close(self) -> None:
        """Forget it."""
        self._pieces = []


class BodyFile:
    """A body as PEP 3333 has it read (``wsgi.input``). Reading all of it at once, first, copies nothing more."""

    def __init__(self, body: FixedBody) -> None:
        self._body = body

    @cached_property
    def _file(self) -> BytesIO:
        return BytesIO(self._body.take())

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readline(self, size: int = -1) -> bytes:
        return self._file.readline(size)

    def readlines(self, hint: int = -1) -> list[bytes]:
        return self._file.readlines(hint)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)


class UriTooLong(BadRequest):
    code = 414
    reason = "URI Too Long"


class RequestTimeout(BadRequest):
    code = 408
    reason = "Request Timeout"


class NoRoom(Error):
    """All the memory that bodies may have is taken."""

    code = 503
    reason = "Service Unavailable"


class Gate(Protocol):
    """Who is asked about a head that announces a body."""

    def check(self, request: StrictParser) -> Decision:
        """Decide over ``request`` by its head."""

    @property
    def budget(self) -> BodyBudget:
        """Where the memory of the body is taken from."""


class Ride(Protocol):
    """A request on the hot lane (:mod:`embedded_server.waitress_adapter.lane_loop`)."""

    @property
    def task(self) -> Any:
        """What writes the answer."""

    def client_left(self) -> None:
        """Nobody reads the answer any more. On the loop."""


class StrictParser(HTTPRequestParser):
    """waitress's parser, and 400 for: folded lines, bare line feeds, Content-Length with Transfer-Encoding, either of
    them twice, Transfer-Encoding in HTTP/1.0, other versions of HTTP; 414 for a request line over :data:`MOST_LINE`.

    What most clients write is read in one pass, which leaves what waitress's own reader would; everything else, and so
    all that is refused, by that reader behind our checks. Reads each byte of a head once. A head whose body is still to
    come is shown to ``gate`` before it is read: where that says no, ``refused`` holds its verdict, the request is
    complete without a body, and its connection has to end.
    """

    proxy_scheme = proxy_netloc = fragment = ""
    first_line: Any  # the stub names other types
    command: Any
    body_rcv: Any
    refused: Decision | None = None
    ride: Ride | None = None
    """Where the hot lane answers it: what does."""

    def __init__(self, adj: Adjustments, gate: Gate | None = None) -> None:
        self.headers = {}
        self.adj = adj
        self._gate = gate
        self._head = bytearray()
        self._taken = 0

    @property
    def ends_connection(self) -> bool:
        """Whether what follows on the connection cannot be told from the body of this request."""
        return self.error is not None or self.refused is not None

    def received(self, data: bytes) -> int:
        """Take ``data``; the result is how many of its bytes belong to this request. What follows a message that ends
        its connection is thrown away with it."""
        if self.completed:
            return 0
        if self.body_rcv is not None:
            consumed = self._take_body(data)
        else:
            consumed = (0 if self._head else self._take_plain(data)) or self._take_head(data)
        if self.ends_connection:
            self.completed = True
            self.expect_continue = False  # nobody should go on sending what is refused already
            return len(data)
        return consumed

    def close(self) -> None:
        """Forget the body and give its memory back. Idempotent."""
        super().close()
        if self._gate is not None and self._taken:
            self._gate.budget.give(self._taken)
            self._taken = 0

    def fail(self, error: Error) -> None:
        """End this request in the middle: ``error`` is its answer."""
        self.error = error
        self.completed = True
        self.expect_continue = False

    def _take_plain(self, data: bytes) -> int:
        """Read a whole head, and a body that is here as well; 0, and nothing is touched, where it is not plain.

        Plain is: a target that starts with one slash, HTTP/1.0 or 1.1, fields of which none comes twice, no
        transfer coding, a length of digits alone, none of the limits near.
        """
        end = data.find(b"\r\n\r\n", 0, MOST_LINE) + 4
        adj: Any = self.adj
        if not 4 <= end < adj.max_request_header_size or (match := _PLAIN.fullmatch(data, 0, end)) is None:
            return 0
        method, path, query, version, fields = match.groups()
        headers: dict[str, str] = {}
        for line in fields[:-2].decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            key = _KEYS.get(name) or name.upper().replace("-", "_")
            if key in headers:
                return 0
            headers[key] = value.strip(" \t")
        digits = headers.get("CONTENT_LENGTH", "0")
        if "TRANSFER_ENCODING" in headers or not digits.isdecimal() or len(digits) > _DIGITS:
            return 0
        self.first_line = data[: match.end(4)]
        self.headers = headers
        self.header_bytes_received = end
        self.headers_finished = True
        self.command = method.decode()
        self.path = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
        self.request_uri = (path + query if query else path).decode()
        self.query = query[1:].decode() if query else ""
        self.version = version.decode()
        self.url_scheme = adj.url_scheme
        connection = headers["CONNECTION"].lower() if "CONNECTION" in headers else ""
        if version == b"1.1":
            self.connection_close = connection == "close"
            self.expect_continue = "EXPECT" in headers and headers["EXPECT"].lower() == "100-continue"
        else:
            self.connection_close = connection != "keep-alive"
        length = int(digits)
        self.content_length = length
        if not length:
            self._begin_body(len(data) - end)
        elif length > len(data) - end or self.expect_continue or length >= adj.max_request_body_size:
            self.body_rcv = FixedBody(length)
            self._begin_body(len(data) - end)
        else:
            self.body_rcv = FixedBody(length)
            self.body_bytes_received = self.body_rcv.received(data[end : end + length])
            self.completed = True
            return end + length
        return end

    def _take_head(self, data: bytes) -> int:
        head, before = self._head, len(self._head)
        head += data
        blank = 0
        while head.startswith(b"\r\n", blank):  # RFC 9112 §2.2: empty lines before a request
            blank += 2
        if blank:
            del head[:blank]
            before = max(0, before - blank)
        end = head.find(b"\r\n\r\n", max(0, before - 3))
        limit = self.adj.max_request_header_size
        length = end + 4 if end >= 0 else len(head)
        self.header_bytes_received = length + blank
        if head.find(b"\n", 0, MOST_LINE) < 0 <= length - MOST_LINE:
            self._start_line_alone(UriTooLong(f"longer than {MOST_LINE} bytes"))
        elif length + blank >= limit:
            self._start_line_alone(RequestHeaderFieldsTooLarge(f"exceeds {limit} bytes"))
        elif head.count(b"\n", before, length) != _line_ends(head, before, length):
            self._start_line_alone(BadRequest("Bare LF"))
        elif end >= 0:
            rest = len(head) - length
            self._read_head(bytes(head[:length]), rest)
            return len(data) - rest
        return len(data)

    def _start_line_alone(self, error: Error) -> None:
        """waitress's tasks read fields that only a parsed head has; HEAD alone decides over what is answered."""
        super().parse_header(b"HEAD / HTTP/1.0\r\n" if self._head.startswith(b"HEAD ") else b"GET / HTTP/1.0\r\n")
        self.error = error

    def _read_head(self, head: bytes, rest: int) -> None:
        """``rest`` bytes came with the head and lie behind it."""
        self.headers_finished = True
        self._head = bytearray()
        try:
            self.parse_header(head)
        except ParsingError as error:
            self.error = BadRequest(str(error))
            return
        except TransferEncodingNotImplemented as error:
            self.error = ServerNotImplemented(str(error))
            return
        self._begin_body(rest)

    def _begin_body(self, rest: int) -> None:
        """The head was read. ``rest`` bytes are here behind it."""
        if self.body_rcv is None:
            self.completed = True
            self.expect_continue = False  # waitress would forget that this request is complete (RFC 9110 §10.1.1)
            return
        if not self.chunked and self.content_length <= rest:
            return  # its body is here: nothing is left to be spared, and the application asks the door in a moment
        verdict = self._gate.check(self) if self._gate is not None else None
        if verdict is not None and not verdict.allowed:
            self.refused = verdict
            self.body_rcv = None
        elif self.content_length >= self.adj.max_request_body_size:
            self.error = RequestEntityTooLarge(f"exceeds {self.adj.max_request_body_size} bytes")
        else:
            self._reserve(self.content_length)

    def _take_body(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.chunked and self.error is None:
            self._reserve(self.body_bytes_received)
        return consumed

    def _reserve(self, size: int) -> None:
        """Take memory for a body of ``size`` bytes in all."""
        if self._gate is None or size <= self._taken:
            return
        if self._gate.budget.take(size - self._taken):
            self._taken = size
        else:
            self.error = NoRoom("no memory is left for bodies")

    def parse_header(self, header_plus: bytes) -> None:
        """Raises ParsingError (400), TransferEncodingNotImplemented (501)."""
        coded = _check_framing(header_plus)
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # of int() over 4300 digits, of urlsplit() over half a bracket
            raise ParsingError(f"Unreadable head: {error}") from error
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("Not HTTP/1.0 or HTTP/1.1")
        if coded and self.version != "1.1":
            raise ParsingError("Transfer-Encoding needs HTTP/1.1")
        if self.chunked and self.body_rcv is not None:
            self.body_rcv = ChunkedBody(self.body_rcv.getbuf())
        elif self.body_rcv is not None:
            self.body_rcv = FixedBody(self.content_length)


def _line_ends(head: bytearray, start: int, end: int) -> int:
    """Line feeds from ``start`` on that a carriage return precedes."""
    return head.count(b"\r\n", max(0, start - 1), end)


def _check_framing(header_plus: bytes) -> bool:
    """Whether the head has Transfer-Encoding. Raises ParsingError."""
    if b"\r\n " in header_plus or b"\r\n\t" in header_plus:
        raise ParsingError("Folded header line")
    head = header_plus.lower()
    lengths, codings = head.count(_LENGTH), head.count(_CODING)
    if lengths + codings > 1:
        raise ParsingError("Ambiguous framing")
    if lengths or codings:
        start = head.find(_LENGTH if lengths else _CODING) + 2
        value = head[start : head.find(b"\r\n", start)].partition(b":")[2]
        if b"," in value or not value.strip(b" \t"):
            raise ParsingError("Ambiguous framing")
    return codings > 0
