"""Real models in real workers: once they are prepared they answer as before, and what cannot be prepared is not.

Whether a way is faster is this machine's affair, and so no test says that one is kept; what is not even right never is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.model_spec import ModelSpec, TensorSpec
from engine.preparation import Preparation, PreparationState, Reason
from tests.engine.worker.make_prepared import images
from tests.engine.worker.process import PATIENCE_S, WorkerProcess, item_of, make_spec, read_done

pytestmark = pytest.mark.real

X = TensorSpec("x", "float32", (-1, 3, 32, 32))
RIGHT = (None, Reason.SLOWER)
"""Why what is right may not be used: for nothing but its pace."""
TOLERANCE = 2e-5

Ask = Callable[[WorkerProcess], list[dict[str, np.ndarray]]]


def make(framework: str, folder: Path) -> Path:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "tests.engine.worker.make_prepared", framework, str(folder)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], env=os.environ | quiet, capture_output=True, timeout=PATIENCE_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.fixture(scope="module")
def torch_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("torch", tmp_path_factory.mktemp("torch"))


@pytest.fixture(scope="module")
def tensorflow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("tensorflow", tmp_path_factory.mktemp("tensorflow"))


def owners(folder: Path, name: str, weights: str = "net.pth", **changes: Any) -> ModelSpec:
    files = (folder / weights, folder / "net.py")
    values: dict[str, Any] = {"inputs": (X,), "architecture": f"net.py:{name}", "files": files}
    return make_spec(
        path=files[0], model_file=files[0], format="state_dict", runtime="state_dict", **(values | changes)
    )


def spec_of(file: Path, runtime: str, **changes: Any) -> ModelSpec:
    files = tuple(sorted(p for p in file.rglob("*") if p.is_file())) if file.is_dir() else (file,)
    return make_spec(path=file, model_file=file, format=runtime, runtime=runtime, files=files, **changes)


def prepared(worker: WorkerProcess, golden: tuple[dict[str, Any], list[Any]] | None = None) -> Preparation:
    header, buffers = golden or (None, [])
    worker.send({"type": "prepare", "golden": header}, buffers)
    message = worker.receive()
    assert message.type == "prepared", message.header
    return Preparation.read(message.header["preparation"])


def loaded(worker: WorkerProcess, spec: ModelSpec) -> None:
    message = worker.load(spec)
    assert message.type == "ready", message.header


def ask_images(worker: WorkerProcess, *more: np.ndarray) -> list[dict[str, np.ndarray]]:
    asked = [images(rows, 3, 32, 32) for rows in (1, 2, 3, 5, 8, 11)]
    asked.append(asked[1] * 1e5)
    return [worker.predict({"x": x})["outputs"] for x in (*asked, *more)]


def assert_equal(before: list[dict[str, np.ndarray]], after: list[dict[str, np.ndarray]]) -> None:
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        assert list(one) == list(other)
        for name, array in one.items():
            assert other[name].shape == array.shape
            np.testing.assert_allclose(other[name], array, rtol=0, atol=TOLERANCE * np.abs(array).max(), err_msg=name)


def preparation_of(spec: ModelSpec, ask: Ask = ask_images) -> Preparation:
    """What becomes of it; its answers before and after are the same."""
    with WorkerProcess() as worker:
        loaded(worker, spec)
        before = ask(worker)
        found = prepared(worker)
        assert_equal(before, ask(worker))
        return found


@pytest.mark.parametrize("name", ["Convolutions", "Named"])
def test_a_model_without_choices_is_right_in_every_way(torch_models: Path, name: str) -> None:
    found = preparation_of(owners(torch_models, name))
    assert found.reason in RIGHT
    assert (found.state is PreparationState.USED) == bool(found.steps)


def test_inputs_are_told_apart_by_name_in_whatever_order_they_come(torch_models: Path) -> None:
    def ask(worker: WorkerProcess) -> list[dict[str, np.ndarray]]:
        a, b = images(3, 6), images(3, 6) * 5
        return [worker.predict(inputs)["outputs"] for inputs in ({"a": a, "b": b}, {"b": b, "a": a}, {"a": b, "b": a})]

    inputs = tuple(TensorSpec(name, "float32", (-1, 6)) for name in "ab")
    assert preparation_of(owners(torch_models, "Two", "two.pth", inputs=inputs), ask).reason in RIGHT


@pytest.mark.parametrize("name", ["Branching", "Reading", "OneSize"])
def test_code_that_looks_at_values_is_not_traced(torch_models: Path, name: str) -> None:
    found = preparation_of(owners(torch_models, name))
    # Another layout in memory changes nothing in what the code sees.
    assert not {"traced", "frozen"} & set(found.steps)
    assert found.reason in (None, Reason.DEPENDS)


def test_a_model_that_answers_at_random_is_left_alone(torch_models: Path) -> None:
    with WorkerProcess() as worker:
        loaded(worker, owners(torch_models, "Dropping"))
        assert prepared(worker) == Preparation(PreparationState.UNUSED, reason=Reason.RANDOM)


def test_a_model_with_a_memory_is_left_alone(torch_models: Path) -> None:
    with WorkerProcess() as worker:
        loaded(worker, owners(torch_models, "Counting"))
        assert prepared(worker) == Preparation(PreparationState.UNUSED, reason=Reason.RANDOM)


def test_an_answer_that_is_no_tensor_is_not_traced(torch_models: Path) -> None:
    with WorkerProcess() as worker:
        loaded(worker, owners(torch_models, "Plain"))
        assert not {"traced", "frozen"} & set(prepared(worker).steps)


def test_torchscript_keeps_its_own_choices(torch_models: Path) -> None:
    free = TensorSpec("x", "float32", (-1, 7))

    def ask(worker: WorkerProcess) -> list[dict[str, np.ndarray]]:
        asked = [images(3, 7), images(1, 7), images(3, 7) * 1e6]
        return [worker.predict({"x": x})["outputs"] for x in asked]

    found = preparation_of(spec_of(torch_models / "branching.pt", "torchscript", inputs=(free,)), ask)
    assert found.reason in RIGHT
    assert preparation_of(spec_of(torch_models / "scripted.pt", "torchscript", inputs=(X,))).reason in RIGHT


def test_a_golden_sample_tells_the_size_that_nothing_else_does(torch_models: Path) -> None:
    free = TensorSpec("x", "float32", (-1, 3, -1, -1))
    with WorkerProcess() as worker:
        loaded(worker, owners(torch_models, "Convolutions", inputs=(free,)))
        assert prepared(worker) == Preparation(PreparationState.UNUSED, reason=Reason.NO_SAMPLE)

    with WorkerProcess() as worker:
        loaded(worker, owners(torch_models, "Convolutions", inputs=(free,)))
        others = images(2, 3, 40, 24), images(2, 3, 24, 40)
        before = ask_images(worker, *others)
        assert prepared(worker, item_of("golden", {"x": images(1, 3, 40, 24)})).reason in RIGHT
        assert_equal(before, ask_images(worker, *others))


def test_a_worker_answers_while_it_prepares_and_ends_in_the_middle(torch_models: Path) -> None:
    with WorkerProcess() as worker:
        loaded(worker, owners(torch_models, "Convolutions"))
        x = images(2, 3, 32, 32)
        before = worker.predict({"x": x})["outputs"]
        worker.send({"type": "prepare", "golden": None})

        worker.send_batch(100, item_of("r", {"x": x}))
        kinds = []
        while (message := worker.receive()).type != "done":
            kinds.append(message.type)
        assert kinds[-1] in ("started", "prepared")
        assert_equal([before], [read_done(message)[0]["outputs"]])
        worker.send({"type": "stop"})
        assert worker.exit_code() == 0


def test_a_model_is_prepared_once_and_only_when_it_is_there(torch_models: Path) -> None:
    with WorkerProcess() as worker:
        assert worker.receive().type == "hello"
        worker.send({"type": "prepare", "golden": None})
        assert worker.exit_code() != 0


def test_keras_is_frozen_and_answers_the_same(tensorflow_models: Path) -> None:
    def ask(worker: WorkerProcess) -> list[dict[str, np.ndarray]]:
        return [worker.predict({"x": images(rows, 16, 16, 3)})["outputs"] for rows in (1, 2, 3, 8, 9)]

    assert preparation_of(spec_of(tensorflow_models / "net.keras", "keras"), ask).reason in RIGHT


def test_a_saved_model_is_frozen_with_its_choices_and_names(tensorflow_models: Path) -> None:
    def ask(worker: WorkerProcess) -> list[dict[str, np.ndarray]]:
        asked = [(images(rows, 3), images(rows, 4)) for rows in (1, 2, 3, 8, 9)]
        asked.append((asked[0][0], asked[0][1] * 1e7))
        return [worker.predict({"b": b, "a": a})["outputs"] for b, a in asked]

    assert preparation_of(spec_of(tensorflow_models / "two", "saved_model"), ask).reason in RIGHT


def test_a_saved_model_with_random_numbers_is_left_alone(tensorflow_models: Path) -> None:
    with WorkerProcess() as worker:
        loaded(worker, spec_of(tensorflow_models / "noise", "saved_model"))
        assert prepared(worker) == Preparation(PreparationState.UNUSED, reason=Reason.RANDOM)


def test_only_a_tensorflow_graph_without_state_is_run_by_two_threads_and_they_answer_the_same(
    tensorflow_models: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.engine.worker.ask_tensorflow_streams", str(tensorflow_models)],
        cwd=Path(__file__).parents[3], capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    shared, alone = {"shared": True, "wrong": []}, {"shared": False, "wrong": []}
    assert json.loads(done.stdout) == {"net.keras": shared, "two": shared, "noise": alone, "no session": alone}


def test_only_a_graph_without_state_is_run_by_several_threads_and_they_answer_the_same(torch_models: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.engine.worker.ask_streams", str(torch_models)],
        cwd=Path(__file__).parents[3], env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"},
        capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    graph = {"channels-last": False, "optimised": True, "frozen": True}
    assert told["Convolutions"] == {"shared": graph, "asked": 300, "wrong": [], "threads_kept": True}
    # It writes to a buffer of its module: two threads would answer each other's inputs.
    assert told["Scratch"]["shared"] == dict.fromkeys(graph, False)
    assert told["Scratch"]["asked"] == 0
