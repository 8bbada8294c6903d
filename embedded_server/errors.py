"""The engine's errors as HTTP: code -> status, and the JSON envelope every native route answers with.

The envelope is ``{"error": {"code", "message", "request_id"}}`` (``contract.md``, "HTTP, native routes").
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import orjson

from engine.errors import UNUSABLE_INPUT_CODES, EngineError, ModelError, Unavailable

STATUS: dict[str, int] = {
    "malformed": 400,
    "bad_host": 400,
    "key_required": 401,
    "bad_origin": 403,
    "not_allowed": 403,
    "key_rights": 403,
    "not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "too_slow": 408,
    "prediction_expired": 410,
    "body_too_large": 413,
    "input_too_large": 413,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "quarantined": 422,
    **dict.fromkeys(UNUSABLE_INPUT_CODES, 422),
    "key_limit": 429,
    "key_quota": 429,
    "headers_too_large": 431,
    "internal": 500,
    "not_implemented": 501,
    "cancelled": 503,
    "busy": 503,
    "loading": 503,
    "worker_restarted": 503,
    "draining": 503,
    "model_failed": 503,
    "deadline_exceeded": 504,
    "device_oom": 507,
}
"""Every code a client can meet. ``bad_host`` is 403 where the host is well-formed but foreign."""

MESSAGE: dict[str, str] = {
    "malformed": "The request is not well-formed HTTP.",
    "bad_host": "This server does not answer to that Host.",
    "bad_origin": "Requests from other web sites are not answered.",
    "key_required": "This server needs a valid key, sent as 'Authorization: Bearer KEY'.",
    "key_limit": "Too many wrong keys came from this address. Wait a minute.",
    "key_quota": "This key has asked as often as it may, or has as many questions open. Ask again later.",
    "key_rights": "This key may not do that.",
    "not_found": "There is nothing at this address.",
    "model_not_found": "No such model is open.",
    "not_allowed": "This server does not answer this address.",
    "method_not_allowed": "This address does not take that method.",
    "body_too_large": "The body is larger than this server accepts.",
    "too_slow": "The request came too slowly.",
    "uri_too_long": "The request's first line is longer than this server accepts.",
    "headers_too_large": "The request's headers are larger than this server accepts.",
    "not_implemented": "The request uses a transfer coding this server does not know.",
    "busy": "The server has as many requests as it takes. Ask again shortly.",
    "draining": "The server is being switched off.",
    "internal": "Something went wrong inside the server. Its log names this request.",
}
"""The fixed sentence of each code that the server itself says, before or around the engine."""

SECURITY_HEADERS: tuple[tuple[str, str], ...] = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
"""On every answer; the pages replace the policy by their own."""

_PATH = re.compile(r"""(?<![\w.])(?:[A-Za-z]:[\\/]|\\\\|/)(?:[^\s\\/:'"]+[\\/])*([^\s\\/:'"]+)""")
"""An absolute path: not the slash inside ``image/png``."""


@dataclass(frozen=True, slots=True)
class HttpError:
    """One error answer, ready to be written. ``headers`` come on top of :data:`SECURITY_HEADERS`."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = field(default=())

    def body(self, request_id: str) -> bytes:
        """The JSON envelope."""
        return orjson.dumps({"error": {"code": self.code, "message": self.message, "request_id": request_id}})


def door_error(code: str, *, status: int | None = None, retry_after_s: float | None = None) -> HttpError:
    """The answer to a request the server itself turns away. Raises KeyError for a code without a fixed sentence."""
    status = STATUS[code] if status is None else status
    headers: tuple[tuple[str, str], ...] = ()
    if status == 401:
        headers = (("WWW-Authenticate", 'Bearer realm="deskside"'),)
    if retry_after_s is not None or status == 503:
        headers = (*headers, _retry_after(1.0 if retry_after_s is None else retry_after_s))
    return HttpError(status, code, MESSAGE[code], headers)


def engine_error(error: EngineError) -> HttpError:
    """The answer for an error that came out of the engine.

    A :class:`~engine.errors.ModelError` other than "not found" is the owner's business: the client reads 503
    ``model_failed``. Paths are cut down to the file's name, ``details`` are never sent, and a code that is in no table
    reads as ``internal``.
    """
    code = error.code
    if isinstance(error, ModelError) and code != "model_not_found":
        code = "model_failed"
    if code not in STATUS or code == "internal":
        return door_error("internal")
    if code in ("not_found", "model_not_found"):
        return door_error(code)
    status = STATUS[code]
    headers: tuple[tuple[str, str], ...] = ()
    if status == 503:
        headers = (_retry_after(error.retry_after_s if isinstance(error, Unavailable) else 1.0),)
    return HttpError(status, code, without_paths(error.message), headers)


def without_paths(text: str) -> str:
    """``text`` with every file path cut down to its last part: the network learns no folder and no user name."""
    return _PATH.sub(r"\1", text)


def _retry_after(seconds: float) -> tuple[str, str]:
    return ("Retry-After", str(max(1, math.ceil(seconds))))
