"""Train examples/digits-keras: a small convolutional network in Keras on scikit-learn's handwritten digits.

    .venv/bin/python examples/train_digits_keras.py

About a minute on two cores. Rewrites the model, the samples and the golden sample; the sidecar is kept by hand.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from digits_data import HERE, SEED, SIDE, Floats, epochs, report, split, write_samples
from keras import layers

EPOCHS = 40
COPIES = 2
BATCH = 64


def build() -> keras.Model:
    """float32 (N, 32, 32, 1) with values 0..255 -> (N, 10) probabilities. The rescaling is part of the model."""
    image = keras.Input((SIDE, SIDE, 1), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.Activation("silu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64, activation="silu")(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="probabilities")(x), name="digits")


def main() -> None:
    started = time.monotonic()
    keras.utils.set_random_seed(SEED)
    ink, classes, held_ink, held_classes = split()
    steps = EPOCHS * (len(ink) * COPIES // BATCH + 1)
    model = build()
    # Without the warm-up whole units die in the first epoch and some digits are never learnt.
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, int(steps * 0.7), warmup_target=3e-3, warmup_steps=steps * 3 // 10
    )
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    for number, (pictures, targets) in enumerate(
        epochs(ink, classes, EPOCHS, COPIES, np.random.default_rng(SEED)), start=1
    ):
        history = model.fit(pictures[..., None], targets, batch_size=BATCH, verbose=0)
        print(f"epoch {number}/{EPOCHS}: loss {history.history['loss'][0]:.3f}")

    def predict(pictures: Floats) -> Floats:
        return np.asarray(model.predict(pictures[..., None], verbose=0, batch_size=128))

    report(predict, held_ink, held_classes, started)
    folder = HERE / "digits-keras"
    folder.mkdir(exist_ok=True)
    # The optimiser's state would double the file and is of no use to anyone who only asks.
    keras.Model(model.inputs, model.outputs, name="digits").save(folder / "model.keras")
    write_samples(folder, held_ink, held_classes, predict, nth=10, golden_nth=13)


if __name__ == "__main__":
    main()
