"""The Predict page: what to show (start, loading, ready, work, error), and the way of a drop into the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QMimeData, Qt, Signal
from PySide6.QtGui import QGuiApplication, QImage
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from engine.settings import write_atomically
from gui.engine_bridge import EngineBridge
from gui.error_text import FileProblem, error_text
from gui.frames import FrameSources
from gui.intake import INPUT_SUFFIXES, MODEL_SUFFIXES, InputFile, Intake, summary, take_in
from gui.language import counted, mark, tr
from gui.model_shelf import ModelShelf
from gui.panels.error_panel import ErrorPanel
from gui.panels.loading_card import LoadingCard
from gui.panels.ready_page import ReadyPage
from gui.panels.screen_region import ScreenRegion
from gui.panels.start_page import StartPage
from gui.png import png_of
from gui.predict_queue import Item, ItemState, PredictQueue
from gui.samples import read_examples
from gui.views import view_of_task
from gui.widgets.banner import Banner
from gui.widgets.basics import Button
from gui.widgets.drop_area import DropOverlay, DropState

if TYPE_CHECKING:
    from gui.panels.live_view import LiveView
    from gui.panels.work_view import WorkView

PASTED_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")
MAX_PASTED_PATH = 4096
NOTHING_PASTED = (mark("Nothing to paste."), mark("Copy a picture, a file or the path of a model first."))
NOTHING_DROPPED = (
    mark("Nothing in it can be used."),
    mark("Drop pictures, tables, texts, recordings, tensors or a model."),
)
ADDRESS = (
    mark("Addresses are not opened: Deskside fetches nothing."),
    mark("Save the picture first, then drop the file."),
)


class PredictPage(QWidget):
    """``model_asked(Path)`` for every model among what was dropped; ``status(tone, text)`` for the status line."""

    model_asked = Signal(object)
    cancel_asked = Signal(int)
    status = Signal(str, str)
    answered = Signal(object)
    zoomed = Signal(float)
    card_asked = Signal(str)
    keep_asked = Signal(object)
    live_changed = Signal()
    """A camera's pictures took the page, or gave it back."""

    def __init__(
        self,
        bridge: EngineBridge,
        shelf: ModelShelf,
        queue: PredictQueue,
        examples: Sequence[Path],
        doubtful: float,
        sources: FrameSources,
    ) -> None:
        super().__init__()
        self.setObjectName("page")
        self._bridge, self._shelf, self._queue = bridge, shelf, queue
        self._error_shown = False
        self._pasted = 0
        self._act: Callable[[], None] = self.open_model
        """What the banner's button does."""
        self._drag_ticket = 0
        self.banner = Banner()
        self.start = StartPage(bridge)
        self.loading = LoadingCard()
        self.ready = ReadyPage(bridge)
        self._sources, self._doubtful_below = sources, doubtful
        self.screen_region = ScreenRegion(bridge, self)
        self.error = ErrorPanel()
        self.stack = QStackedWidget()
        for page in (self.start, self.loading, self.ready, self.error):
            self.stack.addWidget(page)
        self.toolbar = self._toolbar()
        box = QVBoxLayout(self)
        box.setContentsMargins(20, 14, 20, 14)
        box.setSpacing(12)
        box.addWidget(self.toolbar)
        box.addWidget(self.banner)
        box.addWidget(self.stack, 1)
        self.overlay = DropOverlay(self)
        self._connect()
        bridge.run(self, lambda: read_examples(examples), self.start.show_examples, self._on_examples_failed)
        self.refresh()

    def _toolbar(self) -> QWidget:
        bar = QWidget()
        row = QHBoxLayout(bar)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        self.open_button = Button(tr("Open files…"), "image-plus")
        self.paste_button = Button(tr("Paste"), "clipboard", "flat")
        self.camera_button = Button(tr("Camera"), "camera", "flat")
        self.copy_button = Button(tr("Copy JSON"), "code", "flat")
        self.save_button = Button(tr("Save…"), "save", "flat", name=tr("Save the answer"))
        self.clear_button = Button(tr("Clear"), "x", "flat", name=tr("Clear the list"))
        for button in (self.open_button, self.paste_button, self.camera_button):
            row.addWidget(button)
        row.addStretch(1)
        for button in (self.copy_button, self.save_button, self.clear_button):
            row.addWidget(button)
        return bar

    def _connect(self) -> None:
        self.open_button.clicked.connect(self.open_files)
        self.paste_button.clicked.connect(self.paste)
        self.camera_button.clicked.connect(lambda: self.live.start())
        self.copy_button.clicked.connect(self.copy_answer)
        self.save_button.clicked.connect(self.save_answer)
        self.clear_button.clicked.connect(self.clear)
        self.start.load_asked.connect(self.model_asked)
        self.start.drop_area.open_asked.connect(self.open_model)
        self.start.drop_area.paste_asked.connect(self.open_folder)
        self.loading.cancel_asked.connect(self.cancel_asked)
        self.loading.open_files_asked.connect(self.open_files)
        self.ready.drop_area.open_asked.connect(self.open_files)
        self.ready.drop_area.paste_asked.connect(self.paste)
        self.ready.sample_chosen.connect(lambda sample: self.add_inputs([sample], []))
        self.ready.text_asked.connect(self._take_text)
        self.screen_region.taken.connect(self._take_region)
        self.screen_region.failed.connect(self._on_take_failed)
        self.error.back_asked.connect(self.leave_error)
        self.error.open_asked.connect(self.open_model)
        self.banner.acted.connect(lambda: self._act())
        self._queue.changed.connect(self.refresh)
        self._shelf.changed.connect(self.refresh)
        self._shelf.active_changed.connect(self._on_active_changed)

    # -- what was dropped ------------------------------------------------------------------------------------------
    @cached_property
    def work(self) -> WorkView:
        """Built when something is dropped first: each of its 130 widgets weighs 15 KB, shown or not."""
        from gui.panels.work_view import WorkView

        work = WorkView(self._bridge, self._queue, self._shelf, self._doubtful_below)
        work.answered.connect(self._on_answered)
        work.zoomed.connect(self.zoomed)
        work.remove_asked.connect(self.remove_shown)
        self._put_view(work)
        return work

    @property
    def _built_work(self) -> WorkView | None:
        """:attr:`work` where it is there by now."""
        return vars(self).get("work")

    def _put_view(self, view: WorkView | LiveView) -> None:
        view.card_asked.connect(self.card_asked)
        view.keep_asked.connect(self.keep_asked)
        view.failed.connect(self._on_view_failed)
        self.stack.addWidget(view)

    @property
    def current(self) -> Item | None:
        """The dropped thing that is shown, where there is one."""
        return self._built_work.current if self._built_work is not None else None

    def keep_answer(self) -> None:
        """Keep the shown answer to check the model against."""
        if self.current is not None:
            self.work.keep_answer()

    # -- the camera ------------------------------------------------------------------------------------------------
    @cached_property
    def live(self) -> LiveView:
        """Built when it is first asked for: each of its hundred widgets weighs 15 KB, shown or not."""
        from gui.panels.live_view import LiveView

        live = LiveView(self._bridge, self._shelf, self._sources, self._doubtful_below)
        live.opened.connect(self.leave_error)
        live.opened.connect(self.live_changed)
        # Queued: it also leaves while the stack is changing to another page.
        live.left.connect(self.refresh, Qt.ConnectionType.QueuedConnection)
        live.left.connect(self.live_changed)
        live.keep_picture.connect(self._keep_picture)
        live.answered.connect(self.answered)
        self._put_view(live)
        return live

    @property
    def _built_live(self) -> LiveView | None:
        """:attr:`live` where it is there by now."""
        return vars(self).get("live")

    @property
    def is_live(self) -> bool:
        """Whether a camera's pictures have the page."""
        return self._built_live is not None and self._built_live.is_on

    def set_doubtful_below(self, share: float) -> None:
        """Answers with a score below ``share`` are marked, from now on."""
        self._doubtful_below = share
        if self._built_work is not None:
            self._built_work.set_doubtful_below(share)
        if self._built_live is not None:
            self._built_live.dock.bars.doubtful_below = share

    def shut_down(self) -> None:
        """Let the camera go, and wait for that. On any thread."""
        if self._built_live is not None:
            self._built_live.session.shut_down()

    # -- which page ------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Show what is true now."""
        active, loading = self._shelf.active, self._shelf.loading
        counts = self._queue.counts
        has_items = bool(self._queue.items)
        page: QWidget
        if self._error_shown:
            page = self.error
        elif self.is_live:
            page = self.live
        elif loading is not None and (not has_items or counts[ItemState.DONE] == 0):
            waiting = counts[ItemState.QUEUED] + counts[ItemState.RUNNING]
            self.loading.show_load(loading, active, waiting)
            page = self.loading
        elif has_items:
            page = self.work
        elif active is not None:
            self.ready.show_model(active)
            page = self.ready
        else:
            page = self.start
        if self.stack.currentWidget() is not page:
            self.stack.setCurrentWidget(page)
        works = page is self._built_work
        self.toolbar.setVisible(works or page is self.ready)
        for button in (self.copy_button, self.save_button, self.clear_button):
            button.setVisible(works)
        current = self.current
        answered = current is not None and current.prediction is not None
        self.copy_button.setEnabled(answered)
        self.save_button.setEnabled(answered)

    def show_error(self, error: BaseException) -> None:
        """A load failed: the sentence takes the page until the person goes on."""
        active = self._shelf.active
        self.error.show_error(error_text(error), active.name if active is not None else "")
        self._error_shown = True
        self.refresh()

    def leave_error(self) -> None:
        self._error_shown = False
        self.refresh()

    def clear(self) -> None:
        """Forget what was dropped; the model stays."""
        self._offer_undo(self._queue.clear())
        self.status.emit("ok", tr("Ready."))

    def remove_shown(self) -> None:
        """Take the shown item out of the list."""
        if self.current is not None:
            self._offer_undo(self._queue.take_out([self.current]))

    def _offer_undo(self, taken: list[tuple[int, Item]]) -> None:
        self._act = self.open_model
        if not taken:
            self.banner.hide()
            return
        one = tr("{name} was taken out of the list.").format(name=taken[0][1].source.name)
        several = tr("{count} things were taken out of the list.").format(count=len(taken))
        self.banner.say("accent", one if len(taken) == 1 else several, "", tr("Undo"))

        def undo() -> None:
            self.banner.hide()
            self._act = self.open_model
            self._queue.put_back(taken)
            self.work.show_item(taken[0][1])

        self._act = undo

    def _on_active_changed(self) -> None:
        active = self._shelf.active
        view = view_of_task(active.task) if active is not None else None
        self._queue.set_model(active.key if active is not None else "", view.params if view is not None else None)
        if active is not None and self.banner.sentence == tr("No model is open yet."):
            self.banner.hide()

    def _on_answered(self, prediction: object) -> None:
        self.answered.emit(prediction)
        self.copy_button.setEnabled(True)
        self.save_button.setEnabled(True)

    # -- ways in ---------------------------------------------------------------------------------------------------
    def open_files(self) -> None:
        """Ask for pictures, tables or models."""
        patterns = " ".join(f"*{s}" for s in sorted(INPUT_SUFFIXES))
        self._choose(
            tr("Open files"),
            tr("Pictures, tables, texts and recordings ({patterns});;All files (*)").format(patterns=patterns),
        )

    def open_model(self) -> None:
        patterns = " ".join(f"*{s}" for s in sorted(MODEL_SUFFIXES))
        self._choose(tr("Open a model"), tr("Models ({patterns});;All files (*)").format(patterns=patterns))

    def open_folder(self) -> None:
        dialog = QFileDialog(self, tr("Open a model folder or a folder of pictures"))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        self._run_dialog(dialog)

    def _choose(self, title: str, name_filter: str) -> None:
        dialog = QFileDialog(self, title)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
        dialog.setNameFilter(name_filter)
        self._run_dialog(dialog)

    def _run_dialog(self, dialog: QFileDialog) -> None:
        # open() and not exec(): a nested event loop could outlive the window that started it.
        dialog.filesSelected.connect(lambda names: self.take_paths([Path(name) for name in names]))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def paste(self, mime: QMimeData | None = None) -> None:
        """Take what is on the clipboard: files, a picture, or the path of a file."""
        self.take(mime if isinstance(mime, QMimeData) else QGuiApplication.clipboard().mimeData(), NOTHING_PASTED)

    def take(self, mime: QMimeData, nothing: tuple[str, str]) -> None:
        """Take what was pasted or dropped; ``nothing`` is said where it is none of what can be taken."""
        paths = local_paths(mime)
        if paths:
            self.take_paths(paths)
            return
        for content_type in PASTED_TYPES:
            if mime.hasFormat(content_type):
                self._take_pasted(bytes(mime.data(content_type).data()), content_type)
                return
        if mime.hasImage():
            # Only pixels another program already decoded are there: they are encoded, never decoded here.
            image = mime.imageData()
            if isinstance(image, QImage) and not image.isNull():
                self._bridge.run(
                    self,
                    lambda: png_of(image),
                    lambda data: self._take_pasted(data, "image/png"),
                    self._on_take_failed,
                )
                return
        text = mime.text().strip().strip('"') if mime.hasText() else ""
        if text and "\n" not in text and len(text) < MAX_PASTED_PATH and not text.startswith(("http:", "https:")):
            self.take_paths([Path(text).expanduser()])
            return
        if has_address(mime):
            self.banner.say("warn", *map(tr, ADDRESS))
        else:
            self.banner.say("accent", *map(tr, nothing))

    def take_paths(self, paths: Sequence[Path]) -> None:
        """Sort what was dropped or chosen (on a task thread) and act on it."""
        wanted = list(paths)
        if wanted:
            self._bridge.run(
                self,
                lambda: take_in(wanted, self._bridge.engine, lambda: self._bridge.is_open),
                self._on_taken,
                self._on_take_failed,
            )

    def add_inputs(self, inputs: list[InputFile], refused: list[tuple[str, FileProblem]]) -> None:
        """Queue inputs, list the refused; both are shown where there is something to run."""
        self._error_shown = False
        if self._act != self.open_model:  # an Undo is about the list as it was
            self._act = self.open_model
            self.banner.hide()
        if self.is_live:
            self.live.stop()
        self.work.follow_new()
        added = self._queue.add(inputs, refused)
        if added:
            self.work.show_item(added[0])
        if inputs and self._shelf.active is None and self._shelf.loading is None:
            one = tr("It runs as soon as one is ready.")
            waits = (
                one if len(inputs) == 1 else tr("All {count} run as soon as one is ready.").format(count=len(inputs))
            )
            self._act = self.open_model
            self.banner.say(
                "accent",
                tr("No model is open yet."),
                waits,
                tr("Open model…"),
            )
        self.refresh()

    def _on_taken(self, intake: Intake) -> None:
        for path in intake.models:
            self._error_shown = False
            self.model_asked.emit(path)
        if intake.inputs:
            self.add_inputs(intake.inputs, intake.refused)
        elif intake.refused:
            self._refuse(intake.refused)

    def _refuse(self, refused: list[tuple[str, FileProblem]]) -> None:
        if len(refused) == 1:
            text = error_text(refused[0][1])
            self.banner.say("error", text.sentence, text.advice)
        else:
            names = ", ".join(name for name, _ in refused[:3]) + (" …" if len(refused) > 3 else "")
            self.banner.say(
                "error",
                tr("None of {count} files can be used.").format(count=len(refused)),
                tr("{names} stay untouched.").format(names=names),
            )
        self.status.emit("error", self.banner.sentence)

    def _on_take_failed(self, error: BaseException) -> None:
        text = error_text(error)
        self.banner.say("error", text.sentence, text.advice)

    def _on_examples_failed(self, error: BaseException) -> None:
        self.status.emit(
            "error", tr("The examples could not be read. {sentence}").format(sentence=error_text(error).sentence)
        )

    def _on_view_failed(self, error: BaseException) -> None:
        text = error_text(error)
        self.banner.say("error", text.sentence, text.advice)

    def _take_text(self, text: str) -> None:
        self._pasted += 1
        name = tr("Typed text {pasted}").format(pasted=self._pasted)
        self.add_inputs([InputFile(name, "text", data=text.encode(), content_type="text/plain; charset=utf-8")], [])

    def _take_pasted(self, data: bytes, content_type: str) -> None:
        self._pasted += 1
        name = tr("Pasted picture {pasted}").format(pasted=self._pasted)
        self.add_inputs([InputFile(name, "image", data=data, content_type=content_type)], [])

    def run_again(self) -> None:
        """Ask the model that is active now for the shown item anew."""
        item, active = self.current, self._shelf.active
        if item is None:
            self.status.emit("", tr("Drop something first: there is nothing to ask again."))
        elif item.source.kind == "other":
            self.status.emit("", tr("{name} cannot be asked about.").format(name=item.source.name))
        elif active is None:
            self.status.emit("", tr("Open a model first: there is none that could answer."))
        elif not self._queue.run_again(item):
            self.status.emit("", tr("{name} is being asked already.").format(name=item.source.name))

    def save_answer(self) -> None:
        """Keep the shown answer as a file: the picture with what was found drawn over it, or JSON."""
        item = self.current
        if item is None or item.prediction is None:
            self.status.emit("", tr("There is no answer to save yet."))
            return
        picture = self.work.answer_picture()
        kinds = [("png", tr("Picture with the answer (*.png)"))] if picture is not None else []
        kinds.append(("json", tr("Answer (*.json)")))
        dialog = QFileDialog(self, tr("Save the answer"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilters([words for _, words in kinds])
        dialog.setDefaultSuffix(kinds[0][0])
        dialog.filterSelected.connect(lambda words: dialog.setDefaultSuffix("png" if "*.png" in words else "json"))
        dialog.selectFile(f"{Path(item.source.name).stem}-answer")
        dialog.fileSelected.connect(lambda name: self.write_answer(Path(name), picture, item))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def write_answer(self, path: Path, picture: QImage | None, item: Item) -> None:
        """Write what the ending of ``path`` asks for of ``item``'s answer, on a task thread."""

        def write(make: Callable[[], bytes]) -> None:
            self._bridge.run(
                self, lambda: write_atomically(path, make()),
                lambda _: self.status.emit("ok", tr("The answer is kept in {name}.").format(name=path.name)),
                self._on_not_written,
            )  # fmt: skip

        if picture is not None and path.suffix.lower() != ".json":
            write(lambda: png_of(picture))
        else:
            found = self.work.answer_json(lambda text: write(lambda: text.encode() + b"\n"), item)
            if not found:  # asked again meanwhile, say
                self.status.emit("", tr("There is no answer to save yet."))

    def _on_not_written(self, error: BaseException) -> None:
        self.banner.say("error", tr("The answer could not be written."), error_text(error).sentence)

    def ask_about_screen(self) -> None:
        """Let the person mark a part of the screen; it is taken like a pasted picture."""
        self.screen_region.begin(self.window())

    def _take_region(self, data: bytes) -> None:
        self._pasted += 1
        name = tr("Part of the screen {pasted}").format(pasted=self._pasted)
        self.add_inputs([InputFile(name, "image", data=data, content_type="image/png")], [])

    def _keep_picture(self, picture: InputFile) -> None:
        """From the camera into the list, while the camera goes on."""
        self._queue.add([picture], [])
        self.status.emit(
            "ok", tr("{name} is in the list. The list is shown when the camera stops.").format(name=picture.name)
        )

    def copy_answer(self) -> None:
        """The shown answer to the clipboard, as the network gives it."""
        said = tr("The answer is on the clipboard, as JSON.")
        if self.current is None or not self.work.copy_json(lambda: self.status.emit("ok", said)):
            self.status.emit("", tr("There is no answer to copy yet."))

    # -- a drag over the window ------------------------------------------------------------------------------------
    def drag_over(self, mime: QMimeData) -> None:
        """Say what a drop would do. Names decide at once; only names without a known kind ask the disk, elsewhere."""
        paths = local_paths(mime)
        if not paths:
            self._bridge.drop(self._drag_ticket)
            if mime.hasImage() or any(mime.hasFormat(name) for name in PASTED_TYPES):
                self.show_drag({"image": 1}, [])
            else:
                self._show_zone(DropState.REFUSED, *map(tr, ADDRESS if has_address(mime) else NOTHING_DROPPED))
            return
        self.show_drag(*summary(paths, lambda path: True))
        wanted = list(paths)
        self._bridge.drop(self._drag_ticket)
        self._drag_ticket = self._bridge.run(
            self,
            lambda: summary(wanted, Path.is_dir),
            lambda found: self.show_drag(*found),
            lambda error: self.drag_left(),
        )

    def show_drag(self, counts: dict[str, int], refused: list[str]) -> None:
        active = self._shelf.active
        if not counts:
            title = tr("Nothing that can be asked about, and no model")
            stays = (
                tr("{name} stays untouched").format(name=refused[0])
                if len(refused) == 1
                else tr("{count} files stay untouched").format(count=len(refused))
            )
            self._show_zone(DropState.REFUSED, title, stays)
            return
        words = [
            words
            for kind, words in (
                ("image", counted("{count} picture", "{count} pictures", counts.get("image", 0))),
                ("table", counted("{count} table", "{count} tables", counts.get("table", 0))),
                ("text", counted("{count} text", "{count} texts", counts.get("text", 0))),
                ("audio", counted("{count} recording", "{count} recordings", counts.get("audio", 0))),
                ("tensor", counted("{count} tensor", "{count} tensors", counts.get("tensor", 0))),
                ("folder", counted("{count} folder", "{count} folders", counts.get("folder", 0))),
            )
            if counts.get(kind)
        ]
        if counts.get("model") and not words:
            title, text = (
                tr("Release to open this model"),
                tr("{name} keeps answering meanwhile").format(name=active.name) if active else "",
            )
        else:
            title = tr("Release to run {things}").format(things=tr(" and ").join(words))
            text = tr("on {name}").format(name=active.name) if active is not None else tr("as soon as a model is ready")
            if counts.get("folder") and len(counts) == 1:
                title = tr("Release to open {things}").format(things=words[0])
        if refused:
            text = counted("{count} file cannot be used", "{count} files cannot be used", len(refused))
        self._show_zone(DropState.OVER, title, text)

    def drag_left(self) -> None:
        self._bridge.drop(self._drag_ticket)
        self._show_zone(DropState.IDLE, "", "")

    @property
    def drop_state(self) -> DropState:
        """What the zone shows now, whichever page it is on."""
        return self.overlay.state

    def _show_zone(self, state: DropState, title: str, text: str) -> None:
        page = self.stack.currentWidget()
        zone = page.drop_area if isinstance(page, StartPage | ReadyPage) else None
        if zone is not None:
            zone.show_state(state, title, text)
            self.overlay.state = state
        else:
            self.overlay.show_state(state, title, text)
        if state is DropState.IDLE:
            self.overlay.show_state(state)
            for area in (self.start.drop_area, self.ready.drop_area):
                area.show_state(DropState.IDLE)


def local_paths(mime: QMimeData) -> list[Path]:
    return [Path(url.toLocalFile()) for url in mime.urls() if url.isLocalFile()]


def has_address(mime: QMimeData) -> bool:
    """Whether it is an address of the web, as a browser gives for a link or a picture."""
    text = mime.text().strip() if mime.hasText() else ""
    return any(not url.isLocalFile() for url in mime.urls()) or text.startswith(("http:", "https:"))
