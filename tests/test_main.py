"""The command line: exit codes, what goes to stdout and what to stderr, signals; with fakes for engine and server."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import main
from engine.answer_text import as_text_line
from engine.errors import ModelCorrupt, ServerStartError, UnusableInput
from engine.model_spec import TrustClass
from engine.prediction import Prediction, Predictions, PredictRequest
from engine.serving_types import CertificateInfo, KeyInfo, ServerPhase, ServerScope, ServerState, ServerUrl
from tests.fakes import TIMING, FakeEngine, answer_three, spec

ROOT = Path(__file__).resolve().parent.parent


class FakeController:
    """The server as ``deskside serve`` uses it. ``on_start`` runs when the server is switched on."""

    def __init__(self) -> None:
        self.options: Any = None
        self.error: ServerStartError | None = None
        self.key: KeyInfo | None = None
        self.certificate: CertificateInfo | None = None
        self.stops = 0
        self.on_start: Callable[[], None] = lambda: None

    def start_at(self, options: Any) -> ServerState:
        self.options = options
        if self.error is not None:
            raise self.error
        self.on_start()
        scheme = "http" if self.certificate is None else "https"
        url = ServerUrl(f"{scheme}://{options.host}:{options.port}", "this computer", True)
        return ServerState(
            ServerPhase.RUNNING, ServerScope.COMPUTER, options.port, (url,), self.key, certificate=self.certificate
        )

    def stop(self) -> ServerState:
        self.stops += 1
        return ServerState()


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DESKSIDE_HOME", str(tmp_path / "home"))
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()

    def open_engine(stack: ExitStack, settings: Any) -> FakeEngine:
        stack.callback(fake.close)
        return fake

    monkeypatch.setattr(main, "open_engine", open_engine)
    return fake


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> FakeController:
    fake = FakeController()

    def open_server(stack: ExitStack, engine: Any, settings: Any) -> FakeController:
        stack.callback(fake.stop)
        return fake

    monkeypatch.setattr(main, "open_server", open_server)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, list(arguments), catch_exceptions=False)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [tmp_path / name for name in ("one.png", "two.csv", "three.bin")]
    for path in paths:
        path.write_bytes(path.name.encode())
    return [str(path) for path in paths]


# -- predict -------------------------------------------------------------------------------------------------------
def test_predict_prints_one_line_per_input_in_order(engine: FakeEngine, pictures: list[str]) -> None:
    result = run("predict", "digits", *pictures)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{path}  three  91.0%" for path in pictures]
    assert result.stderr == ""
    assert [r.content_type for r in engine.requests] == ["image/png", "text/csv", "application/octet-stream"]
    assert [r.data for r in engine.requests] == [b"one.png", b"two.csv", b"three.bin"]
    assert engine.closed


def test_predict_json_has_the_networks_shape_and_the_input(engine: FakeEngine, pictures: list[str]) -> None:
    result = run("predict", "digits", pictures[0], "--json")
    told = json.loads(result.stdout)
    assert told == {"input": pictures[0], **answer_three(PredictRequest("digits", b"")).to_json()}


def test_predict_writes_pictures_and_arrays_into_a_folder(
    engine: FakeEngine, pictures: list[str], tmp_path: Path
) -> None:
    found = {"image": b"PNG of " + b"one.png"}
    engine.answer = lambda request: Prediction("p", request.model, "image-to-image", TIMING, predictions=found)
    folder = tmp_path / "answers"
    result = run("predict", "digits", pictures[0], "--output", str(folder))
    assert result.exit_code == 0
    assert (folder / "one-image.png").read_bytes() == b"PNG of one.png"
    (tmp_path / "file").write_text("in the way")
    result = run("predict", "digits", pictures[0], "--output", str(tmp_path / "file" / "answers"))
    assert result.exit_code == 2
    assert "cannot be written to" in result.stderr


def test_predict_goes_on_after_an_input_that_fails(engine: FakeEngine, pictures: list[str]) -> None:
    def answer(request: PredictRequest) -> Prediction:
        if request.data == b"two.csv":
            raise UnusableInput("This is no picture.", code="image_invalid")
        return answer_three(request)

    engine.answer = answer
    result = run("predict", "digits", *pictures, "missing.png", "--json")
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["input"] for line in lines] == [*pictures, "missing.png"]
    assert ["error" in line for line in lines] == [False, True, False, True]
    assert lines[1]["error"] == {"code": "image_invalid", "message": "This is no picture."}
    assert lines[3]["error"]["message"] == "No such file or directory."


def test_ask_takes_a_text_for_itself_where_the_task_takes_texts(tmp_path: Path) -> None:
    fake = FakeEngine()
    fake.load("digits")
    file = tmp_path / "letter.txt"
    file.write_bytes(b"from a file")
    for name in (str(file), "It was\nfine.", "a/b/c", "long " * 2_000):
        main.ask(fake, "digits", name, "text-classification").result()
    assert [request.data for request in fake.requests] == [
        b"from a file", b"It was\nfine.", b"a/b/c", b"long " * 2_000,
    ]  # fmt: skip
    assert {request.content_type for request in fake.requests} == {"text/plain"}
    for task, name in (("image-classification", "It was fine."), ("text-classification", str(tmp_path))):
        with pytest.raises(OSError, match=r"No such file|directory"):
            main.ask(fake, "digits", name, task).result()


@pytest.mark.parametrize(
    ("predictions", "line"),
    [
        ([{"entity_group": "LOC", "word": "rome"}, {"entity_group": "PER", "word": "anna"}], "rome (LOC), anna (PER)"),
        ([{"value": 3.25}], "3.25"),
        ([{"label": "stars", "score": -2.5}], "stars  -2.5"),
        ([0.5, 0.25, 0.125], "numbers [3]"),
        ([[[0.5, 0.25], [0.125, 1.0]]], "numbers [1, 2, 2]"),
        (
            [
                {"label": "circle", "score": 0.981, "mask": b"png", "area": 0.124},
                {"label": "sky", "score": None, "mask": b"png", "area": 0.0001},
            ],
            "circle  98.1%, 12.4% of the picture; sky  <0.1% of the picture",
        ),
        (
            [{"label": "x", "score": None, "mask": b"", "area": 0.5}] * 10,
            "x  50.0% of the picture; " * 8 + "and 2 more",
        ),
        (
            [{"keypoints": [{"label": "nose", "x": 12.5, "y": 40.0, "score": None}, {"label": "ear", "x": 1, "y": 2}]}],
            "nose 12.5,40; ear 1,2",
        ),
        ([{"keypoints": [{"label": "p", "x": 1, "y": 2}] * 9}], "p 1,2; " * 8 + "and 1 more"),
        (
            [
                {
                    "label": "figure",
                    "score": 0.984,
                    "box": {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4},
                    "keypoints": [{"label": "head", "x": 1, "y": 2, "score": 0.9}],
                }
            ],
            "figure  98.4% at 1,2-3,4",
        ),
        ({"image": b"png", "width": 112, "height": 256}, "picture of 112 x 256 pixels"),
        ({"image": b"png", "width": 1, "height": 2, "note": "First frame."}, "picture of 1 x 2 pixels  First frame."),
        ({"image": b"png"}, "image a picture of 3 bytes"),
        ({"depth": b"png", "predicted_depth": None, "minimum": 0.3, "maximum": 4.2}, "depth 0.3 to 4.2"),
        ({"depth": b"p", "minimum": 2.0, "maximum": 2.0, "note": "The same."}, "depth 2 to 2  The same."),
        ({"depth": b"p", "minimum": "x", "maximum": 2.0}, "depth a picture of 1 bytes, minimum x, maximum 2.0"),
    ],
)
def test_predict_says_what_each_task_found(predictions: Predictions, line: str) -> None:
    found = Prediction("1", "m", "t", {}, predictions=predictions)
    assert as_text_line("two\nlines", found) == f"two lines  {line}"


def test_predict_asks_ahead_but_not_without_bound(engine: FakeEngine, tmp_path: Path) -> None:
    engine.hold = True
    most = 0
    paths = []
    for number in range(3 * main.INPUTS_AHEAD):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(str(number).encode())

    class Inbox(main.Inbox):
        def result(self, future: Any) -> Any:
            nonlocal most
            most = max(most, len(engine.held))
            for request, held in engine.held:
                if not held.done():
                    held.set_result(replace(answer_three(request), id=bytes(request.data).decode()))  # type: ignore[arg-type]
            engine.held.clear()
            return super().result(future)

    engine.load("digits")
    with ExitStack() as stack:
        told = list(main.answers(engine, Inbox(stack), "digits", [str(path) for path in paths]))
    assert [name for name, _ in told] == [str(path) for path in paths]
    assert [a.id for _, a in told if isinstance(a, Prediction)] == [path.stem for path in paths]
    assert 1 < most <= main.INPUTS_AHEAD


@pytest.mark.parametrize(("score", "said"), [(1.0, "100.0%"), (0.99951, ">99.9%"), (0.9994, "99.9%"), (0.0, "0.0%")])
def test_only_what_is_certain_is_a_hundred(engine: FakeEngine, pictures: list[str], score: float, said: str) -> None:
    best = [{"label": "x", "score": score}]
    engine.answer = lambda request: Prediction("p", request.model, "image-classification", TIMING, predictions=best)
    assert run("predict", "digits", pictures[0]).stdout.split() == [pictures[0], "x", said]


def test_predict_sums_up_a_table_in_one_line(engine: FakeEngine, pictures: list[str]) -> None:
    def row(label: str) -> dict[str, Any]:
        return {"input": 0, "predictions": [{"label": label, "score": 0.9}]}

    rows = [row("red"), row("white"), row("red"), {"input": 3, "error": {"code": "value_invalid", "message": "no"}}]
    engine.answer = lambda request: Prediction("p", request.model, "tabular-classification", TIMING, results=rows)
    result = run("predict", "wine", pictures[1])
    assert result.exit_code == 1
    assert result.stdout == f"{pictures[1]}  4 rows  red × 2, white × 1  1 failed\n"


@pytest.mark.parametrize("command", [("predict", "x.keras", "a.png"), ("serve", "x.keras")])
def test_a_model_that_fails_is_one_sentence_with_its_name(
    engine: FakeEngine, server: FakeController, command: tuple[str, ...]
) -> None:
    engine.load_error = ModelCorrupt("The file ends too early;\na whole .keras archive was expected.", details="Trace…")
    result = run(*command)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "x.keras: The file ends too early; a whole .keras archive was expected.\n"
    assert engine.closed


@pytest.mark.parametrize("command", [("predict", "m"), ("serve",), ("serve", "m", "--port", "70000"), ("inspect",)])
def test_wrong_usage_is_two(engine: FakeEngine, server: FakeController, command: tuple[str, ...]) -> None:
    assert run(*command).exit_code == 2


# -- inspect -------------------------------------------------------------------------------------------------------
def test_inspect_json_gives_every_field_with_its_source(engine: FakeEngine) -> None:
    told = json.loads(run("inspect", "digits-keras", "--json").stdout)
    assert told.pop("trust_class") == "data"
    assert told.pop("sandbox") == {"value": None, "source": "this computer"}  # nothing was read here
    assert told.pop("preparation") == {"value": "when it is loaded", "source": "settings"}
    assert told["task"] == {"value": "image-classification", "source": "assumed"}
    assert list(told) == [name for name, _, _ in spec().evidence_rows()]


def test_inspect_for_people_has_a_line_per_field(engine: FakeEngine) -> None:
    lines = run("inspect", "digits-keras").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        *(name for name, _, _ in spec().evidence_rows()), "sandbox", "preparation", "trust_class",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [["serve", "a"], ["predict", "a", "b.png"], ["inspect", "a"]], ids=lambda c: c[0])
def test_a_package_with_a_known_hole_is_not_started_with(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.floors.below_floor", lambda: "waitress 3.0.0 has a known hole.")
    result = run(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "waitress 3.0.0 has a known hole." in result.stderr


def test_inspect_turns_a_refused_model_away(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    inspected = engine.inspect

    def refused(path: str | Path) -> Any:
        future = inspected(path)
        future._result = replace(future.result(), trust_class=TrustClass.REFUSED)  # type: ignore[attr-defined]
        return future

    monkeypatch.setattr(engine, "inspect", refused)
    result = run("inspect", "evil.pkl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "evil.pkl" in result.stderr


# -- serve ---------------------------------------------------------------------------------------------------------
def interrupt() -> None:
    """What Ctrl+C does, as soon as the main thread is somewhere it can be interrupted."""
    os.kill(os.getpid(), signal.SIGINT)


def test_serve_says_one_line_and_ends_with_zero_on_a_signal(engine: FakeEngine, server: FakeController) -> None:
    engine_closed_at_stop: list[bool] = []
    stop = server.stop
    server.stop = lambda: (engine_closed_at_stop.append(engine.closed), stop())[1]  # type: ignore[method-assign]
    server.on_start = interrupt
    previous = signal.getsignal(signal.SIGINT)
    result = run("serve", "a", "b", "--port", "9000")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "Serving at http://127.0.0.1:9000\n"
    assert [m["id"] for m in engine.stats()["models"]] == ["a", "b"]
    assert engine_closed_at_stop == [False]  # drained first
    assert engine.closed
    assert signal.getsignal(signal.SIGINT) is previous


def test_serve_over_tls_says_how_to_check_it_on_stderr(engine: FakeEngine, server: FakeController) -> None:
    server.on_start = interrupt
    server.certificate = CertificateInfo("AB:CD", "sha256//x=", 0.0, False, "curl --pinnedpubkey 'sha256//x=' URL")
    result = run("serve", "a", "--tls", "--certificate", "mine.pem", "--certificate-key", "mine.key")
    assert (result.exit_code, result.stdout) == (0, "Serving at https://127.0.0.1:8765\n")
    assert "AB:CD" in result.stderr
    assert "curl --pinnedpubkey 'sha256//x=' URL" in result.stderr
    assert (server.options.tls, server.options.certificate) == (True, Path("mine.pem"))
    assert server.options.certificate_key == Path("mine.key")


@pytest.mark.parametrize(
    "options",
    [
        ("--tls", "--certificate", "mine.pem"),
        ("--tls", "--certificate-key", "mine.key"),
        ("--certificate", "mine.pem", "--certificate-key", "mine.key"),
    ],
)
def test_serve_takes_certificate_and_key_together_and_with_tls(
    engine: FakeEngine, server: FakeController, options: tuple[str, ...]
) -> None:
    assert run("serve", "a", *options).exit_code == 2
    assert server.options is None


def test_serve_speaks_only_when_every_model_is_ready(engine: FakeEngine, server: FakeController) -> None:
    engine.hold_loads = True
    server.on_start = interrupt
    result = run("serve", "a")
    assert result.stdout == ""
    assert result.exit_code == 0
    assert server.stops == 1


def test_serve_waits_for_loads_that_end_on_another_thread(
    engine: FakeEngine, server: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.hold_loads = True
    finished = threading.Event()

    def finish() -> None:
        finished.set()
        engine.held_loads[0][1].set_result({"id": "a"})

    server.on_start = lambda: threading.Thread(target=finish).start()
    monkeypatch.setattr(main.Inbox, "until_stopped", lambda inbox: None)
    result = run("serve", "a", "--port", "0")
    assert finished.is_set()
    assert (result.exit_code, result.stdout) == (0, "Serving at http://127.0.0.1:0\n")
    assert server.options.port == 0


def test_serve_lazy_offers_and_does_not_load(engine: FakeEngine, server: FakeController) -> None:
    server.on_start = interrupt
    result = run("serve", "a", "--lazy")
    assert result.exit_code == 0
    assert result.stdout == "Serving at http://127.0.0.1:8765\n"
    assert [m["state"] for m in engine.stats()["models"]] == ["UNLOADED"]


def test_serve_lazy_asks_consent_for_a_program(
    engine: FakeEngine, server: FakeController, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(b"code")

    def inspect(path: str | Path) -> Any:
        future: Any = main.Future()
        future.set_result(spec("a", trust_class=TrustClass.PROGRAM, path=tmp_path, model_file=model, files=(model,)))
        return future

    monkeypatch.setattr(engine, "inspect", inspect)
    server.on_start = interrupt
    refused = run("serve", "a", "--lazy")
    assert refused.exit_code == 2
    assert "--trust" in refused.stderr
    assert run("serve", "a", "--lazy", "--trust").exit_code == 0


def test_a_taken_port_is_three(engine: FakeEngine, server: FakeController) -> None:
    server.error = ServerStartError("Port 8765 is in use; 8766 is free.", port=8765, free_port=8766)
    result = run("serve", "a")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", "Port 8765 is in use; 8766 is free.\n")


def test_an_address_that_is_not_ours_is_two(engine: FakeEngine, server: FakeController) -> None:
    server.error = ServerStartError("10.9.9.9 is no address of this computer.", code="address_unavailable")
    assert run("serve", "a", "--host", "10.9.9.9").exit_code == 2


def test_a_made_key_is_said_once_on_stderr(engine: FakeEngine, server: FakeController) -> None:
    server.key = KeyInfo("serve", "3f9a", 0.0, "secret-3f9a")
    server.on_start = interrupt
    result = run("serve", "a", "--host", "0.0.0.0")
    assert result.stderr.count("secret-3f9a") == 1
    assert "secret" not in result.stdout


def test_no_key_and_key_file_exclude_each_other(engine: FakeEngine, server: FakeController) -> None:
    assert run("serve", "a", "--no-key", "--key-file", "keys").exit_code == 2


# -- the window's command, and the program as it is started ---------------------------------------------------------
def start(*arguments: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code] if code else [sys.executable, str(ROOT / "main.py")]
    inherited = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    return subprocess.run(
        [*command, *arguments], env={**inherited, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is always a display")
def test_without_a_display_the_window_says_so() -> None:
    done = start("some-model")
    assert (done.returncode, done.stdout) == (2, "")
    assert "deskside serve" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_pyside_the_window_names_the_install_command() -> None:
    code = "import sys; sys.modules['PySide6'] = None; sys.argv = ['deskside']; import main; main.main()"
    done = start(code=code, QT_QPA_PLATFORM="offscreen")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install pyside6-essentials" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_model_named_like_no_command_goes_to_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(main.window, "callback", lambda models: seen.append(models))
    assert run("my-model", "other.keras").exit_code == 0
    assert run().exit_code == 0
    assert seen == [("my-model", "other.keras"), ()]


def test_help_and_version_need_no_engine() -> None:
    assert "serve" in start("--help").stdout
    assert start("--version").stdout.strip().endswith("0.1.0")


# -- the real program, with real workers -----------------------------------------------------------------------------
def golden(name: str) -> tuple[Path, dict[str, float], float]:
    """A bundled model's golden input, {label: score} and tolerance."""
    folder = ROOT / "examples" / name / "golden"
    told = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    scores = {entry["label"]: entry["score"] for entry in told["predictions"]}
    return folder / told["input"], scores, told["tolerance"]


@pytest.mark.real
def test_serve_answers_the_golden_sample_and_ends_cleanly(tmp_path: Path) -> None:
    picture, scores, tolerance = golden("digits-torch")
    command = [sys.executable, str(ROOT / "main.py"), "serve", str(ROOT / "examples" / "digits-torch"), "--port"]
    log_path = tmp_path / "stderr"
    with (
        log_path.open("w") as errors,
        subprocess.Popen([*command, "0"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=errors, text=True) as serving,
    ):
        assert serving.stdout is not None
        line = serving.stdout.readline()
        assert line.startswith("Serving at http://127.0.0.1:"), log_path.read_text()
        url = line.split()[-1]
        assert urllib.request.urlopen(f"{url}/health/ready", timeout=30).status == 200  # READY before it speaks
        question = urllib.request.Request(
            f"{url}/predict/digits-torch?top_k=10", picture.read_bytes(), {"Content-Type": "image/png"}
        )
        answer = json.load(urllib.request.urlopen(question, timeout=30))
        assert {p["label"]: p["score"] for p in answer["predictions"]} == pytest.approx(scores, abs=tolerance)

        second = subprocess.run([*command, url.rpartition(":")[2]], capture_output=True, text=True, timeout=60)
        assert (second.returncode, second.stdout) == (3, "")
        assert len(second.stderr.splitlines()) == 1

        serving.send_signal(signal.SIGTERM)
        assert serving.stdout.read() == ""
        assert serving.wait(60) == 0
    assert log_path.read_text() == ""


@pytest.mark.real
def test_predict_and_inspect_on_real_files(tmp_path: Path) -> None:
    picture, scores, tolerance = golden("digits-keras")
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:500])
    model = ROOT / "examples" / "digits-keras"
    done = start("predict", str(model), str(picture), str(broken), "--json")
    assert (done.returncode, done.stderr) == (1, "")
    good, bad = (json.loads(line) for line in done.stdout.splitlines())
    best = good["predictions"][0]
    assert best["score"] == pytest.approx(scores[best["label"]], abs=tolerance)
    assert good["input"] == str(picture)
    assert bad["error"]["code"] == "image_invalid"

    told = json.loads(start("inspect", str(model), "--json").stdout)
    assert told["preprocessing.size"] == {"value": [32, 32], "source": "sidecar"}
    assert told["golden"] == {
        "value": {"content_type": "image/png", "params": {"top_k": 10}, "tolerance": 0.01},
        "source": "golden/expected.json",
    }
    assert "versions" not in told
    numbered = tmp_path / "digits"
    for number in ("1", "2"):
        (numbered / number).mkdir(parents=True)
        (numbered / number / "model.keras").write_bytes((model / "model.keras").read_bytes())
    told = json.loads(start("inspect", str(numbered), "--json").stdout)
    assert told["version"] == {"value": "2", "source": "name of its folder"}
    assert told["versions"] == {"value": ["1", "2"], "source": "numbered folders"}

    cut = tmp_path / "cut.keras"
    cut.write_bytes((model / "model.keras").read_bytes()[:1000])
    for command in (("predict", str(cut), str(picture)), ("inspect", str(cut)), ("serve", str(cut), "--port", "0")):
        failed = start(*command)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert "cut.keras" in failed.stderr
        assert len(failed.stderr.splitlines()) == 1


# -- keys --------------------------------------------------------------------------------------------------------------
def test_keys_are_made_listed_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKSIDE_HOME", str(tmp_path))
    made = run("keys", "add", "lab 1", "--right", "infer", "--model", "wine", "--per-minute", "60")
    assert (made.exit_code, len(made.stdout.strip())) == (0, 43)
    assert run("keys", "add", "phones").exit_code == 0
    listed = run("keys", "list").stdout.splitlines()
    assert listed[0] == f"lab 1  …{made.stdout.strip()[-4:]}  infer  wine  60 a minute  never used"
    assert listed[1].endswith("infer and read  all models  no limit  never used")
    assert made.stdout.strip() not in "\n".join(listed)
    again = run("keys", "add", "phones")
    assert (again.exit_code, again.stderr) == (2, "There is a key 'phones' already.\n")
    assert run("keys", "remove", "lab 1").exit_code == 0
    gone = run("keys", "remove", "lab 1")
    assert (gone.exit_code, gone.stderr) == (2, "There is no key 'lab 1'.\n")
    assert run("keys", "add", "x", "--per-minute", "0").exit_code == 2


def test_the_sources_of_keys_exclude_each_other(tmp_path: Path) -> None:
    result = run("serve", "digits", "--keys", "--no-key")
    assert (result.exit_code, "contradict" in result.stderr) == (2, True)
