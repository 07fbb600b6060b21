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
    mpjpe_aligned  the same after the roots of each frame are moved together; a wrong heading still counts
    mpjpe_pose     the same after the roots are moved and the headings turned together: the pose alone. Positions,
                   which have no heading, are only moved
    All are in mm, None before any frame.
    """

    def __init__(self, layout: str, dim: int) -> None:
        self._features = bool(column_groups(layout, dim))
        self._columns = 3 * ((dim + 1) // 12) + 1 if self._features else dim
        self.known = self._features or (layout == "positions" and dim % 3 == 0)
        self._waiting: dict[int, dict[int, np.ndarray]] = {}
        self._sums = np.zeros(3)
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
            places, poses = [], []
            for number, columns in enumerate(pair):
                if self._features:
                    # One frame more tells where the next block begins.
                    seen, heading = place_joints(columns[first : first + BLOCK + 1], starts[number])
                    starts[number] = seen[-1, 0, 0].item(), seen[-1, 0, 2].item(), heading[-1].item()
                    places.append(seen[:BLOCK])
                    # [T, J, 3] in the facing frame: (0, height, 0) of the root, then the other joints.
                    own = np.insert(columns[first : first + BLOCK, 3:].astype(np.float64), [0, 1], 0.0, axis=1)
                else:
                    own = columns[first : first + BLOCK].astype(np.float64)
                    places.append(own.reshape(len(own), -1, 3))
                poses.append(own.reshape(len(own), -1, 3))
            pairs = places, [_from_root(one) for one in places], [_from_root(one) for one in poses]
            for which, (truth, decoded) in enumerate(pairs):
                self._sums[which] += np.linalg.norm(decoded - truth, axis=2).sum()
            self._count += places[0].shape[0] * places[0].shape[1]

    @property
    def mpjpe(self) -> float | None:
        """Along the path, in mm."""
        return self._mean(0)

    @property
    def mpjpe_aligned(self) -> float | None:
        """Root-aligned, in mm."""
        return self._mean(1)

    @property
    def mpjpe_pose(self) -> float | None:
        """Of the pose alone, in mm."""
        return self._mean(2)

    def _mean(self, which: int) -> float | None:
        return 1000 * float(self._sums[which]) / self._count if self._count else None


def _from_root(positions: np.ndarray) -> np.ndarray:
    """Positions [T, J, 3] as seen from joint 0."""
    seen: np.ndarray = positions - positions[:, :1]
    return seen
