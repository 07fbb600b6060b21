"""motion.h5: clips of motion end to end in one file, written clip by clip; and files of clips as one set of them."""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import vqtool
from vqtool import signals
from vqtool.companions import Companions, joined, read_companions
from vqtool.datasets import DatasetFile, check_size
from vqtool.errors import DataError, UsageError, counted
from vqtool.flat import FlatReader, FlatWriter
from vqtool.hdf5 import attribute, block_rows, damaged, open_hdf5
from vqtool.publish import publish
from vqtool.remote import located
from vqtool.shards import Shard, read_shard
from vqtool.splits import held_out, selected

if TYPE_CHECKING:
    from vqtool.tokenizer_file import TokenizerFile


class MotionWriter:
    """Append clips to a motion.h5; made by `create_motion`."""

    def __init__(self, flat: FlatWriter, attrs: dict[str, Any]) -> None:
        self._flat = flat
        self.attrs = attrs
        self.names: list[str] = []
        self._offsets = [0]
        self._splits: list[int] = []
        self.companions = Companions()  # may be replaced before the writer is closed,
        self.shard: Shard | None = None  # and that set

    def append(self, name: str, frames: np.ndarray, split: int | None = None) -> None:
        """Add one clip, `frames` [T, D]; `split` (0 train, 1 val, 2 test) for all clips or for none."""
        self.extend(frames)
        self.end_clip(name, split)

    def extend(self, frames: np.ndarray) -> None:
        """Add rows [n, D] to the clip that `end_clip` will name."""
        self._flat.extend(frames=frames)

    def end_clip(self, name: str, split: int | None = None, *, frames: int | None = None) -> None:
        """Name what was added since the last clip, or so many frames of it."""
        self.names.append(name)
        self._offsets.append(self._flat.num_rows if frames is None else self._offsets[-1] + frames)
        if split is not None:
            self._splits.append(split)

    def array(self, name: str, value: np.ndarray) -> None:
        """Write a small array that belongs to the whole set."""
        self._flat.array(name, value)

    def close(self) -> None:
        """Write what belongs to the whole set."""
        companions = self.companions
        if self._splits:
            assert len(self._splits) == len(self.names)
            companions = replace(companions, splits=np.array(self._splits, dtype=np.uint8))
        arrays, attrs = companions.to_arrays(), self.attrs
        if self.shard is not None:
            arrays, attrs = arrays | self.shard.to_arrays(), attrs | self.shard.to_attrs()
        for array, value in arrays.items():
            self._flat.array(array, value)
        self._flat.close(self.names, np.array(self._offsets, dtype=np.int64), attrs)


@contextlib.contextmanager
def create_motion(
    path: Path,
    *,
    dim: int,
    fps: float,
    layout: str = "raw",
    units: str = "",
    source: str = "",
    total_frames: int | None = None,
    force: bool = False,
) -> Iterator[MotionWriter]:
    """Write a motion.h5 that appears at `path` when the block ends, or not at all.

    With `total_frames` known they are written in place, else twice: first to a nameless file beside `path`.
    """
    rows = {"frames": (np.dtype("<f4"), dim)}
    with publish(path, force=force) as file, FlatWriter(file, "motion", rows, total=total_frames) as flat:
        attrs = {
            "fps": float(fps),
            "layout": layout,
            "units": units,
            "source": source,
            "vqtool_version": vqtool.__version__,
        }
        writer = MotionWriter(flat, attrs)
        yield writer
        writer.close()


class _Source(Protocol):
    """One input file as a list of clips."""

    path: Path
    names: list[str]
    lengths: np.ndarray
    dim: int
    fps: float | None
    layout: str
    companions: Companions
    finite: bool  # known of all frames, by `verify`

    def read(self, clip: int, start: int, stop: int) -> np.ndarray: ...

    def verify(self) -> None: ...

    def place(self, clip: int) -> str: ...

    def identity(self) -> str: ...

    def close(self) -> None: ...


class _MotionFile:
    """A motion.h5."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._flat = FlatReader(path, "motion", ["frames"])
        try:
            self._open()
        except BaseException:
            self._flat.close()
            raise

    def _open(self) -> None:
        with damaged(self.path, "frames"):
            check_size(self.path, self._flat.rows["frames"])
        self.names = self._flat.names
        self.lengths = np.diff(self._flat.offsets)
        self.dim = int(self._flat.rows["frames"].shape[1])
        self.attrs = self._flat.attrs
        fps = self.attrs.get("fps")
        self.fps = float(fps) if isinstance(fps, int | float) else None
        self.layout = str(self.attrs.get("layout") or "raw")
        self.companions = read_companions(self._flat)
        self.finite = False
        self._check_skeleton()

    def _check_skeleton(self) -> None:
        """DataError where the columns are not those of the joints."""
        joints = len(self.companions.bodies[0].names) if self.companions.bodies else 0
        expected = {"joints": 12 * joints - 1, "positions": 3 * joints}.get(self.layout, self.dim)
        if joints and self.dim != expected:
            what = f"has {joints} joints, whose layout {self.layout} has {counted(expected, 'columns')}, not {self.dim}"
            raise DataError(f"{what}; the file is damaged", file=self.path, dataset="skeleton")

    def read(self, clip: int, start: int, stop: int) -> np.ndarray:
        first = int(self._flat.offsets[clip])
        rows = self._flat.read("frames", first + start, first + stop)
        with np.errstate(over="ignore", invalid="ignore"):
            return rows.astype(np.float32, copy=False)

    def array(self, name: str) -> np.ndarray | None:
        return self._flat.array(name, ndim=1) if self._flat.has(name) else None

    def verify(self) -> None:
        finite = True
        for block in self._flat.hashed_blocks("frames"):  # one pass for both
            with np.errstate(over="ignore", invalid="ignore"):
                finite = finite and bool(np.isfinite(block.astype(np.float32, copy=False)).all())
        self._flat.verify()
        self.finite = finite

    def place(self, clip: int) -> str:
        return "frames"

    def identity(self) -> str:
        return str(self.attrs.get("sha256"))

    def shard(self) -> Shard:
        return read_shard(self._flat, self.companions)

    def close(self) -> None:
        self._flat.close()


def _open_source(path: Path, pattern: str | None) -> _Source:
    with open_hdf5(path) as file:
        kind = attribute(file, "format")
    if kind == "vqtool.motion":
        if pattern is not None:
            raise UsageError("--dataset is for HDF5 files that are not motion.h5", file=path)
        return _MotionFile(path)
    if isinstance(kind, str) and kind.startswith("vqtool."):
        raise DataError(f"is a {kind} file; motion was expected", file=path)
    return DatasetFile(path, pattern)


class MotionSet:
    """The clips of one or more files (paths or URLs) as one list; frames stay there until they are read.

    Names that several files share get the file's stem in front. Raises DataError where the files differ in
    columns, fps or layout, UsageError where fps is known from neither the files nor `fps`.
    """

    def __init__(self, paths: Sequence[str | Path], *, dataset: str | None = None, fps: float | None = None) -> None:
        if not paths:
            raise UsageError("no motion file named")
        self.paths = tuple(located(path) for path in paths)
        self._chosen = dataset, fps
        self._sources: list[_Source] = []
        try:
            for path in self.paths:
                signals.check()
                self._sources.append(_open_source(path, dataset))
            self._join(fps)
            self._verified: set[int] = set()
            self._sound: set[int] = set()
        except BaseException:
            self.close()
            raise

    def _join(self, fps: float | None) -> None:
        first = self._sources[0]
        if fps is not None and not 0 < fps < 1e6:
            raise UsageError(f"--fps takes a positive number, not {fps:g}")
        rate = next((source.fps for source in self._sources if source.fps is not None), fps)
        if rate is None:
            raise UsageError("says no frame rate (attribute fps); add --fps, for example --fps 30", file=first.path)
        if not 0 < rate < 1e6:
            raise DataError(f"has fps {rate:g}; a positive number was expected", file=first.path)
        for other in self._sources:
            if fps is not None and other.fps not in (None, fps):
                raise UsageError(f"says fps {other.fps:g}; leave --fps {fps:g} out", file=other.path)
            asked = {"columns": (first.dim, other.dim), "layout": (first.layout, other.layout)}
            asked["fps"] = (rate, rate if other.fps is None else other.fps)
            for what, (mine, theirs) in asked.items():
                if mine != theirs:
                    what = f"has {what} {theirs}, but {first.path} has {mine}; give files that are alike"
                    raise DataError(what, file=other.path)
        self.fps = float(rate)
        self.dim, self.layout = first.dim, first.layout
        if self.dim == 0:
            raise DataError("its clips have no columns", file=first.path)
        taken: dict[str, int] = {}
        for source in self._sources:
            if len(set(source.names)) < len(source.names):
                twice = Counter(source.names).most_common(1)[0][0]
                raise DataError("two clips have this name; the file is damaged", file=source.path, clip=twice[:80])
            for name in source.names:
                taken[name] = taken.get(name, 0) + 1
        self.names: list[str] = []
        self._firsts: list[int] = []  # the first clip of each file
        for source in self._sources:
            self._firsts.append(len(self.names))
            stem = source.path.stem
            self.names += [name if taken[name] == 1 else f"{stem}/{name}" for name in source.names]
        if len(set(self.names)) != len(self.names):
            twice = Counter(self.names).most_common(1)[0][0]
            where = next(one.path for one in reversed(self._sources) if one.path.stem == twice.split("/")[0])
            what = "two inputs hold clips of the same names and have the same file name; rename one, or leave it out"
            raise DataError(what, file=where)
        self.lengths: np.ndarray = np.concatenate([source.lengths for source in self._sources])
        self.companions = joined([(source.path, len(source.names), source.companions) for source in self._sources])

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[Callable[..., MotionSet], tuple[Any, ...]]:
        """To a worker it goes as its paths."""
        return _reopened, (self.paths, *self._chosen, self.identity)

    def _place(self, clip: int) -> tuple[_Source, int]:
        """The file of a clip and its number there."""
        number = bisect.bisect_right(self._firsts, clip) - 1
        return self._sources[number], clip - self._firsts[number]

    @property
    def splits(self) -> np.ndarray | None:
        """The split of each clip (0 train, 1 val, 2 test, 255 none), where the files say so."""
        return self.companions.splits

    @property
    def originals(self) -> list[str]:
        """For each clip the name of the one that it mirrors, or its own."""
        of = self.companions.mirror_of
        return self.names if of is None else [self.names[n if m < 0 else m] for n, m in enumerate(of.tolist())]

    @property
    def source(self) -> str:
        """The files as a JSON list of names, for provenance (the first hundred, then how many more)."""
        names = [path.name for path in self.paths]
        return json.dumps(names if len(names) <= 100 else [*names[:100], f"and {len(names) - 100} more"])

    @property
    def identity(self) -> str:
        """What changes when any clip does: a SHA-256 of the names and of what each file says of its content."""
        told = [[source.identity() for source in self._sources], self.names, self.lengths.tolist()]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def read_all(self, clip: int) -> np.ndarray:
        """A whole clip, [T, D] float32; DataError at the first frame that is not finite."""
        return np.concatenate([np.zeros((0, self.dim), np.float32), *self.blocks(clip)])

    def array(self, name: str) -> np.ndarray | None:
        """A small array of the file, None where it has none or there are several files."""
        source = self._sources[0]
        if len(self._sources) > 1 or not isinstance(source, _MotionFile):
            return None
        return source.array(name)

    def shard(self) -> Shard:
        """Which share of which work the file is; DataError where it is none, or there are several files."""
        source = self._sources[0]
        if len(self._sources) > 1 or not isinstance(source, _MotionFile):
            raise DataError("is no shard: name files that --shard made", file=source.path)
        return source.shard()

    def attribute(self, name: str) -> Any:
        """An attribute of the file, None where it has none or there are several files."""
        source = self._sources[0]
        return source.attrs.get(name) if len(self._sources) == 1 and isinstance(source, _MotionFile) else None

    def select(self, split: str | None, tokenizer: TokenizerFile | None = None) -> list[int]:
        """Clip numbers of a split ("train", "val", "test"), or of all.

        A file without splits has those that the training of a `tokenizer` would give it. Raises UsageError for an
        unknown split, DataError where the file has none or no clip is in it.
        """
        splits = self.splits
        if splits is None and tokenizer is not None:
            data = tokenizer.config["data"]
            splits = held_out(self.originals, data["val_fraction"], data["seed"])
        return selected(splits, len(self), split, self.paths[0])

    def read(self, clip: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames [start, stop) of a clip, [n, D] float32, as they are: `blocks` looks for NaN.

        A `stop` beyond the clip's end means its end, as in a slice.
        """
        source, index = self._place(clip)
        length = int(self.lengths[clip])
        return source.read(index, start, length if stop is None else min(stop, length))

    def blocks(self, clip: int) -> Iterator[np.ndarray]:
        """A clip in blocks of a few MB, each checked: DataError at the first frame that is not finite."""
        source, index = self._place(clip)
        step = block_rows(self.dim, 4)
        for start in range(0, int(self.lengths[clip]), step):
            signals.check()
            frames = self.read(clip, start, min(start + step, int(self.lengths[clip])))
            finite = np.isfinite(frames).all(axis=1)
            if not finite.all():
                bad = int(np.argmin(finite))
                column = int(np.argmin(np.isfinite(frames[bad])))
                raise DataError(
                    f"column {column} is {frames[bad, column]}; mend the file or leave the clip out",
                    file=source.path,
                    dataset=source.place(index),
                    clip=self.names[clip],
                    frame=start + bad,
                )
            yield frames

    def check(self, clip: int) -> None:
        """Read a whole clip, once at most; DataError at the first frame that is not finite."""
        if clip not in self._sound and not self._place(clip)[0].finite:
            for _ in self.blocks(clip):
                pass
            self._sound.add(clip)

    def verify(self, clips: range | None = None) -> None:
        """Compare each motion.h5 (with some of the clips) with its SHA-256, once; DataError when a bit has changed."""
        for number, source in enumerate(self._sources):
            first = self._firsts[number]
            wanted = clips is None or (first < clips.stop and first + len(source.names) > clips.start)
            if wanted and number not in self._verified:
                source.verify()
                self._verified.add(number)

    def usable(self, on_error: str = "stop", clips: range | None = None) -> tuple[list[int], list[str]]:
        """Verify the files and read every frame (of some of the clips): clips to work on, and why others are left out.

        Raises DataError at the first clip with NaN or infinity, unless on_error is "skip".
        """
        self.verify(clips)
        usable, skipped = [], []
        for clip in range(len(self)) if clips is None else clips:
            try:
                self.check(clip)
                usable.append(clip)
            except DataError as error:
                if on_error != "skip":
                    raise
                skipped.append(str(error))
        return usable, skipped

    def close(self) -> None:
        """Close all files."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> MotionSet:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _reopened(paths: Sequence[Path], dataset: str | None, fps: float | None, identity: str) -> MotionSet:
    """The same set in another process; DataError where it is not the same any more."""
    motion = MotionSet(paths, dataset=dataset, fps=fps)
    if motion.identity != identity:
        motion.close()
        raise DataError("changed while it was read, or is another file on this machine", file=motion.paths[0])
    return motion
