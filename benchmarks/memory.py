"""How much memory encode, decode and inspect-codebook take of large files, and whether it grows on the way.

    python benchmarks/memory.py RUN MOTION [GIGABYTES]

RUN was trained on MOTION. Of the beginning of MOTION's longest clip a file of that many GB (10) is made, one compressed
chunk over and over, and a clip of 1,000,000 frames. Prints the peak resident memory of each command, what importing its
libraries takes, and the resident memory in the second and in the last quarter of its time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import h5py
import numpy as np

from vqtool.store import MotionSet

CHUNK = 1000  # frames
CLIP = 100_000


def repeated(path: Path, motion: MotionSet, clips: int, frames: int) -> None:
    """A plain HDF5 file of clips [frames, D], all of one chunk of real motion, deflated."""
    longest = int(np.argmax(motion.lengths))
    rows = np.round(motion.read(longest, 0, CHUNK), 2)
    rows = np.concatenate([rows, rows[::-1]] * (CHUNK // len(rows) + 1))[:CHUNK].astype("<f4")
    shuffled = rows.view(np.uint8).reshape(-1, 4).T.tobytes()  # HDF5's shuffle filter: first bytes first
    chunk = zlib.compress(shuffled, 4)
    with h5py.File(path, "w") as file:
        file.attrs.update({"fps": motion.fps, "layout": motion.layout})
        for clip in range(clips):
            data = file.create_dataset(
                f"{clip:06d}", (frames, motion.dim), "<f4", chunks=rows.shape, compression="gzip", shuffle=True
            )
            for start in range(0, frames, CHUNK):
                data.id.write_direct_chunk((start, 0), chunk)
        assert np.array_equal(file["000000"][:CHUNK], rows)


def resident(pid: int) -> int:
    """Bytes that a process has in memory, those of mapped files left out."""
    with open(f"/proc/{pid}/statm") as file:
        _, pages, shared, *_ = map(int, file.read().split())
    return (pages - shared) * os.sysconf("SC_PAGE_SIZE")


def run(*words: object) -> tuple[float, float, list[float]]:
    """Seconds, peak MB and the MB at every tenth of a second, of a command that ends well."""
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL)
    seen: list[float] = []

    def watch() -> None:
        while process.returncode is None:
            try:
                seen.append(resident(process.pid) / 2**20)
            except OSError:
                return
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    watcher.join()
    assert process.returncode == 0, (words, process.returncode)
    return time.monotonic() - begin, usage.ru_maxrss / 1024, seen


def report(name: str, frames: int, *words: object) -> None:
    """Run a vqtool command and print its line."""
    seconds, peak, seen = run("-m", "vqtool", *words, "-q" if words[0] != "inspect-codebook" else "--json")
    quarter = len(seen) // 4
    early, late = (float(np.median(part)) for part in (seen[quarter : 2 * quarter], seen[-quarter:]))
    rate = f"{frames / seconds:,.0f} frames/s"
    print(f"{name:28} {seconds:7.1f} s  {rate:>18}  peak {peak:5.0f} MB  {early:5.0f} -> {late:5.0f} MB", flush=True)


def main(tokenizer: str, path: str, gigabytes: str = "10") -> None:
    """Make the files and run the commands."""
    for name, code in {"torch, h5py": "import torch, h5py, numpy", "h5py": "import h5py, numpy"}.items():
        print(f"importing {name:18} peak {run('-c', code)[1]:5.0f} MB")
    with MotionSet([Path(path)]) as motion, tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        clips = round(float(gigabytes) * 1e9 / (CLIP * motion.dim * 4))
        files = {f"{gigabytes} GB": (clips, CLIP), "one clip of 10^6 frames": (1, 1_000_000)}
        for what, (count, frames) in files.items():
            source, tokens, back = (folder / f"{part}.h5" for part in ("motion", "tokens", "decoded"))
            repeated(source, motion, count, frames)
            total = count * frames
            size, stored = total * motion.dim * 4 / 1e9, source.stat().st_size / 1e9
            print(f"{what}: {count} clips, {total:,} frames, {size:.1f} GB, {stored:.2f} on disk")
            report("encode", total, "encode", tokenizer, source, "-o", tokens)
            report("inspect-codebook", total, "inspect-codebook", tokens)
            report("decode", total, "decode", tokenizer, tokens, "-o", back)
            for file in (source, tokens, back):
                file.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
