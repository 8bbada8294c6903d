"""Every action of the window, in the menu behind the menu button, with its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMenu

from gui.language import tr
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
        (tr("Open files…"), "Ctrl+O", page.open_files),
        (tr("Models…"), "Ctrl+L", window.picker.open_picker),
        (tr("Open a model file…"), "", page.open_model),
        (tr("Open a folder…"), "", page.open_folder),
        (tr("Paste"), "Ctrl+V", page.paste),
        (tr("Run again"), "F5", page.run_again),
        (tr("Save the answer…"), "Ctrl+S", page.save_answer),
        (tr("Camera"), "Ctrl+E", window.show_camera),
        (tr("Ask about a part of the screen…"), "Ctrl+Shift+E", page.ask_about_screen),
        (tr("Copy the answer as JSON"), "Ctrl+Shift+C", page.copy_answer),
        (tr("Copy this request as curl"), "", lambda: window.copy_request(as_curl, "curl")),
        (tr("Copy this request as Python"), "", lambda: window.copy_request(as_python, "Python")),
        (tr("Take the shown one out of the list"), "", page.remove_shown),
        (tr("Clear the list"), "", page.clear),
        ("", "", None),
        (tr("Model card"), "Ctrl+I", window.show_card),
        (tr("Keep this answer"), "Ctrl+Shift+K", page.keep_answer),
        (tr("Check the kept answer"), "", window.check_golden),
        (tr("Reload the model's files"), "Ctrl+R", window.reload_active),
        ("", "", None),
        (tr("Predict"), "Ctrl+1", lambda: window.show_page(PREDICT)),
        (tr("Server"), "Ctrl+2", lambda: window.show_page(SERVER)),
        (tr("Settings"), "Ctrl+,", lambda: window.show_page(SETTINGS)),
        ("", "", None),
        (tr("Commands…"), "Ctrl+K", window.palette_.open_palette),
        (tr("Next part of the window"), "F6", lambda: window.next_region(1)),
        (tr("Part of the window before"), "Shift+F6", lambda: window.next_region(-1)),
        (tr("Cancel or close"), "Esc", window.cancel_newest),
        (tr("Close this model"), "", window.eject_active),
        ("", "", None),
        (tr("Quit"), "Ctrl+Q", window.life.leave),
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
