"""What the operating system lets the inspector use, chosen by platform.

Linux: an address space of ``HEADROOM`` above what is mapped at the start, no core dump (it would hold pieces of the
person's files). macOS: no core dump; it accepts ``RLIMIT_AS`` and does not enforce it, so it is not set. Windows has
neither; its counterpart is a Job Object, which only the parent can make: the child runs without limits there, and the
bounds in the code (pixels, cells, sizes, ratios) stand alone. Only Linux was run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import psutil

HEADROOM = 4 << 30
"""Bytes. 128 million pixels with transparency need about 1.5 GiB while they are put on white."""


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """``address_space_headroom`` in bytes above what is mapped now, or None; ``core_dumps`` False switches them off."""

    address_space_headroom: int | None
    core_dumps: bool

    def apply(self) -> None:
        """Set them for this process, for good. Raises OSError, ValueError where the system refuses."""
        if not self.core_dumps:
            _lower("RLIMIT_CORE", 0)
        if self.address_space_headroom is not None:
            _lower("RLIMIT_AS", psutil.Process().memory_info().vms + self.address_space_headroom)


def inspector_limits(platform: str = sys.platform) -> ResourceLimits:
    """The limits of the inspector on ``platform`` (a value of ``sys.platform``)."""
    if platform == "linux":
        return ResourceLimits(HEADROOM, core_dumps=False)
    if platform == "win32":
        return ResourceLimits(None, core_dumps=True)
    return ResourceLimits(None, core_dumps=False)


def _lower(name: str, value: int) -> None:
    import resource  # POSIX only

    which = getattr(resource, name)
    _, hard = resource.getrlimit(which)
    bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bounded, bounded))
