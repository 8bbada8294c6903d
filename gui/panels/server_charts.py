"""Four numbers of the last minute, each with its line."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QWidget

from gui.language import tr
from gui.server_meter import ServerMeter
from gui.widgets.live_chart import ChartCard
from gui.words import ms_words


class ServerCharts(QWidget):
    """Requests a second, time to answer, who waits, rows at a time."""

    def __init__(self, meter: ServerMeter, places: int, most_rows: int) -> None:
        super().__init__()
        self._meter, self._places, self._most_rows = meter, places, most_rows
        self.rate = ChartCard(tr("Requests a second"), (("accent", tr("you")), ("lan", tr("network"))))
        self.time = ChartCard(tr("Time to answer"))
        self.waiting = ChartCard(tr("Waiting"))
        self.batch = ChartCard(tr("Rows at a time"))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(12)
        for card in (self.rate, self.time, self.waiting, self.batch):
            row.addWidget(card, 1)
        meter.sampled.connect(self.refresh)

    def set_bounds(self, places: int, most_rows: int) -> None:
        self._places, self._most_rows = places, most_rows

    def refresh(self) -> None:
        meter = self._meter
        you, lan = (series[-1] if series else 0.0 for series in (meter.you, meter.lan))
        self.rate.show_values(
            _figure(you + lan),
            tr("{you} you, {network} network").format(you=_figure(you), network=_figure(lan)),
            [("lan", meter.lan, True), ("accent", meter.you, False)],
        )
        median, slow = (series[-1] if series else 0.0 for series in (meter.median, meter.slow))
        words = (
            tr("median, 95 % within {ms}").format(ms=ms_words(slow))
            if median
            else tr("nothing asked in the last minute")
        )
        self.time.show_values(
            ms_words(median) if median else "–", words, [("ctl", meter.slow, False), ("accent", meter.median, True)]
        )
        waiting = int(meter.waiting[-1]) if meter.waiting else 0
        self.waiting.show_values(
            str(waiting), tr("of {places} places").format(places=self._places), [("accent", meter.waiting, True)]
        )
        batch = meter.batch[-1] if meter.batch else 0.0
        words = tr("in a run, {most_rows} requests at most").format(most_rows=self._most_rows)
        self.batch.show_values(_figure(batch) if batch else "–", words, [("accent", meter.batch, True)])


def _figure(value: float) -> str:
    """``24.6``, ``0``, ``131``."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
