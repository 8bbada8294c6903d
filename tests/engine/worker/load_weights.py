"""Loads many models of loose weights in one process of its own and prints, as JSON, what came of each.

``python -m tests.engine.worker.load_weights FOLDER``: the test process itself never imports a framework, and a worker
for every refusal would import it as often.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import EngineError
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.runtimes import runtime_for
from tests.engine.worker.process import make_spec

CODE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=4):
        if width < 1:
            raise ValueError("no width")
        super().__init__()
        self.first = torch.nn.Linear(3, width)
        self.last = torch.nn.Linear(width, 2)

    def forward(self, x, shift=None):
        hidden = self.first(x)
        return self.last(hidden if shift is None else hidden + shift)

def make():
    return Net()
"""
X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


def spec_of(file: Path, **changes: Any) -> ModelSpec:
    code = file.with_name("net.py")
    values: dict[str, Any] = {"runtime": "state_dict", "architecture": "net.py:Net", "files": (file, code)}
    return make_spec(path=file, model_file=file, format="state_dict", **(values | changes))


def outcome(spec: ModelSpec, ask: Callable[[Any], Any] | None = None) -> Any:
    """The sentence of a load that failed, else what ``ask`` makes of the runtime."""
    try:
        runtime = runtime_for(spec)
        runtime.load(spec, "cpu", 1, lambda stage: None)
    except EngineError as error:
        return f"{error.code}: {error.message}"
    return ask(runtime) if ask else "loaded"


def answer(inputs: dict[str, np.ndarray]) -> Callable[[Any], Any]:
    def ask(runtime: Any) -> Any:
        return {name: [array.dtype.name, array.tolist()] for name, array in runtime.run(inputs, "").items()}

    return ask


def own_classes(folder: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import save_file

    code = folder / "net.py"
    code.write_text(CODE)
    names: dict[str, Any] = {}
    exec(CODE, names)
    torch.manual_seed(1)
    net = names["Net"]().eval()
    state = net.state_dict()
    with torch.inference_mode():
        expected = net(torch.from_numpy(X)).tolist()
    weights = folder / "net.pth"
    torch.save(state, weights)
    save_file(state, folder / "net.safetensors")
    torch.save({"model": {f"_orig_mod.{n}": t for n, t in state.items()}, "epoch": 2}, folder / "compiled.pth")
    torch.save({n: t for n, t in state.items() if n != "last.bias"} | {"extra": torch.zeros(1)}, folder / "other.pth")
    torch.save({"losses": [1.0, 2.0]}, folder / "history.pth")
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 2)), folder / "whole.pth")
    (folder / "half.pth").write_bytes(weights.read_bytes()[:900])
    (folder / "half.safetensors").write_bytes((folder / "net.safetensors").read_bytes()[:-9])
    broken = {"net.py": CODE, "missing.py": "import no_such_package", "raises.py": "1 / 0"}
    for name, text in broken.items():
        (folder / name).write_text(text)

    def with_code(name: str, architecture: str) -> ModelSpec:
        return spec_of(weights, architecture=architecture, files=(weights, folder / name))

    two = (TensorSpec("a", "float32", (-1, 3)), TensorSpec("b", "float32", (-1, 4)))
    shifted = {"a": X, "b": np.ones((2, 4), np.float32)}
    return {
        "expected": expected,
        "pth": outcome(spec_of(weights), answer({"x": X})),
        "safetensors": outcome(spec_of(folder / "net.safetensors"), answer({"input": X})),
        "compiled": outcome(spec_of(folder / "compiled.pth"), answer({"x": X})),
        "by order": outcome(spec_of(weights, inputs=two), answer(shifted)),
        "bfloat16": outcome(spec_of(weights, precision="bfloat16"), answer({"x": X})),
        "other keys": outcome(spec_of(folder / "other.pth")),
        "other shapes": outcome(spec_of(weights, architecture_kwargs={"width": 5})),
        "wrong arguments": outcome(spec_of(weights, architecture_kwargs={"depth": 5})),
        "failing arguments": outcome(spec_of(weights, architecture_kwargs={"width": 0})),
        "too many inputs": outcome(spec_of(weights, inputs=(*two, TensorSpec("c", "float32", (1,))))),
        "no weights": outcome(spec_of(folder / "history.pth")),
        "whole module": outcome(spec_of(folder / "whole.pth")),
        "cut off": outcome(spec_of(folder / "half.pth")),
        "cut off safetensors": outcome(spec_of(folder / "half.safetensors")),
        "missing package": outcome(with_code("missing.py", "missing.py:Net")),
        "failing code": outcome(with_code("raises.py", "raises.py:Net")),
        "a function": outcome(with_code("net.py", "net.py:make")),
        "a missing class": outcome(with_code("net.py", "net.py:Nett")),
        "keras": outcome(spec_of(weights, runtime="keras", precision="bfloat16")),
    }


def library_classes(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(2)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    model = ViTForImageClassification(config).eval()
    pixels = np.linspace(-1, 1, 768, dtype=np.float32).reshape(1, 3, 16, 16)
    model.save_pretrained(folder)
    (folder / "wider").mkdir()
    ViTConfig(**(config.to_dict() | {"hidden_size": 32})).save_pretrained(folder / "wider")
    (folder / "model.safetensors").rename(folder / "wider" / "model.safetensors")
    model.save_pretrained(folder)
    with torch.inference_mode():
        expected = model(pixel_values=torch.from_numpy(pixels)).logits.tolist()
    headless = folder / "headless.pth"
    torch.save({n: t for n, t in model.state_dict().items() if not n.startswith("classifier")}, headless)

    def spec(file: Path = folder, **changes: Any) -> ModelSpec:
        weights = file / "model.safetensors" if file.is_dir() else file
        values = {"runtime": "transformers", "architecture": "ViTForImageClassification", "files": (weights,)}
        return spec_of(file, **(values | changes))

    wrong = (TensorSpec("photo", "float32", (-1, 3, 16, 16)),)
    return {
        "expected": expected,
        "float32": outcome(spec(), answer({"pixel_values": pixels})),
        "bfloat16": outcome(spec(precision="bfloat16"), answer({"pixel_values": pixels})),
        "headless": outcome(spec(headless)),
        "wider": outcome(spec(folder / "wider")),
        "unknown class": outcome(spec(architecture="ViTForMindReading")),
        "no model": outcome(spec(architecture="Trainer")),
        "wrong input": outcome(spec(inputs=wrong)),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for name in ("own", "library"):
        (target / name).mkdir()
    print(json.dumps({"own": own_classes(target / "own"), "library": library_classes(target / "library")}))  # noqa: T201
