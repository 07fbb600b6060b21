"""`vqtool edit`: its commands replace, splice, interpolate, trim, repeat, reverse, drop-layers and swap-layer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqtool.cli.command import HELP_OPTIONS, Command
from vqtool.cli.options import Force, Json, Output, Quiet, metered
from vqtool.errors import counted

if TYPE_CHECKING:
    import numpy as np

    from vqtool.edit import Edit, Range
    from vqtool.tokens import TokenSet

edit = typer.Typer(
    name="edit",
    invoke_without_command=True,
    add_completion=False,
    context_settings=HELP_OPTIONS,
    rich_markup_mode=None,
)

Tokens = Annotated[Path, typer.Argument(metavar="TOKENS", help="tokens.h5 or latents.h5.")]
RangeOf = Annotated[str, typer.Argument(metavar="RANGE", help="NAME or NAME@FROM:TO.")]
Ranges = Annotated[list[str], typer.Argument(metavar="RANGE", help="NAME or NAME@FROM:TO, each.")]
Fade = Annotated[
    str, typer.Option("--cross-fade", metavar="LENGTH", help="Blend that many token frames at a seam, or 0.2s.")
]
Name = Annotated[str | None, typer.Option("--name", help="Add the result as a clip of that name.")]
Only = Annotated[bool, typer.Option("--only", help="Leave the other clips out.")]
Judge = Annotated[
    Path | None, typer.Option("--run", help="Judge seams by the motion that this run decodes; else by code vectors.")
]


@edit.callback()
def options(context: typer.Context) -> None:
    """Change motion by changing its tokens: replace, splice, blend and cut them.

    RANGE is NAME, or NAME@FROM:TO in token frames, or in seconds as NAME@1.5s:3s.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@dataclass
class _Job:
    """What every command has in common."""

    tokens: Path
    output: Path
    only: bool
    run: Path | None
    force: bool
    as_json: bool
    quiet: bool

    def do(self, operation: str, make: Callable[[TokenSet], list[Edit]], *, keep_layers: int | None = None) -> None:
        """Make the edits, judge their seams, write the file, tell."""
        from vqtool.edit import judge, write_edited
        from vqtool.publish import check_output
        from vqtool.tokens import TokenSet

        check_output(self.output, force=self.force, inputs=(self.tokens,))
        with TokenSet(self.tokens) as clips, metered(clips.num_tokens, "token frame", self.quiet) as meter:
            edits, layers = make(clips), clips.width
            decode = None if self.run is None else _decoder(self.run, clips)
            count = write_edited(
                clips,
                self.output,
                edits,
                f"edit {operation}",
                only=self.only,
                keep_layers=keep_layers,
                force=self.force,
                progress=meter.add,
            )
            known = decode is not None or clips.is_latents or bool(clips.codebooks)
            verdicts = judge(clips, edits, decode) if known else []
        seams = [
            {
                "clip": one.clip,
                "token": one.token,
                "frame": one.frame,
                "seconds": round(one.seconds, 3),
                "jump": one.jump,
                "usual": one.usual,
                "ratio": one.ratio,
            }
            for one in verdicts
        ]
        if self.as_json:
            edited = [
                {"name": one.name, "token_frames": len(one.rows), "frames": one.num_frames, "seams": len(one.seams)}
                for one in edits
            ]
            result = {"schema_version": 1, "output": str(self.output), "operation": operation, "clips": count}
            judged = "motion" if decode is not None else "vectors"
            typer.echo(json.dumps(result | {"edited": edited, "judged_by": judged, "seams": seams}, allow_nan=False))
            return
        done = (
            f"{len(edits):,} of them edited" if keep_layers is None else f"{keep_layers} of {counted(layers, 'layers')}"
        )
        typer.echo(f"{self.output}: {counted(count, 'clips')}, {done}")
        for one in edits:
            typer.echo(f"{one.name}: {counted(len(one.rows), 'token frames')}, {counted(one.num_frames, 'frames')}")
        what = "changes of velocity" if decode is not None else "steps between code vectors"
        for verdict in verdicts:
            place = f"{verdict.clip}: seam at token {verdict.token} ({verdict.seconds:.2f} s)"
            much = "the clips are too short to compare"
            if verdict.ratio is not None:
                much = f"{verdict.ratio:.2f} x the 95th percentile of the clips' own {what}"
            typer.echo(f"{place}: {much}")


def _decoder(run: Path, tokens: TokenSet) -> Callable[[np.ndarray], np.ndarray]:
    """Rows to motion in units of the columns' spread."""
    from vqtool.errors import MismatchError
    from vqtool.nn.codec import load

    codec = load(run, device="cpu")
    if codec.info.tokenizer_id != tokens.header.tokenizer_id:
        what = f"was made by tokenizer {tokens.header.tokenizer_id[:12]}, not by {run}; name the run that encoded it"
        raise MismatchError(what, file=tokens.path)
    scale = codec.model.normalizer.scale.cpu().numpy()
    width = tokens.width

    def decode(rows: np.ndarray) -> np.ndarray:
        motion: Any = codec.decode(rows[:, :width])
        found: np.ndarray = motion / scale
        return found

    return decode


@edit.command("replace", cls=Command)
def replace(
    tokens: Tokens,
    output: Output,
    clip: Annotated[str, typer.Option("--clip", help="The clip to change.")],
    at: Annotated[str, typer.Option("--at", metavar="FROM:TO", help="What of it is replaced.")],
    by: Annotated[str, typer.Option("--with", metavar="RANGE", help="By what, of any length.")],
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Only the codes of this body part, by a range of the same length; repeatable."),
    ] = None,
    cross_fade: Fade = "0",
    name: Name = None,
    only: Only = False,
    run: Judge = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Replace a part of a clip by a part of another, or of itself; of a body part's codes alone with --part.

    Example: vqtool edit replace tokens.h5 --clip day0/walk0 --at 3:6 --with day1/walk1@2:7 -o replaced.h5
    """
    from vqtool.edit import find_clip, parse_length, parse_range, parse_span, replaced

    def make(clips: TokenSet) -> list[Edit]:
        where, other = parse_span(clips, find_clip(clips, clip), at), parse_range(clips, by)
        fade = parse_length(clips, cross_fade)
        return [replaced(clips, where, other, cross_fade=fade, name=_new(clips, name), parts=part or ())]

    what = f"{', '.join(part)} of " if part else ""
    _Job(tokens, output, only, run, force, as_json, quiet).do(f"replace {what}{clip}@{at} by {by}", make)


@edit.command("splice", cls=Command)
def splice(
    tokens: Tokens,
    ranges: Ranges,
    output: Output,
    cross_fade: Fade = "0",
    name: Name = None,
    only: Only = False,
    run: Judge = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put ranges one behind the other into a new clip, called NAME or as they are: walk_01+run_03.

    Example: vqtool edit splice tokens.h5 day0/walk0@0:7 day1/walk1@5: --cross-fade 2 --name both
        -o spliced.h5 --run runs/mocap
    """
    from vqtool.edit import joined, parse_length, parse_range

    def make(clips: TokenSet) -> list[Edit]:
        parts = [parse_range(clips, one) for one in ranges]
        return [joined(clips, _called(clips, name, parts), parts, cross_fade=parse_length(clips, cross_fade))]

    _Job(tokens, output, only, run, force, as_json, quiet).do(f"splice {' '.join(ranges)}", make)


@edit.command("interpolate", cls=Command)
def interpolate(
    tokens: Tokens,
    one: RangeOf,
    other: RangeOf,
    output: Output,
    weight: Annotated[
        str, typer.Option("--weight", metavar="W|W:W", help="Of the second: 0.5, or 0:1 for a change over time.")
    ] = "0.5",
    name: Name = None,
    only: Only = False,
    run: Judge = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a clip between two ranges of one length, by their code vectors, quantized again (latents: as they are).

    Example: vqtool edit interpolate tokens.h5 day0/walk0 day1/walk1 --weight 0:1 --name between -o between.h5
    """
    from vqtool.edit import interpolated, parse_range
    from vqtool.errors import UsageError

    try:
        first, _, last = weight.partition(":")
        weights = float(first), float(last or first)
    except ValueError:
        raise UsageError(f"--weight is a number as 0.5, or two as 0:1, not {weight!r}") from None

    def make(clips: TokenSet) -> list[Edit]:
        parts = parse_range(clips, one), parse_range(clips, other)
        return [interpolated(clips, *parts, _called(clips, name, parts), weights)]

    _Job(tokens, output, only, run, force, as_json, quiet).do(f"interpolate {one} {other} {weight}", make)


@edit.command("trim", cls=Command)
def trim(
    tokens: Tokens,
    ranges: Ranges,
    output: Output,
    only: Only = False,
    run: Judge = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Cut clips to their ranges.

    Example: vqtool edit trim tokens.h5 day0/walk0@0.5s:1.2s day1/walk1@4: -o trimmed.h5 --only
    """
    from vqtool.edit import joined, parse_range

    def make(clips: TokenSet) -> list[Edit]:
        parts = [parse_range(clips, one) for one in ranges]
        _once(clips, [part.clip for part in parts])
        return [joined(clips, clips.names[part.clip], [part]) for part in parts]

    _Job(tokens, output, only, run, force, as_json, quiet).do(f"trim {' '.join(ranges)}", make)


@edit.command("repeat", cls=Command)
def repeat(
    tokens: Tokens,
    part: RangeOf,
    output: Output,
    times: Annotated[int, typer.Option("--times", min=1, help="How often the range comes.")] = 2,
    cross_fade: Fade = "0",
    name: Name = None,
    only: Only = False,
    run: Judge = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let a range of a clip come several times.

    Example: vqtool edit repeat tokens.h5 day0/walk0@3:9 --times 3 -o repeated.h5
    """
    from vqtool.edit import parse_length, parse_range, repeated

    def make(clips: TokenSet) -> list[Edit]:
        fade = parse_length(clips, cross_fade)
        return [repeated(clips, parse_range(clips, part), times, cross_fade=fade, name=_new(clips, name))]

    _Job(tokens, output, only, run, force, as_json, quiet).do(f"repeat {part} {times} times", make)


@edit.command("reverse", cls=Command)
def reverse(
    tokens: Tokens,
    ranges: Ranges,
    output: Output,
    only: Only = False,
    run: Judge = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let ranges of clips run backwards, token frame by token frame.

    Example: vqtool edit reverse tokens.h5 day0/walk0 -o reversed.h5
    """
    from vqtool.edit import parse_range, reversed_range

    def make(clips: TokenSet) -> list[Edit]:
        parts = [parse_range(clips, one) for one in ranges]
        _once(clips, [part.clip for part in parts])
        return [reversed_range(clips, part) for part in parts]

    _Job(tokens, output, only, run, force, as_json, quiet).do(f"reverse {' '.join(ranges)}", make)


@edit.command("drop-layers", cls=Command)
def drop_layers(
    tokens: Tokens,
    output: Output,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many layers stay, the coarsest first.")],
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep only the first layers of all clips: a coarser motion.

    Example: vqtool edit drop-layers tokens.h5 --keep 2 -o coarse.h5
    """
    job = _Job(tokens, output, only=False, run=None, force=force, as_json=as_json, quiet=quiet)
    job.do(f"drop-layers --keep {keep}", lambda clips: [], keep_layers=keep)


@edit.command("swap-layer", cls=Command)
def swap_layer(
    tokens: Tokens,
    one: RangeOf,
    other: RangeOf,
    output: Output,
    layer: Annotated[list[int], typer.Option("--layer", min=0, help="The layer, from 0; repeatable.")],
    only: Only = False,
    run: Judge = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Exchange layers of two ranges of one length: the course of one clip with the detail of another.

    Example: vqtool edit swap-layer tokens.h5 day0/walk0@0:10 day1/walk1@0:10 --layer 1 --layer 2 -o swapped.h5
    """
    from vqtool.edit import exchanged, parse_range

    layers = " ".join(map(str, layer))
    _Job(tokens, output, only, run, force, as_json, quiet).do(
        f"swap-layer {one} {other} {layers}",
        lambda clips: exchanged(clips, parse_range(clips, one), parse_range(clips, other), layer),
    )


def _new(clips: TokenSet, name: str | None) -> str | None:
    """A name that no clip has yet."""
    from vqtool.errors import UsageError

    if name is not None and name in clips.names:
        raise UsageError(f"--name {name}: the file has a clip of that name; choose another", file=clips.path)
    return name


def _called(clips: TokenSet, name: str | None, parts: Sequence[Range]) -> str:
    """The name that was asked for, else the names of the clips; one that no clip has yet."""
    from vqtool.errors import UsageError

    if name is not None:
        return _new(clips, name) or name
    joined_names = "+".join(clips.names[part.clip] for part in parts)
    if joined_names in clips.names:
        raise UsageError(f"has a clip called {joined_names} already; name the result with --name", file=clips.path)
    return joined_names


def _once(clips: TokenSet, chosen: list[int]) -> None:
    """Each clip may be changed once."""
    from vqtool.errors import UsageError

    for clip in chosen:
        if chosen.count(clip) > 1:
            raise UsageError("is named twice; edit it in two steps", file=clips.path, clip=clips.names[clip])
