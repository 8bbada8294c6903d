"""Train examples/wine: which of three cultivars a wine was made from, out of 13 figures of its chemical analysis.

    .venv/bin/python examples/train_wine.py

A minute at most. The data is scikit-learn's ``load_wine`` (178 wines; UCI "Wine", CC BY 4.0); every fifth wine is held
out, class by class. Rewrites the model, the sample tables and the golden sample; the sidecar is kept by hand.
"""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from sklearn.datasets import load_wine

SEED = 20
LABELS = ("cultivar 1", "cultivar 2", "cultivar 3")
FOLDER = Path(__file__).resolve().parent / "wine"
Floats = NDArray[np.float32]


def build(train: Floats) -> keras.Model:
    """float32 (N, 13) in the units of the table -> (N, 3) probabilities. Standardising is part of the model."""
    features = keras.Input((train.shape[1],), name="features")
    normalisation = layers.Normalization(name="standardise")
    normalisation.adapt(train)
    x = layers.Dense(24, activation="relu", kernel_regularizer="l2")(normalisation(features))
    return keras.Model(features, layers.Dense(3, activation="softmax", name="probabilities")(x), name="wine")


def write_table(path: Path, columns: list[str], rows: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([f"{value:g}" for value in row] for row in rows)


def write_samples(model: keras.Model, columns: list[str], held: Floats, classes: NDArray[Any]) -> None:
    """Two tables of held-out wines, and the golden table of six with the answers this model gives."""
    order = np.random.default_rng(SEED).permutation(len(held))
    write_table(FOLDER / "samples" / "cellar.csv", columns, held[order[:18]])
    write_table(FOLDER / "samples" / "one-bottle.csv", columns, held[order[18:19]])
    golden = np.concatenate([np.flatnonzero(classes == index)[:2] for index in range(3)])
    write_table(FOLDER / "golden" / "input.csv", columns, held[golden])
    results: list[dict[str, Any]] = []
    for index, scores in enumerate(model.predict_on_batch(held[golden])):
        best = [{"label": LABELS[i], "score": round(float(scores[i]), 6)} for i in np.argsort(-scores)]
        results.append({"input": index, "predictions": best})
    expected = {"input": "input.csv", "params": {"top_k": 3}, "results": results, "tolerance": 0.001}
    (FOLDER / "golden" / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    started = time.monotonic()
    keras.utils.set_random_seed(SEED)
    bunch = load_wine()
    # The dataset's own name for this column has a slash; a column of a table people write has none.
    columns = [name.replace("od280/od315_of_diluted_wines", "od280_od315") for name in bunch.feature_names]
    table, classes = bunch.data.astype(np.float32), bunch.target
    held = np.zeros(len(classes), dtype=bool)
    for index in range(3):
        held[np.flatnonzero(classes == index)[::5]] = True
    model = build(table[~held])
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(table[~held], classes[~held], batch_size=32, epochs=120, verbose=0)
    scores = np.asarray(model.predict(table[held], verbose=0))
    right = scores.argmax(axis=1) == classes[held]
    print(f"held-out wines: {held.sum()}, trained in {time.monotonic() - started:.0f} s")
    print(f"  accuracy {right.mean():.1%}, mean score of the answer {scores.max(axis=1).mean():.2f}")
    FOLDER.mkdir(exist_ok=True)
    plain = keras.Model(model.inputs, model.outputs, name="wine")
    plain.save(FOLDER / "model.keras")
    write_samples(plain, columns, table[held], classes[held])


if __name__ == "__main__":
    main()
