"""merge(): the shards of one work become the file that one process would have written, or a manifest that lists them.

The rows are read in blocks and never held together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vqtool import signals
from vqtool.companions import Companions
from vqtool.errors import DataError, MismatchError, UsageError, counted
from vqtool.hdf5 import attribute, block_rows, open_hdf5
from vqtool.publish import publish_bytes
from vqtool.reading import first_bytes, read_bytes
from vqtool.shards import Shard
from vqtool.store import MotionSet, create_motion
from vqtool.tokens import TokenSet, create_latents, create_tokens

FORMAT = "vqtool.shards"
MAX_MANIFEST_BYTES = 64 << 20
SHOWN = 8  # numbers of missing shards in a message
Progress = Callable[[int], None]
Part = MotionSet | TokenSet


@dataclass
class Merged:
    """What `merge` joined: token_frames is None of motion; left_out counts clips that the shards had skipped.

    `machines` are the kinds of machine whose last bits stand in it, as JSON; more than one is worth a warning.
    """

    shards: int
    clips: int
    frames: int
    token_frames: int | None
    left_out: int
    machines: list[str]


@dataclass
class _Described:
    """A shard, without its rows."""

    path: Path
    kind: str
    shard: Shard
    names: list[str]
    lengths: np.ndarray
    companions: Companions
    sha256: str
    token_frames: int | None

    def entry(self) -> dict[str, Any]:
        """Its row of a manifest."""
        found = {"shard": self.shard.index, "clips": len(self.names), "frames": int(self.lengths.sum())}
        if self.token_frames is not None:
            found["token_frames"] = self.token_frames
        return found | {"sha256": self.sha256}


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest of shards, by how it begins."""
    return path.is_file() and b"".join(first_bytes(path, 64).split()).startswith(b'{"format":"vqtool.shards"')


def read_manifest(path: Path) -> list[tuple[Path, str]]:
    """The shards that a manifest lists, in order, with the SHA-256 that each should have."""
    try:
        found = json.loads(read_bytes(path, MAX_MANIFEST_BYTES))
        if found["format"] != FORMAT or found["format_version"] != 1:
            raise DataError(f"is no {FORMAT} of version 1; this vqtool reads no other", file=path)
        listed = [(path.parent / str(entry["file"]), str(entry["sha256"])) for entry in found["shards"]]
        if not listed:
            raise DataError("lists no shards; make it again with vqtool merge", file=path)
        return listed
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            "is no manifest of shards, or is damaged; make it again with vqtool merge", file=path
        ) from error


def opened_shards(path: Path) -> Iterator[TokenSet]:
    """The token files of a manifest, one open at a time; DataError where one is not that which is listed."""
    for file, sha256 in read_manifest(path):
        with TokenSet(file) as tokens:
            if tokens.identity != sha256:
                raise DataError(f"is not the file that {path} lists; make the manifest again", file=file)
            yield tokens


def merge(paths: Sequence[Path], out: Path, *, force: bool = False, progress: Progress | None = None) -> Merged:
    """Join all shards of one work, named in any order or by a manifest, to the file that the serial run writes.

    An `out` that ends in .json becomes a manifest of the shards, which stay where they are. Raises UsageError where
    shards are missing or twice, MismatchError where they are of different works, DataError for a damaged one.
    """
    parts = _ordered([_describe(path) for path in _listed(paths)])
    if out.suffix == ".json":
        for part in parts:
            with _open(part) as opened:
                opened.verify()
                if progress is not None:
                    progress(int(part.lengths.sum()))
        _write_manifest(parts, out, force)
    elif parts[0].kind == "motion":
        _merge_motion(parts, out, force, progress)
    else:
        _merge_tokens(parts, out, force, progress)
    tokens = [part.token_frames for part in parts if part.token_frames is not None]
    clips = sum(len(part.names) for part in parts)
    return Merged(
        shards=len(parts),
        clips=clips,
        frames=sum(int(part.lengths.sum()) for part in parts),
        token_frames=sum(tokens) if tokens else None,
        left_out=parts[-1].shard.last - clips,
        machines=sorted({part.shard.machine for part in parts}),
    )


def _listed(paths: Sequence[Path]) -> list[Path]:
    """The shards that are named, those of manifests in their place."""
    found: list[Path] = []
    for path in paths:
        found += [file for file, _ in read_manifest(path)] if is_manifest(path) else [path]
    if not found:
        raise UsageError("no shard named")
    return found


def _describe(path: Path) -> _Described:
    with open_hdf5(path) as file:
        kind = str(attribute(file, "format")).removeprefix("vqtool.")
    if kind == "motion":
        with MotionSet([path]) as motion:
            sha256 = str(motion.attribute("sha256"))
            return _Described(path, kind, motion.shard(), motion.names, motion.lengths, motion.companions, sha256, None)
    with TokenSet(path) as tokens:
        return _Described(
            path,
            kind,
            tokens.shard(),
            tokens.names,
            tokens.num_frames,
            tokens.companions,
            tokens.identity,
            tokens.num_tokens,
        )


def _ordered(parts: list[_Described]) -> list[_Described]:
    """The shards in order, if they are all of one work and none is missing or twice."""
    parts = sorted(parts, key=lambda part: part.shard.index)
    first = parts[0]
    for part in parts[1:]:
        if (part.shard.of, part.kind) != (first.shard.of, first.kind):
            what = (
                f"is a shard of other work than {first.path}: another input, tokenizer, version, option or N of --shard"
            )
            raise MismatchError(f"{what}; make it again, or leave it out", file=part.path)
    for before, part in pairwise(parts):
        if before.shard.index == part.shard.index:
            what = f"is shard {part.shard.index}/{part.shard.count}, and so is {before.path}; name one of them"
            raise UsageError(what, file=part.path)
    count = first.shard.count
    missing = sorted(set(range(count)) - {part.shard.index for part in parts})
    if missing:
        numbers = ", ".join(map(str, missing[:SHOWN]))
        more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
        how = f"make it with --shard {missing[0]}/{count}" if len(missing) == 1 else "sbatch --array takes such a list"
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(f"of {counted(count, 'shards')} {len(missing):,} {verb} missing: {numbers}{more}; {how}")
    at = 0
    for part in parts:
        if part.shard.first != at:
            what = f"begins with clip {part.shard.first:,} where {at:,} was expected; make the shards again"
            raise DataError(what, file=part.path, dataset="shard_clips")
        at = part.shard.last
    return parts


def _joined(parts: list[_Described]) -> Companions:
    """What goes along with the clips of all shards, as it did in the input."""
    first = parts[0].companions

    def every(name: str) -> np.ndarray | None:
        found = [getattr(part.companions, name) for part in parts]
        return None if found[0] is None else np.concatenate(found)

    clips = np.concatenate([part.shard.clips for part in parts])
    mirrors = [part.shard.mirror_of for part in parts if part.shard.mirror_of is not None]
    starts = np.cumsum([0, *(len(part.names) for part in parts)]).tolist()
    captions = []
    for part, start in zip(parts, starts, strict=False):
        if part.shard.captions is not None:
            places = part.shard.captions.tolist()
            captions += [
                (place, replace(caption, clip=caption.clip + start))
                for place, caption in zip(places, part.companions.captions, strict=True)
            ]
    return Companions(
        splits=every("splits"),
        mirror_of=_renumbered(np.concatenate(mirrors), clips) if mirrors else None,
        starts=every("starts"),
        bodies=first.bodies,
        body_of=every("body_of"),
        captions=tuple(caption for _, caption in sorted(captions, key=lambda pair: pair[0])),
    )


def _renumbered(mirror_of: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """mirror_of in numbers of the input as numbers of the joined clips, as `Companions.select` has them."""
    place = np.searchsorted(clips, mirror_of)
    there = clips[np.minimum(place, len(clips) - 1)] == mirror_of
    found: np.ndarray = np.where(mirror_of < 0, -1, np.where(there, place, np.arange(len(clips))))
    return found


@contextmanager
def _open(part: _Described) -> Iterator[Part]:
    """A shard again, for its rows; DataError where it changed since it was described."""
    with MotionSet([part.path]) if part.kind == "motion" else TokenSet(part.path) as opened:
        now = str(opened.attribute("sha256")) if isinstance(opened, MotionSet) else opened.identity
        if now != part.sha256:
            raise DataError("changed while it was read", file=part.path)
        yield opened


def _merge_tokens(parts: list[_Described], out: Path, force: bool, progress: Progress | None) -> None:
    with TokenSet(parts[0].path) as first:
        header, codebooks, width = first.header, first.codebooks, first.width
    names = [name for part in parts for name in part.names]
    lengths = np.concatenate([part.lengths for part in parts])
    along = _joined(parts)
    if parts[0].kind == "latents":
        output = create_latents(out, names, lengths, header, width, companions=along, force=force)
    else:
        output = create_tokens(out, names, lengths, header, codebooks, companions=along, force=force)
    with output as writer:
        for part in parts:
            with _open(part) as tokens:
                assert isinstance(tokens, TokenSet)
                tokens.check()
                if tokens.is_latents:
                    for mean, logvar in zip(tokens.blocks("mean"), tokens.blocks("logvar"), strict=True):
                        writer.extend(mean=mean, logvar=logvar)
                else:
                    for block in tokens.blocks():
                        writer.extend(codes=block)
            if progress is not None:
                progress(int(part.lengths.sum()))


def _merge_motion(parts: list[_Described], out: Path, force: bool, progress: Progress | None) -> None:
    total = sum(int(part.lengths.sum()) for part in parts)
    with MotionSet([parts[0].path]) as first:
        output = create_motion(
            out,
            dim=first.dim,
            fps=first.fps,
            layout=first.layout,
            units=str(first.attribute("units")),
            source=str(first.attribute("source")),
            total_frames=total,
            force=force,
        )
    with output as writer:
        writer.companions = _joined(parts)
        for part in parts:
            with _open(part) as motion:
                assert isinstance(motion, MotionSet)
                motion.verify()
                step = block_rows(motion.dim, 4)
                for clip, name in enumerate(part.names):
                    for start in range(0, int(part.lengths[clip]), step):
                        signals.check()
                        writer.extend(motion.read(clip, start, start + step))
                    writer.end_clip(name)
                    if progress is not None:
                        progress(int(part.lengths[clip]))


def _write_manifest(parts: list[_Described], out: Path, force: bool) -> None:
    first = parts[0]
    entries = []
    for part in parts:
        try:
            name = part.path.resolve().relative_to(out.resolve().parent).as_posix()
        except ValueError as error:
            what = f"is not below {out.parent}; put the manifest into a folder above its shards"
            raise UsageError(what, file=part.path) from error
        entries.append({"file": name, **part.entry()})
    counts = [name for name in ("clips", "frames", "token_frames") if name in entries[0]]
    whole = {"format": FORMAT, "format_version": 1, "kind": first.kind, "of": first.shard.of}
    whole |= {name: sum(entry[name] for entry in entries) for name in counts}
    whole["shards"] = entries
    publish_bytes(out, (json.dumps(whole, indent=1) + "\n").encode(), force=force)
