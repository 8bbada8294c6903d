"""Keras 2 and LiteRT in a real worker: what each answers is its own library's answer."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.formats import describe_model, litert
from engine.model_spec import TensorSpec
from tests.engine.make_tensorflow_files import ROWS
from tests.engine.worker.process import PATIENCE_S, WorkerProcess

pytestmark = pytest.mark.real


def loaded(worker: WorkerProcess, spec: Any, **extra: Any) -> dict[str, Any]:
    message = worker.load(spec, **extra)
    assert message.type == "ready", message.header
    info: dict[str, Any] = message.header["info"]
    return info


@pytest.fixture(scope="module")
def sums(tensorflow_files: Path) -> Iterator[tuple[WorkerProcess, dict[str, Any]]]:
    with WorkerProcess() as worker:
        yield worker, loaded(worker, describe_model(tensorflow_files / "sums.tflite"))


def test_litert_answers_any_number_of_rows(sums: tuple[WorkerProcess, dict[str, Any]]) -> None:
    worker, info = sums
    assert info["signatures"] == ["add", "double"]
    assert info["device"] == "cpu"
    assert [TensorSpec.from_json(t) for t in info["inputs"]] == [TensorSpec("x", "float32", (-1, 3))]
    for rows in (ROWS, ROWS[:1], ROWS):
        outputs = worker.predict({"x": rows})["outputs"]
        np.testing.assert_allclose(outputs["sum"], rows.sum(axis=1, keepdims=True), atol=1e-6)
    assert worker.predict({"x": ROWS[:, :2]})["error"]["code"] == "invalid_shape"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the memory map of Linux")
def test_a_litert_worker_maps_no_tensorflow(sums: tuple[WorkerProcess, dict[str, Any]]) -> None:
    maps = Path(f"/proc/{sums[0].process.pid}/maps").read_text()
    assert "litert" in maps
    assert "libtensorflow" not in maps


def test_litert_answers_by_the_signature_that_is_put_first(tensorflow_files: Path) -> None:
    with WorkerProcess() as worker:
        info = loaded(worker, litert.describe(tensorflow_files / "sums.tflite", "double"))
        assert info["signatures"][0] == "double"
        np.testing.assert_allclose(worker.predict({"y": ROWS})["outputs"]["doubled"], ROWS * 2)


def test_raw_tensors_of_a_quantised_model_pass_unchanged(tensorflow_files: Path) -> None:
    spec = dataclasses.replace(describe_model(tensorflow_files / "int8.tflite"), task="raw-tensors", evidence={})
    with WorkerProcess() as worker:
        info = loaded(worker, spec)
        assert [t["dtype"] for t in info["inputs"] + info["outputs"]] == ["int8", "int8"]
        # Zero stands for 0.5: scale 1/255, zero point -128.
        grey = worker.predict({"photo": np.zeros((1, 16, 16, 1), np.int8)})["outputs"]["scores"]
        assert grey.dtype == np.int8
        real = (grey.astype(int) + 128) / 256
        expected = np.exp([0.5, 1.0, 1.5]) / np.exp([0.5, 1.0, 1.5]).sum()
        np.testing.assert_allclose(real[0], expected, atol=0.02)  # 8 bits are no more exact


def refused(spec: Any, device: str = "cpu") -> dict[str, Any]:
    with WorkerProcess() as worker:
        message = worker.load(spec, device)
        assert message.type == "failed", message.header
        assert worker.exit_code() == 0
        error: dict[str, Any] = message.header["error"]
        return error


def test_an_operator_that_litert_has_not_is_told(tensorflow_files: Path) -> None:
    error = refused(describe_model(tensorflow_files / "custom.tflite"))
    assert error["code"] == "load_failed"
    assert error["message"] == "custom.tflite uses an operator whose code is not in the file and not in LiteRT."


def test_litert_has_no_other_device(tensorflow_files: Path) -> None:
    assert "'cuda'" in refused(describe_model(tensorflow_files / "sums.tflite"), "cuda")["message"]


def test_a_damaged_litert_file_is_corrupt(tensorflow_files: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(tensorflow_files / "sums.tflite", tmp_path / "cut.tflite"))
    spec = describe_model(file)
    file.write_bytes(file.read_bytes()[:200])
    error = refused(spec)
    assert error["code"] in ("model_corrupt", "load_failed")
    assert spec.path.name in error["message"]


# -- Keras 2 -----------------------------------------------------------------------------------------------------------
def test_a_lambda_in_hdf5_runs_where_the_file_was_consented_to(tensorflow_files: Path) -> None:
    with WorkerProcess() as worker:
        info = loaded(worker, describe_model(tensorflow_files / "lambda.h5"))
        (name,) = [t["name"] for t in info["inputs"]]
        outputs = worker.predict({name: ROWS})["outputs"]
    expected = json.loads((tensorflow_files / "lambda.json").read_text())
    np.testing.assert_allclose(outputs["last"], expected, atol=1e-6)


@pytest.mark.slow
def test_a_runtime_that_is_not_installed_is_named_with_its_command(tensorflow_files: Path) -> None:
    for package, file, command in (
        ("tf_keras", "functional.h5", "pip install tf-keras"),
        ("ai_edge_litert", "sums.tflite", "pip install ai-edge-litert"),
    ):
        code = (
            "import sys; from pathlib import Path\n"
            "import builtins; real = builtins.__import__\n"
            "def missing(name, *rest, **named):\n"
            f"    if name.partition('.')[0] == {package!r}:\n"
            f"        raise ModuleNotFoundError('no', name={package!r})\n"
            "    return real(name, *rest, **named)\n"
            "builtins.__import__ = missing\n"
            "from engine.errors import FrameworkMissing\n"
            "from engine.formats import describe_model\n"
            "from engine.worker.runtimes import create_runtime\n"
            f"spec = describe_model(Path({str(tensorflow_files / file)!r}))\n"
            "try:\n"
            "    create_runtime(spec.runtime).load(spec, 'cpu', 1, lambda stage: None)\n"
            "except FrameworkMissing as error:\n"
            "    print(error.message)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=Path(__file__).parents[3],
            check=False,
        )
        assert command in done.stdout, done.stderr
