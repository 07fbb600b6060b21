"""How fast a file is encoded and decoded, and how much of that is the network's own time.

    python benchmarks/encode.py runs/imu sample_data/wrist_imu.h5

Interleaved in one process: encode_file with each numerics, decode_file, the encoder alone on the same batches (read,
padded and batched beforehand), and the same clips one by one. Prints the median frames a second of several rounds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from vqtool.nn.codec import Codec, load
from vqtool.nn.files import decode_file, encode_file
from vqtool.store import MotionSet
from vqtool.tokens import TokenSet

ROUNDS = 5


def network_inputs(codec: Codec, motion: MotionSet) -> list[torch.Tensor]:
    """The batches that encode_file makes of the file, as the encoder gets them."""
    inputs: list[torch.Tensor] = []
    kept = codec.model.encoder.forward

    def keep(x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        inputs.append(x)
        return kept(x, mask)

    codec.model.encoder.forward = keep  # type: ignore[method-assign]
    for spans in codec.parts(motion.lengths, 1):
        codec.encode_spans(spans, motion.read)
    codec.model.encoder.forward = kept  # type: ignore[method-assign]
    return inputs


def main(run: str, path: str) -> None:
    codecs = {numerics: load(run, device="cpu", numerics=numerics) for numerics in ("stable", "fast", "float64")}
    with MotionSet([Path(path)]) as motion, tempfile.TemporaryDirectory() as folder:
        out, back = Path(folder) / "tokens.h5", Path(folder) / "motion.h5"
        frames = int(motion.lengths.sum())
        inputs = network_inputs(codecs["fast"], motion)

        def encoder_alone() -> None:
            with torch.no_grad():
                for x in inputs:
                    codecs["fast"].model.encoder(x)

        def clip_by_clip() -> None:
            for clip in range(len(motion)):
                codecs["fast"].encode(motion.read(clip))

        def decode() -> None:
            with TokenSet(out) as tokens:
                decode_file(codecs["stable"], tokens, back, force=True)

        jobs: dict[str, Callable[[], object]] = {"the encoder alone": encoder_alone}
        for numerics, codec in codecs.items():
            jobs[f"encode, {numerics}"] = lambda codec=codec: encode_file(codec, motion, out, force=True)
        jobs |= {"clip by clip, fast": clip_by_clip, "decode": decode}
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(ROUNDS + 1):
            for name, job in jobs.items():
                begin = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - begin)
        limit = statistics.median(seconds["the encoder alone"][1:])
        print(f"{frames:,} frames, {len(motion)} clips, {torch.get_num_threads()} threads, median of {ROUNDS} rounds")
        for name, times in seconds.items():
            median = statistics.median(times[1:])
            spread = f"{frames / max(times[1:]):,.0f} .. {frames / min(times[1:]):,.0f}"
            print(f"{name:20} {frames / median:10,.0f} frames/s ({spread}); encoder's share {limit / median:.0%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
