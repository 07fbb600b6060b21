"""`vqtool report`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vqtool.cli.evaluate import figures_of, point_of
from vqtool.cli.options import (
    Dataset,
    Device,
    Force,
    Fps,
    Json,
    Motions,
    Output,
    Quiet,
    Run,
    Split,
    Threads,
    metered,
    set_threads,
)
from vqtool.errors import counted


def report(
    run: Run,
    motion: Motions,
    output: Output,
    split: Split = None,
    dataset: Dataset = None,
    fps: Fps = None,
    number: Annotated[
        int, typer.Option("--clips", min=1, help="How many clips to show: worst, median, and in between.")
    ] = 24,
    device: Device = "auto",
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page that shows a tokenizer at work: original and decoded motion, tokens, codebook, errors.

    The page needs no network and no server. All clips are measured; --clips of them are in the page to look at.

    Example: vqtool report runs/imu sample_data/wrist_imu.h5 --split test -o imu.html
    """
    from vqtool.errors import DataError, UsageError
    from vqtool.page import page
    from vqtool.publish import check_output, publish_bytes
    from vqtool.store import MotionSet
    from vqtool.tokenizer_file import NAME, read_tokenizer

    check_output(output, force=force, inputs=(run, run / NAME, *motion))
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError("a report is a .html page; choose such a name", file=output)
    tokenizer = read_tokenizer(run)
    with MotionSet(motion, dataset=dataset, fps=fps) as clips:
        tokenizer.check_motion(clips)
        chosen = clips.select(split, tokenizer)
        frames = int(clips.lengths[chosen].sum())
        if not frames:
            raise DataError("has no frames to show", file=clips.paths[0])
        clips.verify()
        for clip in chosen:
            clips.check(clip)
        from vqtool.nn.codec import load
        from vqtool.nn.survey import steps_of, survey
        from vqtool.nn.trainer import METRICS, records

        assert tokenizer.path is not None
        log = tokenizer.path.parent / METRICS
        lines = [record for _, record in records(log)] if log.exists() else None
        set_threads(threads)
        codec = load(tokenizer, device=device)
        with metered(frames * max(1, len(steps_of(codec))), "frame", quiet) as meter:
            found = survey(codec, clips, chosen, number, progress=meter.add)
        rate = clips.fps / codec.downsample
        figures = [figures_of(one, clips.layout, rate) for one in found.evaluations]
        name = run.name or run.resolve().name
        names = ", ".join(path.name for path in clips.paths[:3]) + ", ..." * (len(clips.paths) > 3)
        html = page(
            f"{name} on {names}" + (f", {split} clips" if split else ""),
            found,
            clips,
            tokenizer,
            figures[-1],
            [point_of(one, rate) for one in found.evaluations] if found.steps else [],
            [one["groups"] for one in figures],
            lines,
        )
    publish_bytes(output, html, force=force)
    if as_json:
        told = {
            "schema_version": 1,
            "output": str(output),
            "bytes": len(html),
            "clips": len(chosen),
            "clips_shown": len(found.shown),
            "frames": frames,
            "nmse": found.whole.nmse,
            "status": found.usage.status,
            "verdict": found.usage.verdict,
        }
        typer.echo(json.dumps(told))
    else:
        size = f"{len(html) / 1e6:.1f} MB"
        typer.echo(
            f"{output}: {size}, {len(found.shown)} of {counted(len(chosen), 'clips')} to look at; {found.usage.verdict}"
        )
