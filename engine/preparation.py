"""What became of a model's preparation: what its process tells once it has tried, and what stands in the card.

A worker that answers already tries, beside its answers, faster ways to run its weights (``engine.worker.preparing``).
The words here are few and fixed, because the front ends say them in their own language.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from engine.protocol import ProtocolError

MAX_GAIN = 1e6
MAX_STREAMS = 8


class PreparationState(StrEnum):
    OFF = "off"
    """Switched off in the settings."""
    RUNNING = "running"
    USED = "used"
    UNUSED = "unused"
    """Nothing was found that is as right and faster; ``reason`` says why."""
    WITHDRAWN = "withdrawn"
    """It was used, and failed where the untouched model answers: that one answers from then on."""


class Step(StrEnum):
    """A change to how the model is run."""

    CHANNELS_LAST = "channels-last"
    TRACED = "traced"
    FROZEN = "frozen"
    OPTIMISED = "optimised"


class Reason(StrEnum):
    """Why a preparation is not used."""

    SLOWER = "slower"
    DIFFERS = "differs"
    RANDOM = "random"
    """The untouched model answers the same question differently."""
    DEPENDS = "depends"
    """Its code looks at the values of its input."""
    FAILED = "failed"
    """A faster way could not be made, or raised."""
    NO_SAMPLE = "no sample"
    """Nothing tells the size of its input, and it has no golden sample."""
    TOO_LARGE = "too large"
    """Its weights would be held twice."""
    UNKNOWN = "unknown"
    """Nothing faster is known for what runs it."""
    DIED = "died"
    """Its process ended meanwhile, and was started again without."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """``steps`` are those in use, ``gain`` how many times as fast they were in a probe. ``batch`` are the rows of one
    run beyond which a probe found nothing to win, None where more are always better; ``streams`` how many batches are
    run at once, each in a thread of its own over the same weights."""

    state: PreparationState
    steps: tuple[Step, ...] = ()
    gain: float | None = None
    reason: Reason | None = None
    batch: int | None = None
    streams: int = 1

    def withdrawn(self, reason: Reason) -> Preparation:
        """After it failed in use."""
        return replace(self, state=PreparationState.WITHDRAWN, steps=(), gain=None, reason=reason, streams=1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"steps": list(self.steps)}

    @classmethod
    def read(cls, told: Any) -> Preparation:
        """What a worker told. Raises ProtocolError for anything that :meth:`to_json` does not write."""
        try:
            gain, batch, reason = told["gain"], told["batch"], told["reason"]
            read = cls(
                PreparationState(told["state"]),
                tuple(Step(step) for step in told["steps"]),
                None if gain is None else float(gain),
                None if reason is None else Reason(reason),
                None if batch is None else int(batch),
                int(told["streams"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"a preparation that is none: {error}") from error
        if read.gain is not None and not (math.isfinite(read.gain) and 0.0 < read.gain <= MAX_GAIN):
            raise ProtocolError("a preparation's gain that is no number")
        if read.batch is not None and not 1 <= read.batch <= 1024:
            raise ProtocolError("a preparation's batch that is none")
        if not 1 <= read.streams <= (MAX_STREAMS if read.state is PreparationState.USED else 1):
            raise ProtocolError("a number of streams that is none")
        return read
