"""Whether the tokens of a motion file depend on anything but the motion.

    python benchmarks/same_tokens.py runs/imu sample_data/wrist_imu.h5

Encodes the file in every way that could matter, each in a process of its own, and counts the codes that differ from
those of --numerics float64. Prints a line each for numerics stable and fast.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from vqtool.nn import codec as codec_module
from vqtool.nn.codec import Codec, load
from vqtool.store import MotionSet

# What differs from the plain way: environment, threads, constants of the codec, order of the clips, clips of a batch.
WAYS: dict[str, dict[str, object]] = {
    "as the tool does it": {},
    "one thread": {"threads": 1},
    "clip by clip": {"group": 1},
    "7 clips at a time": {"group": 7},
    "64 clips at a time": {"group": 64},
    "all padded to the longest of a large batch": {"BATCH_FRAMES": 1 << 18},
    "clips in reversed order": {"reverse": True},
    "chunks of 100 tokens": {"CHUNK_TOKENS": 100},
    "chunks of 37 tokens, batches of 3,000 frames": {"CHUNK_TOKENS": 37, "BATCH_FRAMES": 3000},
    "big-endian float64 input": {"input": ">f8"},
    "ATEN_CPU_CAPABILITY=default": {"ATEN_CPU_CAPABILITY": "default"},
    "ATEN_CPU_CAPABILITY=avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATEN_CPU_CAPABILITY=avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "oneDNN of an SSE4.1 CPU": {"DNNL_MAX_CPU_ISA": "SSE41"},
    "MKL of any CPU": {"MKL_CBWR": "COMPATIBLE"},
    "all of an old CPU, one thread": {
        "ATEN_CPU_CAPABILITY": "default",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
        "threads": 1,
    },
}


def groups(motion: MotionSet, way: dict[str, object]) -> Iterator[list[int]]:
    """Clips in the order and the groups in which they are encoded."""
    clips = list(range(len(motion)))
    if way.get("reverse"):
        clips.reverse()
    size = int(str(way.get("group", len(clips))))
    for first in range(0, len(clips), size):
        yield clips[first : first + size]


def encode(codec: Codec, motion: MotionSet, way: dict[str, object]) -> np.ndarray:
    """All codes [sum of L, Q], clips in the order of the file."""
    found: dict[int, list[np.ndarray]] = {}
    for clips in groups(motion, way):
        for part in codec.parts(motion.lengths[clips], 48):
            rows = codec.encode_spans(part, lambda n, start, stop, clips=clips: motion.read(clips[n], start, stop))
            for span in part:
                found.setdefault(clips[span.clip], []).append(rows[span])
    return np.concatenate([rows for clip in sorted(found) for rows in found[clip]])


def work(run: str, path: str, numerics: str, way: dict[str, object], out: str) -> None:
    """One way, in this process."""
    import torch

    if "threads" in way:
        torch.set_num_threads(int(str(way["threads"])))
    for name in ("BATCH_FRAMES", "CHUNK_TOKENS"):
        if name in way:
            setattr(codec_module, name, way[name])
    codec = load(run, device="cpu", numerics=numerics)
    with MotionSet([Path(path)]) as motion:
        np.save(out, encode(codec, motion, way), allow_pickle=False)
    print(json.dumps({"again": codec.decided_again, "capability": torch.backends.cpu.get_cpu_capability()}))


def rewritten(path: str, kind: str, folder: str) -> str:
    """The same clips as a plain HDF5 file of another number type."""
    out = f"{folder}/rewritten.h5"
    with MotionSet([Path(path)]) as motion, h5py.File(out, "w") as file:
        file.attrs.update({"fps": motion.fps, "layout": motion.layout})
        for clip in range(len(motion)):
            file.create_dataset(f"{clip:08d}", data=motion.read(clip).astype(kind))
    return out


def main(run: str, path: str) -> None:
    """Compare all ways."""
    with tempfile.TemporaryDirectory() as folder:

        def codes(numerics: str, way: dict[str, object]) -> tuple[np.ndarray, dict[str, object]]:
            source = rewritten(path, str(way["input"]), folder) if "input" in way else path
            environment = os.environ | {name: str(value) for name, value in way.items() if name.isupper()}
            words = [sys.executable, __file__, "--work", run, source, numerics, json.dumps(way), f"{folder}/codes.npy"]
            done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            return np.load(f"{folder}/codes.npy", allow_pickle=False), json.loads(done.stdout)

        truth, about = codes("float64", {})
        print(f"{truth.size:,} codes, torch uses {about['capability']}; codes that differ from float64:", flush=True)
        for name, way in WAYS.items():
            if way.get("ATEN_CPU_CAPABILITY") == "avx512" and about["capability"] != "AVX512":
                print(f"{name:46} this CPU has no AVX-512", flush=True)
                continue
            found = {numerics: codes(numerics, way) for numerics in ("stable", "fast")}
            counts = ", ".join(f"{numerics} {(one != truth).sum():,}" for numerics, (one, _) in found.items())
            print(f"{name:46} {counts}; stable decided {found['stable'][1]['again']:,} token frames again", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(sys.argv[2], sys.argv[3], sys.argv[4], json.loads(sys.argv[5]), sys.argv[6])
    else:
        main(*sys.argv[1:])
