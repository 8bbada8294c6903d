"""The server as the window uses it: the switch runs on a task thread, its states arrive as signals."""

from __future__ import annotations

import weakref

from PySide6.QtCore import QObject, Signal

from engine.serving_types import KeyInfo, ServerPhase, ServerScope, ServerState
from gui.engine_bridge import Done, EngineBridge, Failed
from gui.ports import GoldenDoor, ServerPort


class ServerBridge(QObject):
    """``state`` is the newest state; ``target`` where the switch is on its way to, None while it stands."""

    changed = Signal()
    failed = Signal(object)
    _state_arrived = Signal(object)

    def __init__(self, server: ServerPort, bridge: EngineBridge, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._server = server
        self._bridge = bridge
        self.state: ServerState = server.state
        self.target: ServerScope | None = None
        self.secret = ""
        self.key: KeyInfo | None = None
        self._remember(self.state.key)
        self._state_arrived.connect(self._on_state)
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

    def _on_switched(self, state: ServerState) -> None:
        self.target = None
        self._on_state(state)

    def _on_switch_failed(self, error: BaseException) -> None:
        self.target = None
        self._on_state(self._server.state)
        self.failed.emit(error)

    def _on_key(self, key: KeyInfo) -> None:
        self._remember(key)
        self.changed.emit()

    def _on_state(self, state: ServerState) -> None:
        self.state = state
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
