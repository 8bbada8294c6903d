"""The sandbox on Windows: a job object that the process puts itself into. NOT RUN HERE: written from the headers.

Of what the sandbox is for, a job keeps back other programs and bounds the memory; files and the network stay within
reach, for which Windows wants an AppContainer, and that has to be made before the process is. Structures and numbers
are those of winnt.h (learn.microsoft.com, "Job Objects" and "SetProcessMitigationPolicy").
"""

from __future__ import annotations

import ctypes
from typing import Any

_EXTENDED_LIMITS, _UI_RESTRICTIONS = 9, 4  # JOBOBJECTINFOCLASS
_ACTIVE_PROCESS, _PROCESS_MEMORY, _DIE_ON_UNHANDLED = 0x8, 0x100, 0x400
_EVERY_UI_RESTRICTION = 0xFF  # clipboard, other windows' handles, the desktop, shutting down and so on
_CHILD_PROCESS_POLICY, _NO_CHILD_PROCESS = 13, 1  # PROCESS_MITIGATION_POLICY


class _BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION of a 64-bit process."""

    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_uint64),
        ("MaximumWorkingSetSize", ctypes.c_uint64),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_uint64),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION of a 64-bit process: 144 bytes."""

    _fields_ = (
        ("Basic", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_uint64),
        ("JobMemoryLimit", ctypes.c_uint64),
        ("PeakProcessMemoryUsed", ctypes.c_uint64),
        ("PeakJobMemoryUsed", ctypes.c_uint64),
    )


def limits_of(memory_bytes: int | None) -> ExtendedLimits:
    """One process, and so much committed memory at most."""
    limits = ExtendedLimits()
    limits.Basic.LimitFlags = _ACTIVE_PROCESS | _DIE_ON_UNHANDLED
    limits.Basic.ActiveProcessLimit = 1
    if memory_bytes is not None:
        limits.Basic.LimitFlags |= _PROCESS_MEMORY
        limits.ProcessMemoryLimit = memory_bytes
    return limits


def enter_job(memory_bytes: int | None, kernel32: Any) -> None:
    """Put this process into a job of its own, for good. Raises OSError with the number of Windows' error.

    ``kernel32`` is ``ctypes.WinDLL("kernel32", use_last_error=True)``. The job's handle is never closed: the job lives
    as long as the process.
    """
    kernel32.CreateJobObjectW.restype = ctypes.c_void_p
    kernel32.GetCurrentProcess.restype = ctypes.c_void_p
    job = kernel32.CreateJobObjectW(None, None)
    _checked(job, "a job could not be made")
    limits = limits_of(memory_bytes)
    restrictions = ctypes.c_uint32(_EVERY_UI_RESTRICTION)
    policy = ctypes.c_uint32(_NO_CHILD_PROCESS)
    for what, information in ((_EXTENDED_LIMITS, limits), (_UI_RESTRICTIONS, restrictions)):
        _checked(
            kernel32.SetInformationJobObject(
                ctypes.c_void_p(job), what, ctypes.byref(information), ctypes.sizeof(information)
            ),
            "a job could not be limited",
        )
    _checked(
        kernel32.AssignProcessToJobObject(ctypes.c_void_p(job), ctypes.c_void_p(kernel32.GetCurrentProcess())),
        "the process could not enter its job",
    )
    _checked(
        kernel32.SetProcessMitigationPolicy(_CHILD_PROCESS_POLICY, ctypes.byref(policy), ctypes.sizeof(policy)),
        "programs could not be kept from being started",
    )


def _checked(result: int | None, what: str) -> None:
    if not result:
        number = ctypes.get_last_error() if hasattr(ctypes, "get_last_error") else 0
        raise OSError(number, f"{what} (Windows' error {number})")
