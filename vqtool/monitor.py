"""A training while it goes: from the lines of metrics.jsonl to curves, the time left and a verdict; no torch."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqtool.errors import DataError, counted
from vqtool.usage import FEW_USED, SOME_USED

RATE_SECONDS = 60.0  # over which the speed is measured
FALLEN = 0.7  # of the best perplexity; below, and with few codes left, a codebook is collapsing
WORSE = 1.2  # times the best validation error; above, training has gone on too long
EARLY, HEALTHY, FEW, COLLAPSING, OVERFITTING = "too early", "healthy", "few codes used", "collapsing", "over-fitting"


class Monitor:
    """What is known of a run of `steps` steps: fed with lines of metrics.jsonl, and with single steps where seen."""

    def __init__(self, steps: int, eval_every: int) -> None:
        self.steps, self.eval_every = steps, eval_every
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.step = 0
        self.losses: list[float] = []  # of training lines and of single steps
        self.evaluations: list[Mapping[str, Any]] = []
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in a line of metrics.jsonl."""
        if record["split"] == "val":
            self.evaluations.append(record)
        elif record["step"] > self.step:  # else its step was seen
            self.losses.append(float(record["loss"]))
        self._advance(int(record["step"]))

    def stepped(self, step: int, loss: float) -> None:
        """Take in a single step."""
        self.losses.append(loss)
        self._advance(step)

    def _advance(self, step: int) -> None:
        now = time.monotonic()
        if step > self.step or not self._seen:
            self._seen.append((now, step))
        while now - self._seen[0][0] > RATE_SECONDS and len(self._seen) > 2:
            self._seen.popleft()
        self.step = max(self.step, step)

    @property
    def steps_per_second(self) -> float | None:
        """Over the last minute; None before two steps were seen at different times."""
        if not self._seen:
            return None
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - begin) if end - begin > 0.5 and last > first else None

    @property
    def seconds_left(self) -> float | None:
        """At that speed."""
        rate = self.steps_per_second
        return None if rate is None else (self.steps - self.step) / rate

    def curve(self, name: str, layer: int | None = None) -> list[float]:
        """A value of all evaluations, of a layer where there is one for each."""
        values = [record[name] for record in self.evaluations if name in record]
        return [float(value if layer is None else value[layer]) for value in values]

    @property
    def verdict(self) -> tuple[str, str]:
        """Status and one sentence: how it goes, and what to change."""
        if not self.evaluations:
            first = min(self.eval_every, self.steps)
            return EARLY, f"too early to tell: the validation set is looked at every {counted(first, 'steps')}"
        last = self.evaluations[-1]
        usage = last.get("usage", [])
        for layer, share in enumerate(usage):
            perplexities = self.curve("perplexity", layer)
            if share < SOME_USED and perplexities[-1] < FALLEN * max(perplexities):
                fell = f"from {max(perplexities):.0f} to {perplexities[-1]:.0f}"
                return COLLAPSING, (
                    f"collapsing: the perplexity of layer {layer} fell {fell}; begin anew with a lower train.lr or a "
                    "larger train.batch_size, and keep bottleneck.revive_below above 0"
                )
        errors = self.curve("nmse")
        if errors[-1] > WORSE * min(errors):
            best = self.evaluations[errors.index(min(errors))]["step"]
            change = f"was best at step {best:,} ({min(errors):.4f}) and is {errors[-1]:.4f} now"
            return OVERFITTING, (
                f"over-fitting: the validation nMSE {change}; "
                f"begin anew with --steps {best}, a smaller model or more motion"
            )
        few = [layer for layer, share in enumerate(usage) if share < FEW_USED]
        if few:
            where = ", ".join(map(str, few))
            return FEW, (
                f"few codes used in layer {where} on the validation clips so far; if that stays so, the codebook is "
                "over-sized: take a smaller bottleneck.codebook_size or fewer layers"
            )
        rest = f": {100 * min(usage):.0f}-{100 * max(usage):.0f} % of the codes in use" if usage else ""
        return HEALTHY, f"healthy so far{rest}, validation nMSE {errors[-1]:.4f}"


def told(record: Mapping[str, Any]) -> str:
    """A line of metrics.jsonl in words."""
    if record["split"] == "train":
        return f"step {record['step']}: loss {record['loss']:.4f}"
    text = f"step {record['step']}: validation nMSE {record['nmse']:.4f}"
    if "usage" in record:
        usage = " ".join(f"{share:.0%}" for share in record["usage"])
        text += f", codes used {usage}, perplexity {' '.join(f'{p:.0f}' for p in record['perplexity'])}"
    if "kl" in record:
        text += f", KL {record['kl']:.2f} nats per token frame"
    return text


def new_records(metrics: Path, position: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of metrics.jsonl from byte `position` on, and where the next one begins.

    From the start where the file has become shorter: a run was resumed or begun anew. None where there is no file.
    """
    if not metrics.exists() or metrics.stat().st_size < position:
        position = 0
    if not metrics.exists():
        return [], 0
    with metrics.open("rb") as file:
        file.seek(position)
        lines = file.read().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    try:
        records = [json.loads(line) for line in whole]
        for record in records:
            told(record)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("has lines that are not vqtool's; name another run", file=metrics) from error
    return records, position + sum(map(len, whole))
