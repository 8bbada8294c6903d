"""Collect the window's sentences and write its catalogs: ``make translations``.

Reads every ``tr``, ``mark`` and ``counted`` of ``gui/`` and brings the ``.po`` files of ``gui/resources/languages`` up
to them (what is gone goes, what is new is empty until somebody translates it), then compiles the ``.mo`` that the
window reads. Exit status 1 where a sentence has no translation yet; each is named.
"""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "gui" / "resources" / "languages"
LOCALES = {"de": "de", "es": "es", "zh": "zh_Hans_CN"}


def collect() -> Catalog:
    """Every sentence of the window, with the files it stands in."""
    catalog = Catalog(project="Deskside", version="1", charset="utf-8")
    for path in sorted((ROOT / "gui").rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            words = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if call.func.id in ("tr", "mark") and words:
                catalog.add(words[0], locations=[(where, 0)])
            elif call.func.id == "counted" and len(words) == 2:
                catalog.add((words[0], words[1]), locations=[(where, 0)])
    return catalog


def po_path(code: str) -> Path:
    return FOLDER / code / "LC_MESSAGES" / "deskside.po"


def read_catalog(code: str) -> Catalog:
    """The catalog as it is committed; an empty one where there is none yet."""
    path = po_path(code)
    if not path.is_file():
        return Catalog(locale=LOCALES[code], project="Deskside", version="1", charset="utf-8")
    with path.open("rb") as file:
        return read_po(file, locale=LOCALES[code])


def compiled(catalog: Catalog) -> bytes:
    """The bytes of its ``.mo`` file."""
    buffer = io.BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def missing(catalog: Catalog) -> list[str]:
    """The sentences that it lacks."""
    lacking = []
    for message in catalog:
        words = message.string if isinstance(message.string, list | tuple) else [message.string]
        if message.id and not all(words):
            lacking.append(message.id[0] if isinstance(message.id, tuple) else message.id)
    return lacking


def main() -> int:
    template = collect()
    lacking = 0
    for code in LOCALES:
        catalog = read_catalog(code)
        catalog.update(template, no_fuzzy_matching=True, update_creation_date=False)
        catalog.obsolete.clear()
        path = po_path(code)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_po(file, catalog, width=0, sort_output=True, include_lineno=False, ignore_obsolete=True)
        path.with_suffix(".mo").write_bytes(compiled(catalog))
        for sentence in missing(catalog):
            lacking += 1
            print(f"{code}: {sentence!r} is not translated")
    print(f"{len(template)} sentences in {len(LOCALES)} languages, {lacking} missing")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
