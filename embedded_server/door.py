"""The door in front of every route: the head check, the drain, the count of requests inside, and what was turned away.

One :class:`Door` belongs to one running server; :class:`DoorMiddleware` puts it in front of a WSGI application.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from embedded_server.access import DECIDING, AccessRules, BadKeyLog, Decision, check_head, normal_peer, target_path
from embedded_server.errors import SECURITY_HEADERS, HttpError, door_error
from embedded_server.key_limits import KeyLimits
from embedded_server.metrics import HttpCounts, protocol_of
from embedded_server.protocols.shapes import shaped
from embedded_server.request_log import RequestLog
from engine.errors import Busy, Draining
from engine.prediction import Lane
from engine.serving_types import RequestRecord, RequestState

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

REQUEST_ID = "deskside.request_id"
DECISION = "deskside.decision"
REFUSALS = 100
PAUSE_RETRY_S = 10.0
CALLERS = 1000
CALLER_FOR_S = 300.0
"""So long after its last answer a caller counts as being there."""

_MODEL_PATH = re.compile(r"/(?:predict|v2/models|v1/models)/([a-z0-9][a-z0-9._-]{0,63})(?=$|[/:])")
_CORS_HEADERS = (
    "Accept", "Authorization", "Content-Encoding", "Content-Type", "Inference-Header-Content-Length",
    "X-Request-Timeout-Ms",
)  # fmt: skip
_ENVIRON_NAMES = tuple((name, f"HTTP_{name.upper().replace('-', '_')}") for name in DECIDING)
_ids = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)  # the workers of one host would give out the same ones
_REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


def new_request_id() -> str:
    """16 hexadecimal digits; names one request in the answer and in the log. No secret, so no call of the system."""
    return f"{_ids.getrandbits(64):016x}"


def status_line(status: int) -> str:
    return f"{status} {_REASONS[status]}"


def json_headers(error: HttpError, body: bytes) -> list[tuple[str, str]]:
    """All headers of an error answer."""
    return [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        *SECURITY_HEADERS,
        *error.headers,
    ]


class HouseFull(Busy):
    """As many requests are inside as the server takes; the engine has not seen this one."""


class Refusals:
    """The last :data:`REFUSALS` requests that were turned away, newest first. Thread-safe."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._records: deque[RequestRecord] = deque(maxlen=REFUSALS)
        self._changed = changed

    def add(
        self, request_id: str, code: str, *, lane: Lane, client: str, path: str = "", size: int = 0, key: str = ""
    ) -> None:
        model = match[1] if (match := _MODEL_PATH.match(path)) else ""
        record = RequestRecord(
            request_id, time.time(), str(lane), client, model, RequestState.REFUSED, size, code=code, key=key
        )
        with self._lock:
            self._records.appendleft(record)
        self._changed()

    def newest_first(self) -> tuple[RequestRecord, ...]:
        with self._lock:
            return tuple(self._records)


class Door:
    """What one running server lets in. ``rules`` may be replaced while it runs; everything is thread-safe.

    ``draining`` turns new requests away; ``expired`` ends those still waiting for the engine.
    """

    def __init__(
        self,
        rules: AccessRules,
        *,
        requests_inside: int = 256,
        refusals: Refusals | None = None,
        changed: Callable[[], None] = lambda: None,
        log_: RequestLog | None = None,
    ) -> None:
        self.bad_keys = BadKeyLog()
        self.key_limits = KeyLimits()
        self.http_counts = HttpCounts()
        self.log = log_ or RequestLog("off")
        self.refusals = refusals or Refusals()
        self.draining = False
        self.expired = False
        self._changed = changed
        self._limit = requests_inside
        self._lock = threading.Lock()
        self._inside = 0
        self._served = 0
        self._callers: OrderedDict[str, float] = OrderedDict()
        self.rules = rules

    @property
    def rules(self) -> AccessRules:
        return self._rules

    @rules.setter
    def rules(self, rules: AccessRules) -> None:
        self._rules = replace(rules, blocked=self.bad_keys)

    @property
    def served(self) -> int:
        """Predictions answered over HTTP."""
        return self._served

    @property
    def inside(self) -> int:
        return self._inside

    def enter(self) -> None:
        """Count one request as inside the engine until it leaves. Raises HouseFull at once where there is no room."""
        with self._lock:
            if self._inside >= self._limit:
                raise HouseFull("The server has as many requests as it takes. Ask again shortly.")
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1

    def check(self, method: str, target: str, headers: Iterable[tuple[str, str]], peer: str) -> Decision:
        """What to say to a request by its head, before its body is read. Counts nothing and never blocks."""
        decision = check_head(method, target, headers, peer, self.rules)
        if not decision.allowed:
            return decision
        if self.draining:
            return replace(decision, allowed=False, status=503, code="draining", reason="draining")
        if decision.right == "infer":
            if decision.key is not None and (wait_s := self.key_limits.wait_s(decision.key)) is not None:
                return replace(
                    decision, allowed=False, status=429, code="key_quota", reason="key_quota", retry_after_s=wait_s
                )
            if self._inside >= self._limit:
                return replace(decision, allowed=False, status=503, code="busy", reason="busy", retry_after_s=1.0)
        return decision

    def count_served(self) -> None:
        with self._lock:
            self._served += 1
        self._changed()

    def note_caller(self, address: str) -> None:
        """A caller from the network was answered. At most :data:`CALLERS` are remembered."""
        with self._lock:
            self._callers[address] = time.time()
            self._callers.move_to_end(address)
            while len(self._callers) > CALLERS:
                self._callers.popitem(last=False)
        self._changed()

    def callers(self) -> dict[str, float]:
        """When each caller from the network was answered last, in Unix seconds."""
        with self._lock:
            return dict(self._callers)

    def drain_error(self) -> Draining:
        return Draining("The server is being switched off.")


class Visit:
    """One request that came to the door, from its head to its line in the log. Counted as open until :meth:`end`.

    ``decision`` is what the door said to its head. ``received``: bytes of its body.
    """

    def __init__(self, door: Door, decision: Decision, method: str, path: str, received: int) -> None:
        self.request_id = new_request_id()
        self.decision = decision
        self._door = door
        self._method = method
        self._path = path
        self._received = received
        self._began = time.monotonic()
        door.http_counts.begin()

    def end(self, status: int, sent: int) -> None:
        """It was answered, with ``sent`` bytes of body. Once."""
        door = self._door
        door.http_counts.end(protocol_of(self._path), status)
        if self.decision.lane is Lane.LAN and status < 400:
            door.note_caller(self.decision.client)
        door.log.write(
            self.request_id, self.decision, self._method, self._path, status, sent=sent, received=self._received,
            seconds=time.monotonic() - self._began,
        )  # fmt: skip


class DoorMiddleware:
    """WSGI: asks the door before the application sees the request, and writes down how it ended. The body is not read
    here."""

    def __init__(self, app: WSGIApplication, door: Door) -> None:
        self._app = app
        self._door = door

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        target, method = request_target(environ), environ["REQUEST_METHOD"]
        path = target_path(target)
        peer = environ.get("REMOTE_ADDR", "")
        decision = environ.get(DECISION)  # of a head that was refused before its body was read
        if not isinstance(decision, Decision):
            decision = check_head(method, target, request_headers(environ), peer, self._door.rules)
        environ[DECISION] = decision
        visit = Visit(self._door, decision, method, path, body_length(environ))
        environ[REQUEST_ID] = visit.request_id
        answered = _Answered()

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if decision.cors_origin:
                headers = [*headers, *cors_headers(decision)]
            answered.status = int(status[:3])
            answered.sent = 0
            for name, value in headers:
                if name.lower() == "content-length" and value.isdecimal():
                    answered.sent = int(value)
                    break
            return start_response(status, headers, exc_info)

        try:
            return self._answer(environ, start, decision, visit.request_id, path, peer)
        finally:
            visit.end(answered.status, answered.sent)

    def _answer(
        self, environ: WSGIEnvironment, start: Any, decision: Decision, request_id: str, path: str, peer: str
    ) -> Iterable[bytes]:
        if decision.preflight:
            start("204 No Content", [*preflight_headers(environ), *SECURITY_HEADERS, ("Content-Length", "0")])
            return []
        key, retry_s = decision.key, None
        if decision.allowed and not self._door.draining:
            if key is None:
                return self._app(environ, start)
            self._door.key_limits.used(key)
            if decision.right != "infer":
                return self._app(environ, start)
            if (retry_s := self._door.key_limits.enter(key)) is None:
                try:
                    return self._app(environ, start)
                finally:
                    self._door.key_limits.leave(key)
            error, reason = door_error("key_quota", retry_after_s=retry_s), "key_quota"
        elif decision.allowed:
            error, reason = door_error("draining"), "draining"
        else:
            error, reason = self._refusal(decision, peer), decision.reason
        if error.status != 404:
            self._door.refusals.add(
                request_id, reason, lane=decision.lane, client=decision.client, path=path,
                size=body_length(environ), key=key.name if key is not None else "",
            )  # fmt: skip
        error, body = shaped(environ["REQUEST_METHOD"], path, error, request_id)
        start(status_line(error.status), json_headers(error, body))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    def _refusal(self, decision: Decision, peer: str) -> HttpError:
        if decision.reason == "key_invalid" and decision.lane is Lane.LAN:
            self._door.bad_keys.add(normal_peer(peer))
        retry_after_s = decision.retry_after_s or {"key_limit": 60.0, "paused": PAUSE_RETRY_S}.get(decision.reason)
        return door_error(decision.code, status=decision.status, retry_after_s=retry_after_s)


@dataclass(slots=True)
class _Answered:
    status: int = 500
    sent: int = 0


def cors_headers(decision: Decision) -> list[tuple[str, str]]:
    """What a page of a named origin needs to read an answer; nothing for everybody else."""
    if not decision.cors_origin:
        return []
    return [
        ("Access-Control-Allow-Origin", decision.cors_origin),
        ("Access-Control-Expose-Headers", "Inference-Header-Content-Length, Retry-After"),
        ("Vary", "Origin"),
    ]


def preflight_headers(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    """The answer to "may I": methods and headers that the routes know, for ten minutes."""
    headers = [
        ("Access-Control-Allow-Methods", "GET, POST"),
        ("Access-Control-Allow-Headers", ", ".join(_CORS_HEADERS)),
        ("Access-Control-Max-Age", "600"),
    ]
    if environ.get("HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK") == "true":
        headers.append(("Access-Control-Allow-Private-Network", "true"))
    return headers


def body_length(environ: WSGIEnvironment) -> int:
    """Bytes of the body, as far as its head tells; 0 where it does not."""
    return int(length) if (length := environ.get("CONTENT_LENGTH", "")).isdecimal() else 0


def request_target(environ: WSGIEnvironment) -> str:
    """The request target as sent. Hosts name it differently; where none does, the decoded path stands in for it."""
    for name in ("REQUEST_URI", "RAW_URI"):
        if isinstance(target := environ.get(name), str) and target:
            prefix = environ.get("SCRIPT_NAME", "")
            return target.removeprefix(prefix) if prefix else target
    return str(environ.get("PATH_INFO", ""))


def request_headers(environ: WSGIEnvironment) -> Iterator[tuple[str, str]]:
    """The headers that decide (:data:`~embedded_server.access.DECIDING`) as (name, value), names in lower case."""
    for name, key in _ENVIRON_NAMES:
        if isinstance(value := environ.get(key), str):
            yield name, value
