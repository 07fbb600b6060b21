"""`vqtool sample`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqtool.cli.options import Device, Force, Json, Output, Quiet, Run, Threads, metered, set_threads, tell_parts
from vqtool.errors import counted

if TYPE_CHECKING:
    from vqtool.skeleton import Skeleton
    from vqtool.tokenizer_file import TokenizerFile


def sample(
    run: Run,
    output: Output,
    clips: Annotated[int, typer.Option("-n", "--clips", min=1, max=10**6, help="How many clips.")] = 1,
    frames: Annotated[int, typer.Option("--frames", min=1, max=10**7, help="Frames of each clip.")] = 120,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, max=100, help="Spread of z; 0: its mean.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of z.")] = 0,
    like: Annotated[
        Path | None, typer.Option("--like", metavar="MOTION", help="A motion file whose skeleton the clips get.")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw motion from a VAE: its decoder on noise. A look at its latents, not a model of motion.

    Codes have no such noise: of vq, rvq and fsq a model of tokens draws, as in examples/text_to_motion.

    Example: vqtool sample runs/humanoid -n 5 --frames 120 -o humanoid.prior.h5
    """
    from vqtool.publish import check_output
    from vqtool.tokenizer_file import read_tokenizer

    check_output(output, force=force, inputs=() if like is None else (like,))
    tokenizer = read_tokenizer(run)
    body = None if like is None else _body(tokenizer, like)
    from vqtool.nn.codec import load
    from vqtool.nn.files import sample_file

    set_threads(threads)
    codec = load(tokenizer, device=device)
    with metered(clips * frames, "frame", quiet) as meter:
        done = sample_file(
            codec,
            output,
            clips=clips,
            num_frames=frames,
            seed=seed,
            temperature=temperature,
            body=body,
            force=force,
            progress=meter.add,
        )
    tell_parts(done.parts_found, quiet)
    if as_json:
        result = {"schema_version": 1, "output": str(output), "clips": done.clips, "frames": done.frames}
        typer.echo(json.dumps(result | {"parts_found": done.parts_found, "seconds": round(meter.seconds, 3)}))
    else:
        typer.echo(
            f"{output}: {counted(done.clips, 'clips')}, {counted(done.frames, 'frames')} at {tokenizer.fps:g} fps"
        )


def _body(tokenizer: TokenizerFile, like: Path) -> Skeleton:
    """The first skeleton of a motion file of the columns that the tokenizer knows."""
    from vqtool.errors import UsageError
    from vqtool.store import MotionSet

    with MotionSet([like]) as motion:
        tokenizer.check_motion(motion)
        if not motion.companions.bodies:
            raise UsageError("has no skeleton; leave out --like, or name a motion.h5 of vqtool import", file=like)
        return motion.companions.bodies[0]
