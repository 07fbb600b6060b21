"""`vqtool import`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqtool.cli.options import Delay, Flatten, Force, Json, Layers, Offset, Output, Quiet, Repair, metered, say
from vqtool.errors import counted

if TYPE_CHECKING:
    from vqtool.importing import Imported
    from vqtool.token_formats import ImportedTokens, ReadingOptions, Reference


def import_(
    source: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Files, folders, globs, or @list.txt with one of these a line."),
    ],
    output: Output,
    format: Annotated[
        str,
        typer.Option("--format", help="auto, humanml3d, lerobot, bvh, amass, npz, npy, csv, robomimic or hdf5."),
    ] = "auto",
    layout: Annotated[
        str | None,
        typer.Option("--layout", show_default="joints of skeletons, else the file's", help="joints, positions or raw."),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option("--fps", show_default="the files'", help="Resample to that; or say it, where files do not."),
    ] = None,
    drop_first_frame: Annotated[
        str, typer.Option("--drop-first-frame", help="Of BVH: auto (where it is a T-pose), yes or no.")
    ] = "auto",
    mirror: Annotated[bool, typer.Option("--mirror", help="Add each clip's mirror image as NAME_mirrored.")] = False,
    split: Annotated[
        str, typer.Option("--split", metavar="TRAIN,VAL,TEST", help="Shares, by a hash of names.")
    ] = "0.9,0.05,0.05",
    units: Annotated[
        str | None, typer.Option("--units", show_default="guessed", help="Of BVH: m, cm, mm, inch, or metres a unit.")
    ] = None,
    up: Annotated[str, typer.Option("--up", help="Of BVH: the vertical axis, y or z.")] = "y",
    facing: Annotated[
        str | None,
        typer.Option(
            "--facing",
            metavar="JOINTS",
            show_default="by name",
            help="Left and right hip, left and right shoulder; or none.",
        ),
    ] = None,
    feet: Annotated[
        str | None,
        typer.Option(
            "--feet",
            metavar="JOINTS",
            show_default="by name",
            help="Left ankle, left toe, right ankle, right toe; or none.",
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", metavar="L:R,...", show_default="by name", help="Left and right joints for --mirror."),
    ] = None,
    skeleton: Annotated[Path | None, typer.Option("--skeleton", help="A BVH with the joint offsets for AMASS.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            show_default="all; robomimic data/*/actions; LeRobot action",
            help="Which datasets (HDF5), arrays (npz) or column (LeRobot).",
        ),
    ] = None,
    group_by_skeleton: Annotated[
        bool, typer.Option("--group-by-skeleton", help="A file for each skeleton: OUT-1.h5, OUT-2.h5, ...")
    ] = False,
    on_error: Annotated[str, typer.Option("--on-error", help="At a bad file: stop, or skip (exit 3).")] = "stop",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=4096, show_default="1", help="Of motion: processes that read the files."),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option("--like", metavar="RUN|TOKENS", help="Of tokens: where their codebooks, or all, is known from."),
    ] = None,
    flatten: Flatten = None,
    delay: Delay = False,
    offset: Offset = 0,
    num_quantizers: Layers = None,
    repair: Repair = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import motion files into one motion.h5, or exported tokens into a tokens.h5.

    BVH, HumanML3D and KIT-ML, AMASS, npy, npz, CSV, any HDF5 and LeRobot; the format is found by content. Clips are
    named by their path. Skeletons become joint features, from which `vqtool export` makes BVH again.

    What `vqtool export` made of a tokens.h5 becomes one again. Tokens that something else wrote need --like.

    Example: vqtool import mocap/ -o motion.h5 --fps 30 --mirror
    """
    from vqtool.errors import UsageError
    from vqtool.formats.base import ReadOptions
    from vqtool.formats.bvh import read_bvh
    from vqtool.importing import ImportOptions, import_motion
    from vqtool.token_formats import ReadingOptions, SequenceOptions, is_export
    from vqtool.workers import Processes

    sequence = SequenceOptions(flatten=flatten, delay=delay, offset=offset)
    reading = ReadingOptions(sequence, num_quantizers, repair)
    if like is not None or all(is_export(Path(word)) for word in source):
        _import_tokens([Path(word) for word in source], output, like, reading, force, as_json, quiet)
        return
    for word in source:
        if is_export(Path(word)):
            raise UsageError("holds tokens, which are imported apart from motion", file=word)
    if reading != ReadingOptions():
        raise UsageError("--flatten, --delay, --offset, --num-quantizers and --repair are for tokens, with --like")
    rest = None
    if skeleton is not None:
        rest = read_bvh(skeleton, metres_per_unit=_metres(units), drop_first_frame="no", up=up).skeleton
    options = ImportOptions(
        format=format,
        layout=layout,
        fps=fps,
        mirror=mirror,
        split=_shares(split),
        facing=_names(facing),
        feet=_names(feet),
        pairs=_pairs(pairs),
        group_by_skeleton=group_by_skeleton,
        on_error=on_error,
        read=ReadOptions(
            metres_per_unit=_metres(units),
            up=up,
            drop_first_frame=drop_first_frame,
            skeleton=rest,
            dataset=dataset,
        ),
    )
    team = Processes(workers, say) if workers is not None and workers > 1 else None
    with metered(None, "clip", quiet) as meter:
        done = import_motion(source, output, options, workers=team, force=force, progress=meter.add)
    if not quiet:
        _tell(done)
    for reason in done.skipped:
        say(f"skipped: {reason}")
    if as_json:
        typer.echo(json.dumps(_plain(done) | {"seconds": round(meter.seconds, 3)}))
    else:
        for file in done.files:
            splits = ", ".join(f"{count:,} {name}" for name, count in file.splits.items())
            bodies = f", {file.bodies} bodies" if file.bodies > 1 else ""
            what = f"{counted(file.frames, 'frames')} at {file.fps:g} fps, {counted(file.dim, 'columns')}"
            what += f", layout {file.layout}{bodies}"
            rate = f"{file.frames / max(meter.seconds, 1e-9):,.0f} frames/s"
            typer.echo(f"{file.path}: {counted(file.clips, 'clips')} ({splits}), {what} ({rate})")
    if done.skipped:
        raise typer.Exit(3)


def _import_tokens(
    sources: list[Path],
    output: Path,
    like: Path | None,
    reading: ReadingOptions,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from vqtool.token_formats import import_tokens

    reference = None if like is None else reference_of(like)
    with metered(None, "token frame", quiet) as meter:
        done = import_tokens(sources, output, reference=reference, reading=reading, force=force, progress=meter.add)
    tell_repairs(done)
    if as_json:
        result = {
            "schema_version": 1,
            "output": str(output),
            "clips": done.clips,
            "frames": done.frames,
            "token_frames": done.token_frames,
            "codebooks": done.codebooks,
            "repaired": done.repaired,
            "left_out": done.left_out,
        }
        typer.echo(json.dumps(result | {"seconds": round(meter.seconds, 3)}))
    else:
        books = "" if done.codebooks else ", without codebooks (--like RUN adds them)"
        typer.echo(f"{output}: {counted(done.clips, 'clips')}, {counted(done.token_frames, 'token frames')}{books}")
    if done.left_out:
        raise typer.Exit(3)


def reference_of(like: Path) -> Reference:
    """The tokenizer that --like names: a tokens.h5, or a run."""
    from vqtool.cli.options import is_tokens
    from vqtool.token_formats import Reference

    if is_tokens(like):
        return Reference.of_tokens(like)
    from vqtool.nn.codec import load

    codec = load(like, device="cpu")
    return Reference.of_run(codec.info, [book.numpy() for book in codec.model.bottleneck.codebooks()])


def tell_repairs(done: ImportedTokens) -> None:
    """What --repair did, on stderr: the first ten, and how many there were."""
    for lines, what in ((done.repaired, "repaired"), (done.left_out, "left out")):
        for line in lines[:10]:
            say(f"{what} {line}")
        if lines:
            say(f"{what}: {len(lines):,} of {counted(done.clips + len(done.left_out), 'clips')}")


def _metres(units: str | None) -> float | None:
    """Metres a unit of --units."""
    from vqtool.errors import UsageError
    from vqtool.formats.bvh import UNITS

    if units is None or units in UNITS:
        return None if units is None else UNITS[units]
    try:
        return float(units)
    except ValueError:
        raise UsageError(f"--units is m, cm, mm, inch or a number of metres, not {units!r}") from None


def _shares(split: str) -> tuple[float, float]:
    """Shares of val and test of --split, the three in any scale that adds up."""
    from vqtool.errors import UsageError

    try:
        train, val, test = (float(share) for share in split.split(","))
    except ValueError:
        raise UsageError(f"--split takes three shares, for example 0.9,0.05,0.05, not {split!r}") from None
    if min(train, val, test) < 0 or abs(train + val + test - 1) > 1e-6 or train == 0:
        raise UsageError(f"--split {split}: three shares that add up to 1 were expected, the first above 0")
    return val, test


def _names(joints: str | None) -> list[str] | None:
    """The joints that an option lists; [] for "none"."""
    if joints is None:
        return None
    return [] if joints == "none" else [name.strip() for name in joints.split(",")]


def _pairs(pairs: str | None) -> list[tuple[str, str]] | None:
    """Left and right joints of --pairs L:R,..."""
    from vqtool.errors import UsageError

    if pairs is None:
        return None
    found = [pair.rpartition(":") for pair in pairs.split(",")]
    if not all(left and right for left, _, right in found):
        raise UsageError(f"--pairs takes LEFT:RIGHT,LEFT:RIGHT,..., not {pairs!r}")
    return [(left.strip(), right.strip()) for left, _, right in found]


def _tell(done: Imported) -> None:
    """What was decided and what was odd, on stderr: alike notes together, with the first clips of each."""
    for label, notes in (("", done.notes), ("warning: ", done.warnings)):
        kinds: dict[str, list[tuple[str, str]]] = {}
        for clip, text in notes:
            kinds.setdefault(re.sub(r"[\d.]+", "", text.partition(":")[0]), []).append((clip, text))
        for alike in kinds.values():
            clip, text = alike[0]
            others = f" (and {counted(len(alike) - 1, 'clips')} alike)" if len(alike) > 1 else ""
            say(f"{label}{clip}: {text}{others}")


def _plain(done: Imported) -> dict[str, Any]:
    """As the object that --json prints."""
    files = [
        {
            "output": str(file.path),
            "clips": file.clips,
            "frames": file.frames,
            "dim": file.dim,
            "fps": file.fps,
            "layout": file.layout,
            "bodies": file.bodies,
            "splits": file.splits,
        }
        for file in done.files
    ]
    return {"schema_version": 1, "files": files, "skipped": done.skipped, "warnings": len(done.warnings)}
