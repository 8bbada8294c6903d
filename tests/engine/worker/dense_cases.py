"""What :mod:`make_dense` makes, for those that read it: no framework is imported here."""

from __future__ import annotations

from typing import Any

SIZE = (150, 230)
"""Height and width of the photo."""
NAMES = ("sky", "grass", "road", "car", "dog")
MODELS_BY_TASK = {
    "image-segmentation": ("segformer", "dpt-segmentation", "maskformer", "mask2former", "detr"),
    "depth-estimation": ("dpt", "depth-anything", "glpn", "zoedepth"),
}
"""Folders by task."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "segformer": ("segformer", {}),
    "dpt-segmentation": ("dpt-segmentation", {}),
    "maskformer-panoptic": ("maskformer", {"threshold": 0.3}),
    "maskformer-semantic": ("maskformer", {"subtask": "semantic"}),
    "mask2former-panoptic": ("mask2former", {"threshold": 0.3}),
    "mask2former-semantic": ("mask2former", {"subtask": "semantic"}),
    "mask2former-instance": ("mask2former", {"subtask": "instance", "threshold": 0.1}),
    "maskformer-instance": ("maskformer", {"subtask": "instance", "threshold": 0.1}),
    "detr-panoptic": ("detr", {"threshold": 0.3}),
    "detr-default": ("detr", {}),
    "dpt": ("dpt", {}),
    "depth-anything": ("depth-anything", {}),
    "glpn": ("glpn", {}),
    "zoedepth": ("zoedepth", {}),
}
"""Case -> (folder, parameters)."""
