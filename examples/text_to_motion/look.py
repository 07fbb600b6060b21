"""What was sampled beside what is real: how much of it is sound, how fast it moves, how its feet skate.

python look.py strict sampled.jsonl tokens.h5
python look.py compare motion.h5 decoded.h5 sampled.h5 --split test --by run --by walk

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

from vqtool.body import find_body
from vqtool.errors import DataError
from vqtool.features import recover_positions
from vqtool.store import MotionSet
from vqtool.token_formats import Spelling
from vqtool.token_formats.sequences import Sequences
from vqtool.tokens import TokenSet

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
    args = parser.parse_args()
    args.run(args)
