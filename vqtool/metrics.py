"""How far decoded motion is from the motion it was made of, for each clip and over all: docs/measures.md."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from vqtool.body import find_body
from vqtool.errors import DataError
from vqtool.features import place_joints
from vqtool.frechet import MotionDistance
from vqtool.motion import column_groups
from vqtool.rotations import fit_orthogonal
from vqtool.skeleton import Skeleton

# Joints of the contact columns: left ankle, left toe, right ankle, right toe (HumanML3D's motion_representation).
FEET: dict[str, tuple[int, ...]] = {"humanml3d": (7, 10, 8, 11), "kit": (19, 20, 14, 15)}


def foot_joints(layout: str, dim: int, body: Skeleton | None) -> tuple[int, ...]:
    """The joints that the contact columns tell of, found by name in layout "joints"; () where that is not known."""
    feet: tuple[int, ...] = FEET.get(layout, ())
    if layout == "joints" and body is not None:
        try:
            feet = find_body(body, facing=()).feet
        except DataError:
            return ()
    return feet if column_groups(layout, dim) and max(feet, default=0) < (dim + 1) // 12 else ()


class JointErrors:
    """Sums of errors over one clip whose pieces come in any order; for the layouts that know joint positions.

    Both clips begin at the same place with the same heading. Means over frames and joints (J includes the root):

    mpjpe_mm             the distance between true and decoded joint: errors of the path add up
    mpjpe_aligned_mm     the same after the roots of each frame are moved together; a wrong heading still counts
    mpjpe_pose_mm        the same after the roots are moved and the headings turned together: the pose alone.
                         Positions, which have no heading, are only moved
    mpjpe_procrustes_mm  the same after the similarity of each frame that fits best: see `procrustes_distances`
    velocity_error_mm_s  |v - v'| of the joints' velocities v = fps (x[t+1] - x[t]), along the path
    acceleration_error_mm_s2  |a - a'| of a = fps^2 (x[t+1] - 2 x[t] + x[t-1]): ACCEL of arXiv 1812.01601, there with
                         the roots moved together, here along the path

    Means over the frames of all four foot joints in which the true clip's contact column says ground:

    foot_skate_mm_s      the decoded joint's horizontal speed to the next frame
    foot_skate_true_mm_s the same of the true one

    At the last frame:

    drift_mm             the distance between true and decoded root
    drift_degrees        between the two headings, 0 to 180; not of positions
    """

    NAMES = (
        "mpjpe_mm",
        "mpjpe_aligned_mm",
        "mpjpe_pose_mm",
        "mpjpe_procrustes_mm",
        "velocity_error_mm_s",
        "acceleration_error_mm_s2",
        "foot_skate_mm_s",
        "foot_skate_true_mm_s",
        "drift_mm",
        "drift_degrees",
    )

    def __init__(self, layout: str, dim: int, fps: float, feet: Sequence[int] = ()) -> None:
        groups = column_groups(layout, dim)
        self._features = bool(groups)
        self._columns = groups["positions"].stop if groups else dim  # that say where the joints are
        self._contacts = groups.get("contacts", slice(0, 0))
        self._mm = 1.0 if layout == "kit" else 1000.0  # KIT-ML is in millimetres
        self._fps, self._feet = fps, list(feet)
        self.frames = 0  # that are done
        self._waiting: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._starts = [(0.0, 0.0, 0.0)] * 2
        self._errors: np.ndarray | None = None  # of the last two frames, [<= 2, J, 3]
        self._steps: tuple[np.ndarray, np.ndarray] | None = None  # feet and contacts of the last frame
        self._sums = dict.fromkeys(self.NAMES, (0.0, 0))

    @staticmethod
    def known(layout: str, dim: int) -> bool:
        """Whether a layout says where joints are."""
        return bool(column_groups(layout, dim)) or (layout == "positions" and dim % 3 == 0)

    def sums(self) -> dict[str, tuple[float, int]]:
        """Of each measure the sum, and of how many values it is one."""
        return dict(self._sums)

    def add(self, start: int, truth: np.ndarray, decoded: np.ndarray) -> None:
        """Take in frames `start` on, [n, D] both."""
        contacts = truth[:, self._contacts] > 0.5
        self._waiting[start] = truth[:, : self._columns].copy(), decoded[:, : self._columns].copy(), contacts
        while (piece := self._waiting.pop(self.frames, None)) is not None and len(piece[0]):
            self._add(*piece)
            self.frames += len(piece[0])

    def _add(self, truth: np.ndarray, decoded: np.ndarray, contacts: np.ndarray) -> None:
        """Take in the next frames: the columns of both that say where joints are, and the true contacts [n, 4]."""
        (seen, own, heading), (seen_decoded, own_decoded, heading_decoded) = (
            self._placed(which, columns) for which, columns in enumerate((truth, decoded))
        )
        error = seen_decoded - seen  # [n, J, 3]
        self._count("mpjpe_mm", _length(error))
        self._count("mpjpe_aligned_mm", _length(error - error[:, :1]))
        posed = own_decoded - own
        self._count("mpjpe_pose_mm", _length(posed - posed[:, :1]))
        self._count("mpjpe_procrustes_mm", procrustes_distances(own, own_decoded))
        self._count_changes(error)
        if self._feet:
            feet = np.stack([seen_decoded[:, self._feet], seen[:, self._feet]])  # [2, n, 4, 3]
            self._count_slides(feet[..., ::2], contacts)
        self._sums["drift_mm"] = self._mm * float(_length(error[-1, 0])), 1
        if self._features:
            turn = heading_decoded[-1] - heading[-1]
            self._sums["drift_degrees"] = abs(float(np.degrees((turn + np.pi) % (2 * np.pi) - np.pi))), 1

    def _placed(self, which: int, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions [n, J, 3] along the path and as the body's facing frame has them, and headings [n]."""
        frames = len(columns)
        columns = columns.astype(np.float64)
        if not self._features:
            positions = columns.reshape(frames, -1, 3)
            return positions, positions, np.zeros(frames)
        # One frame more, whatever is in it, tells where the next block begins.
        seen, heading = place_joints(np.pad(columns, ((0, 1), (0, 0))), self._starts[which])
        self._starts[which] = seen[-1, 0, 0].item(), seen[-1, 0, 2].item(), heading[-1].item()
        own = np.insert(columns[:, 3:], [0, 1], 0.0, axis=1)  # (0, height, 0) of the root, then the other joints
        return seen[:-1], own.reshape(frames, -1, 3), heading[:-1]

    def _count(self, name: str, values: np.ndarray, factor: float = 1.0) -> None:
        total, count = self._sums[name]
        self._sums[name] = total + self._mm * factor * float(values.sum()), count + values.size

    def _count_changes(self, error: np.ndarray) -> None:
        """Velocities and accelerations of the error are the errors of velocity and acceleration."""
        joined = error if self._errors is None else np.concatenate([self._errors, error])
        self._errors = joined[-2:]
        change = np.diff(joined, axis=0)
        self._count("velocity_error_mm_s", _length(change[-len(error) :]), self._fps)
        self._count("acceleration_error_mm_s2", _length(np.diff(change, axis=0)), self._fps**2)

    def _count_slides(self, feet: np.ndarray, contacts: np.ndarray) -> None:
        """Feet [2, n, 4, 2] on the ground plane, decoded and true, and whether they touch it, [n, 4]."""
        if self._steps is not None:
            feet = np.concatenate([self._steps[0], feet], axis=1)
            contacts = np.concatenate([self._steps[1], contacts])
        self._steps = feet[:, -1:], contacts[-1:]
        for name, path in zip(("foot_skate_mm_s", "foot_skate_true_mm_s"), feet, strict=True):
            self._count(name, _length(np.diff(path, axis=0))[contacts[:-1]], self._fps)


def procrustes_distances(truth: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Distances [T, J] of joints [T, J, 3] after each frame of `decoded` is moved, turned and scaled to fit best.

    Best is the least sum of squares, and mirroring is not allowed (Umeyama 1991, doi 10.1109/34.88573). Their mean is
    what papers call PA-MPJPE.
    """
    goal = truth - truth.mean(1, keepdims=True)
    given = decoded - decoded.mean(1, keepdims=True)
    turn = fit_orthogonal(goal.swapaxes(1, 2) @ given, np.eye(3))
    turned = given @ turn.swapaxes(1, 2)
    size = np.square(given).sum((1, 2))
    scale = (turned * goal).sum((1, 2)) / np.where(size > 0, size, 1.0)
    return _length(scale[:, None, None] * turned - goal)


def _length(vectors: np.ndarray) -> np.ndarray:
    """[..., c] to [...]."""
    length: np.ndarray = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))
    return length


class Measures:
    """All measures of N clips whose pieces come in any order; a mean over the set counts every frame alike.

    `names` are those of `JointErrors`, where the layout knows joints, after nmse and nmae of all columns that move and
    of each group of columns: means of the squared and absolute error in standard deviations of the training clips.
    `mean`, `scale` and `moving` [D] are those of the training clips, `lengths` [N] the clips' frames.
    """

    def __init__(
        self,
        layout: str,
        fps: float,
        mean: np.ndarray,
        scale: np.ndarray,
        moving: np.ndarray,
        lengths: Sequence[int],
        feet: Sequence[int] = (),
    ) -> None:
        self._layout, self._fps, self._feet, self._lengths = layout, fps, feet, lengths
        self._joints = JointErrors.known(layout, len(scale))
        groups = {"": slice(None), **{f"_{name}": where for name, where in column_groups(layout, len(scale)).items()}}
        columns = np.zeros((len(groups), len(scale)))
        for row, where in zip(columns, groups.values(), strict=True):
            row[where] = moving[where]
        self._columns = columns
        self.names = [f"nmse{name}" for name in groups] + [f"nmae{name}" for name in groups]
        self._normalised = len(self.names)
        self.names += JointErrors.NAMES if self._joints else ()
        self._sums = np.zeros((len(lengths), len(self.names)))
        self._counts = np.zeros((len(lengths), len(self.names)), dtype=np.int64)
        self.distance = MotionDistance(len(lengths), fps, mean, scale, moving)
        self._open: dict[int, JointErrors] = {}

    def part(self, clips: slice) -> Measures:
        """The measures of some of the clips alone, of which nothing was taken in; for `take`."""
        alone = copy.copy(self)
        alone._lengths = self._lengths[clips]
        alone._sums, alone._counts = np.zeros_like(self._sums[clips]), np.zeros_like(self._counts[clips])
        alone.distance, alone._open = self.distance.part(clips), {}
        return alone

    def take(self, clips: slice, part: Measures) -> None:
        """Take in those clips, which were a part."""
        self._sums[clips], self._counts[clips] = part._sums, part._counts
        self.distance.take(part.distance)

    def add(
        self,
        clip: int,
        start: int,
        truth: np.ndarray,
        decoded: np.ndarray,
        squared: np.ndarray,
        absolute: np.ndarray,
    ) -> None:
        """Take in frames `start` on of clip 0 .. N-1, [n, D] both, and [D] the sums of their normalised errors."""
        columns = self._columns.sum(1).astype(np.int64)
        self._sums[clip, : self._normalised] += np.concatenate([self._columns @ squared, self._columns @ absolute])
        self._counts[clip, : self._normalised] += len(truth) * np.concatenate([columns, columns])
        self.distance.add(clip, start, truth, decoded)
        if self._joints:
            self._add_joints(clip, start, truth, decoded)

    def _add_joints(self, clip: int, start: int, truth: np.ndarray, decoded: np.ndarray) -> None:
        if clip not in self._open:
            self._open[clip] = JointErrors(self._layout, truth.shape[1], self._fps, self._feet)
        errors = self._open[clip]
        errors.add(start, truth, decoded)
        if errors.frames == self._lengths[clip]:
            totals, counts = zip(*errors.sums().values(), strict=True)
            self._sums[clip, self._normalised :], self._counts[clip, self._normalised :] = totals, counts
            del self._open[clip]

    def of_clip(self, clip: int) -> dict[str, float | None]:
        """The means over a clip by name; None where there is nothing to take a mean of."""
        return self._means(self._sums[clip], self._counts[clip])

    def of_all(self) -> dict[str, float | None]:
        """The means over all clips by name."""
        return self._means(self._sums.sum(0), self._counts.sum(0))

    def _means(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, float | None]:
        means = zip(self.names, sums.tolist(), counts.tolist(), strict=True)
        return {name: total / count if count else None for name, total, count in means}

    def worst_first(self) -> list[int]:
        """The clips by their nmse, the largest first; those without frames at the end, else in their order."""
        nmse = self._sums[:, 0] / np.maximum(self._counts[:, 0], 1)
        order: list[int] = np.argsort(-np.where(self._counts[:, 0] > 0, nmse, -1.0), kind="stable").tolist()
        return order
