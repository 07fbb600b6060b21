"""`vqtool merge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vqtool.cli.options import Force, Json, Quiet, metered, say
from vqtool.errors import counted


def merge(
    shards: Annotated[
        list[Path],
        typer.Argument(metavar="SHARD", help="What encode or decode --shard made, all N in any order.", readable=False),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write; x.json: a manifest of the shards.")
    ],
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Join shards to the file that one run over all clips writes, to the byte, or list them in a manifest.

    Which shards are missing, or of other work, is told before anything is written. A manifest stands for its shards in
    inspect-codebook and here.

    Example: vqtool merge imu.0.h5 imu.1.h5 -o imu.merged.h5
    """
    from vqtool import merging
    from vqtool.publish import check_output

    check_output(output, force=force, inputs=tuple(shards))
    with metered(None, "frame", quiet) as meter:
        done = merging.merge(shards, output, force=force, progress=meter.add)
    if len(done.machines) > 1 and not quiet:
        say(f"warning: the shards differ in what their last bits depend on: {'; '.join(done.machines)}")
    if as_json:
        result = {"schema_version": 1, "output": str(output), **vars(done), "seconds": round(meter.seconds, 3)}
        typer.echo(json.dumps(result))
    else:
        left_out = f"; shards left {counted(done.left_out, 'clips')} out" if done.left_out else ""
        what = f"{counted(done.shards, 'shards')}, {counted(done.clips, 'clips')}, {counted(done.frames, 'frames')}"
        typer.echo(f"{output}: {what}{left_out}")
