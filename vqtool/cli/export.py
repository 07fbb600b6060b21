"""`vqtool export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vqtool.cli.options import Dataset, Force, Fps, Json, Motions, Split


def export(
    motion: Motions,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to make (robomimic: the file).")],
    format: Annotated[str, typer.Option("--format", help="bvh, npy, csv, humanml3d or robomimic.")],
    split: Split = None,
    dataset: Dataset = None,
    fps: Fps = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Export motion to other people's files: imported, decoded or any other.

    BVH has the hierarchy, channels and unit of the files that were imported. Clips become files of their names, as
    far as these are safe; export.json in the folder lists both.

    Example: vqtool export decoded.h5 -o decoded/ --format bvh
    """
    from vqtool.exporting import export_motion
    from vqtool.store import MotionSet

    with MotionSet(motion, dataset=dataset, fps=fps) as clips:
        done = export_motion(clips, output, format, clips.select(split), force=force)
    if as_json:
        result = {"schema_version": 1, "output": str(output), "format": format}
        typer.echo(json.dumps(result | {"clips": done.clips, "frames": done.frames}))
    else:
        typer.echo(f"{output}: {done.clips:,} clips, {done.frames:,} frames as {format}")
