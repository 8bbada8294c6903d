"""What can be done with the open copy of a model: check its kept answer, change its version, run it elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QMenu, QVBoxLayout, QWidget

from engine.model_spec import ModelSpec
from gui.golden import door_words, golden_of, golden_words, is_kept
from gui.icons import IconLabel
from gui.language import tr
from gui.model_shelf import ModelCard
from gui.widgets.basics import Button, Card, ElidedLabel, label, line, set_tone
from gui.widgets.segmented import Segmented
from gui.words import DEVICES, device_choice_words, device_words

PRECISIONS = ("float32", "bfloat16", "float16")


def _titled(card: Card, title: str, button: Button | None = None) -> QVBoxLayout:
    box = QVBoxLayout(card)
    box.setContentsMargins(18, 14, 18, 14)
    box.setSpacing(8)
    head = QHBoxLayout()
    head.addWidget(label(title, "section"), 1)
    if button is not None:
        head.addWidget(button)
    box.addLayout(head)
    return box


class GoldenCard(Card):
    """The kept answer: what both doors gave when it was last asked, Check now, and Forget it."""

    check_asked = Signal()
    forget_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.check_button = Button(tr("Check now"), "shield-check", small=True)
        self.check_button.clicked.connect(self.check_asked)
        self.sentence = label("", "strong", wrap=True)
        self.second = label("", "small", wrap=True)
        self.doors: dict[str, ElidedLabel] = {}
        self.forget_button = Button(tr("Forget it"), kind="link", name=tr("Forget the kept answer"))
        self.forget_button.clicked.connect(self.forget_asked)
        self._icon = IconLabel("bookmark", "text2", 18)
        self._doors = QWidget()
        doors = QVBoxLayout(self._doors)
        doors.setContentsMargins(28, 4, 0, 0)
        doors.setSpacing(6)
        for door, words in (("window", tr("This computer")), ("network", tr("Over the network"))):
            row = QHBoxLayout()
            row.setSpacing(10)
            row.addWidget(label(words, "body2"), 1)
            self.doors[door] = ElidedLabel("", "small")
            row.addWidget(self.doors[door])
            doors.addLayout(row)
        top = QHBoxLayout()
        top.setSpacing(10)
        top.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        said = QVBoxLayout()
        said.setSpacing(1)
        said.addWidget(self.sentence)
        said.addWidget(self.second)
        top.addLayout(said, 1)
        top.addWidget(self.forget_button, 0, Qt.AlignmentFlag.AlignTop)
        box = _titled(self, tr("Kept answer"), self.check_button)
        box.addLayout(top)
        box.addWidget(self._doors)

    def show_model(self, card: ModelCard, *, serving: bool, checking: bool) -> None:
        """The newest report on ``card``; ``serving``: the server's door is open, so that it can be checked too."""
        golden = golden_of(card.entry)
        words = golden_words(golden)
        self._icon.set_icon(words.icon, words.tone)
        self.sentence.setText(f"{words.sentence}{f', {words.at}' if words.at else ''}.")
        set_tone(self.sentence, words.tone if words.tone == "error" else "")
        self.second.setText(words.second)
        self.second.setVisible(bool(words.second))
        self._doors.setVisible(golden is not None)
        self.forget_button.setVisible(is_kept(golden))
        self.check_button.setEnabled(golden is not None and not checking)
        self.check_button.setText(tr("Checking") if checking else tr("Check now"))
        self.check_button.setToolTip("" if golden is not None else tr("Keep an answer first."))
        for door, value in self.doors.items():
            agreed = golden.get(door) if golden is not None else None
            value.setText(door_words(agreed, serving or door == "window"))
            set_tone(value, "error" if agreed is False else "ok" if agreed else "")


class VersionsCard(Card):
    """``reload_asked()`` takes the file as it is now; ``rollback_asked()`` goes back to the version before."""

    reload_asked = Signal()
    rollback_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.reload_button = Button(tr("Reload"), "refresh", small=True, name=tr("Reload the model's files"))
        self.reload_button.setToolTip(
            tr("Takes the files as they are now (F5). The version that answers stays until then.")
        )
        self.reload_button.clicked.connect(self.reload_asked)
        self.rollback_button = Button(tr("Back"), "arrow-left", small=True)
        self.rollback_button.clicked.connect(self.rollback_asked)
        self.sentence = label("", "strong", wrap=True)
        self.second = label("", "small", wrap=True)
        box = _titled(self, tr("Version"), self.reload_button)
        row = QHBoxLayout()
        row.setSpacing(10)
        row.addWidget(IconLabel("layers", "text2", 18), 0, Qt.AlignmentFlag.AlignTop)
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addWidget(self.sentence)
        words.addWidget(self.second)
        row.addLayout(words, 1)
        row.addWidget(self.rollback_button, 0, Qt.AlignmentFlag.AlignTop)
        box.addLayout(row)

    def show_model(self, card: ModelCard, *, swapping: bool) -> None:
        """The version that answers, and the one a click goes back to."""
        version = card.version
        before = card.version_before
        self.sentence.setText(tr("Version {version} answers.").format(version=version))
        error = card.entry.get("swap_error") or {}
        if swapping:
            second = tr("The next version is being loaded; this one answers until it is there.")
        elif error:
            second = tr("The next version was not taken. {why}").format(why=str(error.get("message", "")))
        else:
            second = (
                tr("Version {before} is kept.").format(before=before)
                if before
                else tr("A changed file becomes the next version.")
            )
        self.second.setText(second)
        set_tone(self.second, "error" if error and not swapping else "")
        self.reload_button.setEnabled(not swapping)
        self.rollback_button.setVisible(bool(before))
        self.rollback_button.setEnabled(not swapping)
        self.rollback_button.setText(tr("Back to version {before}").format(before=before))
        self.rollback_button.setAccessibleName(tr("Back to version {before}").format(before=before))


class PhotographsCard(Card):
    """How large JPEG photographs are decoded. ``asked(smaller)``: the owner wants it so."""

    asked = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.choice = Segmented(
            [("full", tr("In full"), ""), ("smaller", tr("Smaller"), "")], tr("Decoding of large photographs")
        )
        self.choice.asked.connect(lambda value: self.asked.emit(value == "smaller"))
        box = _titled(self, tr("Large photographs"))
        row = QHBoxLayout()
        row.addWidget(label(tr("Decoded"), "body2"), 1)
        row.addWidget(self.choice)
        box.addLayout(row)
        words = tr("Smaller is faster for large JPEG photographs; pixels differ slightly from the reference.")
        box.addWidget(label(words, "small", wrap=True))

    def show_model(self, card: ModelCard) -> None:
        """How ``card`` decodes them; nothing where it is no choice."""
        spec = ModelSpec.from_json(dict(card.spec)) if card.spec else None
        self.setVisible(spec is not None and spec.may_decode_smaller)
        if spec is not None:
            self.choice.set_value("smaller" if spec.preprocessing.jpeg_scaled_decode else "full")


class RunsCard(Card):
    """``run_asked(device, precision)``: load it again there and so; "" leaves the one or the other as it is."""

    run_asked = Signal(str, str)

    def __init__(self) -> None:
        super().__init__()
        self.device_button = Button(tr("Automatic"), "cpu", small=True, name=tr("Device"))
        self.precision_button = Button("float32", small=True, name=tr("Precision"))
        self.device_menu = self._menu(self.device_button, [(d, device_choice_words(d)) for d in DEVICES])
        self.precision_menu = self._menu(self.precision_button, [(p, p) for p in PRECISIONS])
        self.device_menu.triggered.connect(lambda action: self.run_asked.emit(action.data(), ""))
        self.precision_menu.triggered.connect(lambda action: self.run_asked.emit("", action.data()))
        box = _titled(self, tr("Where it runs"))
        for text, button in ((tr("Device"), self.device_button), (tr("Precision"), self.precision_button)):
            row = QHBoxLayout()
            row.addWidget(label(text, "body2"), 1)
            row.addWidget(button)
            box.addLayout(row)
        box.addWidget(line())
        words = tr("A change loads it once more, beside the copy that answers until then.")
        box.addWidget(label(words, "small", wrap=True))

    def show_model(self, card: ModelCard, *, busy: bool) -> None:
        """What ``card`` runs on and computes in."""
        self.device_button.setText(device_words(card.device) or tr("Automatic"))
        self.precision_button.setText(str(card.entry.get("precision") or PRECISIONS[0]))
        for button, what in ((self.device_button, tr("Device")), (self.precision_button, tr("Precision"))):
            button.setEnabled(not busy)
            button.setAccessibleName(f"{what}: {button.text()}")

    def _menu(self, button: Button, choices: Sequence[tuple[str, str]]) -> QMenu:
        menu = QMenu(self)
        for value, words in choices:
            menu.addAction(words).setData(value)
        button.setMenu(menu)
        button.setProperty("menu", True)
        return menu
