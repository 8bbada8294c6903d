"""Asking a loaded model its golden sample, through the batch lane, and telling what came of it; letting the model be
prepared with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.errors import EngineError, ModelFailed
from engine.golden import GoldenInvalid, GoldenReport, GoldenSample, find_golden
from engine.jobs import make_job
from engine.model_host import ModelHost
from engine.prediction import Prediction
from engine.versions import VersionedModel

log = logging.getLogger(__name__)

TIMEOUT_S = 120.0
"""A sample waits behind everybody's work."""
WINDOW = "window"

Done = Callable[[GoldenReport | None], None]


class GoldenChecks:
    """``later`` calls a function on another thread; ``next_id`` numbers the questions."""

    def __init__(self, data_dir: Path, later: Callable[..., None], next_id: Callable[[], int]) -> None:
        self._data_dir = data_dir
        self._later = later
        self._next_id = next_id

    def check(self, model: VersionedModel, host: ModelHost, done: Done) -> None:
        """Ask ``host`` its sample; ``done`` gets the report, or None where there is no sample. Never blocks."""
        self._later(self._ask, model, host, done)

    def prepare(self, model: VersionedModel, host: ModelHost, *, wanted: bool) -> None:
        """Let ``host`` be made faster, held to its golden sample where it has one. Never blocks."""
        self._later(self._prepare, model, host, wanted)

    def _prepare(self, model: VersionedModel, host: ModelHost, wanted: bool) -> None:
        job = None
        try:
            if (sample := self.sample(model, host)) is not None:
                job = make_job(
                    f"m{host.serial}-prepare-{self._next_id()}", sample.request(model.id, timeout_s=TIMEOUT_S), own=True
                )
        except (GoldenInvalid, EngineError) as error:
            log.info("%s is prepared without its golden sample: %s", model.id, error)
        host.prepare(job, wanted=wanted)

    def sample(self, model: VersionedModel, host: ModelHost) -> GoldenSample | None:
        """Reads disk. Raises GoldenInvalid."""
        if host.loaded is None:
            return None
        spec = host.loaded.spec
        sample = find_golden(spec, location_of(model), self._data_dir)
        return replace(sample, classes=len(spec.labels) or None) if sample is not None else None

    def _ask(self, model: VersionedModel, host: ModelHost, done: Done) -> None:
        try:
            sample = self.sample(model, host)
        except GoldenInvalid as error:
            blank = GoldenSample(b"", "", {}, {}, 0.0, "golden sample")
            self._tell(model, blank.unanswered(error, door=WINDOW, version=host.version), done)
            return
        if sample is None:
            done(None)
            return
        try:
            request = sample.request(model.id, timeout_s=TIMEOUT_S)
            job = make_job(f"m{host.serial}-golden-{self._next_id()}", request, own=True)
            if not host.predict(job):
                raise ModelFailed(f"Version {host.version} of {model.id} takes no more requests.")
        except EngineError as error:
            self._tell(model, sample.unanswered(error, door=WINDOW, version=host.version), done)
            return
        compare = partial(self._later, self._compare, model, host, sample, done)
        job.future.add_done_callback(compare)

    def _compare(
        self, model: VersionedModel, host: ModelHost, sample: GoldenSample, done: Done, future: Future[Prediction]
    ) -> None:
        try:
            report = sample.compare(future.result().to_json(), door=WINDOW, version=host.version)
        except (EngineError, CancelledError) as error:
            report = sample.unanswered(error, door=WINDOW, version=host.version)
        self._tell(model, report, done)

    @staticmethod
    def _tell(model: VersionedModel, report: GoldenReport, done: Done) -> None:
        model.record_golden(report)
        done(report)


def location_of(model: VersionedModel) -> Path:
    """The place that stands for the model, whatever its version."""
    return model.location if isinstance(model.location, Path) else model.location.path
