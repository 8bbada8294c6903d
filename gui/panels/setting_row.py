"""A setting as the Server page shows it, and how its change is asked for."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from engine.errors import SettingsInvalid
from gui.language import tr
from gui.widgets.banner import Banner
from gui.widgets.basics import label

Change = Callable[..., None]
"""``change(section, **values)``; raises SettingsInvalid."""


def setting_row(title: str, words: str, control: QWidget) -> QHBoxLayout:
    """A setting: what it is called, what it does, and its control."""
    texts = QVBoxLayout()
    texts.setSpacing(1)
    texts.addWidget(label(title, "strong"))
    texts.addWidget(label(words, "small", wrap=True))
    row = QHBoxLayout()
    row.setContentsMargins(0, 8, 0, 8)
    row.setSpacing(16)
    row.addLayout(texts, 1)
    row.addWidget(control, 0, Qt.AlignmentFlag.AlignVCenter)
    return row


def ask_change(change: Change, banner: Banner, section: str, **values: object) -> bool:
    """Whether the change was taken; ``banner`` says where it was not, and why."""
    try:
        change(section, **values)
    except SettingsInvalid as error:
        banner.say("error", tr("That was not taken; the setting stays as it was."), error.message)
        return False
    banner.hide()
    return True


def scrolled(parent: QWidget, *, sideways: bool = True) -> QVBoxLayout:
    """The rows of a page or a tab, which scroll where the window is low; without ``sideways`` a narrow one elides."""
    held = QWidget()
    held.setObjectName("clear")
    rows = QVBoxLayout(held)
    rows.setContentsMargins(16, 8, 16, 8)
    rows.setSpacing(0)
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    if not sideways:
        held.setMinimumWidth(1)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(held)
    area.viewport().setObjectName("clear")
    outer = QVBoxLayout(parent)
    outer.setContentsMargins(0, 0, 0, 0)
    outer.addWidget(area)
    return rows
