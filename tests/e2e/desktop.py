"""A desktop for one test: an X server of its own, and what it needs or the reason why it cannot be had."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.program import PATIENCE_S, ROOT
from tests.sources import load_script

SCREEN = (1600, 1000)


def require_desktop() -> None:
    """Skip, with the reason, where this machine has no such desktop; fail where setting up would have installed it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("an X server of its own needs Linux")
    setup_env = load_script(ROOT / "packaging" / "setup_env.py")
    missing = setup_env.missing_for_desktop()
    if not missing:
        return
    reason = f"needs packages that are not installed: {' '.join(missing)}"
    if setup_env.is_root() and shutil.which("apt-get"):
        pytest.fail(f"{reason}; `make setup-test` installs them")
    pytest.skip(reason)


@contextmanager
def x_server() -> Iterator[str]:
    """The DISPLAY of a private X server, without a window manager; ended with the block."""
    reading, writing = os.pipe()
    with open(reading, encoding="ascii") as number:
        width, height = SCREEN
        # Without -noreset the server forgets everything when its last client has gone, also between two of ours.
        command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24", "-noreset"]
        server = subprocess.Popen([*command, "-nolisten", "tcp"], pass_fds=[writing], stderr=subprocess.DEVNULL)
        os.close(writing)
        try:
            assert select.select([number], [], [], PATIENCE_S)[0], "the X server did not start"
            display = number.readline().strip()
            assert display, f"the X server ended: {server.wait(PATIENCE_S)}"
            yield f":{display}"
        finally:
            server.terminate()
            server.wait(PATIENCE_S)
