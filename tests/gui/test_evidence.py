"""What the model card says of a field: found, changed, assumed or not used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.formats.describe import FORMATS
from engine.model_spec import ModelSpec, Postprocessing, Preprocessing, TensorSpec, TrustClass
from engine.preparation import Preparation, PreparationState, Reason, Step
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


def test_what_a_preparation_won_is_told_and_why_it_won_nothing() -> None:
    told: dict[str, Any] = {
        "steps": ["channels-last", "traced"],
        "gain": 2.13,
        "reason": None,
        "batch": None,
        "streams": 1,
    }

    def words(**changes: Any) -> tuple[str, str]:
        row = rows_of(flowers(), preparation=told | changes)["Preparation"]
        return row.value, row.source

    assert words(state="used") == (
        "channels last, traced: 2.1 times as fast", "in a probe, and compared with the untouched model",
    )  # fmt: skip
    assert words(state="running")[0] == "Faster ways are being tried"
    assert words(state="off") == ("Off", "your settings")
    assert words(state="unused", reason="differs") == ("None", "faster ways gave other answers")
    assert words(state="withdrawn", reason="failed") == ("Taken back", "a faster way failed")
    assert "Preparation" not in rows_of(flowers())


def test_every_word_of_a_preparation_has_one_in_the_card() -> None:
    for reason in Reason:
        told = Preparation(PreparationState.UNUSED, reason=reason).to_json()
        other = Preparation(PreparationState.UNUSED, reason=Reason.FAILED).to_json()
        rows, others = (rows_of(flowers(), preparation=t)["Preparation"].source for t in (told, other))
        assert reason is Reason.FAILED or rows != others
    told = Preparation(PreparationState.USED, tuple(Step), 2.0).to_json()
    assert rows_of(flowers(), preparation=told)["Preparation"].value.count(",") == len(Step) - 1


def test_rows_of_one_run_say_whether_a_probe_or_memory_bounds_them() -> None:
    told = Preparation(PreparationState.USED, (Step.TRACED,), 2.0, batch=4).to_json()
    assert rows_of(flowers(), max_batch_size=4, preparation=told)["Batch"].source.endswith("won nothing in a probe")
    assert rows_of(flowers(), max_batch_size=2, preparation=told)["Batch"].source == "as its memory allows"


def test_streams_are_told_where_there_are_several() -> None:
    told = Preparation(PreparationState.USED, (Step.TRACED,), 2.0)
    assert "Streams" not in rows_of(flowers(), preparation=told.to_json())
    row = rows_of(flowers(), preparation=replace(told, streams=2).to_json())["Streams"]
    assert row.value == "2 batches at once"


def test_a_heap_that_keeps_memory_is_told() -> None:
    assert rows_of(flowers())["Heap"].value == "freed memory is kept for the next answer"
    assert "Heap" not in rows_of(flowers(), keeps_memory=False)
