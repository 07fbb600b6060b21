"""A skeleton, one clip of its motion, and where its joints are: forward kinematics and resampling."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from vqtool.errors import DataError, UsageError
from vqtool.rotations import slerp

# Parents of the joints of two layouts whose files name no skeleton: https://arxiv.org/abs/2204.14109
PUBLISHED_TREES: dict[str, tuple[int, ...]] = {
    "humanml3d": (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19),
    "kit": (-1, 0, 1, 2, 3, 3, 5, 6, 3, 8, 9, 0, 11, 12, 13, 14, 0, 16, 17, 18, 19),
}


@dataclass(frozen=True)
class BvhTemplate:
    """What a BVH file says beyond the skeleton, so that it can be written back as it was."""

    hierarchy: str  # the file's text before MOTION: names, channel order, End Sites, joints above the root
    metres_per_unit: float
    up: str  # "y" or "z": the file's vertical axis; in memory it is always Y


@dataclass(frozen=True)
class Skeleton:
    """J joints: the root first (parent -1), every other joint after its parent.

    `offsets` [J, 3] are the rest positions in the parent's frame in metres; the root's is not used.
    Raises DataError when these do not make one tree.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    bvh: BvhTemplate | None = None

    def __post_init__(self) -> None:
        joints = len(self.names)
        if not joints or len(self.parents) != joints or np.shape(self.offsets) != (joints, 3):
            raise DataError(
                f"a skeleton needs as many parents and offsets [J, 3] as names; this one has {joints} names, "
                f"{len(self.parents)} parents and offsets {np.shape(self.offsets)}"
            )
        for joint, parent in enumerate(self.parents):
            if not (0 <= parent < joint or (parent == -1 and joint == 0)):
                raise DataError(
                    f"joint {self.names[joint]!r} (number {joint}) has parent {parent}; "
                    "the root comes first with parent -1, every other joint after its parent"
                )
        if not np.isfinite(self.offsets).all():
            raise DataError("a skeleton's offsets must be finite numbers")
        if len(set(self.names)) != joints:
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise DataError(f"joint name {twice!r} appears twice; rename one")

    def index(self, name: str) -> int:
        """Number of a joint; UsageError naming the joints there are."""
        if name not in self.names:
            raise UsageError(f"no joint {name!r}; the skeleton has {', '.join(self.names)}")
        return self.names.index(name)

    def rest_positions(self) -> np.ndarray:
        """[J, 3] metres from the root, every rotation zero."""
        positions = np.zeros((len(self.names), 3))
        for joint, parent in enumerate(self.parents[1:], start=1):
            positions[joint] = positions[parent] + self.offsets[joint]
        return positions

    def size(self) -> float:
        """The body's height in metres, as well as bones tell: the longest way along them / 1.4.

        That way goes from a toe to a hand, about 1.4 times the height of a person. It depends on neither the
        pose nor the axes in which an exporter lays out its bones.
        """
        reach = [0.0] * len(self.names)  # longest way down from each joint
        longest = 0.0
        bones = np.linalg.norm(self.offsets, axis=1).tolist()
        for joint in range(len(self.names) - 1, 0, -1):
            parent = self.parents[joint]
            way = reach[joint] + bones[joint]
            longest = max(longest, reach[parent] + way)
            reach[parent] = max(reach[parent], way)
        return longest / 1.4


@dataclass(frozen=True)
class SkeletonMotion:
    """A clip of T frames: where every joint is and how it turns, in its parent's frame; Y is up.

    `translations` [T, J, 3] metres: the root's path, and for the other joints the skeleton's offsets, unless
    the file moves them. `rotations` [T, J, 3, 3]. `notes` say what a reader decided, `warnings` what was
    wrong with the file; both are for a person to read.
    """

    skeleton: Skeleton
    translations: np.ndarray
    rotations: np.ndarray
    fps: float
    notes: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.translations)

    def forward(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions [T, J, 3] and rotations [T, J, 3, 3] of all joints in the world's frame."""
        return forward_kinematics(self.skeleton.parents, self.translations, self.rotations)


def forward_kinematics(
    parents: tuple[int, ...], translations: np.ndarray, rotations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions [T, J, 3] and rotations [T, J, 3, 3] in the world's frame, from those in each parent's."""
    local = np.concatenate([rotations, translations[..., None]], axis=-1)  # [T, J, 3, 4]
    world = np.empty_like(local)
    for joint, parent in enumerate(parents):
        if parent < 0:
            world[:, joint] = local[:, joint]
        else:
            np.matmul(world[:, parent, :, :3], local[:, joint], out=world[:, joint])
            world[:, joint, :, 3] += world[:, parent, :, 3]
    return world[..., 3], world[..., :3]


def with_offsets(offsets: np.ndarray, root_path: np.ndarray) -> np.ndarray:
    """Translations [T, J, 3] of a body whose bones [J, 3] keep their length, its root on a path [T, 3]."""
    translations = np.repeat(offsets[None], len(root_path), axis=0)
    translations[:, 0] = root_path
    return translations


def resample(motion: SkeletonMotion, fps: float) -> SkeletonMotion:
    """The motion at another frame rate: rotations by slerp, positions linearly, no low-pass filter.

    Starts at the same moment and never reaches past the last frame: floor((T - 1) * fps / motion.fps) + 1
    frames. Raises UsageError unless fps is a positive number.
    """
    if not 0 < fps < 1e6:
        raise UsageError(f"cannot resample to {fps:g} frames a second; a positive number was expected")
    if fps == motion.fps or len(motion) == 0:
        return replace(motion, fps=fps)
    before, after, weight = _between(len(motion), motion.fps, fps)
    moved = weight[:, None, None]
    return replace(
        motion,
        translations=(1 - moved) * motion.translations[before] + moved * motion.translations[after],
        rotations=slerp(motion.rotations[before], motion.rotations[after], weight[:, None]),
        fps=fps,
    )


def resample_rows(rows: np.ndarray, fps: float, wanted: float) -> np.ndarray:
    """Numbers [T, D] at another frame rate, linearly; as many frames as `resample` gives."""
    if fps == wanted or len(rows) == 0:
        return rows
    before, after, weight = _between(len(rows), fps, wanted)
    between: np.ndarray = (1 - weight[:, None]) * rows[before] + weight[:, None] * rows[after]
    return between


def _between(frames: int, fps: float, wanted: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new frame the old ones before and after it, and how far it lies towards the latter, 0 to 1."""
    step = fps / wanted
    count = int(np.floor((frames - 1) / step + 1e-6)) + 1
    times = np.minimum(np.arange(count) * step, frames - 1)
    before = np.minimum(times.astype(np.int64), max(frames - 2, 0))
    return before, np.minimum(before + 1, frames - 1), times - before
