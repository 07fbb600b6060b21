"""AMASS npz files: rotation vectors of the SMPL, SMPL-H or SMPL-X body, its path, and the frame rate.

The joints' places are those of a licensed body model, which vqtool does not have: `--skeleton rest.bvh` gives
them, a BVH file whose joints have the names below (Left_Hip and L_Hip will do) and whose root has its place in
the resting model as OFFSET. Joints that it leaves out (the fingers, say) are left out. Z is up in AMASS.
https://amass.is.tue.mpg.de
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from vqtool.companions import some
from vqtool.errors import DataError, UsageError
from vqtool.formats.arrays import frame_rate, is_npz, open_npz
from vqtool.formats.base import Clip, ReadOptions, Recording
from vqtool.formats.bvh import LARGEST, Z_UP, root_offset
from vqtool.rotations import vector_to_matrix
from vqtool.skeleton import Skeleton, SkeletonMotion, with_offsets

_PARENTS = {  # of the joints that all three bodies have, in the order of `poses`
    "pelvis": "",
    "left_hip": "pelvis",
    "right_hip": "pelvis",
    "spine1": "pelvis",
    "left_knee": "left_hip",
    "right_knee": "right_hip",
    "spine2": "spine1",
    "left_ankle": "left_knee",
    "right_ankle": "right_knee",
    "spine3": "spine2",
    "left_foot": "left_ankle",
    "right_foot": "right_ankle",
    "neck": "spine3",
    "left_collar": "spine3",
    "right_collar": "spine3",
    "head": "neck",
    "left_shoulder": "left_collar",
    "right_shoulder": "right_collar",
    "left_elbow": "left_shoulder",
    "right_elbow": "right_shoulder",
    "left_wrist": "left_elbow",
    "right_wrist": "right_elbow",
}
_FINGERS = [f"{finger}{n}" for finger in ("index", "middle", "pinky", "ring", "thumb") for n in (1, 2, 3)]
_HANDS = [f"{side}_{finger}" for side in ("left", "right") for finger in _FINGERS]
JOINTS = {  # numbers in a row of `poses`: the joints that they turn
    72: [*_PARENTS, "left_hand", "right_hand"],  # SMPL
    156: [*_PARENTS, *_HANDS],  # SMPL-H
    165: [*_PARENTS, "jaw", "left_eye", "right_eye", *_HANDS],  # SMPL-X
}


def is_amass(path: Path) -> bool:
    """Whether it is a npz file with `poses` and `trans`."""
    if not is_npz(path):
        return False
    with open_npz(path) as arrays:
        return {"poses", "trans"} <= set(arrays)


def amass_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """The one clip of an AMASS file; one without frames (shape.npz holds a body only) gives none."""
    if is_amass(path):
        yield Clip(name, path, partial(read_amass, path, options))


def read_amass(path: Path, options: ReadOptions) -> Recording:
    """Read one clip; poses and trans side by side where raw numbers are asked for, UsageError without a skeleton."""
    with open_npz(path) as arrays:
        fps = frame_rate(arrays, path)
        for key in ("poses", "trans"):
            if key not in arrays:
                raise DataError("is missing; it is no AMASS file", file=path, dataset=key)
        poses, trans = arrays.read("poses"), arrays.read("trans")
    width = poses.shape[1] if poses.ndim == 2 else 0
    if width not in JOINTS or trans.shape != (len(poses), 3) or {poses.dtype.kind, trans.dtype.kind} != {"f"}:
        known = " or ".join(map(str, JOINTS))
        found = f"poses {poses.shape} {poses.dtype} and trans {trans.shape} {trans.dtype}"
        what = f"has {found}; floats [T, {known}] and [T, 3] were expected"
        raise DataError(what, file=path)
    if options.raw:
        return Recording(np.concatenate([trans, poses], axis=1), fps, "raw")
    if options.skeleton is None:
        raise UsageError("holds rotations but no joint offsets; add --skeleton rest.bvh, or --layout raw", file=path)
    if fps is None:
        raise DataError("says no frame rate; add mocap_framerate to the file", file=path)
    for name, values in (("poses", poses), ("trans", trans)):
        usable = (np.abs(values) < LARGEST).all(axis=1)
        if not usable.all():
            what = f"holds NaN, infinity or more than {LARGEST:.0g}; mend the file or leave it out"
            raise DataError(what, file=path, dataset=name, frame=int(np.argmin(usable)))
    skeleton = options.skeleton
    numbers = _numbers(skeleton, JOINTS[width])
    rotations = vector_to_matrix(poses.reshape(len(poses), -1, 3)[:, numbers].astype(np.float64))
    rotations[:, 0] = Z_UP @ rotations[:, 0]
    path_of_root = (trans.astype(np.float64) + root_offset(skeleton)) @ Z_UP.T
    motion = SkeletonMotion(skeleton, with_offsets(skeleton.offsets, path_of_root), rotations, fps)
    return Recording(motion, fps)


def _numbers(skeleton: Skeleton, joints: list[str]) -> list[int]:
    """Which rotation of `poses` each joint of the skeleton has; UsageError where they are not of one body."""
    known = {_plain(name): number for number, name in enumerate(joints)}
    numbers = []
    for name, parent in zip(skeleton.names, skeleton.parents, strict=True):
        number = known.get(_plain(name))
        if number is None:
            raise UsageError(f"--skeleton has a joint {name!r}; the file has {some(joints, 22)}")
        above = skeleton.names[parent] if parent >= 0 else ""
        expected = _PARENTS.get(joints[number], above)
        if _plain(above) != _plain(expected):
            raise UsageError(f"--skeleton hangs {name} on {above or 'nothing'}; {expected or 'nothing'} was expected")
        numbers.append(number)
    return numbers


def _plain(name: str) -> str:
    """A joint's name without case, marks and what exporters vary: Left_Hip, L_Hip and lhip are the same."""
    letters = re.sub("[^a-z0-9]", "", name.lower())
    return re.sub("^left", "l", re.sub("^right", "r", letters))
