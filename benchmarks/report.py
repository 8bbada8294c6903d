"""The report: Markdown, with bars drawn as SVG beside it, composed of the parts that were taken."""

from __future__ import annotations

import datetime
import html
import statistics
from collections.abc import Mapping
from pathlib import Path

from benchmarks import machine
from benchmarks.environments import REQUIREMENTS
from benchmarks.parts import NAMES, Part, check_one_machine
from benchmarks.verdicts import HEAD, Row, all_rows

TITLES = {
    "s": "S: MLP 8-32-3", "m": "M: MobileNetV2, half width, 224x224", "l": "L: ResNet-50, 224x224",
    "keras": "Keras M: MobileNetV2, half width, 224x224",
}  # fmt: skip
BOUND = 0.8
"""Share of a core from which on the generator, not the server, may be what is measured."""

FAIRNESS = """How it is asked:

- Contestants take turns: each round starts every one, asks it everything and ends it, in turned order. Ratios are taken
  within a round, and their median over the rounds counts.
- Bodies rotate over 256 inputs, and every answer is held against its input's reference while the clock runs. A refusal,
  a wrong, lost or doubled answer fails the run. No cache of answers, on either side.
- Deskside runs as it ships: journal, metrics, request log and access rules on. It is asked once it rests, so that the
  preparation which it does in the background has ended; peers have as long.
- Peers run the programs of `benchmarks/peers`, each in an environment of its own, with the better of their documented
  and their best swept settings; with one connection both are asked. "Prepared model": given the model as Deskside
  prepares it, and its batch cap.
- The generator shares the cores with whom it asks. It is a process of ours (`benchmarks/load.py`), not wrk, which
  cannot check answers."""


def write(parts: Mapping[str, Part], path: Path) -> None:
    """Raises ``Mixed`` where the parts are not of one machine."""
    check_one_machine(parts.values())
    pictures = path.parent / path.stem
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        old.unlink()
    rows = all_rows(parts)
    lines = [
        "# Performance", "",
        f"Written by `make bench` on {datetime.date.today().isoformat()}; not by hand. Machine: "
        + (next(iter(parts.values())).machine if parts else machine.describe()), "",
        *_parts(parts),
        "## Verdicts", "", HEAD, *(row.markdown() for row in rows), "",
        *_failures(parts),
        *_short_falls(rows, parts),
        FAIRNESS, "",
    ]  # fmt: skip
    for name in TITLES:
        if name in parts and parts[name].rates:
            lines += _model(parts[name], pictures)
    lines += _engine(parts) + _window(parts) + _load(parts) + _sweeps(parts) + _generator(parts) + _peers(parts)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"written: {path}")


def _parts(parts: Mapping[str, Part]) -> list[str]:
    """When and of what each part was taken."""
    lines = ["| part | taken | kind | minutes | commit | others took of the machine |", "|---|---|---|---|---|---|"]
    for name in NAMES:
        if name not in parts:
            lines.append(f"| {name} | not taken | | | | |")
            continue
        part = parts[name]
        kind = part.kind + (f", {part.rounds} rounds of {part.seconds:g} s a cell" if part.rounds else "")
        others = f"{statistics.median(part.busy):.0f} % ({max(part.busy):.0f} % at most)" if part.busy else ""
        busy = " **busy**" if part.is_busy else ""
        lines.append(f"| {name} | {part.when} | {kind} | {part.took_s / 60:.1f} | {part.commit} | {others}{busy} |")
    lines.append("")
    if any(part.is_busy for part in parts.values()):
        lines += [
            "**Parts marked busy were taken while the machine did something else**: their absolute numbers are too "
            "low, and their ratios noisy; see the rounds' range.", "",
        ]  # fmt: skip
    if len({part.commit for part in parts.values()}) > 1:
        lines += ["The parts are of several commits.", ""]
    return lines


def _failures(parts: Mapping[str, Part]) -> list[str]:
    failures = [f"{name}: {failure}" for name, part in parts.items() for failure in part.failures]
    return ["**This run failed:**", "", *(f"- {failure}" for failure in failures), ""] if failures else []


def _short_falls(rows: list[Row], parts: Mapping[str, Part]) -> list[str]:
    """The rows that are not met, and what the profile says of where their time goes."""
    missed = [f"- {row.promise.name}: {row.note}" for row in rows if row.verdict == "not met"]
    lines = ["## Where the time goes", ""]
    if missed:
        lines += ["Not met, to be read beside what follows and [the engine alone](#the-engine-alone):", "", *missed, ""]
    if "profile" not in parts:
        return [*lines, "The profile was not taken.", ""]
    return [
        *lines,
        "CPU time by thread is the kernel's, shared out over what py-spy saw each thread at; the profiler itself takes "
        "part of the two cores, so rates are lower than below.", "",
        *parts["profile"].tables, "",
    ]  # fmt: skip


def _model(part: Part, pictures: Path) -> list[str]:
    lines = [f"## {TITLES[part.name]}", ""]
    for cell, found in part.rates.items():
        lines += _table(part, cell, found)
        name = f"{part.name}-{cell}".replace(" ", "-").replace(",", "").replace("=", "")
        medians = {who: statistics.median(rates.values()) for who, rates in found.items()}
        (pictures / f"{name}.svg").write_text(bars(f"{part.name.upper()} {cell}: answers a second", medians))
        lines += [f"![{part.name.upper()} {cell}]({pictures.name}/{name}.svg)", ""]
    if part.left_out:
        lines += ["Not in the rounds, for what the sweep found:", ""]
        lines += [*(f"- {name}: {why}" for name, why in part.left_out.items()), ""]
    return lines


def _table(part: Part, cell: str, found: dict[str, dict[int, float]]) -> list[str]:
    lines = [
        f"### {cell}",
        "",
        "| server | settings | answers/s | rounds | p50 / p99 ms | memory MB | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rates in sorted(found.items(), key=lambda item: -statistics.median(item[1].values())):
        detail = part.details.get(cell, {}).get(name)
        times = f"{detail.p50_ms:.2f} / {detail.p99_ms:.2f}" if detail else ""
        note = "the generator may be the limit" if detail and detail.cpu_share > BOUND else ""
        memory = part.memory_mb.get(name)
        shown = ", ".join(f"{rate:.0f}" for rate in rates.values())
        settings = part.chosen.get(name, "as it ships" if name.startswith("Deskside") else "")
        weight = f"{memory:.0f}" if memory else ""
        middle = statistics.median(rates.values())
        lines.append(f"| {name} | {settings} | {middle:.0f} | {shown} | {times} | {weight} | {note} |")
    return [*lines, ""]


def _engine(parts: Mapping[str, Part]) -> list[str]:
    lines = ["## The engine alone", ""]
    if "engine" not in parts or not (figures := parts["engine"].figures):
        return [*lines, "Not taken.", ""]
    lines += [
        "Questions put to the engine without HTTP, in the process that asks; each answer checked there.", "",
        "| model, under way | answers/s | CPU us an answer, app | model's process |", "|---|---|---|---|",
    ]  # fmt: skip
    for case in (name.removesuffix(" rate") for name in figures if name.endswith(" rate")):
        app, worker = figures[f"{case} app us"], figures[f"{case} worker us"]
        lines.append(f"| {case} | {figures[f'{case} rate']:.0f} | {app:.0f} | {worker:.0f} |")
    return [*lines, ""]


def _window(parts: Mapping[str, Part]) -> list[str]:
    if "window" not in parts or not (figures := parts["window"].figures):
        return []
    lines = ["## The window", "", "A 5 ms timer of the window while its server is saturated.", ""]
    lines += ["| asked | p99 above idle, ms | answers/s |", "|---|---|---|"]
    for name, words in (("s", "S JSON c=32"), ("m", "M JPEG c=32"), ("json", "M JSON (3 MB) c=8")):
        lines.append(f"| {words} | {figures[f'gap-{name}']:.1f} | {figures[f'rate-{name}']:.0f} |")
    return [*lines, ""]


def _load(parts: Mapping[str, Part]) -> list[str]:
    if "load" not in parts or not (figures := parts["load"].figures):
        return []
    lines = ["## Load to first answer", "", "Seconds, and times the bare script's.", ""]
    lines += ["| model | bare script | first load | a later one | with a warm spare |", "|---|---|---|---|---|"]
    for name in (key.removeprefix("load-") for key in figures if key.startswith("load-") and key != "load-spare"):
        cells = [
            f"{figures[f'{way}-{name} s']:.2f} s" + ("" if way == "script" else f", {figures[f'{way}-{name}']:.2f}x")
            for way in ("script", "first", "later", "spare")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _sweeps(parts: Mapping[str, Part]) -> list[str]:
    lines = ["## The sweep of the peers' settings", ""]
    swept = [part for part in parts.values() if part.sweep]
    if not swept:
        return [*lines, "Not swept: peers ran as documented (QUICK=1, or nothing of theirs was asked for).", ""]
    lines += ["| model | peer | settings | answers/s |", "|---|---|---|---|"]
    for part in swept:
        lines += [f"| {part.name} | {peer} | {way} | {rate:.0f} |" for peer, way, rate in part.sweep]
    return [*lines, "", "Taken: " + "; ".join(f"{part.name} {part.swept}" for part in swept) + ".", ""]


def _generator(parts: Mapping[str, Part]) -> list[str]:
    if "generator" not in parts or not (figures := parts["generator"].figures):
        return []
    lines = ["## The generator alone", ""]
    for name in ("constant", "unique"):
        rate, each = figures[f"{name}-rate"], figures[f"{name}-us"]
        lines.append(
            f"- {name} headers: {rate:.0f}/s reached, {each:.1f} us of a core each, so {1e6 / each:.0f}/s of a core of "
            "its own"
        )
    return [*lines, ""]


def _peers(parts: Mapping[str, Part]) -> list[str]:
    lines = ["## Peers", ""]
    for file in sorted(REQUIREMENTS.glob("*.txt")):
        pins = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        lines.append(f"- {file.stem}: {', '.join(pins)}")
    not_run = [f"- {name}: {who}: {why}" for name, part in parts.items() for who, why in part.not_run.items()]
    return [*lines, "", "Not run:", "", *not_run] if not_run else lines


def bars(title: str, values: dict[str, float]) -> str:
    """Horizontal bars, the longest first; ours in another colour. Readable on white and on black."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    most = max(values.values(), default=1.0) or 1.0
    width, left, step = 760, 260, 26
    rows = []
    for number, (name, value) in enumerate(ordered):
        y = 40 + number * step
        colour = "#2f6fed" if name.startswith("Deskside") else "#c98a1b" if name.startswith("bare ") else "#8a8f98"
        length = max(1.0, value / most * (width - left - 90))
        rows.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{left}" y="{y}" width="{length:.0f}" height="{step - 8}" fill="{colour}"/>'
            f'<text x="{left + length + 6:.0f}" y="{y + 14}">{value:.0f}</text>'
        )
    height = 48 + len(ordered) * step
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13" fill="#111"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="8" y="22" font-weight="bold">{html.escape(title)}</text>{"".join(rows)}</svg>\n'
    )
