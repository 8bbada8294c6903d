"""Thumbnails of the list of dropped files, each decoded in the inspector when it comes into view."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import QWidget

from engine.prediction import ImagePreview
from gui.engine_bridge import EngineBridge
from gui.item_models.items_model import ItemsModel
from gui.predict_queue import Item
from gui.widgets.image_view import image_of

SIDE = 192
WIDTH, HEIGHT = 96, 60
"""What the list paints, in pixels of the screen's own scale."""
AT_ONCE = 2
MOST_WISHES = 31


class Thumbnails(QObject):
    """Newest wish first, two at a time; a picture that cannot be shown is asked for once."""

    def __init__(self, bridge: EngineBridge, model: ItemsModel, view: QWidget) -> None:
        super().__init__(view)
        self._bridge, self._model, self._view = bridge, model, view
        self._wanted: list[Item] = []
        self._fetching: set[int] = set()
        self._unshowable: set[int] = set()
        model.wanted.connect(self._on_wanted, Qt.ConnectionType.QueuedConnection)

    def _on_wanted(self, item: Item) -> None:
        if item.number in self._fetching or item.number in self._unshowable or item in self._wanted:
            return
        self._wanted = [*self._wanted[1 - MOST_WISHES :], item]
        self._fetch_next()

    def _fetch_next(self) -> None:
        while self._wanted and len(self._fetching) < AT_ONCE:
            item = self._wanted.pop()
            given = item.source.data if item.source.data is not None else item.source.path
            if given is None:
                continue
            self._fetching.add(item.number)
            self._fetch(item.number, given)

    def _fetch(self, number: int, given: bytes | Path) -> None:
        self._bridge.ask(
            self,
            lambda engine: engine.preview_image(given, SIDE),
            lambda preview: self._on_fetched(number, preview),
            lambda _error: self._on_fetched(number, None),
        )

    def _on_fetched(self, number: int, preview: ImagePreview | None) -> None:
        self._fetching.discard(number)
        if preview is None:
            self._unshowable.add(number)
        else:
            ratio = self._view.devicePixelRatioF()
            # Scaled once here: the list paints it many times.
            small = image_of(preview).scaled(
                round(WIDTH * ratio),
                round(HEIGHT * ratio),
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
            self._model.set_thumbnail(number, QPixmap.fromImage(small))
        self._fetch_next()
