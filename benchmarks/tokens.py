"""inspect-codebook on a large token file, against reading it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np

from benchmarks.measure import Row, interleaved, milliseconds, process, slower
from vqtool.tokens import TokenHeader, create_tokens

TITLE = "Inspecting tokens"
CLIP = 1000  # token frames
READ = """
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    codes = file["codes"]
    for start in range(0, len(codes), 1 << 20):
        codes[start : start + (1 << 20)]
"""


def write_tokens(path: Path, tokens: int, layers: int, size: int = 512) -> Path:
    """Random codes, some far more often than others."""
    random = np.random.default_rng(0)
    frames = tokens // layers
    lengths = np.full(frames // CLIP, 4 * CLIP)
    header = TokenHeader(
        fps=30.0,
        downsample=4,
        bottleneck="rvq",
        layout="raw",
        tokenizer_id="0" * 64,
        numerics="stable",
        source="[]",
        dim=251,
        codebook_sizes=(size,) * layers,
    )
    books = [random.standard_normal((size, 16), np.float32) for _ in range(layers)]
    names = [f"clip_{number:06d}" for number in range(len(lengths))]
    with create_tokens(path, names, lengths, header, books, force=True) as writer:
        for first in range(0, len(lengths), 100):
            rows = CLIP * min(100, len(lengths) - first)
            writer.extend(codes=(size * random.random((rows, layers), np.float32) ** 2).astype(np.uint16))
    return path


def measure(quick: bool) -> list[Row]:
    """Whole commands."""
    tokens = 6 * 10**6 if quick else 10**8
    with tempfile.TemporaryDirectory() as name:
        path = write_tokens(Path(name) / "tokens.h5", tokens, 1 if quick else 4)
        with h5py.File(path) as file:
            stored = file["codes"].id.get_storage_size() / 1e6
        jobs = {
            "inspect": process("-m", "vqtool", "inspect-codebook", path, "--json"),
            "read": process("-c", READ, path),
        }
        found = interleaved(jobs, rounds=3)
    what = f"inspect-codebook, {tokens:,} tokens"
    note = f"{milliseconds(found['inspect'])}, {stored:.0f} MB stored"
    return [Row(what, "reading the codes with h5py", slower(found, "inspect", "read"), "<= 2", note)]
