"""A tiny random Swin2SR of transformers, and what the library makes of a picture.

As its documentation and the pipeline of its version 4 do it (``pipelines/image_to_image.py``: clamp, move the channels,
times 255, round); version 5 has no such pipeline.

``python -m tests.engine.worker.make_swin2sr FOLDER`` leaves a folder of ``save_pretrained``, ``photo.png`` and
``expected.npy`` (height, width, 3).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution
from transformers.models.swin2sr.image_processing_pil_swin2sr import Swin2SRImageProcessorPil


def main(folder: Path) -> None:
    torch.manual_seed(4)
    # 56 x 75: one side is a multiple of 8 and is filled up all the same, the other is not.
    rows, columns = np.mgrid[:56, :75]
    waves = [128 + 100 * np.sin(rows / 5 + k) * np.cos(columns / (6 + k)) for k in range(3)]
    image = Image.fromarray(np.stack(waves, axis=2).astype(np.uint8))
    image.save(folder / "photo.png")
    config = Swin2SRConfig(
        image_size=32, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, upscale=2,
        upsampler="pixelshuffledirect", initializer_range=0.06,
    )  # fmt: skip
    model = Swin2SRForImageSuperResolution(config).eval()
    processor = Swin2SRImageProcessorPil()
    model.save_pretrained(folder / "swin2sr")
    processor.save_pretrained(folder / "swin2sr")
    with torch.inference_mode():
        answer = model(**processor(image, return_tensors="pt")).reconstruction
    pixels = np.moveaxis(answer.squeeze().float().clamp(0, 1).numpy(), 0, -1)
    np.save(folder / "expected.npy", (pixels * 255.0).round().astype(np.uint8))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
