"""The last 100 requests through both doors, live; one that is not answered yet can be cancelled."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QModelIndex, QObject, QPoint, Qt, Signal
from PySide6.QtGui import QGuiApplication, QKeyEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHeaderView,
    QLabel,
    QMenu,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from engine.serving_types import RequestRecord, ServerState
from gui.icons import IconLabel
from gui.item_models.requests_model import (
    ACTION,
    FROM,
    LIVE,
    MODEL,
    RAN,
    RECORD_ROLE,
    SIZE,
    STATE,
    TIME,
    WAITED,
    RequestsModel,
)
from gui.language import tr
from gui.request_code import as_curl, as_python
from gui.server_bridge import ServerBridge
from gui.widgets.basics import label
from gui.widgets.delegates import RequestDelegate


class _Table(QTableView):
    """``acted(row)``: the row's one action, by click, Enter or Delete."""

    acted = Signal(int)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Delete, Qt.Key.Key_Menu):
            if self.currentIndex().isValid():
                self.acted.emit(self.currentIndex().row())
            return
        super().keyPressEvent(event)


class RequestsTab(QWidget):
    """``model`` is fed with the engine's records and the door's refusals. ``status(tone, text)``; ``changed`` when
    there are other rows."""

    status = Signal(str, str)
    changed = Signal()
    cancel_asked = Signal(str)

    def __init__(self, server: ServerBridge) -> None:
        super().__init__()
        self._server = server
        self.model = RequestsModel(self)
        self.table = _Table()
        self.menu: QMenu | None = None
        self._setup_table()
        self._empty_title, empty = self._empty()
        self._stack = QStackedWidget()
        self._stack.addWidget(empty)
        self._stack.addWidget(self.table)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self._stack)
        self.model.modelReset.connect(self._on_changed)
        self.model.rowsInserted.connect(self._on_changed)
        self.model.rowsRemoved.connect(self._on_changed)
        self.model.dataChanged.connect(self._on_changed)
        self.table.acted.connect(self.act)
        self.table.clicked.connect(self._on_clicked)
        self._on_changed()

    @property
    def live(self) -> int:
        """How many of those shown are not answered yet."""
        return sum(record.state in LIVE for record in self.model.records)

    def set_filter(self, words: str) -> None:
        self.model.set_filter(words)
        self._empty_title.setText(tr("Nothing fits the filter") if words.strip() else tr("No requests yet"))

    def _setup_table(self) -> None:
        table = self.table
        table.setModel(self.model)
        table.setItemDelegate(RequestDelegate(table))
        table.setShowGrid(False)
        table.setFrameShape(QFrame.Shape.NoFrame)
        table.setMouseTracking(True)
        table.verticalHeader().hide()
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        table.verticalHeader().setDefaultSectionSize(32)
        header = table.horizontalHeader()
        header.setFixedHeight(28)
        header.setHighlightSections(False)
        header.setMinimumSectionSize(40)
        header.setSectionResizeMode(FROM, QHeaderView.ResizeMode.Stretch)
        for column, width in (
            (TIME, 90), (MODEL, 180), (STATE, 200), (WAITED, 84), (RAN, 84), (SIZE, 90), (ACTION, 44),
        ):  # fmt: skip
            table.setColumnWidth(column, width)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        table.setTabKeyNavigation(False)
        table.setAccessibleName(tr("Last requests"))
        table.viewport().installEventFilter(self)

    @staticmethod
    def _empty() -> tuple[QLabel, QWidget]:
        page = QWidget()
        title = label(tr("No requests yet"), "strong")
        box = QVBoxLayout(page)
        box.setSpacing(6)
        box.addStretch(1)
        box.addWidget(
            IconLabel("radio-tower", "text3", 22, tile=48, tile_role="sunken"), 0, Qt.AlignmentFlag.AlignCenter
        )
        box.addSpacing(6)
        box.addWidget(title, 0, Qt.AlignmentFlag.AlignCenter)
        words = tr("Each question to a model appears here, yours and the network's.")
        box.addWidget(label(words, "small"), 0, Qt.AlignmentFlag.AlignCenter)
        box.addStretch(2)
        return title, page

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.Enter, QEvent.Type.Leave):
            self.model.set_held(event.type() is QEvent.Type.Enter or self.menu is not None)
        return super().eventFilter(watched, event)

    def act(self, row: int) -> None:
        """Cancel the request of ``row``, or open what can be done about one that is over."""
        index = self.model.index(row, ACTION)
        record: RequestRecord = index.data(RECORD_ROLE)
        if record.state in LIVE:
            self.cancel_asked.emit(record.id)
        else:
            rect = self.table.visualRect(index)
            self._open_menu(record, self.table.viewport().mapToGlobal(rect.bottomLeft()))

    def menu_of(self, record: RequestRecord) -> QMenu:
        """What can be done about a request that is over, and about who sent it."""
        menu, server, state = QMenu(self), self._server, self._server.state
        if record.model:
            url = _url(state)
            for words, name, code in (
                (tr("Copy as curl"), "curl", as_curl),
                (tr("Copy as Python"), "Python", as_python),
            ):
                text = code(url, record.model, keyed=state.key_required, certificate=state.certificate)
                menu.addAction(words).triggered.connect(lambda _=False, t=text, n=name: self._copy(t, n))
        if record.key and record.lane == "lan":
            held = record.key in state.paused_keys
            name = (
                tr("Let key “{key}” ask again").format(key=record.key)
                if held
                else tr("Pause key “{key}”").format(key=record.key)
            )
            menu.addAction(_plain(name)).triggered.connect(lambda: server.pause_key(record.key, not held))
        if record.client and record.lane == "lan":
            shut = record.client in state.blocked
            name = (
                tr("Answer {client} again").format(client=record.client)
                if shut
                else tr("Block {client}").format(client=record.client)
            )
            menu.addAction(_plain(name)).triggered.connect(lambda: server.block(record.client, not shut))
        if menu.isEmpty():
            menu.addAction(tr("Nothing to do about this one")).setEnabled(False)
        return menu

    def _open_menu(self, record: RequestRecord, at: QPoint) -> None:
        self.menu = self.menu_of(record)
        self.menu.aboutToHide.connect(self._on_menu_closed)
        self.menu.popup(at)

    def _on_menu_closed(self) -> None:
        if self.menu is not None:
            self.menu.deleteLater()
        self.menu = None
        self.model.set_held(self.table.viewport().underMouse())

    def _copy(self, text: str, name: str) -> None:
        QGuiApplication.clipboard().setText(text)
        self.status.emit(
            "ok",
            tr("The request is on the clipboard, as {name}.").format(name=name),
        )

    def _on_clicked(self, index: QModelIndex) -> None:
        if index.column() == ACTION:
            self.act(index.row())

    def _on_changed(self, *_where: object) -> None:
        self._stack.setCurrentIndex(1 if self.model.records else 0)
        self.changed.emit()


def _url(state: ServerState) -> str:
    return next((url.url for url in state.urls), f"http://127.0.0.1:{state.port}")


def _plain(text: str) -> str:
    """A menu reads & as a mark of its own."""
    return text.replace("&", "&&")
