"""Every action of the window, in the menu behind the menu button, with its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMenu

from gui.request_code import as_curl, as_python

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
        ("Models…", "Ctrl+L", window.picker.open_picker),
        ("Open a model file…", "", page.open_model),
        ("Open a folder…", "", page.open_folder),
        ("Paste", "Ctrl+V", page.paste),
        ("Run again", "F5", page.run_again),
        ("Save the answer…", "Ctrl+S", page.save_answer),
        ("Camera", "Ctrl+E", window.show_camera),
        ("Ask about a part of the screen…", "Ctrl+Shift+E", page.ask_about_screen),
        ("Copy the answer as JSON", "Ctrl+Shift+C", page.copy_answer),
        ("Copy this request as curl", "", lambda: window.copy_request(as_curl, "curl")),
        ("Copy this request as Python", "", lambda: window.copy_request(as_python, "Python")),
        ("Take the shown one out of the list", "", page.remove_shown),
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
        ("Commands…", "Ctrl+K", window.palette_.open_palette),
        ("Next part of the window", "F6", lambda: window.next_region(1)),
        ("Part of the window before", "Shift+F6", lambda: window.next_region(-1)),
        ("Cancel or close", "Esc", window.cancel_newest),
        ("Close this model", "", window.eject_active),
        ("", "", None),
        ("Quit", "Ctrl+Q", window.life.leave),
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
