"""docs/model-formats.md says what the code says, and the table behind it what the formats are."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from engine.engine import Engine
from engine.formats.describe import FORMATS
from engine.formats.facts import FACTS, facts_of
from engine.formats.torch_export import AOT_NAME
from engine.identity import MODEL_SUFFIXES
from engine.worker import runtimes
from tests.e2e.format_cases import CASES
from tests.sources import load_script

ROOT = Path(__file__).parents[2]
SEEDS = ROOT / "tests" / "fuzz" / "seeds"
PATIENCE_S = 60.0
READABLE = ("model.keras", "model.h5", "model.tflite", "model.onnx", "script.pt", "program.pt2")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return load_script(ROOT / "packaging" / "model_formats.py")


def test_the_document_is_what_the_code_says(generator: ModuleType) -> None:
    committed = (ROOT / "docs" / "model-formats.md").read_text(encoding="utf-8")
    assert committed == generator.document(), "run: python packaging/model_formats.py"


def test_every_format_runtime_and_suffix_has_a_row() -> None:
    assert {name for row in FACTS for name in row.formats} == {*FORMATS, AOT_NAME}
    assert {name for row in FACTS for name in row.runtimes} == set(runtimes._RUNTIMES) - {"fake"}
    assert {suffix for row in FACTS for suffix in row.suffixes} == set(MODEL_SUFFIXES)


def test_every_case_has_a_row_and_every_row_a_case() -> None:
    backed = {facts_of(case.source).source for case in CASES.values()}
    assert backed == {row.source for row in FACTS}
    with pytest.raises(KeyError):
        facts_of("Fortran")


@pytest.mark.parametrize("name", READABLE)
def test_a_row_says_what_the_inspector_says(engine: Engine, name: str) -> None:
    spec = engine.inspect(SEEDS / name).result(PATIENCE_S)
    row = next(row for row in FACTS if spec.format in row.formats)
    assert spec.trust_class in row.trust
    assert spec.runtime in row.runtimes
    assert Path(name).suffix in row.suffixes
