"""The window's language. Sentences are marked where they are written and looked up in gettext catalogs
(``gui/resources/languages``); Qt's own come from Qt's translations, and numbers follow the locale.

``tr`` looks a sentence up now. A sentence that stands at module level is only ``mark``-ed there, because modules are
imported before the language is known, and looked up by ``tr`` where it is shown. Placeholders are named, so that a
translation may put them in another order. English needs no catalog. Main thread and task threads alike may look up.
"""

from __future__ import annotations

import gettext
import logging
from pathlib import Path

from PySide6.QtCore import QLibraryInfo, QLocale, QTranslator
from PySide6.QtWidgets import QApplication

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "resources" / "languages"
DOMAIN = "deskside"
LANGUAGES = {"en": "English", "de": "Deutsch", "es": "Español", "zh": "中文"}
"""What the window speaks: ISO 639 code -> its own name."""

_QT_FILES = {"de": "qtbase_de", "es": "qtbase_es", "zh": "qtbase_zh_CN"}
_LOCALES = {"en": "en_US", "de": "de_DE", "es": "es_ES", "zh": "zh_CN"}
_catalog: gettext.NullTranslations = gettext.NullTranslations()
_code = "en"


def tr(text: str) -> str:
    """``text`` in the window's language, or itself where the catalog lacks it."""
    return _catalog.gettext(text) if text else ""  # the catalog's own header stands under ""


def mark(text: str) -> str:
    """``text`` unchanged; it is collected for the catalogs, and ``tr`` looks it up later."""
    return text


def counted(one: str, many: str, count: int) -> str:
    """The plural form for ``count``, which stands in it as ``{count}``."""
    return _catalog.ngettext(one, many, count).format(count=count)


def language() -> str:
    """The code of the language in use, one of :data:`LANGUAGES`."""
    return _code


def of_the_desktop() -> str:
    """The first of the desktop's languages that the window speaks, else English."""
    for name in QLocale.system().uiLanguages():
        code = name.replace("_", "-").partition("-")[0].lower()
        if code in LANGUAGES:
            return code
    return "en"


def use_language(app: QApplication, code: str) -> None:
    """Speak ``code`` ("" = the desktop's) in every widget made from here on, Qt's own dialogs included.

    Raises:
        ValueError: ``code`` is not one of :data:`LANGUAGES`.
        OSError: its catalog is not there or cannot be read.
    """
    global _catalog, _code
    code = code or of_the_desktop()
    if code not in LANGUAGES:
        raise ValueError(f"{code!r} is none of {', '.join(LANGUAGES)}")
    _catalog = gettext.NullTranslations() if code == "en" else gettext.translation(DOMAIN, FOLDER, [code])
    _code = code
    desktop = QLocale.system()
    QLocale.setDefault(desktop if desktop.name().startswith(code) else QLocale(_LOCALES[code]))
    for before in app.findChildren(QTranslator):
        app.removeTranslator(before)
        before.deleteLater()
    if code in _QT_FILES:
        translator = QTranslator(app)
        if translator.load(_QT_FILES[code], QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)):
            app.installTranslator(translator)
        else:
            log.warning("Qt's own sentences stay English: %s is not installed with it", _QT_FILES[code])
