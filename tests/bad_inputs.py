# ruff: noqa: E501 (a case a line)
"""The corpus of bad inputs: what a user or an attacker could hand to vqtool, and what it has to answer.

A case is a folder that is built, a command line typed in it, and the exit code and the one line on stderr that it
must end with; whatever else the folder held must be there afterwards, and nothing more.

    python tests/bad_inputs.py [WORD...]    run the cases (those whose name holds a WORD), each in its own process,
                                            and show their messages, time and peak memory

tests/test_bad_inputs.py runs the same cases in one process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import resource
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from conftest import Silent, small_config, waves
from motion_samples import BODY, TWO_JOINTS

from vqtool.cli import main
from vqtool.companions import Caption, Companions
from vqtool.errors import printable
from vqtool.store import MotionSet, create_motion
from vqtool.tokenizer_file import TokenizerFile, pack, read_tokenizer
from vqtool.tokens import TokenSet, create_latents, create_tokens

MAX_SECONDS = 2.0  # beyond importing torch
MAX_MB = 500
FULL_NAME = "n" * 5000


@dataclass(frozen=True)
class Good:
    """What is right: the words of a command line that stand for it, and what bad files are made of."""

    MOTION: Path  # motion.h5 of 5 columns that all move, 30 fps, layout raw
    RUN: Path  # an rvq of it
    VAE: Path
    TOKENS: Path  # MOTION encoded by RUN
    LATENTS: Path  # MOTION encoded by VAE


Make = Callable[[Path, Good], object]
Listing = list[tuple[str, str]]


def nothing(folder: Path, good: Good) -> None:
    """A command line that is wrong by itself."""


@dataclass(frozen=True)
class Case:
    """`words` is typed in the folder that `make` filled; `message` is the whole line behind "vqtool: error: "."""

    name: str
    words: str
    make: Make
    code: int
    message: str
    left: tuple[str, ...] = ()  # what may be there afterwards
    environment: Mapping[str, str] = field(default_factory=dict)
    stdout: bool = False  # `validate` tells of problems on stdout
    apart: bool = False  # could kill or hang a process, or take much memory: only in one of its own
    skip: str = ""  # why it cannot be run here

    def argv(self, good: Good) -> list[str]:
        """The command line, MOTION, RUN, VAE, TOKENS and LATENTS filled in."""
        return [
            str(getattr(good, word)) if word in good.__dataclass_fields__ else word for word in shlex.split(self.words)
        ]


def fault(case: Case, code: int, out: str, errors: str, before: Listing, after: Listing) -> str:
    """What is wrong with how a case ended, "" if nothing is."""
    if code != case.code:
        return f"exit code {code}, not {case.code}: {errors[-2000:]}"
    told, silent = (out, errors) if case.stdout else (errors, out)
    prefix = "" if case.stdout else "vqtool: error: "
    if not re.fullmatch(f"{re.escape(prefix)}({case.message})\n", told) or not told[:-1].isprintable():
        return f"said {told!r}, not {case.message!r}"
    if silent:
        return f"said also {silent!r}"
    kept = [entry for entry in after if entry[0].split("/")[0] not in case.left]
    return "" if before == kept else f"left {kept} of {before}"


def listing(folder: Path) -> Listing:
    """Everything below a folder, with a digest of what files hold."""
    found = []
    for path in sorted(folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
        size = path.stat().st_size if plain else 0
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if plain and size < 1 << 24 else str(size)
        found.append((str(path.relative_to(folder)), digest))
    return found


# Makers


def file(name: str, content: bytes | str) -> Make:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder, good: (folder / name).write_bytes(data)


def changed(name: str, of: str, change: Callable[[bytes], bytes]) -> Make:
    """The bytes of a good file, changed; of a run its tokenizer."""

    def make(folder: Path, good: Good) -> None:
        path = getattr(good, of)
        path = path / "tokenizer.safetensors" if path.is_dir() else path
        (folder / name).write_bytes(change(path.read_bytes()))

    return make


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(share * len(data))]


def flip(share: float) -> Callable[[bytes], bytes]:
    """One bit, at that share of the bytes."""

    def change(data: bytes) -> bytes:
        place = int(share * len(data))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return change


def h5(name: str, *parts: Mapping[str, Any] | Callable[[h5py.File], object]) -> Make:
    """An HDF5 file of datasets, and of what functions do to it."""

    def make(folder: Path, good: Good) -> None:
        with h5py.File(folder / name, "w") as opened:
            for part in parts:
                if callable(part):
                    part(opened)
                else:
                    for key, value in part.items():
                        opened[key] = value

    return make


def edited(name: str, of: str, change: Callable[[h5py.File], object]) -> Make:
    """A good HDF5 file, changed through h5py."""

    def make(folder: Path, good: Good) -> None:
        (folder / name).write_bytes(getattr(good, of).read_bytes())
        with h5py.File(folder / name, "r+") as opened:
            change(opened)

    return make


def replaced(key: str, value: Any) -> Callable[[h5py.File], None]:
    """Another dataset, or none, in the place of one."""

    def change(opened: h5py.File) -> None:
        del opened[key]
        if value is not None:
            opened[key] = value

    return change


def attributed(**attrs: Any) -> Callable[[h5py.File], None]:
    return lambda opened: opened.attrs.update(attrs)


def motion(name: str, clips: Mapping[str, np.ndarray], companions: Companions | None = None, **options: Any) -> Make:
    """A motion.h5 with its right SHA-256."""

    def make(folder: Path, good: Good) -> None:
        dim = next((value.shape[1] for value in clips.values()), 5)
        with create_motion(folder / name, **{"dim": dim, "fps": 30, **options}) as writer:
            for clip, frames in clips.items():
                writer.append(clip, frames)
            writer.companions = companions or Companions()

    return make


def wrong(frame: int, column: int, value: float, length: int = 50) -> np.ndarray:
    """Good motion with one bad number."""
    frames = lively(length).astype(np.float64)
    frames[frame, column] = value
    return frames


def lively(length: int, dim: int = 5, seed: int = 0) -> np.ndarray:
    """Motion of which no column is constant."""
    return waves(length, dim + 1, seed)[:, :dim]


def tokens(name: str, change: Callable[[np.ndarray], np.ndarray] = lambda codes: codes, **header: Any) -> Make:
    """Tokens of RUN with other codes or another header, and their right SHA-256."""

    def make(folder: Path, good: Good) -> None:
        with TokenSet(good.TOKENS) as found:
            changed = replace(found.header, **header)
            codes = change(found.rows("codes", 0, found.num_tokens).copy())
            with create_tokens(folder / name, found.names, found.num_frames, changed, found.codebooks) as writer:
                writer.extend(codes=codes)

    return make


def latents(name: str, change: Callable[[np.ndarray, np.ndarray], object], width: int | None = None) -> Make:
    """Latents of VAE with other numbers, and their right SHA-256."""

    def make(folder: Path, good: Good) -> None:
        with TokenSet(good.LATENTS) as found:
            mean, logvar = (found.rows(key, 0, found.num_tokens).copy() for key in ("mean", "logvar"))
            change(mean, logvar)
            width_ = found.width if width is None else width
            with create_latents(folder / name, found.names, found.num_frames, found.header, width_) as writer:
                writer.extend(mean=mean[:, :width_], logvar=logvar[:, :width_])

    return make


def tokenizer(name: str, change: Callable[[dict[str, np.ndarray], dict[str, Any]], object], of: str = "RUN") -> Make:
    """A tokenizer of other tensors or another header, with its right digests."""

    def make(folder: Path, good: Good) -> None:
        found = read_tokenizer(getattr(good, of))
        tensors, header = dict(found.tensors), json.loads(json.dumps(found._plain()))
        change(tensors, header)
        names = [name for name in TokenizerFile.__dataclass_fields__ if name in header]
        identity = ""
        if len(names) == 7:
            identity = TokenizerFile(**{key: header[key] for key in names}, tensors=tensors).tokenizer_id
        fixed = {"format": "vqtool.tokenizer", "format_version": 1, "tokenizer_id": identity}
        (folder / name).write_bytes(pack(tensors, fixed | header))

    return make


def setting(path: str, value: Any) -> Callable[[dict[str, np.ndarray], dict[str, Any]], None]:
    """Another value in the header, as "config.model.width"."""

    def change(tensors: dict[str, np.ndarray], header: dict[str, Any]) -> None:
        *parts, last = path.split(".")
        for part in parts:
            header = header[part]
        header[last] = value

    return change


def tensor(name: str, change: Callable[[np.ndarray], np.ndarray] | None) -> Callable[..., None]:
    """Another tensor in the place of one, or none."""

    def edit(tensors: dict[str, np.ndarray], header: dict[str, Any]) -> None:
        old = tensors.pop(name)
        if change is not None:
            tensors[name] = change(old)

    return edit


def raw_safetensors(name: str, header: bytes, payload: bytes = b"", size: int | None = None) -> Make:
    return file(name, struct.pack("<Q", len(header) if size is None else size) + header + payload)


def bvh(*changes: tuple[str, str], name: str = "bad.bvh") -> Make:
    """A small BVH file with some of its text exchanged."""
    text = TWO_JOINTS
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return file(name, text)


def npy(name: str, array: np.ndarray) -> Make:
    return lambda folder, good: np.save(folder / name, array, allow_pickle=True)


def npy_header(name: str, descr: str, payload: bytes = b"\0" * 64) -> Make:
    """A npy file with a header of one's own."""
    return file(name, npy_bytes(descr, payload))


def npy_bytes(descr: str, payload: bytes = b"\0" * 64) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(descr) + 1) + descr.encode() + b"\n" + payload


def npy_of(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(name: str, **arrays: np.ndarray | float) -> Make:
    return lambda folder, good: np.savez(folder / name, **arrays)  # type: ignore[arg-type]


def zipped(name: str, entries: Mapping[str, bytes]) -> Make:
    def make(folder: Path, good: Good) -> None:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as opened:
            for entry, data in entries.items():
                opened.writestr(entry, data)

    return make


NO_PARQUET = "" if importlib.util.find_spec("pyarrow") else "needs pyarrow"


def lerobot(**columns: Any) -> Make:
    """A LeRobot folder "in" of one file of those columns."""

    def make(folder: Path, good: Good) -> None:
        import pyarrow
        from pyarrow import parquet

        (folder / "in" / "meta").mkdir(parents=True)
        (folder / "in" / "data").mkdir()
        (folder / "in" / "meta" / "info.json").write_text('{"fps": 30}')
        parquet.write_table(pyarrow.table(columns), folder / "in" / "data" / "a.parquet")

    return make


def zip_bomb(name: str, rows: int, columns: int) -> Make:
    """A npz of float32 zeros that takes 1/1000 of its size."""

    def make(folder: Path, good: Good) -> None:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns})}}"
        with (
            zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as opened,
            opened.open("a.npy", "w", force_zip64=True) as entry,
        ):
            entry.write(npy_bytes(header, b""))
            block, left = bytes(1 << 20), 4 * rows * columns
            while left > 0:
                entry.write(block[:left])
                left -= len(block)

    return make


def both(*makers: Make) -> Make:
    def make(folder: Path, good: Good) -> None:
        for one in makers:
            one(folder, good)

    return make


def folder(*names: str) -> Make:
    """Empty folders."""

    def make(place: Path, good: Good) -> None:
        for name in names:
            (place / name).mkdir(parents=True, exist_ok=True)

    return make


def within(name: str, make: Make) -> Make:
    """Made in a folder below."""

    def made(place: Path, good: Good) -> None:
        (place / name).mkdir(parents=True, exist_ok=True)
        make(place / name, good)

    return made


def fifo(name: str) -> Make:
    return lambda folder, good: os.mkfifo(folder / name)


def unix_socket(name: str) -> Make:
    def make(folder: Path, good: Good) -> None:
        before = os.getcwd()
        os.chdir(folder)  # a socket's path may have 107 characters
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(name)
        os.chdir(before)

    return make


def link(name: str, to: str) -> Make:
    return lambda folder, good: (folder / name).symlink_to(to)


def forbidden(name: str, make: Make) -> Make:
    def made(folder: Path, good: Good) -> None:
        make(folder, good)
        (folder / name).chmod(0)

    return made


def almighty() -> str:
    """Why nothing can be forbidden: root may read and write all."""
    with tempfile.NamedTemporaryFile() as one:
        os.chmod(one.name, 0)
        return "root may read and write all" if os.access(one.name, os.R_OK) else ""


ALMIGHTY = almighty()


def run_folder(of: str, change: Callable[[Path], object]) -> Make:
    """A copy of a run in the folder "run", changed."""

    def make(folder: Path, good: Good) -> None:
        shutil.copytree(getattr(good, of), folder / "run")
        change(folder / "run")

    return make


# HDF5 that is not as it should be


def external(opened: h5py.File) -> None:
    opened.create_dataset("a", (4, 3), "f4", external=[("/etc/passwd", 0, 48)])


def external_link(opened: h5py.File) -> None:
    opened["a"] = h5py.ExternalLink("/etc/passwd", "/x")


def virtual(opened: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", (4, 3))
    opened.create_virtual_dataset("a", layout)


def deep(levels: int) -> Callable[[h5py.File], None]:
    def change(opened: h5py.File) -> None:
        group = opened
        for _ in range(levels):
            group = group.create_group("g")
        group["a"] = np.ones((4, 3))

    return change


def cycle(opened: h5py.File) -> None:
    opened.create_group("a/b")
    opened["a/b/c"] = opened["a"]


def declared(shape: tuple[int, ...], **options: Any) -> Callable[[h5py.File], None]:
    """A dataset of which nothing was written."""
    return lambda opened: opened.create_dataset("a", shape, "f4", **options)


def gzip_bomb(
    shape: tuple[int, int], chunk: tuple[int, int], key: str = "a", dtype: str = "f4"
) -> Callable[[h5py.File], None]:
    """Zeros that take 1/1000 of their size: each chunk written is the same few compressed bytes."""

    def change(opened: h5py.File) -> None:
        if key in opened:
            del opened[key]
        dataset = opened.create_dataset(key, shape, dtype, chunks=chunk, compression="gzip")
        packer = zlib.compressobj(9)
        left, block, data = dataset.dtype.itemsize * chunk[0] * chunk[1], bytes(1 << 20), b""
        while left > 0:
            data += packer.compress(block[:left])
            left -= len(block)
        data += packer.flush()
        for row in range(0, shape[0], chunk[0]):
            for column in range(0, shape[1], chunk[1]):
                dataset.id.write_direct_chunk((row, column), data)

    return change


def filtered(number: int) -> Callable[[h5py.File], None]:
    """A dataset that names a filter, with numbers that were stored without it."""

    def change(opened: h5py.File) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((4, 3))
        plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((4, 3))
        made = h5py.h5d.create(opened.id, b"a", h5py.h5t.IEEE_F32LE, space, plist)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones((4, 3), "f4"))

    return change


def named(name: bytes) -> Callable[[h5py.File], None]:
    """A good dataset under a name of any bytes."""

    def change(opened: h5py.File) -> None:
        made = h5py.h5d.create(opened.id, name, h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((10, 3)))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, wrong(3, 1, np.nan, 10)[:, :3].copy())

    return change


def typed(dtype: Any) -> Callable[[h5py.File], None]:
    return lambda opened: opened.create_dataset("a", (10, 3), dtype)


def huge_attribute(opened: h5py.File) -> None:
    opened["a"] = np.ones((10, 3), "f4")
    kind = h5py.h5t.IEEE_F64LE
    space = h5py.h5s.create_simple((4000,))
    h5py.h5a.create(opened.id, b"fps", kind, space).write(np.zeros(4000))


def names_of(count: int, name: str) -> np.ndarray:
    return np.array([name.encode()] * count, dtype="S")


SAFE_HEADER = b'{"__metadata__":{"vqtool":"{}"}}'
ROWS = "0 90 0 0 0 0 0 0 0\n0 90 0 90 0 0 0 0 0\n"
STATS_FPS = "stats bad.h5 --fps 30"
UNREADABLE = r"bad.h5: is not a readable HDF5 file \(damaged, cut off, or another format, as vqtool import reads\)"
IMPORT = "import bad.npy -o out.h5 --fps 30"

# fmt: off
COMMAND_LINES = [
    Case("no such command", "frobnicate", nothing, 2, r"No such command 'frobnicate'. \(vqtool --help shows the commands\)"),
    Case("no such option", "stats MOTION --nonsense", nothing, 2, r"No such option: --nonsense \(vqtool stats --help shows the options\)"),
    Case("an option nearly right", "stats MOTION --colums", nothing, 2, r"No such option: --colums \(Possible options: --columns\) \(vqtool stats --help shows the options\)"),
    Case("a setting as an option", "train MOTION -o run --batch-size 8", nothing, 2, r"No such option: --batch-size; it is a setting: --set train.batch_size=VALUE"),
    Case("a setting of others as an option", "train MOTION -o run --learning-rate=1e-3", nothing, 2, r"No such option: --learning-rate; it is a setting: --set train.lr=VALUE"),
    Case("no output named", "encode RUN MOTION", nothing, 2, r"Missing option '-o' / '--output'. \(vqtool encode --help shows the options\)"),
    Case("no input named", "stats", nothing, 2, r"Missing argument 'MOTION'. \(vqtool stats --help shows the options\)"),
    Case("an option without its value", "encode RUN MOTION -o", nothing, 2, r"Option '-o' requires an argument..*"),
    Case("fps of 0", "stats bad.h5 --fps 0", h5("bad.h5", {"a": np.ones((9, 3))}), 2, r"--fps takes a positive number, not 0"),
    Case("fps below 0", "stats bad.h5 --fps -1", h5("bad.h5", {"a": np.ones((9, 3))}), 2, r"--fps takes a positive number, not -1"),
    Case("fps that is no number", "stats bad.h5 --fps nan", h5("bad.h5", {"a": np.ones((9, 3))}), 2, r"--fps takes a positive number, not nan"),
    Case("fps that is a word", "stats bad.h5 --fps fast", h5("bad.h5", {"a": np.ones((9, 3))}), 2, r"--fps takes a number, not 'fast'"),
    Case("another fps than the file's", "stats MOTION --fps 60", nothing, 2, r".*motion.h5: says fps 30; leave --fps 60 out"),
    Case("import fps of 0", "import bad.bvh -o out.h5 --fps 0", bvh(), 2, r"--fps 0: a positive number was expected, at most 100,000"),
    Case("import fps without end", "import bad.bvh -o out.h5 --fps inf", bvh(), 2, r"--fps inf: a positive number was expected, at most 100,000"),
    Case("split of one word", "import bad.bvh -o out.h5 --split x", bvh(), 2, r"--split takes three shares, for example 0.9,0.05,0.05, not 'x'"),
    Case("split above 1", "import bad.bvh -o out.h5 --split 0.9,0.9,0.1", bvh(), 2, r"--split 0.9,0.9,0.1: three shares that add up to 1 were expected, the first above 0"),
    Case("split of nan", "import bad.bvh -o out.h5 --split nan,nan,nan", bvh(), 2, r"--split takes three shares that add up to 1: train,val,test, for example 0.9,0.05,0.05"),
    Case("no such split", "stats MOTION --split x", nothing, 2, r"no split 'x'; there are train, val, test"),
    Case("a split of a file without", "export MOTION -o out --format npy --split val", nothing, 65, r".*motion.h5: does not say which clips are train, val and test; leave --split out"),
    Case("0 threads", "encode RUN MOTION -o out.h5 --threads 0", nothing, 2, r"--threads takes a whole number from 1 to 4,096, not '0'"),
    Case("threads in words", "encode RUN MOTION -o out.h5 --threads many", nothing, 2, r"--threads takes a whole number from 1 to 4,096, not 'many'"),
    Case("too many threads", "encode RUN MOTION -o out.h5 --threads 999999999999", nothing, 2, r".*--threads.*999999999999.*", apart=True),
    Case("no such numerics", "encode RUN MOTION -o out.h5 --numerics foo", nothing, 2, r"numerics is one of stable, fast, bfloat16, float64, not 'foo'"),
    Case("no such device", "encode RUN MOTION -o out.h5 --device gpu", nothing, 2, r"device 'gpu' is not available here; try --device auto"),
    Case("a device that is not here", "decode RUN TOKENS -o out.h5 --device cuda:99", nothing, 2, r"device 'cuda:99' is not available here; try --device auto"),
    Case("a device without float64", "evaluate RUN MOTION --device mps", nothing, 2, r"device 'mps' has no float64, which exact tokens need; use --device cpu"),
    Case("more layers than there are", "encode RUN MOTION -o out.h5 --num-quantizers 99", nothing, 2, r"num_quantizers 99: this tokenizer has 3 layers"),
    Case("no layers", "encode RUN MOTION -o out.h5 --num-quantizers 0", nothing, 2, r"--num-quantizers takes a whole number of at least 1, not '0'"),
    Case("more layers than in the tokens", "decode RUN TOKENS -o out.h5 --num-quantizers 99", nothing, 2, r".*tokens.h5: --num-quantizers 99: the file has 3 layers"),
    Case("more layers than can be looked at", "evaluate RUN MOTION --num-quantizers 99", nothing, 2, r"num_quantizers 99: this tokenizer has 3 layers"),
    Case("layers of a VAE", "encode VAE MOTION -o out.h5 --num-quantizers 1", nothing, 2, r"num_quantizers 1: this tokenizer has 0 layers"),
    Case("layers of latents", "decode VAE LATENTS -o out.h5 --num-quantizers 1", nothing, 2, r".*latents.h5: --num-quantizers 1: the file has 0 layers"),
    Case("a sample of codes", "decode RUN TOKENS -o out.h5 --sample", nothing, 2, r".*tokens.h5: --sample is for the latents of a VAE; these are codes"),
    Case("samples of codes", "sample RUN -o out.h5", nothing, 2, r".*: is a tokenizer of rvq, whose codes need a model of tokens \(see examples/text_to_motion\); only a VAE can be sampled"),
    Case("an overlay of one motion", "play MOTION -o out.gif --overlay", nothing, 2, r"--overlay lays two motions over each other; name the other with --against, or leave it out"),
    Case("a view turned by no number", "play MOTION -o out.gif --turn nan", nothing, 2, r"--turn takes a number from -360 to 360, not 'nan'"),
    Case("a view turned in words", "play MOTION -o out.gif --turn left", nothing, 2, r"--turn takes a number from -360 to 360, not 'left'"),
    Case("a layer in words", "edit swap-layer TOKENS a b -o out.h5 --layer first", nothing, 2, r"--layer takes a whole number of at least 0, not 'first'"),
    Case("no samples", "sample VAE -n 0 -o out.h5", nothing, 2, r"--clips takes a whole number from 1 to 1,000,000, not '0'"),
    Case("samples of no frames", "sample VAE --frames 0 -o out.h5", nothing, 2, r"--frames takes a whole number from 1 to 10,000,000, not '0'"),
    Case("a temperature that is no number", "sample VAE --temperature nan -o out.h5", nothing, 2, r"--temperature takes a number from 0 to 100, not 'nan'"),
    Case("samples like motion without a skeleton", "sample VAE --like MOTION -o out.h5", nothing, 2, r".*motion.h5: has no skeleton; leave out --like, or name a motion.h5 of vqtool import"),
    Case("samples like tokens", "sample VAE --like TOKENS -o out.h5", nothing, 65, r".*"),
    Case("a seed below 0", "decode VAE LATENTS -o out.h5 --sample --seed -1", nothing, 2, r"--seed takes a whole number from 0 to 9,223,372,036,854,775,807, not '-1'"),
    Case("a seed too large", "decode VAE LATENTS -o out.h5 --sample --seed 99999999999999999999", nothing, 2, r".*--seed.*"),
    Case("0 steps", "train MOTION -o run --steps 0", nothing, 2, r"--steps takes a whole number of at least 1, not '0'"),
    Case("no such model", "train MOTION -o run --model gpt", nothing, 2, r"no model 'gpt'; there are vae, vq, rvq, fsq, product"),
    Case("no such on-error", "encode RUN MOTION -o out.h5 --on-error hope", nothing, 2, r"--on-error is stop or skip, not 'hope'"),
    Case("no such on-error of import", "import bad.bvh -o out.h5 --on-error hope", bvh(), 2, r"--on-error is stop or skip, not 'hope'"),
    Case("no such format", "import bad.bvh -o out.h5 --format fbx", bvh(), 2, r"no format 'fbx'; there are auto, humanml3d, lerobot, bvh, amass, npz, npy, csv, robomimic, hdf5"),
    Case("no such layout", "import bad.bvh -o out.h5 --layout polar", bvh(), 2, r"--layout is one of joints, positions, raw, humanml3d, kit, not 'polar'"),
    Case("no such unit", "import bad.bvh -o out.h5 --units furlong", bvh(), 2, r"--units is m, cm, mm, inch or a number of metres, not 'furlong'"),
    Case("a unit of 0", "import bad.bvh -o out.h5 --units 0", bvh(), 2, r"bad.bvh: a unit of 0 metres makes no sense; centimetres are 0.01"),
    Case("a unit that is no number", "import bad.bvh -o out.h5 --units nan", bvh(), 2, r"bad.bvh: a unit of nan metres makes no sense; centimetres are 0.01"),
    Case("no such axis", "import bad.bvh -o out.h5 --up x", bvh(), 2, r"bad.bvh: the vertical axis is 'x'; y or z was expected"),
    Case("no such word for the first frame", "import bad.bvh -o out.h5 --drop-first-frame maybe", bvh(), 2, r"bad.bvh: --drop-first-frame is 'maybe'; auto, yes or no was expected"),
    Case("facing of one joint", "import bad.bvh -o out.h5 --facing Hips", bvh(), 2, r"bad.bvh: --facing takes pairs, a left and a right joint; 1 name was given"),
    Case("facing of no joint", "import bad.bvh -o out.h5 --facing Hips,Nose", bvh(), 2, r"bad.bvh: no joint 'Nose'; the skeleton has Hips, Head"),
    Case("three feet", "import bad.bvh -o out.h5 --facing none --feet a,b,c", bvh(), 2, r"bad.bvh: --feet takes 4 joints \(left ankle, left toe, right ankle, right toe\); 3 were given"),
    Case("pairs of one", "import bad.bvh -o out.h5 --mirror --pairs Hips", bvh(), 2, r"--pairs takes LEFT:RIGHT,LEFT:RIGHT,..., not 'Hips'"),
    Case("pairs of no joint", "import bad.bvh -o out.h5 --layout positions --mirror --pairs Hips:Nose", bvh(), 2, r"bad.bvh: no joint 'Nose'; the skeleton has Hips, Head"),
    Case("mirrored numbers", "import bad.npy -o out.h5 --fps 30 --mirror", npy("bad.npy", np.ones((9, 3))), 2, r"bad.npy: only skeletons' motion can be mirrored; leave --mirror out"),
    Case("no skeleton", "import bad.bvh -o out.h5 --skeleton none.bvh", bvh(), 66, r"none.bvh: no such file"),
    Case("a dataset of a motion.h5", "stats MOTION --dataset frames", nothing, 2, r".*motion.h5: --dataset is for HDF5 files that are not motion.h5"),
    Case("no such dataset", f"{STATS_FPS} --dataset b/*", h5("bad.h5", {"a": np.ones((9, 3))}), 65, r"bad.h5: holds no \[T, D\] dataset that matches --dataset 'b/\*', but a \(9x3 float64\)"),
    Case("fewer than no frames", "validate MOTION --min-frames -1", nothing, 2, r"--min-frames takes a whole number of at least 0, not '-1'"),
    Case("fewer than no codes", "inspect-codebook TOKENS --top -1", nothing, 2, r"--top takes a whole number of at least 0, not '-1'"),
    Case("export to no such format", "export MOTION -o out --format fbx", nothing, 2, r"--format is one of humanml3d, bvh, npy, csv, robomimic, not 'fbx'"),
    Case("export of numbers as BVH", "export MOTION -o out --format bvh", nothing, 2, r".*motion.h5: has layout raw; BVH is made from joint features, as of: vqtool import mocap/ -o motion.h5 --layout joints"),
    Case("one range spliced without a name", "edit splice TOKENS clip_00 -o out.h5", nothing, 2, r".*tokens.h5: has a clip called clip_00 already; name the result with --name"),
    Case("a clip spliced under a name that is there", "edit splice TOKENS clip_00 --name clip_01 -o out.h5", nothing, 2, r".*tokens.h5: --name clip_01: the file has a clip of that name; choose another"),
    Case("export of numbers as HumanML3D", "export MOTION -o out --format humanml3d", nothing, 2, r".*motion.h5: has layout raw, not the features that this format holds; use --format npy"),
    Case("a name that is missing, of 5000 letters", f"stats {FULL_NAME}", nothing, 74, r"n+: cannot be read \(File name too long\)"),
    Case("a name that is missing, with escapes", "stats 'a\x1b[31m\nb.h5'", nothing, 66, r"a\\x1b\[31m\\nb.h5: no such file"),
    Case("a name that is missing, not of UTF-8", "stats 'a\udcff\u202eb.h5'", nothing, 66, r"a\\udcff\\u202eb.h5: no such file"),
    Case("an empty name", "stats ''", nothing, 65, r".: is a folder; name an HDF5 file \(vqtool import makes one of BVH and others\)"),
    Case("import of an empty name", "import '' -o out.h5", nothing, 2, r"a source without a name; name a file or folder \(. is this one\)"),
]

OUTPUTS = [
    Case("encode to stdout", "encode RUN MOTION -o -", nothing, 2, r"HDF5 cannot be written to stdout; name a file with -o"),
    Case("output is there", "encode RUN MOTION -o out.h5", file("out.h5", "mine"), 73, r"out.h5: exists already; choose another -o or add --force"),
    Case("output of import is there", "import bad.bvh -o out.h5", both(bvh(), file("out.h5", "mine")), 73, r"out.h5: exists already; choose another -o or add --force"),
    Case("output of decode is there", "decode RUN TOKENS -o out.h5", file("out.h5", "mine"), 73, r"out.h5: exists already; choose another -o or add --force"),
    Case("output of export is there", "export MOTION -o out --format npy", within("out", file("x", "mine")), 73, r"out: is a folder that no vqtool export made; choose another -o"),
    Case("output of robomimic is there", "export MOTION -o out --format robomimic", file("out", "mine"), 73, r"out: exists already; choose another -o or add --force"),
    Case("output of train is there", "train MOTION -o out", within("out", file("x", "mine")), 73, r"out: is a folder that no vqtool train made; choose another -o"),
    Case("the run is a file", "train MOTION -o out", file("out", "mine"), 73, r"out: exists and is no folder; choose another -o"),
    Case("the run exists", "train MOTION -o run", run_folder("RUN", lambda run: None), 73, r"run: exists already; go on with --resume, begin anew with --force"),
    Case("the run is in a file", "train MOTION -o out/run", file("out", "mine"), 73, r"out/run: cannot be created \(File exists\)"),
    Case("output in no folder", "encode RUN MOTION -o no/such/out.h5", nothing, 73, r"no/such/out.h5: the folder no/such does not exist; create it first"),
    Case("import into no folder", "import bad.bvh -o no/out.h5", bvh(), 73, r"no/out.h5: the folder no does not exist; create it first"),
    Case("export into no folder", "export MOTION -o no/out --format csv", nothing, 73, r"no/out: the folder no does not exist; create it first"),
    Case("output in a file", "decode RUN TOKENS -o a/out.h5", file("a", "mine"), 73, r"a/out.h5: the folder a does not exist; create it first"),
    Case("output is a folder", "encode RUN MOTION -o out.h5", folder("out.h5"), 73, r"out.h5: is a folder; name a file"),
    Case("output of import is a folder", "import bad.bvh -o out", both(bvh(), folder("out")), 73, r"out: is a folder; name a file"),
    Case("export to a file", "export MOTION -o out --format npy", file("out", "mine"), 73, r"out: exists and is no folder; choose another -o"),
    Case("output is a device", "encode RUN MOTION -o /dev/null --force", nothing, 73, r"/dev/null: is a device or pipe; name a file"),
    Case("output is a pipe", "decode RUN TOKENS -o out.h5 --force", fifo("out.h5"), 73, r"out.h5: is a device or pipe; name a file"),
    Case("output is a socket", "decode RUN TOKENS -o out.h5 --force", unix_socket("out.h5"), 73, r"out.h5: is a device or pipe; name a file"),
    Case("output in a folder of the kernel", "import bad.bvh -o /proc/out.h5 --layout positions", bvh(), 73, r"/proc/out.h5: cannot be created \(No such file or directory\)"),
    Case("run in a folder of the kernel", "train MOTION -o /proc/run", nothing, 73, r"/proc/run: cannot be created \(No such file or directory\)"),
    Case("export to a folder of the kernel", "export MOTION -o /proc/out --format npy", nothing, 73, r"/proc/out: cannot be created \(No such file or directory\)"),
    Case("output of 5000 letters", f"encode RUN MOTION -o {FULL_NAME}.h5", nothing, 73, r"n+.h5: cannot be created \(File name too long\)"),
    Case("output of 255 letters", f"encode RUN MOTION -o {'n' * 255}", nothing, 73, r"n+: cannot be created \(File name too long\)"),
    Case("run of 5000 letters", f"train MOTION -o {FULL_NAME}", nothing, 73, r"n+: cannot be created \(File name too long\)"),
    Case("export of 5000 letters", f"export MOTION -o {FULL_NAME} --format npy", nothing, 73, r"n+: cannot be created \(File name too long\)"),
    Case("output is the input", "encode RUN MOTION -o MOTION --force", nothing, 2, r".*motion.h5: is both input and output; choose another -o"),
    Case("output is the input by a link", "decode RUN b.h5 -o a.h5 --force", both(edited("b.h5", "TOKENS", lambda f: None), link("a.h5", "b.h5")), 2, r"a.h5: is both input and output; choose another -o"),
    Case("output of import is its input", "import a.h5 -o a.h5 --force --fps 30", h5("a.h5", {"a": np.ones((9, 3))}), 2, r"a.h5: is both input and output; choose another -o"),
    Case("export into its input", "export a.h5 -o a.h5 --force --fps 30 --format robomimic", h5("a.h5", {"a": np.ones((9, 3))}), 2, r"a.h5: is both input and output; choose another -o"),
    Case("the plot is there", "inspect-codebook TOKENS --plot a.png", file("a.png", "mine"), 73, r"a.png: exists already; choose another -o or add --force"),
    Case("the plot is in no folder", "inspect-codebook TOKENS --plot no/a.png", nothing, 73, r"no/a.png: the folder no does not exist; create it first"),
]

PLACES = [
    Case("a missing motion", "stats none.h5", nothing, 66, r"none.h5: no such file"),
    Case("a missing motion to train on", "train none.h5 -o run", nothing, 66, r"none.h5: no such file"),
    Case("a missing run", "encode none MOTION -o out.h5", nothing, 66, r"none: no such file"),
    Case("missing tokens", "decode RUN none.h5 -o out.h5", nothing, 66, r"none.h5: no such file"),
    Case("nothing to inspect", "inspect-codebook none", nothing, 66, r"none: no such file"),
    Case("a missing file to import", "import none.bvh -o out.h5", nothing, 66, r"none.bvh: no such file"),
    Case("a glob of nothing", "import 'none/**/*.bvh' -o out.h5", nothing, 66, r"none/\*\*/\*.bvh: matches no file"),
    Case("a missing list", "import @none.txt -o out.h5", nothing, 66, r"none.txt: no such list"),
    Case("a list of missing files", "import @list.txt -o out.h5", file("list.txt", "none.bvh\n"), 66, r"none.bvh: no such file; list.txt lists it"),
    Case("a list that lists itself", "import @list.txt -o out.h5", file("list.txt", "@list.txt\n"), 2, r"list.txt: is more than 16 lists deep; does it list itself\?"),
    Case("an empty list", "import @list.txt -o out.h5", file("list.txt", "# nothing\n"), 66, r"@list.txt: holds nothing to import: no file ends in .bvh, .qbvh, .npz, .npy, .csv, .tsv, .h5, .hdf5, .hdf, .he5"),
    Case("a list of binary", "import @list.txt -o out.h5", file("list.txt", bytes(range(1, 256))), 66, r"\\x01\\x02\\x03\\x04\\x05\\x06\\x07\\x08: no such file; list.txt lists it"),
    Case("a list of NULs", "import @list.txt -o out.h5", file("list.txt", b"a\0b\n"), 66, r"a\\x00b: no such file; list.txt lists it"),
    Case("a list that is a folder", "import @list -o out.h5", folder("list"), 65, r"list: is a folder; name a file"),
    Case("an empty folder", "import in -o out.h5", folder("in"), 66, r"in: holds nothing to import: no file ends in .bvh, .qbvh, .npz, .npy, .csv, .tsv, .h5, .hdf5, .hdf, .he5"),
    Case("a folder of nothing known", "import in -o out.h5", within("in", file("readme.txt", "hi")), 66, r"in: holds nothing to import: no file ends in .bvh, .qbvh, .npz, .npy, .csv, .tsv, .h5, .hdf5, .hdf, .he5"),
    Case("several formats", "import in -o out.h5", within("in", both(bvh(), file("a.csv", "1,2\n"))), 2, r"in: found files of several formats \(1 csv, 1 bvh\); choose with --format csv"),
    Case("names that clash", "import in -o out.h5 --format bvh", within("in", both(bvh(name="a.bvh"), bvh(name="a.qbvh"))), 2, r"in/a.qbvh: and in/a.bvh would both be called 'a'; rename one"),
    Case("a folder as motion", "stats in", folder("in"), 65, r"in: is a folder; name an HDF5 file \(vqtool import makes one of BVH and others\)"),
    Case("a folder as BVH", "import in.bvh -o out.h5 --format bvh", folder("in.bvh"), 66, r"in.bvh: holds nothing to import: no file ends in .bvh, .qbvh"),
    Case("a folder as tokens", "decode RUN in -o out.h5", folder("in"), 65, r"in: is a folder; name an HDF5 file \(vqtool import makes one of BVH and others\)"),
    Case("a folder as run", "encode in MOTION -o out.h5", folder("in"), 66, r"in: holds no tokenizer.safetensors; name a run folder that vqtool train wrote"),
    Case("a folder as config", "train MOTION -o run --config in", folder("in"), 74, r"in: cannot be read; it is a folder"),
    Case("a folder as skeleton", "import a.npz -o out.h5 --skeleton in", folder("in"), 65, r"in: is a folder; name a file"),
    Case("a folder as tokenizer", "encode run MOTION -o out.h5", folder("run/tokenizer.safetensors"), 65, r"run/tokenizer.safetensors: is a folder; name a file"),
    *[
        Case(f"{what} {name}", words.replace("BAD", f"bad{suffix}"), make(f"bad{suffix}"), code, r"bad.*: is .*(device|pipe|neither).*; name .*", apart=what != "a socket as")
        for what, make in (("a pipe as", fifo), ("a socket as", unix_socket), ("an endless device as", lambda name: link(name, "/dev/zero")))
        for name, suffix, words, code in (
            ("motion", ".h5", "stats BAD", 65),
            ("tokens", ".h5", "decode RUN BAD -o out.h5", 65),
            ("tokenizer", "", "encode BAD MOTION -o out.h5", 65),
            ("what to inspect", "", "inspect-codebook BAD", 65),
            ("BVH", ".bvh", "import BAD -o out.h5", 65),
            ("BVH of that format", ".bvh", "import BAD -o out.h5 --format bvh", 65),
            ("npy", ".npy", "import BAD -o out.h5", 65),
            ("npy of that format", ".npy", "import BAD -o out.h5 --format npy", 65),
            ("npz of that format", ".npz", "import BAD -o out.h5 --format npz", 65),
            ("CSV of that format", ".csv", "import BAD -o out.h5 --format csv", 65),
            ("HDF5 to import", ".h5", "import BAD -o out.h5 --format hdf5", 65),
            ("list", ".txt", "import @BAD -o out.h5", 65),
            ("skeleton", ".bvh", "import a.npz -o out.h5 --skeleton BAD", 65),
            ("config", ".toml", "train MOTION -o run --config BAD", 2),
        )
    ],
    Case("an empty device as motion", "stats /dev/null", nothing, 65, r"/dev/null: is a device or pipe; name an HDF5 file"),
    Case("an empty device as BVH", "import /dev/null -o out.h5 --format bvh", nothing, 65, r"/dev/null: is not a file but a device, a pipe or a socket; name a file"),
    Case("a loop of links as motion", "stats a.h5", both(link("a.h5", "b.h5"), link("b.h5", "a.h5")), 66, r"a.h5: no such file"),
    Case("a loop of links to import", "import a.bvh -o out.h5", both(link("a.bvh", "b.bvh"), link("b.bvh", "a.bvh")), 66, r"a.bvh: no such file"),
    Case("a loop of links as run", "encode a MOTION -o out.h5", both(link("a", "b"), link("b", "a")), 74, r"a: cannot be read \(Too many levels of symbolic links\)"),
    Case("a link to nothing", "decode RUN a.h5 -o out.h5", link("a.h5", "none.h5"), 66, r"a.h5: no such file"),
    Case("a folder of links to itself", "import in -o out.h5", within("in", link("in", ".")), 66, r"in: holds nothing to import: no file ends in .bvh, .qbvh, .npz, .npy, .csv, .tsv, .h5, .hdf5, .hdf, .he5"),
    *[
        Case(f"a forbidden {name}", words, forbidden("bad" + suffix, file("bad" + suffix, "x")), 74, r"bad.*: cannot be read \(Permission denied\)", skip=ALMIGHTY)
        for name, suffix, words in (("motion", ".h5", "stats bad.h5"), ("tokenizer", "", "encode bad MOTION -o out.h5"), ("BVH", ".bvh", "import bad.bvh -o out.h5"), ("npz", ".npz", "import bad.npz -o out.h5"), ("config", ".toml", "train MOTION -o run --config bad.toml"))
    ],
    Case("a forbidden folder", "encode RUN MOTION -o in/out.h5", forbidden("in", folder("in")), 73, r"in/out.h5: cannot be created \(Permission denied\)", skip=ALMIGHTY),
    Case("memory of a process", "import /proc/self/mem -o out.h5 --format bvh", nothing, 74, r"/proc/self/mem: cannot be read \(Input/output error\)"),
]

BVH = [
    Case("empty BVH", "import bad.bvh -o out.h5", file("bad.bvh", ""), 65, r"bad.bvh: is empty"),
    Case("empty BVH of that format", "import bad.bvh -o out.h5 --format bvh", file("bad.bvh", ""), 65, r"bad.bvh: has no MOTION line; it is not a BVH file or was cut short"),
    Case("BVH of another suffix", "import bad.fbx -o out.h5", bvh(name="bad.fbx"), 65, r"bad.fbx: has none of the suffixes .bvh, .qbvh, .npz, .npy, .csv, .tsv, .h5, .hdf5, .hdf, .he5; --format says what it is"),
    Case("BVH without MOTION", "import bad.bvh -o out.h5", bvh(("MOTION\n", "")), 65, r"bad.bvh: has no MOTION line; it is not a BVH file or was cut short"),
    Case("BVH cut in its hierarchy", "import bad.bvh -o out.h5", file("bad.bvh", TWO_JOINTS[:150]), 65, r"bad.bvh: has no MOTION line; it is not a BVH file or was cut short"),
    Case("BVH cut behind MOTION", "import bad.bvh -o out.h5", file("bad.bvh", TWO_JOINTS.partition("Frames")[0]), 65, r"bad.bvh: line 17: 'Frames: ...' was expected, but the file ends; was it cut short\?"),
    Case("BVH cut in its frame time", "import bad.bvh -o out.h5", file("bad.bvh", TWO_JOINTS.partition(" 0.04")[0]), 65, r"bad.bvh: line 18: a number is missing; was the file cut short\?"),
    Case("BVH cut in a row", "import bad.bvh -o out.h5", file("bad.bvh", TWO_JOINTS[:-8]), 65, r"bad.bvh: line 20: has 5 numbers, but the channels need 9; was the file cut short\?"),
    Case("BVH without rows", "import bad.bvh -o out.h5", bvh((ROWS, "")), 65, r"bad.bvh: says 2 frames but has none; was the file cut short\?"),
    Case("BVH of one number too few", "import bad.bvh -o out.h5", bvh(("0 90 0 90", "0 90 90")), 65, r"bad.bvh: line 20: has 8 numbers, but the channels need 9; was the file cut short\?"),
    Case("BVH of one number too many", "import bad.bvh -o out.h5", bvh(("0 90 0 90", "0 90 0 0 90")), 65, r"bad.bvh: line 20: has 10 numbers, but the channels need 9"),
    Case("BVH of one number too many everywhere", "import bad.bvh -o out.h5", bvh(("0 90 0", "0 90 0 0")), 65, r"bad.bvh: line 19: has 10 numbers, but the channels need 9"),
    Case("BVH with nan", "import bad.bvh -o out.h5", bvh(("0 90 0 90", "0 90 nan 90")), 65, r"bad.bvh: line 20: 'nan' is not a number to use here; mend it or leave the file out"),
    Case("BVH with inf", "import bad.bvh -o out.h5", bvh(("0 90 0 90", "0 90 inf 90")), 65, r"bad.bvh: line 20: 'inf' is not a number to use here; mend it or leave the file out"),
    Case("BVH with 1e999", "import bad.bvh -o out.h5", bvh(("0 90 0 90", "0 90 1e999 90")), 65, r"bad.bvh: line 20: '1e999' is not a number to use here; mend it or leave the file out"),
    Case("BVH with 1e300", "import bad.bvh -o out.h5", bvh(("0 90 0 90", "0 90 1e300 90")), 65, r"bad.bvh: line 20: '1e300' is not a number to use here; mend it or leave the file out"),
    Case("BVH with a word among numbers", "import bad.bvh -o out.h5", bvh(("0 90 0 90", "0 90 zero 90")), 65, r"bad.bvh: line 20: 'zero' is not a number to use here; mend it or leave the file out"),
    Case("BVH with a number of underscores", "import bad.bvh -o out.h5", bvh(("0 90 0 90", "0 90 1_0 90")), 65, r"bad.bvh: line 20: '1_0' is not a number to use here; mend it or leave the file out"),
    Case("raw BVH with nan", "import bad.bvh -o out.h5 --layout raw", bvh(("0 90 0 90", "0 90 nan 90")), 65, r"bad.bvh: line 20: 'nan' is not a number to use here; mend it or leave the file out"),
    Case("BVH with a comma as point", "import bad.bvh -o out.h5", bvh(("0 90 0 90", "0 90,5 0 90")), 65, r"bad.bvh: line 20: '90,5' is not a number to use here; mend it or leave the file out"),
    Case("BVH frame time of 0", "import bad.bvh -o out.h5", bvh(("0.04", "0")), 65, r"bad.bvh: line 18: a frame time of 0 s; a positive number was expected"),
    Case("BVH frame time below 0", "import bad.bvh -o out.h5", bvh(("0.04", "-0.04")), 65, r"bad.bvh: line 18: a frame time of -0.04 s; a positive number was expected"),
    Case("BVH frame time nan", "import bad.bvh -o out.h5", bvh(("0.04", "nan")), 65, r"bad.bvh: line 18: 'nan' is not a number to use here"),
    Case("BVH frame time of 400 digits", "import bad.bvh -o out.h5", bvh(("0.04", "0." + "0" * 400)), 65, r"bad.bvh: line 18: Frame Time '0.00000000000000000000000000000000000000'... is too long for a number"),
    Case("BVH frame time in words", "import bad.bvh -o out.h5", bvh(("0.04", "fast")), 65, r"bad.bvh: line 18: 'fast' is not a number to use here"),
    Case("BVH frame time with a far exponent", "import bad.bvh -o out.h5", bvh(("0.04", "1e-999999999")), 65, r"bad.bvh: line 18: a frame time of 1e-999999999 s; a positive number was expected"),
    Case("BVH of -1 frames", "import bad.bvh -o out.h5", bvh(("Frames: 2", "Frames: -1")), 65, r"bad.bvh: line 17: '-1' frames; a number was expected"),
    Case("BVH of frames in words", "import bad.bvh -o out.h5", bvh(("Frames: 2", "Frames: two")), 65, r"bad.bvh: line 17: 'two' frames; a number was expected"),
    Case("BVH of 10^30 frames", "import bad.bvh -o out.h5", bvh(("Frames: 2", "Frames: 1" + 30 * "0")), 65, r"bad.bvh: line 17: '1000000000000000000000000000000' frames; a number was expected"),
    Case("BVH without Frames", "import bad.bvh -o out.h5", bvh(("Frames: 2\n", "")), 65, r"bad.bvh: line 17: 'Frames: ...' was expected, not 'Frame Time'"),
    Case("BVH without Frame Time", "import bad.bvh -o out.h5", bvh(("Frame Time: 0.04\n", "")), 65, r"bad.bvh: line 18: 'Frame Time: ...' was expected, not '0 90 0 0 0 0 0 0 0'"),
    Case("BVH of a brace too few", "import bad.bvh -o out.h5", bvh(("}\nMOTION", "MOTION")), 65, r"bad.bvh: line 14: the HIERARCHY ends with 1 joint open; was it cut short\?"),
    Case("BVH of a brace too many", "import bad.bvh -o out.h5", bvh(("}\nMOTION", "}\n}\nMOTION")), 65, r"bad.bvh: line 16: ROOT was expected, not '\}'"),
    Case("BVH of braces only", "import bad.bvh -o out.h5", file("bad.bvh", "HIERARCHY\n" + "{" * 1000 + "\nMOTION\n"), 65, r"bad.bvh: line 2: ROOT was expected, not '\{'"),
    Case("BVH of a joint without brace", "import bad.bvh -o out.h5", bvh(("JOINT Head\n  {", "JOINT Head\n")), 65, r"bad.bvh: line 8: \{ was expected, not 'OFFSET'"),
    Case("BVH of a channel too many", "import bad.bvh -o out.h5", bvh(("CHANNELS 3", "CHANNELS 4")), 65, r"bad.bvh: line 10: no channel is called 'end'; for example Xposition was expected"),
    Case("BVH of a channel too few", "import bad.bvh -o out.h5", bvh(("CHANNELS 3", "CHANNELS 2")), 65, r"bad.bvh: line 9: 'Yrotation' is out of place"),
    Case("BVH of -3 channels", "import bad.bvh -o out.h5", bvh(("CHANNELS 3", "CHANNELS -3")), 65, r"bad.bvh: line 9: '-3' channels; 0 to 7 were expected"),
    Case("BVH of 10^9 channels", "import bad.bvh -o out.h5", bvh(("CHANNELS 3", "CHANNELS 1000000000")), 65, r"bad.bvh: line 9: '1000000000' channels; 0 to 7 were expected"),
    Case("BVH of an unknown channel", "import bad.bvh -o out.h5", bvh(("Xposition", "Xscale")), 65, r"bad.bvh: line 5: no channel is called 'xscale'; for example Xposition was expected"),
    Case("BVH of a channel twice", "import bad.bvh -o out.h5", bvh(("Xposition", "Yposition")), 65, r"bad.bvh: line 5: channel 'yposition' appears twice in one joint"),
    Case("BVH of channels twice", "import bad.bvh -o out.h5", bvh(("OFFSET 0 10 0", "OFFSET 0 10 0\nCHANNELS 0")), 65, r"bad.bvh: line 10: 'CHANNELS' is out of place"),
    Case("BVH of half a quaternion", "import bad.bvh -o out.h5", bvh(("CHANNELS 3 Zrotation", "CHANNELS 3 Wrotation")), 65, r"bad.bvh: line 9: a quaternion needs Xrotation, Yrotation, Zrotation and Wrotation"),
    Case("BVH of a quaternion of zeros", "import bad.bvh -o out.h5", bvh(("CHANNELS 3 Z", "CHANNELS 4 Wrotation Z"), ("0 0 0\n0", "0 0 0 0\n0"), ("90 0 0 0 0 0\n", "90 0 0 0 0 0 0\n")), 65, r"bad.bvh: row 1 of the motion has a quaternion of zeros: no rotation"),
    Case("BVH of no channels", "import bad.bvh -o out.h5", file("bad.bvh", "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\n}\nMOTION\nFrames: 1\nFrame Time: 0.1\n\n"), 65, r"bad.bvh: has no channels; nothing moves in it"),
    Case("BVH of two roots", "import bad.bvh -o out.h5", bvh(("}\nMOTION", "}\nROOT b\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\nMOTION")), 65, r"bad.bvh: line 16: ROOT 'b' is out of place; one ROOT holds all joints"),
    Case("BVH of a joint for a root", "import bad.bvh -o out.h5", bvh(("ROOT", "JOINT")), 65, r"bad.bvh: line 2: JOINT 'Hips' is out of place; one ROOT holds all joints"),
    Case("BVH of a name twice", "import bad.bvh -o out.h5", bvh(("JOINT Head", "JOINT Hips")), 65, r"bad.bvh: line 6: joint name 'Hips' appears twice; rename one"),
    Case("BVH of a joint without name", "import bad.bvh -o out.h5", bvh(("JOINT Head", "JOINT")), 65, r"bad.bvh: line 8: \{ was expected, not 'OFFSET'"),
    Case("BVH of a name with escapes", "import bad.bvh -o out.h5", bvh(("JOINT Head", "JOINT \x1b[31mHead\u202e"), ("OFFSET 0 10 0\n", "")), 65, r"bad.bvh: joint '\\x1b\[31mHead\\u202e' has no OFFSET; was a line lost\?"),
    Case("BVH of a name of 5000 letters", "import bad.bvh -o out.h5", bvh(("JOINT Head", "JOINT " + FULL_NAME), ("OFFSET 0 10 0\n", "")), 65, r"bad.bvh: joint 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn' has no OFFSET; was a line lost\?"),
    Case("BVH without OFFSET", "import bad.bvh -o out.h5", bvh(("OFFSET 0 10 0\n", "")), 65, r"bad.bvh: joint 'Head' has no OFFSET; was a line lost\?"),
    Case("BVH of an OFFSET of two", "import bad.bvh -o out.h5", bvh(("OFFSET 0 10 0", "OFFSET 0 10")), 65, r"bad.bvh: line 9: 'CHANNELS' is not a number to use here"),
    Case("BVH of an OFFSET of nan", "import bad.bvh -o out.h5", bvh(("OFFSET 0 10 0", "OFFSET 0 nan 0")), 65, r"bad.bvh: line 8: 'nan' is not a number to use here"),
    Case("BVH of text", "import bad.bvh -o out.h5 --format bvh", file("bad.bvh", "once upon a time\n" * 50), 65, r"bad.bvh: has no MOTION line; it is not a BVH file or was cut short"),
    Case("BVH of binary", "import bad.bvh -o out.h5", file("bad.bvh", b"HIERARCHY\n" + bytes(range(256)) * 40), 65, r"bad.bvh: has no MOTION line; it is not a BVH file or was cut short"),
    Case("BVH of NULs", "import bad.bvh -o out.h5 --format bvh", file("bad.bvh", bytes(100_000)), 65, r"bad.bvh: has no MOTION line; it is not a BVH file or was cut short"),
    Case("BVH of UTF-16", "import bad.bvh -o out.h5", file("bad.bvh", TWO_JOINTS.encode("utf-16")), 65, r"bad.bvh: is UTF-16 text; save it as UTF-8"),
    Case("BVH of UTF-16 of that format", "import bad.bvh -o out.h5 --format bvh", file("bad.bvh", TWO_JOINTS.encode("utf-16")), 65, r"bad.bvh: is UTF-16 text; save it as UTF-8"),
    Case("BVH 10,000 deep", "import bad.bvh -o out.h5", file("bad.bvh", "HIERARCHY\nROOT r {\nOFFSET 0 0 0\n" + "".join(f"JOINT j{n} {{\nOFFSET 0 0 0\n" for n in range(10_000)) + "}\n" * 10_001 + "MOTION\n"), 65, r"bad.bvh: line 8194: has more than 4096 joints"),
    Case(
        "BVH of 4,000 joints and 3,000 frames",
        "import bad.bvh -o out.h5",
        lambda folder, good: (folder / "bad.bvh").write_text("HIERARCHY\nROOT r {\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n" + "".join(f"JOINT j{n} {{\nOFFSET 0 0 0\n}}\n" for n in range(4000)) + "}\nMOTION\nFrames: 3000\nFrame Time: 0.1\n" + "0\n" * 3000),
        65,
        r"bad.bvh: has more than 2499 frames; cut it into shorter clips",
    ),
    Case("BVH of one line of 100 MB", "import bad.bvh -o out.h5", lambda folder, good: (folder / "bad.bvh").write_text(TWO_JOINTS.rpartition("0 90 0 90")[0] + "0 " * 50_000_000), 65, r"bad.bvh: line 20: is longer than 1,048,576 bytes; the file is damaged", apart=True),
    Case("BVH of a hierarchy of 100 MB", "import bad.bvh -o out.h5", lambda folder, good: (folder / "bad.bvh").write_text(TWO_JOINTS.replace("MOTION", "x " * 50_000_000 + "\nMOTION")), 65, r"bad.bvh: its HIERARCHY is larger than 8 MiB; it is not a BVH file", apart=True),
    Case("BVH of 100 MB of nothing", "import bad.bvh -o out.h5", lambda folder, good: (folder / "bad.bvh").write_text(TWO_JOINTS.replace("0 90 0 90", " " * 100_000_000 + "x")), 65, r"bad.bvh: line 20: is longer than 1,048,576 bytes; the file is damaged", apart=True),
    Case("BVH of 100 MB of line ends", "import bad.bvh -o out.h5", lambda folder, good: (folder / "bad.bvh").write_text(TWO_JOINTS.replace("0 90 0 90", "\n" * 100_000_000 + "x")), 65, r"bad.bvh: has more than 5000000 frames; cut it into shorter clips", apart=True),
    Case("BVH without hips", "import bad.bvh -o out.h5", bvh(), 65, r"bad.bvh: no hips or shoulders found among the joints \(Hips, Head\); add --facing LEFT_HIP,RIGHT_HIP,LEFT_SHOULDER,RIGHT_SHOULDER, or say none"),
    Case("two BVH of other skeletons", "import in -o out.h5 --layout positions", within("in", both(bvh(), bvh(("Head", "Neck"), name="b.bvh"))), 65, r"in/bad.bvh: has another skeleton than in/b.bvh: it lacks Neck, adds Head; add --group-by-skeleton, or import them apart"),
    Case("two BVH of other rates", "import in -o out.h5 --layout positions", within("in", both(bvh(), bvh(("0.04", "0.05"), name="b.bvh"))), 65, r"in/bad.bvh: has 25 frames a second, but in/b.bvh has 20; add --fps 20 to resample"),
    Case("two BVH of other units", "import in -o out.h5 --layout positions", within("in", both(bvh(("0 10 0", "0 240 0")), bvh(("0 10 0", "0 2.4 0"), name="b.bvh"))), 65, r"in/bad.bvh: was taken for a unit of 0.01 m, but in/b.bvh for 1 m; say which with --units"),
    Case("a skeleton for a body of numbers", "import bad.bvh -o out.h5 --layout kit", bvh(), 2, r"bad.bvh: a skeleton's motion has no layout kit; use --layout joints, positions or raw"),
    Case("resampled beyond memory", "import bad.bvh -o out.h5 --layout positions --fps 99999", bvh(("0.04", "999")), 2, r"bad.bvh: would have 199,798,002 frames at --fps 99999; lower that"),
]

ARRAYS = [
    Case("empty npy", IMPORT, file("bad.npy", ""), 65, r"bad.npy: is empty"),
    Case("empty npy of that format", f"{IMPORT} --format npy", file("bad.npy", ""), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy cut in its header", IMPORT, file("bad.npy", npy_of(np.ones((9, 3)))[:40]), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy cut in its numbers", IMPORT, file("bad.npy", npy_of(np.ones((9, 3)))[:-8]), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy of Python objects", IMPORT, npy("bad.npy", np.array([{"a": 1}], dtype=object)), 65, r"bad.npy: holds Python objects, which may run code; save it as numbers"),
    Case("npy of a pickle", f"{IMPORT} --format npy", file("bad.npy", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy of strings", IMPORT, npy("bad.npy", np.array([["a", "b"]])), 65, r"bad.npy: holds 1x2 <U1; \[T, D\] or \[T, J, 3\] numbers were expected"),
    Case("npy of truth", IMPORT, npy("bad.npy", np.ones((9, 3), bool)), 65, r"bad.npy: holds 9x3 bool; \[T, D\] or \[T, J, 3\] numbers were expected"),
    Case("npy of complex numbers", IMPORT, npy("bad.npy", np.ones((9, 3), complex)), 65, r"bad.npy: holds 9x3 complex128; \[T, D\] or \[T, J, 3\] numbers were expected"),
    Case("npy of times", IMPORT, npy("bad.npy", np.ones((9, 3), "M8[s]")), 65, r"bad.npy: holds 9x3 datetime64\[s\]; \[T, D\] or \[T, J, 3\] numbers were expected"),
    Case("npy of records", IMPORT, npy("bad.npy", np.ones(9, [("x", "f4"), ("y", "f4")])), 65, r"bad.npy: holds 9 \[\('x', '<f4'\), \('y', '<f4'\)\]; \[T, D\] or \[T, J, 3\] numbers were expected"),
    Case("npy of one number", IMPORT, npy("bad.npy", np.float32(3)), 65, r"bad.npy: holds scalar float32; \[T, D\] or \[T, J, 3\] numbers were expected"),
    Case("npy of one row", IMPORT, npy("bad.npy", np.ones(9)), 65, r"bad.npy: holds 9 float64; \[T, D\] or \[T, J, 3\] numbers were expected"),
    Case("npy of four dimensions", IMPORT, npy("bad.npy", np.ones((2, 3, 4, 5))), 65, r"bad.npy: holds 2x3x4x5 float64; \[T, D\] or \[T, J, 3\] numbers were expected"),
    Case("npy of no columns", IMPORT, npy("bad.npy", np.ones((9, 0))), 65, r"bad.npy: has no columns"),
    Case("npy of nan at the start", IMPORT, npy("bad.npy", wrong(0, 0, np.nan)), 65, r"bad.npy frame 0: column 0 is nan; mend the file or leave it out"),
    Case("npy of nan in the middle", IMPORT, npy("bad.npy", wrong(25, 2, np.nan)), 65, r"bad.npy frame 25: column 2 is nan; mend the file or leave it out"),
    Case("npy of infinity at the end", IMPORT, npy("bad.npy", wrong(49, 4, -np.inf)), 65, r"bad.npy frame 49: column 4 is -inf; mend the file or leave it out"),
    Case("npy of nan of Python 2", IMPORT, npy_header("bad.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (1L, 3L)}", np.full(3, np.nan).tobytes()), 65, r"bad.npy frame 0: column 0 is nan; mend the file or leave it out"),
    Case("npy of a signalling nan", IMPORT, npy("bad.npy", np.full((9, 3), 0x7FF0000000000001).view("f8")), 65, r"bad.npy frame 0: column 0 is nan; mend the file or leave it out"),
    Case("npy beyond float32", IMPORT, npy("bad.npy", wrong(7, 1, 1e300)), 65, r"bad.npy frame 7: column 1 is 1e\+300, which float32 does not hold; mend the file or leave it out"),
    Case("npy without a rate", "import bad.npy -o out.h5", npy("bad.npy", np.ones((9, 3))), 2, r"bad.npy: says no frame rate; add --fps, for example --fps 30"),
    Case("npy that is a npz", IMPORT, zipped("bad.npy", {"a.npy": npy_of(np.ones((9, 3)))}), 65, r"bad.npy: does not begin as npy does: it is damaged or of another format; --format names one"),
    Case("npy that is a npz, of that format", f"{IMPORT} --format npy", zipped("bad.npy", {"a.npy": npy_of(np.ones((9, 3)))}), 65, r"bad.npy: is not a npy file; name it .npz"),
    Case("npy of too many rows", IMPORT, npy_header("bad.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3)}"), 65, r"bad.npy: declares 1000000000000x3 float32, but ends before; copy it again"),
    Case("npy of too many columns", IMPORT, npy_header("bad.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1000000000000)}"), 65, r"bad.npy: declares 1x1000000000000 float32, but ends before; copy it again"),
    Case("npy of more than any number", IMPORT, npy_header("bad.npy", f"{{'descr': '<f4', 'fortran_order': False, 'shape': (1{'0' * 100}, 3)}}"), 65, r"bad.npy: declares 10000000000000000000000000000000000000000000000000000000000000000000000000000000 float32, but ends before; copy it again"),
    Case("npy of a shape below 0", IMPORT, npy_header("bad.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}"), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy of rows without end and no columns", IMPORT, npy_header("bad.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 0)}"), 65, r"bad.npy: has no columns"),
    Case("npy of a shape of words", IMPORT, npy_header("bad.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 3)}"), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy of an unknown type", IMPORT, npy_header("bad.npy", "{'descr': 'q9', 'fortran_order': False, 'shape': (1, 3)}"), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy of code in its header", IMPORT, npy_header("bad.npy", "__import__('os').system('touch pwned')"), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy of brackets", IMPORT, npy_header("bad.npy", "(" * 9000), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)", apart=True),
    Case("npy of a header too long", IMPORT, npy_header("bad.npy", " " * 60000), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy of an unknown version", IMPORT, file("bad.npy", b"\x93NUMPY\x09\x00" + b"\0" * 100), 65, r"bad.npy: is not a readable npy file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npy of 10^8 columns", IMPORT, lambda folder, good: np.lib.format.open_memmap(folder / "bad.npy", "w+", "f4", (1, 100_000_000)), 65, r"bad.npy: has 100,000,000 columns; motion has at most 1,048,576"),
    Case("npy of 5 GB of holes", IMPORT, lambda folder, good: np.lib.format.open_memmap(folder / "bad.npy", "w+", "f4", (500_000_000, 3)), 65, r"bad.npy: is larger than 4 GiB; cut it into clips"),
    Case("two npy of other columns", "import in -o out.h5 --fps 30", within("in", both(npy("a.npy", np.ones((9, 3))), npy("b.npy", np.ones((9, 4))))), 65, r"in/b.npy: has 4 columns \(raw\), but in/a.npy has 3 columns \(raw\); import them apart"),
    Case("npy as joints", f"{IMPORT} --layout joints", npy("bad.npy", np.ones((9, 5))), 2, r"bad.npy: holds raw data, from which --layout joints cannot be made; leave --layout out"),
    Case("npy as HumanML3D", f"{IMPORT} --layout humanml3d", npy("bad.npy", np.ones((9, 5))), 65, r"bad.npy: has 5 columns, which is not the layout humanml3d; leave --layout out"),
    Case("empty npz", "import bad.npz -o out.h5", file("bad.npz", ""), 65, r"bad.npz: is empty"),
    Case("npz of nothing", "import bad.npz -o out.h5 --fps 30", zipped("bad.npz", {}), 65, r"bad.npz: holds no array \[T, D\] or \[T, J, 3\] of numbers; it holds no array"),
    Case("npz of text", "import bad.npz -o out.h5 --fps 30", zipped("bad.npz", {"a.txt": b"hi"}), 65, r"bad.npz: holds no array \[T, D\] or \[T, J, 3\] of numbers; it holds no array"),
    Case("npz of text called npy", "import bad.npz -o out.h5 --fps 30", zipped("bad.npz", {"a.npy": b"hi"}), 65, r"bad.npz: is not a readable npz file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("npz cut off", "import bad.npz -o out.h5 --fps 30", lambda folder, good: (npz("a.npz", a=np.ones((9, 3)))(folder, good), (folder / "bad.npz").write_bytes((folder / "a.npz").read_bytes()[:200])), 65, r"bad.npz: is not a readable npz file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case(
        "npz of a bit flipped",
        "import bad.npz -o out.h5 --fps 30",
        lambda folder, good: (npz("bad.npz", a=np.ones((9, 3)))(folder, good), (folder / "bad.npz").write_bytes(flip(0.4)((folder / "bad.npz").read_bytes()))),
        65,
        r"bad.npz: is not a readable npz file \(damaged, cut off, or of another kind; save it again as numbers\)",
    ),
    Case("npz of pickles", "import bad.npz -o out.h5 --fps 30", zipped("bad.npz", {"a.npy": npy_of(np.array([[{"a": 1}]], dtype=object))}), 65, r"bad.npz: holds no array \[T, D\] or \[T, J, 3\] of numbers; it holds a \(Python objects\)"),
    Case("npz of names outside", "import bad.npz -o out.h5 --fps 30", zipped("bad.npz", {"../../pwned.npy": npy_of(np.full((9, 3), np.nan))}), 65, r"bad.npz:../../pwned frame 0: column 0 is nan; mend the file or leave it out"),
    Case("npz of names with escapes", "import bad.npz -o out.h5 --fps 30", zipped("bad.npz", {"\x1b[31m\n.npy": npy_of(np.full((9, 3), np.nan))}), 65, r"bad.npz:\\x1b\[31m\\n frame 0: column 0 is nan; mend the file or leave it out"),
    Case("npz of a name of 5000 letters", "import bad.npz -o out.h5 --fps 30", zipped("bad.npz", {FULL_NAME + ".npy": npy_of(np.ones((9, 3))), "b.npy": npy_of(np.ones((9, 3)))}), 65, r"bad.npz:n+ clip bad/n+: a clip name has 1 to 4096 bytes and no NUL; rename it"),
    Case("npz of an array that is not there", "import bad.npz -o out.h5 --fps 30 --dataset b", npz("bad.npz", a=np.ones((9, 3))), 65, r"bad.npz: holds no array \[T, D\] or \[T, J, 3\] of numbers that matches --dataset 'b'; it holds a \(9x3\)"),
    Case("npz of a rate of 0", "import bad.npz -o out.h5", npz("bad.npz", a=np.ones((9, 3)), fps=0), 65, r"bad.npz: has fps 0; a positive number was expected"),
    Case("npz of a rate in words", "import bad.npz -o out.h5", npz("bad.npz", a=np.ones((9, 3)), fps=np.array("fast")), 65, r"bad.npz: has fps fast; a positive number was expected"),
    Case("npz of a rate of objects", "import bad.npz -o out.h5", zipped("bad.npz", {"a.npy": npy_of(np.ones((9, 3))), "fps.npy": npy_of(np.array({}, dtype=object))}), 2, r"bad.npz:a: says no frame rate; add --fps, for example --fps 30"),
    Case("npz of other widths", "import bad.npz -o out.h5", npz("bad.npz", a=np.ones((9, 3)), b=np.ones((9, 4)), fps=30), 65, r"bad.npz:b: has 4 columns \(raw\), but bad.npz:a has 3 columns \(raw\); import them apart"),
    Case("npz of strings", "import bad.npz -o out.h5", npz("bad.npz", a=np.array([["a", "b"]]), fps=30), 65, r"bad.npz:a: holds 1x2 <U1; \[T, D\] or \[T, J, 3\] numbers were expected"),
    Case("npz that declares more than it holds", "import bad.npz -o out.h5 --fps 30", zipped("bad.npz", {"a.npy": npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 3)}")}), 65, r"bad.npz:a: declares 1000000000x3 float32, but ends before; the file is damaged"),
    Case("npz bomb of rows", "import bad.npz -o out.h5 --fps 30", zip_bomb("bad.npz", 50_000_000, 5), 65, r"bad.npz:a: would grow from 972,038 to 1,000,000,000 bytes, as only zeros do; write it again without compression", apart=True),
    Case("npz bomb of columns", "import bad.npz -o out.h5 --fps 30", zip_bomb("bad.npz", 1, 250_000_000), 65, r"bad.npz:a: has 250,000,000 columns; motion has at most 1,048,576", apart=True),
    Case("npz of 2,000 arrays", "import bad.npz -o out.h5 --fps 30", zipped("bad.npz", {f"{n}.npy": b"" for n in range(2_000)}), 65, r"bad.npz: is not a readable npz file \(damaged, cut off, or of another kind; save it again as numbers\)"),
    Case("AMASS without a skeleton", "import bad.npz -o out.h5", npz("bad.npz", poses=np.zeros((9, 156)), trans=np.zeros((9, 3)), mocap_framerate=30), 2, r"bad.npz: holds rotations but no joint offsets; add --skeleton rest.bvh, or --layout raw"),
    Case("AMASS of other widths", "import bad.npz -o out.h5 --layout raw", npz("bad.npz", poses=np.zeros((9, 99)), trans=np.zeros((9, 3)), mocap_framerate=30), 65, r"bad.npz: has poses \(9, 99\) float64 and trans \(9, 3\) float64; floats \[T, 72 or 156 or 165\] and \[T, 3\] were expected"),
    Case("AMASS of other lengths", "import bad.npz -o out.h5 --layout raw", npz("bad.npz", poses=np.zeros((9, 156)), trans=np.zeros((8, 3)), mocap_framerate=30), 65, r"bad.npz: has poses \(9, 156\) float64 and trans \(8, 3\) float64; floats \[T, 72 or 156 or 165\] and \[T, 3\] were expected"),
    Case("AMASS of integers", "import bad.npz -o out.h5 --layout raw", npz("bad.npz", poses=np.zeros((9, 156), int), trans=np.zeros((9, 3), int), mocap_framerate=30), 65, r"bad.npz: has poses \(9, 156\) int64 and trans \(9, 3\) int64; floats \[T, 72 or 156 or 165\] and \[T, 3\] were expected"),
    Case(
        "AMASS of nan",
        "import bad.npz -o out.h5 --skeleton a.bvh --units m",
        both(npz("bad.npz", poses=np.full((9, 156), np.nan), trans=np.zeros((9, 3)), mocap_framerate=30), bvh(("Hips", "Pelvis"), ("Head", "L_Hip"), name="a.bvh")),
        65,
        r"bad.npz:poses frame 0: holds NaN, infinity or more than 1e\+09; mend the file or leave it out",
    ),
    Case("AMASS without a rate", "import bad.npz -o out.h5 --skeleton a.bvh --units m", both(npz("bad.npz", poses=np.zeros((9, 156)), trans=np.zeros((9, 3))), bvh(("Hips", "Pelvis"), ("Head", "L_Hip"), name="a.bvh")), 65, r"bad.npz: says no frame rate; add mocap_framerate to the file"),
    Case("AMASS of a rate below 0", "import bad.npz -o out.h5 --layout raw", npz("bad.npz", poses=np.zeros((9, 156)), trans=np.zeros((9, 3)), mocap_framerate=-30), 65, r"bad.npz: has mocap_framerate -30; a positive number was expected"),
    Case(
        "AMASS with another body",
        "import bad.npz -o out.h5 --skeleton a.bvh",
        both(npz("bad.npz", poses=np.zeros((9, 156)), trans=np.zeros((9, 3)), mocap_framerate=30), bvh(name="a.bvh")),
        2,
        r"bad.npz: --skeleton has a joint 'Hips'; the file has pelvis, left_hip, right_hip, spine1, left_knee, right_knee, spine2, left_ankle, right_ankle, spine3, left_foot, right_foot, neck, left_collar, right_collar, head, left_shoulder, right_shoulder, left_elbow, right_elbow, left_wrist, right_wrist and 30 more",
    ),
    Case("AMASS of another format", "import bad.npz -o out.h5 --format amass", npz("bad.npz", a=np.ones((9, 3)), fps=30), 65, r"bad.npz: holds no clip; is it of another format than amass\?"),
    Case("AMASS with a broken skeleton", "import bad.npz -o out.h5 --skeleton bad.bvh", both(npz("bad.npz", poses=np.zeros((9, 156)), trans=np.zeros((9, 3)), mocap_framerate=30), file("bad.bvh", "HIERARCHY")), 65, r"bad.bvh: has no MOTION line; it is not a BVH file or was cut short"),
    Case(
        "a huge body of AMASS",
        "import bad.npz -o out.h5 --skeleton a.bvh --units m",
        both(npz("bad.npz", poses=np.full((9, 156), 1e200), trans=np.full((9, 3), 1e200), mocap_framerate=30), bvh(("Hips", "Pelvis"), ("Head", "L_Hip"), name="a.bvh")),
        65,
        r"bad.npz:poses frame 0: holds NaN, infinity or more than 1e\+09; mend the file or leave it out",
    ),
]

CSV = [
    Case("empty CSV", "import bad.csv -o out.h5 --fps 30", file("bad.csv", ""), 65, r"bad.csv: is empty"),
    Case("empty CSV of that format", "import bad.csv -o out.h5 --fps 30 --format csv", file("bad.csv", ""), 65, r"bad.csv: is empty"),
    Case("CSV of text", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "once upon a time\nthere was\n"), 65, r"bad.csv: does not begin as CSV does: it is damaged or of another format; --format names one"),
    Case("CSV of text of that format", "import bad.csv -o out.h5 --fps 30 --format csv", file("bad.csv", "once upon a time\nthere was\n"), 65, r"bad.csv: line 2: 'there was' is not a number to use here; mend it or leave the file out"),
    Case("CSV of a short line", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "x,y\n1,2\n3\n"), 65, r"bad.csv: line 3: has 1 number, but line 1 has 2; was the file cut short\?"),
    Case("CSV of a long line", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "x,y\n1,2\n3,4,5\n"), 65, r"bad.csv: line 3: has 3 numbers, but line 1 has 2"),
    Case("CSV of more numbers than names", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "x,y\n1,2,3\n3,4,5\n"), 65, r"bad.csv: line 2: has 3 numbers, but line 1 has 2"),
    Case("CSV with a word", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "x,y\n1,2\n3,left\n"), 65, r"bad.csv: line 3: 'left' is not a number to use here; mend it or leave the file out"),
    Case("CSV with an empty field", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "x,y\n1,2\n3,\n"), 65, r"bad.csv: line 3: '' is not a number to use here; mend it or leave the file out"),
    Case("CSV with nan", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "x,y\n1,2\n3,nan\n"), 65, r"bad.csv frame 1: column 1 is nan; mend the file or leave it out"),
    Case("CSV with 1e999", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "1,2\n3,1e999\n"), 65, r"bad.csv frame 1: column 1 is inf; mend the file or leave it out"),
    Case("CSV with 1e300", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "1,2\n3,-1e300\n"), 65, r"bad.csv frame 1: column 1 is -1e\+300, which float32 does not hold; mend the file or leave it out"),
    Case("CSV with complex numbers", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "1,2\n3,1+2j\n"), 65, r"bad.csv: line 2: '1\+2j' is not a number to use here; mend it or leave the file out"),
    Case("CSV with decimal commas", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "x;y\n1,5;2,5\n3,5;4,5\n"), 65, r"bad.csv: does not begin as CSV does: it is damaged or of another format; --format names one"),
    Case("CSV of times that stand still", "import bad.csv -o out.h5", file("bad.csv", "time,x\n0,1\n0,2\n0,3\n"), 65, r"bad.csv: its times do not rise from row 1 to the next; sort or mend it"),
    Case("CSV of times that fall", "import bad.csv -o out.h5", file("bad.csv", "time,x\n0,1\n1,2\n0.5,3\n"), 65, r"bad.csv: its times do not rise from row 2 to the next; sort or mend it"),
    Case("CSV of times of nan", "import bad.csv -o out.h5", file("bad.csv", "time,x\n0,1\nnan,2\n2,3\n"), 65, r"bad.csv: its times do not rise from row 1 to the next; sort or mend it"),
    Case("CSV of times far apart", "import bad.csv -o out.h5", file("bad.csv", "time,x\n0,1\n1e300,2\n"), 65, r"bad.csv: has 1e-300 frames a second; 0.001 to 100,000 were expected"),
    Case("CSV of times close together", "import bad.csv -o out.h5", file("bad.csv", "time,x\n0,1\n1e-300,2\n"), 65, r"bad.csv: has 1e\+300 frames a second; 0.001 to 100,000 were expected"),
    Case("CSV of times of infinity", "import bad.csv -o out.h5", file("bad.csv", "time,x\n0,1\ninf,2\ninf,3\n"), 65, r"bad.csv: its times do not rise from row 1 to the next; sort or mend it"),
    Case("CSV of times of almost nothing", "import bad.csv -o out.h5", file("bad.csv", "time,x\n0,1\n5e-324,2\n"), 65, r"bad.csv: has inf frames a second; 0.001 to 100,000 were expected"),
    Case("CSV of infinity resampled", "import bad.csv -o out.h5 --fps 60", file("bad.csv", "time,x\n0,1\n0.1,inf\n0.2,3\n"), 65, r"bad.csv frame 1: column 0 is inf; mend the file or leave it out"),
    Case("CSV of one row and a time", "import bad.csv -o out.h5", file("bad.csv", "time,x\n0,1\n"), 2, r"bad.csv: says no frame rate; add --fps, for example --fps 30"),
    Case("CSV without a rate", "import bad.csv -o out.h5", file("bad.csv", "1,2\n3,4\n"), 2, r"bad.csv: says no frame rate; add --fps, for example --fps 30"),
    Case("CSV of binary", "import bad.csv -o out.h5 --fps 30 --format csv", file("bad.csv", bytes(range(256)) * 40), 65, r"bad.csv: line 1: holds a NUL; is this another kind of file, or UTF-16\?"),
    Case("CSV of UTF-16", "import bad.csv -o out.h5 --fps 30", file("bad.csv", "1,2\n3,4\n".encode("utf-16")), 65, r"bad.csv: is UTF-16 text; save it as UTF-8"),
    Case("CSV of UTF-16 of that format", "import bad.csv -o out.h5 --fps 30 --format csv", file("bad.csv", "1,2\n3,4\n".encode("utf-16")), 65, r"bad.csv: is UTF-16 text; save it as UTF-8"),
    Case("CSV of NULs", "import bad.csv -o out.h5 --fps 30 --format csv", file("bad.csv", bytes(1000)), 65, r"bad.csv: line 1: holds a NUL; is this another kind of file, or UTF-16\?"),
    Case("CSV of one line of 100 MB", "import bad.csv -o out.h5 --fps 30", lambda folder, good: (folder / "bad.csv").write_text("0," * 50_000_000 + "0\n"), 65, r"bad.csv: does not begin as CSV does: it is damaged or of another format; --format names one", apart=True),
    Case("CSV of 100 MB of one word", "import bad.csv -o out.h5 --fps 30 --format csv", lambda folder, good: (folder / "bad.csv").write_text("0" * 100_000_000), 65, r"bad.csv: line 1: is longer than 1,048,576 bytes; the file is damaged", apart=True),
    Case("CSV of 100 MB of line ends", "import bad.csv -o out.h5 --fps 30", lambda folder, good: (folder / "bad.csv").write_text("1,2\n" + "\n" * 100_000_000 + "x"), 65, r"bad.csv: line 100000002: has 1 number, but line 1 has 2; was the file cut short\?", apart=True),
    Case("CSV with a bad line far down", "import bad.csv -o out.h5 --fps 30", lambda folder, good: (folder / "bad.csv").write_text("1,2,3,4,5,6,7,8,9\n" * 200_000 + "x"), 65, r"bad.csv: line 200001: has 1 number, but line 1 has 9; was the file cut short\?", apart=True),
]

HUMANML3D = "in/new_joint_vecs"
FOLDERS = [
    Case("HumanML3D of nothing", "import in -o out.h5", folder(HUMANML3D), 65, r"in: holds no new_joint_vecs/\*.npy"),
    Case("HumanML3D of other columns", "import in -o out.h5", within(HUMANML3D, npy("a.npy", np.zeros((9, 99), "f4"))), 65, r"in/new_joint_vecs/a.npy: holds 9x99 float32; \[T, 263\] or \[T, 251\] floats were expected"),
    Case("HumanML3D of integers", "import in -o out.h5", within(HUMANML3D, npy("a.npy", np.zeros((9, 263), int))), 65, r"in/new_joint_vecs/a.npy: holds 9x263 int64; \[T, 263\] or \[T, 251\] floats were expected"),
    Case("HumanML3D of positions", "import in -o out.h5", within(HUMANML3D, npy("a.npy", np.zeros((9, 22, 3), "f4"))), 65, r"in/new_joint_vecs/a.npy: holds 9x22x3 float32; \[T, 263\] or \[T, 251\] floats were expected"),
    Case("HumanML3D of objects", "import in -o out.h5", within(HUMANML3D, npy("a.npy", np.array([[{}]]))), 65, r"in/new_joint_vecs/a.npy: holds Python objects, which may run code; save it as numbers"),
    Case("HumanML3D of nan", "import in -o out.h5", within(HUMANML3D, npy("a.npy", np.full((9, 263), np.nan, "f4"))), 65, r"in/new_joint_vecs/a.npy frame 0: column 0 is nan; mend the file or leave it out"),
    Case("HumanML3D of infinity as positions", "import in -o out.h5 --layout positions", within(HUMANML3D, npy("a.npy", np.full((9, 263), np.inf, "f4"))), 65, r"in/new_joint_vecs/a.npy frame 0: column 0 is inf; mend the file or leave it out"),
    Case("HumanML3D of both kinds", "import in -o out.h5", within(HUMANML3D, both(npy("a.npy", np.zeros((9, 263), "f4")), npy("b.npy", np.zeros((9, 251), "f4")))), 65, r"in/new_joint_vecs/b.npy: has 251 columns \(kit\), but in/new_joint_vecs/a.npy has 263 columns \(humanml3d\); import them apart"),
    Case("HumanML3D resampled", "import in -o out.h5 --fps 30", within(HUMANML3D, npy("a.npy", np.zeros((9, 263), "f4"))), 2, r"in/new_joint_vecs/a.npy: such features of 20 frames a second cannot be resampled; leave --fps out"),
    Case("HumanML3D as joints", "import in -o out.h5 --layout joints", within(HUMANML3D, npy("a.npy", np.zeros((9, 263), "f4"))), 2, r"in/new_joint_vecs/a.npy: holds humanml3d data, from which --layout joints cannot be made; leave --layout out"),
    Case("HumanML3D with captions that are none", "import in -o out.h5", both(within(HUMANML3D, npy("a.npy", np.zeros((9, 263), "f4"))), within("in/texts", file("a.txt", "walks#a/DET#zero#0.0\n"))), 65, r"in/texts/a.txt: line 1: 'caption#words#start#end' was expected"),
    Case("HumanML3D with captions without end", "import in -o out.h5", both(within(HUMANML3D, npy("a.npy", np.zeros((9, 263), "f4"))), within("in/texts", file("a.txt", "walks#a/DET#0.0#inf\n"))), 65, r"in/texts/a.txt: line 1: starts or ends at infinity; write 0.0#0.0 for the whole clip"),
    Case("HumanML3D with a caption that is a pipe", "import in -o out.h5", both(within(HUMANML3D, npy("a.npy", np.zeros((9, 263), "f4"))), within("in/texts", fifo("a.txt"))), 65, r"in/texts/a.txt: is not a file but a device, a pipe or a socket; name a file", apart=True),
    Case("HumanML3D with a list that is a folder", "import in -o out.h5", both(within(HUMANML3D, npy("a.npy", np.zeros((9, 263), "f4"))), folder("in/train.txt")), 65, r"in/train.txt: is a folder; name a file"),
    Case("HumanML3D with other statistics", "import in -o out.h5", both(within(HUMANML3D, npy("a.npy", np.zeros((9, 263), "f4"))), within("in", both(npy("Mean.npy", np.zeros(9)), npy("Std.npy", np.zeros(9))))), 65, r"in/Mean.npy: holds \(9,\) float64; 263 finite floats were expected; mend or remove it"),
    Case("HumanML3D with statistics of nan", "import in -o out.h5", both(within(HUMANML3D, npy("a.npy", np.zeros((9, 263), "f4"))), within("in", both(npy("Mean.npy", np.zeros(263)), npy("Std.npy", np.full(263, np.nan))))), 65, r"in/Std.npy: holds \(263,\) float64; 263 finite floats were expected; mend or remove it"),
    Case("HumanML3D of that format that is a file", "import bad -o out.h5 --format humanml3d", file("bad", "x"), 65, r"bad: holds no new_joint_vecs/\*.npy"),
    Case("HumanML3D of that format that is none", "import in -o out.h5 --format humanml3d", folder("in"), 65, r"in: holds no new_joint_vecs/\*.npy"),
    Case("LeRobot of nothing", "import in -o out.h5", both(within("in/meta", file("info.json", '{"fps": 30}')), folder("in/data")), 65, r"in: holds no data/\*\*/\*.parquet"),
    Case("LeRobot with broken JSON", "import in -o out.h5", both(within("in/meta", file("info.json", '{"fps": ')), folder("in/data")), 65, r"in/meta/info.json: is not the JSON of a LeRobot data set"),
    Case("LeRobot with other JSON", "import in -o out.h5", both(within("in/meta", file("info.json", "[1]")), folder("in/data")), 65, r"in/meta/info.json: is not the JSON of a LeRobot data set"),
    Case("LeRobot with JSON of brackets", "import in -o out.h5", both(within("in/meta", file("info.json", "[" * 100_000)), folder("in/data")), 65, r"in/meta/info.json: is not the JSON of a LeRobot data set"),
    Case("LeRobot with binary for JSON", "import in -o out.h5", both(within("in/meta", file("info.json", bytes(range(256)))), folder("in/data")), 65, r"in/meta/info.json: is not the JSON of a LeRobot data set"),
    Case("LeRobot with 100 MB for JSON", "import in -o out.h5", both(within("in/meta", lambda folder, good: (folder / "info.json").write_text("[" + "1," * 50_000_000 + "1]")), folder("in/data")), 65, r"in/meta/info.json: is larger than 16,777,216 bytes, the most that is read of such a file", apart=True),
    Case("LeRobot of that format that is none", "import in -o out.h5 --format lerobot", folder("in"), 66, r"in/meta/info.json: no such file"),
    Case("LeRobot with broken parquet", "import in -o out.h5", both(within("in/meta", file("info.json", '{"fps": 30}')), within("in/data", file("a.parquet", "PAR1 and no more"))), 65, r"in/data/a.parquet: is not a readable parquet file", skip=NO_PARQUET),
    Case("LeRobot without actions", "import in -o out.h5", lerobot(episode_index=[0, 0], x=[[1.0], [2.0]]), 65, r"in/data/a.parquet: has no column 'action'; choose with --dataset among episode_index, x", skip=NO_PARQUET),
    Case("LeRobot without episodes", "import in -o out.h5", lerobot(action=[[1.0], [2.0]]), 65, r"in/data/a.parquet: has no column 'episode_index'; it has action", skip=NO_PARQUET),
    Case("LeRobot of episodes in words", "import in -o out.h5", lerobot(episode_index=["a", "b"], action=[[1.0], [2.0]]), 65, r"in/data/a.parquet:episode_index: holds no whole numbers", skip=NO_PARQUET),
    Case("LeRobot of episodes in pieces", "import in -o out.h5", lerobot(episode_index=[0, 1, 0], action=[[1.0], [2.0], [3.0]]), 65, r"in/data/a.parquet:episode_index: episode 0 lies in several pieces; sort the rows", skip=NO_PARQUET),
    Case("LeRobot of actions of two widths", "import in -o out.h5", lerobot(episode_index=[0, 0], action=[[1.0], [2.0, 3.0]]), 65, r"in/data/a.parquet:action: does not hold as many numbers in each row", skip=NO_PARQUET),
    Case("LeRobot of actions in words", "import in -o out.h5", lerobot(episode_index=[0, 0], action=["a", "b"]), 65, r"in/data/a.parquet:action: does not hold as many numbers in each row", skip=NO_PARQUET),
    Case("LeRobot of nan", "import in -o out.h5", lerobot(episode_index=[0, 0, 1], action=[[1.0], [2.0], [float("nan")]]), 65, r"in/data/a.parquet:episode 1 frame 0: column 0 is nan; mend the file or leave it out", skip=NO_PARQUET),
]

HDF5 = [
    Case("empty HDF5", STATS_FPS, file("bad.h5", ""), 65, UNREADABLE),
    Case("empty HDF5 to import", "import bad.h5 -o out.h5", file("bad.h5", ""), 65, r"bad.h5: is empty"),
    Case("empty HDF5 to import as such", "import bad.h5 -o out.h5 --format hdf5", file("bad.h5", ""), 65, UNREADABLE),
    Case("text as HDF5", "encode RUN bad.h5 -o out.h5", file("bad.h5", "once upon a time\n" * 99), 65, UNREADABLE),
    Case("a picture as HDF5", "train bad.h5 -o run", file("bad.h5", b"\x89PNG\r\n\x1a\n" + bytes(999)), 65, UNREADABLE),
    Case("the signature of HDF5 only", STATS_FPS, file("bad.h5", b"\x89HDF\r\n\x1a\n"), 65, UNREADABLE),
    Case("the signature of HDF5 and noise", "import bad.h5 -o out.h5", file("bad.h5", b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 9), 65, UNREADABLE),
    *[Case(f"motion.h5 cut at {share:.1%}", "stats bad.h5", changed("bad.h5", "MOTION", cut(share)), 65, UNREADABLE) for share in (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999)],
    Case("a bit flipped in motion.h5", "encode RUN bad.h5 -o out.h5", changed("bad.h5", "MOTION", flip(0.5)), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("a bit flipped in motion.h5 to train on", "train bad.h5 -o run -q", changed("bad.h5", "MOTION", flip(0.5)), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("a bit flipped in motion.h5 to validate", "validate bad.h5 --min-frames 0", changed("bad.h5", "MOTION", flip(0.5)), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again", stdout=True),
    Case("a bit flipped in motion.h5 to export", "export bad.h5 -o out --format npy", changed("bad.h5", "MOTION", flip(0.5)), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("a bit flipped in motion.h5 to evaluate", "evaluate RUN bad.h5", changed("bad.h5", "MOTION", flip(0.5)), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("HDF5 of nothing", STATS_FPS, h5("bad.h5"), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, and no links are followed"),
    Case("HDF5 of nothing to import", "import bad.h5 -o out.h5", h5("bad.h5"), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, and no links are followed"),
    Case("HDF5 of groups", STATS_FPS, h5("bad.h5", lambda f: f.create_group("a/b/c")), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, and no links are followed"),
    Case("HDF5 of lists", STATS_FPS, h5("bad.h5", {"a": np.ones(9), "b": np.ones((2, 3, 4, 5))}), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, but a \(9 float64\), b \(2x3x4x5 float64\)"),
    Case("HDF5 of a number", STATS_FPS, h5("bad.h5", {"a": 3.0}), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, but a \(scalar float64\)"),
    Case("HDF5 of no shape", STATS_FPS, h5("bad.h5", {"a": h5py.Empty("f4")}), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, but a \(empty float32\)"),
    Case("HDF5 of external storage", STATS_FPS, h5("bad.h5", external), 65, r"bad.h5:/a: keeps its data in another file; copy it into this one \(h5repack\)"),
    Case("HDF5 of external storage to import", "import bad.h5 -o out.h5 --fps 30", h5("bad.h5", external), 65, r"bad.h5:/a: keeps its data in another file; copy it into this one \(h5repack\)"),
    Case("HDF5 of an external link", STATS_FPS, h5("bad.h5", external_link), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, and no links are followed"),
    Case("HDF5 of a virtual dataset", "train bad.h5 -o run --fps 30", h5("bad.h5", virtual), 65, r"bad.h5:/a: keeps its data in another file; copy it into this one \(h5repack\)"),
    Case("HDF5 of a soft link to nothing", STATS_FPS, h5("bad.h5", {"a": h5py.SoftLink("/none")}), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, and no links are followed"),
    Case("HDF5 of a soft link to itself", STATS_FPS, h5("bad.h5", {"a": h5py.SoftLink("/a")}), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, and no links are followed"),
    Case("HDF5 of groups in a circle", STATS_FPS, h5("bad.h5", cycle), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, and no links are followed"),
    Case("HDF5 of groups 100 deep", STATS_FPS, h5("bad.h5", deep(100)), 65, r"bad.h5:/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g: has groups more than 32 deep"),
    Case("HDF5 of groups 10,000 deep", "import bad.h5 -o out.h5 --fps 30", h5("bad.h5", deep(10_000)), 65, r"bad.h5:/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g/g: has groups more than 32 deep", apart=True),
    Case("HDF5 of numbers never written", STATS_FPS, h5("bad.h5", declared((1000, 3))), 65, r"bad.h5:/a: declares more data than the file holds; the file is damaged"),
    Case("HDF5 of 10^12 rows never written", "encode RUN bad.h5 -o out.h5 --fps 30", h5("bad.h5", declared((10**12, 5))), 65, r"bad.h5:/a: declares more data than the file holds; the file is damaged"),
    Case("HDF5 of chunks never written", STATS_FPS, h5("bad.h5", declared((10**9, 3), chunks=(1000, 3))), 65, r"bad.h5:/a: has parts that were never written; write it again"),
    Case("HDF5 of compressed chunks never written", "import bad.h5 -o out.h5 --fps 30", h5("bad.h5", declared((10**9, 3), chunks=(1000, 3), compression="gzip")), 65, r"bad.h5:/a: has parts that were never written; write it again"),
    Case("HDF5 of 10^18 rows and no columns", STATS_FPS, h5("bad.h5", declared((10**18, 0))), 65, r"bad.h5: its clips have no columns"),
    Case("HDF5 of no rows and 10^12 columns", STATS_FPS, h5("bad.h5", declared((0, 10**12))), 65, r"bad.h5:/a: has rows of [\d.]+ GiB; at most 16 MiB are read"),
    Case("HDF5 of no columns", "train bad.h5 -o run --fps 30", h5("bad.h5", {"a": np.ones((9, 0))}), 65, r"bad.h5: its clips have no columns"),
    Case("gzip bomb of one row", STATS_FPS, h5("bad.h5", gzip_bomb((1, 10**9), (1, 10**8))), 65, r"bad.h5:/a: has rows of [\d.]+ GiB; at most 16 MiB are read", apart=True),
    Case("gzip bomb of one row to import", "import bad.h5 -o out.h5 --fps 30", h5("bad.h5", gzip_bomb((1, 10**9), (1, 10**8))), 65, r"bad.h5:/a: has rows of [\d.]+ GiB; at most 16 MiB are read", apart=True),
    Case("gzip bomb of one chunk", "encode RUN bad.h5 -o out.h5 --fps 30", h5("bad.h5", gzip_bomb((10**8, 5), (10**8, 5))), 65, r"bad.h5:/a: has chunks of 1.863 GiB; at most 128 MiB are read, so rewrite it \(h5repack\)", apart=True),
    Case("gzip bomb of many rows", "import bad.h5 -o out.h5 --fps 30", h5("bad.h5", gzip_bomb((2 * 10**8, 5), (10**6, 5))), 65, r"bad.h5:/a: would grow from 3,890,600 to 4,000,000,000 bytes, as only zeros do; write it again without compression", apart=True),
    Case("gzip bomb of many rows to validate", "validate bad.h5 --fps 30", h5("bad.h5", gzip_bomb((2 * 10**8, 5), (10**6, 5))), 65, r"bad.h5:/a: would grow from 3,890,600 to 4,000,000,000 bytes, as only zeros do; write it again without compression", apart=True, stdout=True),
    Case(
        "gzip bomb in motion.h5", "train bad.h5 -o run", edited("bad.h5", "MOTION", lambda f: (gzip_bomb((10**8, 5), (10**6, 5), "frames")(f), f["offsets"].__setitem__(12, 10**8))), 65, r"bad.h5:/frames: would grow from 1,945,300 to 2,000,000,000 bytes, as only zeros do; write it again without compression", apart=True
    ),
    Case("gzip bomb of columns in motion.h5", "stats bad.h5", edited("bad.h5", "MOTION", gzip_bomb((918, 10**6), (1, 10**6), "frames")), 65, r"bad.h5:/frames: would grow from 3,578,364 to 3,672,000,000 bytes, as only zeros do; write it again without compression", apart=True),
    Case("HDF5 of an unknown filter", STATS_FPS, h5("bad.h5", filtered(32015)), 65, r"bad.h5:/a: needs the filter number 32015; rewrite it with gzip \(h5repack -f GZIP=4\)"),
    Case("HDF5 of a filter that is known elsewhere", STATS_FPS, h5("bad.h5", lambda f: f.create_dataset("a", data=np.ones((9, 3)), scaleoffset=2)), 65, r"bad.h5:/a: needs the filter number 6; rewrite it with gzip \(h5repack -f GZIP=4\)"),
    Case("HDF5 of nan at the start", "encode RUN bad.h5 -o out.h5 --fps 30", h5("bad.h5", {"a": wrong(0, 0, np.nan)}), 65, r"bad.h5:/a clip a frame 0: column 0 is nan; mend the file or leave the clip out"),
    Case("HDF5 of nan in the middle", "encode RUN bad.h5 -o out.h5 --fps 30", h5("bad.h5", {"a": wrong(25, 2, np.nan)}), 65, r"bad.h5:/a clip a frame 25: column 2 is nan; mend the file or leave the clip out"),
    Case("HDF5 of infinity at the end", "evaluate RUN bad.h5 --fps 30", h5("bad.h5", {"a": wrong(49, 4, np.inf)}), 65, r"bad.h5:/a clip a frame 49: column 4 is inf; mend the file or leave the clip out"),
    Case("HDF5 of nan to train on", "train bad.h5 -o run --fps 30 -q", h5("bad.h5", {"a": wrong(3, 3, np.nan)}), 65, r"bad.h5:/a clip a frame 3: column 3 is nan; mend the file or leave the clip out"),
    Case("HDF5 of nan to count", STATS_FPS, h5("bad.h5", {"a": wrong(3, 3, np.nan)}), 65, r"bad.h5:/a clip a frame 3: column 3 is nan; mend the file or leave the clip out"),
    Case("HDF5 of nan to validate", "validate bad.h5 --fps 30", h5("bad.h5", {"a": wrong(3, 3, np.nan)}), 65, r"bad.h5:/a clip a frame 3: column 3 is nan; mend the file or leave the clip out", stdout=True),
    Case("HDF5 of nan to export", "export bad.h5 -o out --fps 30 --format csv", h5("bad.h5", {"a": wrong(3, 3, np.nan)}), 65, r"bad.h5:/a clip a frame 3: column 3 is nan; mend the file or leave the clip out"),
    Case("HDF5 of nan to export as robomimic", "export bad.h5 -o out --fps 30 --format robomimic", h5("bad.h5", {"a": wrong(3, 3, np.nan)}), 65, r"bad.h5:/a clip a frame 3: column 3 is nan; mend the file or leave the clip out"),
    Case("HDF5 of nan to import", "import bad.h5 -o out.h5 --fps 30", h5("bad.h5", {"data/x": wrong(3, 3, np.nan)}), 65, r"bad.h5:data/x frame 3: column 3 is nan; mend the file or leave it out"),
    Case("HDF5 of nan in its second clip", "import bad.h5 -o out.h5 --fps 30", h5("bad.h5", {"a": lively(9), "b": wrong(3, 3, np.nan)}), 65, r"bad.h5:b frame 3: column 3 is nan; mend the file or leave it out"),
    Case("HDF5 beyond float32", "train bad.h5 -o run --fps 30 -q", h5("bad.h5", {"a": wrong(3, 3, 1e300)}), 65, r"bad.h5:/a clip a frame 3: column 3 is inf; mend the file or leave the clip out"),
    Case("import of nan that is skipped and nothing else", "import bad.h5 -o out.h5 --fps 30 --on-error skip", h5("bad.h5", {"a": wrong(3, 3, np.nan)}), 65, r"nothing could be imported; bad.h5:a frame 3: column 3 is nan; mend the file or leave it out"),
    *[
        Case(f"HDF5 of {what}", STATS_FPS, h5("bad.h5", typed(dtype)), 65, r"bad.h5: holds no \[T, D\] dataset of numbers, but a \(10x3 .*\)")
        for what, dtype in (
            ("complex numbers", "c8"),
            ("strings", "S8"),
            ("texts", h5py.string_dtype()),
            ("truth", bool),
            ("records", [("x", "f4"), ("y", "f4")]),
            ("references", h5py.ref_dtype),
            ("opaque bytes", "V8"),
            ("enumerated values", h5py.enum_dtype({"a": 0, "b": 1})),
            ("lists of numbers", h5py.vlen_dtype("f4")),
            ("arrays of numbers", np.dtype(("f4", (2,)))),
        )
    ],
    Case("HDF5 of other widths", STATS_FPS, h5("bad.h5", {"a": np.ones((9, 3)), "b": np.ones((9, 4))}), 65, r"bad.h5: its datasets differ: a has 3 columns, b has 4 columns; choose with --dataset 'PATTERN'"),
    Case("HDF5 of other rates", "stats bad.h5", h5("bad.h5", {"a": np.ones((9, 3)), "b": np.ones((9, 3))}, lambda f: (f["a"].attrs.update(fps=30), f["b"].attrs.update(fps=60))), 65, r"bad.h5: its clips differ in fps: a 30, b 60; choose with --dataset 'PATTERN'"),
    Case("HDF5 without a rate", "stats bad.h5", h5("bad.h5", {"a": np.ones((9, 3))}), 2, r"bad.h5: says no frame rate \(attribute fps\); add --fps, for example --fps 30"),
    Case("HDF5 without a rate to import", "import bad.h5 -o out.h5", h5("bad.h5", {"a": np.ones((9, 3))}), 2, r"bad.h5:a: says no frame rate; add --fps, for example --fps 30"),
    *[Case(f"HDF5 of a rate of {value!r}", "stats bad.h5", h5("bad.h5", {"a": np.ones((9, 3))}, attributed(fps=value)), code, r"bad.h5: (has fps .*; a positive number was expected|says no frame rate .*)") for value, code in ((0, 65), (-30.0, 65), (np.nan, 65), (np.inf, 65), ("fast", 2), (1e300, 65))],
    Case("HDF5 of a rate of 0 to import", "import bad.h5 -o out.h5", h5("bad.h5", {"a": np.ones((9, 3))}, attributed(fps=0)), 65, r"bad.h5:a: has 0 frames a second; 0.001 to 100,000 were expected"),
    Case("HDF5 of many rates", "stats bad.h5", h5("bad.h5", huge_attribute), 2, r"bad.h5: says no frame rate \(attribute fps\); add --fps, for example --fps 30"),
    Case("HDF5 of a name with a line end", STATS_FPS, h5("bad.h5", named(b"a\nb")), 65, r"bad.h5:/a\\nb clip a\\nb frame 3: column 1 is nan; mend the file or leave the clip out"),
    Case("HDF5 of a name with escapes", STATS_FPS, h5("bad.h5", named("\x1b[31mred\u202e".encode())), 65, r"bad.h5:/\\x1b\[31mred\\u202e clip \\x1b\[31mred\\u202e frame 3: column 1 is nan; mend the file or leave the clip out"),
    Case("HDF5 of a name not of UTF-8", STATS_FPS, h5("bad.h5", named(b"\xff\xfe")), 65, r"bad.h5:/: has a name that is not UTF-8 \(b'\\xff\\xfe'\); rename it"),
    Case("HDF5 of half a surrogate", STATS_FPS, h5("bad.h5", named(b"\xed\xa0\x80")), 65, r"bad.h5:/: has a name that is not UTF-8 \(b'\\xed\\xa0\\x80'\); rename it"),
    Case("HDF5 of a name of 5000 letters", STATS_FPS, h5("bad.h5", named(FULL_NAME.encode())), 65, r"bad.h5:/n+ clip n+ frame 3: column 1 is nan; mend the file or leave the clip out"),
    Case("HDF5 of a name of 5000 letters to encode", "encode RUN bad.h5 -o out.h5 --fps 30", h5("bad.h5", {FULL_NAME: lively(50)}), 65, r"clip n+: a clip name has 1 to 4096 bytes and no NUL; rename it"),
    Case("HDF5 of a name of 5000 letters to import", "import bad.h5 -o out.h5 --fps 30", h5("bad.h5", {FULL_NAME: lively(50)}), 65, r"bad.h5:n+ clip bad/n+: a clip name has 1 to 4096 bytes and no NUL; rename it"),
    Case("HDF5 of the name ..", STATS_FPS, h5("bad.h5", named(b"..")), 65, r"bad.h5:/.. clip .. frame 3: column 1 is nan; mend the file or leave the clip out"),
    Case("HDF5 of 100,000 columns named one by one", STATS_FPS, h5("bad.h5", {"a": np.full((1, 100_000), np.nan, "f4")}), 65, r"bad.h5:/a clip a frame 0: column 0 is nan; mend the file or leave the clip out"),
    Case("two files of other columns", "stats MOTION bad.h5", h5("bad.h5", {"a": np.ones((9, 3))}, attributed(fps=30)), 65, r"bad.h5: has columns 3, but .*motion.h5 has 5; give files that are alike"),
    Case("two files of other rates", "stats MOTION bad.h5", h5("bad.h5", {"a": np.ones((9, 5))}, attributed(fps=31)), 65, r"bad.h5: has fps 31.0, but .*motion.h5 has 30.0; give files that are alike"),
    Case("two files of other layouts", "stats MOTION bad.h5", h5("bad.h5", {"a": np.ones((9, 5))}, attributed(fps=30, layout="joints")), 65, r"bad.h5: has layout joints, but .*motion.h5 has raw; give files that are alike"),
    Case("a file twice", "encode RUN MOTION MOTION -o out.h5", nothing, 65, r".*motion.h5: two inputs hold clips of the same names and have the same file name; rename one, or leave it out"),
    Case("a file twice to validate", "validate MOTION MOTION --min-frames 0", nothing, 65, r".*motion.h5: clips of the same names are in .*motion.h5: clip_00, clip_01, clip_02, clip_03, clip_04, clip_05, clip_06, clip_07 and 4 more", stdout=True),
    Case("motion of other columns", "encode RUN bad.h5 -o out.h5 --fps 30", h5("bad.h5", {"a": lively(50, 4)}), 76, r"bad.h5: has 4 columns, but the tokenizer was trained on 5 \(layout raw\); encode data of that layout"),
    Case("motion of other columns to evaluate", "evaluate RUN bad.h5 --fps 30", h5("bad.h5", {"a": lively(50, 4)}), 76, r"bad.h5: has 4 columns, but the tokenizer was trained on 5 \(layout raw\); encode data of that layout"),
    Case("motion of another rate", "encode RUN bad.h5 -o out.h5 --fps 60", h5("bad.h5", {"a": lively(50)}), 76, r"bad.h5: has 60 fps, but the tokenizer was trained at 30; import it with --fps 30"),
    Case("motion of another layout", "encode RUN bad.h5 -o out.h5", motion("bad.h5", {"a": lively(50)}, layout="positions"), 76, r"bad.h5: has layout positions, but the tokenizer was trained on raw; import it with --layout raw"),
    Case("robomimic without actions", "import bad.h5 -o out.h5 --format robomimic", h5("bad.h5", {"data/demo_0/obs": np.ones((9, 3))}), 65, r"bad.h5: holds no \[T, D\] dataset that matches --dataset 'data/\*/actions', but data/demo_0/obs \(9x3 float64\)"),
]

MOTION = [
    Case("motion.h5 to import", "import bad.h5 -o out.h5", motion("bad.h5", {"a": lively(50)}), 65, r"bad.h5: is a vqtool.motion file already; train and encode take it as it is"),
    Case("motion.h5 of another version", "stats bad.h5", edited("bad.h5", "MOTION", attributed(format_version=2)), 65, r"bad.h5: has format version 2; this vqtool reads 1, so update vqtool"),
    Case("motion.h5 of no version", "stats bad.h5", edited("bad.h5", "MOTION", lambda f: f.attrs.pop("format_version")), 65, r"bad.h5: has format version None; this vqtool reads 1, so update vqtool"),
    Case("motion.h5 of another format", "stats bad.h5", edited("bad.h5", "MOTION", attributed(format="vqtool.dreams")), 65, r"bad.h5: is a vqtool.dreams file; motion was expected"),
    Case("motion.h5 without frames", "stats bad.h5", edited("bad.h5", "MOTION", replaced("frames", None)), 65, r"bad.h5:frames: is missing; the file is damaged or of another kind"),
    Case("motion.h5 without names", "stats bad.h5", edited("bad.h5", "MOTION", replaced("names", None)), 65, r"bad.h5:names: is missing; the file is damaged or of another kind"),
    Case("motion.h5 without offsets", "encode RUN bad.h5 -o out.h5", edited("bad.h5", "MOTION", replaced("offsets", None)), 65, r"bad.h5:offsets: is missing; the file is damaged or of another kind"),
    Case("motion.h5 of frames that are a link", "stats bad.h5", edited("bad.h5", "MOTION", replaced("frames", h5py.ExternalLink("other.h5", "/frames"))), 65, r"bad.h5:frames: is a link; vqtool follows no links"),
    Case("motion.h5 of frames that are a group", "stats bad.h5", edited("bad.h5", "MOTION", lambda f: (f.pop("frames"), f.create_group("frames"))), 65, r"bad.h5:frames: is a group where a dataset was expected"),
    Case("motion.h5 of frames in a row", "stats bad.h5", edited("bad.h5", "MOTION", replaced("frames", np.ones(918, "f4"))), 65, r"bad.h5:frames: has 1 dimension, not 2"),
    Case("motion.h5 of frames of texts", "stats bad.h5", edited("bad.h5", "MOTION", replaced("frames", np.full((918, 5), b"x"))), 65, r"bad.h5:/frames: has the type \|S1; numbers were expected"),
    Case("motion.h5 of frames of no columns", "stats bad.h5", edited("bad.h5", "MOTION", replaced("frames", np.ones((918, 0)))), 65, r"bad.h5: its clips have no columns"),
    Case("motion.h5 of fewer frames", "stats bad.h5", edited("bad.h5", "MOTION", replaced("frames", np.ones((900, 5), "f4"))), 65, r"bad.h5:offsets: does not fit the rows; the file is damaged"),
    Case("motion.h5 of offsets that fall", "stats bad.h5", edited("bad.h5", "MOTION", lambda f: f["offsets"].__setitem__(2, -5)), 65, r"bad.h5:offsets: does not fit the rows; the file is damaged"),
    Case("motion.h5 of offsets that overflow", "stats bad.h5", edited("bad.h5", "MOTION", lambda f: f["offsets"].__setitem__(2, 2**63 - 1)), 65, r"bad.h5:offsets: does not fit the rows; the file is damaged"),
    Case("motion.h5 of offsets of nan", "stats bad.h5", edited("bad.h5", "MOTION", replaced("offsets", np.full(13, np.nan))), 65, r"bad.h5:/offsets: has the type float64; numbers were expected"),
    Case("motion.h5 of no offsets", "stats bad.h5", edited("bad.h5", "MOTION", replaced("offsets", np.zeros(0, "i8"))), 65, r"bad.h5:offsets: has 0 entries for 12 names; the file is damaged"),
    Case("motion.h5 of a name too few", "stats bad.h5", edited("bad.h5", "MOTION", replaced("names", names_of(3, "a"))), 65, r"bad.h5:offsets: has 13 entries for 3 names; the file is damaged"),
    Case("motion.h5 of a name again and again", "stats bad.h5", edited("bad.h5", "MOTION", replaced("names", names_of(12, "a"))), 65, r"bad.h5 clip a: two clips have this name; the file is damaged"),
    Case("motion.h5 of names of numbers", "stats bad.h5", edited("bad.h5", "MOTION", replaced("names", np.arange(12))), 65, r"bad.h5:/names: has the type int64; numbers were expected"),
    Case("motion.h5 that was not finished", "stats bad.h5", edited("bad.h5", "MOTION", attributed(complete=3)), 65, r"bad.h5: was not written to its end; make it again"),
    Case("motion.h5 without a digest", "encode RUN bad.h5 -o out.h5", edited("bad.h5", "MOTION", lambda f: f.attrs.pop("sha256")), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("motion.h5 with an attribute more", "encode RUN bad.h5 -o out.h5", edited("bad.h5", "MOTION", attributed(mine=1)), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("motion.h5 with a dataset more", "train bad.h5 -o run -q", edited("bad.h5", "MOTION", lambda f: f.create_dataset("mine", data=[1.0])), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("motion.h5 with a huge dataset more", "encode RUN bad.h5 -o out.h5", edited("bad.h5", "MOTION", gzip_bomb((10**8, 5), (10**6, 5), "mine")), 65, r"bad.h5:/?mine: .*", apart=True),
    Case("motion.h5 with another name", "encode RUN bad.h5 -o out.h5", edited("bad.h5", "MOTION", lambda f: f["names"].__setitem__(3, b"other")), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    *[Case(f"motion.h5 of a rate of {value!r}", "stats bad.h5", edited("bad.h5", "MOTION", attributed(fps=value)), 65, r"bad.h5: has fps .*; a positive number was expected") for value in (0.0, -1.0, np.nan, np.inf)],
    Case("motion.h5 of a rate in words", "stats bad.h5", edited("bad.h5", "MOTION", attributed(fps="fast")), 2, r"bad.h5: says no frame rate \(attribute fps\); add --fps, for example --fps 30"),
    Case("motion.h5 of no clips", "train bad.h5 -o run", motion("bad.h5", {}), 65, r"bad.h5: has no clip with frames to train on"),
    Case("motion.h5 of no clips to evaluate", "evaluate RUN bad.h5", motion("bad.h5", {}), 65, r"bad.h5: has no (clip|frames).*"),
    Case("motion.h5 of no frames", "train bad.h5 -o run -q", motion("bad.h5", {"a": lively(0), "b": lively(0)}), 65, r"bad.h5: has no clip with frames to train on"),
    Case("motion.h5 of no frames to evaluate", "evaluate RUN bad.h5", motion("bad.h5", {"a": lively(0), "b": lively(0)}), 65, r"bad.h5: has no (clip|frames).*"),
    Case("motion.h5 of no frames to validate", "validate bad.h5", motion("bad.h5", {"a": lively(0)}), 65, r"bad.h5 clip a: is empty", stdout=True),
    Case("motion.h5 of one frame", "train bad.h5 -o run -q", motion("bad.h5", {"a": lively(1)}), 65, r"bad.h5: no column moves; there is nothing to learn"),
    Case("motion.h5 that stands still", "train bad.h5 -o run -q", motion("bad.h5", {"a": np.ones((50, 5), "f4")}), 65, r"bad.h5: no column moves; there is nothing to learn"),
    Case("motion.h5 of nan", "encode RUN bad.h5 -o out.h5", motion("bad.h5", {"good": lively(9), "walk/bad\u202e": wrong(25, 2, np.nan)}), 65, r"bad.h5:frames clip walk/bad\\u202e frame 25: column 2 is nan; mend the file or leave the clip out"),
    Case("motion.h5 of a split too few", "stats bad.h5", edited("bad.h5", "MOTION", lambda f: f.create_dataset("splits", data=np.zeros(3, "u1"))), 65, r"bad.h5:splits: does not fit the clips; the file is damaged"),
    Case("motion.h5 of splits of floats", "stats bad.h5", edited("bad.h5", "MOTION", lambda f: f.create_dataset("splits", data=np.zeros(12))), 65, r"bad.h5:/splits: has the type float64; numbers were expected"),
    Case("motion.h5 of nothing to train on", "train bad.h5 -o run -q", motion("bad.h5", {"a": lively(50)}, Companions(splits=np.array([2], "u1"))), 65, r"bad.h5: has no clip in split 'train'"),
    Case("motion.h5 of an empty split", "stats bad.h5 --split test", motion("bad.h5", {"a": lively(50)}, Companions(splits=np.array([0], "u1"))), 65, r"bad.h5: has no clip in split 'test'"),
    Case("motion.h5 of mirror images of nothing", "stats bad.h5", motion("bad.h5", {"a": lively(50)}, Companions(mirror_of=np.array([7]))), 65, r"bad.h5:mirror_of: does not fit the clips; the file is damaged"),
    Case("motion.h5 of mirror images of -2", "stats bad.h5", motion("bad.h5", {"a": lively(50)}, Companions(mirror_of=np.array([-2]))), 65, r"bad.h5:mirror_of: does not fit the clips; the file is damaged"),
    Case("motion.h5 of starts of nan", "stats bad.h5", motion("bad.h5", {"a": lively(50)}, Companions(starts=np.full((1, 3), np.nan))), 65, r"bad.h5:starts: does not fit the clips; the file is damaged"),
    Case("motion.h5 of starts of two", "stats bad.h5", motion("bad.h5", {"a": lively(50)}, Companions(starts=np.zeros((1, 2)))), 65, r"bad.h5:starts: does not fit the clips; the file is damaged"),
    Case("motion.h5 of a caption of nothing", "stats bad.h5", motion("bad.h5", {"a": lively(50)}, Companions(captions=(Caption(99, "x"),))), 65, r"bad.h5:captions: does not fit the clips; the file is damaged"),
    Case("motion.h5 of half a caption", "stats bad.h5", edited("bad.h5", "MOTION", lambda f: f.create_dataset("captions/text", data=[b"x"])), 65, r"bad.h5:captions/clip: is missing; the file is damaged or of another kind"),
    Case("motion.h5 of half a skeleton", "stats bad.h5", edited("bad.h5", "MOTION", lambda f: f.create_dataset("skeleton/names", data=[b"x"])), 65, r"bad.h5:/skeleton/names: has the type object; numbers were expected"),
    Case(
        "motion.h5 of a skeleton that is a circle",
        "stats bad.h5",
        both(motion("bad.h5", {"a": lively(50, 3)}, Companions(bodies=(BODY,), body_of=np.array([0])), layout="positions"), lambda folder, good: patch(folder / "bad.h5", lambda f: f["skeleton/parents"].__setitem__(1, 2))),
        65,
        r"bad.h5:skeleton: joint 'LeftUpLeg' \(number 1\) has parent 2; the root comes first with parent -1, every other joint after its parent",
    ),
    Case(
        "motion.h5 of a skeleton of nan",
        "stats bad.h5",
        both(motion("bad.h5", {"a": lively(50, 3)}, Companions(bodies=(BODY,), body_of=np.array([0])), layout="positions"), lambda folder, good: patch(folder / "bad.h5", lambda f: f["skeleton/offsets"].__setitem__((0, 1, 1), np.nan))),
        65,
        r"bad.h5:skeleton: a skeleton's offsets must be finite numbers",
    ),
    Case("motion.h5 of another body than there is", "stats bad.h5", motion("bad.h5", {"a": lively(50, 3)}, Companions(bodies=(BODY,), body_of=np.array([1])), layout="positions"), 65, r"bad.h5:skeleton/of_clip: does not fit the clips; the file is damaged"),
    Case("motion.h5 of joints of another width", "export bad.h5 -o out --format bvh", motion("bad.h5", {"a": lively(50)}, Companions(bodies=(BODY,), body_of=np.array([0])), layout="joints"), 65, r"bad.h5:skeleton: has 15 joints, whose layout joints has 179 columns, not 5; the file is damaged"),
    Case("tokens as motion", "stats TOKENS", nothing, 65, r".*tokens.h5: is a vqtool.tokens file; motion was expected"),
    Case("latents as motion", "encode RUN LATENTS -o out.h5", nothing, 65, r".*latents.h5: is a vqtool.latents file; motion was expected"),
    Case("tokens to import", "import TOKENS -o out.h5", nothing, 65, r".*tokens.h5: is a vqtool.tokens file already; make motion of it with vqtool decode"),
    Case("a tokenizer as motion", "stats bad.h5", changed("bad.h5", "RUN", lambda data: data), 65, UNREADABLE),
    Case("a run as motion", "stats RUN", nothing, 65, r".*rvq: is a folder; name an HDF5 file \(vqtool import makes one of BVH and others\)"),
]


def patch(path: Path, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as opened:
        change(opened)


def long_codes(opened: h5py.File) -> None:
    gzip_bomb((2 * 10**8, 3), (10**6, 3), "codes", "u2")(opened)
    for name, value in (("offsets", 2 * 10**8), ("num_frames", 8 * 10**8 - 4 * 215)):
        opened[name][-1] = value


def one_code(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(codes: np.ndarray) -> np.ndarray:
        codes[40, 1] = value
        return codes

    return change


TOKENS = [
    *[Case(f"tokens cut at {share:.1%}", "decode RUN bad.h5 -o out.h5", changed("bad.h5", "TOKENS", cut(share)), 65, UNREADABLE) for share in (0.01, 0.1, 0.5, 0.9, 0.999)],
    Case("tokens cut to inspect", "inspect-codebook bad.h5", changed("bad.h5", "TOKENS", cut(0.5)), 65, UNREADABLE),
    Case("empty tokens", "decode RUN bad.h5 -o out.h5", file("bad.h5", ""), 65, UNREADABLE),
    Case("empty tokens to inspect", "inspect-codebook bad.h5", file("bad.h5", ""), 65, r"bad.h5: is neither a run nor a tokens.h5 or latents.h5; name one of these"),
    Case("text as tokens to inspect", "inspect-codebook bad.h5", file("bad.h5", "once upon a time"), 65, r"bad.h5: is neither a run nor a tokens.h5 or latents.h5; name one of these"),
    Case("motion to decode", "decode RUN MOTION -o out.h5", nothing, 65, r".*motion.h5: is a vqtool.motion file; a vqtool.tokens file was expected"),
    Case("motion to inspect", "inspect-codebook MOTION", nothing, 65, r".*motion.h5: is an HDF5 file without tokens; make them with `vqtool encode RUN MOTION -o tokens.h5`"),
    Case("a run to decode", "decode RUN RUN -o out.h5", nothing, 65, r".*rvq: is a folder; name an HDF5 file \(vqtool import makes one of BVH and others\)"),
    Case("other HDF5 to decode", "decode RUN bad.h5 -o out.h5", h5("bad.h5", {"a": np.ones((9, 3))}), 65, r"bad.h5: is no vqtool file; a vqtool.tokens file was expected"),
    Case("tokens as a run", "decode TOKENS TOKENS -o out.h5", nothing, 65, r".*tokens.h5: is an HDF5 file, and no tokenizer; the run comes first, then motion or tokens"),
    Case("tokens of another tokenizer", "decode RUN LATENTS -o out.h5", nothing, 76, r".*latents.h5: was made by tokenizer [0-9a-f]{12}, not by .*rvq/tokenizer.safetensors \([0-9a-f]{12}\); name the run that encoded it"),
    Case("latents of another tokenizer", "decode VAE TOKENS -o out.h5", nothing, 76, r".*tokens.h5: was made by tokenizer [0-9a-f]{12}, not by .*vae/tokenizer.safetensors \([0-9a-f]{12}\); name the run that encoded it"),
    Case("tokens of no tokenizer", "decode RUN bad.h5 -o out.h5", tokens("bad.h5", tokenizer_id="\x1b[31m"), 76, r"bad.h5: was made by tokenizer \\x1b\[31m, not by .*rvq/tokenizer.safetensors \([0-9a-f]{12}\); name the run that encoded it"),
    Case("a code out of range", "decode RUN bad.h5 -o out.h5", tokens("bad.h5", one_code(16)), 65, r"bad.h5:codes clip clip_05: token 15 of layer 1 is 16, but that codebook has 16 codes; encode again"),
    Case("a code far out of range to inspect", "inspect-codebook bad.h5", tokens("bad.h5", one_code(65535)), 65, r"bad.h5:codes clip clip_05: token 15 of layer 1 is 65535, but that codebook has 16 codes; encode again"),
    Case("a code changed", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", lambda f: f["codes"].__setitem__((3, 0), f["codes"][3, 0] ^ 1)), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("codes of floats", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", lambda f: replaced("codes", f["codes"][:].astype("f4"))(f)), 65, r"bad.h5:codes: does not hold unsigned integers; the file is damaged"),
    Case("codes below 0", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", lambda f: replaced("codes", -f["codes"][:].astype("i8"))(f)), 65, r"bad.h5:codes: does not hold unsigned integers; the file is damaged"),
    Case("codes of one layer", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", lambda f: replaced("codes", f["codes"][:, :1])(f)), 65, r"bad.h5:codes: does not fit codebook_sizes; the file is damaged"),
    Case("tokens of larger codebooks", "decode RUN bad.h5 -o out.h5", tokens("bad.h5", one_code(30), codebook_sizes=(16, 32, 16)), 76, r"bad.h5.*: .*"),
    Case("tokens of other columns", "decode RUN bad.h5 -o out.h5", tokens("bad.h5", dim=7), 76, r"bad.h5: .*7.*"),
    Case("tokens of another rate", "decode RUN bad.h5 -o out.h5", tokens("bad.h5", fps=99.0), 76, r"bad.h5: .*99.*"),
    Case("tokens of another downsample", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", attributed(downsample=2)), 65, r"bad.h5:num_frames: does not fit the tokens; the file is damaged"),
    Case("tokens without codes", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", replaced("codes", None)), 65, r"bad.h5:codes: is missing; the file is damaged or of another kind"),
    Case("tokens without lengths", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", replaced("num_frames", None)), 65, r"bad.h5:num_frames: is missing; the file is damaged or of another kind"),
    Case("tokens without codebooks", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", replaced("codebooks", None)), 65, r"bad.h5:codebooks/0: is missing; the file is damaged or of another kind"),
    Case("tokens of a codebook too few", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", replaced("codebooks/1", None)), 65, r"bad.h5:codebooks/1: is missing; the file is damaged or of another kind"),
    Case("tokens of a codebook of nan", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", lambda f: f["codebooks/1"].__setitem__((3, 1), np.nan)), 65, r"bad.h5:codebooks/1: does not hold 16 finite code vectors; the file is damaged"),
    Case("tokens of a codebook too small", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", replaced("codebooks/1", np.ones((3, 8), "f4"))), 65, r"bad.h5:codebooks/1: does not hold 16 finite code vectors; the file is damaged"),
    Case("tokens of a codebook of texts", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", replaced("codebooks/1", np.full((16, 8), b"x"))), 65, r"bad.h5:/codebooks/1: has the type \|S1; numbers were expected"),
    Case("tokens of a codebook of 10^9 columns", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", gzip_bomb((16, 10**8), (1, 10**8), "codebooks/1")), 65, r"bad.h5:/?codebooks/1: .*", apart=True),
    Case("tokens of other lengths", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", lambda f: f["num_frames"].__setitem__(3, 4000)), 65, r"bad.h5:num_frames: does not fit the tokens; the file is damaged"),
    Case("tokens of lengths below 0", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", lambda f: f["num_frames"].__setitem__(0, -4)), 65, r"bad.h5:num_frames: does not fit the tokens; the file is damaged"),
    Case("tokens of lengths that overflow", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", lambda f: f["num_frames"].__setitem__(0, 2**63 - 1)), 65, r"bad.h5:num_frames: does not fit the tokens; the file is damaged"),
    Case("tokens of lengths of floats", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", replaced("num_frames", np.full(12, 4.0))), 65, r"bad.h5:/num_frames: has the type float64; numbers were expected"),
    Case("tokens of offsets below 0", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", lambda f: f["offsets"].__setitem__(0, -4)), 65, r"bad.h5:offsets: does not fit the rows; the file is damaged"),
    Case("tokens of another version", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", attributed(format_version=99)), 65, r"bad.h5: has format version 99; this vqtool reads 1, so update vqtool"),
    Case("tokens of another version to inspect", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", attributed(format_version=99)), 65, r"bad.h5: has format version 99; this vqtool reads 1, so update vqtool"),
    *[
        Case(f"tokens of a {key} of {value!r}", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", attributed(**{key: value})), 65, r"bad.h5(:codes)?: (its attributes .*|does not fit codebook_sizes); the file is damaged")
        for key, value in (("downsample", 0), ("downsample", -4), ("downsample", "x"), ("dim", 0), ("fps", np.nan), ("fps", 0.0), ("fps", "x"), ("codebook_sizes", np.array([16, 16])), ("codebook_sizes", 16), ("codebook_sizes", np.array([0, 16, 16])))
    ],
    Case("tokens of codebooks of 10^12", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", attributed(codebook_sizes=np.full(3, 10**12))), 65, r"bad.h5:codebooks/0: does not hold 1000000000000 finite code vectors; the file is damaged"),
    Case("tokens without a tokenizer", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", lambda f: f.attrs.pop("tokenizer_id")), 65, r"bad.h5: its attributes are incomplete \('tokenizer_id'\); the file is damaged"),
    Case("a gzip bomb of codes", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", gzip_bomb((234, 10**7), (1, 10**7), "codes", "u2")), 65, r"bad.h5:/?codes: .*", apart=True),
    Case("a gzip bomb of codes to inspect", "inspect-codebook bad.h5", edited("bad.h5", "TOKENS", long_codes), 65, r"bad.h5:/?codes: .*", apart=True),
    Case("latents cut", "decode VAE bad.h5 -o out.h5", changed("bad.h5", "LATENTS", cut(0.6)), 65, UNREADABLE),
    Case("latents changed", "decode VAE bad.h5 -o out.h5", changed("bad.h5", "LATENTS", flip(0.5)), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("latents changed to inspect", "inspect-codebook bad.h5", changed("bad.h5", "LATENTS", flip(0.5)), 65, r"bad.h5: does not match its SHA-256: it was damaged or edited; make it again"),
    Case("latents of nan to inspect", "inspect-codebook bad.h5", latents("bad.h5", lambda mean, logvar: mean.__setitem__((40, 1), np.nan)), 65, r"bad.h5 clip clip_05: its latents are not finite; the run diverged, so encode with another"),
    Case("latents of nan", "decode VAE bad.h5 -o out.h5", latents("bad.h5", lambda mean, logvar: mean.__setitem__((40, 1), np.nan)), 65, r"bad.h5.* clip clip_05.*: .*not finite.*"),
    Case("latents of infinity", "decode VAE bad.h5 -o out.h5", latents("bad.h5", lambda mean, logvar: mean.__setitem__((40, 1), np.inf)), 65, r"bad.h5.* clip clip_05.*: .*not finite.*"),
    Case("latents beyond float32", "decode VAE bad.h5 -o out.h5", latents("bad.h5", lambda mean, logvar: mean.__setitem__((40, 1), 3e38)), 65, r"bad.h5.* clip clip_05.*: .*not finite.*"),
    Case("latents of a wild variance", "decode VAE bad.h5 -o out.h5 --sample", latents("bad.h5", lambda mean, logvar: logvar.__setitem__((40, 1), 1e6)), 65, r"bad.h5.* clip clip_05.*: .*not finite.*"),
    Case("latents of other dimensions", "decode VAE bad.h5 -o out.h5", latents("bad.h5", lambda mean, logvar: None, width=3), 76, r"bad.h5:?.*: .*3.*4.*"),
    Case("latents without variance", "decode VAE bad.h5 -o out.h5", edited("bad.h5", "LATENTS", replaced("logvar", None)), 65, r"bad.h5:logvar: is missing; the file is damaged or of another kind"),
    Case("latents of another width of variance", "inspect-codebook bad.h5", edited("bad.h5", "LATENTS", lambda f: replaced("logvar", f["logvar"][:, :2])(f)), 65, r"bad.h5:logvar: .*"),
    Case("latents of fewer variances", "inspect-codebook bad.h5", edited("bad.h5", "LATENTS", lambda f: replaced("logvar", f["logvar"][:9])(f)), 65, r"bad.h5:offsets: does not fit the rows; the file is damaged"),
    Case("latents called tokens", "decode VAE bad.h5 -o out.h5", edited("bad.h5", "LATENTS", attributed(format="vqtool.tokens")), 65, r"bad.h5:codes: is missing; the file is damaged or of another kind"),
    Case("tokens called latents", "decode RUN bad.h5 -o out.h5", edited("bad.h5", "TOKENS", attributed(format="vqtool.latents")), 65, r"bad.h5:mean: is missing; the file is damaged or of another kind"),
    Case("a gzip bomb of latents", "inspect-codebook bad.h5", edited("bad.h5", "LATENTS", lambda f: (gzip_bomb((234, 10**7), (1, 10**7), "mean")(f), gzip_bomb((234, 10**7), (1, 10**7), "logvar")(f))), 65, r"bad.h5:/?(mean|logvar): .*", apart=True),
]

ENCODE = "encode bad MOTION -o out.h5"
INSPECT = "inspect-codebook bad"
EDITED = r"bad: it.*; (the file was edited(, use it as trained)?|update vqtool)"
UNFIT: list[tuple[str, Any]] = [  # what a header can say that its weights do not
    ("dim", 10**12),
    ("downsample", 2),
    ("codebook_sizes", [16]),
    ("codebook_sizes", [17, 16, 16]),
    ("codebook_sizes", []),
    ("codebook_keys", ["none"] * 3),
    ("codebook_keys", ["model.normalizer.mean"] * 3),
    ("codebook_keys", ["none"]),
    ("config.model.width", 10**9),
    ("config.model.width", 20_000),
    ("config.model.width", 0),
    ("config.model.depth", 10**9),
    ("config.model.latent_dim", 10**9),
    ("config.model.downsample", 10**9),
    ("config.model.dilation_growth", 10**9),
    ("config.bottleneck.codebook_size", 10**12),
    ("config.bottleneck.num_quantizers", 10**9),
    ("config.train.window", 33),
    ("config.train.batch_size", 10**12),
]
TOKENIZERS = [
    Case("an empty tokenizer", ENCODE, file("bad", ""), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a tokenizer of 8 bytes", ENCODE, file("bad", bytes(8)), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("text as a tokenizer", ENCODE, file("bad", "once upon a time\n" * 99), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a pickle as a tokenizer", ENCODE, file("bad", b"\x80\x02}q\x00." * 99), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a zip file as a tokenizer", ENCODE, zipped("bad", {"data.pkl": b"x"}), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("motion as a tokenizer", "encode MOTION MOTION -o out.h5", nothing, 65, r".*motion.h5: is an HDF5 file, and no tokenizer; the run comes first, then motion or tokens"),
    *[Case(f"a tokenizer cut at {share:.1%}", ENCODE, changed("bad", "RUN", cut(share)), 65, r"bad: is not a vqtool safetensors file, or is damaged") for share in (0.0001, 0.01, 0.5, 0.999)],
    *[Case(f"a tokenizer with a bit flipped at {share:.0%}", ENCODE, changed("bad", "RUN", flip(share)), 65, r"bad: (is not a vqtool safetensors file, or is damaged|does not match its SHA-256: .*)") for share in (0, 0.01, 0.5, 0.99)],
    Case("a tokenizer with bytes behind", ENCODE, changed("bad", "RUN", lambda data: data + b"x"), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a tokenizer with a bit flipped, to inspect", INSPECT, changed("bad", "RUN", flip(0.5)), 65, r"bad: does not match its SHA-256: it was damaged; copy or make it again"),
    Case("a tokenizer with a bit flipped, to decode", "decode bad TOKENS -o out.h5", changed("bad", "RUN", flip(0.5)), 65, r"bad: does not match its SHA-256: it was damaged; copy or make it again"),
    Case("a tokenizer with a bit flipped, to evaluate", "evaluate bad MOTION", changed("bad", "RUN", flip(0.5)), 65, r"bad: does not match its SHA-256: it was damaged; copy or make it again"),
    Case("a header longer than the file", ENCODE, raw_safetensors("bad", SAFE_HEADER, size=2**62), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a header of 2 MB", ENCODE, raw_safetensors("bad", SAFE_HEADER + b" " * 2_000_000), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a header of brackets", ENCODE, raw_safetensors("bad", b"[" * 900_000), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a header of objects", ENCODE, raw_safetensors("bad", b'{"a":' * 150_000 + b"1" + b"}" * 150_000), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a header of objects in a string", ENCODE, raw_safetensors("bad", b'{"__metadata__":{"vqtool":"' + b"[" * 900_000 + b'"}}'), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a header of digits", ENCODE, raw_safetensors("bad", b'{"__metadata__":{"vqtool":"' + b"1" * 900_000 + b'"}}'), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a header of NaN", ENCODE, raw_safetensors("bad", b'{"__metadata__":{"vqtool":"NaN"}}'), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a header not of UTF-8", ENCODE, raw_safetensors("bad", b'{"\xff":{}}'), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a header of nothing", ENCODE, raw_safetensors("bad", SAFE_HEADER), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("tensors that overlap", ENCODE, raw_safetensors("bad", b'{"__metadata__":{"vqtool":"{\\"sha256\\":\\"\\"}"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}', bytes(12)), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a tensor beyond the file", ENCODE, raw_safetensors("bad", b'{"__metadata__":{"vqtool":"{\\"sha256\\":\\"\\"}"},"a":{"dtype":"F32","shape":[250000000000],"data_offsets":[0,1000000000000]}}', bytes(12)), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a tensor of an unknown type", ENCODE, raw_safetensors("bad", b'{"__metadata__":{"vqtool":"{\\"sha256\\":\\"\\"}"},"a":{"dtype":"F7","shape":[2],"data_offsets":[0,8]}}', bytes(8)), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("a tensor of bfloat16", ENCODE, raw_safetensors("bad", b'{"__metadata__":{"vqtool":"{\\"sha256\\":\\"\\"}"},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}', bytes(4)), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("safetensors of someone else", ENCODE, raw_safetensors("bad", b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)), 65, r"bad: is not a vqtool safetensors file, or is damaged"),
    Case("safetensors of someone else, 2 GB of holes", ENCODE, both(raw_safetensors("bad", b'{"a":{"dtype":"F32","shape":[500000000],"data_offsets":[0,2000000000]}}'), lambda folder, good: os.truncate(folder / "bad", 2_000_000_062)), 65, r"bad: is not a vqtool safetensors file, or is damaged", apart=True),
    Case("a checkpoint as a tokenizer", ENCODE, lambda folder, good: (folder / "bad").write_bytes(next(good.RUN.glob("checkpoints/*/*")).read_bytes()), 65, r"bad: is no tokenizer; name a run folder or its tokenizer.safetensors"),
    Case("a tokenizer of another version", ENCODE, tokenizer("bad", setting("format_version", 2)), 65, r"bad: has format version 2; this vqtool reads 1, so update vqtool"),
    Case("a tokenizer of another format", ENCODE, tokenizer("bad", setting("format", "vqtool.dreams")), 65, r"bad: is no tokenizer; name a run folder or its tokenizer.safetensors"),
    Case("a tokenizer of another identity", ENCODE, tokenizer("bad", setting("tokenizer_id", "0" * 64)), 65, r"bad: does not match its tokenizer_id: it was edited; use the file as trained"),
    Case("a tokenizer without config", ENCODE, tokenizer("bad", lambda tensors, header: header.pop("config")), 65, r"bad: its header is incomplete; the file is damaged"),
    Case("a tokenizer with a config of words", ENCODE, tokenizer("bad", setting("config", "rvq")), 65, r"bad: its config is not one of sections; the file was edited, use it as trained"),
    Case("a tokenizer with a section of words", ENCODE, tokenizer("bad", setting("config.model", "rvq")), 65, r"bad: its config is not one of sections; the file was edited, use it as trained"),
    Case("a tokenizer with an unknown section", ENCODE, tokenizer("bad", setting("config.dreams", {"a": 1})), 65, EDITED),
    Case("a tokenizer with an unknown setting", ENCODE, tokenizer("bad", setting("config.model.dreams", 1)), 65, EDITED),
    Case("a tokenizer with an unknown bottleneck", ENCODE, tokenizer("bad", setting("config.model.bottleneck", "gpt")), 65, EDITED),
    Case("a tokenizer with an unknown option", ENCODE, tokenizer("bad", setting("config.bottleneck.dreams", 1)), 65, EDITED),
    Case("a tokenizer with a bottleneck of null", INSPECT, tokenizer("bad", setting("config.model.bottleneck", None)), 65, r"bad: its bottleneck is None; the file was edited, use it as trained"),
    *[
        Case(f"a tokenizer of {path} {value!r}{', to inspect' * (words is INSPECT)}", words, tokenizer("bad", setting(path, value)), 65, rf"bad: its {path} (is|are) .*; the file was edited, use it as trained")
        for words in (ENCODE, INSPECT)
        for path, value in (
            ("dim", 0),
            ("dim", "5"),
            ("dim", -1),
            ("dim", None),
            ("dim", [5]),
            ("dim", True),
            ("fps", 0),
            ("fps", -1),
            ("fps", "30"),
            ("fps", None),
            ("fps", 1e999),
            ("fps", float("nan")),
            ("layout", 3),
            ("layout", None),
            ("layout", ["raw"]),
            ("downsample", 0),
            ("downsample", 3),
            ("downsample", "4"),
            ("downsample", 10**12),
            ("codebook_sizes", None),
            ("codebook_sizes", 16),
            ("codebook_sizes", "abc"),
            ("codebook_sizes", [10**12] * 3),
            ("codebook_sizes", [0, 16, 16]),
            ("codebook_sizes", ["16"] * 3),
            ("codebook_keys", None),
            ("codebook_keys", [["a"]] * 3),
        )
    ],
    *[Case(f"a tokenizer of {path} {value!r}", ENCODE, tokenizer("bad", setting(path, value)), *((76, r".*: has 5 columns, but the tokenizer was trained on .*") if path == "dim" else (65, EDITED))) for path, value in (("dim", 7), ("config.model.width", 17), ("config.model.depth", 3), ("config.model.downsample", 2), ("config.bottleneck.codebook_size", 17), ("config.bottleneck.num_quantizers", 4), *UNFIT)],
    Case("a VAE of a dim of 10^12", "encode bad MOTION -o out.h5", tokenizer("bad", setting("config.bottleneck.dim", 10**12), "VAE"), 65, EDITED, apart=True),
    Case("a tokenizer of a codebook of words", ENCODE, tokenizer("bad", setting("config.bottleneck.codebook_size", "big")), 65, EDITED),
    Case("a tokenizer without a tensor", ENCODE, tokenizer("bad", tensor("model.normalizer.mean", None)), 65, EDITED),
    Case("a tokenizer of one tensor more", ENCODE, tokenizer("bad", lambda tensors, header: tensors.update({"model.dreams": np.ones(3, "f4")})), 65, EDITED),
    Case("a tokenizer of another shape", ENCODE, tokenizer("bad", tensor("model.normalizer.mean", lambda mean: mean[:3])), 65, EDITED),
    Case("a tokenizer of a mean of nan", ENCODE, tokenizer("bad", tensor("model.normalizer.mean", lambda mean: mean * np.float32(np.nan))), 65, EDITED),
    Case("a tokenizer of a scale of 0", ENCODE, tokenizer("bad", tensor("model.normalizer.scale", lambda scale: scale * 0)), 65, EDITED),
    Case("a tokenizer of codes of nan", ENCODE, tokenizer("bad", tensor("model.bottleneck.layers.0.vectors", lambda v: v * np.float32(np.nan))), 65, EDITED),
    Case("a tokenizer of codes of nan, to inspect", INSPECT, tokenizer("bad", tensor("model.bottleneck.layers.0.vectors", lambda v: v * np.float32(np.nan))), 65, r"bad: its code vectors are not finite; the run diverged, so train again"),
    Case("a tokenizer of weights of infinity", ENCODE, tokenizer("bad", lambda tensors, header: tensors.update({key: value * np.float32(np.inf) for key, value in tensors.items() if key.startswith("model.encoder") and value.dtype == "f4"})), 65, EDITED),
    Case("a tokenizer without usage, to inspect", INSPECT, tokenizer("bad", tensor("usage.counts.1", None)), 65, r"bad: holds no usage.counts.1; encode motion with it and inspect the token file"),
    Case("a tokenizer of another usage, to inspect", INSPECT, tokenizer("bad", tensor("usage.counts.1", lambda counts: counts[:5])), 65, r"bad: its usage counts do not fit its codebooks; the file is damaged"),
    Case("a tokenizer of a usage below 0, to inspect", INSPECT, tokenizer("bad", tensor("usage.counts.1", lambda counts: counts - 10**6)), 65, r"bad: its usage counts do not fit its codebooks; the file is damaged"),
    Case("a VAE of a usage of nan, to inspect", INSPECT, tokenizer("bad", tensor("usage.kl", lambda kl: kl * np.nan), "VAE"), 65, r"bad: .*not finite.*"),
    Case("a VAE of another usage, to inspect", INSPECT, tokenizer("bad", tensor("usage.kl", lambda kl: kl[:2]), "VAE"), 65, r"bad: its usage tensors differ in shape; the file is damaged"),
]


def without_tokenizer(run: Path) -> None:
    (run / "tokenizer.safetensors").unlink()


def damaged_checkpoints(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        without_tokenizer(run)
        for path in run.glob("checkpoints/*/*"):
            path.write_bytes(change(path.read_bytes()))

    return damage


def state_changed(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    """A checkpoint of other tensors, with its right digest."""

    def damage(run: Path) -> None:
        from vqtool.tokenizer_file import unpack

        without_tokenizer(run)
        for path in run.glob("checkpoints/*/*"):
            tensors, header = unpack(path)
            change(tensors)
            del header["sha256"]
            path.write_bytes(pack(tensors, header))

    return damage


def written(name: str, content: bytes | str) -> Callable[[Path], None]:
    return lambda run: file(name, content)(run, None)  # type: ignore[arg-type,func-returns-value,return-value]


RESUME = "train MOTION -o run --resume -q"
RUNS = [
    Case("a run without tokenizer", "encode run MOTION -o out.h5", run_folder("RUN", without_tokenizer), 66, r"run: holds no tokenizer.safetensors; training has not finished; go on with vqtool train ... --resume"),
    Case("a run of another kind", "inspect-codebook in", within("in", file("x", "mine")), 66, r"in: holds no tokenizer.safetensors; name a run folder that vqtool train wrote"),
    Case("resume of what is no run", "train MOTION -o in --resume", within("in", file("x", "mine")), 73, r"in: is a folder that no vqtool train made; choose another -o"),
    Case("resume with another config", "train MOTION -o run --resume --set train.lr=0.5", run_folder("RUN", lambda run: None), 78, r"run: was begun with another config: train.lr: 0.002 -> 0.5; leave out what differs to go on, or train anew with another -o"),
    Case("resume with more steps", "train MOTION -o run --resume --steps 400", run_folder("RUN", lambda run: None), 78, r"run: was begun with another config: train.steps: 40 -> 400 \(what a step does depends on how many there are: no run can be made longer\); leave out what differs to go on, or train anew with another -o"),
    Case("resume with another model", "train MOTION -o run --resume --model vq", run_folder("RUN", lambda run: None), 78, r"run: was begun with another config: model.bottleneck: 'rvq' -> 'vq'; leave out what differs to go on, or train anew with another -o"),
    Case("resume with another preset", "train MOTION -o run --resume --preset t2m-gpt", run_folder("RUN", lambda run: None), 78, r"run: was begun with another config: model.bottleneck: 'rvq' -> 'vq'.*; leave out what differs to go on, or train anew with another -o"),
    Case("resume with another preset of this model", "train MOTION -o run --resume --preset momask", run_folder("RUN", lambda run: None), 78, r"run: was begun with another config: bottleneck.codebook_size: 16 -> 512; .*; leave out what differs to go on, or train anew with another -o"),
    Case("resume with other motion", "train bad.h5 -o run --resume -q", both(run_folder("RUN", without_tokenizer), motion("bad.h5", {"a": lively(80), "b": lively(90)})), 78, r"run: the motion is not what this run was begun with; give the same files"),
    Case("resume with other columns", "train bad.h5 -o run --resume -q", both(run_folder("RUN", without_tokenizer), motion("bad.h5", {"a": lively(80, 4), "b": lively(90, 4)})), 78, r"run: the motion is not what this run was begun with; give the same files"),
    Case("resume of a broken config", RESUME, run_folder("RUN", written("config.toml", "[train\n")), 2, r"run/config.toml: is not TOML: .*"),
    Case(
        "resume of an empty config",
        RESUME,
        run_folder("RUN", written("config.toml", "")),
        65,
        r"run/checkpoints/step-\d+: does not fit this run; it was edited, so begin anew with --force",
    ),
    Case("resume of a config of binary", RESUME, run_folder("RUN", written("config.toml", bytes(range(256)))), 2, r"run/config.toml: is not TOML: byte 128 is no UTF-8; save it as UTF-8"),
    Case("resume of another config", RESUME, run_folder("RUN", written("config.toml", "[dreams]\na = 1\n")), 2, r"run/config.toml: no section 'dreams'; there are data, model, bottleneck, loss, train"),
    Case("resume of other metrics", RESUME, run_folder("RUN", lambda run: (without_tokenizer(run), written("metrics.jsonl", "once upon a time\n")(run))), 65, r"run/metrics.jsonl: .*line 1.*"),
    Case("resume of metrics of binary", RESUME, run_folder("RUN", lambda run: (without_tokenizer(run), written("metrics.jsonl", bytes(range(256)))(run))), 65, r"run/metrics.jsonl: .*line 1.*"),
    Case("resume of metrics without steps", RESUME, run_folder("RUN", lambda run: (without_tokenizer(run), written("metrics.jsonl", "[1]\n")(run))), 65, r"run/metrics.jsonl: .*line 1.*"),
    Case("resume of a checkpoint without a tensor", RESUME, run_folder("RUN", state_changed(lambda state: state.pop("model.normalizer.mean"))), 65, r"run/checkpoints/step-000040.*: .*"),
    Case("resume of a checkpoint without a digest", RESUME, run_folder("RUN", state_changed(lambda state: state.pop("data_digest"))), 65, r"run/checkpoints/step-000040.*: .*"),
    Case("resume of a checkpoint of other shapes", RESUME, run_folder("RUN", state_changed(lambda state: state.update({"model.normalizer.mean": np.ones(3, "f4")}))), 65, r"run/checkpoints/step-000040.*: .*"),
    Case("resume of a checkpoint of another optimizer", RESUME, run_folder("RUN", state_changed(lambda state: state.update({"optimizer.dreams.step": np.ones(3, "f4")}))), 65, r"run/checkpoints/step-000040.*: .*"),
    Case("resume of checkpoints that are tokenizers", RESUME, run_folder("RUN", lambda run: [path.write_bytes((run / "tokenizer.safetensors").read_bytes()) for path in run.glob("checkpoints/*/*")]), 78, r"run.*: .*checkpoint.*"),
]

TRAIN = "train MOTION -o run -q --set train.steps=2 --set model.width=16 --set model.latent_dim=8"
CONFIG = f"{TRAIN} --config bad.toml"
CONFIGS = [
    Case("a missing config", CONFIG, nothing, 66, r"bad.toml: no such config file"),
    Case("a config that is no TOML", CONFIG, file("bad.toml", "[train\nsteps = 3"), 2, r"bad.toml: is not TOML: .*"),
    Case("a config of JSON", CONFIG, file("bad.toml", '{"train": {"steps": 3}}'), 2, r"bad.toml: is not TOML: .*"),
    Case("a config with a key twice", CONFIG, file("bad.toml", "[train]\nsteps = 3\nsteps = 4\n"), 2, r"bad.toml: is not TOML: .*"),
    Case("a config not of UTF-8", CONFIG, file("bad.toml", b'[model]\nactivation = "\xff"\n'), 2, r"bad.toml: is not TOML: byte 22 is no UTF-8; save it as UTF-8"),
    Case("a config of UTF-16", CONFIG, file("bad.toml", "[train]\nsteps = 3\n".encode("utf-16")), 2, r"bad.toml: is not TOML: byte 0 is no UTF-8; save it as UTF-8"),
    Case("a config of binary", CONFIG, file("bad.toml", bytes(range(256)) * 99), 2, r"bad.toml: is not TOML: byte 128 is no UTF-8; save it as UTF-8"),
    Case("a config of 50 MB", CONFIG, lambda folder, good: (folder / "bad.toml").write_text("[train]\nlr = " + "1" * 50_000_000), 2, r"bad.toml: is larger than 65,536 bytes, the most that is read of such a file", apart=True),
    Case("a config of 50 MB of keys", CONFIG, lambda folder, good: (folder / "bad.toml").write_text("[train]\n" + "".join(f"a{n} = 1\n" for n in range(4_000_000))), 2, r"bad.toml: is larger than 65,536 bytes, the most that is read of such a file", apart=True),
    Case("a config of brackets", CONFIG, file("bad.toml", "[train]\nbetas = " + "[" * 60_000), 2, r"bad.toml: is not TOML: it is nested too deep"),
    Case("a config of dots", CONFIG, file("bad.toml", "a" + ".a" * 32_000 + " = 1"), 2, r"bad.toml: is not TOML of settings: it has more than 4,096 dots", apart=True),
    Case("a config of digits", CONFIG, file("bad.toml", "[train]\nsteps = " + "1" * 5000), 2, r"bad.toml: is not TOML: .*"),
    Case("a config without sections", CONFIG, file("bad.toml", "steps = 3"), 2, r"bad.toml: no section 'steps'; did you mean 'train.steps'\?"),
    Case("a config with an unknown section", CONFIG, file("bad.toml", "[trian]\nsteps = 3"), 2, r"bad.toml: no section 'trian'; did you mean 'train'\?"),
    Case("a config with an unknown key", CONFIG, file("bad.toml", "[train]\nstep = 3"), 2, r"bad.toml: no setting 'train.step'; did you mean 'train.steps'\?"),
    Case("a config with an unknown key far off", CONFIG, file("bad.toml", "[train]\nzzz = 3"), 2, r"bad.toml: no setting 'train.zzz'; did you mean 'train.lr'\?"),
    Case("a config with a key in the wrong section", CONFIG, file("bad.toml", "[model]\nlr = 3"), 2, r"bad.toml: no setting 'model.lr'; did you mean 'train.lr'\?"),
    Case("a config with an unknown option", CONFIG, file("bad.toml", "[bottleneck]\ncodebok_size = 3"), 2, r"bottleneck 'rvq' has no option 'codebok_size'; it takes num_quantizers, codebook_size, codebook_update, .*"),
    Case("a config with a name with escapes", CONFIG, file("bad.toml", '[train]\n"\\u001b[31m\\u202e" = 3'), 2, r"bad.toml: no setting 'train.\\x1b\[31m\\u202e'; did you mean 'train.lr'\?"),
    Case(
        "a config with a name of 5000 letters",
        CONFIG,
        file("bad.toml", f"[train]\n{FULL_NAME} = 3"),
        2,
        r"bad.toml: no setting 'train.n+...'; there are data.dataset, data.fps, .*",
    ),
    Case("a config with a section in a section", CONFIG, file("bad.toml", "[train.steps]\na = 3"), 2, r"bad.toml: train.steps takes a whole number, not \{'a': 3\}"),
    Case("a config with a date", CONFIG, file("bad.toml", "[train]\nsteps = 2020-01-01"), 2, r"bad.toml: train.steps takes a whole number, not datetime.date\(2020, 1, 1\)"),
    *[
        Case(f"{key} of {value[:40]}", f"{TRAIN} --set '{key}={value}'", nothing, 2, message)
        for key, value, message in (
            ("train.steps", "0", r"train.steps is at least 1, not 0"),
            ("train.steps", "-1", r"train.steps is at least 1, not -1"),
            ("train.steps", "1.5", r"train.steps takes a whole number, not 1.5"),
            ("train.steps", "many", r"train.steps takes a whole number, not 'many'"),
            ("train.steps", "true", r"train.steps takes a whole number, not True"),
            ("train.steps", "10000000000000000000000", r"train.steps is at most 1,000,000,000, not 10,000,000,000,000,000,000,000"),
            ("train.lr", "nan", r"train.lr takes finite numbers, not nan"),
            ("train.lr", "inf", r"train.lr takes finite numbers, not inf"),
            ("train.lr", "-1", r"train.lr is at least 0, not -1.0"),
            ("train.lr", "fast", r"train.lr takes a number, not 'fast'"),
            ("train.lr", "true", r"train.lr takes a number, not True"),
            ("train.lr", "[1]", r"train.lr takes a number, not \[1\]"),
            ("train.lr", "1e999", r"train.lr takes finite numbers, not inf"),
            ("train.batch_size", "0", r"train.batch_size is at least 1, not 0"),
            ("train.batch_size", "1000000000000", r"train.batch_size times train.window is at most 16,777,216, not 64,000,000,000,000"),
            ("train.window", "0", r"train.window is at least 1, not 0"),
            ("train.window", "33", r"train.window 33 is not a multiple of model.downsample 4"),
            ("train.window", "1000000000000", r"train.batch_size times train.window is at most 16,777,216, not 64,000,000,000,000"),
            ("train.betas", "[0.9]", r"train.betas takes two numbers in \[0, 1\), not \[0.9\]"),
            ("train.betas", "[0.9, 1.0]", r"train.betas takes two numbers in \[0, 1\), not \[0.9, 1.0\]"),
            ("train.betas", '["a", "b"]', r"train.betas takes a list of numbers, as \[0.5, 0.9\], not \['a', 'b'\]"),
            ("train.betas", "0.9", r"train.betas takes a list of numbers, as \[0.5, 0.9\], not 0.9"),
            ("train.schedule", "dream", r"train.schedule is 'cosine' or 'constant', not 'dream'"),
            ("train.ema_decay", "1", r"train.ema_decay is in \[0, 1\), not 1.0"),
            ("train.weight_decay", "-1", r"train.weight_decay is at least 0, not -1.0"),
            ("train.clip_norm", "-1", r"train.clip_norm is at least 0, not -1.0"),
            ("train.lr_warmup", "-1", r"train.lr_warmup is at least 0, not -1"),
            ("train.continuous", "1.5", r"train.continuous is in \[0, 1\), not 1.5"),
            ("train.eval_every", "0", r"train.eval_every is at least 1, not 0"),
            ("train.checkpoint_every", "0", r"train.checkpoint_every is at least 1, not 0"),
            ("train.keep_checkpoints", "0", r"train.keep_checkpoints is at least 1, not 0"),
            ("train.seed", "-1", r"train.seed is at least 0, not -1"),
            ("train.seed", "9223372036854775808", r"train.seed is below 2\*\*63, not 9223372036854775808"),
            ("model.bottleneck", "gpt", r"no model 'gpt'; there are vae, vq, rvq, fsq, product"),
            ("model.bottleneck", "3", r"model.bottleneck takes text, not 3"),
            ("model.width", "0", r"model.width is at least 1, not 0"),
            ("model.width", "1000000000", r"model.width is at most 8,192, not 1,000,000,000"),
            ("model.width", "100000", r"model.width is at most 8,192, not 100,000"),
            ("model.depth", "-1", r"model.depth is at least 0, not -1"),
            ("model.depth", "1000000000", r"model.depth is at most 64, not 1,000,000,000"),
            ("model.downsample", "3", r"model.downsample is 1, 2, 4 or 8, not 3"),
            ("model.downsample", "0", r"model.downsample is at least 1, not 0"),
            ("model.downsample", "1000000000", r"model.downsample is 1, 2, 4 or 8, not 1000000000"),
            ("model.downsampling", "dream", r"model.downsampling is 'fold' or 'strided', not 'dream'"),
            ("model.activation", "dream", r"model.activation is one of relu, gelu, silu, not 'dream'"),
            ("model.latent_dim", "0", r"model.latent_dim is at least 1, not 0"),
            ("model.latent_dim", "1000000000", r"model.latent_dim is at most 8,192, not 1,000,000,000"),
            ("model.dilation_growth", "0", r"model.dilation_growth is at least 1, not 0"),
            ("model.dilation_growth", "1000000000000", r"the longest dilation, model.dilation_growth to the power of model.depth - 1, is at most 1,048,576, not 4,398,046,511,104"),
            ("model.causal", "maybe", r"model.causal takes true or false, not 'maybe'"),
            ("bottleneck.codebook_size", "0", r"codebook_size 0 does not give 6 layers of 1 to 1,048,576 codes"),
            ("bottleneck.codebook_size", "1000000000000", r".*codebook_size.*"),
            ("bottleneck.codebook_size", "big", r"bottleneck.codebook_size takes a whole number or a list of whole numbers, as \[512, 256\], not 'big'"),
            ("bottleneck.codebook_size", "[]", r"codebook_size \[\] does not give 6 layers of 1 to 1,048,576 codes"),
            ("bottleneck.codebook_size", "nan", r"bottleneck.codebook_size takes a whole number or a list of whole numbers, as \[512, 256\], not nan"),
            ("bottleneck.num_quantizers", "0", r"num_quantizers is from 1 to 64, not 0"),
            ("bottleneck.num_quantizers", "1000000000", r".*num_quantizers.*"),
            ("bottleneck.num_quantizers", "1.5", r"bottleneck.num_quantizers takes a whole number, not 1.5"),
            ("bottleneck.codebook_update", "dream", r"codebook_update is 'ema', 'gradient' or 'simvq', not 'dream'"),
            ("bottleneck.ema_decay", "2", r".*ema_decay.*"),
            ("bottleneck.ema_decay", "nan", r".*ema_decay.*"),
            ("bottleneck.quantizer_dropout", "-1", r".*quantizer_dropout.*"),
            ("bottleneck.shared_codebook", "maybe", r".*shared_codebook.*"),
            ("bottleneck.dreams", "1", r"bottleneck 'rvq' has no option 'dreams'; it takes num_quantizers, codebook_size, codebook_update, .*"),
            ("loss.reconstruction", "dream", r"loss.reconstruction is 'l1', 'l2' or 'smooth_l1', not 'dream'"),
            ("loss.velocity", "nan", r"loss.velocity takes finite numbers, not nan"),
            ("loss.commitment", "-1", r"loss.commitment is at least 0, not -1.0"),
            ("loss.kl", "-1", r"loss.kl is at least 0, not -1.0"),
            ("loss.kl_warmup", "1", r"loss.kl_warmup is in \[0, 1\), not 1.0"),
            ("loss.columns.dreams", "1", r"no columns 'dreams' in layout 'raw' with 5 columns; name a group \(none\) or a range like 0:3"),
            ("loss.columns.0:99", "1", r"no columns '0:99' in layout 'raw' with 5 columns; name a group \(none\) or a range like 0:3"),
            ("loss.columns.0:2", "nan", r"loss.columns.0:2 takes finite numbers, not nan"),
            ("loss.columns", "3", r'loss.columns takes a table of numbers, as \{"0:3" = 2.0\}, not 3'),
            ("data.val_fraction", "1", r"data.val_fraction is in \[0, 1\), not 1.0"),
            ("data.val_fraction", "-0.1", r"data.val_fraction is in \[0, 1\), not -0.1"),
            ("data.fps", "0", r"--fps takes a positive number, not 0"),
            ("data.dataset", "3", r"data.dataset takes text, not 3"),
            ("data.seed", "x", r"data.seed takes a whole number, not 'x'"),
            ("dreams.a", "1", r"no setting 'dreams.a'; there are data.dataset, data.fps, data.val_fraction, data.seed, model.bottlen.*"),
            ("train", "1", r"--set takes section.key=value, for example train.lr=1e-3, not 'train=1'"),
            ("train.", "1", r"no setting 'train.'; did you mean 'train.lr'\?"),
            (".lr", "1", r"no setting '.lr'; did you mean 'train.lr'\?"),
            ("train.learning_rate", "1", r"no setting 'train.learning_rate'; did you mean 'train.lr'\?"),
            ("learning_rate", "1", r"--set takes section.key=value, for example train.lr=1e-3, not 'learning_rate=1'; did you mean 'train.lr'\?"),
            ("model.batch_size", "1", r"no setting 'model.batch_size'; did you mean 'train.batch_size'\?"),
            ("model.seed", "1", r"no setting 'model.seed'; did you mean 'data.seed' or 'train.seed'\?"),
            ("model.codebook_size", "1", r"no setting 'model.codebook_size'; did you mean 'bottleneck.codebook_size'\?"),
            ("model.hidden", "1", r"no setting 'model.hidden'; did you mean 'model.width'\?"),
            ("model.layers", "1", r"no setting 'model.layers'; did you mean 'model.depth'\?"),
            ("bottleneck.num_codes", "1", r"bottleneck 'rvq' has no option 'num_codes'; it takes .*, encode_beam; did you mean 'bottleneck.codebook_size'\?"),
            ("bottleneck.width", "1", r"bottleneck 'rvq' has no option 'width'; it takes .*, encode_beam; did you mean 'model.width'\?"),
            ("bottleneck.ema_decay", "slow", r"bottleneck.ema_decay takes a number, not 'slow'"),
            ("train.lr.x", "1", r"no setting 'train.lr.x'; did you mean 'train.lr'\?"),
        )
    ],
    Case("a setting without value", f"{TRAIN} --set train.lr", nothing, 2, r"--set takes section.key=value, for example train.lr=1e-3, not 'train.lr'"),
    Case("an empty setting", f"{TRAIN} --set ''", nothing, 2, r"--set takes section.key=value, for example train.lr=1e-3, not ''"),
    Case("a setting of brackets", f"{TRAIN} --set 'train.lr={'[' * 50_000}'", nothing, 2, r"train.lr takes a number, not '\[\[\[\[\[\[\[\[\[\[\[\[...\[\[\[\[\[\[\[\[\[\[\[\[\['"),
    *[
        Case(f"the variable {name}={value}", TRAIN, nothing, 2, message, environment={name: value})
        for name, value, message in (
            ("VQTOOL_TRAIN_LR", "fast", r"VQTOOL_TRAIN_LR: train.lr takes a number, not 'fast'"),
            ("VQTOOL_TRAIN_LRR", "1", r"VQTOOL_TRAIN_LRR: no setting 'train.lrr'; did you mean 'train.lr'\?"),
            ("VQTOOL_TRAIN_STEPS", "1.5", r"VQTOOL_TRAIN_STEPS: train.steps takes a whole number, not 1.5"),
            ("VQTOOL_DREAMS", "1", r"the environment variable VQTOOL_DREAMS means nothing; did you mean 'VQTOOL_DATA_FPS'\?"),
            ("VQTOOL_TRIAN_LR", "1", r"the environment variable VQTOOL_TRIAN_LR means nothing; did you mean 'VQTOOL_TRAIN_LR'\?"),
            ("VQTOOL_TRAIN_", "1", r"the environment variable VQTOOL_TRAIN_ means nothing; did you mean 'VQTOOL_TRAIN_LR'\?"),
            ("VQTOOL_THREADS", "0", r"VQTOOL_THREADS takes a whole number from 1 to 4,096, not '0'"),
            ("VQTOOL_THREADS", "x", r"VQTOOL_THREADS takes a whole number from 1 to 4,096, not 'x'"),
            ("VQTOOL_DEVICE", "abacus", r"device 'abacus' is not available here; try --device auto"),
            ("VQTOOL_BOTTLENECK_DREAMS", "1", r"bottleneck 'rvq' has no option 'dreams'; it takes num_quantizers, codebook_size, codebook_update, .*"),
            ("VQTOOL_MODEL_BOTTLENECK", "gpt", r"no model 'gpt'; there are vae, vq, rvq, fsq, product"),
        )
    ],
    Case(
        "a learning rate too high",
        "train MOTION -o run -q --steps 20 --set train.lr=1e30 --set train.lr_warmup=0 --set model.width=16 --set model.latent_dim=8 --set bottleneck.codebook_size=16",
        nothing,
        77,
        r"run: the loss is nan and its gradient nan at step 2; begin anew with a smaller train.lr \(--force\)",
        left=("run",),
    ),
]
# fmt: on


CASES = [
    *COMMAND_LINES,
    *OUTPUTS,
    *PLACES,
    *BVH,
    *ARRAYS,
    *CSV,
    *FOLDERS,
    *HDF5,
    *MOTION,
    *TOKENS,
    *TOKENIZERS,
    *RUNS,
    *CONFIGS,
]


# Running them


def make_good(folder: Path, get: Callable[[str, Path], Path]) -> Good:
    """The good files; `get` gives the run of a model trained on a motion.h5."""
    path = folder / "motion.h5"
    lengths = [1, 3, 5, 40, 41, 64, 65, 130, 200, 260, 33, 76]
    with create_motion(path, dim=5, fps=30, total_frames=sum(lengths)) as writer:
        for number, length in enumerate(lengths):
            writer.append(f"clip_{number:02d}", lively(length, seed=number))
    run, vae = get("rvq", path), get("vae", path)
    for model, name in ((run, "tokens.h5"), (vae, "latents.h5")):
        assert main(["encode", str(model), str(path), "-o", str(folder / name), "-q"]) == 0
    return Good(path, run, vae, folder / "tokens.h5", folder / "latents.h5")


def trained_in(folder: Path) -> Callable[[str, Path], Path]:
    """Runs of a second or two each."""

    def get(model: str, path: Path) -> Path:
        from vqtool.nn.trainer import train

        with MotionSet([path]) as clips:
            train(small_config(model), clips, folder / model, Silent(), device="cpu")
        return folder / model

    return get


@dataclass
class Measured:
    """How a case went in a process of its own; `cpu` is what of `seconds` it worked."""

    code: int
    out: str
    errors: str
    seconds: float
    cpu: float
    mb: float
    torch: bool  # whether it was imported


# A process starts with the peak memory of the one that starts it: a small one stands between.
STARTER = """
import os, resource, signal, sys, time
begin = time.monotonic()
child = os.fork()
if not child:
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
    signal.alarm(120)  # for what only waits; on a busy machine importing torch takes half a minute
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
_, status, usage = os.wait4(child, 0)
words = os.waitstatus_to_exitcode(status), time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss
os.write(int(sys.argv[1]), " ".join(map(str, ("", *words))).encode())
"""
CHILD = """
import os, sys
from vqtool.cli import main
code = main(sys.argv[2:])
os.write(int(sys.argv[1]), b"torch" if "torch" in sys.modules else b"-")
sys.exit(code)
"""


def run_apart(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Measured:
    """Type the words in a process of its own, which is killed after 30 seconds of work or two minutes."""
    reader, writer = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", STARTER, str(writer), CHILD, str(writer), *map(os.fsencode, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
        capture_output=True,
        pass_fds=[writer],
    )
    os.close(writer)
    with open(reader) as pipe:
        torch, code, seconds, cpu, kilobytes = pipe.read().split(" ")
    out, errors = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    return Measured(int(code), out, errors, float(seconds), float(cpu), int(kilobytes) / 1024, torch != "-")


def importing_torch() -> float:
    """Seconds of work that importing torch takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_all(chosen: Sequence[str]) -> int:
    """The script: a line or two for each case, then the counts and the worst."""
    importing_torch()
    import_torch = importing_torch()
    counts: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    fattest: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        good = make_good(place, trained_in(place))
        for case in CASES:
            if chosen and not any(word in case.name for word in chosen):
                continue
            counts["cases"] += 1
            if case.skip:
                counts["not run here"] += 1
                continue
            work = place / "case"
            work.mkdir()
            case.make(work, good)
            before = listing(work)
            done = run_apart(case.argv(good), work, case.environment)
            what = fault(case, done.code, done.out, done.errors, before, listing(work))
            for path in work.iterdir():
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o700)
            shutil.rmtree(work)
            cpu = done.cpu - import_torch * done.torch
            slowest.append((cpu, case.name))
            fattest.append((done.mb, case.name))
            faults = ["wrong"] * bool(what) + ["slow"] * (cpu > MAX_SECONDS) + ["fat"] * (done.mb > MAX_MB)
            counts.update(faults)
            counts["torch loaded"] += done.torch
            told = (done.out if case.stdout else done.errors).strip() or "(nothing)"
            print(
                f"{cpu:5.2f} s {done.seconds:5.2f} s {done.mb:4.0f} MB  {' '.join(faults):<10}  {printable(case.name)}"
            )
            print(f"    {done.code}  {printable(told)[:500]}")
            if what:
                print(f"    {printable(what)[:500]}")
            sys.stdout.flush()
    print("\nseconds of work beyond importing torch, seconds on the clock, peak memory")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    print(f"limits {MAX_SECONDS:g} s and {MAX_MB} MB; importing torch took {import_torch:.2f} s")
    print("slowest:", ", ".join(f"{cpu:.2f} s {name}" for cpu, name in sorted(slowest)[:-6:-1]))
    print("fattest:", ", ".join(f"{mb:.0f} MB {name}" for mb, name in sorted(fattest)[:-6:-1]))
    return 0 if counts["wrong"] + counts["slow"] + counts["fat"] == 0 else 1


if __name__ == "__main__":
    sys.exit(run_all(sys.argv[1:]))
