"""What a task is: how input becomes the model's tensors, and how raw output becomes an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError
from engine.model_spec import ModelSpec
from engine.prediction import Predictions

Arrays = dict[str, NDArray[Any]]
Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table as tensors: ``arrays`` hold one row for each entry of ``numbers`` (indices of the rows given), in order;
    ``errors`` says why the other rows have none."""

    arrays: Arrays
    numbers: list[int]
    errors: dict[int, EngineError] = field(default_factory=dict)


CONTEXT = "deskside:context"
"""The key under which raw outputs carry what a task noted of each row for its postprocessing: an object array with one
entry a row. No model's output has this name."""


@dataclass(frozen=True, slots=True)
class Windows:
    """One long input (a text, a recording, a large picture) as ``rows`` rows of equal shapes, in order, which answer
    together: :meth:`Task.post` gives one answer for them.

    ``context`` is what postprocessing needs to know of each row, empty or one entry a row. Where ``source`` is set the
    rows are made when they are run, by ``source(first, last)``, and ``arrays`` have no rows: they tell names, dtypes
    and shapes. Where ``reduce`` is set it makes of each call's outputs, as they come, what is kept of them (a row for
    each row); it may raise an EngineError.
    """

    arrays: Arrays
    rows: int
    context: Sequence[Any] = ()
    source: Callable[[int, int], Arrays] | None = None
    reduce: Callable[[Arrays], Arrays] | None = None


class Task(Protocol):
    """One task of one model. Everything is pure: the same input gives the same tensors, the same raw output the same
    answer."""

    takes_images: bool
    takes_tables: bool

    def check(self) -> None:
        """Raises LoadFailed where the model cannot do this task as it is described (a picture would not fit)."""

    def from_image(self, data: bytes) -> Arrays | Windows:
        """The tensors of one encoded picture, one row, or the pieces it is cut into. Raises UnusableInput. Only where
        ``takes_images``."""

    def from_table(self, rows: Sequence[Mapping[str, Any]], *, decimal_comma: bool = False) -> TableRows:
        """The tensors of a table's rows (at least one). Raises UnusableInput where no row can be used for a reason that
        lies in the table (``column_missing``). Only where ``takes_tables``."""

    def read_params(self, params: Params) -> Params:
        """The parameters this task knows, checked, others dropped. Raises Malformed."""

    def post(self, raw: Arrays, params: Params) -> Sequence[Predictions | EngineError]:
        """One answer for each row of ``raw``, or one for all of them where they are :class:`Windows` of one input;
        ``params`` come from :meth:`read_params`. In an answer ``bytes`` are an encoded picture and arrays numbers
        (:mod:`engine.answer_parts`)."""


@runtime_checkable
class TakesText(Protocol):
    """A task that takes texts."""

    def from_text(self, text: str) -> Windows:
        """The tensors of one text. Raises UnusableInput, InputTooLarge."""


@runtime_checkable
class TakesAudio(Protocol):
    """A task that takes recordings."""

    def from_audio(self, data: bytes) -> Windows:
        """The tensors of one encoded recording. Raises UnusableInput, InputTooLarge."""


def scaling_range(text: str) -> tuple[float, float]:
    """``"-1..1"`` as (-1.0, 1.0): the values black and white become. Raises ValueError."""
    low, separator, high = text.partition("..")
    if not separator:
        raise ValueError(f"scaling must look like '0..1', not {text!r}")
    bounds = float(low), float(high)
    if not np.isfinite(bounds).all() or bounds[0] == bounds[1]:
        raise ValueError(f"scaling must name two different numbers, not {text!r}")
    return bounds


def not_taken(spec: ModelSpec) -> AssertionError:
    """A caller that did not look at ``takes_images`` or ``takes_tables``."""
    return AssertionError(f"task {spec.task} was given an input it does not take")
