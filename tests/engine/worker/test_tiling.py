"""Tiles: that they cover a picture, and that nobody sees where they meet."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from engine.worker.tasks.tiling import OVERLAP, TILE, Grid, assemble, lay_out

ONE = Fraction(1)


def noise(height: int, width: int, channels: int = 3, dtype: Any = np.uint8) -> np.ndarray:
    top = int(np.iinfo(dtype).max)
    return np.random.default_rng(1).integers(0, top + 1, (height, width, channels)).astype(dtype)


def blurred(pixels: np.ndarray, reach: int = 8) -> np.ndarray:
    """A box filter over ``reach`` pixels around each, zeros beyond the edge, as a network's padding has them."""
    padded = np.pad(pixels.astype(np.float64), ((reach, reach), (reach, reach), (0, 0)))
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    side = 2 * reach + 1
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.rint(total / side**2).astype(pixels.dtype)


def tiles_of(pixels: np.ndarray, grid: Grid) -> list[np.ndarray]:
    return [grid.cut(pixels, number) for number in range(len(grid))]


@pytest.mark.parametrize("fixed", [None, (128, 96), (7, 300)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (128, 96), (500, 700), (130, 1200), (1000, 999)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_model_that_changes_nothing_gives_the_picture_back(
    height: int, width: int, fixed: tuple[int, int] | None, dtype: Any
) -> None:
    pixels = noise(height, width, dtype=dtype)
    grid = lay_out(height, width, fixed, 16)
    tiles = tiles_of(pixels, grid)
    assert {tile.shape for tile in tiles} == {(grid.down.side, grid.across.side, 3)}
    np.testing.assert_array_equal(assemble(tiles, grid, ONE), pixels)


def test_a_small_picture_is_not_cut() -> None:
    assert len(lay_out(512, 512, None, 16)) == 1
    assert len(lay_out(513, 512, None, 16)) > 1


def test_sides_are_multiples_of_what_the_model_takes() -> None:
    grid = lay_out(1000, 777, None, 32)
    assert grid.down.side % 32 == grid.across.side % 32 == 0
    assert all(start % 32 == 0 for axis in (grid.down, grid.across) for start in axis.starts)
    assert grid.down.starts[-1] + grid.down.side >= 1000


def test_what_a_tile_says_near_its_edge_is_not_seen() -> None:
    """Where tiles meet, each pixel is what the whole picture gives: 8 pixels is how far this model looks."""
    pixels = noise(900, 1100, 1)
    grid = lay_out(900, 1100, None, 16)
    assert len(grid) == 12
    whole = blurred(pixels)
    tiled = assemble([blurred(tile) for tile in tiles_of(pixels, grid)], grid, ONE)
    inside = np.s_[
        16:-16, 16:-16
    ]  # at the picture's own edge the model sees a mirror in one case, nothing in the other
    assert np.abs(tiled[inside].astype(int) - whole[inside].astype(int)).max() <= 1


def test_edges_that_are_worth_nothing_would_be_seen_without_the_overlap() -> None:
    """The same tiles pasted one beside the other: the guard of the test above."""
    pixels = noise(900, 1100, 1)
    grid = lay_out(900, 1100, None, 16)
    pasted = np.empty_like(pixels)
    for number, tile in enumerate(tiles_of(pixels, grid)):
        row, column = grid.place(number)
        room = pasted[grid.down.starts[row] :, grid.across.starts[column] :]
        answer = blurred(tile)[: room.shape[0], : room.shape[1]]
        room[: answer.shape[0], : answer.shape[1]] = answer
    assert np.abs(pasted[16:-16, 16:-16].astype(int) - blurred(pixels)[16:-16, 16:-16].astype(int)).max() > 20


def test_tiles_that_disagree_fade_into_each_other() -> None:
    grid = lay_out(300, 3 * TILE, (300, TILE), 1)
    tiles = [np.full((300, TILE, 1), value, np.uint8) for value in np.linspace(0, 255, len(grid)).astype(int)]
    row = assemble(tiles, grid, ONE)[150, :, 0].astype(int)
    assert row[0] == 0
    assert row[-1] == 255
    assert np.abs(np.diff(row)).max() <= 255 / (len(grid) - 1) / (OVERLAP / 2) + 1


@pytest.mark.parametrize("scale", [Fraction(2), Fraction(1, 4)])
def test_answers_may_be_larger_or_smaller(scale: Fraction) -> None:
    pixels = noise(640, 800)
    grid = lay_out(640, 800, None, 16)

    def resized(tile: np.ndarray) -> np.ndarray:
        if scale > 1:
            return tile.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
        step = int(1 / scale)
        return tile[::step, ::step]

    np.testing.assert_array_equal(assemble(map(resized, tiles_of(pixels, grid)), grid, scale), resized(pixels))
