"""Which joints are left and right, hips, shoulders and feet: found by name, or set; and mirroring by them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from vqtool.errors import DataError, UsageError, counted
from vqtool.rotations import fit_orthogonal
from vqtool.skeleton import Skeleton, SkeletonMotion

# Names without their side, the surest word first: a "shoulder" is an upper arm in some skeletons, a collar
# bone in others, and "foot" is the ankle or, where there is an ankle too, the toes.
_HIP = ("upleg", "upperleg", "thigh", "femur", "hip", "leg")
_SHOULDER = ("uparm", "upperarm", "humerus", "(?<!fore)(?<!lower)(?<!low)arm", "shoulder", "collar|clav")
_ANKLE = ("ankle", "foot")
_TOE = ("toe", "ball", "foot")
_MIRROR = np.diag([-1.0, 1.0, 1.0])  # x changes sign


@dataclass(frozen=True)
class Body:
    """Joint numbers. `facing` holds (left, right) pairs: hips, shoulders; empty: the body never turns.

    `feet`: left ankle, left toe, right ankle, right toe (a toe may be its ankle again); empty: no contacts.
    """

    facing: tuple[tuple[int, int], ...]
    feet: tuple[int, ...]


def find_body(skeleton: Skeleton, *, facing: Sequence[str] | None = None, feet: Sequence[str] | None = None) -> Body:
    """The joints that features need, by name unless `facing` or `feet` name them.

    `facing`: left and right hip, left and right shoulder (or one pair only); `feet`: left ankle, left toe,
    right ankle, right toe. An empty list means that the body has none. Raises UsageError for a name that the
    skeleton does not have, DataError where nothing is named and nothing found.
    """
    if facing is None:
        hips, shoulders = _find(skeleton, _HIP), _find(skeleton, _SHOULDER)
        pairs = tuple(pair for pair in (hips, shoulders) if pair is not None)
        if not pairs:
            option = "--facing LEFT_HIP,RIGHT_HIP,LEFT_SHOULDER,RIGHT_SHOULDER"
            raise _not_found(skeleton, "hips or shoulders", option)
    else:
        if len(facing) % 2:
            raise UsageError(
                f"--facing takes pairs, a left and a right joint; {counted(len(facing), 'names', 'were')} given"
            )
        joints = [skeleton.index(name) for name in facing]
        pairs = tuple(zip(joints[::2], joints[1::2], strict=True))
    if feet is None:
        ankles, toes = _find(skeleton, _ANKLE), _find(skeleton, _TOE)
        ankles, toes = ankles or toes, toes or ankles
        if ankles is None or toes is None:
            raise _not_found(skeleton, "feet", "--feet LEFT_ANKLE,LEFT_TOE,RIGHT_ANKLE,RIGHT_TOE")
        return Body(pairs, (ankles[0], toes[0], ankles[1], toes[1]))
    if len(feet) not in (0, 4):
        order = "left ankle, left toe, right ankle, right toe"
        raise UsageError(f"--feet takes 4 joints ({order}); {len(feet)} were given")
    return Body(pairs, tuple(skeleton.index(name) for name in feet))


def _not_found(skeleton: Skeleton, what: str, option: str) -> DataError:
    shown = ", ".join(skeleton.names[:30]) + (", ..." if len(skeleton.names) > 30 else "")
    return DataError(f"no {what} found among the joints ({shown}); add {option}, or say none")


def _find(skeleton: Skeleton, words: tuple[str, ...]) -> tuple[int, int] | None:
    """The topmost left-right pair whose name holds the first of these words that any holds.

    Pairs at the same place (hip joints that an exporter put into the root) do not count.
    """
    rest = skeleton.rest_positions()
    for left, right in _pairs_called(skeleton.names, words):
        if np.linalg.norm(rest[left] - rest[right]) > 1e-3 * np.ptp(rest):
            return left, right
    return None


@lru_cache(maxsize=64)
def _pairs_called(names: tuple[str, ...], words: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Left-right pairs whose name holds one of these words: those of the first word first, in joint order."""
    pairs = _named_pairs(names)
    return tuple((left, right) for word in words for left, right, base in pairs if re.search(word, base))


def left_right_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Joints whose names differ in their side only: LeftFoot and RightFoot, foot.L and foot.R, lfoot, rfoot.

    As pairs of joint numbers, left and right, in joint order.
    """
    return tuple((left, right) for left, right, _ in _named_pairs(names))


@lru_cache(maxsize=64)
def _named_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int, str], ...]:
    """Left, right, and their name without its side in lower case, in joint order."""
    number = {name: joint for joint, name in enumerate(names)}
    pairs = []
    for name in names:
        for start, stop, word in _left_marks(name):
            other = number.get(name[:start] + word + name[stop:])
            if other is not None:
                base = re.sub("[^a-z]", "", (name[:start] + name[stop:]).lower())
                pairs.append((number[name], other, base))
                break
    return tuple(pairs)


def _left_marks(name: str) -> list[tuple[int, int, str]]:
    """Where a name may say "left" (the word, or an L at an end or alone), and "right" as said there."""
    marks = []
    for found in re.finditer("left", name, re.IGNORECASE):
        text = found.group()
        right = "RIGHT" if text.isupper() else "Right" if text[0].isupper() else "right"
        marks.append((found.start(), found.end(), right))
    for found in re.finditer(r"^[lL]|[lL]$|(?<![a-zA-Z])[lL](?![a-zA-Z])", name):
        marks.append((found.start(), found.end(), "R" if found.group() == "L" else "r"))
    return marks


def stands_along(motion: SkeletonMotion) -> str:
    """The axis ("x", "y", "z") from feet to shoulders, mean over the clip; "" where that is not clear."""
    feet = _find(motion.skeleton, _ANKLE) or _find(motion.skeleton, _TOE)
    top = _find(motion.skeleton, _SHOULDER) or _find(motion.skeleton, _HIP)
    if feet is None or top is None or not len(motion):
        return ""
    step = -(-len(motion) // 8)
    some = replace(motion, translations=motion.translations[::step], rotations=motion.rotations[::step])
    positions, _ = some.forward()
    spine = (positions[:, top].mean(axis=1) - positions[:, feet].mean(axis=1)).mean(axis=0)
    axis = int(np.argmax(spine))
    return "xyz"[axis] if spine[axis] > 0.8 * np.linalg.norm(spine) else ""


def mirror(motion: SkeletonMotion, pairs: Sequence[tuple[int, int]] | None = None) -> SkeletonMotion:
    """The clip with left and right exchanged, on the same skeleton: x changes its sign.

    `pairs` of left and right joints are found by name unless given. Positions are the exact mirror image
    where the skeleton is symmetric; else each bone keeps its own length. Raises DataError without any pair.
    """
    skeleton = motion.skeleton
    pairs = left_right_pairs(skeleton.names) if pairs is None else pairs
    if not pairs:
        raise DataError(f"no left-right pairs among the joints ({', '.join(skeleton.names[:30])}); name them")
    other = np.arange(len(skeleton.names))
    for left, right in pairs:
        other[left], other[right] = right, left
    flips = _frame_flips(motion, other)
    root_path = motion.translations[:, 0] @ _MIRROR
    before = flips[list(skeleton.parents)]  # the flip of each joint's parent; the root's is the world's
    before[0] = _MIRROR
    rotations = before.swapaxes(1, 2) @ motion.rotations[:, other] @ flips
    moved = motion.translations - skeleton.offsets
    translations = skeleton.offsets + (before.swapaxes(1, 2) @ moved[:, other, :, None])[..., 0]
    translations[:, 0] = root_path
    return replace(motion, translations=translations, rotations=rotations)


def _frame_flips(motion: SkeletonMotion, other: np.ndarray) -> np.ndarray:
    """What mirroring does to each joint's own frame: [J, 3, 3] with determinant -1.

    With G the world rotation of a joint and S the mirror, its new one is G' = S G[other] F. F must take its
    children's offsets to those of the other side: that makes the positions right. What the offsets leave open
    (how a bone with one child is turned about itself) follows the exporter's habit.
    """
    skeleton = motion.skeleton
    flips = np.empty((len(other), 3, 3))
    for joint, habit in enumerate(_habits(motion, other)):
        children = [child for child, parent in enumerate(skeleton.parents) if parent == joint]
        mine, theirs = skeleton.offsets[children], skeleton.offsets[other[children]]
        flips[joint] = fit_orthogonal(theirs.T @ mine, np.diag(habit))
    return flips


def _habits(motion: SkeletonMotion, other: np.ndarray) -> np.ndarray:
    """Which axes of each joint's frame an exporter turns about on the other side: [J, 3] of +1 and -1.

    Most lay out all joints along the world's axes: then the skeleton at rest is symmetric, and the one axis
    that points sideways changes its sign. Others turn all three axes of the right side about; a joint in the
    middle then has the sideways axis that the clip shows.
    """
    skeleton = motion.skeleton
    sideways = 1.0 - 2.0 * np.eye(3)  # a row for each axis
    uneven = [np.abs(skeleton.offsets * signs - skeleton.offsets[other]).max() for signs in sideways]
    if min(uneven) < 0.05 * skeleton.size():
        return np.repeat(sideways[[np.argmin(uneven)]], len(other), axis=0)
    positions, turned = motion.forward()
    left = other > np.arange(len(other))
    across = np.sum(positions[:, left] - positions[:, other[left]], axis=1)  # [T, 3], not of length 1
    along = np.einsum("ta,tjab->tjb", across, turned)  # how far each joint's axes point that way
    middle = sideways[np.argmax(np.sum(along**2, axis=0), axis=1)]
    return np.where((other == np.arange(len(other)))[:, None], middle, -1.0)
