"""What the window needs of the server, as a Protocol: ``gui`` never imports ``embedded_server``; ``main`` joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from engine.serving_types import KeyInfo, NetworkInterface, ReachReport, ServerScope, ServerState
from engine.settings import ServerSettings


class ServerPort(Protocol):
    """The embedded server as the window sees it. All but ``state``, ``log_lines`` and ``subscribe`` block: call them
    off the GUI thread. What a method changes holds at once."""

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

    def named_keys(self) -> tuple[KeyInfo, ...]:
        """Every key but the window's own. Raises OSError."""

    def add_key(self, name: str, *, models: tuple[str, ...] | None = None, per_minute: int | None = None) -> KeyInfo:
        """Make a key; the result carries the secret, this one time. Raises SettingsInvalid, OSError."""

    def remove_key(self, name: str) -> bool:
        """End a key; False where there is none. Raises OSError."""

    def restore_key(self, name: str) -> bool:
        """Take the last :meth:`remove_key` of this name back; False where that was not the last. Raises OSError."""

    def pause(self, paused: bool) -> None:
        """Take no questions from the network for now, or take them again."""

    def pause_key(self, name: str, paused: bool) -> None:
        """Let a key ask nothing for now, or again."""

    def block(self, address: str, blocked: bool) -> None:
        """Answer an address nothing, or again."""

    def interfaces(self) -> tuple[NetworkInterface, ...]:
        """The network interfaces of this computer, and which of them the switch's Network serves."""

    def check_reach(self) -> ReachReport:
        """Whether this computer answers at its own addresses, and what its firewall says."""

    def apply(self, settings: ServerSettings) -> ServerState:
        """Serve with other settings from now on: where it runs, the listener is opened anew; models are not touched.

        Raises ServerStartError; nothing listens then.
        """

    def log_lines(self) -> tuple[str, ...]:
        """The newest lines of the request log (JSON), oldest first; never blocks."""

    def subscribe(self, listener: Callable[[ServerState], None]) -> Callable[[], None]:
        """Call ``listener`` (on any thread, at most ten times a second) with each new state; the result ends that."""


@runtime_checkable
class GoldenDoor(Protocol):
    """A server that can ask itself, over HTTP, for the answer that is kept of a model."""

    def check_golden(self, model_id: str) -> object:
        """Blocks until the answer came or did not; what was found stands in the engine's entry of the model."""
