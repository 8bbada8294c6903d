"""The peers' own virtual environments, under ``.bench/environments``; made once, again when their requirements change.

``BENCH_ENVIRONMENTS`` names another folder, where another checkout has made them; an environment cannot be moved.
Peers get the PyTorch of ``requirements/torch.txt`` from wherever pip's settings lead (``PIP_FIND_LINKS``), else from
PyTorch's index of builds without CUDA. uv installs by links into its cache, so eight environments hold PyTorch once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.models import BENCH

REQUIREMENTS = Path(__file__).parent / "peers" / "requirements"
ENVIRONMENTS = Path(os.environ.get("BENCH_ENVIRONMENTS") or BENCH / "environments")
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INSTALL_S = 1200


class NotInstalled(Exception):
    """Why a peer cannot be run here."""


def environment(name: str) -> Path:
    """The Python of a peer's environment, which is made where it is missing."""
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    files = (
        [REQUIREMENTS / f"{name}.txt"]
        if name == "keras"
        else [REQUIREMENTS / "torch.txt", REQUIREMENTS / f"{name}.txt"]
    )
    wanted = "".join(file.read_text() for file in files)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    uv = Path(sys.executable).parent / "uv"
    base = Path(sys.base_exec_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    _run([uv, "venv", "--quiet", "--clear", "--python", base, folder])
    install = [uv, "pip", "install", "--quiet", "--python", python]
    if name != "keras":
        links = os.environ.get("PIP_FIND_LINKS", "").split()
        where = [part for link in links for part in ("--find-links", link)] or ["--index", PYTORCH_CPU_INDEX]
        _run([*install, *where, "-r", files[0]])
    # All files again, so that what is asked of PyTorch and NumPy still holds beside the peer's own wishes.
    _run([*install, *(part for file in files for part in ("-r", file))])
    stamp.write_text(wanted)
    return python


def _run(command: list[str | Path]) -> None:
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(str(error)) from error
    if done.returncode:
        raise NotInstalled(" ".join(done.stderr.split())[-400:])


if __name__ == "__main__":
    for peer in sys.argv[1:] or sorted(file.stem for file in REQUIREMENTS.glob("*.txt") if file.stem != "torch"):
        try:
            print(peer, environment(peer))
        except NotInstalled as reason:
            print(peer, "not installed:", reason)
