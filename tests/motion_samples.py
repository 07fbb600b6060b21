"""Small BVH texts, skeletons and random motion for tests, and where real motion lies."""

import os
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from vqtool.formats.bvh import write_bvh
from vqtool.rotations import euler_to_matrix
from vqtool.skeleton import Skeleton, SkeletonMotion, with_offsets

TWO_JOINTS = """\
HIERARCHY
ROOT Hips
{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Head
  {
    OFFSET 0 10 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 5 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
0 90 0 0 0 0 0 0 0
0 90 0 90 0 0 0 0 0
"""

# A body of 15 joints, 1.5 m tall, facing +Z; left is +X.
BODY = Skeleton(
    names=(
        "Hips",
        "LeftUpLeg",
        "LeftLeg",
        "LeftFoot",
        "LeftToe",
        "RightUpLeg",
        "RightLeg",
        "RightFoot",
        "RightToe",
        "Spine",
        "Head",
        "LeftArm",
        "LeftHand",
        "RightArm",
        "RightHand",
    ),
    parents=(-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 9, 11, 9, 13),
    offsets=np.array(
        [
            [0, 0, 0],
            [0.1, 0, 0],
            [0, -0.4, 0],
            [0, -0.4, 0],
            [0, -0.05, 0.15],
            [-0.1, 0, 0],
            [0, -0.4, 0],
            [0, -0.4, 0],
            [0, -0.05, 0.15],
            [0, 0.4, 0],
            [0, 0.2, 0],
            [0.2, 0.05, 0],
            [0.5, 0, 0],
            [-0.2, 0.05, 0],
            [-0.5, 0, 0],
        ]
    ),
)


def still(frames: int, skeleton: Skeleton = BODY, fps: float = 30.0) -> SkeletonMotion:
    """Every rotation zero, the root 0.85 m over the origin."""
    path = np.tile([0.0, 0.85, 0.0], (frames, 1))
    rotations = np.tile(np.eye(3), (frames, len(skeleton.names), 1, 1))
    return SkeletonMotion(skeleton, with_offsets(skeleton.offsets, path), rotations, fps)


def wild(frames: int, seed: int, skeleton: Skeleton = BODY, fps: float = 30.0) -> SkeletonMotion:
    """Every joint turned at random, the root tilted and anywhere."""
    rng = np.random.default_rng(seed)
    joints = len(skeleton.names)
    rotations = euler_to_matrix(rng.uniform(-3, 3, (frames, joints, 3)), "zxy")
    return SkeletonMotion(skeleton, with_offsets(skeleton.offsets, rng.normal(size=(frames, 3))), rotations, fps)


def smooth(frames: int, seed: int = 0, skeleton: Skeleton = BODY, fps: float = 30.0) -> SkeletonMotion:
    """Every joint swings slowly, the root walks."""
    rng = np.random.default_rng(seed)
    joints = len(skeleton.names)
    time = np.arange(frames)[:, None, None] / fps
    angles = 0.4 * np.sin(2 * time * rng.uniform(0.5, 1, (1, joints, 3)) + rng.uniform(0, 6, (1, joints, 3)))
    path = np.stack([time[:, 0, 0], 0.9 + 0.02 * np.sin(3 * time[:, 0, 0]), 0.5 * time[:, 0, 0] + seed], axis=1)
    return SkeletonMotion(skeleton, with_offsets(skeleton.offsets, path), euler_to_matrix(angles, "zxy"), fps)


def write(path: Path, motion: SkeletonMotion) -> Path:
    """A BVH file in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_bvh(file, motion)
    return path


def real_data(name: str) -> Path:
    """A file or folder of the real motion; skips the test where it is missing.

    VQTOOL_TEST_DATA may name the folder.
    """
    folder = os.environ.get("VQTOOL_TEST_DATA") or Path(__file__).parents[1].parent / "shared" / "data"
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"needs real motion in {path}")
    return path


def real_clips(archive: str, folder: Path, count: int = 3) -> list[Path]:
    """The first BVH files of an archive, unpacked into a folder."""
    with tarfile.open(real_data(archive)) as tar:
        members = islice((member for member in tar if member.name.endswith(".bvh")), count)
        for number, member in enumerate(members):
            data = tar.extractfile(member)
            assert data is not None
            (folder / f"{number}.bvh").write_bytes(data.read())
    return sorted(folder.glob("*.bvh"))
