"""Mutate small valid files and read the mutants as the commands do, in children with limits.

    python tests/fuzz.py hdf5 --count 5000 --seed 0

A reader may succeed or raise a VqtoolError with one of CODES. Everything else is a finding: another exception, a
warning, a crash, more than 5 s of CPU time, more than 500 MB, and a mutant of a file of ours that passes its SHA-256
with another content. Mutant `index` of (kind, seed) is always the same bytes; findings are saved to --save.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import gc
import hashlib
import io
import itertools
import json
import mmap
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from motion_samples import BODY, TWO_JOINTS, smooth

from vqtool import probe
from vqtool.companions import Caption, Companions
from vqtool.config import Config, build_config, read_toml, to_toml
from vqtool.errors import VqtoolError
from vqtool.formats import FORMATS, sniff
from vqtool.formats.base import ReadOptions
from vqtool.formats.bvh import read_bvh, read_channels, write_bvh
from vqtool.inspection import inspect
from vqtool.store import MotionSet, create_motion
from vqtool.summary import summarize
from vqtool.tokenizer_file import TokenizerFile, pack, read_tokenizer, unpack
from vqtool.tokens import TokenHeader, TokenSet, create_latents, create_tokens
from vqtool.validation import find_problems

CODES = {2, 65, 66, 74, 76, 78}
CPU_SECONDS = 5
MEMORY = 500 << 20
BATCH = 40
CAUGHT = ("crashes HDF5", "without end", "of memory")

Regions = list[tuple[int, int]]


@dataclasses.dataclass
class Seed:
    """A valid file: its name says its suffix; `hot` are the places where a byte means much; `ours` carries a digest."""

    name: str
    data: bytes
    hot: Regions
    ours: bool = False


# ---- valid files


def companions(clips: int) -> Companions:
    return Companions(
        splits=np.arange(clips, dtype=np.uint8) % 3,
        mirror_of=np.array([-1] * clips, dtype="<i8"),
        starts=np.arange(3 * clips, dtype="<f8").reshape(clips, 3),
        bodies=(BODY,),
        body_of=np.zeros(clips, "<i8"),
        captions=(Caption(0, "a man walks", 0.0, 1.0, "a/DET man/NOUN"), Caption(clips - 1, "she jumps")),
    )


HEADER = TokenHeader(
    dim=6,
    fps=30.0,
    downsample=4,
    bottleneck="rvq",
    layout="raw",
    tokenizer_id="ab" * 32,
    numerics="stable",
    source='["a.h5"]',
    codebook_sizes=(8, 300),
)


def motion_file(path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = [5, 0, 40, 1, 64]
    with create_motion(path, dim=6, fps=30, units="m", source="here", total_frames=sum(lengths)) as writer:
        for number, length in enumerate(lengths):
            writer.append(f"clip {number}", rng.normal(size=(length, 6)))
        writer.companions = companions(len(lengths))
        writer.array("stats/mean", np.zeros(6))
        writer.array("stats/std", np.ones(6))
        writer.array("stats/count", np.array([110], "<i8"))


def repacked_file(path: Path) -> None:
    """A motion.h5 as h5repack leaves it."""
    source = path.with_name("plain.h5")
    motion_file(source)
    with h5py.File(source) as old, h5py.File(path, "w") as new:
        for name in old:
            if name != "frames":
                old.copy(name, new)
        new.create_dataset("frames", data=old["frames"][:], chunks=(32, 6), compression="gzip", shuffle=True)
        for key in old.attrs:
            new.attrs.create(key, old.attrs[key], dtype=old.attrs.get_id(key).dtype)


def tokens_file(path: Path) -> None:
    rng = np.random.default_rng(1)
    frames = np.array([5, 0, 12, 1, 64])
    books = [rng.normal(size=(size, 3)).astype("f4") for size in HEADER.codebook_sizes]
    names = [f"clip {number}" for number in range(5)]
    with create_tokens(path, names, frames, HEADER, books, companions=companions(5)) as writer:
        writer.extend(codes=np.stack([rng.integers(0, size, 22) for size in HEADER.codebook_sizes], axis=1))


def latents_file(path: Path) -> None:
    header = dataclasses.replace(HEADER, bottleneck="vae", codebook_sizes=())
    mean, logvar = np.random.default_rng(2).normal(size=(2, 22, 3)).astype("f4")
    with create_latents(path, list("abcde"), np.array([5, 0, 12, 1, 64]), header, 3) as writer:
        writer.extend(mean=mean, logvar=logvar)


def foreign_file(path: Path, libver: str, grows: int = 0, **options: Any) -> None:
    """Nested groups, numbers of several types, texts of variable length, a link, an enum; `grows`: endless axes."""
    rng = np.random.default_rng(3)

    def create(group: h5py.Group, name: str, data: np.ndarray) -> None:
        limit = {"maxshape": (None,) * grows + data.shape[grows:]} if grows else {}
        group.create_dataset(name, data=data, **limit, **options)

    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["fps"] = 30.0
        file.attrs["layout"] = "raw"
        file.attrs["about"] = "text of variable length"
        for number in range(3):
            group = file.create_group(f"data/demo_{number}")
            create(group, "actions", rng.normal(size=(50 + number, 6)).astype("f4"))
            group.create_dataset("rewards", data=np.zeros(50))
            group.attrs["language"] = ["pick", "place"]
        create(file, "data/joints", rng.normal(size=(30, 2, 3)))
        file.create_dataset("data/ints", data=np.arange(120, dtype=">i2").reshape(20, 6))
        file.create_dataset("data/text", data="words", dtype=h5py.string_dtype())
        file["data/soft"] = h5py.SoftLink("/data/joints")
        file["data/flags"] = np.zeros((4, 6), bool)


FOREIGN: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "gzip": {"chunks": True, "compression": "gzip", "shuffle": True},
    "lzf": {"chunks": True, "compression": "lzf"},
    "fletcher32": {"chunks": True, "fletcher32": True},
    "grown": {"grows": 1, "compression": "gzip"},
    "grown-twice": {"grows": 2},
}


def compact_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 30.0
        for name in ("a", "b"):
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_layout(h5py.h5d.COMPACT)
            plist.set_obj_track_times(False)
            space = h5py.h5s.create_simple((10, 3))
            dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plist)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones((10, 3), "f4"))


def hdf5_seeds(folder: Path) -> Iterator[Seed]:
    files: dict[str, Callable[[Path], None]] = {
        "motion.h5": motion_file,
        "repacked.h5": repacked_file,
        "tokens.h5": tokens_file,
        "latents.h5": latents_file,
        "compact.h5": compact_file,
    }
    for libver, (name, options) in itertools.product(("earliest", "latest"), FOREIGN.items()):
        files[f"{name}-{libver}.h5"] = partial(foreign_file, libver=libver, **options)
    for name, make in files.items():
        path = folder / name
        make(path)
        ours = name in ("motion.h5", "repacked.h5", "tokens.h5", "latents.h5")
        yield Seed(name, path.read_bytes(), metadata(path), ours)


def metadata(path: Path) -> Regions:
    """Where a file holds no rows: superblock, headers, heaps, trees."""
    rows: Regions = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.size:
            if node.chunks is None and node.id.get_offset() is not None:
                rows.append((node.id.get_offset(), node.id.get_offset() + node.id.get_storage_size()))
            elif node.chunks is not None:
                for number in range(node.id.get_num_chunks()):
                    chunk = node.id.get_chunk_info(number)
                    rows.append((chunk.byte_offset, chunk.byte_offset + chunk.size))

    with h5py.File(path) as file:
        file.visititems(visit)
    hot, last = [], 0
    for start, stop in [*sorted(rows), (path.stat().st_size,) * 2]:
        if start > last:
            hot.append((last, start))
        last = max(last, stop)
    return hot


def tokenizer() -> TokenizerFile:
    rng = np.random.default_rng(4)
    return TokenizerFile(
        config=Config().to_dict(),
        dim=6,
        fps=30.0,
        layout="raw",
        downsample=4,
        codebook_sizes=[8, 16],
        codebook_keys=["model.bottleneck.0", "model.bottleneck.1"],
        tensors={
            "model.bottleneck.0": rng.normal(size=(8, 3)).astype("f4"),
            "model.bottleneck.1": rng.normal(size=(16, 3)).astype("f4"),
            "model.steps": np.array(7),
            "usage.counts.0": np.arange(8),
            "usage.counts.1": np.arange(16),
        },
    )


def safetensors_seeds(folder: Path) -> Iterator[Seed]:
    tokenizer().save(folder / "tokenizer.safetensors")
    state = pack({"model.a": np.ones((3, 4), "f4")}, {"format": "vqtool.checkpoint", "format_version": 1, "step": 5})
    for name, data in {
        "tokenizer.safetensors": (folder / "tokenizer.safetensors").read_bytes(),
        "state.safetensors": state,
    }.items():
        yield Seed(name, data, [(0, 8 + int.from_bytes(data[:8], "little"))], ours=True)


def bvh_seeds(folder: Path) -> Iterator[Seed]:
    raw = io.BytesIO()
    write_bvh(raw, smooth(6))
    for name, text in {"two.bvh": TWO_JOINTS.encode(), "body.bvh": raw.getvalue()}.items():
        yield Seed(name, text, [(0, text.index(b"MOTION") + 60)])


def toml_seeds(folder: Path) -> Iterator[Seed]:
    text = to_toml(build_config({"bottleneck.codebook_size": 16, "loss.columns.root": 2.0, "train.betas": [0.9, 0.99]}))
    yield Seed("config.toml", text.encode(), [(0, len(text))])


def npy_seeds(folder: Path) -> Iterator[Seed]:
    for name, array in {"a": np.ones((20, 6), "f4"), "b": np.ones((10, 2, 3)), "c": np.ones((6, 5), ">i2").T}.items():
        raw = io.BytesIO()
        np.save(raw, array)
        yield Seed(f"{name}.npy", raw.getvalue(), [(0, 128)])


def npz_seeds(folder: Path) -> Iterator[Seed]:
    arrays = {"left": np.ones((10, 6), "f4"), "fps": np.array(30.0), "right": np.ones((10, 3))}
    for name, save in {"stored": np.savez, "deflated": np.savez_compressed}.items():
        raw = io.BytesIO()
        save(raw, **arrays)
        data = raw.getvalue()
        with zipfile.ZipFile(raw) as file:
            heads = [(info.header_offset, info.header_offset + 200) for info in file.infolist()]
        yield Seed(f"{name}.npz", data, [*heads, (data.index(b"PK\1\2"), len(data))])


def csv_seeds(folder: Path) -> Iterator[Seed]:
    rows = "".join(f"{n / 30:.4f},{n},{n * 0.5},-1e-3\n" for n in range(20))
    for name, text in {"named": "time,a,b,c\n" + rows, "bare": rows, "tabs": rows.replace(",", "\t")}.items():
        yield Seed(f"{name}.csv", text.encode(), [(0, 40)])


# ---- mutants

WORDS = {
    "safetensors": '"F32" "I64" "U8" "BF16" "F8_E4M3" "BOOL" -1 0 1 18446744073709551616 1e999 NaN null true {} [] '
    '[0,0] [[[[ "" "dtype" "shape" "data_offsets" "__metadata__" \\ud800 \\" \\u0000 , : { }',
    "bvh": "HIERARCHY ROOT JOINT End Site { } OFFSET CHANNELS MOTION Frames: Frame Time: nan inf 1e308 -1e308 1e999 0 "
    "-1 7 99999999999999 Xposition Zrotation Wrotation 0x10 1_000 \0 \udcff ٣",
    "toml": "[ ] [[ ]] { } = . , \" ' ''' nan inf -1 0 1e400 true 0x7fffffffffffffff 99999999999999999999 1979-05-27 "
    "[model] [train] bottleneck columns \\ud800 \\u0000 # [[[[[[[[ window",
    "npy": "(0,) (,) (-1,) (99999999999,2) '|O' '<f8' '>U1' '|V8' 'descr' True { } 0x1 1e9 NUMPY \1 \xff",
    "csv": ", ; \t nan inf 1e999 1e308 -0 0x1 1_0 ٣ \" ' # \ufeff \0 \x1c \x85 time \r \n",
}
WORDS["npz"] = WORDS["npy"]
TOKEN = re.compile(rb"[\w.+-]+|[^\w\s]")


def mutate(chance: random.Random, seed: Seed, words: list[bytes]) -> tuple[bytes, list[str]]:
    """A damaged copy, and what was done to it."""
    data = bytearray(seed.data)
    done = []
    for _ in range(chance.choice([1, 1, 1, 2, 3, 6])):
        done.append(_change(chance, data, seed, words))
        if not data:
            break
    return bytes(data), done


def _place(chance: random.Random, data: bytearray, seed: Seed) -> int:
    if seed.hot and chance.random() < 0.75:
        start, stop = chance.choice(seed.hot)
        return min(chance.randrange(start, stop), len(data) - 1)
    return chance.randrange(len(data))


def _change(chance: random.Random, data: bytearray, seed: Seed, words: list[bytes]) -> str:
    at = _place(chance, data, seed)
    length = chance.choice([1, 2, 4, 8, 16, chance.randrange(1, 200)])
    kinds = ["flip", "flip", "byte", "byte", "number", "number", "cut", "insert", "copy", "swap", "zero", "end"]
    if words:  # text, or a header that is text
        kinds = [*kinds[::2], *["token"] * 10, "word", "word", "line", "line"]
    kind = chance.choice(kinds)
    if kind == "flip":
        bit = chance.randrange(8)
        data[at] ^= 1 << bit
        return f"flip bit {bit} at {at}"
    if kind == "byte":
        value = chance.choice([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256), (data[at] + 1) % 256])
        data[at] = value
        return f"set {at} to {value}"
    if kind == "number":
        code = chance.choice(["<H", "<I", "<Q"])
        size = struct.calcsize(code)
        at = at // size * size if chance.random() < 0.7 else at
        old = int.from_bytes(data[at : at + size], "little")
        top = 1 << 8 * size
        value = chance.choice(
            [0, 1, top - 1, top >> 1, (top >> 1) - 1, len(data), old + 1, old - 1, old * 2, old // 2, at, top // 8]
        )
        data[at : at + size] = struct.pack(code, value % top)
        return f"set {size} bytes at {at} to {value % top}"
    if kind == "word":
        word = chance.choice(words)
        drop = chance.choice([0, len(word), chance.randrange(12)])
        data[at : at + drop] = word
        return f"put {word!r} over {drop} bytes at {at}"
    if kind == "token":
        found = TOKEN.search(data, at) or TOKEN.search(data)
        if found is not None:
            other = TOKEN.search(data, _place(chance, data, seed)) or found
            word = chance.choice([*words, bytes(other[0]), b"", found[0] * 2])
            data[found.start() : found.end()] = word
            return f"put {word!r} for {bytes(found[0])!r} at {found.start()}"
    if kind == "line":
        lines = data.split(b"\n")
        one, two = chance.randrange(len(lines)), chance.randrange(len(lines))
        move, remove = chance.random() < 0.5, chance.random() < 0.7
        if move:
            lines[two:two] = [lines[one]]
        if remove:
            del lines[one]
        data[:] = b"\n".join(lines)
        return f"line {one}: {'copied to ' + str(two) if move else ''} {'removed' if remove else ''}"
    if kind == "cut":
        del data[at : at + length]
        return f"cut {length} bytes at {at}"
    if kind == "insert":
        data[at:at] = chance.randbytes(length)
        return f"insert {length} bytes at {at}"
    other = _place(chance, data, seed)
    if kind == "copy":
        data[at : at + length] = data[other : other + length]
        return f"copy {length} bytes from {other} over {at}"
    if kind == "swap":
        one, two = data[at : at + length], data[other : other + length]
        data[at : at + length], data[other : other + length] = two, one
        return f"swap {length} bytes at {at} and {other}"
    if kind == "zero":
        data[at : at + length] = bytes(len(data[at : at + length]))
        return f"zero {length} bytes at {at}"
    del data[at:]
    return f"end at {at}"


# ---- readers: what the commands do; each ends at its first VqtoolError


def digest_of(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str} {part.shape}".encode() + part.tobytes())
        else:
            digest.update(repr(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _companions(known: Companions) -> list[Any]:
    return [
        *known.to_arrays().items(),
        known.captions,
        [(body.names, body.parents) for body in known.bodies],
    ]


def read_motion(path: Path, fps: float | None = None) -> str | None:
    with MotionSet([path], fps=fps) as motion:
        verified = motion.attribute("format") == "vqtool.motion"
        motion.verify()
        frames = [motion.read_all(clip) for clip in range(len(motion))]
        for clip, whole in enumerate(frames):
            assert len(motion.read(clip, len(whole) // 2)) == len(whole) - len(whole) // 2
        about = [motion.names, motion.fps, motion.dim, motion.layout, motion.originals]
        kept = [motion.array("stats/mean"), motion.attribute("units"), motion.attribute("source")]
        if motion.splits is not None:
            motion.select("train")
        if verified:
            return digest_of(*about, *kept, *frames, *itertools.chain(*_companions(motion.companions)))
    return None


def read_tokens(path: Path) -> str:
    with TokenSet(path) as tokens:
        tokens.verify()
        about = [tokens.names, tokens.header, tokens.offsets, tokens.num_frames]
        names = ["mean", "logvar"] if tokens.is_latents else ["codes"]
        rows = [tokens.rows(name, 0, tokens.num_tokens) for name in names]
        books = tokens.codebooks
        if not tokens.is_latents:
            tokens.check_codes()
            for clip in range(len(tokens)):
                assert len(tokens[clip].codes) == tokens.offsets[clip + 1] - tokens.offsets[clip]
        return digest_of(*about, *rows, *books, *itertools.chain(*_companions(tokens.companions)))


def read_formats(path: Path) -> None:
    for clip in FORMATS[sniff(path)].clips(path, "x", ReadOptions()):
        clip.read()


def list_problems(path: Path) -> None:
    for problem in find_problems([path], fps=None):
        str(problem)


def show(path: Path) -> None:
    json.dumps(inspect(path).to_json())


def summary(path: Path) -> None:
    with MotionSet([path], fps=None) as motion:
        json.dumps(summarize(motion, motion.select(None)).to_json(), allow_nan=False)


def read_safetensors(path: Path) -> str:
    tensors, header = unpack(path)
    return digest_of(header, *itertools.chain(*sorted(tensors.items())))


def load(path: Path) -> str:
    found = read_tokenizer(path)
    return digest_of(
        dataclasses.replace(found, tensors={}, path=None), *itertools.chain(*sorted(found.tensors.items()))
    )


def read_body(path: Path) -> None:
    for up, drop in (("y", "auto"), ("z", "yes")):
        read_bvh(path, up=up, drop_first_frame=drop)


def read_numbers(path: Path) -> None:
    read_channels(path)


def configure(path: Path) -> None:
    config = build_config(read_toml(path))
    again = path.with_suffix(".again.toml")
    again.write_text(to_toml(config), encoding="utf-8")
    assert build_config(read_toml(again)) == config


READERS: dict[str, list[Callable[[Path], str | None]]] = {
    "hdf5": [
        read_motion,
        lambda path: read_motion(path, 30.0),
        read_tokens,
        show,
        list_problems,
        summary,
        read_formats,
    ],
    "safetensors": [read_safetensors, load, show],
    "bvh": [read_body, read_numbers, read_formats],
    "toml": [configure],
    "npy": [read_formats],
    "npz": [read_formats],
    "csv": [read_formats],
}
SEEDS: dict[str, Callable[[Path], Iterator[Seed]]] = {
    "hdf5": hdf5_seeds,
    "safetensors": safetensors_seeds,
    "bvh": bvh_seeds,
    "toml": toml_seeds,
    "npy": npy_seeds,
    "npz": npz_seeds,
    "csv": csv_seeds,
}


def read_all(kind: str, path: Path) -> list[tuple[str, str | None]]:
    """How each reader went ("ok", its exit code, or what the probe caught), and its digest of the content."""
    results: list[tuple[str, str | None]] = []
    for reader in READERS[kind]:
        try:
            results.append(("ok", reader(path)))
        except VqtoolError as error:
            line = str(error)
            if error.exit_code not in CODES or "\n" in line or len(line) > 2000:
                raise AssertionError(f"exit code {error.exit_code}, {len(line)} characters: {line[:300]}") from error
            caught = any(what in line for what in CAUGHT)
            results.append((f"caught: {error.what}" if caught else str(error.exit_code), None))
            if caught:  # the others would meet the same
                break
    return results


# ---- running


@dataclasses.dataclass
class Finding:
    """A mutant that did what none may do."""

    index: int
    seed: str
    recipe: list[str]
    what: str


@dataclasses.dataclass
class Tally:
    """What became of the mutants; `caught` are those that would have ended the process but for the probe."""

    mutants: int = 0
    went: Counter[str] = dataclasses.field(default_factory=Counter)
    caught: Counter[str] = dataclasses.field(default_factory=Counter)
    findings: list[Finding] = dataclasses.field(default_factory=list)


class Fuzz:
    """The mutants of one kind and seed."""

    def __init__(self, kind: str, seed: int, folder: Path) -> None:
        self.kind, self.seed, self.folder = kind, seed, folder
        self.seeds = list(SEEDS[kind](folder))
        self.words = [word.encode("utf-8", "surrogateescape") for word in WORDS.get(kind, "").split(" ") if word]
        self.expected: dict[str, list[tuple[str, str | None]]] = {}

    def mutant(self, index: int) -> tuple[Seed, bytes, list[str]]:
        chance = random.Random(f"{self.kind} {self.seed} {index}")
        seed = self.seeds[index % len(self.seeds)]
        return seed, *mutate(chance, seed, self.words)

    def originals(self) -> None:
        """What the readers say of the files before they are damaged."""
        for seed in self.seeds:
            path = self.folder / f"original-{seed.name}"
            path.write_bytes(seed.data)
            self.expected[seed.name] = results = read_all(self.kind, path)
            assert any(went == "ok" for went, _ in results), (seed.name, results)
            assert any(digest for _, digest in results) == seed.ours, (seed.name, results)

    def try_one(self, index: int) -> dict[str, Any]:
        """Read one mutant in this process."""
        seed, data, recipe = self.mutant(index)
        path = self.folder / f"{index}{Path(seed.name).suffix}"
        path.write_bytes(data)
        probe._survived.clear()  # a new file may be like one that is gone, inode and time and all
        answer: dict[str, Any] = {"index": index, "seed": seed.name, "recipe": recipe}
        try:
            pairs = list(zip(read_all(self.kind, path), self.expected[seed.name], strict=False))
            # The first reader that fails where it did not before tells.
            answer["went"] = next((now for (now, _), (before, _) in pairs if now != "ok" == before), "ok")
            if seed.ours and any(digest is not None and digest != wanted for (_, digest), (_, wanted) in pairs):
                answer["what"] = "silent garbage: passes its SHA-256 with another content"
        except Exception as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
            answer["what"] = f"{type(error).__name__} at {where}: {error}"[:500]
        finally:
            path.unlink()
        return answer

    def batch(self, indices: list[int]) -> tuple[list[dict[str, Any]], int]:
        """Read mutants in one child until one ends it: the answers, and how it ended."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                _child_limits()
                start = _most_memory()
                with os.fdopen(write, "w") as out:
                    for index in indices:
                        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
                        begun = time.monotonic()
                        answer = self.try_one(index)
                        answer["seconds"] = time.monotonic() - begun
                        if "what" not in answer and (taken := _most_memory() - start) > MEMORY:
                            answer["what"] = f"took {taken >> 20} MB"
                        out.write(json.dumps(answer) + "\n")
                        out.flush()
                        if "what" in answer:
                            break
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as lines:
            answers = [json.loads(line) for line in lines]
        return answers, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def run(self, indices: list[int], save: Path | None = None) -> Tally:
        """Read all mutants in batches."""
        tally = Tally()
        while indices:
            answers, status = self.batch(indices[:BATCH])
            if len(answers) < len(indices[:BATCH]) and not (answers and "what" in answers[-1]):
                index = indices[len(answers)]
                seed, _, recipe = self.mutant(index)
                name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
                name = {"SIGPROF": f"took over {CPU_SECONDS} s"}.get(name, f"crash: {name}")
                answers.append({"index": index, "seed": seed.name, "recipe": recipe, "what": name})
            indices = indices[len(answers) :]
            for answer in answers:
                tally.mutants += 1
                if "what" in answer:
                    found = Finding(answer["index"], answer["seed"], answer["recipe"], answer["what"])
                    tally.findings.append(found)
                    if save is not None:
                        self._save(found, save)
                elif answer["went"].startswith("caught"):
                    tally.went["caught"] += 1
                    tally.caught[re.sub(r"^\S*: |caught: |;.*", "", answer["went"])] += 1
                    if save is not None and answer["index"] >= 0:
                        self._save(Finding(answer["index"], answer["seed"], answer["recipe"], answer["went"]), save)
                else:
                    tally.went[answer["went"]] += 1
        return tally

    def _save(self, found: Finding, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.kind}-{self.seed}-{found.index}"
        (folder / f"{name}-{found.seed}").write_bytes(self.mutant(found.index)[1])
        text = f"{found.what}\n{found.seed}\n" + "\n".join(found.recipe) + "\n"
        (folder / f"{name}.txt").write_text(text, errors="backslashreplace")


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _child_limits() -> None:
    gc.freeze()
    faulthandler.disable()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    warnings.simplefilter("error")
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * mmap.PAGESIZE + 8 * MEMORY, resource.RLIM_INFINITY))
    probe.CPU_SECONDS = 2


def fuzz(kind: str, count: int, seed: int, *, first: int = 0, save: Path | None = None) -> Tally:
    """Read mutants [first, first + count) of (kind, seed)."""
    with tempfile.TemporaryDirectory() as name:
        runner = Fuzz(kind, seed, Path(name))
        runner.originals()
        return runner.run(list(range(first, first + count)), save)


def main() -> int:
    parser = argparse.ArgumentParser(description="Read damaged files; see the docstring of this script.")
    parser.add_argument("kind", choices=sorted(SEEDS))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--save", type=Path, default=None, help="folder for the mutants that are findings")
    given = parser.parse_args()
    begun = time.monotonic()
    tally = fuzz(given.kind, given.count, given.seed, first=given.first, save=given.save)
    print(f"{given.kind}, seed {given.seed}: {tally.mutants} mutants in {time.monotonic() - begun:.0f} s")
    went: Mapping[str, int] = dict(sorted(tally.went.items()))
    print("  " + ", ".join(f"{name} {count}" for name, count in went.items()))
    for what, count in tally.caught.most_common():
        print(f"  met by the probe: {count} {what}")
    for found in tally.findings:
        print(f"  FINDING {found.index} ({found.seed}: {'; '.join(found.recipe)})\n    {found.what}")
    print(f"  {len(tally.findings)} findings")
    return 1 if tally.findings else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
