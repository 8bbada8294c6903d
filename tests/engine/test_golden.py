"""Golden samples: compared, checked after each load and on demand at both doors, kept, and guarding a swap."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedded_server.controller import ServeOptions, ServerController
from engine.engine import Engine
from engine.errors import Draining, LoadFailed, ModelNotFound, PredictionExpired, UnusableInput
from engine.golden import GoldenInvalid, GoldenSample, find_golden, kept_folder, read_golden
from engine.model_spec import ModelSpec, TensorSpec, TrustClass, fake_spec
from engine.prediction import PredictRequest
from engine.settings import ServerSettings
from tests.engine.engine_harness import PATIENCE_S, fake, loaded, row, running_engine

ROW = [[1.0, 2.0, 3.0, 4.0]]


def sample(expected: Any, kind: str = "predictions", **more: Any) -> GoldenSample:
    values = {"params": {}, "tolerance": 0.01, "source": "test"} | more
    return GoldenSample(b"", "image/png", expected={kind: expected}, **values)


def classes(**scores: float) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in scores.items()]


# -- comparing ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("expected", "found", "agreed", "difference"),
    [
        (classes(cat=0.9, dog=0.1), classes(cat=0.9, dog=0.1), True, 0.0),
        (classes(cat=0.9, dog=0.1), classes(cat=0.895, dog=0.105), True, 0.005),
        (classes(cat=0.9, dog=0.1), classes(cat=0.88, dog=0.12), False, 0.02),
        (classes(cat=0.9, dog=0.1), classes(dog=0.9, cat=0.1), False, 0.8),
        (classes(cat=0.9, dog=0.1), classes(cat=0.9, hen=0.1), False, 0.0),
        (classes(cat=0.9, dog=0.1), classes(cat=0.9), False, 0.0),
        (classes(cat=0.9, dog=0.1), [], False, 0.0),
        (classes(cat=0.501, dog=0.499), classes(dog=0.5005, cat=0.4995), True, 0.0015),
        ([{"value": 3.0}], [{"value": 3.001}], True, 0.001),
        ([{"value": 1000.0}], [{"value": 1009.0}], True, 9.0),
        ([{"value": 1000.0}], [{"value": 1011.0}], False, 11.0),
        ([{"value": 3.0}], [{"value": "3"}], False, 0.0),
        ([[1.0, 2.0]], [[1.0]], False, 0.0),
        ([{"entity": "PER", "score": 1.0}], [{"entity": "LOC", "score": 1.0}], False, 0.0),
        ([{"value": 3.0}], [{"value": 3.0, "more": 1}], False, 0.0),
    ],
)
def test_words_must_be_equal_and_numbers_near(expected: Any, found: Any, agreed: bool, difference: float) -> None:
    report = sample(expected).compare({"predictions": found}, door="window", version="1")
    assert report.agreed is agreed
    assert report.difference == pytest.approx(difference)
    assert bool(report.message) is not agreed


def test_a_cut_list_of_classes_may_end_in_another_class_of_equal_score() -> None:
    five = classes(a=0.5, b=0.3, c=0.1, d=0.05, e=0.001)
    other = classes(a=0.5, b=0.3, c=0.1, d=0.05, f=0.001)
    assert sample(five, classes=1000).compare({"predictions": other}, door="window", version="1").agreed
    assert not sample(five, classes=5).compare({"predictions": other}, door="window", version="1").agreed
    far = classes(a=0.5, b=0.3, c=0.1, f=0.05, e=0.001)
    assert not sample(five, classes=1000).compare({"predictions": far}, door="window", version="1").agreed


def test_outputs_are_compared_in_whichever_precision_they_came() -> None:
    def tensor(dtype: str, data: Any) -> dict[str, Any]:
        return {"y": {"dtype": dtype, "shape": list(np.shape(data)), "data": data}}

    stated = sample(tensor("float32", [[1.0, None]]), "outputs")
    assert stated.compare({"outputs": tensor("float16", [[1.005, None]])}, door="window", version="1").agreed
    for other in ([[1.005, 2.0]], [[1.2, None]], [[1.0]]):
        assert not stated.compare({"outputs": tensor("float32", other)}, door="window", version="1").agreed
    assert not stated.compare({"outputs": {"z": {}}}, door="window", version="1").agreed
    assert not stated.compare({"predictions": []}, door="window", version="1").agreed
    words = sample(tensor("str", ["a", "b"]), "outputs")
    assert words.compare({"outputs": tensor("str", ["a", "b"])}, door="window", version="1").agreed
    assert not words.compare({"outputs": tensor("str", ["a", "c"])}, door="window", version="1").agreed


# -- reading --------------------------------------------------------------------------------------------------------
def write_golden(folder: Path, expected: Any = None, **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "input.json").write_text(json.dumps({"inputs": {"x": ROW}}))
    outputs = {
        "y": {"dtype": "float32", "shape": [1, 4], "data": [[2.0, 4.0, 6.0, 8.0]]},
        "checksum": {"dtype": "float64", "shape": [1], "data": [10.0]},
    }
    stated = {"input": "input.json", "outputs": outputs, "tolerance": 0.001} | changes
    (folder / "expected.json").write_text(json.dumps(stated))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": "../secret.png"}, "input: expected the name of a file"),
        ({"input": "a\\b.png"}, "input: expected the name of a file"),
        ({"input": ".."}, "input: expected the name of a file"),
        ({"input": 3}, "input: expected the name of a file"),
        ({"input": "nothing.png"}, "nothing.png of the golden sample cannot be read"),
        ({"input": "pipe"}, "pipe of the golden sample is not a regular file"),
        ({"params": []}, "params: expected an object"),
        ({"tolerance": -1}, "tolerance: expected a number"),
        ({"tolerance": True}, "tolerance: expected a number"),
        ({"predictions": []}, "expected an object with one of"),
    ],
)
def test_a_bad_sample_is_refused_by_its_key(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_golden(tmp_path, **changes)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GoldenInvalid, match=words):
        read_golden(tmp_path, "golden/expected.json")


def test_a_sample_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "expected.json").write_text("{")
    with pytest.raises(GoldenInvalid, match="is not JSON"):
        read_golden(tmp_path, "golden/expected.json")


def test_the_test_tensors_of_a_package_are_its_sample(tmp_path: Path) -> None:
    for name, value in (("in.npy", [[1.0, 2.0]]), ("out.npy", [[3.0]])):
        np.save(tmp_path / name, np.array(value, np.float32))
    spec = ModelSpec(
        tmp_path, tmp_path / "w.onnx", "bioimage_io", "onnx", "raw-tensors", TrustClass.DATA,
        inputs=(TensorSpec("x", "float32", (-1, 2)),), outputs=(TensorSpec("y", "float32", (-1, 1)),),
        evidence={"golden": "rdf.yaml: test tensors in.npy -> out.npy"},
    )  # fmt: skip
    found = find_golden(spec, tmp_path, tmp_path / "data")
    assert found is not None
    with np.load(io.BytesIO(found.data)) as read:
        assert read["x"].tolist() == [[1.0, 2.0]]
    answer = {"outputs": {"y": {"dtype": "float32", "shape": [1, 1], "data": [[3.0]]}}}
    assert found.compare(answer, door="window", version="1").agreed
    with pytest.raises(GoldenInvalid, match="2 test tensors"):
        find_golden(
            replace(spec, evidence={"golden": "rdf.yaml: test tensors in.npy, in.npy -> out.npy"}), tmp_path, tmp_path
        )


# -- in the engine --------------------------------------------------------------------------------------------------
def model_in(folder: Path, **options: Any) -> ModelSpec:
    folder.mkdir(exist_ok=True)
    return fake_spec(folder, "fake", **options)


def golden_of(engine: Engine) -> dict[str, Any] | None:
    (entry,) = engine.stats()["models"]
    golden: dict[str, Any] | None = entry["golden"]
    return golden


def test_a_packages_sample_is_checked_after_the_load(tmp_path: Path) -> None:
    spec = model_in(tmp_path / "model")
    write_golden(tmp_path / "model" / "golden")
    with running_engine(tmp_path / "data") as (engine, watch):
        loaded(engine, spec)
        golden = watch.until(lambda _: golden_of(engine))
        assert (golden["window"], golden["network"], golden["difference"]) == (True, None, 0.0)
        assert (golden["tolerance"], golden["version"], golden["message"]) == (0.001, "1", "")
        assert golden["source"] == "golden/expected.json"
        # The engine's own question is nobody's request.
        assert engine.stats()["models"][0]["requests"] == {"window": 0, "network": 0}


def test_a_sample_never_delays_the_model(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    spec = model_in(tmp_path / "model", gate_file=str(gate))
    write_golden(tmp_path / "model" / "golden")
    with running_engine(tmp_path / "data") as (engine, watch):
        assert loaded(engine, spec)["state"] == "READY"
        assert golden_of(engine) is None
        gate.touch()
        assert watch.until(lambda _: golden_of(engine))["window"] is True


def test_another_answer_is_told_and_the_model_answers_on(tmp_path: Path) -> None:
    spec = model_in(tmp_path / "model", scale=3)
    write_golden(tmp_path / "model" / "golden")
    with running_engine(tmp_path / "data") as (engine, _):
        loaded(engine, spec)
        report = engine.check_golden("fake").result(PATIENCE_S)
        assert (report.agreed, report.difference) == (False, 4.0)
        assert "y differs by up to 4" in report.message
        golden = golden_of(engine)
        assert golden is not None
        assert golden["window"] is False
        assert engine.predict(row(1.0)).result(PATIENCE_S).outputs is not None


def test_an_unusable_sample_is_told_and_costs_nothing(tmp_path: Path) -> None:
    spec = model_in(tmp_path / "model")
    write_golden(tmp_path / "model" / "golden", input="nothing.json")
    with running_engine(tmp_path / "data") as (engine, _):
        loaded(engine, spec)
        report = engine.check_golden("fake").result(PATIENCE_S)
        assert report.agreed is None
        assert "nothing.json" in report.message


def test_without_a_sample_there_is_nothing_to_check(tmp_path: Path) -> None:
    with running_engine(tmp_path) as (engine, _):
        loaded(engine, fake())
        assert engine.golden_sample("fake").result(PATIENCE_S) is None
        assert golden_of(engine) is None
        with pytest.raises(UnusableInput, match="no golden sample"):
            engine.check_golden("fake").result(PATIENCE_S)
        with pytest.raises(ModelNotFound):
            engine.check_golden("nobody").result(PATIENCE_S)
        with pytest.raises(PredictionExpired):
            engine.keep_golden("m1-99").result(PATIENCE_S)


@pytest.mark.parametrize("data", [np.array(ROW, np.float32), np.array(ROW, np.float32).tobytes()])
def test_a_kept_answer_guards_the_next_version_until_it_is_forgotten(tmp_path: Path, data: Any) -> None:
    options = tmp_path / "options.json"
    options.write_text('{"scale": 2}')
    spec = model_in(tmp_path / "model", options_file=str(options))
    asked: Any = {"x": data}
    if isinstance(data, bytes):
        packed = io.BytesIO()
        np.save(packed, np.array(ROW, np.float32))
        asked = packed.getvalue()
    with running_engine(tmp_path / "data") as (engine, _):
        loaded(engine, spec)
        answer = engine.predict(PredictRequest("fake", asked, timeout_s=PATIENCE_S)).result(PATIENCE_S)
        report = engine.keep_golden(answer.id).result(PATIENCE_S)
        assert (report.agreed, report.source) == (True, "kept answer")
        options.write_text('{"scale": 2.5}')
        with pytest.raises(LoadFailed, match="did not pass its golden sample"):
            engine.reload("fake").future.result(PATIENCE_S)
        (entry,) = engine.stats()["models"]
        assert (entry["version"], entry["golden"]["window"]) == ("1", True)
        assert "golden sample" in entry["swap_error"]["message"]
        options.write_text('{"scale": 2.0001}')
        entry = engine.reload("fake").future.result(PATIENCE_S)
        assert entry["version"] == "2"
        assert entry["golden"]["window"] is True
        assert 0 < entry["golden"]["difference"] <= entry["golden"]["tolerance"]
        folder = kept_folder(tmp_path / "data", spec.path)
        assert folder.stat().st_mode & 0o077 == 0
        engine.forget_golden("fake").result(PATIENCE_S)
        assert list(folder.iterdir()) == []
        options.write_text('{"scale": 7}')
        assert engine.reload("fake").future.result(PATIENCE_S)["version"] == "3"


def test_a_candidate_that_dies_of_its_sample_does_not_answer(tmp_path: Path) -> None:
    options = tmp_path / "options.json"
    options.write_text("{}")
    spec = model_in(tmp_path / "model", options_file=str(options))
    write_golden(tmp_path / "model" / "golden")
    with running_engine(tmp_path / "data") as (engine, _):
        loaded(engine, spec)
        options.write_text('{"crash_on_value": 1}')
        with pytest.raises(LoadFailed, match="ended while it had this request"):
            engine.reload("fake").future.result(PATIENCE_S)
        assert engine.check_golden("fake").result(PATIENCE_S).agreed is True


# -- over the network -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key_file", [False, True])
def test_the_same_sample_goes_through_the_servers_own_door(tmp_path: Path, key_file: bool) -> None:
    spec = model_in(tmp_path / "model")
    write_golden(tmp_path / "model" / "golden")
    with running_engine(tmp_path / "data") as (engine, watch):
        loaded(engine, spec)
        watch.until(lambda _: golden_of(engine))
        controller = ServerController(engine, ServerSettings(), tmp_path / "data")
        with pytest.raises(Draining):
            controller.check_golden("fake")
        controller.start_at(ServeOptions(port=0, key_file=tmp_path / "keys" if key_file else None))
        try:
            report = controller.check_golden("fake")
            assert (report.door, report.agreed, report.version) == ("network", True, "1")
            golden = golden_of(engine)
            assert golden is not None
            assert (golden["window"], golden["network"]) == (True, True)
            assert engine.stats()["models"][0]["requests"]["network"] == 1
            assert controller._running is not None
            assert "golden" not in {key.name for key in controller._running.door.rules.keys}
            write_golden(tmp_path / "model" / "golden", params={"wiggle": 1})
            assert "wiggle" in controller.check_golden("fake").message
            write_golden(tmp_path / "model" / "golden", input="input.json", tolerance=0.0, params={"top_k": 0})
            refused = controller.check_golden("fake")
            assert refused.agreed is None
            assert "top_k" in refused.message
        finally:
            controller.stop()
