"""The main window: layout and wiring only. What happens on a page is the page's own business."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import (
    QCloseEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDragMoveEvent,
    QDropEvent,
    QGuiApplication,
)
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QHBoxLayout,
    QMainWindow,
    QStackedWidget,
    QSystemTrayIcon,
    QVBoxLayout,
    QWidget,
)

from engine import EnginePort
from engine.errors import ConsentRequired
from engine.events import Notice, Snapshot
from engine.settings import ServerSettings, Settings, SettingsStore
from gui.actions import CARD, PREDICT, SERVER, SETTINGS, fill_menu
from gui.closing import CLOSE_WITHIN_MS, Closing
from gui.engine_bridge import EngineBridge
from gui.error_text import error_text
from gui.frames import CaptureSources
from gui.keep_awake import KeepAwake
from gui.language import tr
from gui.life import Life
from gui.model_changes import ModelChanges
from gui.model_loader import LoadOrder, ModelLoader
from gui.model_shelf import ModelShelf
from gui.panels.command_palette import CommandPalette
from gui.panels.consent_dialog import ConsentDialog, ask_consent
from gui.panels.frame import Header, Rail, StatusLine
from gui.panels.model_picker import ModelPicker
from gui.panels.predict_page import NOTHING_DROPPED, PredictPage
from gui.panels.settings_page import SettingsPage
from gui.ports import ServerPort
from gui.predict_queue import PredictQueue
from gui.recent_models import FILE as RECENT_FILE
from gui.recent_models import RecentModels
from gui.server_bridge import ServerBridge, first_port
from gui.session import SessionFiles
from gui.theme import ThemeSwitch
from gui.tray import Tray
from gui.widgets.banner import Banner, BannerBar
from gui.widgets.drop_area import DropState
from gui.widgets.focus_ring import FocusRing
from gui.words import served_words

if TYPE_CHECKING:
    from gui.panels.model_card_page import ModelCardPage
    from gui.panels.server_page import ServerPage


class MainWindow(QMainWindow):
    """``closed`` once everything the window started has ended."""

    closed = Signal()

    def __init__(
        self,
        engine: EnginePort,
        server: ServerPort,
        settings: Settings,
        settings_store: SettingsStore | None = None,
        examples: Sequence[Path] = (),
        theme_switch: ThemeSwitch | None = None,
        state_dir: Path | None = None,
        session: SessionFiles | None = None,
    ) -> None:
        super().__init__()
        self.setWindowTitle("Deskside")
        self.setMinimumSize(QSize(760, 560))
        self.resize(1280, 800)
        self.setAcceptDrops(True)
        self.is_closed = False
        self._theme_switch = theme_switch
        self._served_with = _of_the_door(settings)
        self._limited_with = settings.limits
        self._limiting = threading.Lock()
        self.bridge = EngineBridge(engine, self)
        self.loader = ModelLoader(self.bridge, self)
        self.shelf = ModelShelf(self)
        self.queue = PredictQueue(self.bridge, self)
        self.server = ServerBridge(server, self.bridge, self)
        self.changes = ModelChanges(self.bridge, self.shelf, self.server, self)
        self.header = Header(self.shelf)
        self.rail = Rail()
        self.predict_page = PredictPage(
            self.bridge, self.shelf, self.queue, examples, settings.window.doubtful_below,
            CaptureSources(settings.worker),
        )  # fmt: skip
        has_tray = QSystemTrayIcon.isSystemTrayAvailable()
        self.settings_page = SettingsPage(self.bridge, settings, settings_store, has_tray=has_tray)
        self.keep_awake = KeepAwake(self)
        self.pages = QStackedWidget()
        # An empty one keeps the number of a page that is built when it is opened.
        for page in (self.predict_page, QWidget(), self.settings_page, QWidget()):
            self.pages.addWidget(page)
        self._snapshot: Snapshot | None = None
        self.status_line = StatusLine()
        self.notice = Banner()
        recent = RecentModels(state_dir / RECENT_FILE if state_dir is not None else None)
        self.picker = ModelPicker(self, self.bridge, self.shelf, recent)
        self.palette_ = CommandPalette(self)
        self.focus_ring = FocusRing(self)
        self.consent_dialog: ConsentDialog | None = None
        self._closing = Closing(
            (
                self.loader.cancel_all,
                self.predict_page.shut_down,
                self.server.stop_now,
                self.bridge.close,
                self.loader.shut_down,
                lambda: self.loader.wait(CLOSE_WITHIN_MS),
            ),
            self,
        )
        self._lay_out()
        self.life = Life(self, session)
        self.menu = fill_menu(self)
        self._connect()
        if has_tray:
            self.life.set_tray(Tray(self.server, self))
        self.show_page(PREDICT)
        self.bridge.read_stats(self, self._on_first_stats, self._on_internal)

    def _lay_out(self) -> None:
        body = QHBoxLayout()
        body.setSpacing(0)
        body.addWidget(self.rail)
        right = QVBoxLayout()
        right.setSpacing(0)
        right.addWidget(BannerBar(self.notice))
        right.addWidget(self.pages, 1)
        right.addWidget(self.status_line)
        body.addLayout(right, 1)
        central = QWidget()
        box = QVBoxLayout(central)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(self.header)
        box.addLayout(body, 1)
        self.setCentralWidget(central)
        # The keyboard starts nowhere in particular: the first Tab shows the first ring.
        central.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        central.setAccessibleName("Deskside")  # what a screen reader says of the place where the keyboard is at first
        central.setFocus()

    def _connect(self) -> None:
        bridge, loader, shelf, page = self.bridge, self.loader, self.shelf, self.predict_page
        loader.started.connect(shelf.load_started)
        loader.progressed.connect(shelf.load_progressed)
        loader.loaded.connect(self._on_loaded)
        loader.failed.connect(self._on_load_failed)
        loader.cancelled.connect(self._on_load_cancelled)
        bridge.model_state_changed.connect(shelf.state_changed)
        bridge.snapshot_taken.connect(self._on_snapshot)
        bridge.snapshot_due.connect(self._show_snapshot)
        bridge.notice_given.connect(self._on_notice)
        page.model_asked.connect(self.load_model)
        page.cancel_asked.connect(loader.cancel)
        page.status.connect(self.status_line.say)
        page.answered.connect(self.status_line.show_timing)
        page.answered.connect(self._show_position)
        page.zoomed.connect(self._show_position)
        page.live_changed.connect(self._show_position)
        self.queue.changed.connect(self._show_position)
        page.card_asked.connect(self.show_card)
        page.keep_asked.connect(self.changes.keep)
        self.changes.done.connect(lambda sentence: self.status_line.say("ok", sentence))
        self.changes.failed.connect(self._on_change_failed)
        self.settings_page.status.connect(self.status_line.say)
        self.settings_page.changed.connect(self._on_settings)
        self.server.changed.connect(self._on_server_changed)
        self.server.failed.connect(lambda error: self.server_page.show_failure(error))
        self.keep_awake.changed.connect(self._show_position)
        self.header.chosen.connect(self._on_chip_chosen)
        self.header.cancel_asked.connect(loader.cancel)
        self.header.eject_asked.connect(self.eject)
        self.header.start_again_asked.connect(self._on_start_again)
        self.header.card_asked.connect(self.show_card)
        self.header.reload_asked.connect(self.reload_model)
        self.header.rollback_asked.connect(self.changes.roll_back)
        self.header.open_asked.connect(self.picker.open_picker)
        self.picker.activate_asked.connect(self._on_chip_chosen)
        self.picker.open_asked.connect(self.load_model)
        self.picker.file_asked.connect(page.open_model)
        self.picker.status.connect(self.status_line.say)
        self.header.memory.pin_asked.connect(self._pin)
        self.header.memory.run_asked.connect(self.reload_model)
        self.header.memory.settings_asked.connect(lambda: self.show_page(SETTINGS))
        self.header.pill.clicked.connect(lambda: self.show_page(SERVER))
        self.header.menu_button.clicked.connect(
            lambda: self.menu.popup(self.header.menu_button.mapToGlobal(self.header.menu_button.rect().bottomLeft()))
        )
        self.rail.chosen.connect(self.show_page)
        self._closing.over.connect(self._on_torn_down)
        self._on_server_changed()

    @property
    def is_closing(self) -> bool:
        return self._closing.under_way

    # -- models ----------------------------------------------------------------------------------------------------
    def load_model(self, path: Path, trust: bool = False) -> int:
        """Open the model at ``path``; the chip, the page and the status line follow it. The load's token, 0 where the
        window is closing."""
        if self._closing.under_way:
            return 0
        self.predict_page.leave_error()
        token = self.loader.load(LoadOrder(path, trust))
        self.shelf.load_asked(token, path)
        self.status_line.say("accent", tr("Loading {name}.").format(name=path.name))
        return token

    def reload_model(self, key: str, device: str = "", precision: str = "", trust: bool = False) -> None:
        """Load the next version of an open model from its files, beside the one that answers until then."""
        card = self.shelf.card(key)
        if card is None or card.token or self._closing.under_way:
            return
        if any(other.replaces == key for other in self.shelf.cards):
            self.status_line.say(
                "accent", tr("The next version of {name} is being loaded already.").format(name=card.name)
            )
            return
        order = LoadOrder(card.path, trust, replaces=key, device=device, precision=precision)
        self.shelf.swap_asked(self.loader.load(order), key)
        self.status_line.say(
            "accent", tr("Loading the next version of {name}; this one answers until then.").format(name=card.name)
        )

    def open_paths(self, paths: Sequence[Path]) -> None:
        """What the command line named, or a second start handed over."""
        self.predict_page.take_paths(paths)

    def eject(self, key: str) -> None:
        """Close a model; its process and memory go."""
        self.shelf.stopping(key)
        self.bridge.ask(self, lambda engine: engine.unload(key), lambda _: self.shelf.removed(key), self._on_internal)

    def _on_loaded(self, token: int, entry: dict[str, Any]) -> None:
        card = self.shelf.by_token(token)
        self.life.restored(token)
        self.shelf.load_finished(token, entry)
        opened = self.shelf.card(str(entry["id"]))
        if opened is not None:
            self.picker.note_opened(opened)
        if card is not None and card.replaces:
            words = tr("Version {version} of {name} answers now.")
            self.status_line.say("ok", words.format(version=entry.get("version", ""), name=entry["id"]))
        else:
            self.status_line.say("ok", tr("{name} is ready.").format(name=entry["id"]))

    def _on_load_failed(self, token: int, order: LoadOrder, error: BaseException) -> None:
        self.shelf.load_ended(token)
        if self.life.not_restored(token, order.path, error):
            return
        if isinstance(error, ConsentRequired):
            self._ask_consent(order, error)
            return
        if order.replaces:
            self._on_swap_failed(order.replaces, error)
            return
        self.status_line.say("error", tr("{name} was not opened.").format(name=order.path.name))
        self.predict_page.show_error(error)
        self.show_page(PREDICT)

    def _on_swap_failed(self, key: str, error: BaseException) -> None:
        """The version before goes on answering: a banner says so, wherever the person is."""
        card = self.shelf.card(key)
        version = card.version if card is not None else ""
        sentence = tr("The next version of {key} was not taken; version {version} still answers.").format(
            key=key, version=version
        )
        self.status_line.say("error", sentence)
        banner = self.card_page.banner if self.pages.currentIndex() == CARD else self.predict_page.banner
        banner.say("error", sentence, error_text(error).sentence)

    def _on_load_cancelled(self, token: int, order: LoadOrder) -> None:
        self.life.restored(token)
        self.shelf.load_ended(token)
        self.status_line.say("", tr("The load of {name} was cancelled.").format(name=order.path.name))

    def _ask_consent(self, order: LoadOrder, error: ConsentRequired) -> None:
        def over(run_it: bool) -> None:
            self.consent_dialog = None
            if not run_it:
                self.status_line.say("", tr("{name} was not opened.").format(name=order.path.name))
            elif order.replaces:
                self.reload_model(order.replaces, order.device, order.precision, trust=True)
            else:
                self.load_model(order.path, trust=True)

        self.consent_dialog = ask_consent(self, order.path, error, over)

    def _on_chip_chosen(self, key: str) -> None:
        self.shelf.set_active(key)
        self.show_page(PREDICT)

    def _on_start_again(self, key: str) -> None:
        card = next((card for card in self.shelf.cards if card.key == key), None)
        if card is not None:
            self.load_model(card.path)

    def cancel_newest(self) -> None:
        """Cancel the load that was asked for last; with none under way, stop the camera or leave the model card."""
        loading = self.shelf.loading
        if loading is not None:
            self.loader.cancel(loading.token)
        elif self.predict_page.is_live:
            self.predict_page.live.stop()
        elif self.pages.currentIndex() == CARD:
            self.show_page(PREDICT)

    def show_camera(self) -> None:
        """A camera's picture on the Predict page, with the model's answer over it."""
        self.show_page(PREDICT)
        self.predict_page.live.start()

    def eject_active(self) -> None:
        """Close the model that answers what is dropped."""
        if self.shelf.active is not None:
            self.eject(self.shelf.active.key)

    # -- the model card --------------------------------------------------------------------------------------------
    @cached_property
    def card_page(self) -> ModelCardPage:
        """Built when it is first asked for: each of its hundred widgets weighs 15 KB, shown or not."""
        from gui.panels.model_card_page import ModelCardPage

        page = ModelCardPage(self.bridge, self.shelf, self.queue, self.changes)
        page.status.connect(self.status_line.say)
        page.back_asked.connect(lambda: self.show_page(PREDICT))
        page.reload_asked.connect(self.reload_model)
        page.run_asked.connect(self.reload_model)
        self._put_page(CARD, page)
        return page

    def show_card(self, key: str = "") -> None:
        """Open the card of ``key``, by default of the model that answers what is dropped."""
        card = self.shelf.card(key) if key else self.shelf.active
        if card is None or not card.spec:
            self.status_line.say("", tr("Open a model first: its card says what was found in it, and where."))
            return
        self.card_page.show_model(card.key)
        self.show_page(CARD)

    def check_golden(self) -> None:
        """Ask the active model for its kept answer again."""
        if self.shelf.active is not None:
            self.changes.check_golden(self.shelf.active.key)

    def reload_active(self) -> None:
        """Reload the model that answers what is dropped, or the one whose card is open."""
        card = self.card_page.model if self.pages.currentIndex() == CARD else self.shelf.active
        if card is not None:
            self.reload_model(card.key)

    def _on_change_failed(self, sentence: str, error: BaseException) -> None:
        self.status_line.say("error", sentence)
        if self.pages.currentIndex() != CARD:
            self.predict_page.banner.say("error", sentence, error_text(error).sentence)

    # -- what the engine and the server say ------------------------------------------------------------------------
    def _on_snapshot(self, event: Snapshot) -> None:
        self._snapshot = event
        if self._built_server_page is not None:
            self._built_server_page.meter.take(event)

    def _show_snapshot(self, event: Snapshot) -> None:
        self.shelf.snapshot(event)
        self.header.show_memory(event.stats)
        if self._built_server_page is not None:
            self._built_server_page.show_requests(event.requests)

    def _on_first_stats(self, stats: dict[str, Any]) -> None:
        self.shelf.entries(stats["models"])
        self.header.show_memory(stats)

    def _pin(self, key: str, pinned: bool) -> None:
        words = (
            tr("{key} stays open.").format(key=key)
            if pinned
            else tr("{key} may be closed to save memory.").format(key=key)
        )
        self.bridge.run(
            self, lambda: self.bridge.engine.pin(key, pinned), lambda _: self.status_line.say("ok", words),
            self._on_internal,
        )  # fmt: skip

    def _on_notice(self, event: Notice) -> None:
        self.predict_page.banner.say("warn", event.message)

    def _on_internal(self, error: BaseException) -> None:
        self.status_line.say("error", error_text(error).sentence)

    @cached_property
    def server_page(self) -> ServerPage:
        """Built when it is first opened or the server first leaves off: 260 widgets of 15 KB, shown or not."""
        from gui.panels.server_page import ServerPage

        page = ServerPage(self.server, self.shelf, self.settings_page.settings, self.settings_page.change)
        page.status.connect(self.status_line.say)
        page.tabs.requests.cancel_asked.connect(self._cancel_request)
        if self._snapshot is not None:
            page.meter.take(self._snapshot)
            page.show_requests(self._snapshot.requests)
        self._put_page(SERVER, page)
        return page

    @property
    def _built_server_page(self) -> ServerPage | None:
        """:attr:`server_page` where it is there by now."""
        return vars(self).get("server_page")

    @property
    def server_port(self) -> int:
        """Where the switch would open the server."""
        if self._built_server_page is not None:
            return self._built_server_page.port.value()
        return first_port(self.settings_page.settings.server)

    def _on_server_changed(self) -> None:
        if not self.server.is_off and self._built_server_page is None:
            self.server_page.refresh()
        self.header.pill.show_server(self.server)
        scope = str(self.server.state.scope) if self.server.is_running else ""
        self.rail.buttons[SERVER].set_dot({"network": "lan", "computer": "accent"}.get(scope, ""))
        wanted = self.settings_page.settings.server.keep_awake
        self.keep_awake.hold(wanted and self.server.is_running and scope == "network")
        self._show_position()

    def copy_request(self, code: Callable[..., str], name: str) -> None:
        """The shown question as others can ask it, on the clipboard. The key stays a placeholder."""
        item = self.predict_page.current
        if item is None or not item.model:
            self.status_line.say("", tr("Ask a model something first."))
            return
        state = self.server.state
        url = next((url.url for url in state.urls), f"http://127.0.0.1:{state.port or 8765}")
        file = str(item.source.path or item.source.name)
        QGuiApplication.clipboard().setText(
            code(
                url,
                item.model,
                file=file,
                content_type=item.source.content_type or "",
                keyed=state.key_required,
                certificate=state.certificate,
            )
        )
        off = "" if self.server.is_running else tr(" It works once the server is on.")
        self.status_line.say("ok", tr("The request is on the clipboard, as {name}.").format(name=name) + off)

    def _cancel_request(self, request_id: str) -> None:
        def over(found: bool) -> None:
            self.status_line.say(
                "ok" if found else "", tr("The request was given up.") if found else tr("It was over already.")
            )

        self.bridge.run(self, lambda: self.bridge.engine.cancel(request_id), over, self._on_internal)

    def _on_settings(self, settings: Settings) -> None:
        if self._theme_switch is not None:
            self._theme_switch.apply(settings.window.theme)
        self.predict_page.set_doubtful_below(settings.window.doubtful_below)
        if _of_the_door(settings) != self._served_with:
            self._served_with = _of_the_door(settings)
            self.server.apply(settings.server)
        self._on_server_changed()
        if settings.limits != self._limited_with:
            self._limited_with = settings.limits
            self.bridge.run(self, self._limit_engine, lambda _: None, self._on_internal)
        self.life.keep_session()
        if self._built_server_page is not None:
            self._built_server_page.show_settings(settings)

    def _limit_engine(self) -> None:
        """On a thread of the bridge's: whichever comes last tells the newest limits."""
        with self._limiting:
            self.bridge.engine.limit(self._limited_with)

    def show_page(self, index: int) -> None:
        self.pages.setCurrentWidget(self._page(index))
        self.rail.select(PREDICT if index == CARD else index)
        self._show_position()

    def _page(self, index: int) -> QWidget:
        """The page of this number, built now where it was not yet."""
        if index == SERVER:
            return self.server_page
        if index == CARD:
            return self.card_page
        return self.settings_page if index == SETTINGS else self.predict_page

    def _put_page(self, index: int, page: QWidget) -> None:
        empty = self.pages.widget(index)
        self.pages.insertWidget(index, page)
        if empty is not None:
            self.pages.removeWidget(empty)
            empty.deleteLater()

    def next_region(self, step: int) -> None:
        """Move the keyboard to the next part: header, rail, page, in this order and round again."""
        regions = [part for part in (self.header, self.rail, self.pages.currentWidget()) if part is not None]
        focus = QApplication.focusWidget()
        at = next((i for i, region in enumerate(regions) if focus is not None and region.isAncestorOf(focus)), None)
        order = [((at if at is not None else (-1 if step > 0 else 0)) + step * n) % len(regions) for n in range(1, 4)]
        for number in order:
            controls = [
                widget for widget in regions[number].findChildren(QWidget)
                if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isVisible() and widget.isEnabled()
            ]  # fmt: skip
            if controls:
                checked = [w for w in controls if isinstance(w, QAbstractButton) and w.isChecked()]
                (checked or controls)[0].setFocus(Qt.FocusReason.TabFocusReason)
                return

    def _show_position(self, *_changed: object) -> None:
        items, current = self.queue.items, self.predict_page.current
        parts = []
        listed = self.pages.currentIndex() == PREDICT and not self.predict_page.is_live
        if listed and current is not None and current in items:
            parts.append(tr("{number} of {count}").format(number=items.index(current) + 1, count=len(items)))
            if current.source.kind == "image" and self.predict_page.work.image_view.has_picture:
                parts.append(f"{self.predict_page.work.image_view.scale * 100:.0f} %")
        if self.pages.currentIndex() == SERVER and self.server.is_running:
            parts = served_words(self.server.state)
            if self.keep_awake.is_held:
                parts.insert(0, tr("This computer stays awake"))
        self.status_line.right.setText("      ".join(parts))

    # -- drops on the whole window ---------------------------------------------------------------------------------
    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        self.show_page(PREDICT)
        self.predict_page.drag_over(event.mimeData())
        event.acceptProposedAction()

    def dragMoveEvent(self, event: QDragMoveEvent) -> None:
        if self.predict_page.drop_state is DropState.REFUSED:
            event.ignore()
        else:
            event.acceptProposedAction()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self.predict_page.drag_left()

    def dropEvent(self, event: QDropEvent) -> None:
        self.predict_page.drag_left()
        event.acceptProposedAction()
        self.predict_page.take(event.mimeData(), NOTHING_DROPPED)

    # -- the end ---------------------------------------------------------------------------------------------------
    def quit(self) -> None:
        """Close, without a question; ``closed`` once everything has ended."""
        if self._closing.under_way:
            return
        self.setEnabled(False)
        self.predict_page.screen_region.cancel()
        serving = not self.server.is_off
        self.status_line.say(
            "accent", tr("Closing. Requests already taken are answered.") if serving else tr("Closing.")
        )
        self.queue.set_model("")
        self._closing.begin()

    def closeEvent(self, event: QCloseEvent) -> None:
        if self.is_closed:
            event.accept()
            return
        event.ignore()
        if not self._closing.under_way:
            self.life.closed_by_person()

    def _on_torn_down(self, all_ended: bool) -> None:
        self.server.close()
        self.keep_awake.hold(False)
        self.life.close()
        if not all_ended:
            self.loader.abandon()
        self.is_closed = True
        self.closed.emit()
        self.close()


def _of_the_door(settings: Settings) -> ServerSettings:
    """What a listener is opened with; staying awake is the window's own business."""
    return settings.server.model_copy(update={"keep_awake": True})
