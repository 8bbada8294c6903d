"""The choice of a device, and what a framework's exceptions mean, on machines that this one is not (faked)."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine.errors import FrameworkMissing, LoadFailed
from engine.worker.runtimes import tensorflow_setup, torch_setup
from engine.worker.runtimes.base import FailureKind
from engine.worker.runtimes.keras import KerasRuntime
from engine.worker.runtimes.torchscript import TorchScriptRuntime
from tests.engine.worker.process import make_spec


class FakeTensorFlow:
    """As much of TensorFlow as the setup touches; keeps what it was told."""

    def __init__(self, gpus: int, *, cuda: bool = True) -> None:
        names = [f"GPU{i}" for i in range(gpus)]
        self.visible: Any = names
        self.growing: list[str] = []
        self.threads: dict[str, int] = {}
        self.config = SimpleNamespace(
            list_physical_devices=lambda kind: names,
            set_visible_devices=self._show,
            experimental=SimpleNamespace(set_memory_growth=lambda gpu, on: self.growing.append(gpu)),
            threading=SimpleNamespace(
                set_intra_op_parallelism_threads=lambda n: self.threads.update(intra=n),
                set_inter_op_parallelism_threads=lambda n: self.threads.update(inter=n),
            ),
        )
        self.test = SimpleNamespace(is_built_with_gpu_support=lambda: cuda)

    def _show(self, devices: Any, kind: str) -> None:
        self.visible = devices


@pytest.mark.parametrize(
    ("gpus", "cuda", "asked", "given", "visible"),
    [
        (0, True, "auto", "cpu", []),
        (2, True, "auto", "cuda:0", "GPU0"),
        (2, True, "cpu", "cpu", []),
        (2, True, "cuda", "cuda:0", "GPU0"),
        (2, True, "cuda:1", "cuda:1", "GPU1"),
        (1, False, "auto", "mps", ["GPU0"]),
        (1, False, "mps", "mps", ["GPU0"]),
        (1, False, "cpu", "cpu", []),
    ],
)
def test_tensorflow_sees_the_asked_device_and_its_memory_grows(
    monkeypatch: pytest.MonkeyPatch, gpus: int, cuda: bool, asked: str, given: str, visible: Any
) -> None:
    fake = FakeTensorFlow(gpus, cuda=cuda)
    monkeypatch.setitem(sys.modules, "tensorflow", fake)  # type: ignore[arg-type]
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    _, device = tensorflow_setup.import_tensorflow(asked, 4)
    assert device == given
    assert fake.visible == visible
    assert fake.growing == [f"GPU{i}" for i in range(gpus)]
    assert fake.threads == {"intra": 4, "inter": 2}


@pytest.mark.parametrize(
    ("gpus", "asked"), [(0, "cuda"), (2, "cuda:2"), (1, "mps"), (0, "mps"), (1, "tpu"), (1, "cuda:")]
)
def test_tensorflow_names_a_device_that_is_not_there(gpus: int, asked: str) -> None:
    fake: Any = FakeTensorFlow(gpus)
    with pytest.raises(LoadFailed, match=asked):
        tensorflow_setup._choose_device(fake, fake.visible, asked)


def fake_torch(monkeypatch: pytest.MonkeyPatch, gpus: int = 0, mps: bool = False) -> ModuleType:
    module = ModuleType("torch")
    module.__dict__.update(
        device=str,
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        cuda=SimpleNamespace(is_available=lambda: gpus > 0, device_count=lambda: gpus, empty_cache=lambda: None),
        OutOfMemoryError=type("OutOfMemoryError", (RuntimeError,), {}),
        AcceleratorError=type("AcceleratorError", (RuntimeError,), {}),
    )
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


@pytest.mark.parametrize(
    ("gpus", "mps", "asked", "given"),
    [
        (0, False, "auto", "cpu"),
        (2, True, "auto", "cuda:0"),
        (0, True, "auto", "mps"),
        (2, True, "cpu", "cpu"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_torch_prefers_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, gpus: int, mps: bool, asked: str, given: str
) -> None:
    fake_torch(monkeypatch, gpus, mps)
    assert str(torch_setup.choose_device(asked)) == given


@pytest.mark.parametrize(("gpus", "asked"), [(0, "cuda"), (1, "cuda:1"), (1, "mps"), (1, "tpu")])
def test_torch_names_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, gpus: int, asked: str) -> None:
    fake_torch(monkeypatch, gpus)
    with pytest.raises(LoadFailed, match=asked):
        torch_setup.choose_device(asked)


def test_what_torch_raises_and_what_it_means(monkeypatch: pytest.MonkeyPatch) -> None:
    torch: Any = fake_torch(monkeypatch)
    meaning = TorchScriptRuntime().failure
    assert meaning(torch.OutOfMemoryError("CUDA out of memory.")) is FailureKind.OUT_OF_MEMORY
    assert meaning(RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 PB")) is FailureKind.OUT_OF_MEMORY
    assert meaning(torch.AcceleratorError("CUDA error: device-side assert triggered")) is FailureKind.DEVICE_LOST
    assert meaning(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is FailureKind.INPUT


@pytest.mark.parametrize(
    ("runtime", "module", "words"),
    [
        (TorchScriptRuntime(), "torch", "pip install torch"),
        (KerasRuntime(), "tensorflow", "pip install tensorflow"),
    ],
)
def test_a_missing_framework_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runtime: Any, module: str, words: str
) -> None:
    with zipfile.ZipFile(tmp_path / "model", "w") as archive:
        archive.writestr("config.json", "{}")

    class Missing:
        """A finder for which ``module`` does not exist, as where it was never installed."""

        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == module:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(FrameworkMissing, match=words):
        runtime.load(make_spec(model_file=tmp_path / "model"), "cpu", 1, lambda stage: None)
