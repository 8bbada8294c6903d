"""What the model card says of a field: found, changed, assumed or not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.formats.describe import FORMATS
from engine.model_spec import ModelSpec, Postprocessing, Preprocessing, TensorSpec, TrustClass
from gui.evidence import Evidence, EvidenceRow, as_text, evidence_rows, found_of, found_words
from gui.golden import golden_words
from gui.words import format_words
from tests.fakes import FakeEngine, spec
from tests.gui.card_engine import flowers


def rows_of(model: ModelSpec, **entry: Any) -> dict[str, EvidenceRow]:
    rows = evidence_rows(FakeEngine((model,)).stats()["models"][0] | entry)
    return {row.key or row.name: row for row in rows}


def test_every_field_of_the_spec_has_a_row() -> None:
    model = flowers()
    rows = rows_of(model)
    assert {name for name, _, _ in model.evidence_rows()} <= set(rows)
    assert {"Trust", "Files", "Device"} <= set(rows)


def test_a_field_is_found_changed_assumed_or_unused() -> None:
    model = flowers()
    evidence = model.evidence | {
        "preprocessing.crop": "sidecar",
        "preprocessing.scaling": "assumed (the graph is bare)",
    }
    rows = rows_of(flowers(evidence=evidence))
    assert rows["preprocessing.size"].kind is Evidence.FOUND
    assert rows["preprocessing.size"].source == "training_config.json: image_size"
    assert rows["preprocessing.crop"].kind is Evidence.CHANGED
    assert rows["preprocessing.scaling"].kind is Evidence.ASSUMED
    assert rows["preprocessing.scaling"].source == "Found nowhere, so assumed (the graph is bare)"
    assert rows["preprocessing.mean"].kind is Evidence.UNUSED
    assert rows["columns"].kind is Evidence.UNUSED


def test_classes_without_names_are_assumed_and_counted() -> None:
    evidence = {k: v for k, v in flowers().evidence.items() if k != "labels"}
    row = rows_of(flowers(labels=(), evidence=evidence))["labels"]
    assert (row.kind, row.value) == (Evidence.ASSUMED, "Numbers, not names")


def test_a_table_model_has_no_use_for_pictures() -> None:
    rows = rows_of(spec("wine", "tabular-classification", columns=("hue",), evidence={"columns": "columns.txt"}))
    assert rows["preprocessing.scaling"].kind is Evidence.UNUSED
    assert not rows["preprocessing.scaling"].is_asked
    assert rows["columns"].kind is Evidence.FOUND


def test_found_words_count_only_fields_that_have_a_part() -> None:
    rows = evidence_rows(FakeEngine((flowers(),)).stats()["models"][0])
    found, counted = found_of(rows)
    assert counted - found == 1
    assert found_words(rows) == f"{found} of {counted} fields found in the files"
    assert evidence_rows({"spec": {}}) == []


def test_values_are_said_as_people_read_them() -> None:
    model = flowers(
        trust_class=TrustClass.PROGRAM,
        preprocessing=Preprocessing((240, 320), scaling="-1..1", mean=(0.485, 0.456, 0.406), channel_order="bgr"),
        postprocessing=Postprocessing("softmax", threshold=0.25),
        inputs=(TensorSpec("x", "float32", (-1, 240, 320, 3)), TensorSpec("y", "int64", (-1,))),
        evidence=flowers().evidence | {"preprocessing.mean": "preprocessor_config.json: image_mean"},
    )
    rows = rows_of(model, threads=4)
    assert rows["preprocessing.size"].value == "320 × 240 pixels"
    assert rows["preprocessing.scaling"].value == "\u22121 … 1"
    assert rows["preprocessing.mean"].value == "0.485, 0.456, 0.406"
    assert rows["preprocessing.channel_order"].value == "BGR"
    assert rows["inputs"].value == "2 tensors"
    assert rows["inputs"].full == "x: 240 × 320 × 3, float32; y: int64"
    assert rows["Trust"].value == "A program, run with your consent"
    assert rows["Files"].full == "/models/flowers/model.keras, /models/flowers/labels.txt"
    assert rows["Threads"].value == "4"


def test_the_card_as_text_holds_values_in_full() -> None:
    names = tuple(f"class {i}" for i in range(300))
    text = as_text(evidence_rows(FakeEngine((flowers(labels=names),)).stats()["models"][0]))
    assert "class 299" in text
    assert "Scaling: 0 … 1 (Found nowhere, so assumed)" in text
    assert str(Path("/models/flowers/model.keras")) in text


def test_the_badge_says_which_doors_agreed() -> None:
    report: dict[str, Any] = {
        "window": True,
        "network": True,
        "difference": 3e-7,
        "tolerance": 1e-4,
        "checked_at": 1.0,
        "message": "",
    }
    report["source"] = "golden/expected.json"
    assert golden_words(report).sentence == "Same answer here and over the network"
    assert golden_words(report).second == "Largest difference 3e-07, 0.0001 allowed."
    assert golden_words(report | {"network": None}).sentence == "Same answer here"
    wrong = golden_words(report | {"network": False})
    assert (wrong.sentence, wrong.tone) == ("Not the kept answer over the network", "error")
    unasked = golden_words(report | {"window": None, "network": None, "message": "The model is busy."})
    assert unasked.sentence == "The kept answer could not be checked"
    assert unasked.second.startswith("The model is busy. ")
    assert golden_words(None).sentence == "No answer is kept to check against"


def test_every_format_has_a_name_for_people() -> None:
    assert {name for name in FORMATS if format_words(name) == name} == set()
