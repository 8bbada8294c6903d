"""Set up everything a checkout needs, with nothing but Python: the virtual environment and the system libraries.

    python3 packaging/setup_env.py app|test    install what running (or testing) needs, then stop
    python3 packaging/setup_env.py run         install what running needs, then open the window on a sample model

Packages are those of the files in ``locks``: each is pinned, and a file with another hash is refused. Which PyTorch:
with CUDA where Linux has NVIDIA's driver, else without; DESKSIDE_TORCH=cpu or cuda says otherwise. A second call
costs nothing: a stamp in ``.venv`` holds the hash of what the installation was made of. System libraries come through
apt where this runs as root; elsewhere the one line to run is printed and the exit status is 1.
Standard library only, and nothing newer than Python 3.8: it has to start before anything is installed.
"""

import argparse
import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WINDOWS = sys.platform == "win32"
VENV_PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
LOCKS = ROOT / "locks"
SAMPLE = ROOT / "examples" / "digits-keras"

OLDEST, NEWEST = (3, 11), (3, 13)

# PyPI has no PyTorch for Linux without CUDA. Asked for that one package, and only where pip's own settings do not lead
# to it; whatever answers there, the lock's hashes decide.
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# What Qt loads by name at run time, and the Debian package that brings it.
QT_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
}
XCB_LIBRARIES = {
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-shape.so.0": "libxcb-shape0",
}
# What the tests start: an X server, hands, a screen reader's buses, links of a network, another client of https.
DESKTOP_PROGRAMS = {
    "Xvfb": "xvfb",
    "xauth": "xauth",
    "xdotool": "xdotool",
    "dbus-run-session": "dbus",
    "ip": "iproute2",
    "curl": "curl",
    "/usr/libexec/at-spi-bus-launcher": "at-spi2-core",
}


class SetupError(Exception):
    """What a person has to do before the set-up can go on, in a sentence or two."""


def say(text):
    print(text, flush=True)


def has_display():
    """Whether a window can be shown. Only Linux can be without a display and still run a program."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def is_root():
    return hasattr(os, "geteuid") and os.geteuid() == 0


def find_python():
    """A Python from 3.11 to 3.13: this one if it is, else the first on PATH. Raises SetupError."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    raise SetupError(
        "Deskside needs Python 3.11, 3.12 or 3.13, and none was found on PATH "
        f"(this is {sys.version_info.major}.{sys.version_info.minor})."
    )


def lacks_library(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return True
    return False


def missing_for_desktop():
    """Debian packages that the tests on a desktop of their own need and this machine lacks."""
    programs = [package for program, package in DESKTOP_PROGRAMS.items() if not shutil.which(program)]
    return programs + [package for library, package in XCB_LIBRARIES.items() if lacks_library(library)]


def missing_packages(purpose, python):
    """Debian packages that ``purpose`` (app, run, test) needs and this machine lacks."""
    missing = []
    if not VENV_PYTHON.exists():
        probe = subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True)
        if probe.returncode:
            version = subprocess.check_output([python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"])
            missing.append(f"python{version.decode().strip()}-venv")
    if not sys.platform.startswith("linux"):
        return missing
    wanted = {}
    if purpose == "test" or (purpose == "run" and has_display()):
        wanted.update(QT_LIBRARIES)
    if purpose == "run" and os.environ.get("DISPLAY"):
        wanted.update(XCB_LIBRARIES)
    if purpose == "test" and is_root():  # without root they are left to the person, and those tests say so
        missing += missing_for_desktop()
    return missing + [package for library, package in wanted.items() if lacks_library(library)]


def install_packages(packages):
    """Install Debian packages as root. Raises SetupError with the one line to run where that is not possible."""
    if not packages:
        return
    line = "apt-get install -y --no-install-recommends " + " ".join(packages)
    apt = shutil.which("apt-get")
    if apt is None:
        raise SetupError("Some system packages are missing. On Debian they are called: " + " ".join(packages))
    if not is_root():
        raise SetupError("Some system packages are missing. Run this line, then start again:\n\n    sudo " + line)
    say("Installing system packages: " + " ".join(packages))
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for command in ([apt, "update", "-qq"], [apt, "install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            sys.stderr.write(done.stdout.decode(errors="replace")[-4000:])
            raise SetupError("apt could not install them (above is what it said). The line was:\n\n    " + line)


def wanted_torch():
    """``cuda`` or ``cpu``: the name of the lock that PyTorch is taken from. Raises SetupError."""
    asked = os.environ.get("DESKSIDE_TORCH", "")
    if asked not in ("", "cpu", "cuda"):
        raise SetupError(f"DESKSIDE_TORCH is cpu or cuda, not {asked}.")
    if asked:
        return asked
    return "cuda" if sys.platform.startswith("linux") and not lacks_library("libcuda.so.1") else "cpu"


def ensure_venv(python, torch):
    """A virtual environment that works, made anew where there is none, an interrupted one, or one of the other PyTorch.

    pip takes 2.13.0+cpu for 2.13.0, and asks for no hash of what is there already.
    """
    others = [stamp for stamp in VENV.glob(".installed-*") if not stamp.name.endswith("-" + torch)]
    if VENV_PYTHON.exists() and not others:
        probe = subprocess.run([str(VENV_PYTHON), "-c", "import pip"], capture_output=True)
        if probe.returncode == 0:
            return
    say("Making the virtual environment .venv")
    subprocess.run([python, "-m", "venv", "--clear", str(VENV)], check=True)


def locks_of(extra, torch):
    return [LOCKS / (extra + ".txt"), LOCKS / (torch + ".txt")]


def recipe(extra, torch):
    """Hash of all that an installation depends on, the interpreter's version too: a new Python installs anew."""
    digest = hashlib.sha256(extra.encode())
    digest.update(subprocess.check_output([str(VENV_PYTHON), "-c", "import sys; print(sys.version)"]))
    for path in (ROOT / "pyproject.toml", *locks_of(extra, torch)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def pip_install(*arguments, silent=False):
    """Run pip. Returns its exit status and, where ``silent``, what it said; else that goes where ours does."""
    command = [str(VENV_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if silent else {}
    done = subprocess.run([*command, *arguments], cwd=str(ROOT), **pipes)
    return done.returncode, (done.stdout or b"").decode(errors="replace")


def install_cpu_torch(locked):
    """PyTorch's CPU build for Linux, from where pip's own settings lead or else from PyTorch's index."""
    wanted = ["--no-deps", *locked, "--requirement", str(LOCKS / "cpu.txt")]
    status, first = pip_install(*wanted, silent=True)
    if status == 0:
        return
    status, second = pip_install(*wanted, "--index-url", PYTORCH_CPU_INDEX, silent=True)
    if status:
        sys.stderr.write(first[-2000:] + second[-2000:])
        raise SetupError(
            "pip could not install PyTorch without CUDA (above is what it said). Lead pip to PyTorch's index of CPU "
            "builds or to a folder with the file (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS), or take the one with CUDA, "
            "which PyPI has (DESKSIDE_TORCH=cuda, some gigabytes more)."
        )


def install_requirements(extra, torch):
    """pip install the locked packages and the checkout (editable), unless the stamp says that it is done."""
    stamps = {name: VENV / (".installed-" + name + "-" + torch) for name in ("app", "test")}
    for name in (extra, "test"):  # what the tests need includes what the application needs
        if stamps[name].is_file() and stamps[name].read_text() == recipe(name, torch):
            return
    say("Installing the Python packages into .venv (TensorFlow and PyTorch are large: some minutes the first time)")
    # Wheels only: what building from source needs is in no lock.
    locked = ["--require-hashes", "--only-binary", ":all:"]
    if torch == "cpu" and sys.platform.startswith("linux"):
        install_cpu_torch(locked)
    files = [word for path in locks_of(extra, torch) for word in ("--requirement", str(path))]
    status, _ = pip_install(*locked, *files)
    if status:
        raise SetupError("pip could not install the packages (above is what it said).")
    # The checkout itself has no hash. It brings nothing in, and is built with the setuptools of the lock.
    status, said = pip_install("--no-deps", "--no-build-isolation", "--editable", str(ROOT), silent=True)
    if status:
        sys.stderr.write(said)
        raise SetupError("pip could not install the checkout itself (above is what it said).")
    stamps[extra].write_text(recipe(extra, torch))


def set_up(purpose):
    python, torch = find_python(), wanted_torch()
    install_packages(missing_packages(purpose, python))
    ensure_venv(python, torch)
    install_requirements("test" if purpose == "test" else "app", torch)


def run_program():
    """Open the window on the sample model; with no display, serve the same model and print its URL."""
    command = [str(VENV_PYTHON), str(ROOT / "main.py")]
    if has_display():
        command.append(str(SAMPLE))
    else:
        say("There is no display here, so the sample model is served without a window. Ctrl+C ends it.")
        command += ["serve", str(SAMPLE)]
    if not WINDOWS:  # os.execv there returns to the shell at once and leaves the program running behind it
        os.execv(command[0], command)
    return subprocess.run(command).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("purpose", choices=["app", "test", "run"])
    purpose = parser.parse_args().purpose
    try:
        set_up(purpose)
        return run_program() if purpose == "run" else 0
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{' '.join(error.cmd)} failed with status {error.returncode}.\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
