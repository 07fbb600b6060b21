"""How time grows with clips, codes, columns and layers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.material import tokenizer_of, write_motion
from benchmarks.measure import Row, interleaved, milliseconds
from benchmarks.peers import drawn
from vqtool.nn.bottlenecks.nearest import nearest
from vqtool.nn.bottlenecks.rvq import ResidualVQ
from vqtool.nn.codec import load
from vqtool.nn.files import encode_file
from vqtool.store import MotionSet

TITLE = "Growth"
SMALL = {"model.width": 64, "bottleneck.codebook_size": 64}


def grown(what: str, sizes: Sequence[int], jobs: Sequence[Callable[[], object]], quick: bool) -> Row:
    """By how much more than the size the time of the largest grew; the note has all of them."""
    names = [f"{size:,}" for size in sizes]
    found = interleaved(dict(zip(names, jobs, strict=True)), rounds=2 if quick else 5, least=0.05)
    first, last = names[0], names[-1]
    ratios = [b / a / (sizes[-1] / sizes[0]) for a, b in zip(found[first], found[last], strict=True)]
    slope = math.log(sorted(found[last])[0] / sorted(found[first])[0]) / math.log(sizes[-1] / sizes[0])
    note = ", ".join(f"{name}: {milliseconds(found[name])}" for name in names)
    return Row(f"{what}, {first} to {last}", "growth in size", ratios, "<= 1.1", f"{note}; exponent {slope:.2f}")


def measure(quick: bool) -> list[Row]:
    """Each along one axis."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = (100, 1000) if quick else (100, 1000, 10_000)
        paths = [write_motion(folder / f"{clips}.h5", clips, dim=24) for clips in sizes]
        codec = load(tokenizer_of("vq", paths[0], folder, **SMALL), device="cpu")

        def encode(path: Path) -> None:
            with MotionSet([path]) as motion:
                encode_file(codec, motion, folder / "tokens.h5", force=True)

        rows.append(grown("encode a file of clips", sizes, [lambda p=p: encode(p) for p in paths], quick))
        widths = (6, 60) if quick else (6, 60, 1000)
        jobs = []
        for dim in widths:
            path = write_motion(folder / f"d{dim}.h5", 60, dim=dim)
            wide = load(tokenizer_of("vq", path, folder, **SMALL), device="cpu")
            motion = MotionSet([path])
            jobs.append(lambda c=wide, m=motion: encode_file(c, m, folder / "tokens.h5", force=True))
        rows.append(grown("encode columns", widths, jobs, quick))
    codes = (256, 4096) if quick else (256, 1024, 4096, 16384, 65536)
    vectors = drawn(4096, 64)
    books = [drawn(size, 64) for size in codes]
    rows.append(
        grown("search among codes", codes, [lambda b=b: nearest(vectors, b, exact=False) for b in books], quick)
    )
    layers = (1, 6) if quick else (1, 2, 4, 8, 12)
    rows.append(grown("a training step of rvq layers", layers, [rvq_step(count) for count in layers], quick))
    return rows


def rvq_step(layers: int) -> Callable[[], None]:
    """Forward, backward and moving averages of 4,096 tokens."""
    quantizer = ResidualVQ(256, num_quantizers=layers, codebook_size=256).train()
    quantizer.initialize(drawn(8 * 256, 256))
    x = drawn(1, 4096, 256)

    def step() -> None:
        leaf = x.clone().requires_grad_()
        output = quantizer(leaf)
        (output.latents.sum() + output.losses["commitment"]).backward()
        quantizer.follow([output])

    return step
