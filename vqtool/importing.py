"""import_motion(): other people's files in, motion.h5 out, a clip at a time."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.body import find_body, left_right_pairs, mirror
from vqtool.companions import Caption, Companions, skeleton_difference
from vqtool.errors import DataError, MissingInputError, StorageError, UsageError, VqtoolError, counted
from vqtool.features import features_and_start, recover_positions
from vqtool.flat import encode_names
from vqtool.formats import FORMATS
from vqtool.formats.base import Clip, ReadOptions, Recording
from vqtool.publish import check_output
from vqtool.skeleton import Skeleton, SkeletonMotion, resample, resample_rows
from vqtool.sources import Source, find_sources
from vqtool.splits import NO_SPLIT, SPLITS, hashed_splits
from vqtool.stats import ColumnStats
from vqtool.store import MotionWriter, create_motion
from vqtool.workers import Workers

LAYOUTS = ("joints", "positions", "raw", "humanml3d", "kit")
MIRRORED = "_mirrored"
MAX_GROUPS = 100
MIN_FPS, MAX_FPS = 1e-3, 1e5
MAX_RESAMPLED = 10_000_000  # frames that a clip may have after it was resampled
ERRORS = (DataError, MissingInputError, StorageError, UsageError)  # of one clip


@dataclass(frozen=True)
class ImportOptions:
    """What `vqtool import` was told; see its help. Names: None finds joints by name, an empty list means none."""

    format: str = "auto"
    layout: str | None = None
    fps: float | None = None
    mirror: bool = False
    split: tuple[float, float] = (0.05, 0.05)  # shares of val and test
    facing: Sequence[str] | None = None
    feet: Sequence[str] | None = None
    pairs: Sequence[tuple[str, str]] | None = None
    group_by_skeleton: bool = False
    on_error: str = "stop"
    read: ReadOptions = field(default_factory=ReadOptions)


@dataclass
class ImportedFile:
    """One motion.h5 that was written."""

    path: Path
    clips: int
    frames: int
    dim: int
    fps: float
    layout: str
    bodies: int
    splits: dict[str, int]


@dataclass
class Imported:
    """What `import_motion` did. `notes` and `warnings` are (clip, text): what was decided, what was odd."""

    files: list[ImportedFile] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Frames:
    """One clip as motion.h5 holds it: [T, D] float32; of a body also its skeleton, and where it starts."""

    rows: np.ndarray
    fps: float
    layout: str
    skeleton: Skeleton | None = None
    start: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass
class _Converted:
    """What became of a clip: itself and its mirror image, each with its name and that of the clip that it mirrors.

    `error` says what was wrong, after those that could be made.
    """

    clips: list[tuple[str, str, _Frames, ColumnStats]] = field(default_factory=list)
    captions: tuple[tuple[str, float, float, str], ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: VqtoolError | None = None


def import_motion(
    words: Sequence[str],
    out: Path,
    options: ImportOptions,
    *,
    workers: Workers[Any] | None = None,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Import what the words name (see `find_sources`) into `out`.

    Clips are written as they are read, in the order of their names. A bad file raises, or with on_error "skip" is
    left out and listed. With group_by_skeleton each skeleton gets a file of its own: OUT-1.h5, OUT-2.h5, ...
    `workers` read and convert the clips, to the same bytes, where they need no file that is kept open. `progress` is
    told of every clip.
    """
    _check(options)
    check_output(out, force=force)  # before anything is read, which may take long
    done = Imported()

    def bad(error: VqtoolError) -> None:
        if options.on_error != "skip":
            raise error
        done.skipped.append(str(error))

    sources = find_sources(words, options.format, bad)
    check_output(out, force=force, inputs=tuple(source.path for source in sources))
    groups: dict[tuple[tuple[str, ...], tuple[int, ...]] | None, _Group] = {}
    with contextlib.ExitStack() as stack:
        for clip, found in _converted(sources, options, workers):
            try:
                for name, original, frames, stats in found.clips:
                    key = None
                    if options.group_by_skeleton and frames.skeleton is not None:
                        key = frames.skeleton.names, frames.skeleton.parents
                    if key not in groups:
                        if len(groups) == MAX_GROUPS:
                            raise UsageError(f"found more than {MAX_GROUPS} skeletons; import folder by folder")
                        path = out if key is None else out.with_name(f"{out.stem}-{len(groups) + 1}{out.suffix}")
                        groups[key] = _Group(path, stack, frames, words, force)
                    groups[key].add(name, frames, stats, clip, original, found.captions)
                if found.error is not None:
                    raise found.error
            except ERRORS as error:
                if error.file is None:
                    error.file, error.dataset = str(clip.path), error.dataset or clip.dataset
                if isinstance(error, UsageError):
                    raise
                bad(error)
                continue
            done.notes += [(clip.name, note) for note in found.notes]
            done.warnings += [(clip.name, warning) for warning in found.warnings]
            if progress is not None:
                progress(1)
        if not groups:
            if done.skipped:
                raise DataError(f"nothing could be imported; {done.skipped[0]}")
            raise DataError(f"holds no clip; is it of another format than {options.format}?", file=words[0])
        done.files = [group.finish(sources, options) for group in groups.values()]
    return done


def _check(options: ImportOptions) -> None:
    if options.on_error not in ("stop", "skip"):
        raise UsageError(f"--on-error is stop or skip, not {options.on_error!r}")
    if options.layout is not None and options.layout not in LAYOUTS:
        raise UsageError(f"--layout is one of {', '.join(LAYOUTS)}, not {options.layout!r}")
    if options.fps is not None and not MIN_FPS <= options.fps <= MAX_FPS:
        raise UsageError(f"--fps {options.fps:g}: a positive number was expected, at most {MAX_FPS:,.0f}")
    if not (min(options.split) >= 0 and sum(options.split) < 1):  # nan is neither
        raise UsageError("--split takes three shares that add up to 1: train,val,test, for example 0.9,0.05,0.05")


def _clips(sources: list[Source], options: ImportOptions) -> Iterator[Clip]:
    """All clips of all sources; a source that cannot be listed is a clip that cannot be read."""
    read = replace(options.read, raw=options.layout == "raw")
    for source in sources:
        try:
            yield from FORMATS[source.format].clips(source.path, source.name, read)
        except ERRORS as error:
            yield Clip(source.name, source.path, partial(_raise, error))


def _raise(error: VqtoolError) -> Recording:
    raise error


def _converted(
    sources: list[Source], options: ImportOptions, workers: Workers[Any] | None
) -> Iterator[tuple[Clip, _Converted]]:
    """All clips in their order with what became of them, here or in workers."""
    clips, convert = _clips(sources, options), _Convert(options)
    if workers is None or not all(FORMATS[source.format].apart for source in sources):
        return ((clip, convert(clip)) for clip in clips)
    return workers.in_order(
        convert,
        clips,
        name=lambda number, clip: f"clip {clip.name}",
        lost=lambda error: _Converted(error=error),
    )


@dataclass(frozen=True)
class _Convert:
    """Reads a clip, and converts it as it was asked for."""

    options: ImportOptions

    def __call__(self, clip: Clip) -> _Converted:
        found = _Converted()
        try:
            recording = clip.read()
            found.captions, found.notes, found.warnings = recording.captions, recording.notes, recording.warnings
            for name, original, frames in _variants(clip, recording, self.options):
                found.clips.append((name, original, frames, ColumnStats.of(frames.rows)))
        except ERRORS as error:
            found.error = error
        return found


def _variants(clip: Clip, recording: Recording, options: ImportOptions) -> Iterator[tuple[str, str, _Frames]]:
    """Name, name of the clip that it mirrors ("" if none) and frames: of the clip, then of its mirror image."""
    found = recording.frames
    if recording.fps is not None and not MIN_FPS <= recording.fps <= MAX_FPS:
        what = f"has {recording.fps:g} frames a second; {MIN_FPS:g} to {MAX_FPS:,.0f} were expected"
        raise DataError(what)
    if options.fps is not None and recording.fps is not None and options.layout != "raw":
        frames = len(found) * options.fps / recording.fps
        if frames > max(MAX_RESAMPLED, len(found)):
            raise UsageError(f"would have {frames:,.0f} frames at --fps {options.fps:g}; lower that")
    if isinstance(found, np.ndarray):
        if options.mirror:
            raise UsageError("only skeletons' motion can be mirrored; leave --mirror out")
        yield clip.name, clip.mirror_of, _of_array(found, recording, options)
        return
    if options.fps is not None:
        found = resample(found, options.fps)
    yield clip.name, clip.mirror_of, _of_body(found, options)
    if options.mirror:
        names = found.skeleton.names
        pairs = left_right_pairs(names)
        if options.pairs is not None:
            pairs = tuple((found.skeleton.index(left), found.skeleton.index(right)) for left, right in options.pairs)
        yield clip.name + MIRRORED, clip.name, _of_body(mirror(found, pairs), options)


def _of_body(motion: SkeletonMotion, options: ImportOptions) -> _Frames:
    layout = options.layout or "joints"
    if layout == "joints":
        body = find_body(motion.skeleton, facing=options.facing, feet=options.feet)
        rows, start = features_and_start(motion, body)
        return _Frames(_float32(rows), motion.fps, layout, motion.skeleton, start)
    if layout == "positions":
        positions, _ = motion.forward()
        return _Frames(_float32(positions.reshape(len(motion), -1)), motion.fps, layout, motion.skeleton)
    raise UsageError(f"a skeleton's motion has no layout {layout}; use --layout joints, positions or raw")


def _of_array(rows: np.ndarray, recording: Recording, options: ImportOptions) -> _Frames:
    _float32(rows)  # refuses NaN and infinity before numpy warns of what comes of them
    layout, fps = recording.layout, options.fps if recording.fps is None else recording.fps
    if fps is None:
        raise UsageError("says no frame rate; add --fps, for example --fps 30")
    if options.fps is not None and abs(options.fps - fps) > 1e-6 * fps:
        if layout in ("humanml3d", "kit") or options.layout == "raw":
            what = "such features" if layout != "raw" else "raw numbers"
            raise UsageError(f"{what} of {fps:g} frames a second cannot be resampled; leave --fps out")
        rows, fps = resample_rows(rows, fps, options.fps), options.fps
    wanted = options.layout or layout
    if wanted == "positions" and layout in ("humanml3d", "kit"):
        rows = recover_positions(rows).reshape(len(rows), -1)
    elif wanted in ("humanml3d", "kit") and layout == "raw":
        if rows.shape[1] != {"humanml3d": 263, "kit": 251}[wanted]:
            raise DataError(
                f"has {counted(rows.shape[1], 'columns')}, which is not the layout {wanted}; leave --layout out"
            )
    elif wanted not in (layout, "raw"):
        raise UsageError(f"holds {layout} data, from which --layout {wanted} cannot be made; leave --layout out")
    return _Frames(_float32(rows), fps, wanted)


def _float32(rows: np.ndarray) -> np.ndarray:
    """[T, D] float32; DataError at the first number that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN is invalid
        small = rows.astype(np.float32, copy=False)
    finite = np.isfinite(small).all(axis=1)
    if not finite.all():
        frame = int(np.argmin(finite))
        column = int(np.argmin(np.isfinite(small[frame])))
        value = rows[frame, column]
        beyond = ", which float32 does not hold" * bool(np.isfinite(value))
        raise DataError(f"column {column} is {value}{beyond}; mend the file or leave it out", frame=frame)
    return small


def _place(clip: Clip) -> str:
    """A clip's file, and its place in it."""
    return str(clip.path) if clip.dataset is None else f"{clip.path}:{clip.dataset}"


class _Group:
    """A motion.h5 in the making: clips of one skeleton, layout and frame rate."""

    def __init__(
        self, path: Path, stack: contextlib.ExitStack, first: _Frames, words: Sequence[str], force: bool
    ) -> None:
        self.path, self._first = path, first
        self._names: dict[str, int] = {}
        self._bodies: dict[object, int] = {}
        self._skeletons: list[Skeleton] = []
        self._body_of: list[int] = []
        self._starts: list[tuple[float, float, float]] = []
        self._splits: list[int | None] = []
        self._originals: list[str] = []
        self._captions: list[Caption] = []
        self._stats = ColumnStats.empty(first.rows.shape[1])
        self._first_place = ""
        names = [Path(word).name for word in words[:100]]
        self._writer: MotionWriter = stack.enter_context(
            create_motion(
                path,
                dim=first.rows.shape[1],
                fps=first.fps,
                layout=first.layout,
                units={"kit": "mm", "joints": "m", "positions": "m", "humanml3d": "m"}.get(first.layout, ""),
                source=json.dumps(names + [f"and {len(words) - 100} more"] * (len(words) > 100)),
                force=force,
            )
        )

    def add(
        self,
        name: str,
        frames: _Frames,
        stats: ColumnStats,
        clip: Clip,
        original: str,
        captions: tuple[tuple[str, float, float, str], ...],
    ) -> None:
        """Write one clip; DataError where it does not go with those before it."""
        self._check(frames, clip)
        encode_names([name])  # now, not when all are read
        if name in self._names:
            raise DataError("another clip has this name; rename one", clip=name)
        number = self._names[name] = len(self._names)
        self._first_place = self._first_place or _place(clip)
        self._writer.append(name, frames.rows)
        self._stats = self._stats.merge(stats)
        self._originals.append(original)
        self._splits.append(clip.split)
        self._starts.append(frames.start)
        self._captions += [Caption(number, *caption) for caption in captions]
        if frames.skeleton is not None:
            self._body_of.append(self._body(frames.skeleton))

    def _check(self, frames: _Frames, clip: Clip) -> None:
        first, where = self._first, self._first_place
        if frames.skeleton is not None and first.skeleton is not None:
            if difference := skeleton_difference(first.skeleton, frames.skeleton):
                what = f"has another skeleton than {where}: {difference}; add --group-by-skeleton, or import them apart"
                raise DataError(what)
            units = [body.bvh.metres_per_unit for body in (first.skeleton, frames.skeleton) if body.bvh is not None]
            if len(set(units)) > 1:
                what = f"was taken for a unit of {units[1]:.4g} m, but {where} for {units[0]:.4g} m"
                raise DataError(f"{what}; say which with --units")
        if frames.layout != first.layout or frames.rows.shape[1] != first.rows.shape[1]:
            mine, theirs = (f"{counted(one.rows.shape[1], 'columns')} ({one.layout})" for one in (frames, first))
            raise DataError(f"has {mine}, but {where} has {theirs}; import them apart")
        if abs(frames.fps - first.fps) > 1e-6 * first.fps:
            what = f"has {frames.fps:g} frames a second, but {where} has {first.fps:g}"
            raise DataError(f"{what}; add --fps {min(frames.fps, first.fps):g} to resample")

    def _body(self, skeleton: Skeleton) -> int:
        """The number of a body; bones equal to a hundredth of a millimetre and the same channels are one body's."""
        channels = re.sub(r"(?i)OFFSET[^\n]*", "", skeleton.bvh.hierarchy) if skeleton.bvh else ""
        key = np.round(skeleton.offsets * 1e5).tobytes(), channels, skeleton.bvh and skeleton.bvh.up
        if key not in self._bodies:
            self._bodies[key] = len(self._skeletons)
            self._skeletons.append(skeleton)
        return self._bodies[key]

    def finish(self, sources: list[Source], options: ImportOptions) -> ImportedFile:
        """Write what belongs to the whole set."""
        names, first, stats = list(self._names), self._first, self._stats
        mirrored = [self._names.get(of, n) if of else -1 for n, of in enumerate(self._originals)]
        originals = [of or name for of, name in zip(self._originals, names, strict=True)]
        splits = np.array([NO_SPLIT if split is None else split for split in self._splits], dtype=np.uint8)
        if all(split is None for split in self._splits):
            splits = hashed_splits(originals, *options.split)
        self._writer.companions = Companions(
            splits=splits,
            mirror_of=np.array(mirrored, dtype="<i8") if any(self._originals) else None,
            starts=np.array(self._starts) if first.layout == "joints" else None,
            bodies=tuple(self._skeletons),
            body_of=np.array(self._body_of, dtype="<i8") if self._skeletons else None,
            captions=tuple(self._captions),
        )
        self._writer.array("stats/mean", stats.mean)
        self._writer.array("stats/std", stats.std)
        self._writer.array("stats/count", np.array([stats.count], dtype="<i8"))
        for source in sources:
            if (extras := FORMATS[source.format].extras) is not None:
                arrays, attrs = extras(source.path, stats.std, first.layout)
                for name, value in arrays.items():
                    self._writer.array(name, value)
                self._writer.attrs.update(attrs)
                break
        counts = {name: int((splits == number).sum()) for name, number in SPLITS.items()}
        bodies, dim = len(self._skeletons), first.rows.shape[1]
        return ImportedFile(self.path, len(names), stats.count, dim, first.fps, first.layout, bodies, counts)
