"""Where a picture lies in the tensor that was made of it, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from engine.errors import UnusableInput
from engine.model_spec import Preprocessing

Floats = NDArray[np.float64]
EDGES = {"edges": 1, "edges-of-16": 16, "edges-up": 1}
"""The words for resizing by both edges, and what each side is rounded down to a multiple of (16: the YOLOS classes)."""
LEAST_CHANGES = ("least-change", "mirrored")
OWN_SIZES = (*EDGES, *LEAST_CHANGES, "multiples", "shortest", "none")
"""The words with which a tensor's sides follow from the picture's."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Sizes are (width, height) in pixels. The whole picture of ``picture`` pixels covers ``scaled`` pixels of the
    tensor's ``tensor``, from (``left``, ``top``) on; negative where it sticks out and is cut. ``margin`` pixels of the
    picture were added on each side before it was scaled, and lie in ``scaled`` too."""

    picture: tuple[int, int]
    scaled: tuple[int, int]
    left: int
    top: int
    tensor: tuple[int, int]
    margin: tuple[int, int] = (0, 0)

    def points_to_picture(self, points: Floats) -> Floats:
        """(N, 2) points, x and y in pixels of the tensor, in pixels of the picture and brought inside it."""
        doubled = self.to_picture(np.concatenate([points, points], axis=1))
        return doubled[:, :2]

    def to_picture(self, boxes: Floats) -> Floats:
        """(N, 4) boxes, xmin, ymin, xmax, ymax in pixels of the tensor, in pixels of the picture and cut at its edges.

        Each axis goes back by its own factor: the scaled sides are whole numbers, so the two differ a little.
        """
        width, height = self.picture
        across, down = self.margin
        scale = np.array([(width + 2 * across) / self.scaled[0], (height + 2 * down) / self.scaled[1]] * 2)
        moved = (boxes - np.array([self.left, self.top] * 2)) * scale - np.array([across, down] * 2)
        limits: Floats = np.array([width, height] * 2, dtype=np.float64)
        return np.asarray(np.clip(moved, 0.0, limits))


def place(picture: tuple[int, int], size: tuple[int, int] | None, how: Preprocessing) -> Placement:
    """How ``how`` brings a picture of (width, height) into ``size`` (height, width), None for the picture's own.

    Neither for ``fit`` nor for ``crop = "square"``, which cut by fractions of pixels.
    """
    scaled = scaled_size(picture, size, how)
    if how.resize == "mirrored":
        return Placement(picture, scaled, 0, 0, scaled, (mirror_margin(picture[0]), mirror_margin(picture[1])))
    if size is None:
        return Placement(picture, scaled, 0, 0, scaled)
    height, width = size
    if how.resize == "letterbox":
        # Ultralytics' LetterBox: of an odd remainder the larger half goes right and below.
        left, top = round((width - scaled[0]) / 2 - 0.1), round((height - scaled[1]) / 2 - 0.1)
    elif how.crop == "center" or how.resize == "longest":
        # Rounded down, as transformers does; torchvision rounds to even.
        left, top = -((scaled[0] - width) // 2), -((scaled[1] - height) // 2)
    else:
        return Placement(picture, scaled, 0, 0, scaled)
    return Placement(picture, scaled, left, top, (width, height))


def scaled_size(picture: tuple[int, int], size: tuple[int, int] | None, how: Preprocessing) -> tuple[int, int]:
    """(width, height) a picture of (width, height) is resized to, before anything is cut off or added.

    Raises UnusableInput where a side would become 0.
    """
    if how.resize == "multiples":
        # GLPN's: the picture's own size, rounded down.
        return _some(picture, how, [side // how.multiple * how.multiple for side in picture])
    if how.resize in LEAST_CHANGES and how.resize_size is not None:
        return _some(picture, how, _least_change(picture, *how.resize_size, how))
    if how.resize in EDGES and how.resize_size is not None:
        width, height = _edges(picture, *how.resize_size)
        if how.resize == "edges-up":
            return ceil(width / how.multiple) * how.multiple, ceil(height / how.multiple) * how.multiple
        multiple = EDGES[how.resize]
        return max(multiple, width - width % multiple), max(multiple, height - height % multiple)
    if size is None or how.resize == "none":
        return picture
    height, width = how.resize_size or size
    if how.resize == "letterbox":
        ratio = min(height / picture[1], width / picture[0])
        return max(1, round(picture[0] * ratio)), max(1, round(picture[1] * ratio))
    if how.resize == "stretch":
        return width, height
    # The side that decides gets its size exactly, the other is rounded down: transformers' and torchvision's rule.
    by_width = picture[0] * height <= picture[1] * width
    if how.resize == "longest":
        by_width = not by_width
    if by_width:
        height = max(1, int(width * picture[1] / picture[0]))
    else:
        width = max(1, int(height * picture[0] / picture[1]))
    return width, height


def _edges(picture: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """``get_size_with_aspect_ratio`` of transformers 5.23 (image_transforms.py), which DETR and its like resize by."""
    width, height = picture
    low, high = min(picture), max(picture)
    edge, exact = shortest, float(shortest)
    if high / low * shortest > longest:
        exact = longest * low / high
        edge = round(exact)
    if low == edge:
        return picture
    if width < height:
        return edge, max(1, int(exact * height / width))
    return max(1, int(exact * width / height)), edge


def _least_change(picture: tuple[int, int], height: int, width: int, how: Preprocessing) -> list[int]:
    """``get_resize_output_image_size`` of transformers 5.23 (``models/{dpt,zoedepth}/image_processing_pil_*.py``) with
    ``keep_aspect_ratio``: by the axis that changes less, each side then rounded to the nearest multiple."""
    given = [side + 2 * mirror_margin(side) for side in picture] if how.resize == "mirrored" else list(picture)
    across, down = width / given[0], height / given[1]
    scale = across if abs(1 - across) < abs(1 - down) else down
    return [round(scale * side / how.multiple) * how.multiple for side in given]


def _some(picture: tuple[int, int], how: Preprocessing, scaled: Sequence[int]) -> tuple[int, int]:
    if min(scaled) < 1:
        raise UnusableInput(
            f"The picture ({picture[0]} x {picture[1]} pixels) is too small or too narrow for this model, which takes "
            f"sides in multiples of {how.multiple} pixels.",
            code="image_too_small",
        )
    return scaled[0], scaled[1]


def mirror_margin(side: int) -> int:
    """How many pixels ZoeDepth's ``pad_image`` mirrors at each end of a side."""
    return int(sqrt(side / 2) * 3)
