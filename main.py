"""Deskside's command line and composition root.

Builds the engine, the server and the window, in that order, hands each to the next by constructor, and takes them down
in reverse through one ExitStack. Nothing heavy is imported until a command needs it: headless commands start no Qt and
run where PySide6 is not installed.
"""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import queue
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from embedded_server.controller import ServerController
    from embedded_server.keys import KeyStore
    from engine.answer_files import AnswerFolder
    from engine.events import Event, LoadProgress
    from engine.model_spec import ModelSpec
    from engine.ports import EnginePort
    from engine.prediction import Prediction
    from engine.settings import Settings

EXIT_INPUTS_FAILED = 1
EXIT_MODEL_OR_USAGE = 2
EXIT_PORT_TAKEN = 3

PREDICT_TIMEOUT_S = 300.0
"""A table at the command line may take longer than a request of the network may."""
INPUTS_AHEAD = 16
"""Inputs read and queued before the first is answered: enough for the worker to form batches."""
TEXT_TASKS = frozenset({"text-classification", "token-classification", "feature-extraction"})
NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL})
"""What reading a text as if it were a path fails with (EINVAL: on Windows, for characters no name may have)."""

T = TypeVar("T")
log = logging.getLogger("deskside")


# -- composition ---------------------------------------------------------------------------------------------------
def load_settings() -> Settings:
    """The settings file; what is wrong with it is said on stderr, once."""
    from engine.settings import SettingsStore

    store = SettingsStore()
    settings = store.load()
    if store.notice:
        log.warning(store.notice)
    return settings


def open_engine(stack: ExitStack, settings: Settings) -> EnginePort:
    from engine import Engine
    from engine.floors import below_floor
    from engine.settings import data_dir

    if (sentence := below_floor()) is not None:
        fail(sentence)
    return stack.enter_context(Engine(settings, folder=data_dir()))


def open_server(stack: ExitStack, engine: EnginePort, settings: Settings) -> ServerController:
    from embedded_server import ServerController
    from engine.settings import data_dir

    server = ServerController(engine, settings.server, data_dir())
    stack.callback(server.stop)
    return server


def configure_logging() -> None:
    """Warnings to stderr in one line each; everything, with its tracebacks, to a rotated file in the data folder."""
    from engine.settings import data_dir

    root = logging.getLogger()
    root.setLevel(logging.INFO)
    short = logging.StreamHandler()
    short.setLevel(logging.WARNING)
    short.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    root.addHandler(short)
    try:
        folder = data_dir()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        full = logging.handlers.RotatingFileHandler(
            folder / "deskside.log", maxBytes=1 << 20, backupCount=3, encoding="utf-8", delay=True
        )
    except OSError as error:
        log.warning("There is no log file: %s", error)
        return
    full.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(full)


class _OneLine(logging.Formatter):
    """A person at the terminal gets sentences; tracebacks are in the log file."""

    def format(self, record: logging.LogRecord) -> str:
        bare = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None})
        return super().format(bare).replace("\n", " ")


# -- waiting in the main thread ------------------------------------------------------------------------------------
class Stopped(Exception):
    """SIGINT or SIGTERM came."""


class Inbox:
    """All that the main thread waits for, in one queue: finished futures, engine events, SIGINT and SIGTERM.

    A signal handler may run between any two instructions; putting into a SimpleQueue is one of the few things that is
    safe there.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._queue: queue.SimpleQueue[Future[Any] | Event | signal.Signals] = queue.SimpleQueue()
        self._progress = _ProgressLine()
        for number in (signal.SIGINT, signal.SIGTERM):
            previous = signal.signal(number, lambda received, frame: self._queue.put(signal.Signals(received)))
            stack.callback(signal.signal, number, previous)

    def watch_loads(self, engine: EnginePort, stack: ExitStack) -> None:
        """Show the progress of loads on stderr where that is a terminal."""
        if sys.stderr.isatty():
            stack.callback(engine.subscribe(self._queue.put))

    def result(self, future: Future[T]) -> T:
        """The future's result. Raises what it raises, and Stopped as soon as a signal comes."""
        future.add_done_callback(self._queue.put)
        while not future.done():
            self._next()
        return future.result()

    def until_stopped(self) -> None:
        try:
            while True:
                self._next()
        except Stopped:
            return

    def _next(self) -> None:
        try:
            # Bounded, because a wait without an end cannot be interrupted from the keyboard on Windows.
            item = self._queue.get(timeout=0.5)
        except queue.Empty:
            return
        if isinstance(item, signal.Signals):
            raise Stopped
        if not isinstance(item, Future):
            self._progress.show(item)


class _ProgressLine:
    """One line on the terminal that is written over as a load goes on."""

    def show(self, event: Event) -> None:
        from engine.events import LoadProgress, ModelState, ModelStateChanged

        if isinstance(event, LoadProgress):
            self._write(self._text(event))
        elif isinstance(event, ModelStateChanged) and event.state in (ModelState.READY, ModelState.FAILED):
            self._write("")

    @staticmethod
    def _text(event: LoadProgress) -> str:
        share = "" if event.fraction is None else f" {event.fraction:.0%}"
        return f"{event.model_id}: {event.stage}{share}"

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


# -- errors --------------------------------------------------------------------------------------------------------
def fail(sentence: str, code: int = EXIT_MODEL_OR_USAGE) -> NoReturn:
    click.echo(" ".join(sentence.split()), err=True)
    raise SystemExit(code)


def about(name: str, error: Exception) -> str:
    """One sentence that contains the name as the person gave it."""
    sentence = str(error)
    return sentence if name in sentence else f"{name}: {sentence}"


def load_model(engine: EnginePort, inbox: Inbox, name: str, device: str | None, trust: bool) -> dict[str, Any]:
    """The model's entry once it is READY. Ends the program with one sentence where it cannot be loaded."""
    return await_loads(inbox, [(name, engine.load(name, device, trust).future)])[0]


def await_loads(inbox: Inbox, loads: Iterable[tuple[str, Future[dict[str, Any]]]]) -> list[dict[str, Any]]:
    from engine.errors import EngineError

    entries = []
    for name, future in loads:
        try:
            entries.append(inbox.result(future))
        except EngineError as error:
            fail(about(name, error))
    return entries


def describe(engine: EnginePort, inbox: Inbox, name: str) -> ModelSpec:
    """What the model's files say. Ends the program with one sentence where they cannot be read or are refused."""
    from engine.errors import EngineError
    from engine.model_spec import TrustClass

    try:
        spec = inbox.result(engine.inspect(name))
    except EngineError as error:
        fail(about(name, error))
    if spec.trust_class is TrustClass.REFUSED:
        fail(f"{name} is of a kind that is never opened, because opening it can run code.")
    return spec


def offer_model(engine: EnginePort, inbox: Inbox, name: str, device: str | None, trust: bool) -> None:
    """Make a model known without loading it, with everything checked that can be without running it."""
    from engine.consent import ConsentStore, fingerprint, kind_of_code
    from engine.errors import EngineError
    from engine.model_spec import TrustClass
    from engine.settings import data_dir

    spec = describe(engine, inbox, name)
    try:
        if spec.trust_class is TrustClass.PROGRAM and not trust:
            consents = ConsentStore(data_dir() / "consents.json")
            if not consents.is_consented(fingerprint(spec)):
                runs = f"opening it runs {kind_of_code(spec)} from the file"
                fail(f"{name} is a program: {runs}. It needs your consent first (--trust).")
        engine.offer(name, device, trust)
    except EngineError as error:
        fail(about(name, error))


def write_answer(folder: AnswerFolder, name: str, answer: Prediction) -> None:
    """Write the answer's files. Ends the program with one sentence where the folder cannot take them."""
    try:
        folder.write(name, answer)
    except OSError as error:
        fail(f"{folder.folder} cannot be written to: {error.strerror or error}.")


# -- commands ------------------------------------------------------------------------------------------------------
WINDOW_COMMAND = ":window"
"""No model's file name is likely to be this; every other first word that is no command is a model to open."""


class _ModelsOrCommand(click.Group):
    """``deskside [MODEL…]`` opens the window; ``deskside serve …`` and the others are commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "--version")):
            args = [WINDOW_COMMAND, *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_ModelsOrCommand,
    subcommand_metavar="[MODEL]... | COMMAND [ARGS]...",
    help="Open your own TensorFlow or PyTorch models in a window, or serve them without one.",
)
@click.version_option(package_name="deskside")
def main() -> None:
    configure_logging()


@main.command(WINDOW_COMMAND, hidden=True)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
def window(models: tuple[str, ...]) -> None:
    """Open the window with these models."""
    if sys.platform.startswith("linux") and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    ):
        fail("There is no display here to open a window on; `deskside serve MODEL` works without one.")
    try:
        from gui import app, single_instance
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] in ("PySide6", "shiboken6"):
            fail("The window needs PySide6: install it with `pip install pyside6-essentials==6.11.3`.")
        # Qt is installed and a system library it loads is not: the message names the library.
        fail(f"The window cannot be opened ({error}); `make run` installs what Qt needs, or prints the line to run.")
    from engine.settings import SettingsStore, data_dir

    paths = [Path(model) for model in models]
    with ExitStack() as stack:
        meeting_point = single_instance.claim(data_dir(), paths)
        if meeting_point is None:
            return
        stack.callback(meeting_point.close)
        settings = load_settings()
        engine = open_engine(stack, settings)
        server = open_server(stack, engine, settings)
        code = app.run(engine, server, settings, paths, SettingsStore(), bundled_examples(), meeting_point, data_dir())
    raise SystemExit(code)


def bundled_examples() -> list[Path]:
    """The sample models of a checkout; an installed program has none."""
    folder = Path(__file__).resolve().parent / "examples"
    return sorted(sidecar.parent for sidecar in folder.glob("*/deskside.toml"))


@main.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all of them.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Default 8765; 0 picks a free one.")
@click.option("--no-key", is_flag=True, help="Let everyone who can reach the address ask without a key.")
@click.option("--key-file", type=click.Path(dir_okay=False, path_type=Path), help="Keys, one a line; made if missing.")
@click.option("--keys", is_flag=True, help="Take the keys of `deskside keys`, from this computer too.")
@click.option("--tls", is_flag=True, help="Speak https, with a certificate made here unless one is given.")
@click.option("--certificate", type=click.Path(dir_okay=False, path_type=Path), help="Your own, PEM, with its chain.")
@click.option("--certificate-key", type=click.Path(dir_okay=False, path_type=Path), help="Its key, PEM, unencrypted.")
@click.option("--lazy", is_flag=True, help="Load each model at its first request.")
@click.option("--trust", is_flag=True, help="Consent to models that are programs.")
@click.option("--device", help="cpu, cuda, cuda:1 or mps; chosen automatically if not given.")
def serve(
    models: tuple[str, ...],
    host: str,
    port: int | None,
    no_key: bool,
    key_file: Path | None,
    keys: bool,
    tls: bool,
    certificate: Path | None,
    certificate_key: Path | None,
    lazy: bool,
    trust: bool,
    device: str | None,
) -> None:
    """Answer MODEL... over HTTP until SIGINT or SIGTERM."""
    from embedded_server import ServeOptions
    from engine.errors import EngineError, ServerStartError

    if no_key + keys + (key_file is not None) > 1:
        raise click.UsageError("--no-key, --keys and --key-file contradict each other.")
    if (certificate is None) != (certificate_key is None):
        raise click.UsageError("--certificate and --certificate-key go together.")
    if certificate is not None and not tls:
        raise click.UsageError("--certificate is for --tls.")
    with ExitStack() as stack:
        settings = load_settings()
        inbox = Inbox(stack)
        engine = open_engine(stack, settings)
        inbox.watch_loads(engine, stack)
        server = open_server(stack, engine, settings)
        options = ServeOptions(
            host=host, port=settings.server.port if port is None else port, no_key=no_key, key_file=key_file,
            named_keys=keys, tls=tls, certificate=certificate, certificate_key=certificate_key,
        )  # fmt: skip
        try:
            loads = []
            for name in models:
                if lazy:
                    offer_model(engine, inbox, name, device, trust)
                else:
                    loads.append((name, engine.load(name, device, trust).future))
            # Bound before the models are ready: a taken port is known at once, and early callers wait for READY.
            state = server.start_at(options)
            await_loads(inbox, loads)
            if state.key is not None and state.key.secret is not None:
                click.echo(f"Key: {state.key.secret}", err=True)
            if state.certificate is not None:
                click.echo(f"Certificate SHA-256: {state.certificate.fingerprint}", err=True)
                click.echo(f"To check it: {state.certificate.curl}", err=True)
            click.echo(f"Serving at {state.urls[0].url}")
            inbox.until_stopped()  # the stack then drains the server before it closes the engine
        except Stopped:
            return
        except ServerStartError as error:
            fail(str(error), EXIT_PORT_TAKEN if error.code == "port_in_use" else EXIT_MODEL_OR_USAGE)
        except EngineError as error:
            fail(str(error))


@main.group()
def keys() -> None:
    """The keys that callers from the network show."""


def key_store() -> KeyStore:
    from embedded_server.keys import KeyStore
    from engine.settings import data_dir

    return KeyStore(data_dir() / "keys.json")


@keys.command("list")
def list_keys() -> None:
    """One line for each key: name, its last characters, rights, models, limits, last use."""
    try:
        for info in key_store().infos():
            limits = [f"{info.per_minute} a minute"] if info.per_minute else []
            limits += [f"{info.at_once} at once"] if info.at_once else []
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.last_used)) if info.last_used else "never used"
            models = "all models" if info.models is None else ", ".join(info.models) or "no model"
            facts = (f"…{info.ends}", " and ".join(info.rights), models, ", ".join(limits) or "no limit", used)
            click.echo("  ".join((info.name, *facts)))
    except OSError as error:
        fail(f"The keys cannot be read: {error.strerror or error}.")


@keys.command("add")
@click.argument("name")
@click.option("--right", "rights", multiple=True, type=click.Choice(["infer", "read"]), help="Default: both.")
@click.option("--model", "models", multiple=True, metavar="ID", help="Only these models; all if not given.")
@click.option("--per-minute", type=click.IntRange(1), help="How many questions a minute.")
@click.option("--at-once", type=click.IntRange(1), help="How many questions at once.")
def add_key(
    name: str, rights: tuple[str, ...], models: tuple[str, ...], per_minute: int | None, at_once: int | None
) -> None:
    """Make a key called NAME and print it: it is shown this once. A running server takes it at once."""
    from embedded_server.access import RIGHTS
    from engine.errors import SettingsInvalid

    try:
        info = key_store().add(
            name, rights=frozenset(rights) or RIGHTS, models=models or None, per_minute=per_minute, at_once=at_once
        )
    except SettingsInvalid as error:
        fail(str(error))
    except OSError as error:
        fail(f"The key cannot be kept: {error.strerror or error}.")
    click.echo(info.secret)


@keys.command("remove")
@click.argument("name")
def remove_key(name: str) -> None:
    """End the key called NAME, for a running server too."""
    try:
        found = key_store().remove(name)
    except OSError as error:
        fail(f"The keys cannot be written: {error.strerror or error}.")
    if not found:
        fail(f"There is no key {name!r}.")


@main.command()
@click.argument("model", metavar="MODEL")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per input, as the network answers.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for pictures and arrays.")
@click.option("--trust", is_flag=True, help="Consent to a model that is a program.")
@click.option("--device", help="cpu, cuda, cuda:1 or mps; chosen automatically if not given.")
def predict(
    model: str, inputs: tuple[str, ...], as_json: bool, output: Path | None, trust: bool, device: str | None
) -> None:
    """Ask MODEL about every INPUT file: one line each. A model of texts takes the text itself, too.

    With --output the pictures and numbers of each answer are written there: masks, depth maps and new pictures as PNG,
    arrays as .npy, raw tensors as .npz.
    """
    from engine.answer_files import AnswerFolder
    from engine.answer_text import as_json_line, as_text_line, has_failed

    failed = False
    folder = AnswerFolder(output) if output is not None else None
    with ExitStack() as stack:
        settings = load_settings()
        inbox = Inbox(stack)
        engine = open_engine(stack, settings)
        inbox.watch_loads(engine, stack)
        try:
            entry = load_model(engine, inbox, model, device, trust)
            for name, answer in answers(engine, inbox, str(entry["id"]), inputs, str(entry["task"])):
                failed |= has_failed(answer)
                if folder is not None and not isinstance(answer, Exception):
                    write_answer(folder, name, answer)
                click.echo(as_json_line(name, answer) if as_json else as_text_line(name, answer))
        except Stopped:
            raise SystemExit(130) from None
    raise SystemExit(EXIT_INPUTS_FAILED if failed else 0)


@main.command()
@click.argument("model", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--trust", is_flag=True, help="Accepted for scripts; inspecting runs nothing of the model.")
def inspect(model: str, as_json: bool, trust: bool) -> None:
    """Say what is known of MODEL, and where each fact was read. Loads nothing."""
    import orjson

    with ExitStack() as stack:
        inbox = Inbox(stack)
        try:
            settings = load_settings()
            engine = open_engine(stack, settings)
            spec = describe(engine, inbox, model)
            kept_from = engine.stats()["sandbox"]
        except Stopped:
            raise SystemExit(130) from None
    prepares = "when it is loaded" if settings.worker.prepare else "off"
    rows = [
        *spec.evidence_rows(),
        *stored_rows(Path(model), spec),
        ("sandbox", kept_from, "this computer"),
        ("preparation", prepares, "settings"),
    ]
    if as_json:
        report: dict[str, Any] = {name: {"value": value, "source": source} for name, value, source in rows}
        report["trust_class"] = str(spec.trust_class)
        click.echo(orjson.dumps(report).decode())
        return
    rows.append(("trust_class", str(spec.trust_class), "format"))
    width = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        click.echo(f"{name:<{width}}  {text}  ({source})")


def stored_rows(path: Path, spec: ModelSpec) -> list[tuple[str, Any, str]]:
    """(name, value, source) of what lies beside the model: its numbered versions and its golden sample, if any."""
    from engine.golden import GoldenInvalid, find_golden
    from engine.identity import model_location
    from engine.settings import data_dir
    from engine.versions import numbered_folders

    location = model_location(path.expanduser().absolute())
    rows: list[tuple[str, Any, str]] = []
    if numbered := numbered_folders(location):
        rows.append(("versions", [str(number) for number in sorted(numbered)], "numbered folders"))
    try:
        sample = find_golden(spec, location, data_dir())
    except GoldenInvalid as error:
        rows.append(("golden", str(error), "golden sample"))
    else:
        if sample is not None:
            asked = {"content_type": sample.content_type, "params": dict(sample.params), "tolerance": sample.tolerance}
            rows.append(("golden", asked, sample.source))
    return rows


# -- predict ------------------------------------------------------------------------------------------------------
def answers(
    engine: EnginePort, inbox: Inbox, model_id: str, inputs: Iterable[str], task: str = ""
) -> Iterator[tuple[str, Prediction | Exception]]:
    """(input as given, its answer or what went wrong), in the order of the inputs, some asked ahead."""
    from engine.errors import EngineError

    waiting: deque[tuple[str, Future[Prediction]]] = deque()

    def oldest() -> tuple[str, Prediction | Exception]:
        name, future = waiting.popleft()
        try:
            return name, inbox.result(future)
        except (EngineError, OSError) as error:
            return name, error

    for name in inputs:
        waiting.append((name, ask(engine, model_id, name, task)))
        if len(waiting) >= INPUTS_AHEAD:
            yield oldest()
    while waiting:
        yield oldest()


def ask(engine: EnginePort, model_id: str, name: str, task: str = "") -> Future[Prediction]:
    """Queue one file, or for a task of texts the name itself where it is no file's.

    A file that cannot be read comes back as OSError through the future.
    """
    from engine.answer_text import content_type_of
    from engine.prediction import PredictRequest

    path = Path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        if task in TEXT_TASKS and error.errno in NO_SUCH_FILE:
            text = os.fsencode(name)
            return engine.predict(PredictRequest(model_id, text, "text/plain", timeout_s=PREDICT_TIMEOUT_S))
        unread: Future[Prediction] = Future()
        unread.set_exception(error)
        return unread
    return engine.predict(PredictRequest(model_id, data, content_type_of(path.suffix), timeout_s=PREDICT_TIMEOUT_S))


if __name__ == "__main__":
    main()
