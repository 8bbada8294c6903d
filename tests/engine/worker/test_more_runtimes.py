"""What the runtimes of ONNX, torch.export and packages say when a model cannot be loaded, in real workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.model_spec import ModelSpec, TensorSpec
from tests.engine.worker.process import WorkerProcess
from tests.engine.worker.test_real import loaded, refused, spec_of

pytestmark = pytest.mark.real

X = TensorSpec("x", "float32", (-1, 3))


def write_onnx(file: Path, *, rows: int | str = "n", operation: str = "Add") -> Path:
    graph = helper.make_graph(
        [helper.make_node(operation, ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3])],
        [numpy_helper.from_array(np.float32([1, 2, 3]), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file.write_bytes(model.SerializeToString())
    return file


def test_a_fixed_first_dimension_of_onnx_is_filled_up(tmp_path: Path) -> None:
    with WorkerProcess() as worker:
        info = loaded(worker, spec_of(write_onnx(tmp_path / "net.onnx", rows=2), "onnxruntime"))
        assert info["inputs"] == [{"name": "x", "dtype": "float32", "shape": [2, 3]}]
        assert worker.predict({"x": np.zeros((2, 3))})["outputs"]["y"].tolist() == [[1, 2, 3], [1, 2, 3]]
        assert worker.predict({"x": np.zeros((1, 3))})["error"]["code"] == "invalid_shape"


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"garbage", "model_corrupt", "net.onnx is damaged or is no ONNX file"),
        (None, "load_failed", "net.onnx uses an operation that this ONNX Runtime does not have"),
    ],
)
def test_an_onnx_file_that_cannot_be_loaded(tmp_path: Path, data: bytes | None, code: str, words: str) -> None:
    file = write_onnx(tmp_path / "net.onnx", operation="NoSuchOperation")
    if data is not None:
        file.write_bytes(data)
    error = refused(spec_of(file, "onnxruntime"))
    assert (error["code"], words in error["message"]) == (code, True), error


def test_a_device_that_is_not_there_is_named_for_onnx(tmp_path: Path) -> None:
    spec = spec_of(write_onnx(tmp_path / "net.onnx"), "onnxruntime")
    assert "'cuda:99'" in refused(spec, "cuda:99")["message"]


def package(file: Path, **changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "inputs": (TensorSpec("raw", "uint16", (-1, 3)),),
        "outputs": (TensorSpec("mask", "uint8", (-1, 3)),),
        "steps": (
            {"tensor": "raw", "when": "before", "op": "scale_linear", "gain": 0.5, "offset": 0.0, "dim": None},
            {"tensor": "mask", "when": "after", "op": "binarize", "threshold": 3.5, "dim": None},
        ),
    }
    return replace(spec_of(file, "onnxruntime", **(values | changes)), format="bioimage_io")


def test_a_package_answers_under_its_own_names(tmp_path: Path) -> None:
    with WorkerProcess() as worker:
        info = loaded(worker, package(write_onnx(tmp_path / "net.onnx", rows=1)))
        # Its weights take one row at a time: so does the package.
        assert info["inputs"] == [{"name": "raw", "dtype": "uint16", "shape": [1, 3]}]
        assert info["max_batch_size"] == 1
        outputs = worker.predict({"raw": np.array([[4, 4, 0]], np.uint16)})["outputs"]
        assert outputs["mask"].tolist() == [[0, 1, 0]]
        assert outputs["mask"].dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": (X, TensorSpec("z", "float32", (-1, 3)))}, "describes 2 inputs, but its weights have 1"),
        ({"inputs": (TensorSpec("x", "float32", (-1, 3, 4)),)}, "'x' with the shape [any, 3, 4], but its weights have"),
    ],
)
def test_a_package_that_does_not_fit_its_weights(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    error = refused(package(write_onnx(tmp_path / "net.onnx"), steps=(), **changes))
    assert error["code"] == "load_failed"
    assert said in error["message"]


def test_a_damaged_program_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"PK\x03\x04" + bytes(200))
    error = refused(spec_of(tmp_path / "net.pt2", "torch_export"))
    assert error["code"] == "model_corrupt", error
    assert "net.pt2" in error["message"]
