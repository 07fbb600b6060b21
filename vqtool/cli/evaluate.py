"""`vqtool evaluate`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Quiet,
    Run,
    Split,
    Threads,
    WorkerCount,
    error_rows,
    layer_rows,
    make_workers,
    metered,
    show_rows,
)
from vqtool.errors import counted

if TYPE_CHECKING:
    from vqtool.metrics import Measures
    from vqtool.nn.evaluation import Evaluation

NAME_WIDTH = 38  # characters of a clip's name on the screen
JOINTS = (
    ("mpjpe_pose_mm", "mm of the pose alone (MPJPE)"),
    ("mpjpe_procrustes_mm", "mm after the best turn and scale (PA-MPJPE)"),
    ("mpjpe_aligned_mm", "mm with the roots together"),
    ("mpjpe_mm", "mm along the path from the same start"),
    ("velocity_error_mm_s", "mm/s of velocity"),
    ("acceleration_error_mm_s2", "mm/s^2 of acceleration (ACCEL)"),
)


def evaluate(
    run: Run,
    motion: Motions,
    split: Split = None,
    dataset: Dataset = None,
    fps: Fps = None,
    num_quantizers: Layers = None,
    by_layers: Annotated[bool, typer.Option("--by-layers", help="Also by the first 1, 2, ... layers.")] = False,
    top: Annotated[int, typer.Option("--top", min=0, help="How many of the worst clips to name.")] = 5,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a line for each clip, worst first.")] = None,
    workers: WorkerCount = None,
    engine: Engine = "local",
    device: Device = "auto",
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Encode and decode motion files, and tell how much is lost and how the codes are used.

    Errors are normalised by the standard deviations of the training clips: 1.0 is no better than the mean pose.
    docs/measures.md says what each measure means.

    Example: vqtool evaluate runs/imu sample_data/wrist_imu.h5 --split test
    """
    from vqtool.errors import DataError, UsageError
    from vqtool.publish import check_output, publish_bytes
    from vqtool.store import MotionSet
    from vqtool.tokenizer_file import NAME, read_tokenizer

    if csv is not None:
        check_output(csv, force=force, inputs=(run, run / NAME, *motion))
    tokenizer = read_tokenizer(run)
    if by_layers and not tokenizer.codebook_sizes:
        raise UsageError("is a VAE, which has no layers; leave --by-layers out", file=run)
    with MotionSet(motion, dataset=dataset, fps=fps) as clips:
        tokenizer.check_motion(clips)
        chosen = clips.select(split, tokenizer)
        frames = int(clips.lengths[chosen].sum())
        if not frames:
            raise DataError("has no frames to evaluate", file=clips.paths[0])
        clips.verify()
        for clip in chosen:
            clips.check(clip)
        from vqtool.nn.codec import load
        from vqtool.nn.evaluation import evaluate_layers

        team = make_workers(workers, engine, threads, device)
        codec = load(tokenizer, device=device)
        last = codec.model.bottleneck.layers_asked(num_quantizers)
        less = [layers for layers in codec.model.bottleneck.prefixes if layers < last] if by_layers else []
        with metered(frames * (len(less) + 1), "frame", quiet) as meter:
            # Each number of layers is encoded by itself: its codes need not be the first ones of more layers.
            layers = [*less, num_quantizers]
            *fewer, found = evaluate_layers(
                codec, clips, chosen, layers, measured=True, workers=team, progress=meter.add
            )
        names = [clips.names[clip] for clip in chosen]
        lengths = clips.lengths[chosen].tolist()
        rate = clips.fps / codec.downsample
        result = figures_of(found, clips.layout, rate)
    assert found.measures is not None
    if csv is not None:
        publish_bytes(csv, _csv(found.measures, names, lengths), force=force)
    worst = [
        {"name": names[row], "frames": lengths[row], **found.measures.of_clip(row)}
        for row in found.measures.worst_first()[:top]
    ]
    curve = [point_of(one, rate) for one in [*fewer, found]] if by_layers else []
    if as_json:
        typer.echo(json.dumps(result | {"by_layers": curve, "worst_clips": worst}))
    else:
        _show(found, result, rate)
        _show_curve(curve)
        _show_worst(worst)


def _bits(found: Evaluation, rate: float) -> float | None:
    return rate * sum(math.log2(len(counts)) for counts in found.counts) if found.counts else None


def figures_of(found: Evaluation, layout: str, rate: float) -> dict[str, Any]:
    """What --json prints, but for the clips and the curve."""
    from vqtool.metrics import JointErrors
    from vqtool.motion import column_groups

    assert found.measures is not None
    means = found.measures.of_all()
    groups = [name for name, where in column_groups(layout, len(found.scale)).items() if found.moving[where].any()]
    return {
        "schema_version": 1,
        "clips": found.clips,
        "frames": found.frames,
        "token_frames": found.token_frames,
        "nmse": found.nmse,
        "nmae": found.nmae,
        **{name: means.get(name) for name in JointErrors.NAMES},
        "frechet": found.measures.distance.real_to_decoded(),
        "frechet_real": found.measures.distance.real_to_real(),
        "groups": {name: means[f"nmse_{name}"] for name in groups},
        "groups_nmae": {name: means[f"nmae_{name}"] for name in groups},
        "columns_nmse": found.squared.tolist(),
        "token_frames_per_second": rate,
        "tokens_per_second": rate * len(found.counts) if found.counts else None,
        "bits_per_second": _bits(found, rate),
        "layers": found.layers,
    }


def point_of(found: Evaluation, rate: float) -> dict[str, Any]:
    """What so many layers cost and give: a point of the rate-distortion curve."""
    assert found.measures is not None
    means = found.measures.of_all()
    return {
        "layers": len(found.counts),
        "bits_per_second": _bits(found, rate),
        "nmse": found.nmse,
        "nmae": found.nmae,
        **{name: means.get(name) for name in ("mpjpe_pose_mm", "mpjpe_mm", "acceleration_error_mm_s2")},
        "frechet": found.measures.distance.real_to_decoded(),
    }


def _csv(measures: Measures, names: list[str], lengths: list[int]) -> bytes:
    """A header and a line for each clip, worst first; empty where a measure has nothing to tell."""
    import csv
    import io

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", "frames", *measures.names])
    for row in measures.worst_first():
        values = measures.of_clip(row).values()
        rows.writerow([names[row], lengths[row], *("" if value is None else f"{value:.6g}" for value in values)])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _show(found: Evaluation, result: dict[str, Any], rate: float) -> None:
    rows = []
    rows.append(
        ("clips", f"{found.clips:,} ({counted(found.frames, 'frames')}, {counted(found.token_frames, 'token frames')})")
    )
    rows += error_rows(found)
    for name, value in result["groups"].items():
        rows.append((f"  of {name}", f"MSE {value:.4f}, MAE {result['groups_nmae'][name]:.4f}"))
    joints = [(f"{result[key]:,.1f}", what) for key, what in JOINTS if result[key] is not None]
    width = max((len(number) for number, _ in joints), default=0)
    for row, (number, what) in enumerate(joints):
        rows.append(("" if row else "joint errors", f"{number:>{width}} {what}"))
    if result["foot_skate_mm_s"] is not None:
        skate, true = result["foot_skate_mm_s"], result["foot_skate_true_mm_s"]
        rows.append(("foot skate", f"{skate:,.1f} mm/s on the ground; {true:,.1f} before encoding"))
    if result["drift_mm"] is not None:
        turned = "" if result["drift_degrees"] is None else f" and {result['drift_degrees']:.1f} degrees"
        rows.append(("drift", f"{result['drift_mm']:,.1f} mm{turned} at the end of a clip"))
    if result["frechet"] is not None:
        real = result["frechet_real"]
        beside = "" if real is None else f"; {real:.4f} between two halves of the clips"
        rows.append(("Frechet", f"{result['frechet']:.4f}  (0 = alike{beside})"))
    if found.counts:
        rows.append(("rate", f"{rate:g} token frames/s, {result['bits_per_second']:,.0f} bits/s"))
    rows += layer_rows(found)
    show_rows(rows)


def _show_curve(curve: list[dict[str, Any]]) -> None:
    """The rate-distortion curve, a line for each number of layers."""
    if curve:
        joints = curve[0]["mpjpe_mm"] is not None
        heads = ["nMSE", "nMAE", *(["pose mm", "path mm", "mm/s^2"] if joints else []), "Frechet"]
        typer.echo(
            "\n" + typer.style(f"{'layers':<8}{'bits/s':>9}" + "".join(f"{head:>10}" for head in heads), bold=True)
        )
    for point in curve:
        layers, bits, *values, frechet = point.values()
        texts = [f"{value:.4f}" for value in values[:2]] + [
            f"{value:,.1f}" for value in values[2:] if value is not None
        ]
        texts.append("-" if frechet is None else f"{frechet:.4f}")
        typer.echo(f"{layers:<8}{bits:>9,.0f}" + "".join(f"{text:>10}" for text in texts))


def _show_worst(worst: list[dict[str, Any]]) -> None:
    """The clips that came back worst."""
    from vqtool.errors import printable

    if not worst:
        return
    joints = "mpjpe_mm" in worst[0]
    heads = [("nMSE", 10), *([("pose mm", 10), ("drift mm", 10)] if joints else [])]
    line = f"{'worst clips':<{NAME_WIDTH}}{'frames':>9}" + "".join(f"{head:>{width}}" for head, width in heads)
    typer.echo("\n" + typer.style(line, bold=True))
    for clip in worst:
        name = printable(clip["name"])
        short = name if len(name) < NAME_WIDTH else f"...{name[4 - NAME_WIDTH :]}"
        values = [clip["nmse"], *([clip["mpjpe_pose_mm"], clip["drift_mm"]] if joints else [])]
        digits = (4, 1, 1)
        texts = ["-" if value is None else f"{value:,.{digits[n]}f}" for n, value in enumerate(values)]
        typer.echo(f"{short:<{NAME_WIDTH}}{clip['frames']:>9,}" + "".join(f"{text:>10}" for text in texts))
