"""The parent's end of one child: its process, its private channel, its last words.

Three threads a child: one writes (so that a child which stops reading blocks nobody), one reads, one keeps the last
lines of standard error. Every byte from the child is hostile: a frame that breaks a rule ends it.
"""

from __future__ import annotations

import io
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.protocol import Buffer, Limits, Message, ProtocolError, read_frame, write_frame

log = logging.getLogger(__name__)

PIPE_BYTES = 1 << 20
_STDERR_LINES = 200
_OUTSIDE_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT} | ({signal.SIGKILL} if os.name == "posix" else set()))


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended. ``reason`` is set where we ended it; ``last_words`` is the end of its stderr."""

    returncode: int
    reason: str
    last_words: str

    @property
    def by_outside_signal(self) -> bool:
        """Ended by somebody's kill (or the system's out-of-memory killer), not by its own fault or by us."""
        return not self.reason and self.returncode < 0 and -self.returncode in _OUTSIDE_SIGNALS

    def sentence(self) -> str:
        if self.reason:
            return self.reason
        if self.returncode < 0:
            try:
                name = signal.Signals(-self.returncode).name
            except ValueError:
                name = f"signal {-self.returncode}"
            return f"The model's process was ended by {name}."
        return f"The model's process ended with code {self.returncode}."


class WorkerClient:
    """Starts the child at once. ``on_message`` and ``on_exit`` are called on the reading thread, ``on_exit`` once.

    Raises OSError where the process cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: dict[str, str],
        cwd: Path,
        name: str,
        on_message: Callable[[Message], None],
        on_exit: Callable[[Exit], None],
        limits: Limits = Limits(),
    ) -> None:
        self.name = name
        self.home = cwd
        """The working folder it was started in."""
        self.exit: Exit | None = None
        """Set before ``on_exit`` is called."""
        self._on_message = on_message
        self._on_exit = on_exit
        self._limits = limits
        self._lock = threading.Lock()
        self._reason = ""
        self._ending = False
        self._outgoing: queue.SimpleQueue[tuple[dict[str, Any], Sequence[Buffer]] | None] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=env,
            cwd=cwd,
            pipesize=PIPE_BYTES,
            **_own_group(),
        )
        self.pid = self._process.pid
        self._threads = [
            threading.Thread(target=self._write, name=f"{name}-write", daemon=True),
            threading.Thread(target=self._read, name=f"{name}-read", daemon=True),
            threading.Thread(target=self._keep_stderr, name=f"{name}-stderr", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, header: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        """Queue one message. A child that is gone answers by ``on_exit``, not here."""
        self._outgoing.put((header, buffers))

    def kill(self, reason: str) -> None:
        """End the child and everything it started, now. ``reason`` is the sentence that ``on_exit`` gets."""
        with self._lock:
            self._ending = True
            if not self._reason:
                self._reason = reason
        _kill_group(self._process)

    def close(self, grace_s: float) -> None:
        """Ask the child to end, kill it after ``grace_s``, and wait for the threads. Not from the reading thread."""
        self._ending = True
        self._outgoing.put(({"type": "stop"}, ()))
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill("It did not end when asked.")
        self.join(5.0)

    def join(self, timeout_s: float) -> bool:
        """Wait until process and threads are gone; False where the bound was reached."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout_s)
        return not any(t.is_alive() for t in self._threads if t is not threading.current_thread())

    def bytes_read(self) -> int | None:
        """Bytes the child has read so far (files and channel), None where the platform does not say."""
        import psutil

        try:
            counters = psutil.Process(self.pid).io_counters()
        except (psutil.Error, AttributeError, NotImplementedError, OSError):
            return None
        return int(getattr(counters, "read_chars", 0)) or None

    # -- threads ---------------------------------------------------------------------------------------------------
    def _write(self) -> None:
        assert self._process.stdin is not None
        stream = self._process.stdin
        try:
            while (message := self._outgoing.get()) is not None:
                write_frame(stream, *message)  # type: ignore[arg-type]  # a raw pipe is written to like a file
        except (OSError, ValueError):
            log.debug("%s no longer reads", self.name)  # its end is noticed, and told, by the reading thread
        finally:
            try:
                stream.close()
            except OSError:
                log.debug("%s: closing its input failed", self.name)

    def _read(self) -> None:
        assert self._process.stdout is not None
        stream = io.BufferedReader(self._process.stdout, 1 << 16)  # type: ignore[type-var]
        try:
            while (message := read_frame(stream, self._limits)) is not None:
                self._on_message(message)
        except ProtocolError as error:
            # One that we are ending may well be cut off within a frame.
            log.log(logging.DEBUG if self._ending else logging.WARNING, "%s broke the protocol: %s", self.name, error)
            self.kill("The model's process sent something that is not an answer.")
        except OSError as error:
            log.warning("%s: channel failed: %s", self.name, error)
        except Exception:
            log.exception("%s: an answer could not be handled", self.name)
            self.kill("An answer of the model's process could not be handled.")
        # Its channel is gone, so the child is of no further use, alive or not.
        if not _has_ended(self._process, 1.0):
            self.kill("The model's process closed its channel.")
        _kill_group(self._process)  # anything it may have started, while its group's number is still taken
        returncode = self._process.wait()
        self._outgoing.put(None)
        self._threads[2].join(1.0)
        with self._lock:
            reason = self._reason
        stream.close()
        self.exit = Exit(returncode, reason, "\n".join(self._stderr))
        self._on_exit(self.exit)

    def _keep_stderr(self) -> None:
        assert self._process.stderr is not None
        with io.TextIOWrapper(
            io.BufferedReader(self._process.stderr),  # type: ignore[type-var]
            encoding="utf-8",
            errors="replace",
        ) as stream:
            while line := stream.readline(4096):
                text = "".join(c for c in line.rstrip("\n") if c.isprintable() or c == "\t")
                if text:
                    self._stderr.append(text)
                    log.debug("%s: %s", self.name, text)


def _own_group() -> dict[str, Any]:
    """Popen arguments that put the child in a process group of its own."""
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}


def _has_ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether the child ends within ``timeout_s``. Where the platform can, it is left to be reaped later."""
    if not hasattr(os, "waitid"):  # Windows, macOS before Python 3.13
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                return True
        except ChildProcessError:
            return True  # reaped by close()
        time.sleep(0.005)
    return False


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and its group. Windows has no group kill: there the child alone is ended (it starts no others)."""
    if process.returncode is not None:
        return  # already reaped: its number may belong to somebody else by now
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            log.debug("process group %s is gone", process.pid)
    elif process.poll() is None:
        process.kill()
