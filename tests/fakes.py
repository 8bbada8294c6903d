"""Fakes at the named seams: an engine without processes, and a server without sockets.

``FakeEngine`` has the public face of :class:`engine.Engine`; ``tests/engine/test_engine_contract.py`` holds both to the
same contract. Answers are decided by ``answer`` so that a test can make the engine slow, wrong or failing.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import EngineError, LoadCancelled, LoadFailed, ModelNotFound, SettingsInvalid, UnusableInput
from engine.events import Event, EventBus, LoadProgress, LoadStage, ModelState, ModelStateChanged, Snapshot
from engine.golden import GoldenReport, GoldenSample, golden_entry
from engine.model_spec import ASSUMED, SIDECAR, ModelSpec, TensorSpec, TrustClass
from engine.prediction import (
    AudioPreview,
    Convention,
    ImagePreview,
    LoadTicket,
    Prediction,
    PredictRequest,
    TablePreview,
)
from engine.serving_types import (
    InterfaceKind,
    KeyInfo,
    NetworkInterface,
    ReachReport,
    RequestRecord,
    RequestState,
    ServerPhase,
    ServerProblem,
    ServerScope,
    ServerState,
    ServerUrl,
)
from engine.settings import EngineLimits, ServerSettings
from engine.sidecar_file import preprocessing_fields
from engine.statistics import Statistics

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TIMING = {"decode": 1.2, "wait": 0.1, "infer": 3.4, "post": 0.1, "total": 4.8}


def spec(model_id: str = "digits-keras", task: str = "image-classification", **changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "path": Path(f"/models/{model_id}"),
        "model_file": Path(f"/models/{model_id}/model.keras"),
        "format": "keras",
        "runtime": "keras",
        "task": task,
        "trust_class": TrustClass.DATA,
        "id": model_id,
        "inputs": (TensorSpec("image", "float32", (-1, 32, 32, 1)),),
        "outputs": (TensorSpec("probabilities", "float32", (-1, 10)),),
        "labels": DIGITS,
    }
    return ModelSpec(**(values | changes))


def answer_three(request: PredictRequest) -> Prediction:
    best = [{"label": "three", "score": 0.91}, {"label": "eight", "score": 0.06}, {"label": "five", "score": 0.02}]
    return Prediction("p1", request.model, "image-classification", dict(TIMING), predictions=best)


class FakeEngine:
    """The engine's face, answered on the caller's thread (or by hand: set ``hold`` and resolve ``held``)."""

    def __init__(self, models: tuple[ModelSpec, ...] = ()) -> None:
        self.bus = EventBus()
        self.answer: Callable[[PredictRequest], Prediction] = answer_three
        self.load_error: EngineError | None = None
        self.hold = False
        self.held: list[tuple[PredictRequest, Future[Prediction]]] = []
        self.hold_loads = False
        self.held_loads: list[tuple[str, Future[dict[str, Any]]]] = []
        self.requests: list[PredictRequest] = []
        self.records: list[RequestRecord] = []
        self.unloaded: list[str] = []
        self.closed = False
        self.limits = EngineLimits()  # type: ignore[call-arg]
        self.spares_asked: list[str | Path | None] = []
        self.golden: dict[str, GoldenSample] = {}
        self.saved: list[tuple[str, dict[str, Any]]] = []
        self._reports: dict[str, dict[str, GoldenReport]] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, Any]] = {}
        self._found: dict[str, dict[str, Any]] = {}
        for model in models:
            self.add(model)

    # -- what a test uses ------------------------------------------------------------------------------------------
    def add(self, model: ModelSpec, state: ModelState = ModelState.READY) -> dict[str, Any]:
        entry = {
            "id": model.id,
            "task": model.task,
            "format": model.format,
            "runtime": model.runtime,
            "device": "cpu",
            "state": str(state),
            "loads": 1,
            "requests": {"window": 0, "network": 0},
            "inferences": 0,
            "statistics": Statistics().to_json(),
            "worker_pid": 4242,
            "waiting": 0,
            "running": 0,
            "restarts": 0,
            "error": None,
            "offered": True,
            "path": str(model.path),
            "spec": model.to_json(),
            "version": model.version,
            "versions": [model.version],
            "workers": [{"version": model.version, "state": str(state), "worker_pid": 4242}],
            "swap": None,
            "swap_error": None,
            "golden": None,
            "precision": model.precision or "float32",
            "threads": 2,
            "sandbox": {
                "level": "full",
                "files": True,
                "network": True,
                "processes": True,
                "memory": True,
                "reasons": [],
            },
            "preparation": None,
            "keeps_memory": True,
            "max_batch_size": self.limits.max_batch_size,
            "memory": 300_000_000,
            "device_memory": None,
            "pinned": False,
        }
        self._models[model.id] = entry
        self._found.setdefault(model.id, model.to_json())
        return entry

    def publish(self, event: Event) -> None:
        self.bus.publish(event)

    def publish_progress(self, model_id: str, stage: LoadStage, fraction: float | None = None) -> None:
        self.bus.publish(LoadProgress(model_id, stage, fraction))

    def publish_snapshot(self) -> None:
        self.bus.publish(Snapshot(self.stats(), tuple(self.records)))

    # -- the engine's face -----------------------------------------------------------------------------------------
    def load(
        self,
        source: str | Path | ModelSpec,
        device: str | None = None,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
    ) -> LoadTicket:
        model = source if isinstance(source, ModelSpec) else spec(Path(source).name, path=Path(source))
        future: Future[dict[str, Any]] = Future()
        ticket = LoadTicket(model.id, future, lambda: future.set_exception(LoadCancelled("The load was cancelled.")))
        self.bus.publish(ModelStateChanged(model.id, ModelState.STARTING))
        if self.hold_loads:
            self.held_loads.append((model.id, future))
        elif self.load_error is not None:
            self.bus.publish(ModelStateChanged(model.id, ModelState.FAILED, self.load_error))
            future.set_exception(self.load_error)
        else:
            entry = self.add(model)
            self.bus.publish(ModelStateChanged(model.id, ModelState.READY))
            future.set_result(entry)
        return ticket

    def unload(self, model_id: str) -> Future[None]:
        future: Future[None] = Future()
        if self._models.pop(model_id, None) is None:
            future.set_exception(ModelNotFound("No such model is open."))
        else:
            self.unloaded.append(model_id)
            self.bus.publish(ModelStateChanged(model_id, ModelState.UNLOADED))
            future.set_result(None)
        return future

    def offer(
        self,
        path: str | Path,
        device: str | None = None,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
    ) -> str:
        return str(self.add(spec(Path(path).name, path=Path(path)), ModelState.UNLOADED)["id"])

    def reload(
        self, model_id: str, trust: bool = False, device: str | None = None, precision: str | None = None
    ) -> LoadTicket:
        future: Future[dict[str, Any]] = Future()
        ticket = LoadTicket(model_id, future, lambda: future.set_exception(LoadCancelled("The load was cancelled.")))
        entry = self._models.get(model_id)
        if entry is None:
            future.set_exception(ModelNotFound("No such model is open."))
        elif self.hold_loads:
            self.held_loads.append((model_id, future))
        elif self.load_error is not None:
            entry["swap_error"] = {"code": self.load_error.code, "message": self.load_error.message}
            future.set_exception(self.load_error)
        else:
            entry["version"] = str(len(entry["versions"]) + 1)
            entry["versions"] = [*entry["versions"], entry["version"]]
            entry["loads"] += 1
            entry["swap_error"] = None
            future.set_result(entry)
        return ticket

    def rollback(self, model_id: str) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        entry = self._models.get(model_id)
        if entry is None:
            future.set_exception(ModelNotFound("No such model is open."))
        elif len(entry["versions"]) < 2:
            future.set_exception(LoadFailed(f"{model_id} has no earlier version to go back to."))
        else:
            *others, before, now = entry["versions"]
            entry["version"], entry["versions"] = before, [*others, now, before]
            future.set_result(entry)
        return future

    def golden_sample(self, model_id: str) -> Future[GoldenSample | None]:
        return self._of(model_id, lambda entry: self.golden.get(model_id))

    def check_golden(self, model_id: str) -> Future[GoldenReport]:
        def check(entry: dict[str, Any]) -> GoldenReport:
            sample = self.golden.get(model_id)
            if sample is None:
                raise UnusableInput(f"{model_id} has no golden sample.", code="no_golden_sample")
            answer = self.answer(PredictRequest(model_id, sample.data, sample.content_type, lane="batch")).to_json()
            report = sample.compare(answer, door="window", version=entry["version"])
            self.record_golden(model_id, report)
            return report

        return self._of(model_id, check)

    def keep_golden(self, prediction_id: str) -> Future[GoldenReport]:
        if not self.requests:
            return self._of("", lambda entry: None)
        request = self.requests[-1]
        answer = self.answer(request).to_json()
        kind = next(kind for kind in ("predictions", "results", "outputs") if kind in answer)
        data = request.data if isinstance(request.data, bytes) else b"{}"
        self.golden[request.model] = GoldenSample(
            data, request.content_type or "", dict(request.params), {kind: answer[kind]}, 1e-3, "kept answer"
        )
        return self.check_golden(request.model)

    def forget_golden(self, model_id: str) -> Future[None]:
        def forget(entry: dict[str, Any]) -> None:
            self.golden.pop(model_id, None)
            self._reports.pop(model_id, None)
            entry["golden"] = None

        return self._of(model_id, forget)

    def record_golden(self, model_id: str, report: GoldenReport) -> None:
        reports = self._reports.setdefault(model_id, {})
        reports[report.door] = report
        self._models[model_id]["golden"] = golden_entry(reports)

    def save_sidecar(self, model_id: str, changes: Mapping[str, Any]) -> Future[Path]:
        def save(entry: dict[str, Any]) -> Path:
            self.saved.append((model_id, dict(changes)))
            return Path(entry["path"]) / "deskside.toml"

        return self._of(model_id, save)

    def try_conventions(self, model_id: str, data: bytes, content_type: str | None = None) -> Future[list[Convention]]:
        def answers(entry: dict[str, Any]) -> list[Convention]:
            request = PredictRequest(model_id, data, content_type)
            now = entry["spec"]["preprocessing"]["scaling"]
            found = []
            for scaling in ("0..255", "0..1", "-1..1"):
                prediction = self.answer(request)
                predictions = prediction.predictions or []
                changes = {"scaling": scaling}
                found.append(Convention(changes, f"values {scaling}", predictions, prediction, scaling == now))
            return found

        return self._of(model_id, answers)

    def apply_preprocessing(self, model_id: str, changes: Mapping[str, Any]) -> Future[ModelSpec]:
        def apply(entry: dict[str, Any]) -> ModelSpec:
            found = self._found[model_id]
            for name, value in preprocessing_fields(changes).items():
                key, back = f"preprocessing.{name}", value is None
                entry["spec"]["preprocessing"][name] = found["preprocessing"][name] if back else value
                entry["spec"]["evidence"][key] = found["evidence"].get(key, ASSUMED) if back else SIDECAR
            return ModelSpec.from_json(entry["spec"])

        return self._of(model_id, apply)

    def _of(self, model_id: str, ask: Callable[[dict[str, Any]], Any]) -> Future[Any]:
        """What ``ask`` says of an open model's entry, as a future."""
        future: Future[Any] = Future()
        entry = self._models.get(model_id)
        try:
            if entry is None:
                raise ModelNotFound("No such model is open.")
            future.set_result(ask(entry))
        except EngineError as error:
            future.set_exception(error)
        return future

    def predict(self, request: PredictRequest) -> Future[Prediction]:
        future: Future[Prediction] = Future()
        self.requests.append(request)
        entry = self._models.get(request.model)
        if entry is None:
            future.set_exception(ModelNotFound("No such model is open."))
            return future
        if self.hold:
            self.held.append((request, future))
            return future
        try:
            prediction = self.answer(request)
        except EngineError as error:
            future.set_exception(error)
            return future
        door = "window" if request.lane in ("owner", "batch") else "network"
        entry["requests"][door] += 1
        entry["inferences"] += 1
        size = len(request.data) if isinstance(request.data, bytes) else 0
        self.records.insert(
            0,
            RequestRecord(
                f"r{next(self._ids)}", time.time(), str(request.lane), request.client or "you", request.model,
                RequestState.ANSWERED, size, 0.1, 3.4,
            ),
        )  # fmt: skip
        future.set_result(prediction)
        return future

    def refine(self, prediction_id: str, params: dict[str, Any]) -> Future[Prediction]:
        future: Future[Prediction] = Future()
        future.set_result(self.answer(PredictRequest(next(iter(self._models)), b"", params=params)))
        return future

    def inspect(self, path: str | Path) -> Future[ModelSpec]:
        future: Future[ModelSpec] = Future()
        future.set_result(spec(Path(path).name, path=Path(path)))
        return future

    def preview_image(self, source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        future: Future[ImagePreview] = Future()
        width, height = 64, 48
        pixels = bytes(v for y in range(height) for x in range(width) for v in (x * 4, y * 5, 128))
        future.set_result(ImagePreview(width, height, pixels, (640, 480)))
        return future

    def preview_table(self, source: bytes | Path, max_rows: int = 1000) -> Future[TablePreview]:
        future: Future[TablePreview] = Future()
        rows = (("14.23", "1.71", "3.92"), ("13.2", "1.78", "1.05"))
        future.set_result(TablePreview(("alcohol", "malic_acid", "hue"), rows, len(rows)))
        return future

    def preview_audio(self, source: bytes | Path, points: int = 1000) -> Future[AudioPreview]:
        future: Future[AudioPreview] = Future()
        high = tuple(abs((i % 20) - 10) / 10 for i in range(200))
        future.set_result(AudioPreview(2.5, 16_000, 1, tuple(-value for value in high), high))
        return future

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        return self.bus.subscribe(listener)

    def stats(self) -> dict[str, Any]:
        models = [dict(entry) for entry in self._models.values()]
        mine = sum(entry["memory"] for entry in models if entry["state"] == "READY")
        memory = {
            "total": 16_000_000_000, "available": 10_000_000_000, "models": mine, "others": 6_000_000_000 - mine,
            "devices": [], "budget": self.limits.memory_budget_mb * 1_000_000 or None,
        }  # fmt: skip
        return {"models": models, "memory": memory, "waiting": 0, "running": 0, "sandbox": None}

    def pin(self, model_id: str, pinned: bool) -> None:
        if model_id not in self._models:
            raise ModelNotFound("No such model is open.")
        self._models[model_id]["pinned"] = pinned

    def keep_spares(self, model: str | Path | None = None) -> None:
        self.spares_asked.append(model)

    def limit(self, limits: EngineLimits) -> None:
        self.limits = limits
        for entry in self._models.values():
            entry["max_batch_size"] = limits.max_batch_size

    def cancel(self, request_id: str) -> bool:
        return any(future.cancel() for _, future in self.held if not future.done())

    def requests(self) -> tuple[RequestRecord, ...]:
        return tuple(self.records)

    def close(self) -> None:
        self.closed = True


class FakeServer:
    """The window's ServerPort without a socket. Set ``error`` to make the next start fail."""

    def __init__(self) -> None:
        self._state = ServerState(port=8765)
        self._listeners: list[Callable[[ServerState], None]] = []
        self.error: EngineError | None = None
        self.problem: ServerProblem | None = None
        self.starts: list[tuple[ServerScope, int]] = []
        self.golden_checks: list[str] = []
        self.golden_report: GoldenReport | None = None
        self.keys: dict[str, KeyInfo] = {}
        self.removed: KeyInfo | None = None
        self.reach = ReachReport()
        self.networks: tuple[NetworkInterface, ...] = (
            NetworkInterface("eth0", ("192.168.1.24",), InterfaceKind.NETWORK, True),
            NetworkInterface("wg0", ("10.8.0.2",), InterfaceKind.VPN, False),
        )
        self.lines: tuple[str, ...] = ()
        self.applied: list[ServerSettings] = []

    @property
    def state(self) -> ServerState:
        return self._state

    def publish(self, state: ServerState) -> None:
        self._state = state
        for listener in tuple(self._listeners):
            listener(state)

    def start(self, scope: ServerScope, port: int) -> ServerState:
        self.starts.append((scope, port))
        if self.error is not None:
            self.publish(ServerState(ServerPhase.FAILED, ServerScope.OFF, port, problem=self.problem))
            raise self.error
        urls = [ServerUrl(f"http://127.0.0.1:{port}", "this computer", True)]
        key = None
        if scope is ServerScope.NETWORK:
            urls.insert(0, ServerUrl(f"http://192.168.1.24:{port}", "eth0", False))
            key = KeyInfo("window", "3f9a", time.time(), "k" * 39 + "3f9a")
        self.publish(ServerState(ServerPhase.RUNNING, scope, port, tuple(urls), key, key is not None))
        return self._state

    def stop(self) -> ServerState:
        self.publish(ServerState(port=self._state.port))
        return self._state

    def renew_key(self) -> KeyInfo:
        return KeyInfo("window", "77c1", time.time(), "n" * 39 + "77c1")

    def named_keys(self) -> tuple[KeyInfo, ...]:
        return tuple(replace(info, secret=None) for info in self.keys.values())

    def add_key(self, name: str, *, models: tuple[str, ...] | None = None, per_minute: int | None = None) -> KeyInfo:
        if not name[:1].isalnum():
            raise SettingsInvalid(f"{name!r} is no name for a key: letters, digits, spaces, '.', '_' and '-'.")
        if name in self.keys:
            raise SettingsInvalid(f"There is a key {name!r} already.")
        info = KeyInfo(name, "aaaa", time.time(), f"secret-of-{name}-aaaa", models=models, per_minute=per_minute)
        self.keys[name] = info
        return info

    def remove_key(self, name: str) -> bool:
        self.removed = self.keys.pop(name, None)
        return self.removed is not None

    def restore_key(self, name: str) -> bool:
        if self.removed is None or self.removed.name != name:
            return False
        self.keys[name] = self.removed
        return True

    def pause(self, paused: bool) -> None:
        self.publish(replace(self._state, paused=paused))

    def pause_key(self, name: str, paused: bool) -> None:
        held = set(self._state.paused_keys) | {name} if paused else set(self._state.paused_keys) - {name}
        self.publish(replace(self._state, paused_keys=tuple(sorted(held))))

    def block(self, address: str, blocked: bool) -> None:
        held = set(self._state.blocked) | {address} if blocked else set(self._state.blocked) - {address}
        self.publish(replace(self._state, blocked=tuple(sorted(held))))

    def check_reach(self) -> ReachReport:
        return self.reach

    def interfaces(self) -> tuple[NetworkInterface, ...]:
        return self.networks

    def apply(self, settings: ServerSettings) -> ServerState:
        self.applied.append(settings)
        return self._state

    def log_lines(self) -> tuple[str, ...]:
        return self.lines

    def check_golden(self, model_id: str) -> GoldenReport:
        self.golden_checks.append(model_id)
        if self.golden_report is None:
            raise UnusableInput(f"{model_id} has no golden sample.", code="no_golden_sample")
        return self.golden_report

    def subscribe(self, listener: Callable[[ServerState], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None
