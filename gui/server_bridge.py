"""The server as the window uses it: the switch runs on a task thread, its states arrive as signals."""

from __future__ import annotations

import weakref
from dataclasses import replace

from PySide6.QtCore import QObject, Signal

from engine.serving_types import KeyInfo, ReachReport, ServerPhase, ServerScope, ServerState
from engine.settings import ServerSettings
from gui.engine_bridge import Done, EngineBridge, Failed
from gui.ports import GoldenDoor, ServerPort

LOWEST_PORT, USUAL_PORT = 1024, 8765
"""Below the lowest, a person without rights over this computer gets none."""


def first_port(settings: ServerSettings) -> int:
    """Where the switch opens the server before anybody chose another port."""
    return settings.port if settings.port >= LOWEST_PORT else USUAL_PORT


def _standing(state: ServerState) -> ServerState:
    """Without what is only counted."""
    return replace(state, served=0, callers=(), reached_at=None, refusals=())


class ServerBridge(QObject):
    """``state`` is the newest state; ``target`` where the switch is on its way to, None while it stands."""

    changed = Signal()
    failed = Signal(object)
    keys_changed = Signal()
    key_made = Signal(object)
    key_removed = Signal(str)
    key_refused = Signal(object)
    reach_checked = Signal()
    interfaces_read = Signal(object)
    _state_arrived = Signal(object)

    def __init__(self, server: ServerPort, bridge: EngineBridge, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._server = server
        self._bridge = bridge
        self.state: ServerState = server.state
        self.target: ServerScope | None = None
        self.secret = ""
        self.key: KeyInfo | None = None
        self.keys: tuple[KeyInfo, ...] = ()
        """The named ones, as :meth:`read_keys` found them."""
        self._later: ServerSettings | None = None
        self.reach: ReachReport | None = None
        self._reach_ticket = 0
        self._applying = False
        """None while nothing is known."""
        self._remember(self.state.key)
        self._state_arrived.connect(self._on_news)
        this = weakref.ref(self)

        def relay(state: ServerState) -> None:
            me = this()
            if me is not None and me._bridge.is_open:
                me._state_arrived.emit(state)

        self._unsubscribe = server.subscribe(relay)

    @property
    def is_running(self) -> bool:
        return self.state.phase is ServerPhase.RUNNING

    @property
    def is_off(self) -> bool:
        return self.state.phase in (ServerPhase.STOPPED, ServerPhase.FAILED) and self.target is None

    def switch(self, scope: ServerScope, port: int) -> None:
        """Move the switch; it stands there only once the server said so (``changed``), else ``failed``."""
        if self.target is not None:
            return
        self.target = scope
        self.changed.emit()
        work = self._server.stop if scope is ServerScope.OFF else lambda: self._server.start(scope, port)
        self._bridge.run(self, work, self._on_switched, self._on_switch_failed)

    def renew_key(self) -> None:
        """A new key; the old one ends at once."""
        self._bridge.run(self, self._server.renew_key, self._on_key, self.failed.emit)

    def read_interfaces(self) -> None:
        """``interfaces_read`` with every NetworkInterface there is."""
        self._bridge.run(self, self._server.interfaces, self.interfaces_read.emit, self.failed.emit)

    # -- keys and callers ------------------------------------------------------------------------------------------
    def read_keys(self) -> None:
        self._bridge.run(self, self._server.named_keys, self._on_keys, self.key_refused.emit)

    def add_key(self, name: str, models: tuple[str, ...] | None, per_minute: int | None) -> None:
        """``key_made(KeyInfo)`` with its secret, or ``key_refused(error)``."""

        def add() -> KeyInfo:
            return self._server.add_key(name, models=models, per_minute=per_minute)

        self._bridge.run(self, add, self._on_key_made, self.key_refused.emit)

    def remove_key(self, name: str) -> None:
        def over(_found: bool) -> None:
            self.read_keys()
            self.key_removed.emit(name)

        self._bridge.run(self, lambda: self._server.remove_key(name), over, self.key_refused.emit)

    def restore_key(self, name: str) -> None:
        self._bridge.run(
            self, lambda: self._server.restore_key(name), lambda _found: self.read_keys(), self.key_refused.emit
        )

    def pause(self, paused: bool) -> None:
        self._bridge.run(self, lambda: self._server.pause(paused), self._on_held, self.failed.emit)

    def pause_key(self, name: str, paused: bool) -> None:
        self._bridge.run(self, lambda: self._server.pause_key(name, paused), self._on_held, self.failed.emit)

    def block(self, address: str, blocked: bool) -> None:
        self._bridge.run(self, lambda: self._server.block(address, blocked), self._on_held, self.failed.emit)

    def check_reach(self) -> None:
        """``reach_checked`` once ``reach`` is new."""
        self._bridge.drop(self._reach_ticket)
        self.reach = None
        self.reach_checked.emit()
        self._reach_ticket = self._bridge.run(self, self._server.check_reach, self._on_reach, self.failed.emit)

    def apply(self, settings: ServerSettings) -> None:
        """Serve with other settings; the listener is opened anew where it runs (``changed``, else ``failed``). While
        the switch is on its way they wait for it."""
        if self.target is not None or self._applying:
            self._later = settings
            return
        if self.is_running:
            self.target = self.state.scope
            self.changed.emit()
            self._bridge.run(self, lambda: self._server.apply(settings), self._on_switched, self._on_switch_failed)
        else:
            self._applying = True
            self._bridge.run(self, lambda: self._server.apply(settings), self._on_applied, self._on_apply_failed)

    def callers_now(self) -> int:
        """How many other computers are asking, as the server knows it this moment; never blocks."""
        return len(self._server.state.callers)

    def log_lines(self) -> tuple[str, ...]:
        return self._server.log_lines()

    def check_golden(self, owner: QObject, model_id: str, done: Done, failed: Failed) -> bool:
        """Ask for the kept answer of ``model_id`` over HTTP; False where the server is off and nothing was asked."""
        door = self._server
        if not self.is_running or not isinstance(door, GoldenDoor):
            return False
        self._bridge.run(owner, lambda: door.check_golden(model_id), done, failed)
        return True

    def stop_now(self) -> None:
        """Drain and stop, blocking: for the thread that closes the window."""
        if self._server.state.phase is not ServerPhase.STOPPED:
            self._server.stop()

    def close(self) -> None:
        self._unsubscribe()

    def _on_applied(self, state: ServerState) -> None:
        """While it was off. The switch may be on its way by now, and tells by itself where it stands."""
        self._applying = False
        self._on_state(state)
        self._apply_later()

    def _on_apply_failed(self, error: BaseException) -> None:
        self._applying = False
        self.failed.emit(error)
        self._apply_later()

    def _on_switched(self, state: ServerState) -> None:
        self.target = None
        self._on_state(state)
        self._apply_later()

    def _on_switch_failed(self, error: BaseException) -> None:
        self.target = None
        self._on_state(self._server.state)
        self.failed.emit(error)
        self._apply_later()

    def _apply_later(self) -> None:
        settings, self._later = self._later, None
        if settings is not None:
            self.apply(settings)

    def _on_keys(self, keys: tuple[KeyInfo, ...]) -> None:
        self.keys = keys
        self.keys_changed.emit()

    def _on_key_made(self, key: KeyInfo) -> None:
        self.key_made.emit(key)
        self.read_keys()

    def _on_held(self, _nothing: object) -> None:
        self._on_state(self._server.state)

    def _on_reach(self, report: ReachReport) -> None:
        self.reach = report
        self.reach_checked.emit()

    def _on_key(self, key: KeyInfo) -> None:
        self._remember(key)
        self.changed.emit()

    def _on_news(self, state: ServerState) -> None:
        counted_alone = _standing(state) == _standing(self.state)
        # What is shown later is what is then the newest: the switch may have told more by itself.
        self._bridge.calm.offer("server", lambda: self._on_state(self._server.state), at_once=not counted_alone)

    def _on_state(self, state: ServerState) -> None:
        self.state = state
        if not self.is_running:
            self._bridge.drop(self._reach_ticket)
            self.reach = None
        self._remember(state.key)
        self.changed.emit()

    def _remember(self, key: KeyInfo | None) -> None:
        """A secret comes once; it is kept while its key is the one in use."""
        if key is None:
            return
        if key.secret:
            self.secret = key.secret
        elif self.key is not None and self.key.ends != key.ends:
            self.secret = ""
        self.key = key
