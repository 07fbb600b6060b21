"""summarize(): how much motion files hold, how long their clips are, and what their columns are like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqtool.motion import column_groups, column_names
from vqtool.splits import SPLITS
from vqtool.stats import ColumnStats
from vqtool.store import MotionSet


@dataclass
class Summary:
    """What `vqtool stats` says. `lengths` [N] frames; `columns` the statistics of all chosen frames."""

    clips: int
    frames: int
    fps: float
    layout: str
    lengths: np.ndarray
    columns: ColumnStats
    names: list[str]
    groups: dict[str, slice]
    splits: dict[str, int] | None
    bodies: int
    captions: int
    mirrored: int
    std_convention: str | None

    @property
    def minutes(self) -> float:
        """Of motion."""
        return self.frames / self.fps / 60

    def histogram(self) -> list[tuple[int, int, int]]:
        """(least, most, clips) by length in frames: 0, then from each power of two to the next."""
        if not len(self.lengths):
            return []
        powers = np.where(self.lengths > 0, np.log2(np.maximum(self.lengths, 1)).astype(int), -1)
        return [
            (int(2**power), int(2 ** (power + 1) - 1), int((powers == power).sum()))
            if power >= 0
            else (0, 0, int((powers == -1).sum()))
            for power in range(int(powers.min()), int(powers.max()) + 1)
        ]

    def to_json(self) -> dict[str, Any]:
        """As the object that --json prints; null where there are no frames."""
        stats = self.columns
        known = stats.count > 0
        columns = [
            {
                "name": name,
                "min": float(stats.low[n]) if known else None,
                "mean": float(stats.mean[n]) if known else None,
                "std": float(stats.std[n]) if known else None,
                "max": float(stats.high[n]) if known else None,
                "constant": bool(stats.constant[n]) if known else None,
            }
            for n, name in enumerate(self.names)
        ]
        return {
            "schema_version": 1,
            "clips": self.clips,
            "frames": self.frames,
            "minutes": self.minutes,
            "fps": self.fps,
            "layout": self.layout,
            "dim": len(self.names),
            "splits": self.splits,
            "bodies": self.bodies,
            "captions": self.captions,
            "mirrored": self.mirrored,
            "source_stats_convention": self.std_convention,
            "lengths": [{"from": low, "to": high, "clips": count} for low, high, count in self.histogram()],
            "columns": columns,
        }


def summarize(motion: MotionSet, clips: Sequence[int], progress: Callable[[int], None] | None = None) -> Summary:
    """One pass over those clips; DataError at the first frame that is not finite."""
    stats = ColumnStats.empty(motion.dim)
    for clip in clips:
        for block in motion.blocks(clip):
            stats = stats.merge(ColumnStats.of(block))
            if progress is not None:
                progress(len(block))
    along = motion.companions.select(clips)
    counts = None
    if along.splits is not None:
        counts = {name: int((along.splits == number).sum()) for name, number in SPLITS.items()}
    convention = motion.attribute("source_stats_convention")
    return Summary(
        clips=len(clips),
        frames=stats.count,
        fps=motion.fps,
        layout=motion.layout,
        lengths=motion.lengths[list(clips)],
        columns=stats,
        names=column_names(motion.layout, motion.dim, along.bodies[0].names if along.bodies else None),
        groups=column_groups(motion.layout, motion.dim),
        splits=counts,
        bodies=len(along.bodies),
        captions=len(along.captions),
        mirrored=0 if along.mirror_of is None else int((along.mirror_of >= 0).sum()),
        std_convention=convention if isinstance(convention, str) else None,
    )
