"""How cells are drawn: the dot and tag of a request, the bar of a score, a thumbnail with its state."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPen
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from engine.serving_types import RequestRecord, RequestState
from gui import theme
from gui.icons import paint_icon
from gui.item_models.answers_model import ANSWER, FAILED_ROLE, ROW, SCORE, SCORE_ROLE
from gui.item_models.items_model import ITEM_ROLE, ItemsModel
from gui.item_models.requests_model import ACTION, FROM, LIVE, RECORD_ROLE, STATE, TIME
from gui.predict_queue import Item, ItemState
from gui.widgets.result_bars import paint_bar
from gui.words import percent_words

_Index = QModelIndex | QPersistentModelIndex
_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
PADDING = 12

TAGS = {
    RequestState.WAITING: ("text2", "track"),
    RequestState.RUNNING: ("accent", "accent_soft"),
    RequestState.ANSWERED: ("ok", "ok_soft"),
    RequestState.LATE: ("warn", "warn_soft"),
    RequestState.REFUSED: ("error", "error_soft"),
    RequestState.FAILED: ("error", "error_soft"),
    RequestState.GONE: ("text2", "track"),
}

_KIND_ICONS = {"table": "table", "tensor": "tensor", "image": "image", "text": "file-text", "audio": "audio-lines"}


class _RowDelegate(QStyledItemDelegate):
    """A row with a hairline below, a soft fill when chosen, and plain text."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rect = QRectF(option.rect)
        state = option.state
        if state & QStyle.StateFlag.State_Selected:
            painter.fillRect(rect, theme.color("accent_soft"))
        elif state & QStyle.StateFlag.State_MouseOver:
            painter.fillRect(rect, theme.color("sunken" if theme.tokens().name == "light" else "hover"))
        painter.setPen(QPen(theme.color("hair"), 1))
        painter.drawLine(QPointF(rect.left(), rect.bottom() - 0.5), QPointF(rect.right(), rect.bottom() - 0.5))
        self.paint_cell(painter, rect.adjusted(PADDING, 0, -PADDING, -1), index)
        painter.restore()

    def paint_cell(self, painter: QPainter, rect: QRectF, index: _Index) -> None:
        self.text(
            painter, rect, str(index.data()), "text2", align=int(index.data(Qt.ItemDataRole.TextAlignmentRole) or _LEFT)
        )

    @staticmethod
    def text(
        painter: QPainter, rect: QRectF, words: str, role: str, *, medium: bool = False, align: int = _LEFT
    ) -> None:
        painter.setFont(theme.font("body", medium=medium))
        painter.setPen(theme.color(role))
        shown = painter.fontMetrics().elidedText(words, Qt.TextElideMode.ElideMiddle, int(rect.width()))
        painter.drawText(rect, align, shown)


def placed_in(painter: QPainter, cell: QRectF, box: QRectF) -> QRectF:
    """Where ``box`` lies in ``cell``: mirrored where the window is read from right to left."""
    if painter.layoutDirection() is Qt.LayoutDirection.LeftToRight:
        return box
    return QRectF(cell.left() + cell.right() - box.right(), box.y(), box.width(), box.height())


class RequestDelegate(_RowDelegate):
    """Petrol dot for this computer's owner, plum for the network; the state as a tag."""

    def paint_cell(self, painter: QPainter, rect: QRectF, index: _Index) -> None:
        record: RequestRecord = index.data(RECORD_ROLE)
        column = index.column()
        words = str(index.data())
        if column == FROM:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color("lan" if record.lane == "lan" else "accent"))
            painter.drawEllipse(placed_in(painter, rect, QRectF(rect.left(), rect.center().y() - 4, 8, 8)))
            self.text(painter, placed_in(painter, rect, rect.adjusted(16, 0, 0, 0)), words, "text", medium=True)
        elif column == ACTION:
            name = "x" if record.state in LIVE else "ellipsis"
            spot = QRectF(rect.center().x() - 8, rect.center().y() - 8, 16, 16)
            paint_icon(painter, name, spot, theme.color("text2"))
        elif column == STATE:
            self._tag(painter, rect, words, record.state)
        else:
            align = int(index.data(Qt.ItemDataRole.TextAlignmentRole) or _LEFT)
            self.text(painter, rect, words, "text2" if column == TIME or align == _RIGHT else "text", align=align)

    @staticmethod
    def _tag(painter: QPainter, rect: QRectF, words: str, state: RequestState) -> None:
        role, fill = TAGS[state]
        painter.setFont(theme.font("caption", medium=True))
        metrics = painter.fontMetrics()
        shown = metrics.elidedText(words, Qt.TextElideMode.ElideRight, int(rect.width()) - 24)
        height = metrics.height() + 6
        box = QRectF(rect.left(), rect.center().y() - height / 2, metrics.horizontalAdvance(shown) + 24, height)
        dot = placed_in(painter, rect, QRectF(box.left() + 7, box.center().y() - 2.5, 5, 5))
        inside = placed_in(painter, rect, box.adjusted(17, 0, 0, 0))
        box = placed_in(painter, rect, box)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color(fill))
        painter.drawRoundedRect(box, 4, 4)
        painter.setBrush(theme.color(role))
        painter.drawEllipse(dot)
        painter.setPen(theme.color(role))
        painter.drawText(inside, _LEFT, shown)


class AnswerDelegate(_RowDelegate):
    """Row number grey, the answer bold, the score as bar and number, doubtful ones amber."""

    def __init__(self, doubtful_below: float) -> None:
        super().__init__()
        self.doubtful_below = doubtful_below

    def paint_cell(self, painter: QPainter, rect: QRectF, index: _Index) -> None:
        column = index.column()
        words = str(index.data() or "")
        if column == ROW:
            self.text(painter, rect, words, "text3")
        elif column == ANSWER:
            role = "error" if index.data(FAILED_ROLE) else "text"
            painter.setFont(theme.font("body", semibold=True))
            painter.setPen(theme.color(role))
            shown = painter.fontMetrics().elidedText(words, Qt.TextElideMode.ElideMiddle, int(rect.width()))
            painter.drawText(rect, _LEFT, shown)
        elif column == SCORE:
            score = index.data(SCORE_ROLE)
            if score is None:
                return
            doubtful = score < self.doubtful_below
            number = painter.fontMetrics().horizontalAdvance(percent_words(0.999999)) + 10
            bar = QRectF(rect.left(), rect.center().y() - 3, max(20.0, rect.width() - number - 8), 6)
            paint_bar(painter, bar, score, "warn_line" if doubtful else "accent")
            self.text(painter, rect, words, "warn" if doubtful else "text", medium=True, align=_RIGHT)
        else:
            self.text(painter, rect, words, "text2", align=_RIGHT)


class ThumbnailDelegate(QStyledItemDelegate):
    """96 x 60 picture, name below; queued grey, failed with a red mark."""

    SIZE = QSize(108, 88)

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        return self.SIZE

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        item: Item = index.data(ITEM_ROLE)
        rect = QRectF(option.rect)
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        box = QRectF(rect.left() + 4, rect.top() + 4, 96, 60)
        model = index.model()
        pixmap = model.thumbnail(item) if isinstance(model, ItemsModel) else None
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("canvas"))
        painter.drawRoundedRect(box, 4, 4)
        if pixmap is not None:
            if item.state is ItemState.QUEUED:
                painter.setOpacity(0.45)
            target = QRectF(0, 0, pixmap.width(), pixmap.height())
            factor = min(box.width() / target.width(), box.height() / target.height())
            target.setSize(target.size() * factor)
            target.moveCenter(box.center())
            painter.drawPixmap(target, pixmap, QRectF(pixmap.rect()))
            painter.setOpacity(1)
        else:
            name = _KIND_ICONS.get(item.source.kind, "file-alert")
            paint_icon(
                painter, name, QRectF(box.center().x() - 10, box.center().y() - 10, 20, 20), theme.color("text3")
            )
        if item.state is ItemState.FAILED:
            mark = QRectF(box.right() - 20, box.top() + 4, 16, 16)
            painter.setBrush(theme.color("surface"))
            painter.drawEllipse(mark.adjusted(-1, -1, 1, 1))
            paint_icon(painter, "circle-alert", mark, theme.color("error"))
        if chosen:
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme.color("accent"), 2))
            painter.drawRoundedRect(box.adjusted(-2, -2, 2, 2), 6, 6)
        role = "error" if item.state is ItemState.FAILED else ("text" if chosen else "text2")
        painter.setPen(theme.color(role))
        painter.setFont(theme.font("caption", semibold=chosen))
        words = painter.fontMetrics().elidedText(item.source.name, Qt.TextElideMode.ElideMiddle, 96)
        painter.drawText(QRectF(box.left(), box.bottom() + 4, 96, 16), _LEFT, words)
        painter.restore()
