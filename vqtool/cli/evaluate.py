"""`vqtool evaluate`."""

from __future__ import annotations

import json
import math
from typing import Any

import typer

from vqtool.cli.options import (
    Dataset,
    Device,
    Fps,
    Json,
    Layers,
    Motions,
    Quiet,
    Run,
    Split,
    Threads,
    error_rows,
    layer_rows,
    metered,
    set_threads,
    show_rows,
)


def evaluate(
    run: Run,
    motion: Motions,
    split: Split = None,
    num_quantizers: Layers = None,
    dataset: Dataset = None,
    fps: Fps = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Encode and decode motion files, and tell how much is lost and how the codes are used.

    Errors are normalised by the standard deviations of the training clips: 1.0 is no better than the mean pose.

    Example: vqtool evaluate runs/imu sample_data/wrist_imu.h5 --split test
    """
    from vqtool.store import MotionSet
    from vqtool.tokenizer_file import read_tokenizer

    tokenizer = read_tokenizer(run)
    with MotionSet(motion, dataset=dataset, fps=fps) as clips:
        tokenizer.check_motion(clips)
        chosen = clips.select(split)
        clips.verify()
        for clip in chosen:
            clips.check(clip)
        from vqtool.motion import column_groups
        from vqtool.nn.codec import load
        from vqtool.nn.evaluation import evaluate as measure

        set_threads(threads)
        codec = load(tokenizer, device=device)
        with metered(int(clips.lengths[chosen].sum()), "frame", quiet) as meter:
            found = measure(codec, clips, chosen, num_quantizers=num_quantizers, progress=meter.add)
        rate = clips.fps / codec.downsample
        result: dict[str, Any] = {
            "schema_version": 1,
            "clips": found.clips,
            "frames": found.frames,
            "token_frames": found.token_frames,
            "nmse": found.nmse,
            "nmae": found.nmae,
            "mpjpe_mm": found.joints.mpjpe,
            "mpjpe_aligned_mm": found.joints.mpjpe_aligned,
            "mpjpe_pose_mm": found.joints.mpjpe_pose,
            "groups": {
                name: float(found.squared[where][found.moving[where]].mean())
                for name, where in column_groups(clips.layout, clips.dim).items()
                if found.moving[where].any()
            },
            "columns_nmse": found.squared.tolist(),
            "token_frames_per_second": rate,
            "tokens_per_second": rate * len(found.counts) if found.counts else None,
            "bits_per_second": rate * sum(math.log2(len(counts)) for counts in found.counts) if found.counts else None,
            "layers": found.layers,
        }
    if as_json:
        typer.echo(json.dumps(result))
        return

    rows = []
    rows.append(("clips", f"{found.clips:,} ({found.frames:,} frames, {found.token_frames:,} token frames)"))
    rows += error_rows(found)
    if found.frames and found.joints.known:
        rows.append(("joint errors", f"{result['mpjpe_pose_mm']:.1f} mm of the pose alone (MPJPE)"))
        rows.append(("", f"{result['mpjpe_aligned_mm']:.1f} mm with the roots together"))
        rows.append(("", f"{result['mpjpe_mm']:.1f} mm along the path from the same start"))
    for name, value in result["groups"].items():
        rows.append((f"  MSE of {name}", f"{value:.4f}"))
    if found.counts:
        rows.append(("rate", f"{rate:g} token frames/s, {result['bits_per_second']:,.0f} bits/s"))
    rows += layer_rows(found)
    show_rows(rows)
