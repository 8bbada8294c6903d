"""Loading and unloading by the Open Inference Protocol: for programs on this computer, where the owner allows it.

No request can name a file: what can be loaded are the models that this server has had open.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import Any

import orjson

from embedded_server.access import Decision
from engine.errors import EngineError, Malformed, ModelFailed, ModelNotFound
from engine.events import ModelState
from engine.ports import EnginePort
from engine.prediction import Lane

LOAD_S = 600.0
"""How long a request waits for a load or an unload that it asked for."""
_STATES = {
    ModelState.READY: "READY",
    ModelState.STARTING: "LOADING",
    ModelState.LOADING: "LOADING",
    ModelState.WARMING: "LOADING",
    ModelState.STOPPING: "UNLOADING",
}


class NotSwitchedOn(EngineError):
    """Loading over the network is off, or the caller is not on this computer."""

    code = "not_allowed"


class Repository:
    """The models this server has seen open, by id. Thread-safe."""

    def __init__(self, engine: EnginePort, *, enabled: bool) -> None:
        self._engine = engine
        self._enabled = enabled
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}

    def index(self, asker: Decision, body: bytes) -> list[dict[str, str]]:
        """Every known model, or with ``{"ready": true}`` those that answer. Raises NotSwitchedOn, Malformed."""
        self._check(asker)
        only_ready = _object(body).get("ready") is True
        told = []
        for name, entry in self._seen().items():
            state = _STATES.get(ModelState(entry["state"]), "UNAVAILABLE") if entry["state"] else "UNAVAILABLE"
            reason = (entry["error"] or {}).get("message", "") if entry["state"] else "unloaded"
            if state == "READY" or not only_ready:
                told.append({"name": name, "version": entry["version"] or "", "state": state, "reason": reason})
        return told

    def load(self, asker: Decision, name: str, body: bytes) -> None:
        """Load, or load again beside the version that answers. Raises NotSwitchedOn, ModelNotFound, ModelFailed,
        Malformed (a request that brings files or a configuration of its own)."""
        self._check(asker)
        parameters = _object(body).get("parameters") or {}
        if parameters:
            raise Malformed("failed to load: files and configurations are not taken from requests")
        entry = self._seen().get(name)
        if entry is None:
            raise ModelNotFound("No such model is open.")
        if entry["state"]:
            ticket = (
                self._engine.reload(name)
                if entry["state"] == ModelState.READY
                else self._engine.load(entry["path"], device=entry["device"])
            )
        else:
            ticket = self._engine.load(entry["path"], device=entry["device"])
        _finish(ticket.future, name)

    def unload(self, asker: Decision, name: str) -> None:
        """End the model's worker. Raises NotSwitchedOn, ModelNotFound."""
        self._check(asker)
        if name not in self._seen():
            raise ModelNotFound("No such model is open.")
        _finish(self._engine.unload(name), name)

    def _check(self, asker: Decision) -> None:
        if not self._enabled or asker.lane is not Lane.LOOPBACK:
            raise NotSwitchedOn("explicit model load / unload is not allowed if polling is enabled")

    def _seen(self) -> dict[str, dict[str, Any]]:
        """Every model that is or was open; ``state`` is "" for those that are not any more."""
        open_now = {entry["id"]: entry for entry in self._engine.stats()["models"]}
        with self._lock:
            gone = {name: entry | {"state": "", "error": None} for name, entry in self._known.items()}
            self._known = gone | open_now
            return dict(self._known)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise Malformed(f"failed to parse the request JSON buffer: {error.msg}") from error
    if not isinstance(value, dict):
        raise Malformed("failed to parse the request JSON buffer: no object")
    return value


def _finish(future: Future[Any], name: str) -> None:
    if not wait((future,), LOAD_S).done:
        raise ModelFailed(f"failed to load '{name}', it takes longer than {LOAD_S:.0f} s")
    error = future.exception()
    if isinstance(error, ModelNotFound):
        raise error
    if error is not None:
        raise ModelFailed(f"failed to load '{name}', {error}")
