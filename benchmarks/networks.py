"""The networks of S, M and L in plain PyTorch, as a person has them and as Deskside's own preparation leaves them.

The peers' programs import this, so nothing but PyTorch and NumPy is needed. ``python -m benchmarks.networks s`` makes a
model: weights, the file that Deskside opens, its sidecar and the references of all inputs.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models import (
    CLASSES,
    MODELS,
    PICTURE_STEPS,
    SIDECAR,
    arrays,
    check_distinct,
    opened,
    shape,
    softmax,
)


def conv(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act] if act else []))


class Inverted(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *([conv(inputs, hidden, 1, act=nn.ReLU6())] if expansion != 1 else []),
            conv(hidden, hidden, 3, stride, hidden, nn.ReLU6()),
            conv(hidden, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


def mobilenet() -> nn.Module:
    """MobileNetV2 of half the width."""
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    layers, channels = [conv(3, 16, 3, 2, act=nn.ReLU6())], 16
    for expansion, width, count, stride in plan:
        for number in range(count):
            layers.append(Inverted(channels, width // 2, stride if number == 0 else 1, expansion))
            channels = width // 2
    head = [conv(channels, 1280, 1, act=nn.ReLU6()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, CLASSES)]
    return nn.Sequential(*layers, *head)


class Bottleneck(nn.Module):
    """ResNet's block, with the stride at the 3x3 convolution."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(inputs, width, 1, act=nn.ReLU()),
            conv(width, width, 3, stride, act=nn.ReLU()),
            conv(width, width * 4, 1),
        )
        self.shortcut = nn.Identity() if inputs == width * 4 and stride == 1 else conv(inputs, width * 4, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layers(x) + self.shortcut(x))


def resnet() -> nn.Module:
    """ResNet-50."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            layers.append(Bottleneck(channels, width, stride if number == 0 else 1))
            channels = width * 4
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"s": mlp, "m": mobilenet, "l": resnet}


def network(name: str) -> nn.Module:
    """A model as a person has it: the class with its weights read, in eager mode."""
    model = NETWORKS[name]()
    model.load_state_dict(torch.load(MODELS / name / "weights.pth", weights_only=True))
    return model.eval()


def prepared(name: str) -> Callable[[Tensor], Tensor]:
    """The model as Deskside's own preparation leaves it: channels last, traced, frozen, the heap kept."""
    keep_heap()
    example = torch.zeros(1, *shape(name))
    model = network(name)
    if len(shape(name)) == 3:
        model, example = model.to(memory_format=torch.channels_last), example.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        frozen: Callable[[Tensor], Tensor] = torch.jit.freeze(torch.jit.trace(model, example))
        for size in (1, 2, 3, 4, 4):  # each size is compiled at its second call
            for _ in range(3):
                frozen(example.expand(size, *example.shape[1:]))
    return frozen


def keep_heap() -> None:
    """glibc: keep freed memory instead of giving every large activation back to the system."""
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 64 << 20)):
            libc.mallopt(option, value)


# -- making ------------------------------------------------------------------------------------------------------------
def healthy(name: str) -> nn.Module:
    """The network with seeded weights whose answers depend on the input."""
    torch.manual_seed(7)
    model = NETWORKS[name]()
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # a plain mean over what it sees
    if name != "s":
        values = torch.from_numpy(np.array(arrays(name)[:32]))
        with torch.no_grad():
            model.train()
            for start in range(0, len(values), 16):
                model(values[start : start + 16])
            model.eval()
            # Logits of about one: large ones would hide in a softmax of zeros and a one.
            last = list(model.children())[-1]
            scale = model(values).std(dim=0).mean()
            assert isinstance(last, nn.Linear)
            last.weight /= scale
            last.bias -= model(values).mean(dim=0)
    return model.eval()


def make_torch(name: str) -> None:
    """Weights, the file Deskside opens, its sidecar, and the references."""
    folder, target = MODELS / name, opened(name)
    for path in (folder, target):
        path.mkdir(parents=True, exist_ok=True)
    model = healthy(name)
    torch.save(model.state_dict(), folder / "weights.pth")
    torch.jit.trace(model, torch.zeros(1, *shape(name))).save(str(target / "model.pt"))  # type: ignore[no-untyped-call]
    text = SIDECAR.format(
        task="raw-tensors" if name == "s" else "image-classification",
        shape=[-1, *shape(name)], classes=3 if name == "s" else CLASSES,
    )  # fmt: skip
    if name != "s":
        labels = [f"LABEL_{number}" for number in range(CLASSES)]
        task, rest = text.split("\n", 1)
        text = f"{task}\nlabels = {json.dumps(labels)}\n{rest}{PICTURE_STEPS}"
    (target / "deskside.toml").write_text(text)
    with torch.inference_mode():
        values = torch.from_numpy(np.array(arrays(name)))
        scores = [row for value in values.split(1) for row in model(value).tolist()]
    check_distinct(scores)
    if name != "s":
        check_distinct([softmax(row) for row in scores])
    (folder / "references.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        make_torch(wanted)
