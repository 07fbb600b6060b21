"""What was sampled beside what is real: how much of it is sound, how fast it moves, how its feet skate, how it looks.

python look.py strict sampled.jsonl tokens.h5
python look.py compare motion.h5 decoded.h5 sampled.h5 --split test --by run --by walk
python look.py draw sampled.h5 walk-elderly_001 run-active_002 -o sampled.gif

The figures of `compare` are means over clips:

seconds        length of a clip
speed          mean speed of the root over the ground, m/s
limbs          mean speed of all joints as seen from the root, m/s
sharpness      root mean square of the joints' acceleration as seen from the root, m/s^2: a trembling body is sharp
skating        of the frames in which a toe is within 5 cm of the floor, the share in which it slides over the ground
               faster than 0.5 m/s; the floor is the 5th percentile of the heights of both toes in the clip
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vqtool.body import find_body
from vqtool.errors import DataError
from vqtool.features import recover_positions
from vqtool.store import MotionSet
from vqtool.token_formats import Spelling
from vqtool.token_formats.sequences import Sequences
from vqtool.tokens import TokenSet

NEAR, SLIDING = 0.05, 0.5  # metres, metres a second
SIZE, FINE = 150, 3  # pixels of a clip, and how much finer they are drawn


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
            rows.setdefault(key, []).append(f"{np.mean([one[key] for one in found]):.3f}")
        for word in args.by:
            speeds = [one["speed"] for one, name in zip(found, names, strict=True) if word in name]
            rows.setdefault(f"speed of {word}", []).append(f"{np.mean(speeds):.3f}" if speeds else "-")
    for cells in ([" ", *(path.stem for path in args.motion)], *([name, *cells] for name, cells in rows.items())):
        print(f"{cells[0]:20}" + "".join(f"{cell:>12}" for cell in cells[1:]))


def strict(args: argparse.Namespace) -> None:
    """How many lines vqtool decode takes as they are, and what is wrong with the others."""
    with TokenSet(args.tokens) as tokens:
        spelling = Spelling(Sequences(tokens.header.codebook_sizes))
    lines = [json.loads(line) for line in args.sampled.read_text(encoding="utf-8").splitlines()]
    good = 0
    for line in lines:
        try:
            good += len(spelling.codes(line["text"])) > 0
        except DataError as error:
            print(f"{line['name']}: {error}")
    print(f"{good} of {len(lines)} decode strictly")


def on_screen(points: np.ndarray, root: np.ndarray, left: float) -> list[tuple[float, float]]:
    """Where points [n, 3] are in a picture that follows the root over the ground, seen from above the front left."""
    x, y, z = (points - root * [1, 0, 1]).T
    side, deep = 0.87 * x - 0.5 * z, 0.5 * x + 0.87 * z
    places = np.stack([left + FINE * (SIZE / 2 + 60 * side), FINE * (SIZE - 25 - 60 * (y - 0.3 * deep))], axis=1)
    return [tuple(place) for place in places]


def draw(args: argparse.Namespace) -> None:
    """An animated GIF: the clips side by side as stick figures over a grid of half metres; a clip that ends waits."""
    with MotionSet([args.motion]) as motion:
        parents, every = motion.companions.bodies[0].parents, max(1, round(motion.fps / 15))
        clips = [motion.read(motion.names.index(name))[: int(args.seconds * motion.fps)] for name in args.clips]
    shown = [recover_positions(clip)[::every] for clip in clips]
    size = (SIZE * len(shown), SIZE + 14)
    pictures = []
    for frame in range(max(map(len, shown))):
        picture = Image.new("RGB", (FINE * size[0], FINE * size[1]), "white")
        pen = ImageDraw.Draw(picture)
        for number, (positions, name) in enumerate(zip(shown, args.clips, strict=True)):
            pose, left = positions[min(frame, len(positions) - 1)], number * SIZE * FINE
            middle = np.round(pose[0] * [2, 0, 2]) / 2
            for line in np.arange(-1, 1.5, 0.5):
                for ends in ([[line, 0, -1], [line, 0, 1]], [[-1, 0, line], [1, 0, line]]):
                    pen.line(on_screen(middle + ends, pose[0], left), "#dddddd", FINE)
            places = on_screen(pose, pose[0], left)
            for joint, parent in enumerate(parents):
                if parent >= 0:
                    pen.line([places[joint], places[parent]], "#204a87", 3 * FINE)
            pen.text((left + 4 * FINE, SIZE * FINE), name, "black", font_size=10 * FINE)
        pictures.append(picture.resize(size, Image.Resampling.LANCZOS).quantize(16))
    pictures[0].save(args.output, save_all=True, append_images=pictures[1:], duration=1000 // 15, loop=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("compare")
    one.add_argument("motion", type=Path, nargs="+")
    one.add_argument("--split", help="of files that have splits")
    one.add_argument("--by", action="append", default=[], help="a word of names")
    one.set_defaults(run=compare)
    two = commands.add_parser("strict")
    two.add_argument("sampled", type=Path)
    two.add_argument("tokens", type=Path)
    two.set_defaults(run=strict)
    two = commands.add_parser("draw")
    two.add_argument("motion", type=Path)
    two.add_argument("clips", nargs="+")
    two.add_argument("--seconds", type=float, default=4)
    two.add_argument("-o", "--output", type=Path, required=True)
    two.set_defaults(run=draw)
    args = parser.parse_args()
    args.run(args)
