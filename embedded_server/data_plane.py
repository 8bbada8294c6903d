"""One question from the network to the engine: admission, waiting, giving up. Knows no HTTP.

Every protocol adapter asks through :meth:`DataPlane.ask`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from typing import Any

from embedded_server.access import Decision
from embedded_server.door import Door
from embedded_server.metrics import HttpCounts
from engine.errors import DeadlineExceeded, RequestCancelled
from engine.ports import EnginePort
from engine.prediction import Prediction, PredictRequest

POLL_S = 0.1
"""How often a waiting request looks whether its client left or the server's drain ran out."""
DEADLINE_GRACE_S = 2.0
"""The engine answers at the deadline; this much later the server answers for it."""


class DataPlane:
    """The engine as the network's protocols see it. Thread-safe; :meth:`ask` blocks its own thread only."""

    def __init__(self, engine: EnginePort, door: Door) -> None:
        self.engine = engine
        self._door = door

    @property
    def http_counts(self) -> HttpCounts:
        return self._door.http_counts

    def visible_stats(self, asker: Decision) -> dict[str, Any]:
        """The engine's ``stats()``, with those models alone that the caller's key is for."""
        stats = self.engine.stats()
        return stats | {"models": [entry for entry in stats["models"] if asker.may_see(entry["id"])]}

    def ask(self, request: PredictRequest, client_gone: Callable[[], bool]) -> Prediction:
        """The engine's answer. Raises what the engine raises, and Busy (house full), Draining (the drain ran out),
        RequestCancelled (``client_gone`` said so, or the engine dropped it), DeadlineExceeded."""
        with self._door.request_inside():
            prediction = self._wait(self.engine.predict(request), request.timeout_s, client_gone)
        self._door.count_served()
        return prediction

    def _wait(self, future: Future[Prediction], timeout_s: float, client_gone: Callable[[], bool]) -> Prediction:
        deadline = time.monotonic() + timeout_s + DEADLINE_GRACE_S
        # Of a future that somebody else cancelled, wait() says nothing.
        while not (wait((future,), POLL_S).done or future.done()):
            if client_gone():
                future.cancel()
                raise RequestCancelled("The client left before the answer was there.")
            if self._door.expired:
                future.cancel()
                raise self._door.drain_error()
            if time.monotonic() >= deadline:
                future.cancel()
                raise DeadlineExceeded("There was no answer before the request's deadline.")
        try:
            return future.result()
        except CancelledError as error:
            raise RequestCancelled("The request was cancelled.") from error
