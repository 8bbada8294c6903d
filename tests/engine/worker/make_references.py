"""What the libraries that trained on pictures make of them, written by these libraries in a process of its own.

``python -m tests.engine.worker.make_references transformers|keras FOLDER`` leaves ``<case>.npz`` (an array for each
picture, named like it) and, for transformers, a folder ``<case>`` with the processor's own file. Pictures are made by
:func:`pictures` in both processes, from arithmetic alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

SIZES = {
    "portrait": (97, 161),
    "landscape": (301, 130),
    "odd": (225, 223),
    "tiny": (5, 3),
    "square": (64, 64),
    "wide": (400, 31),
}
"""Width and height."""


def pictures() -> dict[str, Image.Image]:
    """Pictures with slopes, fine stripes, hard edges and noise, so that any other filter or offset shows."""
    made = {}
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        y, x = np.mgrid[0:height, 0:width].astype(np.float64)
        noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
        slopes = np.stack([x / width * 255, y / height * 255, 127 + 127 * np.sin(x * 0.9) * np.cos(y * 0.4)], axis=2)
        edges = ((x // 7 + y // 5) % 2 * 90)[:, :, np.newaxis]
        made[name] = Image.fromarray(np.clip(slopes * 0.6 + edges + noise - 30, 0, 255).astype(np.uint8))
    return made


def make_transformers(folder: Path) -> None:
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
    from transformers.models.glpn.image_processing_pil_glpn import GLPNImageProcessorPil
    from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
    from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
    from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
    from transformers.models.pvt.image_processing_pil_pvt import PvtImageProcessorPil
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

    processors = {
        "vit": ViTImageProcessorPil(),
        "vit-lanczos": ViTImageProcessorPil(size={"height": 60, "width": 47}, resample=1),
        "vit-nearest": ViTImageProcessorPil(size={"height": 33, "width": 33}, resample=0, do_normalize=False),
        "vit-cropped-only": ViTImageProcessorPil(
            do_resize=False, do_center_crop=True, crop_size={"height": 70, "width": 51}, do_normalize=False
        ),
        "vit-factor": ViTImageProcessorPil(size={"height": 40, "width": 40}, rescale_factor=1 / 127.5),
        "vit-raw": ViTImageProcessorPil(size={"height": 40, "width": 40}, do_rescale=False),
        "deit": DeiTImageProcessorPil(),
        "deit-odd": DeiTImageProcessorPil(size={"height": 90, "width": 91}, crop_size={"height": 77, "width": 60}),
        "clip": CLIPImageProcessorPil(),
        "clip-odd": CLIPImageProcessorPil(size={"shortest_edge": 75}, crop_size={"height": 66, "width": 72}),
        "bit-shortest": BitImageProcessorPil(size={"shortest_edge": 64}, do_center_crop=False),
        "convnext-small": ConvNextImageProcessorPil(size={"shortest_edge": 224}),
        "convnext-pct": ConvNextImageProcessorPil(size={"shortest_edge": 96}, crop_pct=0.95),
        "convnext-large": ConvNextImageProcessorPil(),
        "levit": LevitImageProcessorPil(),
        "mobilenet": MobileNetV2ImageProcessorPil(),
        "mobilevit": MobileViTImageProcessorPil(),
        "beit": BeitImageProcessorPil(),
        "pvt": PvtImageProcessorPil(),
        "detr": DetrImageProcessorPil(size={"shortest_edge": 70, "longest_edge": 120}, do_pad=False),
        "yolos": YolosImageProcessorPil(size={"shortest_edge": 70, "longest_edge": 1333}, do_pad=False),
        "rt-detr": RTDetrImageProcessorPil(size={"height": 50, "width": 70}),
        "siglip": SiglipImageProcessorPil(size={"height": 50, "width": 50}),
        "segformer": SegformerImageProcessorPil(size={"height": 64, "width": 96}, do_reduce_labels=True),
        "maskformer": MaskFormerImageProcessorPil(size={"shortest_edge": 70, "longest_edge": 100}),
        "mask2former": Mask2FormerImageProcessorPil(size={"height": 50, "width": 70}, size_divisor=16),
        "mask2former-plain": Mask2FormerImageProcessorPil(
            size={"shortest_edge": 70, "longest_edge": 100}, size_divisor=0
        ),
        "dpt": DPTImageProcessorPil(size={"height": 70, "width": 70}, ensure_multiple_of=32),
        "dpt-kept": DPTImageProcessorPil(
            size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14
        ),
        "glpn": GLPNImageProcessorPil(size_divisor=3),
    }
    for name, processor in processors.items():
        processor.save_pretrained(folder / name)
        answers = {}
        for picture, image in pictures().items():
            answers[picture] = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0])
        np.savez(folder / f"{name}.npz", **answers)
    # Files as they lie on many a disk: written by older versions, without the keys that later ones added.
    for name, processor, kept in (
        ("old-vit", "ViTFeatureExtractor", {"size": 224}),
        ("old-clip", "CLIPFeatureExtractor", {"size": 224, "crop_size": 224, "resample": 3}),
        ("old-convnext", "ConvNextFeatureExtractor", {"size": 224, "crop_pct": 0.875}),
        ("old-deit", "DeiTFeatureExtractor", {"size": 256, "crop_size": 224}),
        ("old-segformer", "SegformerFeatureExtractor", {"size": 128, "reduce_labels": True}),
    ):
        (folder / name).mkdir()
        file = folder / name / "preprocessor_config.json"
        file.write_text(json.dumps({"feature_extractor_type": processor, **kept}))
        classes = {"ViT": ViTImageProcessorPil, "CLIP": CLIPImageProcessorPil, "ConvNext": ConvNextImageProcessorPil,
                   "Segformer": SegformerImageProcessorPil}  # fmt: skip
        found = classes.get(processor.removesuffix("FeatureExtractor"), DeiTImageProcessorPil)
        loaded: Any = found.from_pretrained(folder / name)
        pixels = {
            n: np.asarray(loaded(images=i, return_tensors="np")["pixel_values"][0]) for n, i in pictures().items()
        }
        np.savez(folder / f"{name}.npz", **pixels)


def make_keras(folder: Path) -> None:
    """Keras' three modes, and the snippets that Teachable Machine and Lobe publish with their exports."""
    from keras.src.applications.imagenet_utils import preprocess_input

    for mode in ("tf", "torch", "caffe"):
        answers = {}
        for name, image in pictures().items():
            pixels = np.asarray(image.resize((32, 24), Image.Resampling.BILINEAR), np.float32)[np.newaxis]
            answers[name] = np.asarray(preprocess_input(pixels, data_format="channels_last", mode=mode))[0]
        np.savez(folder / f"{mode}.npz", **answers)
    np.savez(folder / "teachable-machine.npz", **{n: teachable_machine(i) for n, i in pictures().items()})
    np.savez(folder / "lobe.npz", **{n: lobe(i, (1, 224, 224, 3)) for n, i in pictures().items()})


def teachable_machine(image: Image.Image) -> np.ndarray:
    """The Keras snippet of teachablemachine.withgoogle.com's export dialog."""
    size = (224, 224)
    image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    image_array = np.asarray(image)
    return (image_array.astype(np.float32) / 127.5) - 1


def lobe(image: Image.Image, input_shape: tuple[int, ...]) -> np.ndarray:
    """``process_image`` of the ``tf_example.py`` in Lobe's TensorFlow export."""
    width, height = image.size
    if width != height:
        square_size = min(width, height)
        left = (width - square_size) / 2
        top = (height - square_size) / 2
        right = (width + square_size) / 2
        bottom = (height + square_size) / 2
        image = image.crop((left, top, right, bottom))
    input_width, input_height = input_shape[1:3]
    if image.width != input_width or image.height != input_height:
        image = image.resize((input_width, input_height))
    image_array = np.asarray(image) / 255.0
    return image_array.reshape(input_shape).astype(np.float32)[0]


if __name__ == "__main__":
    {"transformers": make_transformers, "keras": make_keras}[sys.argv[1]](Path(sys.argv[2]))
