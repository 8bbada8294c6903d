"""The report: Markdown, with bars drawn as SVG beside it."""

from __future__ import annotations

import datetime
import html
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.environments import REQUIREMENTS
from benchmarks.load import Outcome
from benchmarks.verdicts import HEAD

if TYPE_CHECKING:
    from benchmarks.compare import Results

TITLES = {
    "s": "S: MLP 8-32-3", "m": "M: MobileNetV2, half width, 224x224", "l": "L: ResNet-50, 224x224",
    "keras": "Keras M: MobileNetV2, half width, 224x224",
}  # fmt: skip
BOUND = 0.8
"""Share of a core from which on the generator, not the server, may be what is measured."""


def ceiling_text(found: Outcome) -> str:
    each = found.cpu_share / found.rate
    return f"{found.rate:.0f}/s reached, {each * 1e6:.1f} us of a core each, so {1 / each:.0f}/s of a core of its own"


def write(results: Results, path: Path) -> None:
    from benchmarks.compare import FULL, QUICK, ROUNDS, SECONDS

    pictures = path.parent / path.stem
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        old.unlink()
    kind = "QUICK=1 make bench" if QUICK else "FULL=1 make bench" if FULL else "make bench"
    lines = [
        "# Performance", "",
        f"Written by `{kind}` on {datetime.date.today().isoformat()} at {machine.commit()}; not by hand. "
        f"{ROUNDS} rounds of {SECONDS:g} s a cell.", "",
        machine.describe(), "", results.busy.sentence(), "",
        "Ratios are taken within a round, between servers asked one after the other; their median counts. Bodies "
        "rotate over 256 inputs, and every answer is held against its input's reference while the clock runs. There is "
        "no cache of answers. "
        "Deskside runs as it ships: journal, metrics, request log and access rules on. The generator shares the cores "
        "with whom it asks.", "",
        "## Verdicts", "", HEAD, *(row.markdown() for row in results.rows), "",
    ]  # fmt: skip
    if results.failures:
        lines += ["**This run failed:**", "", *(f"- {failure}" for failure in results.failures), ""]
    for model, cells in results.rates.items():
        lines += [f"## {TITLES[model]}", ""]
        for cell, found in cells.items():
            lines += _table(results, model, cell, found)
            name = f"{model}-{cell}".replace(" ", "-").replace(",", "").replace("=", "")
            medians = {who: statistics.median(rates.values()) for who, rates in found.items()}
            (pictures / f"{name}.svg").write_text(bars(f"{model.upper()} {cell}: answers a second", medians))
            lines += [f"![{model.upper()} {cell}]({pictures.name}/{name}.svg)", ""]
    lines += _rest(results)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"written: {path}")


def _table(results: Results, model: str, cell: str, found: dict[str, dict[int, float]]) -> list[str]:
    lines = [
        f"### {cell}",
        "",
        "| server | settings | answers/s | rounds | p50 / p99 ms | memory MB | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rates in sorted(found.items(), key=lambda item: -statistics.median(item[1].values())):
        detail = results.details.get(model, {}).get(cell, {}).get(name)
        times = f"{detail.p50_ms:.2f} / {detail.p99_ms:.2f}" if detail else ""
        note = "the generator may be the limit" if detail and detail.cpu_share > BOUND else ""
        memory = results.memory_mb.get(model, {}).get(name)
        shown = ", ".join(f"{rate:.0f}" for rate in rates.values())
        settings = results.chosen.get(model, {}).get(name, "as it ships" if name.startswith("Deskside") else "")
        weight = f"{memory:.0f}" if memory else ""
        middle = statistics.median(rates.values())
        lines.append(f"| {name} | {settings} | {middle:.0f} | {shown} | {times} | {weight} | {note} |")
    return [*lines, ""]


def _rest(results: Results) -> list[str]:
    lines = ["## The sweep of the peers' settings", ""]
    if results.sweeps:
        lines += ["| model | peer | settings | answers/s |", "|---|---|---|---|"]
        lines += [f"| {model} | {peer} | {way} | {rate:.0f} |" for model, peer, way, rate in results.sweeps]
    else:
        lines += ["Not swept: peers ran as documented (QUICK=1 or nothing of theirs was asked for)."]
    lines += ["", "## The generator alone", ""]
    lines += [f"- {name}: {ceiling_text(found)}" for name, found in results.ceilings.items()]
    if results.window:
        lines += ["", "## The window", "", *(f"- {name}: {value:.2f}" for name, value in results.window.items())]
    if results.footprint:
        lines += [
            "",
            "## Load and memory",
            "",
            *(f"- {name}: {value:.2f}" for name, value in results.footprint.items()),
        ]
    lines += ["", "## Peers", ""]
    for file in sorted(REQUIREMENTS.glob("*.txt")):
        pins = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        lines.append(f"- {file.stem}: {', '.join(pins)}")
    if results.not_run:
        lines += ["", "Not run:", "", *(f"- {name}: {why}" for name, why in results.not_run.items())]
    return lines


def bars(title: str, values: dict[str, float]) -> str:
    """Horizontal bars, the longest first; ours in another colour. Readable on white and on black."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    most = max(values.values(), default=1.0) or 1.0
    width, left, step = 760, 260, 26
    rows = []
    for number, (name, value) in enumerate(ordered):
        y = 40 + number * step
        colour = "#2f6fed" if name.startswith("Deskside") else "#c98a1b" if name.startswith("bare loop") else "#8a8f98"
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
