"""`vqtool validate`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vqtool.cli.options import Dataset, Fps, Json, Motions, Quiet, metered
from vqtool.errors import counted


def validate(
    motion: Motions,
    dataset: Dataset = None,
    fps: Fps = None,
    min_frames: Annotated[int, typer.Option("--min-frames", min=0, help="Shorter clips are a problem.")] = 8,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look for what is wrong with motion files: a line for each problem, and exit code 65 if there is any.

    Damage, NaN, a root that teleports, columns that never move, Euler angles that jump, empty and very short clips,
    names that several files share, files that differ in columns, layout or frame rate.

    Example: vqtool validate sample_data/wrist_imu.h5
    """
    from vqtool.validation import find_problems

    problems = []
    with metered(None, "frame", quiet) as meter:
        for problem in find_problems(motion, dataset=dataset, fps=fps, min_frames=min_frames, progress=meter.add):
            problems.append(problem)
            if not as_json:
                typer.echo(str(problem))
    if as_json:
        listed = [{"file": p.file, "clip": p.clip, "frame": p.frame, "what": p.what} for p in problems]
        typer.echo(json.dumps({"schema_version": 1, "frames": meter.done, "problems": listed}))
    elif not problems:
        typer.echo(f"{counted(meter.done, 'frames')}, no problems")
    if problems:
        raise typer.Exit(65)
