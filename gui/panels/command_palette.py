"""Ctrl+K: every action of the window, found by typing."""

from __future__ import annotations

from PySide6.QtGui import QAction
from PySide6.QtWidgets import QWidget

from gui.language import tr
from gui.widgets.chooser import Choice, Chooser

LAST_USED = 5


class CommandPalette(Chooser):
    """Lists the actions that are added to ``window``, those used last first; a new action appears by itself."""

    def __init__(self, window: QWidget) -> None:
        super().__init__(window, tr("Commands"), tr("What do you want to do?"))
        self._used: list[str] = []
        self._own_name = tr("Commands…")
        self.foot.addStretch(1)
        self.add_hint(tr("Enter"), tr("run"))
        self.add_hint("Esc", tr("close"))
        self.chosen.connect(self._run)

    def open_palette(self) -> None:
        actions = self._actions()
        used = [name for name in self._used if name in actions]
        names = [*used, *(name for name in actions if name not in used)]
        self.open_with([
            Choice(
                name, name, right=actions[name].shortcut().toString(), enabled=actions[name].isEnabled(),
                section=(tr("Used last") if name in used else tr("All commands")) if used else "",
            )
            for name in names
        ])  # fmt: skip

    def _actions(self) -> dict[str, QAction]:
        named = {action.text().replace("&", ""): action for action in self._window.actions()}
        return {name: action for name, action in named.items() if name and name != self._own_name}

    def _run(self, name: str) -> None:
        action = self._actions().get(name)
        if action is None or not action.isEnabled():
            return
        self._used = [name, *(other for other in self._used if other != name)][:LAST_USED]
        action.trigger()
