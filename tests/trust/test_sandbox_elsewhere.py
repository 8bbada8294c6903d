"""The sandbox of Windows and macOS, as far as it can be looked at elsewhere: never run on those systems.

The systems' libraries are stood in for; what is held is what they would be told, and that a refusal is told on.
"""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from engine.worker import sandbox
from engine.worker.sandbox import Order, enter
from engine.worker.sandbox_macos import enter_seatbelt, profile
from engine.worker.sandbox_windows import ExtendedLimits, enter_job, limits_of

ORDER = Order(("/Users/ana/model",), ("/private/tmp/own",), 1_000_000)


class Function:
    """A function of a system's library: remembers its calls."""

    restype: Any = None
    argtypes: Any = None

    def __init__(self, result: int) -> None:
        self.result = result
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> int:
        self.calls.append(arguments)
        return self.result


class Kernel32(SimpleNamespace):
    def __init__(self, **results: int) -> None:
        names = (
            "CreateJobObjectW", "GetCurrentProcess", "SetInformationJobObject", "AssignProcessToJobObject",
            "SetProcessMitigationPolicy",
        )  # fmt: skip
        super().__init__(**{name: Function(results.get(name, 7)) for name in names})


def test_the_structure_is_as_long_as_windows_reads_it() -> None:
    assert ctypes.sizeof(ExtendedLimits) == 144
    assert ExtendedLimits.ProcessMemoryLimit.offset == 112
    assert limits_of(None).ProcessMemoryLimit == 0
    assert (limits_of(5).Basic.LimitFlags, limits_of(None).Basic.LimitFlags) == (0x508, 0x408)


def test_a_process_enters_its_job_after_it_was_limited() -> None:
    kernel32 = Kernel32()
    enter_job(1_000_000, kernel32)
    assert [call[1] for call in kernel32.SetInformationJobObject.calls] == [9, 4]
    assert [call[3] for call in kernel32.SetInformationJobObject.calls] == [144, 4]
    assert len(kernel32.AssignProcessToJobObject.calls) == 1
    assert kernel32.SetProcessMitigationPolicy.calls[0][0] == 13


@pytest.mark.parametrize(
    "name", ["CreateJobObjectW", "SetInformationJobObject", "AssignProcessToJobObject", "SetProcessMitigationPolicy"]
)
def test_a_refusal_of_windows_is_told(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(ctypes, "WinDLL", lambda *_, **__: Kernel32(**{name: 0}), raising=False)
    reached = enter(ORDER, "win32")
    assert reached.level == "none"
    assert len(reached.reasons) == 2
    assert "Processes and memory:" in reached.reasons[1]


def test_windows_keeps_programs_and_memory_and_says_what_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "WinDLL", lambda *_, **__: Kernel32(), raising=False)
    reached = enter(ORDER, "win32")
    assert (reached.level, reached.files, reached.network) == ("partial", False, False)
    assert (reached.processes, reached.memory) == (True, True)
    assert len(reached.reasons) == 1


def test_the_profile_denies_first_and_allows_what_the_load_needs() -> None:
    lines = profile(ORDER.reads, ORDER.writes).splitlines()
    assert lines[:2] == ["(version 1)", "(allow default)"]
    for denied in ("(deny network*)", "(deny process-fork)", "(deny process-exec*)", "(deny file-write*)"):
        assert denied in lines
    assert lines.index("(deny file-write*)") < lines.index('(allow file-write* (subpath "/private/tmp/own"))')
    assert lines[-1] == '(allow file-read-data (subpath "/Users/ana/model") (subpath "/private/tmp/own"))'
    assert '(subpath "/Users")' in lines[-2]


def test_an_inspector_reads_everything_and_a_path_cannot_end_its_string() -> None:
    assert "file-read" not in profile(None, ())
    assert "file-write* (" not in profile(None, ())
    assert '(subpath "/a\\") (allow network*) (\\\\")' in profile(None, ('/a") (allow network*) (\\',))


@pytest.mark.parametrize("result", [0, -1])
def test_what_macos_says_is_told(monkeypatch: pytest.MonkeyPatch, result: int) -> None:
    library = SimpleNamespace(sandbox_init=Function(result))
    if result:
        with pytest.raises(OSError, match="no reason given"):
            enter_seatbelt("(version 1)", library)
    cdll = ctypes.CDLL

    def load(name: str | None, **options: Any) -> Any:
        return library if name and "libSystem" in name else cdll(name, **options)

    monkeypatch.setattr(sandbox.ctypes, "CDLL", load)
    reached = enter(ORDER, "darwin")
    assert (reached.level, reached.memory) == ("none" if result else "partial", False)
    assert len(reached.reasons) == (2 if result else 1)
    text = library.sandbox_init.calls[-1][0].decode()
    assert sys.prefix in text, "the interpreter itself may be read"
