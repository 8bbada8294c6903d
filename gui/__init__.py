"""The window. PUBLIC: :func:`build_window`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import EnginePort
from engine.settings import Settings, SettingsStore
from gui.ports import ServerPort

if TYPE_CHECKING:
    from gui.main_window import MainWindow

__all__ = ["build_window"]


def build_window(
    engine: EnginePort,
    server: ServerPort,
    settings: Settings,
    settings_store: SettingsStore | None = None,
    examples: Sequence[Path] = (),
    state_dir: Path | None = None,
) -> MainWindow:
    """The main window over ``engine`` and ``server``; a QApplication must exist or is made.

    ``examples`` are folders with a ``deskside.toml`` offered on the first page; ``settings_store`` is where changed
    settings are kept, ``state_dir`` where it remembers what was open. Qt is imported here and not with the package, so
    that headless programs may import ``gui``.
    """
    from gui.app import create_application
    from gui.main_window import MainWindow

    _, theme_switch = create_application(settings)
    return MainWindow(engine, server, settings, settings_store, examples, theme_switch, state_dir)
