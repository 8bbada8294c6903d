"""Pictures that no example was trained on, and what is in them: run in a process of its own, beside the examples' code.

``python draw_examples.py EXAMPLES FOLDER`` writes ``<example>-<n>.png`` and ``<example>-<n>.npz``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import numpy as np
from shapes_data import scene
from shapes_figures import figures
from shapes_landscape import landscape
from train_photo_2x import held_out, smaller

COUNT = 12
SEED = 2026


def main(folder: Path) -> None:
    random = np.random.default_rng(SEED)
    for number in range(COUNT):
        width, height = (int(side) for side in random.integers(160, 420, 2))
        made = scene(width, height, random, held_out=True)
        made.image.save(folder / f"shapes-segmenter-{number}.png")
        np.savez(folder / f"shapes-segmenter-{number}.npz", classes=made.class_map())
        image, distance = landscape(width, height, random, held_out=True)
        image.save(folder / f"shapes-depth-{number}.png")
        np.savez(folder / f"shapes-depth-{number}.npz", distance=distance)
        posed = figures(width, height, random, held_out=True)
        posed.image.save(folder / f"shapes-keypoints-{number}.png")
        np.savez(folder / f"shapes-keypoints-{number}.npz", boxes=posed.boxes, points=posed.points, seen=posed.visible)
        made.image.save(folder / f"shapes-detector-{number}.png")
        np.savez(folder / f"shapes-detector-{number}.npz", boxes=made.boxes, classes=made.classes)
    for number, part in enumerate(held_out()):
        smaller(part).save(folder / f"photo-2x-{number}.png")
        plain = smaller(part).resize(part.size, 3)  # Pillow's bicubic
        np.savez(folder / f"photo-2x-{number}.npz", wanted=np.asarray(part), bicubic=np.asarray(plain))


if __name__ == "__main__":
    main(Path(sys.argv[2]))
