"""Writes the models of ``make_sequences``, opens each as a worker does and prints, as JSON, what each answers.

``python -m tests.engine.worker.ask_sequences FOLDER``: all in one process, because a worker for each would import
PyTorch and transformers as often.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import EngineError
from engine.formats.describe import describe_model
from engine.worker.answers import answer
from engine.worker.loading import LoadedModel, load_model
from engine.worker.tasks.base import Params
from tests.engine.worker import make_sequences
from tests.engine.worker.process import item_of
from tests.engine.worker.sequences import LONG, RATE, TEXTS, encoded, tone


class Opened:
    def __init__(self, folder: Path) -> None:
        spec = describe_model(folder)
        self.facts = {name: [value, source] for name, value, source in spec.evidence_rows()}
        self.model: LoadedModel = load_model(spec, "cpu", 1, 4, lambda stage, total: None)

    def ask(self, data: Any, content_type: str | None = None, refined: Params | None = None, **params: Any) -> Any:
        """The answer, or ``code: sentence``. With ``refined``: that of the same raw result with those parameters."""
        header, buffers = item_of("r", data, content_type, **params)
        try:
            work = self.model.reader.read(header, buffers)
            self.model.executor.execute([work])
            raw = work.finish()
            first = answer(raw, self.model.task, work.params)[0]["value"]
            if refined is None:
                return first
            return answer(raw, self.model.task, self.model.task.read_params(refined))[0]["value"]
        except EngineError as error:
            return f"{error.code}: {error.message}"


def ask_texts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("mood", "topics", "rating", "vectors", "sentences"):
        opened = Opened(folder / name)
        found[name] = [opened.ask(text.encode(), "text/plain") for text in TEXTS]
        found[f"{name} facts"] = opened.facts
        found[f"{name} long"] = opened.ask(LONG.encode(), "text/plain")
        if name == "mood":
            found |= ask_mood(opened)
    opened = Opened(folder / "names")
    for strategy in ("simple", "none"):
        found[f"names {strategy}"] = [
            opened.ask(text.encode(), "text/plain", aggregation_strategy=strategy) for text in TEXTS
        ]
    found["names facts"] = opened.facts
    found["names long"] = opened.ask(LONG.encode(), None, aggregation_strategy="none")
    found["names long simple"] = opened.ask(LONG.encode())
    found["names raised"] = opened.ask(LONG.encode(), refined={"threshold": 0.7})
    found["names unknown"] = opened.ask(b"a", "text/plain", aggregation_strategy="first")
    return found


def ask_mood(opened: Opened) -> dict[str, Any]:
    text = TEXTS[0]
    forms = {
        "json": (json.dumps({"text": text}).encode(), "application/json"),
        "unstated": (text.encode(), None),
        "utf-16": (text.encode("utf-16"), "text/plain"),
        "charset": (text.encode("utf-16-le"), "text/plain; charset=UTF-16LE"),
        "bom": (text.encode("utf-8-sig"), "text/plain"),
    }
    form = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\nContent-Type: text/plain\r\n\r\n'
        + part.encode()
        + b"\r\n"
        for part in (TEXTS[0], LONG, " ", TEXTS[2])
    )
    return {
        "forms": {name: opened.ask(*body) for name, body in forms.items()},
        "form": opened.ask(form + b"--b--\r\n", "multipart/form-data; boundary=b"),
        "empty": opened.ask(b" \n", "text/plain"),
        "nothing": opened.ask(b"", "text/plain"),
        "binary": opened.ask(bytes(range(256)), "text/plain"),
        "too long": opened.ask(b"anna " * 10_000, "text/plain"),
        "far too long": opened.ask(b"a" * 1_000_001, "text/plain"),
        "no text": opened.ask(b'{"text": 5}', "application/json"),
        "picture": opened.ask(b"\x89PNG\r\n\x1a\n0000"),
        "invisible": opened.ask("\u200b\u00ad".encode(), "text/plain"),
        "top 1": opened.ask(text.encode(), "text/plain", refined={"top_k": 1}),
    }


def ask_sounds(folder: Path) -> dict[str, Any]:
    opened = Opened(folder / "sounds")
    opened.model.task.window = 2 * RATE  # type: ignore[attr-defined]  # two seconds in place of thirty
    wav = encoded(tone(2.0, RATE), RATE, subtype="FLOAT")
    long = tone(7.0, RATE)
    stereo = np.stack([tone(1.0, 44_100), np.zeros(44_100)], axis=1)
    mono = tone(1.0, 44_100) / 2
    parts = [long[first : first + 2 * RATE] for first in (0, 2 * RATE, 4 * RATE, 5 * RATE)]
    return {
        "sounds": [opened.ask(encoded(tone(s, RATE), RATE, subtype="FLOAT"), "audio/wav") for s in (0.5, 2.0)],
        "sounds facts": opened.facts,
        "flac": opened.ask(encoded(tone(2.0, RATE), RATE, "FLAC", "PCM_24")),
        "ogg": opened.ask(encoded(tone(2.0, RATE), RATE, "OGG")),
        "stereo": opened.ask(encoded(stereo, 44_100, subtype="FLOAT")),
        "mono": opened.ask(encoded(mono, 44_100, subtype="FLOAT")),
        "long": opened.ask(encoded(long, RATE, subtype="FLOAT")),
        "parts": [opened.ask(encoded(part, RATE, subtype="FLOAT")) for part in parts],
        "silence": opened.ask(encoded(np.zeros(RATE), RATE)),
        "no samples": opened.ask(encoded(np.zeros(0), RATE)),
        "cut off": opened.ask(wav[: len(wav) // 2]),
        "cut off flac": opened.ask(encoded(tone(2.0, RATE), RATE, "FLAC")[:-4000]),
        "not numbers": opened.ask(encoded(np.full(RATE, np.nan), RATE, subtype="FLOAT")),
        "wrong rate": opened.ask(encoded(np.ones(100), 500)),
        "other kind": opened.ask(encoded(tone(1.0, RATE), RATE, "AIFF"), "audio/aiff"),
        "noise": opened.ask(b"\x00\x01\x02 no recording", "audio/wav"),
        "text": opened.ask(b"hello", "text/plain"),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    make_sequences.main(target)
    print(json.dumps(ask_texts(target) | ask_sounds(target)))  # noqa: T201
