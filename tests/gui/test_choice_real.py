"""The choice by looking at answers with a real model: right afterwards at both doors, and after a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QCoreApplication, QEvent, Qt
from pytestqt.qtbot import QtBot

from embedded_server import ServerController
from engine import Engine
from engine.serving_types import ServerScope
from engine.settings import Settings
from gui import build_window
from gui.evidence import Evidence
from gui.main_window import MainWindow
from tests.e2e.program import Client
from tests.gui.conftest import drop
from tests.ports import free_port

pytestmark = pytest.mark.real

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits-torch"
PATIENCE_MS = 120_000

Open = Callable[[], MainWindow]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The bundled PyTorch digits, with a sidecar that does not say how pixels are scaled (it is 0..255)."""
    folder = tmp_path / "scanner"
    folder.mkdir()
    (folder / "model.pt").write_bytes((EXAMPLE / "model.pt").read_bytes())
    lines = (EXAMPLE / "deskside.toml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("scaling")]
    (folder / "deskside.toml").write_text("# mine\n" + "\n".join(kept), encoding="utf-8")
    return folder


@pytest.fixture
def open_window(qtbot: QtBot, tmp_path: Path) -> Iterator[Open]:
    """A window over an engine and a server of its own; opening another one ends the one before: a restart."""
    ends: list[Callable[[], None]] = []

    def end_all() -> None:
        while ends:
            ends.pop()()

    def open_one() -> MainWindow:
        end_all()
        engine = Engine(Settings(), folder=tmp_path / "home")
        ends.append(engine.close)
        server = ServerController(engine, Settings().server, tmp_path / "home")
        ends.append(lambda: _stop(server))
        window = build_window(engine, server, Settings())
        ends.append(lambda: _close(qtbot, window))
        window.show()
        return window

    yield open_one
    end_all()


def _stop(server: ServerController) -> None:
    server.stop()


def _close(qtbot: QtBot, window: MainWindow) -> None:
    window.close()
    qtbot.waitUntil(lambda: window.is_closed, timeout=PATIENCE_MS)
    window.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def load(qtbot: QtBot, window: MainWindow, path: Path) -> None:
    window.load_model(path, trust=True)
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=PATIENCE_MS)


def best_in_window(qtbot: QtBot, window: MainWindow, sample: Path) -> str:
    before = len(window.queue.items)
    drop(window, sample)
    items = window.queue.items
    qtbot.waitUntil(lambda: len(items) > before and items[-1].prediction is not None, timeout=PATIENCE_MS)
    predictions: list[Any] = items[-1].prediction.predictions or []
    return str(predictions[0]["label"])


def best_over_http(qtbot: QtBot, window: MainWindow, sample: Path) -> str:
    if not window.server.is_running:
        window.server.switch(ServerScope.COMPUTER, free_port())
        qtbot.waitUntil(lambda: window.server.is_running, timeout=PATIENCE_MS)
    client = Client(window.server.state.urls[0].url)
    status, body = client.post("/predict/scanner", sample.read_bytes(), "image/png")
    client.close()
    assert status == 200
    return str(body["predictions"][0]["label"])


def test_the_chosen_scaling_answers_rightly_at_both_doors_and_after_a_restart(
    qtbot: QtBot, open_window: Open, model: Path
) -> None:
    sample = EXAMPLE / "samples" / "digit-3.png"
    window = open_window()
    load(qtbot, window, model)
    assert best_in_window(qtbot, window, sample) != "3"
    assert best_over_http(qtbot, window, sample) != "3"
    window.show_card()
    page = window.card_page
    qtbot.waitUntil(lambda: len(page.conventions.tiles) > 1, timeout=PATIENCE_MS)
    right = next(tile for tile in page.conventions.tiles if tile.answer == "3")
    assert right.words == "0 … 255"
    qtbot.mouseClick(right, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: right.is_chosen, timeout=PATIENCE_MS)
    row = page.list.row("preprocessing.scaling")
    assert row is not None
    assert row.row.kind is Evidence.CHANGED
    assert best_over_http(qtbot, window, sample) == "3"
    assert best_in_window(qtbot, window, sample) == "3"
    sidecar = (model / "deskside.toml").read_text(encoding="utf-8")
    assert 'scaling = "0..255"' in sidecar
    assert sidecar.startswith("# mine\n")

    window = open_window()
    load(qtbot, window, model)
    assert best_in_window(qtbot, window, sample) == "3"
    assert best_over_http(qtbot, window, sample) == "3"
    window.show_card()
    row = window.card_page.list.row("preprocessing.scaling")
    assert row is not None
    assert row.row.kind is Evidence.CHANGED
