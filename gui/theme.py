"""Colours, sizes and the style sheet: every colour of the window is a token of this file.

The tokens and their contrast are those of the look's table (text at least 4.5:1 on every fill it is used on, control
edges 3:1). Petrol (``accent``) is this computer's owner, plum (``lan``) is the network, and nothing else uses them.
Sizes are multiples of the system font, so nothing depends on one typeface.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QFontInfo, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

from engine.palette import CLASS_COLOURS, TEXT_ON_CLASS

ICON_DIR = Path(__file__).parent / "resources" / "icons"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One theme. Values are ``#RRGGBB``."""

    name: str
    window: str
    rail: str
    surface: str
    sunken: str
    canvas: str
    track: str
    hover: str
    btn: str
    hair: str
    ctl: str
    text: str
    text2: str
    text3: str
    accent: str
    on_accent: str
    accent_soft: str
    accent_hover: str
    accent_pressed: str
    lan: str
    on_lan: str
    lan_soft: str
    ok: str
    ok_soft: str
    warn: str
    warn_line: str
    warn_soft: str
    error: str
    error_soft: str

    def color(self, role: str) -> QColor:
        """The token called ``role``. Raises AttributeError for a name that is none."""
        return QColor(getattr(self, role))


OVERLAY = CLASS_COLOURS
"""Classes drawn over pictures, in both themes: a set that colour-blind people tell apart."""
OVERLAY_TEXT = TEXT_ON_CLASS
LIGHT = Tokens(
    name="light", window="#F5F5F2", rail="#ECECE8", surface="#FFFFFF", sunken="#EFEFEB", canvas="#E6E6E1",
    track="#E3E3DE", hover="#E4E4DF", btn="#FFFFFF", hair="#DFDFD9", ctl="#80868B", text="#1B1F22", text2="#4B5258",
    text3="#60676D", accent="#0A6A73", on_accent="#FFFFFF", accent_soft="#DDEFEF", accent_hover="#085760",
    accent_pressed="#06474F", lan="#7D3C8C", on_lan="#FFFFFF", lan_soft="#F2E5F5", ok="#1E7A3C", ok_soft="#E2F3E6",
    warn="#855000", warn_line="#AD7410", warn_soft="#FFF3D9", error="#B3261E", error_soft="#FCE9E7",
)  # fmt: skip

DARK = Tokens(
    name="dark", window="#1A1D1F", rail="#141719", surface="#23272A", sunken="#1D2123", canvas="#0F1112",
    track="#343A3D", hover="#2C3134", btn="#2B3033", hair="#363B3F", ctl="#7C858B", text="#ECEFF0", text2="#BAC1C6",
    text3="#9CA4AA", accent="#4FC3CC", on_accent="#06272A", accent_soft="#143B40", accent_hover="#6FD3DA",
    accent_pressed="#3AB0B9", lan="#D69BE0", on_lan="#2B0F31", lan_soft="#3A2440", ok="#6CCB86", ok_soft="#17351F",
    warn="#F2BC58", warn_line="#B88421", warn_soft="#3A2D12", error="#FF9C92", error_soft="#45211E",
)  # fmt: skip

SCALE = {
    "caption": 0.85,
    "small": 0.92,
    "body": 1.0,
    "section": 1.15,
    "title": 1.3,
    "page": 1.55,
    "hero": 2.0,
    "answer": 2.15,
}
"""Type sizes as multiples of the system font."""

_BODY_PX_PROPERTY = "deskside.body_px"
_active = LIGHT


def tokens() -> Tokens:
    """The tokens now in use. Painters ask at every paint, so that a change of theme needs no bookkeeping."""
    return _active


def color(role: str) -> QColor:
    return _active.color(role)


def body_px() -> int:
    """The system font's size in pixels, as it was before any style sheet."""
    app = QApplication.instance()
    value = app.property(_BODY_PX_PROPERTY) if app is not None else None
    return int(value) if value else 13


def px(role: str) -> int:
    """The pixel size of a role of :data:`SCALE`."""
    return round(body_px() * SCALE[role])


def font(role: str = "body", *, semibold: bool = False, medium: bool = False) -> QFont:
    """The system font in a role's size, for painters."""
    result = QFont(QApplication.font())
    result.setPixelSize(px(role))
    if semibold:
        result.setWeight(QFont.Weight.DemiBold)
    elif medium:
        result.setWeight(QFont.Weight.Medium)
    return result


def fixed_font(role: str = "body") -> QFont:
    """The system's fixed-width font; only for URLs, keys and Details."""
    result = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    result.setPixelSize(px(role))
    return result


def tokens_for(theme: str) -> Tokens:
    """The tokens of ``system`` (what the desktop asks for now), ``light`` or ``dark``."""
    if theme == "system":
        return DARK if QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Dark else LIGHT
    return DARK if theme == "dark" else LIGHT


class ThemeSwitch(QObject):
    """Applies a theme to the application and follows the desktop while the choice is ``system``."""

    changed = Signal()

    def __init__(self, app: QApplication, theme: str) -> None:
        super().__init__(app)
        self._app = app
        self._theme = theme
        if not app.property(_BODY_PX_PROPERTY):
            app.setProperty(_BODY_PX_PROPERTY, QFontInfo(app.font()).pixelSize())
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._on_scheme_changed)
        self.apply(theme)

    def apply(self, theme: str) -> None:
        """Use ``theme`` (``system``, ``light``, ``dark``) from now on."""
        global _active
        self._theme = theme
        chosen = tokens_for(theme)
        _active = chosen
        self._app.setPalette(palette(chosen))
        self._app.setStyleSheet(stylesheet(chosen))
        self.changed.emit()

    def _on_scheme_changed(self, _scheme: Qt.ColorScheme) -> None:
        if self._theme == "system":
            self.apply("system")


def palette(t: Tokens) -> QPalette:
    """A QPalette of the tokens, for what the style sheet does not reach (menus, tool tips, selections)."""
    p = QPalette()
    role = QPalette.ColorRole
    for target, name in (
        (role.Window, "window"), (role.WindowText, "text"), (role.Base, "surface"), (role.AlternateBase, "sunken"),
        (role.Text, "text"), (role.Button, "btn"), (role.ButtonText, "text"), (role.BrightText, "error"),
        (role.Highlight, "accent"), (role.HighlightedText, "on_accent"), (role.ToolTipBase, "surface"),
        (role.ToolTipText, "text"), (role.PlaceholderText, "text3"), (role.Link, "accent"), (role.Mid, "ctl"),
        (role.Midlight, "hair"), (role.Light, "surface"), (role.Dark, "ctl"), (role.Accent, "accent"),
    ):  # fmt: skip
        p.setColor(target, t.color(name))
    for target in (role.WindowText, role.Text, role.ButtonText):
        p.setColor(QPalette.ColorGroup.Disabled, target, t.color("text3"))
    return p


def stylesheet(t: Tokens) -> str:
    """The application's style sheet: ``@token`` becomes its colour, ``@size-role`` its pixels."""
    sheet = (Path(__file__).parent / "resources" / "style.qss").read_text(encoding="utf-8")
    for role in SCALE:
        sheet = sheet.replace(f"@size-{role};", f"{px(role)}px;")
    for way in ("up", "down"):
        # A style sheet cannot tint a picture, so the two arrows exist once per theme.
        sheet = sheet.replace(f"@spin_{way};", f'url("{(ICON_DIR / f"spin-{way}-{t.name}.svg").as_posix()}");')
    for name in sorted((f.name for f in fields(t)), key=len, reverse=True):
        sheet = sheet.replace(f"@{name};", f"{getattr(t, name)};").replace(f"@{name} ", f"{getattr(t, name)} ")
    return sheet
