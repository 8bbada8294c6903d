"""Packages with known holes are not started with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from engine.floors import FLOORS, Floor, below_floor, numbers


def versions(**named: str) -> dict[str, str]:
    return {floor.package: ".".join(map(str, floor.lowest)) for floor in FLOORS} | named


def test_what_is_installed_here_is_above_every_floor() -> None:
    assert below_floor() is None


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: floor.package)
def test_one_below_is_named_with_what_mends_it(floor: Floor) -> None:
    *rest, last = floor.lowest
    lower = ".".join(map(str, [*rest, last - 1] if last else [*rest[:-1], rest[-1] - 1, 99]))
    sentence = below_floor(versions(**{floor.package: lower}).__getitem__)
    assert sentence is not None
    assert f"{floor.package} {lower}" in sentence
    assert floor.reason in sentence
    assert f"'{floor.package}>={'.'.join(map(str, floor.lowest))}'" in sentence
    assert below_floor(versions().__getitem__) is None


def test_what_is_not_installed_is_not_missed() -> None:
    def nothing(package: str) -> str:
        raise PackageNotFoundError(package)

    assert below_floor(nothing) is None


@pytest.mark.parametrize(
    ("text", "release"),
    [("2.10.0", (2, 10, 0)), ("2.10.0rc1+cpu", (2, 10, 0)), ("13", (13,)), ("3.1.10.post1", (3, 1, 10)), ("?", ())],
)
def test_the_release_of_a_version(text: str, release: tuple[int, ...]) -> None:
    assert numbers(text) == release
