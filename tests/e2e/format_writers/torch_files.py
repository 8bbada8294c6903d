"""Files of PyTorch: TorchScript with Ultralytics' extra file, torch.export programs, AOTInductor packages."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.e2e.format_case import Ask, Written, case
from tests.e2e.format_writers.keras_files import photo, ranked


def classifier(classes: int, *, softmax: bool) -> Any:
    """A small convolutional net whose scores lie far apart."""
    import torch

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.manual_seed(11)
    layers = [torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    last = torch.nn.Linear(6, classes)
    torch.nn.init.normal_(last.weight, std=3.0)
    return torch.nn.Sequential(*layers, last, *([torch.nn.Softmax(1)] if softmax else [])).eval()


def answer(model: Any, *arrays: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


def nchw(image: Image.Image) -> Any:
    return (np.asarray(image, np.float32) / np.float32(255)).transpose(2, 0, 1)[np.newaxis]


def ultralytics_config(task: str, names: dict[int, str], size: list[int]) -> dict[str, str]:
    """``config.txt`` as ultralytics/engine/exporter.py (8.x, export_torchscript) writes it: JSON of its metadata. Its
    package is not licensed for us; the bytes are torch's."""
    metadata = {
        "description": f"Ultralytics YOLO11n {task} model", "author": "Ultralytics", "date": "2026-01-01T00:00:00",
        "version": "8.3.0", "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com", "stride": 1, "task": task, "batch": 1, "imgsz": size, "names": names,
        "args": {"batch": 1, "half": False, "optimize": False, "nms": False}, "channels": 3,
    }  # fmt: skip
    return {"config.txt": json.dumps(metadata)}


@case("torchscript-ultralytics", writer="torch", source="TorchScript, with Ultralytics' extra file")
def ultralytics_classifier(folder: Path) -> Written:
    import torch

    model = classifier(3, softmax=True)
    traced = torch.jit.trace(model, torch.zeros(1, 3, 32, 32))
    extra = ultralytics_config("classify", {0: "cat", 1: "dog", 2: "neither"}, [32, 32])
    torch.jit.save(traced, str(folder / "best.torchscript"), _extra_files=extra)
    image = photo(folder, size=(96, 64))
    # Shorter side to 32, middle cut out, 0..1: classify_transforms in ultralytics/data/augment.py.
    image = image.resize((48, 32), Image.Resampling.BILINEAR).crop((8, 0, 40, 32))
    scores = answer(model, nchw(image))[0].tolist()
    return Written(
        "best.torchscript",
        [Ask("photo.png", "image/png", predictions=ranked(scores, ["cat", "dog", "neither"]))],
        spec={
            "format": "torchscript", "trust_class": "program", "task": "image-classification",
            "labels": ["cat", "dog", "neither"], "preprocessing.size": [32, 32], "preprocessing.crop": "center",
            "inputs": [{"name": "images", "dtype": "float32", "shape": [1, 3, 32, 32]}],
        },
        evidence={
            "labels": "best.torchscript: extra/config.txt names", "preprocessing.size": "extra/config.txt imgsz",
            "inputs": "carries no input shape", "preprocessing.scaling": "classify_transforms",
        },
    )  # fmt: skip


@case("torchscript-ultralytics-detect", writer="torch", source="TorchScript, with Ultralytics' extra file (detect)")
def ultralytics_detector(folder: Path) -> Written:
    """A detector's names and size are read; tensors are answered with its raw tensor."""
    import torch

    class Head(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(x, 8).flatten(2)

    traced = torch.jit.trace(Head().eval(), torch.zeros(1, 3, 32, 32))
    extra = ultralytics_config("detect", {0: "cat", 1: "dog"}, [32, 32])
    torch.jit.save(traced, str(folder / "best.pt"), _extra_files=extra)
    batch = np.linspace(0, 1, 3 * 32 * 32, dtype=np.float32).reshape(1, 3, 32, 32)
    np.save(folder / "ask.npy", batch)
    return Written(
        "best.pt",
        [Ask("ask.npy", "application/x-npy", outputs={"output": answer(Head(), batch).tolist()})],
        spec={"task": "object-detection", "labels": ["cat", "dog"], "preprocessing.resize": "letterbox"},
        evidence={"task": "extra/config.txt task detect"},
    )


@case("torch-export", writer="torch", source="`torch.export` `.pt2`")
def exported_with_free_rows(folder: Path) -> Written:
    import torch

    model = classifier(4, softmax=True)
    program = torch.export.export(
        model, (torch.zeros(2, 3, 24, 24),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    )
    torch.export.save(program, folder / "birds.pt2")
    image = photo(folder).resize((24, 24), Image.Resampling.BILINEAR)
    scores = answer(model, nchw(image))[0].tolist()
    (folder / "deskside.toml").write_text('[postprocessing]\nactivation = "none"\n')
    return Written(
        "birds.pt2",
        [Ask("photo.png", "image/png", predictions=ranked(scores, [f"LABEL_{i}" for i in range(4)]))],
        spec={
            "format": "torch_export", "runtime": "torch_export", "trust_class": "program",
            "task": "image-classification", "inputs": [{"name": "input", "dtype": "float32", "shape": [-1, 3, 24, 24]}],
            "outputs": [{"name": "output", "dtype": "float32", "shape": [-1, 4]}],
        },
        evidence={"inputs": "birds.pt2: models/model.json", "format": "torch_version"},
    )  # fmt: skip


@case("torch-export-fixed", writer="torch", source="`torch.export` `.pt2`, exported for one row")
def exported_for_a_fixed_batch(folder: Path) -> Written:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Tanh()).eval()
    torch.export.save(torch.export.export(model, (torch.zeros(2, 6),)), folder / "fixed.pt2")
    rows = np.linspace(-2, 2, 12, dtype=np.float32).reshape(2, 6)
    np.save(folder / "ask.npy", rows)
    return Written(
        "fixed.pt2",
        [Ask("ask.npy", "application/x-npy", outputs={"output": answer(model, rows).tolist()})],
        spec={"inputs": [{"name": "input", "dtype": "float32", "shape": [2, 6]}]},
    )


@case("torch-export-structured", writer="torch", source="`torch.export` `.pt2`, several inputs, least number of rows")
def exported_with_structure(folder: Path) -> Written:
    """Keyword arguments, a constant argument, a dict of answers, and a program that takes at least four rows."""
    import torch

    class Net(torch.nn.Module):
        def forward(self, left: Any, times: int = 2, *, right: Any) -> Any:
            return {"sum": left * times + right, "parts": (left.sum(1), None)}

    free = {0: torch.export.Dim("rows", min=4, max=64)}
    program = torch.export.export(
        Net().eval(), (torch.zeros(5, 3), 3), {"right": torch.zeros(5, 3)},
        dynamic_shapes={"left": free, "times": None, "right": free},
    )  # fmt: skip
    torch.export.save(program, folder / "net.pt2")
    left = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    right = np.array([[0.5, 0, 0], [0, 0.25, 0]], np.float32)
    (folder / "ask.json").write_text(json.dumps({"inputs": {"left": left.tolist(), "right": right.tolist()}}))
    return Written(
        "net.pt2",
        [
            Ask(
                "ask.json",
                "application/json",
                outputs={"sum": (left * 3 + right).tolist(), "parts_0": left.sum(1).tolist()},
            )
        ],
    )


@case("aot-inductor", writer="torch-aot", source="AOTInductor `.pt2` package (native code)", slow=True)
def compiled_package(folder: Path) -> Written:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Tanh()).eval()
    free = {0: torch.export.Dim("rows", min=1, max=64)}
    program = torch.export.export(model, (torch.zeros(2, 6),), dynamic_shapes=(free,))
    torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "compiled.pt2"))
    rows = np.linspace(-2, 2, 18, dtype=np.float32).reshape(3, 6)
    np.save(folder / "ask.npy", rows)
    return Written(
        "compiled.pt2",
        [Ask("ask.npy", "application/x-npy", outputs={"output": answer(model, rows).tolist()})],
        spec={"format": "aot_inductor", "runtime": "aot_inductor", "trust_class": "program", "task": "raw-tensors"},
        evidence={"runtime": "native code", "inputs": "assumed"},
    )
