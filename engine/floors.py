"""Versions of packages below which Deskside does not start: each has a hole that what we open or answer would reach.

Read from the packages' metadata: nothing is imported. ``pip install deskside`` never meets one, for its pins are above
them; an environment that was put together by hand may.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True, slots=True)
class Floor:
    """``lowest`` as numbers; ``reason``: the hole that it closes, by its name at cve.org."""

    package: str
    lowest: tuple[int, ...]
    reason: str


FLOORS: tuple[Floor, ...] = (
    Floor("waitress", (3, 0, 2), "CVE-2024-49768, CVE-2024-49769"),
    Floor("werkzeug", (3, 1, 6), "CVE-2026-27199"),
    Floor("flask", (3, 1, 3), "CVE-2026-27205"),
    Floor("pillow", (12, 2, 0), "CVE-2026-40192"),
    Floor("torch", (2, 10, 0), "CVE-2026-24747"),
    Floor("keras", (3, 13, 2), "CVE-2026-1462"),
)


def below_floor(installed: Callable[[str], str] = version) -> str | None:
    """A sentence about the first package that is too old, None where none is. Packages that are not there are not used.

    ``installed`` gives a package's version and raises PackageNotFoundError.
    """
    for floor in FLOORS:
        try:
            found = installed(floor.package)
        except PackageNotFoundError:
            continue
        if numbers(found) < floor.lowest:
            lowest = ".".join(map(str, floor.lowest))
            return (
                f"{floor.package} {found} has a known hole ({floor.reason}): "
                f"Deskside needs {lowest} or later. `pip install '{floor.package}>={lowest}'` mends it."
            )
    return None


def numbers(text: str) -> tuple[int, ...]:
    """The release part of a version (PEP 440), without what follows it: "2.10.0rc1+cpu" is (2, 10, 0)."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()
