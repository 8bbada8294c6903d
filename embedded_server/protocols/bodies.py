"""What every protocol's view does with a request before it asks the engine: read the body, find caller and deadline.

Bodies are handed on as they came; a compressed one is unpacked to at most as many bytes as a plain one may have.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import orjson
from flask import Response
from werkzeug.wrappers import Request

from embedded_server.access import Decision
from embedded_server.door import DECISION
from engine.errors import InputTooLarge, Malformed, UnsupportedMediaType, UnusableInput

MODEL_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
TIMEOUT = "HTTP_X_REQUEST_TIMEOUT_MS"
"""The same in WSGI's words."""
DEFAULT_TIMEOUT_MS = 30_000
LONGEST_TIMEOUT_MS = 60_000
_CHUNK = 1 << 20
_CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""Content codings (RFC 9110 §8.4.1) and what zlib calls them; deflate is a zlib stream (RFC 1950)."""


class UnknownCoding(UnsupportedMediaType):
    """A Content-Encoding that is none of those known here."""


def json_response(value: Any) -> Response:
    data = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(data, content_type="application/json")


def header(request: Request, name: str) -> str | None:
    """A header field by WSGI's name for it (``HTTP_ACCEPT``): what ``request.headers`` says, with less on the way."""
    value: str | None = request.environ.get(name)
    return value


def caller(request: Request) -> Decision:
    """Who asks, as the door found it."""
    decision = request.environ[DECISION]
    if not isinstance(decision, Decision):
        raise TypeError("the door has not seen this request")
    return decision


def client_gone(request: Request) -> bool:
    """Whether the other end has closed its connection, where the host can tell."""
    gone = request.environ.get("waitress.client_disconnected")
    return bool(gone()) if gone is not None else False


def timeout_ms(header: str | None) -> int:
    """The request's deadline in milliseconds. Raises Malformed unless it is a whole number from 1 to 60000."""
    if header is None:
        return DEFAULT_TIMEOUT_MS
    if re.fullmatch(r"[0-9]{1,5}", header) and 1 <= int(header) <= LONGEST_TIMEOUT_MS:
        return int(header)
    raise Malformed(f"{TIMEOUT_HEADER} must be a whole number of milliseconds from 1 to {LONGEST_TIMEOUT_MS}.")


def read_body(request: Request, limit: int, *, packed: bool = False, empty: bool = False) -> bytes:
    """The whole body, unpacked where ``packed`` bodies are taken.

    Raises InputTooLarge (``body_too_large``), Malformed (cut short, or no such packed data), UnsupportedMediaType
    (packed where that is not taken), UnknownCoding, UnusableInput (empty, unless ``empty`` bodies are taken).
    """
    coding = (header(request, "HTTP_CONTENT_ENCODING") or "identity").strip().lower() or "identity"
    if coding != "identity" and not packed:
        raise UnsupportedMediaType("Compressed bodies are not taken: send it without Content-Encoding.")
    if coding != "identity" and coding not in _CODINGS:
        raise UnknownCoding(f"Unsupported Content-Encoding: {coding[:40]}", code="not_implemented")
    data = _received(request, limit)
    if coding != "identity" and data:
        data = _unpacked(data, coding, limit)
    if not data and not empty:
        raise UnusableInput("The request has no body.", code="nothing_to_predict")
    return data


def _received(request: Request, limit: int) -> bytes:
    environ = request.environ
    told = environ.get("CONTENT_LENGTH", "")
    plain = told.isdecimal() and len(told) < 20 and "HTTP_TRANSFER_ENCODING" not in environ
    length = int(told) if plain else request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    if length is None and not environ.get("wsgi.input_terminated"):
        length = 0
    stream = environ["wsgi.input"]
    most = limit + 1 if length is None else length
    parts: list[bytes] = []
    received = 0
    while received < most and (
        part := stream.read(min(_CHUNK, most - received) if length is None else most - received)
    ):
        parts.append(part)
        received += len(part)
    if received > limit:
        raise _too_large(limit)
    if length is not None and received < length:
        raise Malformed("The body ended before its Content-Length.")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> InputTooLarge:
    return InputTooLarge(f"The body is larger than {limit} bytes.", code="body_too_large")


def _unpacked(data: bytes, coding: str, limit: int) -> bytes:
    unpacker = zlib.decompressobj(_CODINGS[coding])
    try:
        plain = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise Malformed(f"The body is not {coding} data.") from error
    if len(plain) > limit:
        raise InputTooLarge(f"The body is larger than {limit} bytes once it is unpacked.", code="body_too_large")
    if not unpacker.eof:
        raise Malformed(f"The body's {coding} data are cut short.")
    return plain
