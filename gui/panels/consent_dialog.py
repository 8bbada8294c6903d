"""Asked once for a model that is a program: what it can do, what keeps it, and which exact file it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QDialog, QHBoxLayout, QVBoxLayout, QWidget

from engine.errors import ConsentRequired
from gui import theme
from gui.icons import IconLabel
from gui.language import tr
from gui.widgets.basics import Button, Card, ElidedLabel, label, line
from gui.widgets.focus_ring import FocusRing


class ConsentDialog(QDialog):
    """Accepted means: run it. The safe answer is the primary button, has the focus, and is what Esc does."""

    def __init__(self, parent: QWidget, path: Path, error: ConsentRequired) -> None:
        super().__init__(parent, Qt.WindowType.Dialog | Qt.WindowType.FramelessWindowHint)
        self.setModal(True)
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(tr("This model is a program"))
        self.setAccessibleDescription(
            tr("It can do what you can do on this computer. Run it only if you trust its maker.")
        )
        self.run_button = Button(tr("Run this model"))
        self.run_button.setAutoDefault(False)
        self.run_button.clicked.connect(self.accept)
        self.safe_button = Button(tr("Do not open"), kind="primary")
        self.safe_button.setDefault(True)
        self.safe_button.clicked.connect(self.reject)
        card = Card("dialog")
        card.setFixedWidth(600)
        title = QVBoxLayout()
        title.setSpacing(4)
        title.addWidget(label(tr("This model is a program. Run it?"), "page"))
        title.addWidget(ElidedLabel(tr("{name} · in {parent}").format(name=path.name, parent=path.parent), "body2"))
        top = QHBoxLayout()
        top.setSpacing(16)
        top.addWidget(
            IconLabel("shield-alert", "warn", 22, tile=44, tile_role="warn_soft"), 0, Qt.AlignmentFlag.AlignTop
        )
        top.addLayout(title, 1)
        box = QVBoxLayout(card)
        box.setContentsMargins(28, 26, 28, 22)
        box.setSpacing(0)
        box.addLayout(top)
        box.addSpacing(20)
        mark = " ".join(error.fingerprint[i : i + 4] for i in range(0, 16, 4)) if error.fingerprint else ""
        exact = (
            tr("sha256 {mark} … A changed file asks again.").format(mark=mark)
            if mark
            else tr("A changed file asks again.")
        )
        for icon_name, head, text in (
            (
                "code",
                tr("It can do what you can do on this computer"),
                tr("Such a file holds code, not only numbers. Run it if you made it, or trust who did."),
            ),
            (
                "box",
                tr("It gets a process of its own"),
                tr(
                    "A crash stays in there and its memory comes back. How far it is kept from your files and from the "
                    "network depends on this system; its card says so once it runs."
                ),
            ),
            ("fingerprint", tr("Asked once for these exact files"), exact),
        ):
            box.addLayout(self._reason(icon_name, head, text))
            box.addSpacing(14)
        box.addSpacing(4)
        box.addWidget(line())
        box.addSpacing(18)
        buttons = QHBoxLayout()
        buttons.setSpacing(10)
        buttons.addStretch(1)
        buttons.addWidget(self.run_button)
        buttons.addWidget(self.safe_button)
        box.addLayout(buttons)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(card)
        # Wrapped lines have a height only for a width; the dialog's own hint would be that of another width.
        self.ensurePolished()
        box.activate()
        self.setFixedSize(600, card.heightForWidth(600))
        FocusRing(self)
        self.safe_button.setFocus(Qt.FocusReason.TabFocusReason)

    @staticmethod
    def _reason(icon_name: str, head: str, text: str) -> QHBoxLayout:
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(label(head, "strong"))
        words.addWidget(label(text, "small", wrap=True))
        words.addStretch(1)
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(IconLabel(icon_name, "text2", 18), 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        return row


class Shade(QWidget):
    """Darkens the window behind a dialog that must be answered."""

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self.setGeometry(window.rect())
        self.show()
        self.raise_()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        shade = theme.LIGHT.color("text")
        shade.setAlphaF(0.35 if theme.tokens().name == "light" else 0.6)
        painter.fillRect(self.rect(), shade)
        painter.end()


def ask_consent(window: QWidget, path: Path, error: ConsentRequired, answered: Callable[[bool], None]) -> ConsentDialog:
    """Open the dialog over a shaded ``window``; ``answered`` gets True only where the person chose to run it."""
    shade = Shade(window)
    dialog = ConsentDialog(window, path, error)

    def over(result: int) -> None:
        shade.hide()
        shade.deleteLater()
        answered(bool(result))

    dialog.finished.connect(over)
    dialog.open()
    return dialog
