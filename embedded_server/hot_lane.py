"""The hot lane: questions that reach the engine, and are answered, without a thread that waits. Knows no waitress.

What it does not take goes to Flask's view: everything that is no question, every head that the door refuses, every
route with a hook of Flask's. Both ways use the same functions, so that their answers are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from flask import Flask, signals
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Request

from embedded_server.access import Decision, target_path
from embedded_server.data_plane import Asking, DataPlane
from embedded_server.door import DECISION, REQUEST_ID, Door, Visit, body_length, cors_headers
from embedded_server.errors import SECURITY_HEADERS
from embedded_server.failures import failure
from embedded_server.protocols.questions import ASK, Ask, Question, Reply
from engine.errors import EngineError
from engine.prediction import Prediction

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)

READ_AT_ONCE = 1 << 20
"""Bytes of a body: a larger one, and a packed one, is read by a thread, so that nobody else waits for it."""
SMALL = 1 << 16
"""Bytes: a longer answer is written by a thread, which may have to wait for its client."""
EXTENSION = "deskside"
"""Where an application keeps what its lane is made of."""
_ROUTES = 256
_HOOKS = ("before_request_funcs", "after_request_funcs", "teardown_request_funcs", "url_value_preprocessors")
_SIGNALS = ("request_started", "request_finished", "request_tearing_down", "got_request_exception")
_Hooks = dict[tuple[str, str | None], Any]


class LaneParts:
    """What :func:`hot_lane` makes a lane of; ``hooks`` are those of the application itself."""

    def __init__(self, app: Flask, plane: DataPlane, door: Door) -> None:
        self.plane = plane
        self.door = door
        self.hooks = _hooks(app)


class HotLane:
    """The questions of one application by their endpoints. Thread-safe; nothing here blocks."""

    def __init__(self, app: Flask, parts: LaneParts, asks: Mapping[str, Ask]) -> None:
        self._plane = parts.plane
        self._door = parts.door
        self._asks = asks
        self._map = app.url_map.bind("localhost")
        self._route = lru_cache(_ROUTES)(self._find)

    def open(self, decision: Decision, environ: WSGIEnvironment) -> Passage | None:
        """Let a POST in whose head the door has just allowed by ``decision``; None where Flask's view is to answer it.

        What was let in must be asked, and finished.
        """
        target = str(environ["REQUEST_URI"])
        path = target_path(target)
        route = self._route(path) if decision.right == "infer" else None
        if route is None or decision.preflight:
            return None
        if decision.key is not None:
            if self._door.key_limits.enter(decision.key) is not None:
                return None
            self._door.key_limits.used(decision.key)
        visit = Visit(self._door, decision, "POST", path, body_length(environ))
        environ[DECISION], environ[REQUEST_ID] = decision, visit.request_id
        request = Request(environ, populate_request=False)
        return Passage(self._plane, self._door, visit, request, route[0], route[1])

    def _find(self, path: str) -> tuple[Ask, dict[str, Any]] | None:
        try:
            endpoint, parts = self._map.match(path, "POST")
        except HTTPException:
            return None
        ask = self._asks.get(endpoint)
        return None if ask is None else (ask, dict(parts))


class Passage:
    """One question on its way: asked once, finished once; it may be given up in between. Nothing here raises."""

    def __init__(
        self, plane: DataPlane, door: Door, visit: Visit, request: Request, ask: Ask, parts: Mapping[str, Any]
    ) -> None:
        self._plane = plane
        self._door = door
        self._visit = visit
        self._request = request
        self._ask = ask
        self._parts = parts
        self._question: Question | None = None
        self._asking: Asking | None = None
        self._error: Exception | None = None

    @property
    def asks_much(self) -> bool:
        """Whether reading what is asked takes its time: a large body, or a packed one."""
        environ = self._request.environ
        return body_length(environ) > READ_AT_ONCE or "HTTP_CONTENT_ENCODING" in environ

    @property
    def says_much(self) -> bool:
        """Whether writing the answer takes its time."""
        asking = self._asking
        if asking is None or self._error is not None:
            return False
        prediction = asking.told()
        return prediction is not None and _weight(prediction) > SMALL

    def ask(self, on_done: Callable[[], None]) -> None:
        """Hand the question to the engine; ``on_done`` is called, on whatever thread, once there is an answer."""
        try:
            if self._error is None:
                self._question = self._ask(self._request, **self._parts)
                self._asking = self._plane.begin(self._question.request)
        except Exception as error:  # noqa: BLE001  # told, and logged, by finish()
            self._error = error
        asking = self._asking
        if asking is None:
            on_done()
            return
        if self._error is not None:  # given up meanwhile
            asking.future.cancel()
        asking.future.add_done_callback(lambda _: on_done())

    def no_longer(self, client_gone: bool = False) -> EngineError | None:
        """Why nobody is to wait for the answer any longer, None where there is no reason."""
        asking = self._asking
        return asking.no_longer(client_gone) if asking is not None else None

    def give_up(self, reason: EngineError) -> bool:
        """Ask no more; where there is no answer yet, ``reason`` is one. False where it is being asked right now
        (``on_done`` is then still to come) and where it is finished."""
        asking = self._asking
        if asking is None or not asking.future.done():
            self._error = reason
        if asking is None:
            return False
        asking.future.cancel()
        return True

    def finish(self) -> tuple[str, list[tuple[str, str]], bytes]:
        """The answer: status line, headers, body. It is counted, and written down, as given."""
        try:
            reply = self._reply()
        except Exception as error:  # noqa: BLE001  # failure() logs what nobody foresaw
            reply = failure(self._door, self._request, error)
        decision = self._visit.decision
        headers = [
            ("Content-Type", reply.content_type),
            ("Content-Length", str(len(reply.body))),
            *reply.headers,
            *SECURITY_HEADERS,
            *cors_headers(decision),
        ]
        if decision.key is not None:
            self._door.key_limits.leave(decision.key)
        self._asking = None  # its future knows who waited for it: a ring otherwise
        self._visit.end(reply.status, len(reply.body))
        return status_text(reply.status), headers, reply.body

    def _reply(self) -> Reply:
        if self._asking is None or self._question is None:
            assert self._error is not None
            raise self._error
        self._asking.end()
        if self._error is not None:
            raise self._error
        return self._question.reply(self._asking.result())


def status_text(status: int) -> str:
    """The status as Werkzeug writes it."""
    return f"{status} {HTTP_STATUS_CODES[status].upper()}"


def hot_lane(app: Flask) -> HotLane | None:
    """The lane of an application; None, and a line in the log, where it cannot have one. Routes with a hook of their
    own, or of their blueprint, are left to Flask, with a line in the log for each."""
    try:
        parts: LaneParts = app.extensions[EXTENSION]
        found = {
            key for key, value in _hooks(app).items() if parts.hooks.get(key) != value
        }  # what somebody else has registered
        asks = {name: ask for name, view in app.view_functions.items() if (ask := getattr(view, ASK, None)) is not None}
        for endpoint in list(asks):
            scopes = (None, endpoint.rpartition(".")[0])
            if hooks := sorted(name for name, scope in found if scope in scopes):
                log.warning("no hot lane for %s: there are hooks of Flask's (%s)", endpoint, ", ".join(hooks))
                del asks[endpoint]
        return HotLane(app, parts, asks) if asks else None
    except (AttributeError, KeyError, TypeError) as error:
        log.warning("no hot lane: Flask is not as it is known here (%r)", error)
        return None


def _hooks(app: Flask) -> _Hooks:
    """Everything that may run before, after or around a view, by its kind and the blueprint it is for (None: all)."""
    hooks: _Hooks = {
        (name, scope): tuple(functions) for name in _HOOKS for scope, functions in getattr(app, name).items()
    }
    for scope, by_code in app.error_handler_spec.items():
        hooks["error_handler_spec", scope] = {
            (code, kind): handler for code, handlers in by_code.items() for kind, handler in handlers.items()
        }
    hooks["teardown_appcontext_funcs", None] = tuple(app.teardown_appcontext_funcs)
    hooks["wsgi_app", None] = app.wsgi_app
    hooks["request_class", None], hooks["response_class", None] = app.request_class, app.response_class
    for name in _SIGNALS:
        hooks[name, None] = bool(getattr(signals, name).has_receivers_for(app))
    # What is empty is not there: looking into these tables makes entries.
    return {key: value for key, value in hooks.items() if value}


def _weight(prediction: Prediction) -> int:
    """About how many bytes there are to be written."""
    if prediction.outputs is not None:
        return sum(array.nbytes for array in prediction.outputs.values())
    return _size(prediction.predictions if prediction.results is None else prediction.results)


def _size(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_size, value))
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, np.ndarray):
        return value.nbytes
    return len(value) if isinstance(value, bytes | str) else 8
