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
    "fuzz": "What `make fuzz` needs beside what test.txt has.",
    "cuda": "PyTorch with CUDA, and the libraries by which TensorFlow uses a GPU. What app.txt has is not repeated.",
}

Lock = dict[str, str]
"""The text of each package's entry: its pin, hashes, and who needs it."""


def resolve(extras: list[str], known: Lock, upgrade: bool = False) -> Lock:
    """What uv finds for pyproject.toml with some of its extras. It keeps to what is ``known`` where that still fits."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lock.txt"
        output.write_text("".join(known.values()), encoding="utf-8")
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--output-file", str(output)]
        command += ["--universal", "--python-version", ".".join(map(str, OLDEST)), "--generate-hashes"]
        # One version for every Python, where there is one that fits: what is tested on one is what runs on another.
        command += ["--fork-strategy", "fewest", "--no-header", "--quiet", *(["--upgrade"] if upgrade else [])]
        subprocess.run([*command, *(word for extra in extras for word in ("--extra", extra))], cwd=ROOT, check=True)
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


def without_gpus(lock: Lock) -> Lock:
    return {name: text for name, text in lock.items() if name != "torch" and not FOR_GPUS.fullmatch(name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true")
    upgrade = parser.parse_args().upgrade
    # All together first, and each set held to that: a package has one version, whichever sets it is in.
    whole = resolve(["test", "gpu", "fuzz"], {**read("fuzz"), **read("cuda"), **read("test")}, upgrade)
    test, app, cuda, fuzz = (resolve(extras, whole) for extras in (["test"], [], ["gpu"], ["fuzz"]))
    for name, text in [*test.items(), *app.items(), *cuda.items(), *fuzz.items()]:
        if pin(text) != pin(whole[name]):
            raise SystemExit(f"{name} got two versions, {pin(text)} and {pin(whole[name])}: pin it in pyproject.toml.")
    torch = whole["torch"]
    cpu = cpu_build(pin(torch)) + torch.replace(" \\\n", " ; sys_platform != 'linux' \\\n", 1)
    write("cpu", {"torch": cpu})
    write("test", without_gpus(test))
    write("app", without_gpus(app))
    write("fuzz", {name: text for name, text in without_gpus(fuzz).items() if name not in test})
    write("cuda", {name: text for name, text in cuda.items() if name not in without_gpus(app)})


if __name__ == "__main__":
    main()
