"""Write docs/model-formats.md from the code: ``python packaging/model_formats.py`` (``--check`` only compares)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.formats.facts import FACTS, FormatFacts  # noqa: E402  (the repository is found first)
from tests.e2e.format_cases import CASES  # noqa: E402  (as above)

DOCUMENT = ROOT / "docs" / "model-formats.md"
HEAD = """\
# What can be opened

One row for each source of models. The table is written by `python packaging/model_formats.py` from
`engine/formats/facts.py` and from the cases of the formats suite (`tests/e2e/format_writers`): each case writes a model
with its own library, opens it in a real worker, asks it through the engine and over HTTP, and compares the answers with
the library's own.

| source | opened as | what is read | trust class | runtime | tests |
|---|---|---|---|---|---|
"""
FOOT = """
What a sidecar states ([sidecar.md](sidecar.md)) wins over all of it, and `labels.txt` beside a model over the model's
own class names. `deskside inspect MODEL` shows where each field was read.

## Trust classes

- **data**: opened at once. The file holds numbers and names of known layers, and is checked before a framework sees it.
- **program**: opening it runs code from the file, so it needs consent first, which holds for exactly these bytes.
- **refused**: never opened, with consent or without.

Every file is first read by a process without a framework. What is damaged, hostile or no file at all costs one sentence
there: `tests/trust` holds the cases, `tests/fuzz` changes real files at random.
"""


def document() -> str:
    """The whole of docs/model-formats.md."""
    return HEAD + "".join(_row(facts) for facts in FACTS) + FOOT


def _row(facts: FormatFacts) -> str:
    cases = [f"`{name}`" for name, case in CASES.items() if case.source.startswith(facts.cases)]
    trust = f"{' or '.join(f'**{t.value}**' for t in facts.trust)}; {facts.why}"
    runtimes = ", ".join(f"`{name}`" for name in facts.runtimes)
    cells = (facts.source, facts.opened, facts.reads, trust, runtimes, ", ".join(cases))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the document is not current")
    if parser.parse_args().check:
        return int(DOCUMENT.read_text(encoding="utf-8") != document())
    DOCUMENT.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
