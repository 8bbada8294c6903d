"""A stricter reader of HTTP/1.1 messages than waitress 3.0.2: what two readers could take differently is refused.

RFC 9112 §5.2 (folded lines), §6.1 and §6.3 (framing), §7.1 (chunked).
"""

from __future__ import annotations

import re

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.utilities import BadRequest

MOST_CHUNKS = 65_536
_LONGEST_LINE = 18  # 16 hexadecimal digits and CRLF
_BARE_LF = re.compile(rb"(?<!\r)\n")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")


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


class StrictParser(HTTPRequestParser):
    """waitress's parser, and 400 for: folded lines, bare line feeds, Content-Length with Transfer-Encoding, either of
    them twice, Transfer-Encoding in HTTP/1.0."""

    def received(self, data: bytes) -> int:
        in_head = not self.headers_finished
        last = self.header_plus[-1:]
        consumed: int = super().received(data)
        if in_head and not self.completed and not self.headers_finished and _BARE_LF.search(last + data, len(last)):
            self.error = BadRequest("Bare LF")
            self.completed = True
        if self.error is not None:
            self.expect_continue = False  # nobody should go on sending what is refused already
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Raises ParsingError (400)."""
        coded = _check_framing(header_plus)
        super().parse_header(header_plus)
        if coded and self.version != "1.1":
            raise ParsingError("Transfer-Encoding needs HTTP/1.1")
        if self.chunked and self.body_rcv is not None:
            self.body_rcv = ChunkedBody(self.body_rcv.getbuf())


def _check_framing(header_plus: bytes) -> bool:
    """Whether the head has Transfer-Encoding. Raises ParsingError."""
    seen: set[bytes] = set()
    for line in header_plus.split(b"\r\n")[1:]:
        if line.startswith((b" ", b"\t")):
            raise ParsingError("Folded header line")
        name, _, value = line.partition(b":")
        name = name.lower()
        if name not in (b"content-length", b"transfer-encoding"):
            continue
        if seen or b"," in value:
            raise ParsingError("Ambiguous framing")
        seen.add(name)
    return b"transfer-encoding" in seen
