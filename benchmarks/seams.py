"""How rough the seams of random splices are, with and without cross-fade.

    python benchmarks/seams.py runs/mocap tokens.h5

Splices 100 random pairs of clips at random places, always with the same material around the seam, and judges each seam
by the motion that the run decodes: the largest change of velocity within a token of it, over the 95th percentile of the
same at all places of the two clips. Beside it, the same at places of clips that were never cut.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from vqtool.edit import Edit, Range, Seam, joined, judge, length_of, rows_of
from vqtool.nn.codec import load
from vqtool.tokens import TokenSet

SPLICES, MARGIN = 100, 8  # token frames that a seam keeps from the ends of a clip


def row(name: str, ratios: list[float | None], jumps: list[float]) -> str:
    found = np.array([ratio for ratio in ratios if ratio is not None])
    spread = f"median {np.median(found):.2f}, 90 % {np.percentile(found, 90):.2f}, largest {found.max():.2f}"
    return f"{name:22} {spread}, above 1: {np.mean(found > 1):4.0%}, jump {np.median(jumps):.3f}"


def main(run: str, path: str) -> None:
    codec = load(run, device="cpu")
    scale = codec.model.normalizer.scale.numpy()

    def decode(rows: np.ndarray) -> np.ndarray:
        return np.asarray(codec.decode(rows)) / scale

    random = np.random.default_rng(0)
    with TokenSet(Path(path)) as tokens:
        clips = [clip for clip in range(len(tokens)) if length_of(tokens, clip) >= 2 * MARGIN]
        pairs = []
        for _ in range(SPLICES):
            one, other = (int(clip) for clip in random.choice(clips, 2, replace=False))
            cut = int(random.integers(MARGIN, length_of(tokens, one) - MARGIN + 1))
            pairs.append((one, cut, other, int(random.integers(0, length_of(tokens, other) - 2 * MARGIN + 1))))
        for fade in (0, 1, 2, 4):
            edits = []
            for one, cut, other, start in pairs:
                parts = [Range(one, 0, cut + fade - fade // 2), Range(other, start, length_of(tokens, other))]
                edits.append(joined(tokens, "splice", parts, cross_fade=fade))
            found = judge(tokens, edits, decode)
            print(row(f"cross-fade {fade}, motion", [one.ratio for one in found], [one.jump for one in found]))
            found = judge(tokens, edits)
            print(row(f"cross-fade {fade}, vectors", [one.ratio for one in found], [one.jump for one in found]))
        uncut = []
        for one, cut, other, _ in pairs:
            rows = rows_of(tokens, Range(one, 0, length_of(tokens, one)))
            uncut.append(Edit("uncut", rows, 0, one, (one, other), seams=[Seam(cut, cut)]))
        found = judge(tokens, uncut, decode)
        print(row("uncut, motion", [one.ratio for one in found], [one.jump for one in found]))


if __name__ == "__main__":
    main(*sys.argv[1:])
