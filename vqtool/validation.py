"""find_problems(): what is wrong with motion files, clip by clip, before a tokenizer learns it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vqtool.companions import some
from vqtool.errors import DataError, VqtoolError, counted
from vqtool.motion import column_groups, column_names
from vqtool.stats import ColumnStats
from vqtool.store import MotionSet

FASTEST_ROOT = 15.0  # metres a second: faster than any sprinter
SHOWN = 8  # columns or names in one line


def find_problems(
    paths: Sequence[Path],
    *,
    dataset: str | None = None,
    fps: float | None = None,
    min_frames: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Iterator[DataError]:
    """Every problem as an error that names its file, clip and frame, in the order of files and clips.

    Looked for: damage, NaN, a root that teleports (over 15 m/s), columns that never move, Euler angles that wrap
    (layout raw), clips of under `min_frames` frames, names that several files share, files that differ in columns,
    layout or frame rate. `progress` is told of frames. Raises MissingInputError and UsageError.
    """
    seen: dict[str, Path] = {}
    first: MotionSet | None = None
    for path in paths:
        try:
            motion = MotionSet([path], dataset=dataset, fps=fps)
        except DataError as error:
            yield error
            continue
        with motion:
            yield from _of_file(motion, min_frames, progress)
            shared = [name for name in motion.names if name in seen]
            if shared:
                yield DataError(f"clips of the same names are in {seen[shared[0]]}: {some(shared, SHOWN)}", file=path)
            seen |= dict.fromkeys(motion.names, path)
            first = first or motion
            for what in ("dim", "layout", "fps"):
                mine, theirs = getattr(motion, what), getattr(first, what)
                if mine != theirs:
                    label = {"dim": "columns"}.get(what, what)
                    yield DataError(f"has {label} {mine}, but {first.paths[0]} has {theirs}", file=path)


def _of_file(motion: MotionSet, min_frames: int, progress: Callable[[int], None] | None) -> Iterator[DataError]:
    path = motion.paths[0]
    try:
        motion.verify()
    except DataError as error:
        yield error
    stats = ColumnStats.empty(motion.dim)
    for clip in range(len(motion)):
        frames = int(motion.lengths[clip])
        if frames < min_frames:
            what = "is empty" if frames == 0 else f"has {counted(frames, 'frames')}, fewer than {min_frames}"
            yield DataError(what, file=path, clip=motion.names[clip])
        try:
            yield from _of_clip(motion, clip)
            for block in motion.blocks(clip):
                stats = stats.merge(ColumnStats.of(block))
        except VqtoolError as error:
            if not isinstance(error, DataError):
                raise
            yield error
        if progress is not None:
            progress(frames)
    if stats.count > 1 and stats.constant.any():
        body = motion.companions.bodies[0].names if motion.companions.bodies else None
        names = column_names(motion.layout, motion.dim, body)
        still = [f"{column} ({names[column]})" for column in np.flatnonzero(stats.constant)]
        verb = "moves" if len(still) == 1 else "move"
        what = f"{len(still)} of {counted(motion.dim, 'columns')} never {verb}: {some(still, SHOWN)}"
        yield DataError(what, file=path)


def _of_clip(motion: MotionSet, clip: int) -> Iterator[DataError]:
    """Jumps from frame to frame."""
    path, name = motion.paths[0], motion.names[clip]
    wraps: dict[int, int] = {}
    wrapped = teleported = -1
    fastest = 0.0
    last = np.zeros((0, motion.dim), np.float32)
    first = 0  # frame number of rows[0]
    for block in motion.blocks(clip):
        rows = np.concatenate([last, block])
        speed = _root_speed(rows, motion)
        if len(speed) and speed.max() > max(fastest, FASTEST_ROOT):
            fastest, teleported = float(speed.max()), first + int(np.argmax(speed))
        if motion.layout == "raw":
            for frame, column in np.argwhere(_wraps(rows)).tolist():
                wrapped = first + frame + 1 if wrapped < 0 else wrapped
                wraps[column] = wraps.get(column, 0) + 1
        first += len(rows) - 1
        last = rows[-1:]
    if teleported >= 0:
        what = f"the root moves at {fastest:,.0f} m/s; cut the clip there, or mend it"
        yield DataError(what, file=path, clip=name, frame=teleported)
    if wraps:
        columns = some([str(column) for column in sorted(wraps)], SHOWN)
        jumps = counted(sum(wraps.values()), "jumps")
        what = f"{jumps} of a full turn in columns {columns}; import the joints, or unwrap the angles"
        yield DataError(what, file=path, clip=name, frame=wrapped)


def _root_speed(rows: np.ndarray, motion: MotionSet) -> np.ndarray:
    """Metres a second from each frame to the next, [T - 1]; none where the layout knows no root."""
    if motion.layout == "positions":
        way = np.diff(rows[:, :3].astype(np.float64), axis=0)
    elif column_groups(motion.layout, motion.dim):
        way = np.concatenate([rows[:-1, 1:3], np.diff(rows[:, 3:4], axis=0)], axis=1).astype(np.float64)
    else:
        return np.zeros(0)
    speed: np.ndarray = np.linalg.norm(way, axis=1) * motion.fps
    return speed


def _wraps(rows: np.ndarray) -> np.ndarray:
    """Where [T - 1, D] an angle within half a turn jumps from near one end to near the other."""
    before, after = rows[:-1], rows[1:]
    largest = np.abs(rows).max(axis=0, initial=0.0)
    found = np.zeros(before.shape, dtype=bool)
    for half in (180.0, np.pi):
        angle = (largest <= 1.0001 * half) & (largest > 0.9 * half)
        found |= angle & (np.abs(after - before) > 5 / 3 * half)
    return found
