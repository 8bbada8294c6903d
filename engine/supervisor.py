"""How a child is started, and how often it is started again: policy as data.

The command that starts a child is data in the settings. Its environment is an allow-list: no tokens, no proxies, no
home; its working folder is empty.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from engine.model_spec import FAKE_RUNTIME, ModelSpec
from engine.settings import EngineLimits, WorkerSettings

SANDBOX = "DESKSIDE_SANDBOX"
"""The variable in which a child finds its order; the child takes it out first."""
COMPILED_PACKAGE = "compiled package"
"""In place of an order, for what cannot be opened in a sandbox; the child then says so."""
_ROOT = Path(__file__).resolve().parent.parent
_PASSED_ON = ("PATH", "LANG", "TZ", "SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT", "NUMBER_OF_PROCESSORS")
_PASSED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "LD_LIBRARY_PATH", "DYLD_")


def intra_op_threads(asked: int) -> int:
    """Threads inside one operation: as asked, else one per physical core, eight at most."""
    if asked > 0:
        return asked
    return max(1, min(8, psutil.cpu_count(logical=False) or os.cpu_count() or 1))


def share_of_cores(settings: WorkerSettings, models: int) -> int:
    """Threads of a worker that starts as one of ``models`` loaded models: as set, else its share of the cores."""
    threads = intra_op_threads(settings.threads)
    return max(1, threads // max(1, models)) if settings.threads == 0 and settings.share_cores else threads


def child_environment(
    settings: WorkerSettings, threads: int, home: Path, parent: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The whole environment of a child. ``home`` is its empty working folder.

    OpenMP is told its threads before the framework is imported, and to sleep while it waits: spinning threads on a busy
    machine slow a model down tenfold and more (measured, ``docs/decisions/001``).
    """
    env = {k: v for k, v in parent.items() if k.upper() in _PASSED_ON or k.upper().startswith(_PASSED_ON_PREFIXES)}
    env |= {
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *settings.python_path]),
        "PYTHONIOENCODING": "utf-8",
        "HOME": str(home),
        "USERPROFILE": str(home),
        "TMPDIR": str(home),
        "TEMP": str(home),
        "TMP": str(home),
        "OMP_NUM_THREADS": str(threads),
        # NumPy's own pool would start before the sandbox is entered, which binds only threads that come later.
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "KERAS_BACKEND": "tensorflow",
        "HF_HUB_OFFLINE": "1",
    }
    return env


def sandbox_order(
    settings: WorkerSettings,
    home: Path,
    reads: tuple[Path, ...] | None,
    writes: tuple[Path, ...],
    *,
    is_spare: bool = False,
) -> str:
    """What ``engine.worker.sandbox`` finds in the environment (its ``Order``): paths, and private memory in bytes.

    The inspector (``reads`` None) may read what its owner points at, wherever that is; its memory has a bound of its
    own (``engine.worker.limits``). A spare (also None) does not know yet what it will read; it becomes a worker.
    """
    memory = settings.memory_mb * 1_000_000 or psutil.virtual_memory().total
    return json.dumps(
        {
            "reads": None if reads is None else [str(path) for path in reads],
            "writes": [str(path) for path in (home, *writes)],
            "memory_bytes": None if reads is None and not is_spare else memory,
        }
    )


def files_of_a_load(spec: ModelSpec) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """What a worker may read and write for ``spec``: its folder, where it is one, else its files, links followed.

    The runtime of tests counts and waits by files that its options name.
    """
    named = [spec.path] if spec.path.is_dir() else [spec.path, spec.model_file]
    files = [path.resolve() for path in (*named, *spec.files)]
    if spec.runtime != FAKE_RUNTIME:
        return tuple(files), ()
    folders = {Path(value).parent for key, value in spec.options.items() if key.endswith("_file")}
    return (*files, *folders), tuple(folders)


def child_command(settings: WorkerSettings, *arguments: str) -> list[str]:
    """``python -P -m engine.worker``, or the command of the settings, and ``arguments``."""
    command = settings.command or [sys.executable, "-P", "-m", "engine.worker"]
    return [*command, *arguments]


@dataclass(slots=True)
class RestartPolicy:
    """At most ``limits.restarts`` restarts in ``limits.restart_window_s``, each after a doubled and jittered pause."""

    limits: Callable[[], EngineLimits]
    jitter: float = 0.2
    _deaths: deque[float] = field(default_factory=deque)

    def after_death(self, now: float) -> float | None:
        """Seconds to wait before the next start, or None: no more, the model has failed."""
        limits = self.limits()
        while self._deaths and now - self._deaths[0] > limits.restart_window_s:
            self._deaths.popleft()
        if len(self._deaths) >= limits.restarts:
            return None
        pause = min(limits.backoff_last_s, limits.backoff_first_s * 2 ** len(self._deaths))
        self._deaths.append(now)
        return float(pause * (1 + random.uniform(-self.jitter, self.jitter)))

    def reset(self) -> None:
        """Forget earlier deaths: the owner asked to start again."""
        self._deaths.clear()
