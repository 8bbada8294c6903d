"""Asked before quitting while others use the server. Staying is the safe answer."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QHBoxLayout, QVBoxLayout, QWidget

from gui.icons import IconLabel
from gui.language import counted, tr
from gui.panels.consent_dialog import Shade
from gui.widgets.basics import Button, Card, label
from gui.widgets.focus_ring import FocusRing


class LeaveDialog(QDialog):
    """Accepted means: quit. Esc stays."""

    def __init__(self, parent: QWidget, callers: int) -> None:
        super().__init__(parent, Qt.WindowType.Dialog | Qt.WindowType.FramelessWindowHint)
        self.setModal(True)
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.sentence = leave_words(callers)
        self.setWindowTitle(tr("Quit Deskside"))
        self.setAccessibleDescription(self.sentence)
        self.quit_button = Button(tr("Quit"))
        self.quit_button.setAutoDefault(False)
        self.quit_button.clicked.connect(self.accept)
        self.stay_button = Button(tr("Stay open"), kind="primary")
        self.stay_button.setDefault(True)
        self.stay_button.clicked.connect(self.reject)
        card = Card("dialog")
        words = QVBoxLayout()
        words.setSpacing(4)
        words.addWidget(label(self.sentence, "title", wrap=True))
        words.addWidget(label(tr("Requests already taken are answered first; then nobody is."), "body2", wrap=True))
        top = QHBoxLayout()
        top.setSpacing(16)
        top.addWidget(IconLabel("radio-tower", "lan", 22, tile=44, tile_role="lan_soft"), 0, Qt.AlignmentFlag.AlignTop)
        top.addLayout(words, 1)
        buttons = QHBoxLayout()
        buttons.setSpacing(10)
        buttons.addStretch(1)
        buttons.addWidget(self.quit_button)
        buttons.addWidget(self.stay_button)
        box = QVBoxLayout(card)
        box.setContentsMargins(28, 26, 28, 22)
        box.setSpacing(20)
        box.addLayout(top)
        box.addLayout(buttons)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(card)
        self.setFixedWidth(520)
        FocusRing(self)
        self.stay_button.setFocus(Qt.FocusReason.TabFocusReason)


def leave_words(callers: int) -> str:
    return counted(
        "{count} other computer is using the network door. Quit anyway?",
        "{count} other computers are using the network door. Quit anyway?",
        callers,
    )


def ask_to_leave(window: QWidget, callers: int, answered: Callable[[bool], None]) -> LeaveDialog:
    """Open the dialog over a shaded ``window``; ``answered`` gets True only where the person chose to quit."""
    shade = Shade(window)
    dialog = LeaveDialog(window, callers)

    def over(result: int) -> None:
        shade.hide()
        shade.deleteLater()
        answered(bool(result))

    dialog.finished.connect(over)
    dialog.open()
    return dialog
