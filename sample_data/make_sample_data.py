"""Make wrist_imu.h5 and humanoid.h5 from the wheels of seglearn 1.2.5 and pybullet 3.2.7 on PyPI.

    python sample_data/make_sample_data.py
    python sample_data/make_sample_data.py --seglearn WHEEL_OR_FOLDER --pybullet WHEEL_OR_FOLDER

Without the options pip downloads both wheels (115 MB) to a temporary folder. Nothing of theirs is installed,
compiled or imported: the files are read out of the wheels, and only those with a known SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.errors import DataError, MissingInputError, VqtoolError
from vqtool.publish import publish_bytes
from vqtool.splits import SPLITS
from vqtool.store import create_motion

# Any wheel of this version will do: its data do not depend on the platform.
DOWNLOAD = ["--no-deps", "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64"]

WATCH = "seglearn/data/watch_dataset.npy"
WATCH_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
WATCH_LICENSE = "seglearn-1.2.5.dist-info/LICENSE"
SUBJECT_SPLIT = {9: SPLITS["val"], 10: SPLITS["test"]}  # the other eight subjects are for training

CLIPS = (
    *("backflip", "cartwheel", "crawl", "dance_a", "dance_b", "getup_facedown", "getup_faceup", "jump"),
    *("kick", "punch", "roll", "run", "spin", "spinkick", "walk"),
)
# Of all of them, end to end.
CLIPS_SHA256 = "9b18a73bcea3aa66a53c181c828607398cedeb6ff64f614b1058c92dba6556ef"
CLIPS_LICENSE = "pybullet-3.2.7.dist-info/LICENSE.txt"
FPS = 30
# Number of columns by part, in the order of https://github.com/xbpeng/DeepMimic#mocap-data. Four columns are
# a quaternion (w, x, y, z), one is an angle.
PARTS = {
    "root position": 3,
    "root rotation": 4,
    "chest": 4,
    "neck": 4,
    "right hip": 4,
    "right knee": 1,
    "right ankle": 4,
    "right shoulder": 4,
    "right elbow": 1,
    "left hip": 4,
    "left knee": 1,
    "left ankle": 4,
    "left shoulder": 4,
    "left elbow": 1,
}
DIM = sum(PARTS.values())
ENDS = np.cumsum(list(PARTS.values())).tolist()
QUATERNIONS = [slice(end - 4, end) for end, width in zip(ENDS, PARTS.values(), strict=True) if width == 4]


def read_members(source: Path, members: Sequence[str], sha256: str | None = None) -> list[bytes]:
    """Files out of a wheel or out of the folder that one was unpacked to.

    Raises MissingInputError where there are none, DataError where their SHA-256, end to end, is another.
    """
    try:
        if source.is_dir():
            data = [(source / member).read_bytes() for member in members]
        else:
            with zipfile.ZipFile(source) as wheel:
                data = [wheel.read(member) for member in members]
    except (KeyError, FileNotFoundError) as error:
        raise MissingInputError(f"is not a wheel or folder with {members[0]}", file=source) from error
    except zipfile.BadZipFile as error:
        raise DataError("is no wheel", file=source) from error
    if sha256 is not None and hashlib.sha256(b"".join(data)).hexdigest() != sha256:
        raise DataError(f"{members[0]} is not of the version that this script was written for", file=source)
    return data


def is_kept(exercise: int, subject: int, side: int) -> bool:
    """Three quarters of the series, alike for every exercise, subject and side (0 left, 1 right).

    Both sides where exercise + subject is even, one where it is odd, left and right in turn.
    """
    total = exercise + subject
    return total % 2 == 0 or side == total // 2 % 2


def write_wrist(path: Path, watch: Mapping[str, Any]) -> None:
    """Write the kept series of seglearn's watch data (see `seglearn.datasets.load_watch`) to a motion.h5."""
    kept = []
    labels = (watch["y"], watch["subject"], watch["side"])
    for frames, exercise, subject, side in zip(watch["X"], *labels, strict=True):
        if is_kept(int(exercise), int(subject), int(side)):
            kept.append((int(subject), int(exercise), int(side), frames))
    kept.sort(key=lambda series: series[:3])
    with create_motion(
        path,
        dim=6,
        fps=50,
        units="acceleration g, turn rate rad/s",
        source=f"seglearn 1.2.5 (BSD), {len(kept)} of {len(watch['X'])} series; arXiv:1802.01489",
        total_frames=sum(len(frames) for *_, frames in kept),
        force=True,
    ) as motion:
        for subject, exercise, side, frames in kept:
            name = f"{watch['y_labels'][exercise]}_s{subject:02d}_{'right' if side else 'left'}"
            motion.append(name, frames, SUBJECT_SPLIT.get(subject, SPLITS["train"]))


def slerp(start: np.ndarray, stop: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Rotations [n, 4] at `fraction` [n] of the way from `start` to `stop` [n, 4], along the shorter arc.

    All are unit quaternions. Shoemake, Animating Rotation with Quaternion Curves, 1985.
    """
    dot = (start * stop).sum(axis=1)
    stop = np.where(dot[:, None] < 0, -stop, stop)
    angle = np.arccos(np.minimum(np.abs(dot), 1.0))
    tiny = angle < 1e-6  # sin(angle) is angle here, and the two weights become linear
    sine = np.where(tiny, 1.0, np.sin(angle))
    first = np.where(tiny, 1 - fraction, np.sin((1 - fraction) * angle) / sine)
    second = np.where(tiny, fraction, np.sin(fraction * angle) / sine)
    return unit(first[:, None] * start + second[:, None] * stop)


def unit(quaternions: np.ndarray) -> np.ndarray:
    """Quaternions [n, 4] scaled to norm 1."""
    return np.asarray(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True))


def without_jumps(quaternions: np.ndarray) -> np.ndarray:
    """The same rotations [n, 4] with signs such that neighbours are close and the first has w >= 0.

    q and -q are one rotation, but a jump between them is a large step to a model.
    """
    turned = np.concatenate([quaternions[:1, 0] < 0, (quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0])
    return np.where(np.cumsum(turned)[:, None] % 2 == 1, -quaternions, quaternions)


def frame_times(durations: np.ndarray) -> np.ndarray:
    """Times of the frames in seconds, [n], from their durations [n], of which the last is not used.

    The files round durations (0.016666, 0.033332): one within 0.1% of a whole number of frames a second is
    taken for exactly that, or else a 60 Hz clip would not fall on every second frame.
    """
    step = durations[:-1]
    whole = 1 / np.round(1 / step)
    step = np.where(np.abs(step - whole) <= 1e-3 * whole, whole, step)
    return np.concatenate([[0.0], np.cumsum(step)])


def resample(times: np.ndarray, frames: np.ndarray, fps: float) -> np.ndarray:
    """Humanoid frames [n, 43] at `times` [n] as [m, 43] at a steady rate, none beyond the last."""
    count = int(np.floor(times[-1] * fps + 1e-6)) + 1
    wanted = np.arange(count) / fps
    before = np.clip(np.searchsorted(times, wanted + 1e-9, side="right") - 1, 0, len(times) - 2)
    fraction = np.clip((wanted - times[before]) / (times[before + 1] - times[before]), 0.0, 1.0)
    result = (1 - fraction[:, None]) * frames[before] + fraction[:, None] * frames[before + 1]
    for part in QUATERNIONS:
        rotations = unit(frames[:, part])
        result[:, part] = without_jumps(slerp(rotations[before], rotations[before + 1], fraction))
    return np.asarray(result)


def write_humanoid(path: Path, clips: Mapping[str, Mapping[str, Any]]) -> None:
    """Write clips in DeepMimic's JSON format, by name, to a motion.h5 of 30 frames a second."""
    motion_of = {}
    for name, clip in clips.items():
        rows = np.array(clip["Frames"], dtype=np.float64)  # [n, 44]: the duration, then the 43 columns
        motion_of[name] = resample(frame_times(rows[:, 0]), rows[:, 1:], FPS)
    with create_motion(
        path,
        dim=DIM,
        fps=FPS,
        units="root position m, rotations unit quaternions (w, x, y, z), knees and elbows rad",
        source="pybullet 3.2.7 (zlib), from DeepMimic; altered: 30 fps, unit quaternions without sign jumps",
        total_frames=sum(map(len, motion_of.values())),
        force=True,
    ) as motion:
        for name, frames in motion_of.items():
            motion.append(name, frames)


def make(seglearn: Path, pybullet: Path, folder: Path) -> None:
    """Write both files and the two licences into `folder`."""
    (raw,) = read_members(seglearn, [WATCH], WATCH_SHA256)
    # A pickle can run code when it is loaded. This one is the file with the SHA-256 above, and no other.
    watch = np.load(io.BytesIO(raw), allow_pickle=True).item()
    members = [f"pybullet_data/data/motions/humanoid3d_{name}.txt" for name in CLIPS]
    texts = read_members(pybullet, members, CLIPS_SHA256)
    licenses = {
        "seglearn.txt": read_members(seglearn, [WATCH_LICENSE])[0],
        "pybullet.txt": read_members(pybullet, [CLIPS_LICENSE])[0],
    }
    write_wrist(folder / "wrist_imu.h5", watch)
    write_humanoid(folder / "humanoid.h5", dict(zip(CLIPS, map(json.loads, texts), strict=True)))
    (folder / "LICENSES").mkdir(exist_ok=True)
    for name, text in licenses.items():
        publish_bytes(folder / "LICENSES" / name, text, force=True)


def download(requirement: str, folder: Path) -> Path:
    """The wheel of `requirement`, "name==version", fetched by pip into `folder`."""
    command = [sys.executable, "-m", "pip", "download", *DOWNLOAD, "-d", str(folder), requirement]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob(f"{requirement.partition('==')[0]}-*.whl")
    return wheel


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make the sample data out of the wheels of two packages.")
    parser.add_argument("--seglearn", type=Path, help="wheel or unpacked folder of seglearn 1.2.5")
    parser.add_argument("--pybullet", type=Path, help="wheel or unpacked folder of pybullet 3.2.7")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            seglearn = args.seglearn or download("seglearn==1.2.5", Path(temporary))
            pybullet = args.pybullet or download("pybullet==3.2.7", Path(temporary))
            make(seglearn, pybullet, args.output)
    except VqtoolError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except subprocess.CalledProcessError:
        sys.exit("error: pip could not download the wheels; name them with --seglearn and --pybullet")


if __name__ == "__main__":
    main()
