"""Errors as replies: what was raised on the way to an answer, in the shape of the protocol that asked."""

from __future__ import annotations

import logging
from typing import cast

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.wrappers import Request

from embedded_server.door import DECISION, REQUEST_ID, Door, HouseFull
from embedded_server.errors import HttpError, door_error, engine_error
from embedded_server.protocols.questions import Reply
from embedded_server.protocols.shapes import shaped
from engine.errors import EngineError

log = logging.getLogger(__name__)


def failure(door: Door, request: Request, error: Exception) -> Reply:
    """The reply to a request that ended with ``error``. What nobody foresaw is logged and reads as ``internal``."""
    if isinstance(error, EngineError):
        answer = engine_error(error)
        if answer.status >= 500 and answer.code == "internal":
            log.error("request %s: %s: %s %s", request_id(request), error.code, error, error.details)
        if isinstance(error, HouseFull):
            _note_refusal(door, request, error)
        return error_reply(request, answer)
    if isinstance(error, HTTPException):
        return error_reply(request, _http_exception(request, error), _allowed(error))
    log.error("request %s failed", request_id(request), exc_info=error)
    return error_reply(request, door_error("internal"))


def error_reply(request: Request, error: HttpError, more: tuple[tuple[str, str], ...] = ()) -> Reply:
    error, body = shaped(request.method, request.path, error, request_id(request))
    return Reply(body, status=error.status, headers=(*error.headers, *more))


def request_id(request: Request) -> str:
    return cast(str, request.environ[REQUEST_ID])


def _http_exception(request: Request, error: HTTPException) -> HttpError:
    if error.code == 404:
        return door_error("model_not_found" if request.path.startswith("/predict/") else "not_found")
    by_status = {405: "method_not_allowed", 413: "body_too_large", 400: "malformed"}
    return door_error(by_status.get(error.code or 500, "internal"))


def _allowed(error: HTTPException) -> tuple[tuple[str, str], ...]:
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return (("Allow", ", ".join(sorted(error.valid_methods))),)
    return ()


def _note_refusal(door: Door, request: Request, error: HouseFull) -> None:
    # What the engine refuses itself is in its own list.
    decision = request.environ[DECISION]
    door.refusals.add(
        request_id(request), error.code, lane=decision.lane, client=decision.client, path=request.path,
        size=request.content_length or 0, key=decision.key_name,
    )  # fmt: skip
