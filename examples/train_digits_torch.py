"""Train examples/digits-torch: the same network in PyTorch, saved as TorchScript.

    .venv/bin/python examples/train_digits_torch.py

About a minute on two cores. Rewrites the model, the samples, the golden sample, and the consent for the bundled
file in ``engine/data/bundled_models.json``; the sidecar is kept by hand.
"""

from __future__ import annotations

import json
import time
import warnings

import numpy as np
import torch
from bundled import consent_to
from digits_data import HERE, SEED, SIDE, Floats, epochs, report, split, write_samples
from torch import nn

EPOCHS = 40
COPIES = 2
BATCH = 64


class Digits(nn.Module):
    """float32 (N, 1, 32, 32) with values 0..255 -> (N, 10) probabilities. The rescaling is part of the model."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 1
        for filters in (16, 32, 64):
            blocks += [
                nn.Conv2d(channels, filters, 3, padding=1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            channels = filters
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * (SIDE // 8) ** 2, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10)
        )

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image / 127.5 - 1.0))  # type: ignore[no-any-return]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.logits(image), dim=1)


def train(model: Digits, ink: Floats, classes: np.ndarray) -> None:
    steps = EPOCHS * (len(ink) * COPIES // BATCH + 1)
    optimiser = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss()
    model.train()
    for number, (pictures, targets) in enumerate(
        epochs(ink, classes, EPOCHS, COPIES, np.random.default_rng(SEED)), start=1
    ):
        total = 0.0
        batches = range(0, len(pictures), BATCH)
        for start in batches:
            batch = torch.from_numpy(pictures[start : start + BATCH])[:, None]
            loss = loss_of(model.logits(batch), torch.from_numpy(targets[start : start + BATCH]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {number}/{EPOCHS}: loss {total / len(batches):.3f}")


def main() -> None:
    started = time.monotonic()
    torch.manual_seed(SEED)
    ink, classes, held_ink, held_classes = split()
    model = Digits()
    train(model, ink, classes)
    model.eval()

    def predict(pictures: Floats) -> Floats:
        with torch.inference_mode():
            return model(torch.from_numpy(pictures)[:, None]).numpy()

    report(predict, held_ink, held_classes, started)
    folder = HERE / "digits-torch"
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        # TorchScript is deprecated since 2.13 and is what this example is of.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(model).save(str(folder / "model.pt"))
    write_samples(folder, held_ink, held_classes, predict, nth=3, golden_nth=7)
    registry = consent_to("digits-torch", folder / "model.pt", "torchscript")
    print(f"consent: {json.dumps(registry)}")


if __name__ == "__main__":
    main()
