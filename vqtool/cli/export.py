"""`vqtool export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vqtool.cli.options import Dataset, Delay, Flatten, Force, Fps, Json, Offset, Quiet, Split, metered
from vqtool.errors import counted


def export(
    source: Annotated[
        list[Path], typer.Argument(metavar="MOTION|TOKENS", help="Motion files, or a tokens.h5.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder or file to make.")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="Of motion: bvh, npy, csv, humanml3d or robomimic. "
            "Of tokens: text, motiongpt, nanogpt, megatron, parquet, npy or csv.",
        ),
    ],
    split: Split = None,
    dataset: Dataset = None,
    fps: Fps = None,
    flatten: Flatten = None,
    delay: Delay = False,
    start: Annotated[
        bool | None,
        typer.Option("--start/--no-start", show_default="as the format", help="Begin clips with <m_start>."),
    ] = None,
    end: Annotated[
        bool | None, typer.Option("--end/--no-end", show_default="as the format", help="End clips with <m_end>.")
    ] = None,
    pad_to: Annotated[int | None, typer.Option("--pad-to", min=1, help="Fill clips up with <m_pad>.")] = None,
    offset: Offset = 0,
    vocab: Annotated[Path | None, typer.Option("--vocab", help="Write the token list too, one a line.")] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export motion, imported or decoded, to other people's files; or tokens for language models.

    BVH has the hierarchy, channels and unit of the files that were imported. Clips become files of their names, as
    far as these are safe; export.json in the folder lists both. What `vqtool import` needs to make the same tokens.h5
    again stands beside an export of tokens, in OUT.meta.json.

    Example: vqtool export tokens.h5 -o train.jsonl --format text --split train --vocab vocab.txt
    """
    from vqtool.cli.options import is_tokens
    from vqtool.errors import UsageError
    from vqtool.token_formats import SequenceOptions, export_tokens
    from vqtool.tokens import TokenSet

    options = SequenceOptions(flatten=flatten, delay=delay, start=start, end=end, pad_to=pad_to, offset=offset)
    result: dict[str, Any] = {"schema_version": 1, "output": str(output), "format": format}
    if is_tokens(source[0]):
        if len(source) > 1:
            raise UsageError("one tokens.h5 is exported at a time")
        if dataset is not None or fps is not None:
            raise UsageError("--dataset and --fps are for motion; leave them out", file=source[0])
        with TokenSet(source[0]) as tokens, metered(tokens.num_tokens, "token frame", quiet) as meter:
            made = export_tokens(
                tokens, output, format, options, split=split, vocab=vocab, force=force, progress=meter.add
            )
            layers = tokens.width
        result |= {"clips": made.clips, "token_frames": made.token_frames, "vocabulary": made.vocabulary}
        frames = f"{counted(made.token_frames, 'token frames')} x {counted(layers, 'layers')}"
        line = f"{frames} as {format} (vocabulary of {made.vocabulary:,}, {meter.seconds:.1f} s)"
    else:
        from vqtool.exporting import export_motion
        from vqtool.store import MotionSet

        if given := [*options.given(), *(["--vocab"] if vocab is not None else [])]:
            raise UsageError(f"{given[0]} is for tokens, and this is motion; leave it out", file=source[0])
        with MotionSet(source, dataset=dataset, fps=fps) as motion:
            done = export_motion(motion, output, format, motion.select(split), force=force)
        result |= {"clips": done.clips, "frames": done.frames}
        line = f"{counted(done.frames, 'frames')} as {format}"
    if as_json:
        typer.echo(json.dumps(result))
    else:
        typer.echo(f"{output}: {counted(result['clips'], 'clips')}, {line}")
