"""Whole files through a tokenizer: reading, networks, search and writing, against one clip at a time and the GEMMs."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from benchmarks.material import tokenizer_of, write_motion
from benchmarks.measure import Job, Row, faster, interleaved, slower
from benchmarks.peers import plain_convolutions
from vqtool.memory import keep_freed_memory
from vqtool.nn.codec import Codec, load
from vqtool.nn.files import decode_file, encode_file
from vqtool.nn.layers import Conv
from vqtool.store import MotionSet
from vqtool.tokens import TokenSet

TITLE = "Encoding and decoding a file"
COUNTED = """
Counted, not run: on a GPU that multiplies at R TFLOP/s and whose memory moves M GB/s, a network cannot do more frames a
second than R million / (MFLOP a frame), nor than M million / (KB a frame), and a file of motion of 251 columns arrives
at 1 KB a frame: at 10 TFLOP/s disk and the way to the GPU bound the default network before its products do.

"""


def products(codec: Codec, job: Job) -> Counter[tuple[int, int, int]]:
    """How often the job's convolutions multiply matrices [m, k] and [k, n], by their sizes."""
    found: Counter[tuple[int, int, int]] = Counter()

    def seen(layer: torch.nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        assert isinstance(layer, Conv)
        found[out.shape[0] * out.shape[1], layer.conv.weight[0].numel(), out.shape[2]] += 1

    hooks = [layer.register_forward_hook(seen) for layer in codec.model.modules() if isinstance(layer, Conv)]
    job()
    for hook in hooks:
        hook.remove()
    return found


def counts() -> str:
    """Operations and bytes a motion frame, counted: what bounds the speed on any machine."""
    lines = ["| network | | MFLOP a frame | weights, MB | what its layers write, KB a frame |", "|" + "---|" * 5]
    with tempfile.TemporaryDirectory() as name:
        path = write_motion(Path(name) / "motion.h5", 1, shortest=400, longest=400)
        for model in ("t2m-gpt", "vq"):
            codec = load(tokenizer_of(model, path, Path(name)), device="cpu", numerics="fast")
            with MotionSet([path]) as motion:
                frames = motion.read(0)
            codes = codec.encode(frames)
            jobs = {"encode": lambda c=codec, f=frames: c.encode(f), "decode": lambda c=codec, t=codes: c.decode(t)}
            for what, job in jobs.items():
                found = products(codec, job)
                flops = sum(2 * m * k * n * count for (m, k, n), count in found.items()) / len(frames) / 1e6
                written = sum(4 * m * n * count for (m, _, n), count in found.items()) / len(frames) / 1e3
                network = codec.model.encoder if what == "encode" else codec.model.decoder
                weights = sum(4 * parameter.numel() for parameter in network.parameters()) / 1e6
                lines.append(f"| {model} | {what} | {flops:.2f} | {weights:.1f} | {written:.1f} |")
    return COUNTED + "\n".join(lines)


def multiply(sizes: Counter[tuple[int, int, int]]) -> Job:
    """Those products and nothing else, their memory ready."""
    most = [max(m * k for m, k, _ in sizes), max(k * n for _, k, n in sizes), max(m * n for m, _, n in sizes)]
    a, b, out = (torch.randn(size) for size in most)

    def job() -> None:
        for (m, k, n), count in sizes.items():
            left, right, into = a[: m * k].view(m, k), b[: k * n].view(k, n), out[: m * n].view(m, n)
            for _ in range(count):
                torch.mm(left, right, out=into)

    return job


def measure(quick: bool) -> list[Row]:
    """T2M-GPT's network and the default one."""
    keep_freed_memory()  # as the commands do, for the peers too
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_motion(folder / "motion.h5", 40 if quick else 300)
        rates = {}
        for model in ("t2m-gpt", "vq"):
            run = tokenizer_of(model, path, folder)
            found, told = of_model(run, path, folder, rounds=2 if quick else 4)
            rates[model] = told
            rows += [Row(f"{model}: {row.what}", row.against, row.ratios, row.goal, row.note) for row in found]
        both = faster(rates["vq"] | {"t2m-gpt": rates["t2m-gpt"]["both"]}, "both", "t2m-gpt")
        rows.append(Row("vq: encode and decode", "t2m-gpt: encode and decode", both, ">= 4", "not interleaved"))
    return rows


def of_model(run: Path, path: Path, folder: Path, rounds: int) -> tuple[list[Row], dict[str, list[float]]]:
    """The rows of a tokenizer, and the seconds of encoding and decoding together."""
    fast, stable = (load(run, device="cpu", numerics=numerics) for numerics in ("fast", "stable"))
    out, back = folder / "tokens.h5", folder / "back.h5"
    with MotionSet([path]) as motion:
        frames = int(motion.lengths.sum())

        def encode(codec: Codec = stable) -> None:
            encode_file(codec, motion, out, force=True)

        def decode() -> None:
            with TokenSet(out) as tokens:
                decode_file(fast, tokens, back, force=True)

        def encode_singly() -> None:
            with plain_convolutions():
                for clip, place in enumerate(empty_places()):
                    np.save(place, fast.encode(motion.read(clip)))

        def decode_singly() -> None:
            with plain_convolutions(), TokenSet(out) as tokens:
                for clip, place in enumerate(empty_places()):
                    np.save(place, fast.decode(tokens[clip].codes.astype(np.int64)))

        def empty_places() -> list[Path]:
            """A file for each clip in an empty folder, as research code writes them."""
            shutil.rmtree(folder / "clips", ignore_errors=True)
            (folder / "clips").mkdir()
            return [folder / "clips" / f"{name}.npy" for name in motion.names]

        jobs: dict[str, Job] = {
            "encode": encode,
            "encode, fast": lambda: encode(fast),
            "encode clip by clip": encode_singly,
            "encode: products": multiply(products(fast, lambda: encode(fast))),
            "decode": decode,
            "decode clip by clip": decode_singly,
            "decode: products": multiply(products(fast, decode)),
        }
        found = interleaved(jobs, rounds=rounds)
    note = {name: f"{frames / float(np.median(seconds)):,.0f} frames/s" for name, seconds in found.items()}
    singly = "one clip at a time, conv1d, .npy files"
    limit = "the limit: its convolutions as matrix products"
    rows = [
        Row("encode", singly, faster(found, "encode", "encode clip by clip"), ">= 1.8", note["encode"]),
        Row("encode, share of", limit, faster(found, "encode", "encode: products"), ">= 0.8", note["encode: products"]),
        Row("encode, stable", "encode, fast", slower(found, "encode", "encode, fast"), "", note["encode, fast"]),
        Row("decode", singly, faster(found, "decode", "decode clip by clip"), ">= 1.8", note["decode"]),
        Row("decode, share of", limit, faster(found, "decode", "decode: products"), ">= 0.8", note["decode: products"]),
    ]
    together = [a + b for a, b in zip(found["encode"], found["decode"], strict=True)]
    return rows, {"both": together}
