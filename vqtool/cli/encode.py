"""`vqtool encode`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from vqtool.cli.options import (
    Dataset,
    Device,
    Engine,
    Force,
    Fps,
    Json,
    Layers,
    Motions,
    Numerics,
    Output,
    Quiet,
    Run,
    ShardOf,
    Threads,
    WorkerCount,
    make_workers,
    metered,
    say,
    show_rows,
    tell_parts,
)
from vqtool.errors import counted

if TYPE_CHECKING:
    from vqtool.nn.codec import Codec
    from vqtool.store import MotionSet


def encode(
    run: Run,
    motion: Motions,
    output: Output,
    dataset: Dataset = None,
    fps: Fps = None,
    num_quantizers: Layers = None,
    numerics: Numerics = "stable",
    on_error: Annotated[str, typer.Option("--on-error", help="At a clip with NaN: stop, or skip (exit 3).")] = "stop",
    shard: ShardOf = None,
    workers: WorkerCount = None,
    engine: Engine = "local",
    device: Device = "auto",
    threads: Threads = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be encoded, and stop.")] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Encode motion files to a token file (with a VAE: a latents file).

    Clips keep their names, order and true lengths; T frames become ceil(T / downsample) tokens.

    Example: vqtool encode runs/imu sample_data/wrist_imu.h5 -o imu.tokens.h5
    """
    from vqtool.errors import UsageError
    from vqtool.publish import check_output
    from vqtool.shards import parse_shard
    from vqtool.store import MotionSet
    from vqtool.tokenizer_file import read_tokenizer

    if on_error not in ("stop", "skip"):
        raise UsageError(f"--on-error is stop or skip, not {on_error!r}")
    share = None if shard is None else parse_shard(shard)
    check_output(output, force=force, inputs=tuple(motion))
    tokenizer = read_tokenizer(run)
    with MotionSet(motion, dataset=dataset, fps=fps) as clips:
        tokenizer.check_motion(clips)
        if share is None and not dry_run:
            clips.usable(on_error)  # before torch, which takes seconds to come
        from vqtool.nn.codec import load
        from vqtool.nn.files import encode_file

        team = make_workers(workers, engine, threads, device)
        codec = load(tokenizer, device=device, numerics=numerics)
        frames = int(clips.lengths.sum()) // (1 if share is None else share[1])
        if dry_run:
            _show_plan(codec, clips, num_quantizers, as_json)
            return
        with metered(frames, "frame", quiet) as meter:
            done = encode_file(
                codec,
                clips,
                output,
                num_quantizers=num_quantizers,
                on_error=on_error,
                shard=share,
                workers=team,
                force=force,
                progress=meter.add,
            )
    for reason in done.skipped:
        say(f"skipped: {reason}")
    tell_parts(done.parts_found, quiet)
    if as_json:
        result = {
            "schema_version": 1,
            "output": str(output),
            "clips": done.clips,
            "frames": done.frames,
            "token_frames": done.token_frames,
            "skipped": len(done.skipped),
            "decided_again": done.decided_again,
            "changed": done.changed,
            "parts_found": done.parts_found,
            "seconds": round(meter.seconds, 3),
        }
        typer.echo(json.dumps(result))
    else:
        rate = done.frames / max(meter.seconds, 1e-9)
        again = f", {done.decided_again:,} decided in float64" if done.decided_again else ""
        size = _size(codec, done.token_frames, num_quantizers)
        if done.changed is not None:
            again += f", {done.changed:.1%} of the codes not those of float32"
        what = f"{counted(done.clips, 'clips')}, {counted(done.frames, 'frames')}"
        typer.echo(f"{output}: {what} -> {size} ({rate:,.0f} frames/s{again})")
    if done.skipped:
        raise typer.Exit(3)


def _size(codec: Codec, token_frames: int, num_quantizers: int | None) -> str:
    """45,780 token frames x 6 layers, or as many latents."""
    layers = codec.model.bottleneck.layers_asked(num_quantizers)
    if not layers:
        return counted(token_frames, "latents")
    return f"{counted(token_frames, 'token frames')} x {counted(layers, 'layers')}"


def _show_plan(codec: Codec, motion: MotionSet, num_quantizers: int | None, as_json: bool) -> None:
    token_frames = int((-(-motion.lengths // codec.downsample)).sum())
    result = {"schema_version": 1, "clips": len(motion), "frames": int(motion.lengths.sum())}
    result |= {"token_frames": token_frames, "layers": codec.model.bottleneck.layers_asked(num_quantizers)}
    if as_json:
        typer.echo(json.dumps(result))
    else:
        size = _size(codec, token_frames, num_quantizers)
        show_rows([("clips", f"{len(motion):,}"), ("frames", f"{result['frames']:,}"), ("output", size)])
