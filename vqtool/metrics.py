"""How far decoded joints are from where they were: mean per-joint position errors in millimetres."""

from __future__ import annotations

import numpy as np

from vqtool.features import place_joints
from vqtool.motion import column_groups

BLOCK = 4096  # frames whose positions are worked out at once


class JointErrors:
    """Accumulates errors over clips whose pieces come in any order; for the layouts that know joint positions.

    mpjpe          mean over frames and joints of the distance between true and decoded joint, both clips
                   beginning at the same place with the same heading: errors of the path add up
    mpjpe_aligned  the same after the roots of each frame are moved together
    Both are in mm, None before any frame.
    """

    def __init__(self, layout: str, dim: int) -> None:
        self._features = bool(column_groups(layout, dim))
        self._columns = 3 * ((dim + 1) // 12) + 1 if self._features else dim
        self.known = self._features or (layout == "positions" and dim % 3 == 0)
        self._waiting: dict[int, dict[int, np.ndarray]] = {}
        self._sums = np.zeros(2)
        self._count = 0

    def add(self, clip: int, start: int, num_frames: int, truth: np.ndarray, decoded: np.ndarray) -> None:
        """Take in frames `start` on, [n, D] both, of a clip of num_frames."""
        pieces = self._waiting.setdefault(clip, {})
        pieces[start] = np.stack([truth[:, : self._columns], decoded[:, : self._columns]])
        if sum(piece.shape[1] for piece in pieces.values()) == num_frames:
            del self._waiting[clip]
            self._add_clip(np.concatenate([pieces[first] for first in sorted(pieces)], axis=1))

    def _add_clip(self, pair: np.ndarray) -> None:
        starts = [(0.0, 0.0, 0.0)] * 2
        for first in range(0, pair.shape[1], BLOCK):
            positions = []
            for number, columns in enumerate(pair):
                if self._features:
                    # One frame more tells where the next block begins.
                    seen, heading = place_joints(columns[first : first + BLOCK + 1], starts[number])
                    starts[number] = seen[-1, 0, 0].item(), seen[-1, 0, 2].item(), heading[-1].item()
                    positions.append(seen[:BLOCK])
                else:
                    positions.append(
                        columns[first : first + BLOCK].astype(np.float64).reshape(-1, self._columns // 3, 3)
                    )
            truth, decoded = positions
            moved = decoded - decoded[:, :1] + truth[:, :1]
            self._sums += [np.linalg.norm(other - truth, axis=2).sum() for other in (decoded, moved)]
            self._count += truth.shape[0] * truth.shape[1]

    @property
    def mpjpe(self) -> float | None:
        """Global error in mm."""
        return 1000 * float(self._sums[0]) / self._count if self._count else None

    @property
    def mpjpe_aligned(self) -> float | None:
        """Root-aligned error in mm."""
        return 1000 * float(self._sums[1]) / self._count if self._count else None
