"""One of the person's own pictures under several ways to read it: the tile with the right answer is the right way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import QFileDialog, QGridLayout, QHBoxLayout, QMenu, QScrollArea, QVBoxLayout, QWidget

from engine import EnginePort
from engine.model_spec import ASSUMED
from engine.prediction import Convention, ImagePreview
from gui.engine_bridge import EngineBridge
from gui.error_text import error_text
from gui.evidence import scaling_words
from gui.icons import IconLabel
from gui.intake import IMAGE_SUFFIXES, InputFile, input_file, read_input
from gui.item_models.answers_model import best_of
from gui.language import mark, tr
from gui.model_shelf import ModelCard
from gui.predict_queue import PredictQueue
from gui.samples import sample_inputs
from gui.widgets.basics import Button, Card, label
from gui.widgets.convention_tile import ConventionTile
from gui.widgets.image_view import image_of
from gui.widgets.progress import Ring

RECENT = 8
PICTURE_SIDE = 512
COLUMNS = 2
ASKED = ("scaling", "channel_order", "layout")
"""Fields of [preprocessing] that are found by comparing answers, with the mean and deviation that go with a scaling."""
_RANGE = re.compile(r"-?\d+\.\.-?\d+")

_ANY_QUESTION = mark("Which way to read it gives the right answer?")
_QUESTIONS = {
    "preprocessing.scaling": mark("Which scaling gives the right answer?"),
    "preprocessing.mean": mark("Which scaling gives the right answer?"),
    "preprocessing.std": mark("Which scaling gives the right answer?"),
    "preprocessing.channel_order": mark("Which order of colours gives the right answer?"),
}


class ConventionCard(Card):
    """``applied(values, words)`` when a tile is chosen, ``kept()`` when the person leaves it as it is.

    The tiles are every way the engine holds for plausible. Where several fields are assumed these are many: those that
    differ in the field that was asked about come first, the others on demand.
    """

    applied = Signal(object, str)
    kept = Signal()

    def __init__(self, bridge: EngineBridge, queue: PredictQueue) -> None:
        super().__init__()
        self._bridge, self._queue = bridge, queue
        self._model: ModelCard | None = None
        self._key = ""
        self._samples: tuple[InputFile, ...] = ()
        self._try_ticket = self._preview_ticket = 0
        self._pixmap: QPixmap | None = None
        self.picture: InputFile | None = None
        self._before: dict[str, Any] = {}
        self.conventions: list[Convention] = []
        self._all: list[Convention] = []
        self.tiles: list[ConventionTile] = []
        self.question = label("", "section", wrap=True)
        self.picture_button = Button(tr("None yet"), "image", name=tr("Picture to compare with"))
        self.picture_menu = QMenu(self)
        self.picture_menu.aboutToShow.connect(self._fill_menu)
        self.picture_button.setMenu(self.picture_menu)
        self.picture_button.setProperty("menu", True)
        self.keep_button = Button(tr("Keep it assumed"))
        self.keep_button.clicked.connect(self.kept)
        self.busy = QWidget()
        self.message = label("", "body2", wrap=True)
        self.choose_button = Button(tr("Choose a picture…"), "image-plus", "primary")
        self.choose_button.clicked.connect(self.choose_picture)
        self.more_button = Button("", "plus", "flat", small=True)
        self.more_button.setProperty("square", False)
        self.more_button.clicked.connect(lambda: self._offer(self._all))
        self._grid_box = QWidget()
        self._grid_box.setObjectName("clear")
        self._grid = QGridLayout(self._grid_box)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(12)
        self._scroll = QScrollArea()
        self._scroll.setWidget(self._grid_box)
        self._scroll.setWidgetResizable(True)
        self._scroll.viewport().setObjectName("clear")
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._lay_out()

    def _lay_out(self) -> None:
        ring = QHBoxLayout(self.busy)
        ring.setContentsMargins(0, 4, 0, 4)
        ring.setSpacing(10)
        ring.addWidget(Ring(18))
        ring.addWidget(label(tr("Running this picture under each of them"), "body2"), 1)
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(label(tr("Picture"), "body2"))
        row.addWidget(self.picture_button)
        row.addStretch(1)
        foot = QHBoxLayout()
        foot.setSpacing(10)
        foot.addWidget(IconLabel("save", "text2"))
        foot.addWidget(label(tr("A click uses it from now on and saves it beside the model."), "small", wrap=True), 1)
        foot.addWidget(self.keep_button)
        words = tr(
            "One picture under each convention. Choose the tile that is right; "
            "a wrong one is often wrong and sure of itself."
        )
        box = QVBoxLayout(self)
        box.setContentsMargins(18, 16, 18, 14)
        box.setSpacing(10)
        box.addWidget(self.question)
        box.addWidget(label(words, "small", wrap=True))
        box.addLayout(row)
        box.addWidget(self.busy)
        box.addWidget(self.message)
        box.addWidget(self.choose_button, 0, Qt.AlignmentFlag.AlignLeft)
        box.addWidget(self._scroll, 1)
        box.addWidget(self.more_button, 0, Qt.AlignmentFlag.AlignLeft)
        box.addStretch(0)
        box.addLayout(foot)

    # -- what is compared ------------------------------------------------------------------------------------------
    def compare(self, model: ModelCard, key: str) -> None:
        """Compare answers of ``model`` for the field ``key``, with the picture at hand or the last one dropped."""
        other = self._model is None or self._model.key != model.key
        self._model, self._key = model, key
        self.question.setText(tr(_QUESTIONS.get(key, _ANY_QUESTION)))
        if other:
            self.picture, self._samples = None, ()
            path = model.path
            self._bridge.run(self, lambda: sample_inputs(path), self._on_samples, self._on_no_samples)
        if self._all and not other and not self._is_assumed():
            self._show_states()  # everything is settled, by these very tiles: they stay as they are
            return
        recent = self._recent()
        if recent and (self.picture is None or self.picture in recent):
            self.picture = recent[0]
        self.run()

    def follow(self, model: ModelCard) -> None:
        """The model was changed: the tiles say which of them is in use now."""
        if self._model is not None and self._model.key == model.key:
            self._model = model
            if self.tiles:
                self._show_states()

    def use_picture(self, picture: InputFile) -> None:
        self.picture = picture
        self.run()

    def choose_picture(self) -> None:
        """Ask for one of the person's pictures."""
        dialog = QFileDialog(self, tr("Choose a picture"))
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setNameFilter(
            tr("Pictures ({patterns})").format(patterns=" ".join(f"*{s}" for s in sorted(IMAGE_SUFFIXES)))
        )
        dialog.filesSelected.connect(self._on_file_chosen)
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def run(self) -> None:
        """Ask the model under every convention; an answer to a question before is thrown away."""
        self._bridge.drop(self._try_ticket)
        self._bridge.drop(self._preview_ticket)
        self._all, self.conventions, self._pixmap = [], [], None
        self._clear_tiles()
        model, picture = self._model, self.picture
        self._show_picture_name()
        if model is None or picture is None:
            self.message.setText(tr("Drop a picture whose answer you know, or choose one here."))
            self._show_parts(self.message, self.choose_button)
            return
        self._show_parts(self.busy)
        key, given = model.key, picture.data if picture.data is not None else picture.path

        def ask(engine: EnginePort) -> Future[list[Convention]]:
            return engine.try_conventions(key, read_input(picture), picture.content_type)

        self._try_ticket = self._bridge.ask(self, ask, self._on_answers, self._on_failed)
        if given is not None:
            self._preview_ticket = self._bridge.ask(
                self, lambda engine: engine.preview_image(given, PICTURE_SIDE), self._on_picture, self._on_no_picture
            )

    # -- what came back --------------------------------------------------------------------------------------------
    def _on_answers(self, conventions: list[Convention]) -> None:
        self._all = list(conventions)
        self._before = dict((self._model.spec if self._model is not None else {}).get("preprocessing") or {})
        self._offer(nearest(self._all, self._key, self._before))

    def _on_failed(self, error: BaseException) -> None:
        text = error_text(error)
        self.message.setText(f"{text.sentence} {text.advice}".strip())
        self._show_parts(self.message, self.choose_button)

    def _on_picture(self, preview: ImagePreview) -> None:
        self._pixmap = QPixmap.fromImage(image_of(preview))
        for tile in self.tiles:
            tile.show_picture(self._pixmap)

    def _on_no_picture(self, error: BaseException) -> None:
        # The answers say the same of a picture that cannot be read; without them the tiles stay without a picture.
        self._pixmap = None

    def _on_samples(self, samples: Sequence[InputFile]) -> None:
        self._samples = tuple(sample for sample in samples if sample.kind == "image")
        if self.picture is None and self._samples:
            self.use_picture(self._samples[0])

    def _on_no_samples(self, error: BaseException) -> None:
        self._samples = ()

    def _on_file_chosen(self, names: list[str]) -> None:
        picture = input_file(Path(names[0])) if names else None
        if picture is not None and picture.kind == "image":
            self.use_picture(picture)
        elif names:
            self.message.setText(tr("{name} is not a picture.").format(name=Path(names[0]).name))
            self._show_parts(self.message, self.choose_button)

    def _offer(self, conventions: list[Convention]) -> None:
        self.conventions = conventions
        hidden = len(self._all) - len(conventions)
        self.more_button.setText(tr("Show {hidden} more").format(hidden=hidden))
        self.more_button.setAccessibleName(tr("Show {hidden} more ways to read it").format(hidden=hidden))
        self._show_tiles()
        self._show_parts(self._scroll, *([self.more_button] if hidden else []))

    def _on_tile(self, convention: Convention) -> None:
        """All of a way counts: what another way set, and this one does not name, is taken back."""
        named = {key for other in self._all for key in other.changes}
        now = _preprocessing(self._model.spec) if self._model is not None else {}
        back = {key: None for key in named if _plain(now.get(key)) != _plain(self._before.get(key))}
        self.applied.emit(back | convention.changes, tidy_words(convention.words))

    # -- parts -----------------------------------------------------------------------------------------------------
    def _show_tiles(self) -> None:
        self._clear_tiles()
        for i, convention in enumerate(self.conventions):
            tile = ConventionTile(tidy_words(convention.words), *best_of(convention.predictions))
            tile.clicked.connect(lambda _checked=False, c=convention: self._on_tile(c))
            if self._pixmap is not None:
                tile.show_picture(self._pixmap)
            self._grid.addWidget(tile, i // COLUMNS, i % COLUMNS)
            self.tiles.append(tile)
        self._show_states()

    def _show_states(self) -> None:
        spec = self._model.spec if self._model is not None else {}
        current = current_of(self.conventions, _preprocessing(spec))
        assumed = self._is_assumed()
        for tile, convention in zip(self.tiles, self.conventions, strict=True):
            tile.set_state(now=convention is current, assumed=assumed)
        settled = any(tile.is_chosen for tile in self.tiles)
        self.keep_button.setText(tr("Done") if settled else tr("Keep it assumed"))
        self.keep_button.setAccessibleName(self.keep_button.text())

    def _is_assumed(self) -> bool:
        """Whether nothing but a guess says some of what the tiles differ in."""
        evidence = (self._model.spec if self._model is not None else {}).get("evidence") or {}
        named = {key for convention in self._all for key in convention.changes if key in ASKED}
        return any(str(evidence.get(f"preprocessing.{key}", ASSUMED)).startswith(ASSUMED) for key in named)

    def _clear_tiles(self) -> None:
        for tile in self.tiles:
            self._grid.removeWidget(tile)
            tile.hide()
            tile.deleteLater()
        self.tiles = []

    def _show_parts(self, *parts: QWidget) -> None:
        for part in (self.busy, self.message, self.choose_button, self._scroll, self.more_button):
            part.setVisible(part in parts)

    def _recent(self) -> list[InputFile]:
        """The pictures dropped last, newest first."""
        found: dict[str, InputFile] = {}
        for item in reversed(self._queue.items):
            if item.source.kind == "image":
                found.setdefault(item.source.name, item.source)
            if len(found) >= RECENT:
                break
        return list(found.values())

    def _fill_menu(self) -> None:
        self.picture_menu.clear()
        recent = self._recent()
        for picture in (*recent, *(s for s in self._samples if s.name not in {p.name for p in recent})):
            action = self.picture_menu.addAction(picture.name.replace("&", "&&"))
            action.triggered.connect(lambda _checked=False, p=picture: self.use_picture(p))
        self.picture_menu.addSeparator()
        self.picture_menu.addAction(tr("Choose a picture…")).triggered.connect(self.choose_picture)

    def _show_picture_name(self) -> None:
        name = self.picture.name if self.picture is not None else tr("None yet")
        shown = self.picture_button.fontMetrics().elidedText(name, Qt.TextElideMode.ElideMiddle, 220)
        self.picture_button.setText(shown.replace("&", "&&"))
        self.picture_button.setAccessibleName(tr("Picture to compare with: {name}").format(name=name))


def _preprocessing(spec: dict[str, Any]) -> dict[str, Any]:
    return spec.get("preprocessing") or {}


def current_of(conventions: Sequence[Convention], now: dict[str, Any]) -> Convention | None:
    """The way in which the model reads pictures ``now``: of several that fit, the one that says most."""
    fitting = [c for c in conventions if all(_plain(now.get(key)) == _plain(v) for key, v in c.changes.items())]
    return max(fitting, key=lambda c: len(c.changes), default=None)


def nearest(conventions: list[Convention], key: str, now: dict[str, Any]) -> list[Convention]:
    """Those that differ from ``now`` in the field ``key`` and what belongs to it; all where that leaves one or none."""
    asked = key.removeprefix("preprocessing.")
    own = {"scaling", "mean", "std"} if asked in ("scaling", "mean", "std") else {asked}
    rest = [key for key in ASKED if key not in own]
    found = [c for c in conventions if all(_plain(c.changes.get(k, now.get(k))) == _plain(now.get(k)) for k in rest)]
    if "scaling" not in own:
        plain = {"mean", "std"}
        found = [c for c in found if not plain & set(c.changes)]
    return found if len(found) > 1 else conventions


def tidy_words(words: str) -> str:
    """The engine's words for a way, ranges as the card writes them: ``values -1..1, RGB`` -> ``−1 … 1, RGB``."""
    return _RANGE.sub(lambda found: scaling_words(found.group()), words.removeprefix("values "))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
