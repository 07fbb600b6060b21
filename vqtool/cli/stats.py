"""`vqtool stats`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from vqtool.cli.options import Dataset, Fps, Json, Motions, Quiet, Split, metered, show_rows

if TYPE_CHECKING:
    from vqtool.summary import Summary

BAR = 40  # characters of the longest bar


def stats(
    motion: Motions,
    split: Split = None,
    dataset: Dataset = None,
    fps: Fps = None,
    columns: Annotated[bool, typer.Option("--columns", help="Every column, not a line for each group.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell how much motion files hold: clips, frames, minutes, lengths, and the range of each column.

    Example: vqtool stats sample_data/wrist_imu.h5
    """
    from vqtool.store import MotionSet
    from vqtool.summary import summarize

    with MotionSet(motion, dataset=dataset, fps=fps) as clips:
        chosen = clips.select(split)
        with metered(int(clips.lengths[chosen].sum()), "frame", quiet) as meter:
            found = summarize(clips, chosen, meter.add)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    rows = [
        ("clips", f"{found.clips:,}"),
        ("frames", f"{found.frames:,} at {found.fps:g} fps, {found.minutes:,.1f} minutes"),
        ("columns", f"{len(found.names)}, layout {found.layout}"),
    ]
    if found.splits is not None:
        rows.append(("splits", ", ".join(f"{count:,} {name}" for name, count in found.splits.items())))
    for name, count in (("bodies", found.bodies), ("captions", found.captions), ("mirrored", found.mirrored)):
        if count:
            rows.append((name, f"{count:,}"))
    if found.std_convention is not None:
        rows.append(("source's Std", found.std_convention))
    show_rows(rows)
    _show_lengths(found)
    if found.frames:
        _show_columns(found, every=columns or not found.groups)


def _show_lengths(found: Summary) -> None:
    bins = found.histogram()
    most = max((count for _, _, count in bins), default=0)
    typer.echo("\nframes           clips")
    for low, high, count in bins:
        bar = "#" * -(-count * BAR // max(1, most))
        typer.echo(f"{f'{low:,}-{high:,}' if high > low else f'{low:,}':<15}{count:>7,}  {bar}".rstrip())


def _show_columns(found: Summary, *, every: bool) -> None:
    stats = found.columns
    parts = {name: slice(n, n + 1) for n, name in enumerate(found.names)} if every else found.groups
    width = max(map(len, parts)) + 2
    typer.echo(f"\n{'column' if every else 'group':<{width}}{'min':>11}{'mean':>11}{'std':>11}{'max':>11}  never move")
    for name, part in parts.items():
        numbers = stats.low[part].min(), stats.mean[part].mean(), stats.std[part].mean(), stats.high[part].max()
        still = int(stats.constant[part].sum())
        size = part.stop - part.start
        note = "" if not still else "constant" if every else f"{still} of {size}"
        typer.echo((f"{name:<{width}}" + "".join(f"{number:>11.4g}" for number in numbers) + f"  {note}").rstrip())
