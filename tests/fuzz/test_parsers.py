"""Every parser of bytes from outside, with bytes changed at random: its documented errors and no other.

In ``make fuzz`` twice: by hypothesis, and guided by what the code does with them, by atheris.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.budget import SECONDS, given_for_a_while, quick
from tests.fuzz.mutations import mutations
from tests.fuzz.parsers import TARGETS

ROOT = Path(__file__).resolve().parents[2]


@st.composite
def changed(draw: st.DrawFn, name: str) -> bytes:
    seeds = TARGETS[name].seeds
    return draw(mutations(draw(st.sampled_from(seeds)), b"".join(seed[:200] for seed in seeds)))


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_is_read(name: str) -> None:
    """Without this, every change would end at the first check."""
    for seed in TARGETS[name].seeds[:2]:
        TARGETS[name].read(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_raises_what_it_says(name: str) -> None:
    @quick(150)
    @given(changed(name))
    def run(data: bytes) -> None:
        TARGETS[name].check(data)

    run()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_raises_what_it_says_for_long(name: str) -> None:
    given_for_a_while(changed(name), TARGETS[name].check, 500, SECONDS / 4)  # atheris has the rest of it


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_atheris_finds_nothing(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: make fuzz installs it where it has a wheel (Linux on x86-64)")
    command = [sys.executable, "-m", "tests.fuzz.atheris_parsers", name, str(tmp_path), str(SECONDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, timeout=SECONDS + 300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-8000:]
