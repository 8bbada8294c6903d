"""One way to read a picture, as a tile: what it is called, the person's own picture, and the answer it gives."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QEnterEvent, QPainter, QPainterPath, QPaintEvent, QPen, QPixmap
from PySide6.QtWidgets import QAbstractButton, QSizePolicy

from gui import theme
from gui.icons import paint_icon
from gui.language import tr
from gui.widgets.basics import placed, plain_tooltip
from gui.widgets.result_bars import paint_bar
from gui.words import percent_words

PADDING = 12
PICTURE_MIN = 64
_VCENTER = Qt.AlignmentFlag.AlignVCenter


class ConventionTile(QAbstractButton):
    """``now`` says that the model reads pictures this way already; ``assumed`` that nothing but a guess says so."""

    def __init__(self, words: str, answer: str, score: float | None) -> None:
        super().__init__()
        self.words, self.answer, self.score = words, answer, score
        self.now = self.assumed = False
        self._pixmap: QPixmap | None = None
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setToolTip(plain_tooltip(f"{words}\n{answer}"))
        self.setAccessibleDescription(tr("Reads pictures this way from now on, and saves it beside the model."))
        self.set_state(now=False, assumed=False)

    def set_state(self, *, now: bool, assumed: bool) -> None:
        """Whether this is how the model reads now, and whether it only assumes it."""
        self.now, self.assumed = now, assumed
        number = f" {percent_words(self.score)}" if self.score is not None else ""
        state = (tr(" Assumed now.") if assumed else tr(" In use.")) if now else ""
        self.setAccessibleName(f"{self.words}: {self.answer}{number}.{state}")
        self.update()

    @property
    def is_chosen(self) -> bool:
        """In use because a file or the person says so."""
        return self.now and not self.assumed

    def show_picture(self, pixmap: QPixmap) -> None:
        self._pixmap = pixmap
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(220, self._head() + self._foot() + 130)

    def minimumSizeHint(self) -> QSize:
        return QSize(150, self._head() + self._foot() + PICTURE_MIN)

    @staticmethod
    def _head() -> int:
        return theme.px("body") + 27

    @staticmethod
    def _foot() -> int:
        return theme.px("body") + 37

    def enterEvent(self, event: QEnterEvent) -> None:
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        width = 2 if self.is_chosen else 1
        edge = "accent" if self.is_chosen else "ctl" if self.underMouse() and self.isEnabled() else "hair"
        painter.setPen(QPen(theme.color(edge), width))
        hovered = self.underMouse() and self.isEnabled() and not self.is_chosen
        painter.setBrush(
            theme.color(("window" if theme.tokens().name == "light" else "hover") if hovered else "surface")
        )
        inset = width / 2
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(inset, inset, -inset, -inset), 8, 8)
        room = QRectF(self.rect()).adjusted(PADDING, 0, -PADDING, 0)
        self._paint_head(painter, room)
        self._paint_picture(painter, room.adjusted(0, self._head(), 0, -self._foot()))
        self._paint_answer(painter, room.adjusted(0, room.height() - self._foot() + 8, 0, -PADDING))
        painter.end()

    def _paint_head(self, painter: QPainter, room: QRectF) -> None:
        row = QRectF(room.x(), 2, room.width(), self._head() - 4)
        right = 0.0
        if self.is_chosen:
            paint_icon(
                painter,
                "circle-check",
                placed(self, QRectF(row.right() - 16, row.center().y() - 8, 16, 16)),
                theme.color("accent"),
            )
            right = 22
        elif self.now:
            right = self._paint_tag(painter, row, tr("assumed now")) + 8
        painter.setFont(theme.font("body", semibold=True))
        painter.setPen(theme.color("text"))
        shown = painter.fontMetrics().elidedText(self.words, Qt.TextElideMode.ElideRight, int(row.width() - right))
        painter.drawText(row, int(Qt.AlignmentFlag.AlignLeft | _VCENTER), shown)

    def _paint_tag(self, painter: QPainter, row: QRectF, words: str) -> float:
        painter.setFont(theme.font("caption", medium=True))
        metrics = painter.fontMetrics()
        width, height = metrics.horizontalAdvance(words) + 12, metrics.height() + 5
        box = placed(self, QRectF(row.right() - width, row.center().y() - height / 2, width, height))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("warn_soft"))
        painter.drawRoundedRect(box, 4, 4)
        painter.setPen(theme.color("warn"))
        painter.drawText(box, int(Qt.AlignmentFlag.AlignCenter), words)
        return width

    def _paint_picture(self, painter: QPainter, box: QRectF) -> None:
        path = QPainterPath()
        path.addRoundedRect(box, 4, 4)
        painter.fillPath(path, theme.color("canvas"))
        if self._pixmap is None or box.isEmpty():
            return
        painter.save()
        painter.setClipPath(path)
        factor = max(box.width() / self._pixmap.width(), box.height() / self._pixmap.height())
        wide, high = self._pixmap.width() * factor, self._pixmap.height() * factor
        target = QRectF(box.center().x() - wide / 2, box.center().y() - high / 2, wide, high)
        painter.drawPixmap(target, self._pixmap, QRectF(self._pixmap.rect()))
        painter.restore()

    def _paint_answer(self, painter: QPainter, box: QRectF) -> None:
        number = percent_words(self.score) if self.score is not None else ""
        painter.setFont(theme.font("body", semibold=self.is_chosen))
        metrics = painter.fontMetrics()
        row = QRectF(box.x(), box.y(), box.width(), metrics.height() + 2)
        painter.setPen(theme.color("text"))
        left = int(row.width() - metrics.horizontalAdvance(number) - 10)
        shown = metrics.elidedText(self.answer, Qt.TextElideMode.ElideMiddle, left)
        painter.drawText(row, int(Qt.AlignmentFlag.AlignLeft | _VCENTER), shown)
        painter.drawText(row, int(Qt.AlignmentFlag.AlignRight | _VCENTER), number)
        if self.score is not None:
            bar = QRectF(box.x(), row.bottom() + 4, box.width(), 6)
            paint_bar(painter, bar, self.score, "accent" if self.is_chosen else "ctl")
