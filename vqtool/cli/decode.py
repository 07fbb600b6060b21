"""`vqtool decode`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vqtool.cli.options import Device, Force, Json, Layers, Output, Quiet, Run, Threads, metered, set_threads


def decode(
    run: Run,
    tokens: Annotated[Path, typer.Argument(help="tokens.h5 or latents.h5 that this run encoded.")],
    output: Output,
    num_quantizers: Layers = None,
    sample: Annotated[bool, typer.Option("--sample", help="Of a VAE: draw from the posterior, not its mean.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of --sample.")] = 0,
    force: Force = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decode a token file to motion, every clip at its true length.

    Tokens of another tokenizer are refused (exit code 76).

    Example: vqtool decode runs/imu imu.tokens.h5 -o imu.decoded.h5
    """
    from vqtool.publish import check_output
    from vqtool.tokens import TokenSet

    check_output(output, force=force, inputs=(tokens,))
    with TokenSet(tokens) as clips:
        from vqtool.nn.codec import load
        from vqtool.nn.files import decode_file

        set_threads(threads)
        codec = load(run, device=device)
        with metered(int(clips.num_frames.sum()), "frame", quiet) as meter:
            frames = decode_file(
                codec,
                clips,
                output,
                num_quantizers=num_quantizers,
                sample_seed=seed if sample else None,
                force=force,
                progress=meter.add,
            )
        count = len(clips)
    seconds = meter.seconds
    if as_json:
        result = {"schema_version": 1, "output": str(output), "clips": count, "frames": frames}
        typer.echo(json.dumps(result | {"seconds": round(seconds, 3)}))
    else:
        typer.echo(f"{output}: {count:,} clips, {frames:,} frames ({frames / max(seconds, 1e-9):,.0f} frames/s)")
