"""Real models on their real frameworks: a worker's answer is the framework's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.model_spec import SIDECAR, ModelSpec, TensorSpec
from tests.engine.worker import make_models
from tests.engine.worker.process import PATIENCE_S, WorkerProcess, item_of, make_spec

pytestmark = pytest.mark.real

A = TensorSpec("a", "float32", (-1, 3))
B = TensorSpec("b", "float32", (-1, 2))
INPUTS = {"a": make_models.A, "b": make_models.B}


def make(framework: str, folder: Path) -> Path:
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow", OMP_WAIT_POLICY="PASSIVE")
    command = [sys.executable, "-m", "tests.engine.worker.make_models", framework, str(folder)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], env=environment, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.fixture(scope="session")
def tensorflow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("tensorflow", tmp_path_factory.mktemp("tensorflow"))


@pytest.fixture(scope="session")
def torch_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("torch", tmp_path_factory.mktemp("torch"))


def spec_of(file: Path, runtime: str, **changes: Any) -> ModelSpec:
    return make_spec(path=file, model_file=file, format=runtime, runtime=runtime, files=(file,), **changes)


def loaded(worker: WorkerProcess, spec: ModelSpec, **extra: Any) -> dict[str, Any]:
    message = worker.load(spec, **extra)
    assert message.type == "ready", message.header
    info: dict[str, Any] = message.header["info"]
    return info


def refused(spec: ModelSpec, device: str = "cpu") -> dict[str, Any]:
    with WorkerProcess() as worker:
        message = worker.load(spec, device)
        assert message.type == "failed", message.header
        assert worker.exit_code() == 0
        error: dict[str, Any] = message.header["error"]
        return error


def maps(worker: WorkerProcess) -> str:
    return Path(f"/proc/{worker.process.pid}/maps").read_text()


on_linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the memory map of Linux")


# -- Keras -------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def keras_worker(tensorflow_models: Path) -> Iterator[tuple[WorkerProcess, dict[str, Any]]]:
    with WorkerProcess() as worker:
        yield worker, loaded(worker, spec_of(tensorflow_models / "two.keras", "keras"))


def test_keras_says_its_own_signature(keras_worker: tuple[WorkerProcess, dict[str, Any]]) -> None:
    worker, info = keras_worker
    assert [s["stage"] for s in worker.stages] == ["importing framework", "reading weights", "building", "warming up"]
    assert [TensorSpec.from_json(t) for t in info["inputs"]] == [B, A]
    assert [TensorSpec.from_json(t) for t in info["outputs"]] == [
        TensorSpec("hidden", "float32", (-1, 2)),
        TensorSpec("scores", "float32", (-1, 4)),
    ]
    assert info["evidence"]["inputs"] == "tensor signature"
    assert info["device"] == "cpu"


def test_keras_answers_what_keras_answers(
    keras_worker: tuple[WorkerProcess, dict[str, Any]], tensorflow_models: Path
) -> None:
    worker, _ = keras_worker
    expected = np.load(tensorflow_models / "two.npz")
    alone = worker.predict(INPUTS)["outputs"]
    np.testing.assert_allclose(alone["scores"], expected["scores"], atol=1e-6)
    np.testing.assert_allclose(alone["hidden"], expected["hidden"], atol=1e-6)
    cut = [item_of(str(i), {name: array[i : i + 1] for name, array in INPUTS.items()}) for i in range(5)]
    for i, item in enumerate(worker.run_batch(*cut)):
        np.testing.assert_allclose(item["outputs"]["scores"][0], expected["scores"][i], atol=1e-6)
    assert worker.predict({"a": make_models.A})["error"]["code"] == "unknown_input"


@on_linux
def test_a_keras_worker_maps_no_torch(keras_worker: tuple[WorkerProcess, dict[str, Any]]) -> None:
    assert "tensorflow" in maps(keras_worker[0])
    assert "libtorch" not in maps(keras_worker[0])


def test_a_damaged_keras_file_is_corrupt(tmp_path: Path) -> None:
    file = tmp_path / "half.keras"
    file.write_bytes(b"PK\x03\x04" + bytes(500))
    error = refused(spec_of(file, "keras"))
    assert error["code"] == "model_corrupt"
    assert "half.keras" in error["message"]


@pytest.mark.slow
def test_a_keras_lambda_is_not_run(tensorflow_models: Path) -> None:
    error = refused(spec_of(tensorflow_models / "lambda.keras", "keras"))
    assert error["code"] == "load_failed"
    assert "Lambda" in error["message"]


@pytest.mark.slow
def test_a_contradicting_sidecar_fails_the_load_of_a_keras_model(tensorflow_models: Path) -> None:
    wrong = (A, TensorSpec("b", "float32", (-1, 9)))
    error = refused(spec_of(tensorflow_models / "two.keras", "keras", inputs=wrong, evidence={"inputs": SIDECAR}))
    assert error["code"] == "load_failed"
    assert "[any, 9], but the model has [any, 2]" in error["message"]


@pytest.mark.slow
def test_a_device_that_is_not_there_is_named(tensorflow_models: Path, torch_models: Path) -> None:
    for spec in (
        spec_of(tensorflow_models / "two.keras", "keras"),
        spec_of(torch_models / "two.pt", "torchscript", inputs=(A, B)),
    ):
        assert "'cuda:99'" in refused(spec, "cuda:99")["message"]


# -- SavedModel --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def saved_worker(tensorflow_models: Path) -> Iterator[tuple[WorkerProcess, dict[str, Any]]]:
    with WorkerProcess() as worker:
        yield worker, loaded(worker, spec_of(tensorflow_models / "saved", "saved_model"))


def test_a_saved_model_answers_through_its_signature(saved_worker: tuple[WorkerProcess, dict[str, Any]]) -> None:
    worker, info = saved_worker
    assert sorted(info["signatures"]) == ["other", "serving_default"]
    assert [TensorSpec.from_json(t) for t in info["inputs"]] == [A, TensorSpec("t", "str", (-1,))]
    texts = np.array(["a", "é", "c", "d", "e"], dtype=object)
    outputs = worker.predict({"a": make_models.A, "t": texts})["outputs"]
    np.testing.assert_allclose(outputs["sum"], make_models.A.sum(axis=1), atol=1e-6)
    assert outputs["upper"].tolist()[0] == "A"
    body = b'{"inputs": {"a": [[1, 2, 3]], "t": ["x"]}}'
    outputs = worker.predict(body, "application/json")["outputs"]
    assert (outputs["sum"].tolist(), outputs["upper"].tolist()) == ([6.0], ["X"])


@pytest.mark.slow
def test_a_sidecar_chooses_the_signature(tensorflow_models: Path) -> None:
    spec = spec_of(tensorflow_models / "saved", "saved_model", signatures=("other",), evidence={"signatures": SIDECAR})
    with WorkerProcess() as worker:
        info = loaded(worker, spec)
        assert info["signatures"] == ["other"]
        np.testing.assert_allclose(worker.predict({"a": make_models.A})["outputs"]["negative"], -make_models.A)


@pytest.mark.slow
def test_a_damaged_saved_model_is_corrupt(tensorflow_models: Path, tmp_path: Path) -> None:
    error = refused(spec_of(tensorflow_models / "saved" / "broken", "saved_model"))
    assert error["code"] == "model_corrupt"
    assert refused(spec_of(tmp_path, "saved_model"))["code"] == "model_corrupt"


# -- TorchScript -------------------------------------------------------------------------------------------------------
OUTPUTS = (TensorSpec("scores", "float32", (-1, 4)), TensorSpec("doubled", "float32", (-1, 3)))


@pytest.fixture(scope="session")
def torch_worker(torch_models: Path) -> Iterator[tuple[WorkerProcess, dict[str, Any]]]:
    # Declared in another order than the forward has them: they are matched by name.
    spec = spec_of(torch_models / "two.pt", "torchscript", inputs=(B, A), outputs=OUTPUTS)
    with WorkerProcess() as worker:
        yield worker, loaded(worker, spec)


def test_torchscript_keeps_what_the_spec_declares(torch_worker: tuple[WorkerProcess, dict[str, Any]]) -> None:
    worker, info = torch_worker
    assert [s["stage"] for s in worker.stages] == [
        "importing framework",
        "reading weights",
        "building",
        "moving to device",
        "warming up",
    ]
    assert worker.stages[1]["total_bytes"] > 0
    assert [TensorSpec.from_json(t) for t in info["inputs"]] == [B, A]
    assert "inputs" not in info["evidence"]


def test_torchscript_answers_what_torch_answers(
    torch_worker: tuple[WorkerProcess, dict[str, Any]], torch_models: Path
) -> None:
    worker, _ = torch_worker
    expected = np.load(torch_models / "two.npz")
    outputs = worker.predict(INPUTS)["outputs"]
    np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=1e-6)
    np.testing.assert_array_equal(outputs["doubled"], expected["doubled"])
    cut = [item_of(str(i), {name: array[i : i + 1] for name, array in INPUTS.items()}) for i in range(5)]
    for i, item in enumerate(worker.run_batch(*cut)):
        np.testing.assert_allclose(item["outputs"]["scores"][0], expected["scores"][i], atol=1e-6)
    assert "Warning" not in worker.errors()


@on_linux
def test_a_torch_worker_maps_no_tensorflow(torch_worker: tuple[WorkerProcess, dict[str, Any]]) -> None:
    assert "libtorch" in maps(torch_worker[0])
    assert "tensorflow" not in maps(torch_worker[0])


def test_torchscript_without_a_declaration_takes_arrays_by_argument_name(torch_models: Path) -> None:
    with WorkerProcess() as worker:
        loaded(worker, spec_of(torch_models / "two.pt", "torchscript"))
        outputs = worker.predict({"b": make_models.B, "a": make_models.A})["outputs"]
        assert sorted(outputs) == ["doubled", "output_0"]
        # Inside the model something does not fit: the request fails, the model stays.
        bad = worker.predict({"b": make_models.A, "a": make_models.A})["error"]
        assert bad["code"] == "model_error"
        assert worker.predict(INPUTS)["outputs"]["output_0"].shape == (5, 4)


@pytest.mark.slow
def test_a_fixed_first_dimension_is_filled_up(torch_models: Path) -> None:
    spec = spec_of(torch_models / "fixed.pt", "torchscript", inputs=(TensorSpec("x", "float32", (2, 3)),))
    with WorkerProcess() as worker:
        loaded(worker, spec)
        assert worker.predict({"x": np.ones((2, 3))})["outputs"]["output"].tolist() == [3.0, 3.0]
        assert worker.predict({"x": np.ones((1, 3))})["error"]["code"] == "invalid_shape"


@pytest.mark.slow
def test_a_damaged_torchscript_file_is_corrupt(torch_models: Path, tmp_path: Path) -> None:
    whole = (torch_models / "two.pt").read_bytes()
    for data in (b"", b"hello", whole[: len(whole) // 2]):
        (tmp_path / "half.pt").write_bytes(data)
        error = refused(spec_of(tmp_path / "half.pt", "torchscript"))
        assert error["code"] == "model_corrupt"
        assert "half.pt" in error["message"]


@pytest.mark.slow
def test_a_wrong_number_of_declared_inputs_fails_the_load(torch_models: Path) -> None:
    error = refused(spec_of(torch_models / "two.pt", "torchscript", inputs=(A,)))
    assert error["code"] == "load_failed"
    assert "takes 2: a, b" in error["message"]


def test_the_test_process_imports_no_framework() -> None:
    assert not {"torch", "tensorflow", "keras"} & set(sys.modules)
