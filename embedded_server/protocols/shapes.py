"""Errors in each protocol's own shape and status, told by the path that was asked.

Native routes answer ``{"error": {"code", "message", "request_id"}}``; the Open Inference Protocol and TensorFlow
Serving ``{"error": "…"}``, with the sentences that their clients look for. Sources: triton-inference-server/server,
docs/protocol/README.md (status codes) and src/http_server.cc; triton-inference-server/core,
src/model_repository_manager/model_lifecycle.cc; tensorflow/serving, model_servers/http_rest_api_util.cc.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import orjson

from embedded_server.errors import HttpError

_OPEN_INFERENCE = re.compile(r"/v2(?:/|$)")
_TENSORFLOW_SERVING = re.compile(r"/v1/models(?:/|$)")
_V2_MODEL = re.compile(r"/v2/(?:repository/)?models/([^/]+)(?:/versions/([^/]+))?")
_V1_MODEL = re.compile(r"/v1/models/([^/:]+)(?:/(?:versions|labels)/([^/:]+))?")
_OUTSIDE = frozenset({"key_required", "key_limit", "bad_host", "bad_origin", "key_rights", "key_quota"})
"""Codes of the door, whose status and sentence are those of every route."""


def shaped(method: str, path: str, error: HttpError, request_id: str) -> tuple[HttpError, bytes]:
    """``error`` with the status and sentence of the protocol that ``path`` belongs to, and its body."""
    if _OPEN_INFERENCE.match(path):
        error = _open_inference(path, error)
    elif _TENSORFLOW_SERVING.match(path):
        error = _tensorflow_serving(method, path, error)
    else:
        return error, error.body(request_id)
    return error, orjson.dumps({"error": error.message})


def _open_inference(path: str, error: HttpError) -> HttpError:
    if error.code in _OUTSIDE:
        return error
    match = _V2_MODEL.match(path)
    model, version = (match[1], match[2]) if match else ("", None)
    named = f"'{model}'" + (f" version {version}" if version else "")
    sentences: dict[str, Callable[[], str]] = {
        "not_found": lambda: "Not Found",
        "model_not_found": lambda: f"Request for unknown model: {named} is not found",
        "loading": lambda: f"Request for unknown model: {named} is not at ready state",
        "model_failed": lambda: f"Request for unknown model: {named} is not at ready state",
        "busy": lambda: "Exceeds maximum queue size",
        "deadline_exceeded": lambda: "Request timeout expired",
        "method_not_allowed": lambda: "Method Not Allowed",
        "draining": lambda: "Server is stopping, scheduler for model has stopped accepting new inference requests",
    }
    status = {415: 400, 422: 400, 504: 503, 507: 500}.get(error.status, error.status)
    return replace(error, status=status, message=sentences.get(error.code, lambda: error.message)())


def _tensorflow_serving(method: str, path: str, error: HttpError) -> HttpError:
    if error.code in _OUTSIDE:
        return error
    match = _V1_MODEL.match(path)
    model, version = (match[1], match[2]) if match else ("", None)
    named = f"Specific({model}, {version})" if version else f"Latest({model})"
    sentences: dict[str, Callable[[], str]] = {
        "model_not_found": lambda: f"Servable not found for request: {named}",
        "loading": lambda: f"Servable not available for request: {named}",
        "model_failed": lambda: f"Servable not available for request: {named}",
        "deadline_exceeded": lambda: "Deadline exceeded",
        "method_not_allowed": lambda: f"Malformed request: {method} {path}",
        "not_found": lambda: f"Malformed request: {method} {path}",
    }
    status = {415: 400, 422: 400, 405: 400, 507: 500}.get(error.status, error.status)
    if error.code == "not_found":
        status = 400
    return replace(error, status=status, message=sentences.get(error.code, lambda: error.message)())
