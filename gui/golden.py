"""The kept answer of a model (its golden sample) in words: which doors gave the same, and within what tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gui.language import tr
from gui.words import moment_words

KEPT = "kept answer"
"""The ``source`` of a sample that the owner kept."""


@dataclass(frozen=True, slots=True)
class GoldenWords:
    """``icon`` and ``tone`` as the banner has them; ``at`` is the clock time of the check, "" before the first."""

    icon: str
    tone: str
    sentence: str
    second: str
    at: str = ""


def golden_of(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """The report in an entry of ``stats()["models"]``; None where no answer is kept."""
    golden = entry.get("golden")
    return dict(golden) if golden else None


def golden_words(golden: Mapping[str, Any] | None) -> GoldenWords:
    """What the badge says of a report, see ``stats()["models"][i]["golden"]``."""
    if golden is None:
        second = tr("Keep an answer you know to be right: it is checked after every load.")
        return GoldenWords("bookmark", "text2", tr("No answer is kept to check against"), second)
    window, network = golden["window"], golden["network"]
    at = clock_words(golden["checked_at"])
    within = " ".join(part for part in (str(golden["message"]), tolerance_words(golden)) if part)
    if window is None and network is None:
        return GoldenWords("circle-help", "warn", tr("The kept answer could not be checked"), within, at)
    if window is False or network is False:
        here, there = window is False, network is False
        sentence = (
            tr("Not the kept answer here and over the network") if here and there
            else tr("Not the kept answer here") if here else tr("Not the kept answer over the network")
        )  # fmt: skip
        return GoldenWords("circle-alert", "error", sentence, within, at)
    sentence = (
        tr("Same answer here and over the network") if window and network
        else tr("Same answer here") if window else tr("Same answer over the network")
    )  # fmt: skip
    return GoldenWords("git-compare", "ok", sentence, within, at)


def is_kept(golden: Mapping[str, Any] | None) -> bool:
    """Whether the owner kept it, and it did not come with the model's files."""
    return golden is not None and golden["source"] == KEPT


def door_words(agreed: bool | None, open_: bool = True) -> str:
    """One door of a report."""
    if agreed is None:
        return tr("not checked yet") if open_ else tr("not checked, the server is off")
    return tr("same answer") if agreed else tr("another answer")


def tolerance_words(golden: Mapping[str, Any]) -> str:
    """``largest difference 3e-07, 0.0001 allowed``."""
    difference, allowed = golden["difference"], golden["tolerance"]
    if difference is None:
        return tr("{allowed:g} allowed.").format(allowed=allowed)
    words = tr("Largest difference {difference:.1g}, {allowed:g} allowed.")
    return words.format(difference=difference, allowed=allowed)


def clock_words(at: Any) -> str:
    """Unix seconds as the clock's hours and minutes, with the day where it was another one."""
    if not at:
        return ""
    return moment_words(float(at))
