"""Writes the lock files in ``locks``: every package at one version, with the hash of every file of that version.

    python packaging/lock.py              after a change of pyproject.toml; versions that still fit stay
    python packaging/lock.py --upgrade    the newest version of whatever pyproject.toml does not pin

An installation takes ``app.txt`` or ``test.txt`` together with ``cpu.txt`` or ``cuda.txt``: which PyTorch is a matter
of the machine, not of the purpose, and CUDA's libraries weigh more than everything else. uv resolves for every system
and Python that pyproject.toml allows at once; pip reads the result. Needs a package index (uv's own settings name
another, pip's are not read) and, when PyTorch's version changes, PyTorch's index of CPU builds.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote

from setup_env import LOCKS, OLDEST, PYTORCH_CPU_INDEX, ROOT

# What PyTorch from PyPI needs on Linux beside what its CPU build needs.
FOR_GPUS = re.compile(r"(nvidia|cuda)-.*|triton")
# PyTorch's CPU builds that are locked: the machines that TensorFlow has files for as well.
CPU_BUILD = re.compile(r"torch-(?P<version>[^-]+)\+cpu-cp(?:311|312|313)-cp\d+-manylinux\w+_(?:x86_64|aarch64)\.whl")
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)")

HEADER = "# {}\n# Written by `make lock` (packaging/lock.py); change pyproject.toml and run that.\n"
ABOUT = {
    "app": "What running needs, but for PyTorch: that is in cpu.txt and cuda.txt.",
    "test": "What testing needs, what running needs included, but for PyTorch: that is in cpu.txt and cuda.txt.",
    "cpu": "PyTorch without CUDA. On Linux that is a build which PyPI lacks and PyTorch's own index of CPU builds has.",
    "cuda": "PyTorch with CUDA, and the libraries by which TensorFlow uses a GPU. What app.txt has is not repeated.",
}

Lock = dict[str, str]
"""The text of each package's entry: its pin, hashes, and who needs it."""


def resolve(extra: str | None, upgrade: bool) -> Lock:
    """What uv finds for pyproject.toml with one of its extras. The present locks are what it keeps to."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lock.txt"
        output.write_text("".join(text for name in ("test", "cuda") for text in read(name).values()))
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--output-file", str(output)]
        command += ["--universal", "--python-version", ".".join(map(str, OLDEST)), "--generate-hashes"]
        command += ["--no-header", "--quiet", *(["--extra", extra] if extra else [])]
        command += ["--upgrade"] if upgrade else []
        subprocess.run(command, cwd=ROOT, check=True)
        return entries(output.read_text(encoding="utf-8"))


def entries(text: str) -> Lock:
    """A lock's entries by the name of their package, several of one name (for several systems) together."""
    found: Lock = {}
    name = ""
    for line in text.splitlines(keepends=True):
        match = PIN.match(line)
        name = match["name"] if match else name
        if name and not line.startswith("#"):
            found[name] = found.get(name, "") + line
    return found


def pin(entry: str) -> str:
    """The version of a lock's entry."""
    match = PIN.match(entry)
    assert match is not None, entry
    return match["version"]


def read(name: str) -> Lock:
    path = LOCKS / f"{name}.txt"
    return entries(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write(name: str, lock: Lock) -> None:
    text = HEADER.format(ABOUT[name]) + "".join(lock[package] for package in sorted(lock))
    (LOCKS / f"{name}.txt").write_text(text, encoding="utf-8")


def cpu_build(version: str) -> str:
    """The entry of PyTorch's CPU build for Linux: as it is locked already, else asked of PyTorch's index."""
    first = f"torch=={version}+cpu ; sys_platform == 'linux'"
    locked = re.search(re.escape(first) + r" \\\n(?:    --hash=\S+(?: \\)?\n)+", "".join(read("cpu").values()))
    if locked:
        return locked[0]
    try:
        with urllib.request.urlopen(f"{PYTORCH_CPU_INDEX}/torch/", timeout=60) as answer:
            hashes = cpu_hashes(answer.read().decode(), version)
    except urllib.error.URLError as error:
        raise SystemExit(f"torch {version} is not locked: PyTorch's index of CPU builds says {error}.") from None
    if not hashes:
        raise SystemExit(f"PyTorch's index of CPU builds lists no torch {version} for Linux.")
    return " \\\n".join([first, *(f"    --hash=sha256:{value}" for value in hashes)]) + "\n"


def cpu_hashes(page: str, version: str) -> list[str]:
    """SHA-256 of the CPU builds of ``version`` on a page of PyTorch's index, which has each file's behind its link."""
    links = re.findall(r'href="[^"#]*?([^"#/]+)#sha256=([0-9a-f]{64})"', page)
    found = [(CPU_BUILD.fullmatch(unquote(file)), value) for file, value in links]
    return sorted(value for build, value in found if build and build["version"] == version)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true")
    upgrade = parser.parse_args().upgrade
    # The tests' set first, and the others held to it: a package has one version, whichever sets it is in.
    both = resolve("test", upgrade)
    torch = both["torch"]
    write("cpu", {"torch": cpu_build(pin(torch)) + torch.replace(" \\\n", " ; sys_platform != 'linux' \\\n", 1)})
    write("test", {name: text for name, text in both.items() if name != "torch" and not FOR_GPUS.fullmatch(name)})
    app, cuda = resolve(None, False), resolve("gpu", upgrade)
    for name, text in [*app.items(), *cuda.items()]:
        if pin(text) != pin(both.get(name, text)):
            raise SystemExit(f"{name} got two versions, {pin(text)} and {pin(both[name])}: pin it in pyproject.toml.")
    app = {name: text for name, text in app.items() if name != "torch" and not FOR_GPUS.fullmatch(name)}
    write("app", app)
    write("cuda", {name: text for name, text in cuda.items() if name not in app})


if __name__ == "__main__":
    main()
