"""Render the window's states in both themes into docs/screenshots (``make screenshots``).

Real widgets, drawn offscreen. Answers come from the real engine and the bundled examples (``--fake``: prepared ones,
in seconds); states that pass too quickly to be caught (a load half-way, a foreign model that asks for consent) and the
network's addresses and callers are always prepared, so that no picture names a real machine.

English at 100 % is what is committed. The other looks (twice the size, the other languages, right to left) are drawn
from prepared answers into ``.screenshots``, each in a process of its own, to be looked at. Exit status 1 where a font
lacks a character that is shown.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("DESKSIDE_HOME", tempfile.mkdtemp(prefix="deskside-screenshots-"))

from PySide6.QtCore import Qt  # noqa: E402  (the platform must be chosen first)
from PySide6.QtGui import QTextLayout  # noqa: E402
from PySide6.QtWidgets import QAbstractButton, QApplication, QLabel, QLineEdit, QWidget  # noqa: E402

from engine.errors import ConsentRequired, ModelCorrupt  # noqa: E402
from engine.events import LoadProgress, LoadStage, Snapshot  # noqa: E402
from engine.model_spec import ModelSpec, Preprocessing, TensorSpec, TrustClass  # noqa: E402
from engine.ports import EnginePort  # noqa: E402
from engine.prediction import Convention, ImagePreview, Prediction, PredictRequest, TablePreview  # noqa: E402
from engine.serving_types import (  # noqa: E402
    KeyInfo,
    RequestRecord,
    RequestState,
    ServerPhase,
    ServerProblem,
    ServerScope,
    ServerState,
    ServerUrl,
)
from engine.settings import Settings, replace_setting  # noqa: E402
from gui import build_window  # noqa: E402
from gui.actions import PREDICT, SERVER, SETTINGS  # noqa: E402
from gui.frames import SourceOrder  # noqa: E402
from gui.language import LANGUAGES  # noqa: E402
from gui.main_window import MainWindow  # noqa: E402
from gui.model_loader import LoadOrder  # noqa: E402
from gui.recent_models import RecentModel  # noqa: E402
from gui.session import LastRun  # noqa: E402
from gui.views.things import ThingsView  # noqa: E402
from tests.fakes import FakeEngine, FakeServer, spec  # noqa: E402

EXAMPLES = tuple(ROOT / "examples" / name for name in ("digits-keras", "digits-torch", "wine"))
SIZE = (1280, 800)
WAIT_S = 120.0
LOOKS = {
    "twice": ("--scale", "2"),
    "german": ("--language", "de"),
    "spanish": ("--language", "es"),
    "chinese": ("--language", "zh"),
    "right-to-left": ("--right-to-left",),
}
"""What is drawn beside the committed pictures: folder in ``.screenshots`` -> the options that make it."""
missing_glyphs: dict[str, str] = {}
"""Character -> a sentence it stands in, of those that no font here has."""


class PreparedEngine(FakeEngine):
    """Prepared answers of the bundled examples; pictures and tables are the real files."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = self._answer

    @staticmethod
    def model(name: str) -> ModelSpec:
        tabular = name == "wine"
        evidence = {f"preprocessing.{key}": "sidecar" for key in ("size", "channel_order", "scaling", "crop", "layout")}
        evidence |= {"preprocessing.resize": "sidecar", "preprocessing.resample": "sidecar", "labels": "sidecar"}
        evidence |= {"inputs": "tensor signature", "outputs": "tensor signature", "task": "sidecar"}
        evidence |= {"format": "model.keras: config.json", "runtime": "model.keras: config.json"}
        evidence |= {"postprocessing.activation": "model.keras: config.json"}
        if name == "digits-scanner":
            evidence["preprocessing.scaling"] = "assumed"
        return spec(
            name,
            "tabular-classification" if tabular else "image-classification",
            path=ROOT / "examples" / name,
            labels=("cultivar 0", "cultivar 1", "cultivar 2") if tabular else tuple("0123456789"),
            preprocessing=Preprocessing(size=(32, 32), channel_order="grayscale", scaling="0..255"),
            evidence=evidence,
            trust_class=TrustClass.DATA,
            inputs=(TensorSpec("input", "float32", (-1, 13) if tabular else (-1, 32, 32, 1)),),
        )

    def try_conventions(self, model_id: str, data: bytes, content_type: str | None = None) -> Future[list[Convention]]:
        future: Future[list[Convention]] = Future()
        ways = []
        for scaling, label, score in (("0..255", "3", 0.927), ("0..1", "8", 0.402), ("-1..1", "9", 0.512)):
            best = [{"label": label, "score": score}]
            answer = Prediction("p3", model_id, "image-classification", {}, predictions=best)
            ways.append(Convention({"scaling": scaling}, f"values {scaling}", best, answer))
        future.set_result(ways)
        return future

    @staticmethod
    def _answer(request: PredictRequest) -> Prediction:
        timing = {"decode": 0.9, "wait": 0.1, "infer": 2.4, "post": 0.1, "total": 3.5}
        if request.model == "wine":
            rows = []
            for i in range(18):
                best = 0.612 if i == 4 else 0.531 if i == 12 else 0.99 - 0.013 * i
                order = [(i + k) % 3 for k in range(3)]
                scores = (best, (1 - best) * 0.8, (1 - best) * 0.2)
                rows.append(
                    {
                        "input": i,
                        "predictions": [
                            {"label": f"cultivar {c}", "score": s} for c, s in zip(order, scores, strict=True)
                        ],
                    }
                )
            return Prediction("p2", request.model, "tabular-classification", timing, results=rows)
        best = [("3", 0.927), ("5", 0.031), ("9", 0.017), ("8", 0.012), ("2", 0.005)]
        top_k = int(request.params.get("top_k", 5))
        predictions = [{"label": label, "score": score} for label, score in best[:top_k]]
        return Prediction("p1", request.model, "image-classification", timing, predictions=predictions)

    def preview_image(self, source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        from io import BytesIO

        from PIL import Image

        future: Future[ImagePreview] = Future()
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as picture:
            size = picture.size
            rgb = picture.convert("RGB")
            rgb.thumbnail((max_side, max_side))
            future.set_result(ImagePreview(rgb.width, rgb.height, rgb.tobytes(), size))
        return future

    def preview_table(self, source: bytes | Path, max_rows: int = 1000) -> Future[TablePreview]:
        import csv

        future: Future[TablePreview] = Future()
        text = source.decode() if isinstance(source, bytes) else source.read_text(encoding="utf-8")
        head, *rows = list(csv.reader(text.splitlines()))
        future.set_result(TablePreview(tuple(head), tuple(tuple(row) for row in rows[:18]), min(18, len(rows))))
        return future


class Stage:
    """One window in one theme, and what the scenes need to move it."""

    def __init__(self, engine: EnginePort, theme: str, folder: Path, language: str = "en") -> None:
        self.engine = engine
        self.theme = theme
        self.folder = folder
        self.server = FakeServer()
        settings = replace_setting(Settings(), "window", theme=theme, language=language)
        examples = [path for path in EXAMPLES if path.is_dir()]
        self.window: MainWindow = build_window(engine, self.server, settings, None, examples)
        self.window.resize(*SIZE)
        self.window.show()

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the window work until ``condition``. Raises TimeoutError after two minutes."""
        end = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("the window did not reach the state the picture shows")
            QApplication.processEvents()
            time.sleep(0.005)

    def settle(self, seconds: float = 0.4) -> None:
        """Let thumbnails and layouts come to rest."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def shoot(self, name: str) -> None:
        self.settle()
        path = self.folder / f"{name}-{self.theme}.png"
        self.window.grab().save(str(path))
        _look_for_glyphs(self.window)
        _shrink(path)
        print(path)

    def load(self, name: str) -> None:
        self.load_from(ROOT / "examples" / name)

    def load_from(self, path: Path, trust: bool = False) -> None:
        self.window.load_model(path, trust)
        shelf = self.window.shelf
        # A snapshot of before the end of the load may still come: then the model is there a moment later.
        self.until(
            lambda: (
                shelf.loading is None
                and shelf.active is not None
                and path in (shelf.active.path, shelf.active.path.parent)
            )
        )

    def close(self) -> None:
        self.window.close()
        self.until(lambda: self.window.is_closed)
        self.window.deleteLater()
        QApplication.processEvents()


def empty(stage: Stage) -> None:
    stage.until(lambda: bool(stage.window.predict_page.start.cards))
    stage.shoot("empty")


def ready(stage: Stage) -> None:
    stage.load("digits-keras")
    stage.until(lambda: bool(stage.window.predict_page.ready.strip.buttons))
    stage.shoot("ready")


def result(stage: Stage) -> None:
    samples = sorted((EXAMPLES[0] / "samples").glob("*.png"))
    stage.window.predict_page.take_paths(samples[:6])
    counts = stage.window.queue
    stage.until(lambda: len(counts.items) == len(samples[:6]) and all(item.prediction for item in counts.items))
    page = stage.window.predict_page.work
    # Chosen in the list, as a person does: so that no later answer takes its place.
    page.strip.setCurrentIndex(page.items_model.index(min(3, len(counts.items) - 1)))
    stage.until(lambda: page.image_view.has_picture)
    stage.until(lambda: all(page.items_model.thumbnail(item) is not None for item in counts.items))
    stage.shoot("result")


def card(stage: Stage) -> None:
    """A model whose files do not say how pixels are scaled; then the tile with the right answer; then its copy."""
    window, work = stage.window, stage.window.predict_page.work
    stage.load_from(_without_scaling(), trust=True)
    active = window.shelf.active
    assert active is not None
    three = work.current
    assert three is not None
    window.queue.run_again(three)
    stage.until(lambda: three.prediction is not None and three.model == active.key)
    window.show_card()
    page = window.card_page
    page.conventions.use_picture(three.source)
    stage.until(lambda: len(page.conventions.tiles) > 1)
    stage.shoot("card")
    right = next(i for i, c in enumerate(page.conventions.conventions) if c.changes["scaling"] == "0..255")
    page.conventions.tiles[right].click()
    stage.until(lambda: page.conventions.tiles[right].is_chosen)
    stage.shoot("card-chosen")
    page.back_button.click()
    window.queue.run_again(three)
    stage.until(lambda: three.prediction is not None)
    work.keep_answer()
    stage.until(lambda: bool(active.key and _golden(window, active.key)))
    window.reload_model(active.key)
    stage.until(lambda: window.shelf.loading is None)
    stage.until(lambda: bool(_golden(window, active.key)))
    window.show_card(active.key)
    stage.shoot("card-kept")
    window.show_page(PREDICT)
    window.eject(active.key)
    stage.until(lambda: window.shelf.card(active.key) is None)


def _golden(window: MainWindow, key: str) -> object:
    model = window.shelf.card(key)
    return model.entry.get("golden") if model is not None else None


def _without_scaling() -> Path:
    """The PyTorch digits as they would lie on somebody's disk: their sidecar forgets how pixels are scaled."""
    source = EXAMPLES[1]
    folder = Path(tempfile.mkdtemp(dir=os.environ["DESKSIDE_HOME"])) / "digits-scanner"
    folder.mkdir()
    (folder / "model.pt").write_bytes((source / "model.pt").read_bytes())
    lines = (source / "deskside.toml").read_text(encoding="utf-8").splitlines()
    kept = "\n".join(line for line in lines if not line.startswith("scaling"))
    kept = kept.replace("[preprocessing]", '[preprocessing]\nresample = "bilinear"')
    (folder / "deskside.toml").write_text(kept, encoding="utf-8")
    return folder


def progress(stage: Stage) -> None:
    window = stage.window
    window.predict_page.clear()
    name = "garden-flowers-large"
    window.shelf.load_asked(9_999, Path(f"/home/ana/models/{name}.keras"))
    window.shelf.load_started(9_999, name)
    for which in (LoadStage.RECOGNISING, LoadStage.HASHING, LoadStage.STARTING, LoadStage.IMPORTING):
        window.shelf.load_progressed(LoadProgress(name, which))
        stage.settle(0.15)
    window.shelf.load_progressed(LoadProgress(name, LoadStage.READING, 181 / 298, 181_000_000, 298_000_000))
    stage.settle(0.6)
    stage.shoot("loading")
    window.shelf.load_ended(9_999)


def consent(stage: Stage) -> None:
    mark = "4f1e88d2c07a63b9" + "0" * 48
    error = ConsentRequired("storeroom.pt is a program.", fingerprint=mark)
    stage.window._ask_consent(LoadOrder(Path("/home/ana/Downloads/storeroom.pt")), error)
    dialog = stage.window.consent_dialog
    assert dialog is not None
    stage.settle()
    _shoot_with_dialog(stage, "consent")
    dialog.reject()


def failure(stage: Stage) -> None:
    details = "file     orchid-classifier.keras, 21.4 MB\nexpected a zip archive with config.json and model.weights.h5"
    error = ModelCorrupt("orchid-classifier.keras ends in the middle: it is not a whole Keras file.", details=details)
    stage.window.predict_page.show_error(error)
    stage.window.predict_page.error.details.set_open(True)
    stage.window.status_line.say("error", "orchid-classifier.keras was not opened.")
    stage.shoot("error")
    stage.window.predict_page.leave_error()


def table(stage: Stage) -> None:
    window = stage.window
    stage.load("wine")
    window.predict_page.take_paths([max((EXAMPLES[2] / "samples").glob("*.csv"), key=lambda path: path.stat().st_size)])
    stage.until(lambda: bool(window.queue.items) and window.queue.items[-1].prediction is not None)
    stage.settle()
    answers = window.predict_page.work.answers
    doubtful = [r for r in range(answers.rowCount()) if (answers.data(answers.index(r, 2), 256) or 1) < 0.7]
    window.predict_page.work.table.selectRow(doubtful[0] if doubtful else 4)
    stage.shoot("table")


def views(stage: Stage) -> None:
    """The other bundled models' answers: things, masks, joints, depth and a new picture."""
    from gui.widgets.overlays import Things, Tint

    window, work = stage.window, stage.window.predict_page.work

    def ask(model: str, sample: str) -> None:
        window.predict_page.clear()
        stage.load(model)
        window.predict_page.take_paths([ROOT / "examples" / model / "samples" / sample])
        stage.until(lambda: bool(window.queue.items) and window.queue.items[-1].prediction is not None)
        stage.until(lambda: work.image_view.has_picture)

    ask("shapes-detector", "crowd.png")
    stage.until(lambda: isinstance(work.image_view.overlay, Things))
    found = work.dock.view
    assert isinstance(found, ThingsView)
    found.table.selectRow(0)
    stage.shoot("detection")
    ask("shapes-segmenter", "wide.png")
    stage.until(lambda: isinstance(work.image_view.overlay, Tint))
    stage.shoot("segmentation")
    ask("shapes-depth", "wide.png")
    stage.until(lambda: work.image_view.second is not None)
    stage.shoot("depth")
    ask("photo-2x", "flower.png")
    stage.until(lambda: work.image_view.second is not None)
    stage.shoot("image-to-image")
    window.predict_page.clear()
    window.predict_page.take_paths([ROOT / "examples" / "shapes-depth" / "golden" / "input.npy"])
    stage.until(lambda: bool(window.queue.items) and window.queue.items[-1].state.name in ("DONE", "FAILED"))
    stage.load("shapes-depth")
    window.queue.run_again(window.queue.items[-1])
    stage.until(lambda: window.queue.items[-1].prediction is not None)
    stage.until(lambda: work.views.tensor.slice.image is not None)
    stage.shoot("tensors")
    ask("shapes-keypoints", "two.png")
    stage.until(lambda: isinstance(work.image_view.overlay, Things))
    stage.shoot("keypoints")
    window.predict_page.clear()


def server(stage: Stage) -> None:
    window = stage.window
    window.show_page(SERVER)
    stage.shoot("server-off")
    now = time.time()
    rows = [
        ("owner", "you", "digits-keras", RequestState.ANSWERED, 4_100, 0.1, 2.9, ""),
        ("lan", "192.168.1.57", "wine", RequestState.RUNNING, 1_900, 6.0, None, ""),
        ("lan", "192.168.1.80", "digits-keras", RequestState.WAITING, 884_000, None, None, ""),
        ("lan", "192.168.1.61", "digits-keras", RequestState.ANSWERED, 640_000, 3.0, 8.6, ""),
        ("loopback", "127.0.0.1", "digits-keras", RequestState.ANSWERED, 412_000, 0.2, 3.1, ""),
        ("lan", "192.168.1.33", "digits-keras", RequestState.FAILED, 12_000, 1.1, None, "image_invalid"),
        ("lan", "192.168.1.57", "wine", RequestState.LATE, 2_100, 30_000.0, None, "deadline_exceeded"),
    ]
    keys = {"192.168.1.57": "lab phones", "192.168.1.80": "line camera", "192.168.1.61": "lab phones"}
    records = tuple(
        RequestRecord(
            f"r{i}",
            now - i * 0.7,
            lane,
            client,
            model,
            state,
            size,
            wait,
            run,
            code,
            keys.get(client, ""),
            1 if state is RequestState.WAITING else None,
        )
        for i, (lane, client, model, state, size, wait, run, code) in enumerate(rows)
    )
    refused = RequestRecord(
        "x1", now - 3.2, "lan", "192.168.1.90", "wine", RequestState.REFUSED, 300, code="key_invalid"
    )
    window.server_page.take(Snapshot(_busy_stats(0), records))
    urls = (
        ServerUrl("http://192.168.1.24:8765", "Ethernet", False),
        ServerUrl("http://127.0.0.1:8765", "this computer", True),
    )
    key = KeyInfo("window", "3f9a", now, "dk_7hQ2mVbX0cR4tLw9yZ1nE6sJ8uKp5aGf3iDoB-3f9a")
    state = ServerState(
        ServerPhase.RUNNING, ServerScope.NETWORK, 8765, urls, key, True, served=340, refusals=(refused,)
    )
    state = replace(state, started_at=now - 4_000, callers=("192.168.1.57", "192.168.1.61"), reached_at=now - 20)
    stage.server.publish(state)
    meter = window.server_page.meter
    meter.run(False)
    for step in range(120):
        meter._clock = lambda at=step: at / 2  # type: ignore[misc]
        meter.take(Snapshot(_busy_stats(step), records))
        meter.sample()
    stage.settle()
    meter.run(False)
    window.status_line.say("ok", "The network door is open.")
    stage.shoot("server-network")
    for name in ("lab phones", "line camera"):
        stage.server.add_key(name, per_minute=60 if name == "line camera" else None)
    window.server_page.tabs.bar.setCurrentIndex(1)
    stage.settle()
    window.server_page.tabs.access.name.setText("notebook ana")
    window.server_page.tabs.access.make_button.click()
    stage.settle()
    stage.shoot("server-access")
    window.server_page.tabs.bar.setCurrentIndex(2)
    stage.shoot("server-limits")
    window.server_page.tabs.bar.setCurrentIndex(0)
    problem = ServerProblem("port_in_use", "Port 8765 is in use by another program.", 8765, 8766)
    stage.server.publish(ServerState(ServerPhase.FAILED, ServerScope.OFF, 8765, problem=problem))
    stage.settle()
    from engine.errors import ServerStartError

    window.server_page._on_failed(ServerStartError(problem.message, port=8765, free_port=8766))
    stage.shoot("server-port-taken")
    window.show_page(PREDICT)


def choosers(stage: Stage) -> None:
    """The model picker with models of other days, and the commands."""
    window = stage.window
    now = time.time()
    for days, name, task, kind in (
        (9, "storeroom-yolo.pt", "object-detection", "torchscript"),
        (3, "flowering-dates", "tabular-regression", "saved_model"),
        (1, "garden-flowers.keras", "image-classification", "keras"),
    ):
        window.picker._recent.put_back(RecentModel(f"/home/ana/models/{name}", name, task, kind, now - days * 86_400))
    window.show_page(PREDICT)
    window.picker.open_with(window.picker._choices())
    stage.shoot("picker")
    window.picker.close_chooser()
    window.palette_.open_palette()
    window.palette_.field.setText("co")
    stage.shoot("commands")
    window.palette_.close_chooser()


def camera(stage: Stage) -> None:
    """A recorded clip in the camera's place, with the live answer beside it."""
    window = stage.window
    stage.load("digits-keras")
    window.show_page(PREDICT)
    window.predict_page.banner.dismiss()
    live = window.predict_page.live
    from PIL import Image

    folder = Path(tempfile.mkdtemp(prefix="deskside-clip-"))
    for path in (ROOT / "examples" / "digits-keras" / "samples").glob("*.png"):
        with Image.open(path) as sample:
            sample.convert("RGB").save(folder / f"{path.stem}.jpg", quality=95)
    live.play(SourceOrder("clip", str(folder), "Desk camera"))
    stage.until(lambda: live.session.frame is not None and bool(live.dock.bars.answers))
    stage.settle(2.0)
    stage.shoot("camera")
    live.stop()
    stage.settle()


def life(stage: Stage) -> None:
    """The settings, and what the start after a run that ended badly says."""
    window = stage.window
    window.show_page(SETTINGS)
    stage.shoot("settings")
    window.show_page(PREDICT)
    window.life.tell_crash(LastRun(time.time() - 7_200, ""))
    stage.shoot("notice")
    window.notice.dismiss()


def _busy_stats(step: int) -> dict[str, Any]:
    """What the engine says after ``step`` half seconds of some traffic."""
    lan = int(11.7 * step + 3 * math.sin(step / 5))
    you = step // 2
    runs = lan // 3 + you
    model = {"requests": {"window": you, "network": lan}, "inferences": runs, "statistics": {"rows": lan + you}}
    return {"models": [model], "waiting": 2 + int(2 * math.sin(step / 7)), "running": 1}


def _shoot_with_dialog(stage: Stage, name: str) -> None:
    """Dialogs are windows of their own: both are grabbed and laid over one another."""
    from PySide6.QtGui import QPainter

    dialog = stage.window.consent_dialog
    assert dialog is not None
    picture = stage.window.grab()
    top = dialog.grab()
    _look_for_glyphs(dialog)
    painter = QPainter(picture)
    size, over = picture.deviceIndependentSize(), top.deviceIndependentSize()
    painter.drawPixmap(int(size.width() - over.width()) // 2, int(size.height() - over.height()) // 2, top)
    painter.end()
    path = stage.folder / f"{name}-{stage.theme}.png"
    picture.save(str(path))
    _shrink(path)
    print(path)


def _look_for_glyphs(window: QWidget) -> None:
    """Note the characters on visible widgets that are drawn as an empty box, glyph 0 of every font."""
    for widget in window.findChildren(QWidget):
        if not widget.isVisible() or not isinstance(widget, QLabel | QAbstractButton | QLineEdit):
            continue
        for text in {
            widget.text(),
            widget.toolTip(),
            *([widget.placeholderText()] if isinstance(widget, QLineEdit) else []),
        }:
            layout = QTextLayout(text.replace("\n", " "), widget.font())
            layout.beginLayout()
            layout.createLine()
            layout.endLayout()
            for run in layout.glyphRuns(-1, -1, QTextLayout.GlyphRunRetrievalFlag.RetrieveAll):
                for glyph, at in zip(run.glyphIndexes(), run.stringIndexes(), strict=False):
                    if glyph == 0 and at < len(text):
                        missing_glyphs.setdefault(text[at], text)


def _shrink(path: Path) -> None:
    """Write the file again, smaller and without loss: a palette would bend the tokens' colours, amber first."""
    try:
        from PIL import Image
    except ImportError:
        return
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    rgb.save(path, optimize=True)


SCENES = (empty, ready, result, card, consent, progress, failure, table, views, server, choosers, camera, life)


def shoot_all(
    make_engine: Callable[[], Any],
    folder: Path,
    themes: tuple[str, ...],
    scenes: Sequence[Callable[[Stage], None]],
    language: str = "en",
) -> None:
    """Every scene in every theme; one engine for all of them."""
    for theme in themes:
        engine = make_engine()
        stage = Stage(engine, theme, folder, language)
        try:
            for scene in scenes:
                scene(stage)
        finally:
            stage.close()
            engine.close()


def prepared_engine() -> PreparedEngine:
    engine = PreparedEngine()
    load = engine.load

    def load_example(source: Any, **options: Any) -> Any:
        ticket = load(replace(engine.model(Path(source).name), path=Path(source)), **options)
        engine.publish(Snapshot(engine.stats(), tuple(engine.records)))
        return ticket

    engine.load = load_example  # type: ignore[method-assign]
    return engine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fake", action="store_true", help="prepared answers, no framework")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "screenshots")
    parser.add_argument("--theme", choices=("light", "dark"), action="append")
    names = [scene.__name__ for scene in SCENES]
    parser.add_argument("--scene", choices=names, action="append", help="only these")
    parser.add_argument("--language", choices=sorted(LANGUAGES), default="en")
    parser.add_argument("--right-to-left", action="store_true")
    parser.add_argument("--scale", default="1", help="pixels a point")
    parser.add_argument("--looks", action="store_true", help="then the other looks too, into .screenshots")
    options = parser.parse_args()
    if os.environ.get("QT_SCALE_FACTOR", "1") != options.scale:  # read by Qt once, when it starts
        return subprocess.call([sys.executable, *sys.argv], env={**os.environ, "QT_SCALE_FACTOR": options.scale})
    options.folder.mkdir(parents=True, exist_ok=True)

    def real_engine() -> Any:
        from engine import Engine

        return Engine()

    make = prepared_engine if options.fake else real_engine
    # The views are of real answers only.
    chosen = [s for s in SCENES if s.__name__ in (options.scene or names) and not (options.fake and s is views)]
    if options.right_to_left:
        QApplication([]).setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    shoot_all(make, options.folder, tuple(options.theme or ("light", "dark")), chosen, options.language)
    for character, sentence in missing_glyphs.items():
        print(f"no font here has {character!r} (U+{ord(character):04X}), as in {sentence!r}", file=sys.stderr)
    if missing_glyphs:
        print("On Debian, fonts-droid-fallback has the Chinese ones.", file=sys.stderr)
    failed = bool(missing_glyphs)
    for name, how in LOOKS.items() if options.looks else ():
        folder = ROOT / ".screenshots" / name
        line = [sys.executable, __file__, "--fake", "--theme", "light", "--folder", str(folder), *how]
        failed |= bool(subprocess.call(line))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
