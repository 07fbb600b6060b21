"""`vqtool encode`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vqtool.cli.options import (
    Dataset,
    Device,
    Force,
    Fps,
    Json,
    Layers,
    Motions,
    Numerics,
    Output,
    Quiet,
    Run,
    Threads,
    metered,
    say,
    set_threads,
)


def encode(
    run: Run,
    motion: Motions,
    output: Output,
    num_quantizers: Layers = None,
    numerics: Numerics = "stable",
    on_error: Annotated[str, typer.Option("--on-error", help="At a clip with NaN: stop, or skip (exit 3).")] = "stop",
    force: Force = False,
    dataset: Dataset = None,
    fps: Fps = None,
    device: Device = "auto",
    threads: Threads = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be encoded, and stop.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Encode motion files to a token file (with a VAE: a latents file).

    Clips keep their names, order and true lengths; T frames become ceil(T / downsample) tokens.

    Example: vqtool encode runs/imu sample_data/wrist_imu.h5 -o imu.tokens.h5
    """
    from vqtool.errors import UsageError
    from vqtool.publish import check_output
    from vqtool.store import MotionSet

    if on_error not in ("stop", "skip"):
        raise UsageError(f"--on-error is stop or skip, not {on_error!r}")
    check_output(output, force=force, inputs=tuple(motion))
    with MotionSet(motion, dataset=dataset, fps=fps) as clips:
        from vqtool.nn.codec import load
        from vqtool.nn.files import encode_file

        set_threads(threads)
        codec = load(run, device=device, numerics=numerics)
        frames = int(clips.lengths.sum())
        if dry_run:
            codec.check_motion(clips)
            tokens = int((-(-clips.lengths // codec.downsample)).sum())
            layers = num_quantizers or len(codec.info.codebook_sizes)
            typer.echo(f"clips   {len(clips):,}\nframes  {frames:,}\ntokens  {tokens:,} x {layers} layers")
            return
        with metered(frames, "frame", quiet) as meter:
            done = encode_file(
                codec,
                clips,
                output,
                num_quantizers=num_quantizers,
                on_error=on_error,
                force=force,
                progress=meter.add,
            )
    for reason in done.skipped:
        say(f"skipped: {reason}")
    if as_json:
        result = {
            "schema_version": 1,
            "output": str(output),
            "clips": done.clips,
            "frames": done.frames,
            "tokens": done.tokens,
            "skipped": len(done.skipped),
            "decided_again": done.decided_again,
            "seconds": round(meter.seconds, 3),
        }
        typer.echo(json.dumps(result))
    else:
        rate = done.frames / max(meter.seconds, 1e-9)
        again = f", {done.decided_again:,} decided in float64" if done.decided_again else ""
        typer.echo(
            f"{output}: {done.clips:,} clips, {done.frames:,} frames -> {done.tokens:,} tokens "
            f"({rate:,.0f} frames/s{again})"
        )
    if done.skipped:
        raise typer.Exit(3)
