"""docs/security.md is what its table says, and every test that it names is there."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.sources import load_script
from tests.trust.evidence import missing_tests

SCRIPT = Path(__file__).resolve().parents[2] / "packaging" / "security_table.py"


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return load_script(SCRIPT)


def test_the_document_is_what_the_table_says(table: ModuleType) -> None:
    written = table.DOCUMENT.read_text(encoding="utf-8")
    assert written == table.document(), "python packaging/security_table.py"


def test_every_property_has_its_tests(table: ModuleType) -> None:
    assert list(table.PROPERTIES) == [f"P{number}" for number in range(1, 28)]
    tests = [test for _, names in table.PROPERTIES.values() for test in names]
    assert all(names for _, names in table.PROPERTIES.values())
    assert missing_tests(tests) == []


def test_every_incident_meets_a_property(table: ModuleType) -> None:
    names = [name for name, _, _ in table.INCIDENTS]
    assert len(names) == len(set(names)) >= 51
    for name, how, properties in table.INCIDENTS:
        assert how, name
        assert properties.split(), name
        assert set(properties.split()) <= set(table.PROPERTIES), name


def test_a_test_that_is_not_there_is_found() -> None:
    here = "trust/test_security_document.py::test_a_test_that_is_not_there_is_found"
    gone = ["trust/test_security_document.py::test_nothing", "trust/test_nowhere.py::test_x"]
    assert missing_tests([here, *gone]) == gone
