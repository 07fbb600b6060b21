"""The picture of a training in a terminal while it goes: step, speed, loss, and how each layer's codes are used."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from vqtool import signals
from vqtool.cli.codebook_view import NAME_WIDTH, Drawing, terminal
from vqtool.config import Config, build_config, read_run
from vqtool.errors import MissingInputError, counted
from vqtool.monitor import COLLAPSING, EARLY, HEALTHY, Monitor, new_records, told
from vqtool.publish import is_held
from vqtool.tokenizer_file import NAME

REFRESH = 0.5  # seconds between two drawings at least
WATCH_SECONDS = 2.0  # between two looks at a run
NOBODY = "nobody trains this run now; vqtool train ... --resume goes on with it"
METRICS = "metrics.jsonl"
MAX_LAYERS = 8  # that are shown
STYLES = {COLLAPSING: "red", HEALTHY: "green", EARLY: "dim"}
CURVE = 24  # characters of a curve at least


class LivePanel:
    """A panel that stays at the foot of a terminal and is drawn anew as the training goes on."""

    def __init__(self, console: Console, config: Config, title: str) -> None:
        self.monitor = Monitor(config.train.steps, config.train.eval_every)
        self._title, self._draw = title, Drawing(console)
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._drawn = 0.0
        self._live.start()

    @classmethod
    def on(cls, file: IO[str], config: Config, run: Path) -> LivePanel | None:
        """On that file; None where it is no terminal, or one that cannot be drawn over."""
        console = terminal(file)
        if not console.is_terminal or console.is_dumb_terminal:
            return None
        return cls(console, config, f"{run}  {config.model.bottleneck}")

    def stepped(self, step: int, loss: float) -> None:
        """A step is done."""
        self.monitor.stepped(step, loss)
        if time.monotonic() - self._drawn > REFRESH:
            self.refresh()

    def logged(self, record: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl was written."""
        self.monitor.add(record)
        self.refresh()

    def refresh(self, note: str = "") -> None:
        """Draw what is known now."""
        self._drawn = time.monotonic()
        lines = list(_lines(self.monitor, self._title, self._draw))
        self._live.update(Group(*lines, *([self._draw.entry("note", note, "dim")] if note else [])), refresh=True)

    def write(self, text: str) -> None:
        """A line above the panel."""
        self._live.console.print(Text(text))

    def close(self) -> None:
        """Draw once more, and leave that where it is."""
        if self.monitor.step:
            self.refresh()
        self.stop()

    def stop(self) -> None:
        """Leave the last drawing where it is."""
        self._live.stop()


def watch_run(run: Path) -> None:
    """Follow a run until it has its tokenizer: a panel on a terminal, elsewhere a line for each of metrics.jsonl.

    Ends with InterruptedRun at a signal. Raises MissingInputError where there is no run.
    """
    if not (run / "config.toml").exists():
        raise MissingInputError("holds no run of vqtool train (config.toml) to watch", file=run)
    config = build_config(read_run(run / "config.toml"))
    panel = LivePanel.on(sys.stdout, config, run)
    position = 0
    idle = False
    try:
        while True:
            finished = (run / NAME).exists()
            working = is_held(run.with_name(f"{run.name}.lock"))
            records, now = new_records(run / METRICS, position)
            if panel is not None and now < position:  # resumed or begun anew
                panel.monitor.forget()
            position = now
            for record in records:
                if panel is not None:
                    panel.monitor.add(record)
                else:
                    print(told(record), flush=True)
            note = "" if working or finished else NOBODY
            if panel is not None:
                panel.refresh(note)
            elif note and not idle:
                print(note, flush=True)
            idle = bool(note)
            if finished:
                return
            for _ in range(int(WATCH_SECONDS / 0.1)):
                signals.check()
                time.sleep(0.1)
    finally:
        if panel is not None:
            panel.stop()


def _lines(monitor: Monitor, title: str, draw: Drawing) -> Iterator[Text]:
    share = monitor.step / monitor.steps
    yield Text(draw.plain(title), style="bold", overflow="ellipsis", no_wrap=True)
    rate, left = monitor.steps_per_second, monitor.seconds_left
    speed = "" if rate is None or left is None else f", {rate:.3g} steps/s, {duration(left)} left"
    yield draw.entry("step", f"{monitor.step:,} of {monitor.steps:,}{speed}")
    yield Text(" " * NAME_WIDTH).append(draw.bar(share, draw.width - NAME_WIDTH))
    if monitor.losses:
        yield _curve("loss", f"{monitor.losses[-1]:.4f}", monitor.losses, draw)
    if monitor.evaluations:
        last = monitor.evaluations[-1]
        yield _curve("validation", f"nMSE {last['nmse']:.4f}", monitor.curve("nmse"), draw)
        if "kl" in last:
            yield _curve("KL", f"{last['kl']:.2f} nats", monitor.curve("kl"), draw)
        usage = last.get("usage", [])
        for layer, used in enumerate(usage[:MAX_LAYERS]):
            perplexities = monitor.curve("perplexity", layer)
            text = f"{100 * used:3.0f} % used, perplexity {perplexities[-1]:.0f}"
            yield _curve(f"layer {layer}", text, perplexities, draw)
        if len(usage) > MAX_LAYERS:
            yield draw.entry("", f"and {counted(len(usage) - MAX_LAYERS, 'layers')} more")
    status, sentence = monitor.verdict
    yield draw.entry("verdict", sentence, STYLES.get(status, "yellow"))


def _curve(name: str, text: str, values: list[float], draw: Drawing) -> Text:
    """A name, the newest value and how it came to be so, on one line."""
    room = draw.width - NAME_WIDTH
    wide = 34 if room >= 34 + CURVE else max(0, room - CURVE)
    line = Text(f"{name:<{NAME_WIDTH}}", style="bold").append(f"{text:<{wide}}", style="not bold")
    left = draw.width - len(line) - 1
    return line.append(" ").append(draw.curve(values, left)) if left > 3 else line


def duration(seconds: float) -> str:
    """8 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"
