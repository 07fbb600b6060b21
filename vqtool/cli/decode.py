"""`vqtool decode`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vqtool.cli.options import (
    Device,
    Force,
    Json,
    Layers,
    Output,
    Quiet,
    Run,
    Threads,
    metered,
    set_threads,
    tell_parts,
)


def decode(
    run: Run,
    tokens: Annotated[Path, typer.Argument(help="tokens.h5 or latents.h5 that this run encoded.", readable=False)],
    output: Output,
    num_quantizers: Layers = None,
    sample: Annotated[bool, typer.Option("--sample", help="Of a VAE: draw from the posterior, not its mean.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of --sample.")] = 0,
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
    from vqtool.tokenizer_file import read_tokenizer
    from vqtool.tokens import TokenSet

    check_output(output, force=force, inputs=(tokens,))
    tokenizer = read_tokenizer(run)
    with TokenSet(tokens) as clips:
        tokenizer.check_tokens(clips)
        clips.check()  # before torch, which takes seconds to come
        from vqtool.nn.codec import load
        from vqtool.nn.files import decode_file

        set_threads(threads)
        codec = load(tokenizer, device=device)
        with metered(int(clips.num_frames.sum()), "frame", quiet) as meter:
            done = decode_file(
                codec,
                clips,
                output,
                num_quantizers=num_quantizers,
                sample_seed=seed if sample else None,
                force=force,
                progress=meter.add,
            )
    tell_parts(done.parts_found, quiet)
    if as_json:
        result = {"schema_version": 1, "output": str(output), "clips": done.clips, "frames": done.frames}
        typer.echo(json.dumps(result | {"parts_found": done.parts_found, "seconds": round(meter.seconds, 3)}))
    else:
        rate = done.frames / max(meter.seconds, 1e-9)
        typer.echo(f"{output}: {done.clips:,} clips, {done.frames:,} frames ({rate:,.0f} frames/s)")
