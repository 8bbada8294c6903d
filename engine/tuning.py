"""What the owner does to an open model beyond asking it: golden samples, its sidecar, and trying out conventions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from engine import golden
from engine.conventions import candidates, is_current
from engine.errands import Errands
from engine.errors import EngineError, LoadFailed, Loading, PredictionExpired, SidecarInvalid, UnusableInput
from engine.futures import all_settled, reject, resolve
from engine.golden import GoldenReport, GoldenSample
from engine.golden_checks import GoldenChecks, location_of
from engine.inspector_client import InspectorClient, Reply
from engine.jobs import Job, make_job
from engine.model_host import ModelHost
from engine.model_spec import ModelSpec
from engine.prediction import Convention, Prediction, PredictRequest
from engine.sidecar_file import changed_text, find_sidecar, preprocessing_fields, read_text, write_sidecar
from engine.versions import VersionedModel

CHECK_TIMEOUT_S = 20.0
TRY_TIMEOUT_S = 60.0

Find = Callable[[], VersionedModel]
"""The model that is meant. Raises ModelNotFound, or why there is none."""


class Tuning:
    """Every method returns at once; what takes time, and every error, comes through its future."""

    def __init__(self, inspector: InspectorClient, errands: Errands, checks: GoldenChecks, data_dir: Path) -> None:
        self._inspector = inspector
        self._errands = errands
        self._checks = checks
        self._data_dir = data_dir
        self._writing = threading.Lock()

    # -- golden samples --------------------------------------------------------------------------------------------
    def golden_sample(self, find: Find) -> Future[GoldenSample | None]:
        def read() -> GoldenSample | None:
            model = find()
            try:
                return self._checks.sample(model, model.serving)
            except golden.GoldenInvalid as error:
                raise UnusableInput(str(error)) from error

        return self._errands.ask(read)

    def check_golden(self, find: Find) -> Future[GoldenReport]:
        future: Future[GoldenReport] = Future()
        try:
            model = find()
        except EngineError as error:
            reject(future, error)
            return future
        if model.serving.loaded is None:
            reject(future, Loading(f"{model.id} is not loaded."))
        else:
            self._checks.check(model, model.serving, partial(_settle, future, model.id))
        return future

    def keep_golden(self, find: Find, job: Job | None) -> Future[GoldenReport]:
        """Store the question and the answer of ``job``, then check: the sample is one that can be answered again."""
        future: Future[GoldenReport] = Future()

        def keep() -> None:
            model = find()
            if job is None or not job.future.done() or job.future.cancelled() or job.future.exception() is not None:
                raise PredictionExpired("This answer is no longer kept. Ask again.")
            loaded = model.serving.loaded
            try:
                golden.keep_golden(
                    golden.kept_folder(self._data_dir, location_of(model)),
                    job.request,
                    job.future.result(),
                    loaded.fingerprint if loaded is not None else "",
                )
            except OSError as error:
                raise UnusableInput(f"The answer could not be stored: {error.strerror or error}.") from error
            model.clear_golden()
            self._checks.check(model, model.serving, partial(_settle, future, model.id))

        kept = self._errands.ask(keep)
        kept.add_done_callback(partial(_pass_on_error, future))
        return future

    def forget_golden(self, find: Find) -> Future[None]:
        def forget() -> None:
            model = find()
            try:
                golden.forget_golden(golden.kept_folder(self._data_dir, location_of(model)))
            except OSError as error:
                raise UnusableInput(f"The kept answer could not be removed: {error.strerror or error}.") from error
            model.clear_golden()
            self._checks.check(model, model.serving, lambda report: None)

        return self._errands.ask(forget)

    # -- the sidecar -----------------------------------------------------------------------------------------------
    def save_sidecar(self, find: Find, changes: Mapping[str, Any]) -> Future[Path]:
        """The future is the file written. What it states holds from the next load on."""
        future: Future[Path] = Future()

        def write() -> None:
            spec = _spec_of(find())
            with self._writing:
                old = find_sidecar(spec.path, spec.model_file, self._data_dir)
                text = changed_text(read_text(old), changes)
            call = self._inspector.call(
                "check_sidecar", {"name": old.name if old is not None else ""}, [text.encode()],
                timeout_s=CHECK_TIMEOUT_S,
            )  # fmt: skip
            call.add_done_callback(partial(self._after_check, future, partial(self._write, find, changes)))

        self._errands.ask(write).add_done_callback(partial(_pass_on_error, future))
        return future

    def _write(self, find: Find, changes: Mapping[str, Any]) -> Path:
        spec = _spec_of(find())
        with self._writing:
            # Read again: the person's editor, or another call, may have been faster.
            text = changed_text(read_text(find_sidecar(spec.path, spec.model_file, self._data_dir)), changes)
            try:
                return write_sidecar(spec.path, spec.model_file, self._data_dir, text)
            except OSError as error:
                raise SidecarInvalid(f"The sidecar could not be written: {error.strerror or error}.") from error

    def apply_preprocessing(self, find: Find, changes: Mapping[str, Any]) -> Future[ModelSpec]:
        """The future is the spec as it then is. Both doors use it at once; a new load reads the sidecar instead."""
        future: Future[ModelSpec] = Future()

        def check() -> None:
            find()
            preprocessing_fields(changes)
            text = changed_text("", changes)
            call = self._inspector.call("check_sidecar", {"name": ""}, [text.encode()], timeout_s=CHECK_TIMEOUT_S)
            call.add_done_callback(partial(self._after_check, future, partial(self._apply, find, changes)))

        self._errands.ask(check).add_done_callback(partial(_pass_on_error, future))
        return future

    def _apply(self, find: Find, changes: Mapping[str, Any]) -> ModelSpec:
        model = find()
        spec = model.serving.apply_preprocessing(preprocessing_fields(changes))
        model.clear_golden()
        self._checks.check(model, model.serving, lambda report: None)
        return spec

    def _after_check(self, future: Future[Any], then: Callable[[], Any], call: Future[Reply]) -> None:
        """Called by the inspector's thread: what follows touches disks, and so is an errand."""
        if call.cancelled():
            reject(future, SidecarInvalid("The sidecar could not be checked."))
        elif (error := call.exception()) is not None:
            reject(future, error)
        else:
            done = self._errands.ask(then)
            done.add_done_callback(lambda d: _pass_on(future, d))

    # -- conventions -----------------------------------------------------------------------------------------------
    def try_conventions(
        self, find: Find, data: bytes, content_type: str | None, next_id: Callable[[], int]
    ) -> Future[list[Convention]]:
        """The ways in which this picture can be prepared at all, with what the model answers to each."""
        future: Future[list[Convention]] = Future()
        try:
            model = find()
            spec = _spec_of(model)
            ways = candidates(spec)
            if not ways:
                raise UnusableInput(f"Everything about the pictures of {model.id} is stated; there is nothing to try.")
            questions = [
                (changes, words, _ask(model.serving, model.id, spec, changes, data, content_type, next_id()))
                for changes, words in ways
            ]
        except EngineError as error:
            reject(future, error)
            return future

        def gather(_: Future[None]) -> None:
            found = []
            for changes, words, answer in questions:
                if not answer.cancelled() and answer.exception() is None:
                    prediction = answer.result()
                    predictions = prediction.predictions or []
                    found.append(Convention(changes, words, predictions, prediction, is_current(spec, changes)))
            if found:
                resolve(future, found)
            else:
                reject(future, questions[0][2].exception() or UnusableInput("No convention gave an answer."))

        all_settled([answer for _, _, answer in questions]).add_done_callback(gather)
        return future


def _ask(
    host: ModelHost,
    model_id: str,
    spec: ModelSpec,
    changes: dict[str, Any],
    data: bytes,
    content_type: str | None,
    number: int,
) -> Future[Prediction]:
    """One convention's question, in the owner's lane. Raises Malformed, LoadFailed."""
    how = spec.to_json()["preprocessing"] | changes
    request = PredictRequest(model_id, data, content_type, timeout_s=TRY_TIMEOUT_S)
    job = make_job(f"m{host.serial}-try-{number}", request, own=True, preprocessing=how)
    if not host.predict(job):
        raise LoadFailed(f"{model_id} is being replaced by its next version. Try again.")
    return job.future


def _spec_of(model: VersionedModel) -> ModelSpec:
    """Raises Loading where nothing has been loaded yet."""
    loaded = model.serving.loaded
    if loaded is None:
        raise Loading(f"{model.id} is not loaded.")
    return loaded.spec


def _settle(future: Future[GoldenReport], model_id: str, report: GoldenReport | None) -> None:
    if report is None:
        reject(future, UnusableInput(f"{model_id} has no golden sample.", code="no_golden_sample"))
    else:
        resolve(future, report)


def _pass_on_error(future: Future[Any], done: Future[Any]) -> None:
    if (error := done.exception()) is not None:
        reject(future, error)


def _pass_on(future: Future[Any], done: Future[Any]) -> None:
    if (error := done.exception()) is not None:
        reject(future, error)
    else:
        resolve(future, done.result())
