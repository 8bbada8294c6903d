"""Every sentence of the window can be translated, and is, in every language it speaks."""

from __future__ import annotations

import ast
import gettext
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication, QLocale
from PySide6.QtWidgets import QAbstractButton, QApplication, QLabel, QLineEdit, QSpinBox, QTabBar, QWidget

from engine.errors import UnusableInput
from engine.settings import Settings, SettingsStore, replace_setting
from gui import language
from gui.actions import PREDICT, SERVER, SETTINGS
from gui.error_text import FileProblem, error_text
from gui.language import LANGUAGES, counted, tr, use_language
from gui.main_window import MainWindow
from tests.gui.conftest import WindowFactory
from tests.sources import load_script, syntax_tree

ROOT = Path(__file__).resolve().parents[2]
OTHERS = [code for code in LANGUAGES if code != "en"]
DATA = re.compile(
    r"^(float\d+|bfloat16|CPU|GPU|Ctrl\+.*|Shift\+.*|F\d+|Esc|Del|https?://.*|.*\.example|Deskside|MB| s)$"
)
"""What is no sentence: names, keys, examples of addresses."""


TOOL = load_script(ROOT / "packaging" / "translations.py")


@pytest.fixture
def speak(qapp: QApplication) -> Iterator[None]:
    yield
    use_language(qapp, "en")


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def formats(text: str) -> set[tuple[str, str]]:
    return {(name, how or "") for _, name, how, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("code", OTHERS)
def test_every_sentence_is_translated(code: str) -> None:
    catalog = TOOL.read_catalog(code)
    known = {message.id for message in catalog if message.id}
    assert {message.id for message in TOOL.collect() if message.id} == known, "run make translations"
    assert TOOL.missing(catalog) == []


@pytest.mark.parametrize("code", OTHERS)
def test_translations_keep_the_placeholders(code: str) -> None:
    wrong = []
    for message in TOOL.read_catalog(code):
        if not message.id:
            continue
        ids = message.id if isinstance(message.id, tuple) else (message.id,)
        said = message.string if isinstance(message.string, list | tuple) else (message.string,)
        wrong += [words for words in said if formats(words) != formats(ids[-1])]
    assert wrong == []


@pytest.mark.parametrize("code", OTHERS)
def test_the_compiled_catalog_is_the_readable_one(code: str) -> None:
    path = TOOL.po_path(code)
    assert path.with_suffix(".mo").read_bytes() == TOOL.compiled(TOOL.read_catalog(code)), "run make translations"


def test_placeholders_are_what_is_filled_in() -> None:
    """``tr("{name} is ready.").format(entry=…)`` would raise only where somebody sees it."""
    wrong = []
    for path in sorted((ROOT / "gui").rglob("*.py")):
        for call in ast.walk(syntax_tree(path)):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "format"):
                continue
            asked = call.func.value
            if (
                isinstance(asked, ast.Call)
                and isinstance(asked.func, ast.Name)
                and asked.func.id == "tr"
                and asked.args
            ):
                text = asked.args[0]
                if isinstance(text, ast.Constant) and fields(text.value) != {k.arg for k in call.keywords}:
                    wrong.append(f"{path.name}:{call.lineno}")
    assert wrong == []


def test_sentences_of_modules_are_only_marked() -> None:
    """A ``tr`` that runs while its module is imported would stay English for ever."""
    early = []
    for path in sorted((ROOT / "gui").rglob("*.py")):
        inside: set[int] = set()
        tree = syntax_tree(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                body = node.body if isinstance(node.body, list) else [node.body]
                inside.update(id(part) for statement in body for part in ast.walk(statement))
        early += [
            f"{path.name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("tr", "counted")
            and id(node) not in inside
        ]
    assert early == []


class Bracketed(gettext.NullTranslations):
    """A language that shows what went through the catalog."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return f"⟦{msgid1 if n == 1 else msgid2}⟧"


def texts(window: MainWindow) -> set[str]:
    """What stands on the widgets and is read out."""
    found: set[str] = set()
    for widget in window.findChildren(QWidget):
        if isinstance(widget.parent(), QTabBar):  # Qt's own buttons speak through Qt's translations
            continue
        if isinstance(widget, QLabel | QAbstractButton):
            found.add(widget.text())
        if isinstance(widget, QLineEdit):
            found |= {widget.placeholderText()}
        if isinstance(widget, QSpinBox):
            found.add(widget.specialValueText())
        found |= {widget.toolTip(), widget.accessibleName()}
    found |= {action.text() for action in window.actions()}
    return {re.sub("<[^>]+>", "", text).strip() for text in found}


@pytest.mark.usefixtures("speak")
def test_no_sentence_of_the_window_is_written_past_the_catalog(
    make_window: WindowFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gettext, "translation", lambda *_: Bracketed())
    window = make_window(settings=replace_setting(Settings(), "window", language="de"))
    said: set[str] = set()
    for page in (PREDICT, SERVER, SETTINGS):
        window.show_page(page)
        said |= texts(window)
    plain = {t for t in said if re.search("[A-Za-z]{3}", t) and "⟦" not in t and not DATA.match(t)}
    assert plain == set()
    assert any("⟦" in t for t in said)


@pytest.mark.usefixtures("speak")
@pytest.mark.parametrize("code", OTHERS)
def test_the_window_opens_in_each_language(code: str, qapp: QApplication, make_window: WindowFactory) -> None:
    window = make_window(settings=replace_setting(Settings(), "window", language=code))
    assert [button.text() for button in window.rail.buttons] == [tr("Predict"), tr("Server"), tr("Settings")]
    assert tr("Predict") != "Predict"
    assert QLocale().name().startswith(code)
    # Qt's own sentences, in the menu of a text field for one.
    assert QCoreApplication.translate("QWidgetTextControl", "Select All") != "Select All"
    for page in (SERVER, SETTINGS, PREDICT):
        window.show_page(page)


@pytest.mark.usefixtures("speak")
def test_plurals_follow_the_language(qapp: QApplication) -> None:
    assert [counted("{count} picture", "{count} pictures", n) for n in (0, 1, 2)] == [
        "0 pictures", "1 picture", "2 pictures",
    ]  # fmt: skip
    use_language(qapp, "de")
    assert len({counted("{count} picture", "{count} pictures", n).lstrip("0123456789") for n in (0, 1, 2)}) == 2


@pytest.mark.usefixtures("speak")
def test_an_error_of_the_engine_says_what_it_is_and_quotes_the_rest(qapp: QApplication) -> None:
    error = UnusableInput("The table has no column alcohol.", code="column_missing")
    assert error_text(error).sentence == "The table has no column alcohol."
    use_language(qapp, "de")
    words = error_text(error)
    assert words.sentence == tr("The table lacks a column.") != "The table lacks a column."
    assert "“The table has no column alcohol.”" in words.advice
    own = FileProblem("foto.png ist nicht da.")
    assert error_text(own).sentence == "foto.png ist nicht da."


@pytest.mark.usefixtures("speak")
def test_a_language_that_is_none_is_refused(qapp: QApplication) -> None:
    with pytest.raises(ValueError, match="xx"):
        use_language(qapp, "xx")
    assert language.language() == "en"


def test_the_desktop_decides_where_nobody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    class Desktop:
        @staticmethod
        def uiLanguages() -> list[str]:
            return ["fr-FR", "zh-Hans-CN", "de-DE"]

    with monkeypatch.context() as patch:
        patch.setattr(language.QLocale, "system", staticmethod(Desktop))
        assert language.of_the_desktop() == "zh"


def test_the_choice_of_language_is_kept(make_window: WindowFactory, tmp_path: Path, qtbot: object) -> None:
    store = SettingsStore(tmp_path / "settings.json")
    window = make_window(store=store)
    box = window.settings_page.language
    assert box.currentData() == ""
    box.setCurrentIndex(box.findData("es"))
    box.activated.emit(box.currentIndex())
    window.close()
    qtbot.waitUntil(lambda: window.is_closed)  # type: ignore[attr-defined]
    assert window.settings_page.settings.window.language == "es"
    assert Settings.model_validate_json((tmp_path / "settings.json").read_bytes()).window.language == "es"
