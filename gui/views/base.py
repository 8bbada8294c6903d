"""What a view of an answer is: its part of the dock, and what it lays over the canvas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFileDialog, QWidget

from engine import Prediction
from engine.prediction import ImagePreview
from gui.engine_bridge import EngineBridge
from gui.predict_queue import Item
from gui.widgets.image_view import ImageView
from gui.widgets.tensor_view import TensorView
from gui.widgets.text_view import TextView
from gui.widgets.wave_view import WaveView

Spec = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Canvas:
    """What stands beside the dock: one of them is shown, by what was dropped."""

    image: ImageView
    text: TextView
    wave: WaveView
    tensor: TensorView


class AnswerView(QWidget):
    """Shows the answers of some tasks. ``refine_asked(params)`` wants the same answer with other parameters: that costs
    no inference. ``failed(error)`` tells of what could not be shown or saved.

    Heavy work (masks, colour maps) runs on the bridge's threads; what comes back late is dropped with its ticket.
    """

    refine_asked = Signal(dict)
    failed = Signal(object)
    params: ClassVar[Mapping[str, Any]] = {}
    """What every request of its tasks asks for, beside the person's own."""

    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__()
        self.setObjectName("clear")
        self.bridge, self.canvas = bridge, canvas
        self._ticket = 0
        self.item: Item | None = None
        self.prediction: Prediction | None = None
        self.spec: Spec = {}
        self.picture: ImagePreview | None = None

    def show_answer(self, item: Item, prediction: Prediction, spec: Spec) -> None:
        """Show ``prediction`` of ``item``; :meth:`show_picture` follows where a picture stands on the canvas."""
        fresh = item is not self.item
        self.item, self.prediction, self.spec = item, prediction, spec
        self.update_dock(fresh)

    def update_dock(self, fresh: bool) -> None:
        """``self.prediction`` is new; ``fresh``: so is what it answers."""
        raise NotImplementedError

    def show_picture(self, picture: ImagePreview) -> None:
        """The picture of ``self.item`` is on the canvas."""
        self.picture = picture
        self.lay_over()

    def lay_over(self) -> None:
        """Lay what is shown over the canvas. Called again whenever it changed."""

    def leave(self) -> None:
        """Another view takes the canvas."""
        self.bridge.drop(self._ticket)
        self.item = self.prediction = self.picture = None

    def compute(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """``work`` on a task thread, its result to ``done`` unless something newer was asked meanwhile."""
        self.bridge.drop(self._ticket)
        self._ticket = self.bridge.run(self, work, done, self.failed.emit)

    @property
    def is_busy(self) -> bool:
        """Whether what is shown is still being made: live pictures wait for it, or none would ever be finished."""
        return self.bridge.is_pending(self._ticket)

    def default(self, name: str, otherwise: float) -> float:
        """A threshold that the model's spec states, else what its task takes."""
        value = (self.spec.get("postprocessing") or {}).get(name)
        return float(value) if isinstance(value, int | float) else otherwise

    def save_as(self, title: str, name: str, content: Callable[[], bytes]) -> None:
        """Ask where to, then write what ``content`` makes, both off the GUI thread."""
        dialog = QFileDialog(self, title)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.selectFile(name)

        def chosen(path: str) -> None:
            self.bridge.run(self, lambda: _write(path, content()), lambda _: None, self.failed.emit)

        dialog.fileSelected.connect(chosen)
        dialog.finished.connect(dialog.deleteLater)
        # open() and not exec(): a nested event loop could outlive the window that started it.
        dialog.open()


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as handle:
        handle.write(content)
