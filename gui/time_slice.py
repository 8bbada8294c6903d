"""The window's thread goes ahead of those that compute, on Linux.

Where every core is busy, a thread that wakes waits until one of the others has had its slice, some milliseconds. Since
Linux 6.12 a thread may ask for slices of its own length, without any right: who asks for short ones is let in sooner
(its deadline is earlier) and takes no more in all. The window works in short bursts and waits for the rest.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import struct
import sys

log = logging.getLogger(__name__)

SLICE_NS = 100_000
"""The shortest that Linux grants."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # struct sched_attr of linux/sched/types.h, in its first version
_RESET_ON_FORK = 0x01
_SCHED_OTHER = 0


def ask_for_short_slices() -> bool:
    """Ask for them for the calling thread, and for no thread and process that it starts.

    False where they cannot be had: another system, another processor, a policy that somebody chose, or a refusal, which
    is logged. Older kernels agree and change nothing."""
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    if os.sched_getscheduler(0) != _SCHED_OTHER:  # somebody has chosen another place for us
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _SCHED_OTHER, _RESET_ON_FORK, nice, 0, SLICE_NS, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, attributes, 0) != 0:
        log.info("no short slices for the window's thread: %s", os.strerror(ctypes.get_errno()))
        return False
    return True
