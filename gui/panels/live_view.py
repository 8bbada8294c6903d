"""A camera's picture with the model's answer over it: which camera, how often it is answered, keep one, stop."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from engine import Prediction
from engine.errors import UnsupportedMediaType
from gui.engine_bridge import EngineBridge
from gui.error_text import FrameProblem, error_text
from gui.frames import Frame, FrameSources, SourceOrder, SourceState
from gui.frames.rate import rate_words
from gui.icons import IconLabel
from gui.intake import InputFile
from gui.language import mark, tr
from gui.live import LiveSession
from gui.model_shelf import ModelShelf
from gui.panels.result_dock import WIDTH as DOCK_WIDTH
from gui.panels.result_dock import ResultDock
from gui.panels.work_view import NARROW
from gui.predict_queue import Item, ItemState
from gui.views import Canvas, view_of_task
from gui.widgets.basics import Button, Card, ElidedLabel, label
from gui.widgets.image_view import ImageView
from gui.widgets.tensor_view import TensorView
from gui.widgets.text_view import TextView
from gui.widgets.wave_view import WaveView

TELL_EVERY_MS = 500
PICTURE_TASKS = ("image", "object", "depth", "keypoint")
"""How the names of tasks begin that take a picture."""
CLIP_PATTERNS = mark("Animated pictures (*.gif *.webp *.png *.apng *.avif);;All files (*)")


def rates_sentence(answered: float | None, given: float | None, is_camera: bool, asks: bool) -> str:
    """``12 pictures a second, camera gives 30``; nothing before anything was counted."""
    if given is None:
        return ""
    gives = rate_words(given)
    if not asks or answered is None:
        if is_camera:
            one, several = tr("Camera gives 1 picture a second"), tr("Camera gives {rate} pictures a second")
        else:
            one, several = tr("Clip gives 1 picture a second"), tr("Clip gives {rate} pictures a second")
        return one if gives == "1" else several.format(rate=gives)
    rate = rate_words(answered)
    words = tr("1 picture a second") if rate == "1" else tr("{rate} pictures a second").format(rate=rate)
    source = tr("{words}, camera gives {rate}") if is_camera else tr("{words}, clip gives {rate}")
    return source.format(words=words, rate=gives)


class LiveView(QWidget):
    """``opened`` and ``left`` when it wants the page and gives it back; ``keep_picture(InputFile)`` puts a picture in
    the list; the rest is as of :class:`~gui.panels.work_view.WorkView`. The camera is open only while this is shown."""

    opened = Signal()
    left = Signal()
    keep_picture = Signal(object)
    answered = Signal(object)
    card_asked = Signal(str)
    keep_asked = Signal(object)
    failed = Signal(object)

    def __init__(self, bridge: EngineBridge, shelf: ModelShelf, sources: FrameSources, doubtful_below: float) -> None:
        super().__init__()
        self._bridge, self._shelf, self._sources = bridge, shelf, sources
        self.is_on = False
        self._kept = 0
        self._cameras: list[SourceOrder] = []
        self._clip: SourceOrder | None = None
        self._last: SourceOrder | None = None
        """What was opened last: what "Start again" opens."""
        self._list_ticket = 0
        self._item = self._new_item()
        self._key = ""
        self.session = LiveSession(bridge, sources, self)
        self.session.may_ask = lambda: self.dock.view is None or not self.dock.view.is_busy
        self.image_view = ImageView()
        self.image_view.setAccessibleName(tr("Live picture"))
        canvas = Canvas(self.image_view, TextView(), WaveView(), TensorView())
        self.message, self.sentence, self.advice, self.again_button = self._message_parts()
        self.stack = QStackedWidget()
        for page in (self.image_view, self.message, canvas.text, canvas.wave, canvas.tensor):
            self.stack.addWidget(page)
        self.dock = ResultDock(bridge, canvas, doubtful_below)
        self.bar = self._bar()
        self._tell_rates = QTimer(self)
        self._tell_rates.setInterval(TELL_EVERY_MS)
        self._tell_rates.timeout.connect(self._say_rates)
        self._lay_out()
        self._connect()
        self._fill_choices()

    # -- parts -----------------------------------------------------------------------------------------------------
    @staticmethod
    def _new_item() -> Item:
        return Item(0, InputFile(tr("Live picture"), "image"))

    def _bar(self) -> QWidget:
        bar = QWidget()
        self.choices = QComboBox()
        self.choices.setAccessibleName(tr("Camera"))
        self.choices.setMinimumWidth(200)
        self.choices.setMaximumWidth(320)
        self.rates = ElidedLabel("", "body2", cut_end=True)
        self.keep_button = Button(tr("Keep this picture"), "image-plus")
        self.stop_button = Button(tr("Stop"), "square", "flat")
        self.stop_button.setToolTip(tr("Stop (Esc)"))
        row = QHBoxLayout(bar)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self.choices)
        row.addSpacing(4)
        row.addWidget(self.rates, 1)
        row.addWidget(self.keep_button)
        row.addWidget(self.stop_button)
        return bar

    def _message_parts(self) -> tuple[Card, QLabel, QLabel, Button]:
        card = Card("canvas")
        sentence, advice = label("", "title", wrap=True), label("", "body2", wrap=True)
        for words in (sentence, advice):
            words.setAlignment(Qt.AlignmentFlag.AlignCenter)
        again = Button(tr("Start again"), "refresh", "primary")
        clip = Button(tr("Play a folder of pictures…"))
        clip.clicked.connect(self._choose_folder)
        buttons = QHBoxLayout()
        buttons.setSpacing(8)
        buttons.addStretch(1)
        buttons.addWidget(again)
        buttons.addWidget(clip)
        buttons.addStretch(1)
        box = QVBoxLayout(card)
        box.setContentsMargins(32, 24, 32, 24)
        box.setSpacing(0)
        box.addStretch(1)
        box.addWidget(IconLabel("camera", "accent", 26, tile=56), 0, Qt.AlignmentFlag.AlignHCenter)
        box.addSpacing(16)
        box.addWidget(sentence)
        box.addSpacing(8)
        box.addWidget(advice)
        box.addSpacing(20)
        box.addLayout(buttons)
        box.addStretch(1)
        return card, sentence, advice, again

    def _lay_out(self) -> None:
        inner = QWidget()
        inner.setObjectName("clear")
        scroll = QScrollArea()
        scroll.setWidget(inner)
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.viewport().setObjectName("clear")
        self._row = QBoxLayout(QBoxLayout.Direction.LeftToRight, inner)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(16)
        self._row.addWidget(self.stack, 1)
        self._row.addWidget(self.dock)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(12)
        outer.addWidget(self.bar)
        outer.addWidget(scroll, 1)

    def _connect(self) -> None:
        session, dock = self.session, self.dock
        session.changed.connect(self._on_source_changed)
        session.pictured.connect(self._on_picture)
        session.answered.connect(self._on_answer)
        session.refused.connect(self._on_refused)
        dock.refine_asked.connect(lambda _item, params: session.refine(params))
        dock.again_asked.connect(lambda _item: session.ask_again())
        dock.card_asked.connect(self.card_asked)
        dock.keep_asked.connect(self.keep_asked)
        dock.failed.connect(self.failed)
        self.choices.activated.connect(self._on_chosen)
        self.keep_button.clicked.connect(self.keep)
        self.stop_button.clicked.connect(self.stop)
        self.again_button.clicked.connect(self.start_again)
        self._shelf.active_changed.connect(lambda: self._follow_model())
        self._shelf.changed.connect(lambda: self._follow_model())

    # -- what a person does ----------------------------------------------------------------------------------------
    def start(self) -> None:
        """Take the page, look for cameras, and open the one that was used before, else the first."""
        if self.is_on:
            return
        self.is_on = True
        self._follow_model(anew=True)
        self.opened.emit()
        self._look_for_cameras()

    def start_again(self) -> None:
        """Open what was open; where nothing was, look for cameras again."""
        if self._last is not None:
            self.play(self._last)
        else:
            self._look_for_cameras()

    def play(self, order: SourceOrder) -> None:
        """Open ``order`` and show it."""
        if not self.is_on:
            self.is_on = True
            self._follow_model(anew=True)
            self.opened.emit()
        self._bridge.drop(self._list_ticket)
        self._last = order
        if order.kind == "clip":
            self._clip = order
        self._fill_choices()
        self.image_view.show_overlay(None)
        self.image_view.show_second(None)
        self.image_view.show_message(tr("Opening {name}.").format(name=order.name))
        self.stack.setCurrentWidget(self.image_view)
        self.session.start(order)
        self._tell_rates.start()
        self._say_rates()

    def stop(self) -> None:
        """Let the camera go and give the page back. Does nothing while it is off."""
        if not self.is_on:
            return
        self.is_on = False
        self._bridge.drop(self._list_ticket)
        self._tell_rates.stop()
        self.session.stop()
        self.image_view.show_message("")
        self.left.emit()

    def keep(self) -> None:
        """Put the picture that is shown in the list, as an ordinary one."""
        frame = self.session.frame
        if frame is not None:
            self._kept += 1
            name = tr("Camera picture {kept}").format(kept=self._kept)
            self.keep_picture.emit(InputFile(name, "image", data=frame.jpeg, content_type="image/jpeg"))

    def hideEvent(self, event: QHideEvent) -> None:
        """Another page was opened: no camera runs behind it. A minimised window goes on."""
        if not event.spontaneous():
            self.stop()

    # -- which camera ----------------------------------------------------------------------------------------------
    def _look_for_cameras(self) -> None:
        self.image_view.show_message(tr("Looking for cameras."))
        self.stack.setCurrentWidget(self.image_view)
        self._say_rates()
        self._bridge.drop(self._list_ticket)
        self._list_ticket = self._bridge.run(self, self._sources.cameras, self._on_cameras, self._show_problem)

    def _on_cameras(self, cameras: list[SourceOrder]) -> None:
        self._cameras = cameras
        self._fill_choices()
        if cameras:
            self.play(self._last if self._last in cameras and self._last is not None else cameras[0])
        else:
            self._last = None
            self._show_problem(FrameProblem(tr("No camera was found."), code="camera_missing"))

    def _fill_choices(self) -> None:
        """Every camera, the clip that was played, and the two ways to another clip."""
        with QSignalBlocker(self.choices):
            self.choices.clear()
            for order in [*self._cameras, *([self._clip] if self._clip is not None else [])]:
                self.choices.addItem(order.name, order)
            if not self.choices.count():
                self.choices.addItem(tr("No camera"))
            self.choices.insertSeparator(self.choices.count())
            self.choices.addItem(tr("A folder of pictures…"), "folder")
            self.choices.addItem(tr("An animated picture…"), "file")
            self._show_choice()

    def _show_choice(self) -> None:
        at = next((i for i in range(self.choices.count()) if self.choices.itemData(i) == self._last), 0)
        self.choices.setCurrentIndex(at if self._last is not None else 0)

    def _on_chosen(self, at: int) -> None:
        chosen = self.choices.itemData(at)
        if isinstance(chosen, SourceOrder):
            if chosen != self.session.order:
                self.play(chosen)
        elif chosen in ("folder", "file"):
            self._show_choice()  # until something is chosen, what was open stays
            self._choose_folder() if chosen == "folder" else self._choose_file()

    def _choose_folder(self) -> None:
        dialog = QFileDialog(self, tr("Play a folder of JPEG pictures"))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        self._run_dialog(dialog)

    def _choose_file(self) -> None:
        dialog = QFileDialog(self, tr("Play an animated picture"))
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setNameFilter(tr(CLIP_PATTERNS))
        self._run_dialog(dialog)

    def _run_dialog(self, dialog: QFileDialog) -> None:
        # open() and not exec(): a nested event loop could outlive the window that started it.
        dialog.fileSelected.connect(lambda name: self.play(SourceOrder("clip", name, Path(name).name)))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    # -- what comes ------------------------------------------------------------------------------------------------
    def _on_source_changed(self) -> None:
        source = self.session.source
        if source is not None and source.state is SourceState.ENDED and source.problem is not None:
            self._show_problem(source.problem)
        self.keep_button.setEnabled(self.session.frame is not None and self.stack.currentWidget() is self.image_view)

    def _show_problem(self, error: BaseException) -> None:
        text = error_text(error)
        self.sentence.setText(text.sentence)
        self.advice.setText(text.advice)
        self.again_button.setText(tr("Start again") if self._last is not None else tr("Look again"))
        self.again_button.setAccessibleName(self.again_button.text())
        self.message.setAccessibleName(f"{text.sentence} {text.advice}")
        self.stack.setCurrentWidget(self.message)
        self.keep_button.setEnabled(False)
        self.rates.setText("")
        self._tell_rates.stop()

    def _on_picture(self, frame: Frame) -> None:
        self.image_view.show_frame(frame.preview, tr("of the camera"))
        if not self.keep_button.isEnabled():
            self.keep_button.setEnabled(True)

    def _on_answer(self, frame: Frame, prediction: Prediction) -> None:
        item = self._item
        item.state, item.prediction, item.error, item.model = ItemState.DONE, prediction, None, prediction.model
        if self.dock.view is not None:
            self.dock.view.picture = None  # so that masks are laid over once, and not over the picture before as well
        self._show_item(frame)
        if self.dock.view is not None:
            self.dock.view.show_picture(frame.preview)
        self.answered.emit(prediction)

    def _on_refused(self, frame: Frame, error: BaseException) -> None:
        self._item.state, self._item.prediction, self._item.error = ItemState.FAILED, None, error
        self.image_view.show_overlay(None)
        self.image_view.show_second(None)
        self._show_item(frame)

    def _show_item(self, frame: Frame | None = None) -> None:
        width, height = frame.preview.source_size if frame is not None else (0, 0)
        self.dock.show_item(self._item, self._shelf.active, f"{width} × {height}" if frame is not None else "")

    def _follow_model(self, anew: bool = False) -> None:
        """The model that answers what is dropped answers this as well."""
        active = self._shelf.active
        key = active.key if active is not None else ""
        if not self.is_on or (key == self._key and not anew):
            return
        self._key, self._item = key, self._new_item()
        self.image_view.show_overlay(None)
        self.image_view.show_second(None)
        takes_pictures = active is not None and active.task.startswith(PICTURE_TASKS)
        view = view_of_task(active.task) if active is not None else None
        self.session.set_model(key if takes_pictures else "", view.params if view is not None else {})
        if active is not None and not takes_pictures:
            self._item.state = ItemState.FAILED
            self._item.error = UnsupportedMediaType(tr("{name} takes no pictures.").format(name=active.name))
        if self.session.model:
            self.dock.clear()  # until there is an answer
        else:
            self._show_item()

    def _say_rates(self) -> None:
        source, order = self.session.source, self.session.order
        if source is None or order is None:
            self.rates.setText("")
            return
        self.rates.setText(rates_sentence(*self.session.rates(), order.kind == "camera", bool(self.session.model)))

    def resizeEvent(self, event: QResizeEvent) -> None:
        narrow = event.size().width() < NARROW - 100
        self._row.setDirection(QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight)
        if narrow:
            self.dock.setMinimumWidth(0)
            self.dock.setMaximumWidth(16_777_215)
        else:
            self.dock.setFixedWidth(DOCK_WIDTH)
