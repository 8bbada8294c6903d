"""Models of the Keras family, written by Keras 3, by Keras 2 and in the layouts that Teachable Machine exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.e2e.format_case import Ask, Written, case


def photo(folder: Path, name: str = "photo.png", size: tuple[int, int] = (90, 60)) -> Image.Image:
    """A lossless picture with structure in every channel, left in ``folder``."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([x * 255 / size[0], y * 255 / size[1], 127 + 120 * np.sin(x / 9.0) * np.cos(y / 7.0)], axis=2)
    image = Image.fromarray(pixels.astype(np.uint8))
    image.save(folder / name)
    return image


def ranked(scores: Any, labels: list[str]) -> list[dict[str, Any]]:
    """Scores of one picture as the native answer has them: the best five, best first."""
    order = np.argsort(-np.asarray(scores), kind="stable")[:5]
    return [{"label": labels[i], "score": float(scores[i])} for i in order]


@case("keras-v3", writer="tensorflow", source="Keras `.keras`")
def keras_v3(folder: Path) -> Written:
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3), name="photo"),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(stddev=3.0)),
        ]
    )
    model.save(folder / "birds.keras")
    image = photo(folder).resize((32, 32), Image.Resampling.BILINEAR)
    logits = model(np.asarray(image, np.float32)[np.newaxis], training=False).numpy()[0]
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    return Written(
        "birds.keras",
        [Ask("photo.png", "image/png", predictions=ranked(scores, [f"LABEL_{i}" for i in range(4)]))],
        spec={"format": "keras", "task": "image-classification", "preprocessing.scaling": "0..255"},
        evidence={"preprocessing.scaling": "Rescaling", "postprocessing.activation": "config.json"},
    )
