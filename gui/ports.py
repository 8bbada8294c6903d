"""What the window needs of the server, as a Protocol: ``gui`` never imports ``embedded_server``; ``main`` joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from engine.serving_types import KeyInfo, ServerScope, ServerState


class ServerPort(Protocol):
    """The embedded server as the window sees it. ``start`` and ``stop`` block: call them off the GUI thread."""

    @property
    def state(self) -> ServerState:
        """The newest state; never blocks."""

    def start(self, scope: ServerScope, port: int) -> ServerState:
        """Bind, serve, self-check, then return the RUNNING state. Restarts the listener where it runs elsewhere.

        Raises engine.errors.ServerStartError; the state then says STOPPED or FAILED and nothing listens.
        """

    def stop(self) -> ServerState:
        """Drain and close. Idempotent. Returns the STOPPED state."""

    def renew_key(self) -> KeyInfo:
        """Make a new key and end the old one at once. The result carries the secret, this one time."""

    def subscribe(self, listener: Callable[[ServerState], None]) -> Callable[[], None]:
        """Call ``listener`` (on any thread, at most ten times a second) with each new state; the result ends that."""


@runtime_checkable
class GoldenDoor(Protocol):
    """A server that can ask itself, over HTTP, for the answer that is kept of a model."""

    def check_golden(self, model_id: str) -> object:
        """Blocks until the answer came or did not; what was found stands in the engine's entry of the model."""
