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


@case("keras-h5-teachable-machine", writer="tensorflow", source="Keras/TF `.h5` (Teachable Machine)")
def teachable_machine(folder: Path) -> Written:
    """The layout of Teachable Machine's "Keras" download: ``keras_model.h5`` of Keras 2, a Sequential of a MobileNet
    with its pooling and of two Dense layers, the second without bias; ``labels.txt`` with ``0 name`` a line. The answer
    is computed as the code it publishes beside them does."""
    import h5py
    import tf_keras
    from PIL import ImageOps
    from tf_keras import layers

    tf_keras.utils.set_random_seed(5)
    mobile_net = tf_keras.applications.MobileNetV2((224, 224, 3), alpha=0.35, include_top=False, weights=None)
    features = tf_keras.Sequential([mobile_net, layers.GlobalAveragePooling2D()], name="sequential_1")
    head = [
        layers.Dense(100, activation="relu", input_shape=(1280,), kernel_initializer="he_normal"),
        layers.Dense(3, activation="softmax", use_bias=False, kernel_initializer=tf_keras.initializers.Constant(0.0)),
    ]
    model = tf_keras.Sequential([features, tf_keras.Sequential(head, name="sequential_3")], name="sequential_4")
    rng = np.random.default_rng(5)
    # Untrained, a MobileNet answers every picture alike; wide weights make the three scores differ.
    for layer in head:
        layer.set_weights([rng.normal(0, 20, w.shape) for w in layer.get_weights()])
    model.save(folder / "keras_model.h5")
    with h5py.File(folder / "keras_model.h5", "r+") as file:
        file.attrs["keras_version"] = "2.4.0"
    (folder / "labels.txt").write_text("0 Cat\n1 Dog\n2 Guinea pig\n")

    image = ImageOps.fit(photo(folder, size=(301, 260)).convert("RGB"), (224, 224), Image.Resampling.LANCZOS)
    data = (np.asarray(image).astype(np.float32) / 127.5) - 1
    scores = tf_keras.models.load_model(folder / "keras_model.h5", compile=False).predict(data[np.newaxis], verbose=0)
    source = "labels.txt beside keras_model.h5: Teachable Machine export"
    return Written(
        "keras_model.h5",
        [Ask("photo.png", "image/png", predictions=ranked(scores[0], ["Cat", "Dog", "Guinea pig"]))],
        spec={
            "format": "keras_h5",
            "runtime": "keras_legacy",
            "task": "image-classification",
            "trust_class": "program",
            "labels": ["Cat", "Dog", "Guinea pig"],
            "preprocessing.size": [224, 224],
            "preprocessing.scaling": "-1..1",
            "preprocessing.resize": "fit",
            "preprocessing.resample": "lanczos",
        },
        evidence={
            "runtime": "keras_version 2.4.0, opened with tf_keras",
            "labels": "labels.txt: line order",
            "preprocessing.scaling": source,
            "preprocessing.resize": source,
            "inputs": "keras_model.h5: model_config",
        },
    )


@case("keras-v2", writer="tensorflow", source="Keras `.keras` (Keras 2)")
def keras_v2(folder: Path) -> Written:
    """A ``.keras`` file as Keras 2.12 wrote it: the same zip, with the module of a Functional model where it lay in the
    keras package of that time."""
    import zipfile

    import tf_keras
    from tf_keras import layers

    tf_keras.utils.set_random_seed(7)
    photo_in = tf_keras.Input((24, 24, 3), name="photo")
    x = tf_keras.applications.mobilenet_v2.preprocess_input(photo_in)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    x = layers.GlobalMaxPooling2D()(x)
    wide = tf_keras.initializers.RandomNormal(stddev=2.0)
    model = tf_keras.Model(photo_in, layers.Dense(3, activation="softmax", kernel_initializer=wide)(x))
    model.save(folder / "written.keras")
    with zipfile.ZipFile(folder / "written.keras") as old, zipfile.ZipFile(folder / "flowers.keras", "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == "config.json":
                data = data.replace(b"tf_keras.src.", b"keras.")
            elif info.filename == "metadata.json":
                data = b'{"keras_version": "2.12.0", "date_saved": "2023-04-01@10:00:00"}'
            new.writestr(info.filename, data)
    (folder / "written.keras").unlink()
    image = np.asarray(photo(folder).resize((24, 24), Image.Resampling.BILINEAR), np.float32)
    scores = model(image[np.newaxis], training=False).numpy()[0]
    return Written(
        "flowers.keras",
        [Ask("photo.png", "image/png", predictions=ranked(scores, [f"LABEL_{i}" for i in range(3)]))],
        spec={"format": "keras", "runtime": "keras_legacy", "trust_class": "data", "preprocessing.scaling": "0..255"},
        evidence={"runtime": "keras_version 2.12.0", "preprocessing.scaling": "TFOpLambda"},
    )


@case("keras-h5-v3", writer="tensorflow", source="Keras/TF `.h5`", slow=True)
def keras_h5_of_keras_3(folder: Path) -> Written:
    """A table model in HDF5 with a Lambda layer: code inside, which runs once the owner has consented."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input((3,), name="features"),
            layers.Lambda(lambda x: x * 2.0, name="twice"),
            layers.Dense(2, activation="softmax", name="classes"),
        ]
    )
    model.save(folder / "table.h5")
    rows = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], np.float32)
    (folder / "rows.json").write_text(f'{{"inputs": {{"features": {rows.tolist()}}}}}')
    outputs = {"classes": model(rows, training=False).numpy().tolist()}
    return Written(
        "table.h5",
        [Ask("rows.json", "application/json", outputs=outputs)],
        spec={"format": "keras_h5", "runtime": "keras", "trust_class": "program", "task": "raw-tensors"},
        evidence={"runtime": "keras_version 3"},
    )
