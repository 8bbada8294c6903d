"""Write ``tests/fuzz/seeds``: small files as the libraries write them, for the fuzzers to change.

Run by hand (``python -m tests.fuzz.write_seeds``) where a format's layout has changed; what it writes is committed, so
that a finding stays one.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

SEEDS = Path(__file__).with_name("seeds")
MAX_BYTES = 50_000


def tensorflow_files(folder: Path) -> None:
    import keras
    import tensorflow as tf
    from keras import layers

    model = keras.Sequential(
        [keras.Input((8, 8, 3), name="photo"), layers.Rescaling(1 / 255), layers.Conv2D(2, 3), layers.Flatten(),
         layers.Dense(3, activation="softmax", name="classes")]
    )  # fmt: skip
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.export(folder / "exported", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "exported"))
    (folder / "model.tflite").write_bytes(converter.convert())
    shutil.copy(folder / "exported" / "saved_model.pb", folder / "saved_model.pb")
    shutil.rmtree(folder / "exported")


def torch_files(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3)).eval()
    example = torch.zeros(2, 3, 8, 8)
    config = {"config.txt": '{"task": "classify"}'}
    torch.jit.save(torch.jit.trace(net, example), str(folder / "script.pt"), _extra_files=config)
    torch.save(net.state_dict(), folder / "weights.pth")
    save_file(net.state_dict(), folder / "weights.safetensors")
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(net, (example,), dynamic_shapes=({0: batch},)), folder / "program.pt2")


def onnx_file(folder: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "weight")
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    model = helper.make_model(helper.make_graph(nodes, "g", [given], [answer], [weight]))
    helper.set_model_props(model, {"names": "{0: 'a', 1: 'b', 2: 'c'}", "task": "classify", "imgsz": "[8, 8]"})
    onnx.save(model, folder / "model.onnx")


def picture(folder: Path) -> None:
    from PIL import Image, PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "seed", zip=True)
    image = Image.linear_gradient("L").resize((24, 16)).convert("P")
    image.save(folder / "picture.png", pnginfo=text, transparency=3)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch)
        tensorflow_files(target)
        torch_files(target)
        onnx_file(target)
        picture(target)
        SEEDS.mkdir(exist_ok=True)
        for file in sorted(target.iterdir()):
            size = file.stat().st_size
            assert size <= MAX_BYTES, f"{file.name}: {size} bytes"
            shutil.copy(file, SEEDS / file.name)
            print(file.name, size)  # noqa: T201  # run by hand
