"""Every action of the window, in the menu behind the menu button, with its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMenu

if TYPE_CHECKING:
    from gui.main_window import MainWindow

PREDICT, SERVER, SETTINGS, CARD = range(4)
"""The pages, in their order; the model card has no place in the rail, it belongs to Predict."""


def fill_menu(window: MainWindow) -> QMenu:
    """The menu of ``window``; its keys work wherever the focus is."""
    page = window.predict_page
    menu = QMenu(window)
    for name, key, slot in (
        ("Open files…", "Ctrl+O", page.open_files),
        ("Open a model…", "Ctrl+L", page.open_model),
        ("Open a folder…", "", page.open_folder),
        ("Paste", "Ctrl+V", page.paste),
        ("Camera", "Ctrl+E", window.show_camera),
        ("Ask about a part of the screen…", "Ctrl+Shift+E", page.ask_about_screen),
        ("Copy the answer as JSON", "Ctrl+Shift+C", page.copy_answer),
        ("Clear the list", "", page.clear),
        ("", "", None),
        ("Model card", "Ctrl+I", window.show_card),
        ("Keep this answer", "Ctrl+Shift+K", page.work.keep_answer),
        ("Check the kept answer", "", window.check_golden),
        ("Reload the model's files", "Ctrl+R", window.reload_active),
        ("", "", None),
        ("Predict", "Ctrl+1", lambda: window.show_page(PREDICT)),
        ("Server", "Ctrl+2", lambda: window.show_page(SERVER)),
        ("Settings", "Ctrl+,", lambda: window.show_page(SETTINGS)),
        ("", "", None),
        ("Cancel or close", "Esc", window.cancel_newest),
        ("Close this model", "", window.eject_active),
        ("", "", None),
        ("Quit", "Ctrl+Q", window.close),
    ):
        if slot is None:
            menu.addSeparator()
            continue
        action = QAction(name, window)
        action.setShortcut(QKeySequence(key))
        action.triggered.connect(lambda _checked=False, act=slot: act())
        menu.addAction(action)
        window.addAction(action)
    return menu
