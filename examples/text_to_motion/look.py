"""Sampled motion beside real motion: a table of speed and foot skating, and a picture that moves.

python look.py compare motion.h5 decoded.h5 sampled.h5 --split test --by run --by walk
python look.py draw sampled.h5 walk-elderly_001 run-active_002 -o sampled.gif

All figures are medians over clips:

seconds        length of a clip
speed          mean speed of the root over the ground, m/s
limbs          mean speed of all joints as seen from the root, m/s
sharpness      root mean square of the joints' acceleration as seen from the root, m/s^2: a trembling body is sharp
foot height    how far the lowest toe of a frame is above or below the clip's floor, mean, cm
skating        of the frames in which a toe is within 5 cm of the floor, the share in which it slides over the ground
               faster than 0.5 m/s; the floor is the 5th percentile of the heights of both toes in the clip
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vqtool.body import find_body
from vqtool.features import recover_positions
from vqtool.store import MotionSet

NEAR, SLIDING = 0.05, 0.5  # metres, metres a second


def figures(positions: np.ndarray, toes: list[int], fps: float) -> dict[str, float]:
    """The figures of one clip of positions [T, J, 3] in metres, Y up."""
    steps = np.diff(positions, axis=0) * fps
    own = np.diff(positions - positions[:, :1], axis=0) * fps
    heights = positions[:, toes, 1]
    floor = np.percentile(heights, 5)
    down = heights[:-1] - floor < NEAR
    sliding = down & (np.linalg.norm(steps[:, toes][..., [0, 2]], axis=2) > SLIDING)
    return {
        "seconds": len(positions) / fps,
        "speed": np.linalg.norm(steps[:, 0, [0, 2]], axis=1).mean(),
        "limbs": np.linalg.norm(own, axis=2).mean(),
        "sharpness": np.sqrt((np.diff(own, axis=0) ** 2).sum(2).mean()) * fps,
        "foot height": 100 * np.abs(heights.min(1) - floor).mean(),
        "skating": sliding.sum() / max(1, down.sum()),
    }


def compare(args: argparse.Namespace) -> None:
    """A column for each file; with --by also the speed of the clips whose names hold a word."""
    rows: dict[str, list[str]] = {"clips": []}
    for path in args.motion:
        with MotionSet([path]) as motion:
            body = motion.companions.bodies[0]
            feet = find_body(body).feet
            toes = [feet[1], feet[3]]
            found, names = [], []
            splits = motion.splits
            for clip in motion.select(args.split if splits is not None and (splits < 255).any() else None):
                if motion.lengths[clip] > 2:
                    found.append(figures(recover_positions(motion.read(clip)), toes, motion.fps))
                    names.append(motion.names[clip])
        rows["clips"].append(str(len(found)))
        for key in found[0]:
            rows.setdefault(key, []).append(f"{np.median([one[key] for one in found]):.3f}")
        for word in args.by:
            speeds = [one["speed"] for one, name in zip(found, names, strict=True) if word in name]
            rows.setdefault(f"speed of {word}", []).append(f"{np.median(speeds):.3f}" if speeds else "-")
    for cells in ([" ", *(path.stem for path in args.motion)], *([name, *cells] for name, cells in rows.items())):
        print(f"{cells[0]:20}" + "".join(f"{cell:>12}" for cell in cells[1:]))


def draw(args: argparse.Namespace) -> None:
    """An animated GIF: the clips side by side as stick figures, each from its front left, over a floor that moves."""
    size, fine, fps = 150, 3, 15
    shown, parents = [], ()
    with MotionSet([args.motion]) as motion:
        parents, every = motion.companions.bodies[0].parents, max(1, round(motion.fps / fps))
        for name in args.clips:
            clip = motion.read(motion.names.index(name))
            shown.append(recover_positions(clip)[: int(args.seconds * motion.fps) : every])
    pictures = []
    for frame in range(max(map(len, shown))):
        picture = Image.new("RGB", (size * len(shown) * fine, (size + 14) * fine), "white")
        pen = ImageDraw.Draw(picture)
        for number, (positions, name) in enumerate(zip(shown, args.clips, strict=True)):
            pose = positions[min(frame, len(positions) - 1)]
            scale = 0.42 * size * fine

            def place(
                point: np.ndarray, number: int = number, scale: float = scale, root: np.ndarray = pose[0]
            ) -> tuple:
                x, y, z = point - root * [1, 0, 1]
                side, deep = 0.87 * x - 0.5 * z, 0.5 * x + 0.87 * z
                return (number + 0.5) * size * fine + scale * side, (size - 10) * fine - scale * (y - 0.25 * deep) * 1.0

            for line in range(-8, 9):
                at = np.array([0.5 * line, 0, 0]) + np.round(pose[0] * [2, 0, 2]) / 2
                for axis in (np.array([0, 0, 1]), np.array([1, 0, 0])):
                    middle = at if axis[2] else np.round(pose[0] * [2, 0, 2]) / 2 + [0, 0, 0.5 * line]
                    pen.line([place(middle - axis), place(middle + axis)], "#dddddd", fine)
            for joint, parent in enumerate(parents):
                if parent >= 0:
                    pen.line([place(pose[joint]), place(pose[parent])], "#204a87", 3 * fine)
            pen.text((number * size * fine + 6, size * fine), name, "black", font_size=10 * fine)
        pictures.append(picture.resize((size * len(shown), size + 14), Image.Resampling.LANCZOS).quantize(16))
    pictures[0].save(
        args.output, save_all=True, append_images=pictures[1:], duration=1000 // fps, loop=0, optimize=True
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("compare")
    one.add_argument("motion", type=Path, nargs="+")
    one.add_argument("--split", help="of files that have splits")
    one.add_argument("--by", action="append", default=[], help="a word of names")
    one.set_defaults(run=compare)
    two = commands.add_parser("draw")
    two.add_argument("motion", type=Path)
    two.add_argument("clips", nargs="+")
    two.add_argument("--seconds", type=float, default=4)
    two.add_argument("-o", "--output", type=Path, required=True)
    two.set_defaults(run=draw)
    args = parser.parse_args()
    args.run(args)
