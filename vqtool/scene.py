"""Clips of motion as what a picture shows of them: figures of joints, seen by a camera; no drawing here."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vqtool.body import left_right_pairs
from vqtool.edit import RANGE
from vqtool.errors import MismatchError, UsageError
from vqtool.features import Start, recover_positions
from vqtool.motion import column_groups
from vqtool.skeleton import PUBLISHED_TREES
from vqtool.store import MotionSet

# Which joints of the published trees are left.
LEFT: dict[str, frozenset[int]] = {
    "humanml3d": frozenset({1, 4, 7, 10, 13, 16, 18, 20}),
    "kit": frozenset({8, 9, 10, 16, 17, 18, 19, 20}),
}
FOLLOW_S = 0.4  # seconds over which the camera's way after the root is smoothed
NEAR_PATH = 1.5  # body heights; a longer path is followed, a shorter one is seen whole


@dataclass(frozen=True)
class Figure:
    """A clip as joints: positions [T, J, 3] in metres, Y up.

    parents  of each joint, -1: none
    left     joints of the left side
    head     the joint that the head is drawn at, None: not known
    """

    positions: np.ndarray
    parents: tuple[int, ...]
    left: frozenset[int]
    head: int | None

    def pose(self, frame: int) -> np.ndarray:
        """Joints [J, 3] in a frame; the last one after the end."""
        pose: np.ndarray = self.positions[min(frame, len(self.positions) - 1)]
        return pose


@dataclass(frozen=True)
class Shot:
    """A clip of a file: its frames [T, D] and, where its layout and file say what the joints are, the figure."""

    clip: str
    frames: np.ndarray
    figure: Figure | None


def find_clip(motion: MotionSet, name: str) -> int:
    """The number of a clip; UsageError with the nearest name where there is none."""
    if name in motion.names:
        return motion.names.index(name)
    near = difflib.get_close_matches(name, motion.names, 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else f"; it has {len(motion):,}, the first is {motion.names[0]}"
    raise UsageError(f"no clip is called {name!r}{hint}", file=motion.paths[0])


def frame_range(text: str, fps: float) -> tuple[int, int | None]:
    """FROM:TO in frames, or in seconds as 1.5s:3s, as a half-open range; None: to the end."""
    if not (found := RANGE.fullmatch(text)):
        raise UsageError(f"--frames {text!r} is no range; write FROM:TO in frames, or in seconds as 1.5s:3s")
    start, stop = (
        None if word is None else round(float(word[:-1]) * fps) if word.endswith("s") else int(word)
        for word in found.groups()
    )
    return start or 0, stop


def read_shot(
    motion: MotionSet, clip: int, frames: tuple[int, int | None], like: tuple[MotionSet, int] | None = None
) -> Shot:
    """A range of a clip. With `like` it has the start and the joints of that clip of another file, if not its own.

    Raises DataError at a frame that is not finite, UsageError where the range holds no frame.
    """
    name, length = motion.names[clip], int(motion.lengths[clip])
    motion.check(clip)
    start, stop = frames[0], length if frames[1] is None else min(frames[1], length)
    if start >= stop:
        what = f"--frames leaves nothing of the clip, which has the frames 0:{length} ({length / motion.fps:.2f} s)"
        raise UsageError(what, file=motion.paths[0], clip=name)
    whole = motion.read(clip, 0, stop)  # from the first frame: the path adds up
    return Shot(name, whole[start:], _figure(motion, clip, whole, start, like))


def _figure(
    motion: MotionSet, clip: int, frames: np.ndarray, first: int, like: tuple[MotionSet, int] | None
) -> Figure | None:
    layout, dim = motion.layout, motion.dim
    features = bool(column_groups(layout, dim))
    if not features and not (layout == "positions" and dim % 3 == 0):
        return None
    joints = (dim + 1) // 12 if features else dim // 3
    body = motion.companions.body(clip)
    begin: Start = motion.companions.start(clip)
    if like is not None:
        begin = like[0].companions.start(like[1])
        body = like[0].companions.body(like[1]) if body is None else body
    if body is not None and len(body.names) == joints:
        parents = body.parents
        left = frozenset(joint for joint, _ in left_right_pairs(body.names))
        heads = [joint for joint, name in enumerate(body.names) if re.search("head", name, re.IGNORECASE)]
        head = heads[0] if heads else None
    elif len(PUBLISHED_TREES.get(layout, ())) == joints:
        parents, left, head = PUBLISHED_TREES[layout], LEFT[layout], 15 if layout == "humanml3d" else 4
    else:
        return None
    positions = recover_positions(frames, begin) if features else frames.reshape(len(frames), -1, 3).astype(np.float64)
    metres = 0.001 if layout == "kit" else 1.0
    return Figure(metres * positions[first:], parents, left, head)


def check_alike(motion: MotionSet, other: MotionSet) -> None:
    """MismatchError where two files do not hold the same kind of motion."""
    for what in ("dim", "layout"):
        mine, theirs = getattr(motion, what), getattr(other, what)
        if mine != theirs:
            text = f"has {'columns' if what == 'dim' else what} {theirs}, but {motion.paths[0]} has {mine}"
            raise MismatchError(f"{text}; give motion decoded from it", file=other.paths[0])
    if not 0.999 < other.fps / motion.fps < 1.001:
        what = f"has {other.fps:g} frames a second, but {motion.paths[0]} has {motion.fps:g}"
        raise MismatchError(what, file=other.paths[0])


def apart_mm(one: Figure, other: Figure, frame: int) -> float:
    """Mean distance of the joints in a frame with the roots together, mm."""
    first, second = one.pose(frame), other.pose(frame)
    difference = (second - second[0]) - (first - first[0])
    return 1000 * float(np.linalg.norm(difference, axis=1).mean())


class Camera:
    """Looks at figures from a side, slightly from above, and keeps them in a picture of width x height pixels.

    It follows the smoothed way of the first figure's root over the ground, or stands so that all of it is seen, and
    all of those that will stand `beside` it under the same view.
    World axes: Y up. `turn` is in degrees about Y; 0 sees a figure go to the right, and three quarters from ahead.
    """

    ELEVATION = np.radians(12.0)

    def __init__(
        self,
        figures: Sequence[Figure],
        fps: float,
        width: int,
        height: int,
        *,
        follow: bool | None = None,
        turn: float = 0.0,
        beside: Sequence[Figure] = (),
    ) -> None:
        lead = figures[0].positions
        self.floor = float(np.percentile(lead[..., 1].min(axis=1), 2))
        tall, wide = np.ptp(lead[..., 1], axis=1), np.ptp(lead, axis=1).max(axis=1)
        self.body = max(np.percentile(tall, 90).item(), 0.5 * np.percentile(wide, 90).item(), 1e-6)
        path = lead[:, 0, [0, 2]]
        self.follows = bool(np.ptp(path, axis=0).max() > NEAR_PATH * self.body) if follow is None else follow
        still = np.repeat((path.min(axis=0) + path.max(axis=0))[None] / 2, len(path), axis=0)
        middle = _smoothed(path, FOLLOW_S * fps) if self.follows else still
        self._targets = np.insert(middle, 1, self.floor + 0.5 * self.body, axis=1)
        angle = self._heading(lead) + np.radians(turn - 55.0)
        side, up = np.array([np.cos(angle), 0.0, -np.sin(angle)]), np.array([0.0, 1.0, 0.0])
        ahead = np.array([-np.sin(angle), 0.0, -np.cos(angle)])  # away from the eye
        cos, sin = np.cos(self.ELEVATION), np.sin(self.ELEVATION)
        self._axes = np.stack([side, cos * up + sin * ahead, cos * ahead - sin * up], axis=1)  # right, up, away
        self._distance = 6.0 * self.body
        self._scale, self._centre = 1.0, np.zeros(2)
        views = [(self, figure) for figure in figures] + [(self.of(figure, fps), figure) for figure in beside]
        self._fit([camera._seen(figure) for camera, figure in views], width, height)

    def of(self, figure: Figure, fps: float) -> Camera:
        """The same view of another figure, in a panel beside: it follows that one, where this one follows its own."""
        other = copy.copy(self)
        if self.follows:
            middle = _smoothed(figure.positions[:, 0, [0, 2]], FOLLOW_S * fps)
            other._targets = np.insert(middle, 1, self._targets[0, 1], axis=1)
        return other

    @staticmethod
    def _heading(positions: np.ndarray) -> float:
        """Where the figure goes, or, if it stays, the world's Z: an angle from Z towards X."""
        way = positions[-1, 0] - positions[0, 0]
        if np.hypot(way[0], way[2]) < 0.3 * np.ptp(positions[0, :, 1]):
            return 0.0
        return float(np.arctan2(way[0], way[2]))

    def _seen(self, figure: Figure) -> np.ndarray:
        """Where its joints are in the picture, in all frames."""
        return np.concatenate([self.project(pose, frame)[:, :2] for frame, pose in enumerate(figure.positions)])

    def _fit(self, seen: Sequence[np.ndarray], width: int, height: int) -> None:
        """Set scale and centre so that all frames are in the picture, but for where a second figure strays far."""
        room = 0.35 * np.ptp(seen[0], axis=0)
        low = np.maximum(np.min([one.min(axis=0) for one in seen], axis=0), seen[0].min(axis=0) - room)
        high = np.minimum(np.max([one.max(axis=0) for one in seen], axis=0), seen[0].max(axis=0) + room)
        top, bottom = 0.12 * height, 0.13 * height  # for the captions
        inside = np.array([0.86 * width, height - top - bottom])
        self._scale = float((inside / (high - low + 1e-9)).min())
        self._centre = np.array([width / 2, top + inside[1] / 2]) - self._scale * (low + high) / 2

    def project(self, points: np.ndarray, frame: int) -> np.ndarray:
        """Points [n, 3] of the world in a frame as pixels from the top left and how far away, [n, 3]."""
        from_target = points - self.target(frame)
        right, up, away = (from_target @ self._axes).T
        near = self._distance / np.maximum(self._distance + away, 0.1 * self._distance)
        places = np.stack([right * near, -up * near], axis=1) * self._scale + self._centre
        return np.column_stack([places, away])

    def target(self, frame: int) -> np.ndarray:
        """What it looks at in a frame."""
        target: np.ndarray = self._targets[min(frame, len(self._targets) - 1)]
        return target

    @property
    def pixels_a_body(self) -> float:
        """How tall the figure is in the picture."""
        return float(self._scale * self.body)

    def grid(self, frame: int, step: float = 1.0) -> list[np.ndarray]:
        """Lines [2, 3] on the floor every `step` metres, within a disc about what it looks at."""
        x, _, z = self.target(frame)
        paths = self._targets[:, [0, 2]]
        radius = 1.25 * self.body if self.follows else 1.1 * self.body + 0.5 * float(np.ptp(paths, axis=0).max())
        lines = []
        for axis, (along, across) in enumerate(((x, z), (z, x))):
            for place in np.arange(np.ceil((across - radius) / step) * step, across + radius, step):
                half = np.sqrt(max(0.0, radius**2 - (place - across) ** 2))
                ends = np.full((2, 3), self.floor)
                ends[:, 2 - 2 * axis] = place
                ends[:, 2 * axis] = along - half, along + half
                lines.append(ends)
        return lines


def _smoothed(path: np.ndarray, spread: float) -> np.ndarray:
    """A path [T, 2] under a Gaussian of so many frames; its ends go on straight."""
    reach = int(3 * spread) + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(spread, 1e-6)) ** 2)
    before, after = (path[1] - path[0], path[-1] - path[-2]) if len(path) > 1 else (0.0, 0.0)
    far = np.arange(1, reach + 1)[:, None]
    padded = np.concatenate([path[0] - far[::-1] * before, path, path[-1] + far * after])
    columns = [np.convolve(column, weights / weights.sum(), mode="valid") for column in padded.T]
    return np.stack(columns, axis=1)
