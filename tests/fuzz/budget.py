"""How long a fuzzer runs: a fixed number of the same examples in ``make test``, others for a time in the long form.

The long form is marked slow. ``FUZZ_SECONDS`` says how many seconds each target gets there: 10 in ``make test-all``, 60
in ``make fuzz``, what the caller wants anywhere. What it finds becomes a numbered case of
``tests/fuzz/test_findings.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))
CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)
"""Checks of how fast a test is; a busy machine is no finding."""

settings.register_profile(
    "deskside-fuzz-quick", derandomize=True, deadline=None, database=None, suppress_health_check=CHECKS
)
settings.register_profile(
    "deskside-fuzz-long", derandomize=False, deadline=None, database=None, suppress_health_check=CHECKS
)


def quick(examples: int, **more: int) -> settings:
    """The same ``examples`` every time, so that a run says something about the change and not about luck."""
    return settings(settings.get_profile("deskside-fuzz-quick"), max_examples=examples, **more)


def for_a_while(run: Callable[[settings], object], examples: int = 500, seconds: float = SECONDS, **more: int) -> int:
    """Run fresh examples, ``examples`` at a time, until ``seconds`` are over; how often ``run`` ran.

    Shrinking a finding takes as long as it takes: the time bounds the search only.
    """
    until, rounds = time.monotonic() + seconds, 0
    phases = (Phase.explicit, Phase.generate, Phase.target, Phase.shrink)
    while not rounds or time.monotonic() < until:
        run(settings(settings.get_profile("deskside-fuzz-long"), max_examples=examples, phases=phases, **more))
        rounds += 1
    return rounds


def given_for_a_while(
    strategy: st.SearchStrategy[Any], check: Callable[[Any], object], examples: int = 500, seconds: float = SECONDS
) -> int:
    """:func:`for_a_while` over what ``strategy`` makes; a function may be given its settings once, so each round has
    its own."""

    def one_round(how: settings) -> None:
        def run(value: Any) -> None:
            check(value)

        how(given(strategy)(run))()

    return for_a_while(one_round, examples, seconds)
