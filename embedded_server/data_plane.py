"""One question from the network to the engine: admission, waiting, giving up. Knows no HTTP.

Every protocol adapter asks through :meth:`DataPlane.ask`, or :meth:`DataPlane.begin` where no thread waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from typing import Any

from embedded_server.access import Decision
from embedded_server.door import Door
from embedded_server.metrics import HttpCounts
from engine.errors import DeadlineExceeded, EngineError, RequestCancelled
from engine.ports import EnginePort
from engine.prediction import Prediction, PredictRequest

POLL_S = 0.1
"""How often a waiting request looks whether its client left or the server's drain ran out."""
DEADLINE_GRACE_S = 2.0
"""The engine answers at the deadline; this much later the server answers for it."""
RECENT_S = 0.25
"""So old may be what a question is looked at by, where the engine itself has the last word."""


class DataPlane:
    """The engine as the network's protocols see it. Thread-safe; :meth:`ask` blocks its own thread only."""

    def __init__(self, engine: EnginePort, door: Door) -> None:
        self.engine = engine
        self._door = door
        self._recent: tuple[float, dict[str, dict[str, Any]]] = (-RECENT_S, {})

    @property
    def http_counts(self) -> HttpCounts:
        return self._door.http_counts

    def visible_stats(self, asker: Decision) -> dict[str, Any]:
        """The engine's ``stats()``, with those models alone that the caller's key is for."""
        stats = self.engine.stats()
        return stats | {"models": [entry for entry in stats["models"] if asker.may_see(entry["id"])]}

    def recent_entry(self, model: str) -> dict[str, Any] | None:
        """The model's entry of ``stats()``, at most :data:`RECENT_S` old; None where there was none then."""
        asked_at, entries = self._recent
        if (now := time.monotonic()) - asked_at >= RECENT_S:
            entries = {entry["id"]: entry for entry in self.engine.stats()["models"]}
            self._recent = now, entries
        return entries.get(model)

    def begin(self, request: PredictRequest) -> Asking:
        """Hand ``request`` to the engine. What was begun must be ended. Raises HouseFull."""
        self._door.enter()
        try:
            return Asking(self._door, self.engine.predict(request), request.timeout_s)
        except BaseException:
            self._door.leave()
            raise

    def ask(self, request: PredictRequest, client_gone: Callable[[], bool]) -> Prediction:
        """The engine's answer. Raises what the engine raises, and HouseFull, Draining (the drain ran out),
        RequestCancelled (``client_gone`` said so, or the engine dropped it), DeadlineExceeded."""
        asking = self.begin(request)
        try:
            # Of a future that somebody else cancelled, wait() says nothing.
            while not (wait((asking.future,), POLL_S).done or asking.future.done()):
                if (reason := asking.no_longer(client_gone())) is not None:
                    asking.future.cancel()
                    raise reason
            return asking.result()
        finally:
            asking.end()


class Asking:
    """One question inside the engine: its ``future``, when to stop waiting for it, what came of it."""

    def __init__(self, door: Door, future: Future[Prediction], timeout_s: float) -> None:
        self.future = future
        self._door = door
        self._deadline = time.monotonic() + timeout_s + DEADLINE_GRACE_S
        self._ended = False

    def no_longer(self, client_gone: bool) -> EngineError | None:
        """Why nobody is to wait any longer, None where there is no reason."""
        if client_gone:
            return RequestCancelled("The client left before the answer was there.")
        if self._door.expired:
            return self._door.drain_error()
        if time.monotonic() >= self._deadline:
            return DeadlineExceeded("There was no answer before the request's deadline.")
        return None

    def told(self) -> Prediction | None:
        """The answer, where there is one by now."""
        if not self.future.done():
            return None
        try:
            return self.future.result()
        except Exception:  # noqa: BLE001  # result() tells it
            return None

    def result(self) -> Prediction:
        """The answer of a future that is done, counted as served. Raises what the engine raised, RequestCancelled."""
        try:
            prediction = self.future.result()
        except CancelledError as error:
            raise RequestCancelled("The request was cancelled.") from error
        self._door.count_served()
        return prediction

    def end(self) -> None:
        """It is inside no longer. Idempotent; not from two threads at once."""
        if not self._ended:
            self._ended = True
            self._door.leave()
