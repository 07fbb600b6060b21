"""`vqtool play`: clips as moving pictures or contact sheets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqtool.cli.options import Dataset, Force, Fps, Json, Quiet, metered
from vqtool.errors import counted

if TYPE_CHECKING:
    from vqtool.store import MotionSet

CAMERAS = {"auto": None, "follow": True, "path": False}
GIF_RATE, MP4_RATE = 20, 60  # pictures a second at most, unless --rate asks for more
ACROSS = 6  # poses in a row of a contact sheet


def play(
    motion: Annotated[
        Path, typer.Argument(metavar="MOTION", help="motion.h5, or any HDF5 file of [T, D] datasets.", readable=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .gif, .mp4 (needs ffmpeg) or .png to write.")],
    clip: Annotated[
        list[str] | None,
        typer.Option("--clip", show_default="the first", help="A clip by name; repeatable, side by side."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="MOTION", readable=False, help="The same clips, decoded.")
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Both in one picture instead of side by side; with --against.")
    ] = False,
    frames: Annotated[
        str,
        typer.Option(
            "--frames", metavar="FROM:TO", show_default="all", help="A part of the clips, in frames or as 1.5s:3s."
        ),
    ] = ":",
    dataset: Dataset = None,
    fps: Fps = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns", metavar="COLUMNS", help="Curves of these columns instead of a skeleton: 0:6, or a group."
        ),
    ] = None,
    camera: Annotated[
        str, typer.Option("--camera", help="follow the root, or stand and see the path; auto: by the path's length.")
    ] = "auto",
    turn: Annotated[float, typer.Option("--turn", min=-360, max=360, help="Degrees to turn the view by.")] = 0.0,
    size: Annotated[int, typer.Option("--size", min=96, max=2160, help="Height of a picture in pixels.")] = 480,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", min=0.1, max=240, show_default="the motion's; at most 20, of MP4 60", help="Pictures a second."
        ),
    ] = None,
    speed: Annotated[float, typer.Option("--speed", min=0.01, max=100, help="0.5 is half as fast.")] = 1.0,
    poses: Annotated[int, typer.Option("--poses", min=1, max=120, help="Of a PNG: how many.")] = 12,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw clips, alone or against what came back of them: a GIF, an MP4, or a contact sheet as PNG.

    Skeletons are those of the motion file. Motion without one is drawn as curves of its columns.

    Example: vqtool play sample_data/wrist_imu.h5 --against imu.decoded.h5 --frames 0s:3s -o wrist.gif
    """
    import contextlib

    from vqtool.errors import UsageError
    from vqtool.pictures import (
        Stage,
        contact_sheet,
        gif,
        make_panels,
        mp4,
        require_ffmpeg,
        require_pillow,
        shown_frames,
    )
    from vqtool.publish import check_output, publish_bytes
    from vqtool.scene import frame_range
    from vqtool.store import MotionSet

    kind = output.suffix.lower()
    if kind not in (".gif", ".mp4", ".png"):
        raise UsageError("is none of .gif, .mp4 and .png; name one of these with -o", file=output)
    if overlay and against is None:
        raise UsageError("--overlay lays two motions over each other; name the other with --against, or leave it out")
    if camera not in CAMERAS:
        raise UsageError(f"--camera is {', '.join(CAMERAS)}, not {camera!r}")
    check_output(output, force=force, inputs=(motion, *([against] if against else [])))
    require_pillow()
    if kind == ".mp4":
        require_ffmpeg()
    with contextlib.ExitStack() as stack:
        clips = stack.enter_context(MotionSet([motion], dataset=dataset, fps=fps))
        decoded = stack.enter_context(MotionSet([against], dataset=dataset, fps=fps)) if against else None
        names = clip or clips.names[:1]
        panels = make_panels(clips, decoded, names, frames, overlay=overlay, curves=columns is not None)
        chosen = _columns(clips, columns)
        shown_fps, first = clips.fps * speed, frame_range(frames, clips.fps)[0]
    if kind == ".png":
        size = size // 2  # of each pose
    width = 2 * round(size * (1 if len(panels) == 1 and kind != ".png" else 0.75) / 2)
    stage = Stage(panels, clips.fps, width, size, follow=CAMERAS[camera], turn=turn, columns=chosen, first=first)
    if rate is None:
        rate = shown_fps / -(-shown_fps // (GIF_RATE if kind == ".gif" else MP4_RATE))  # every frame, or every second
    count = min(poses, stage.frames) if kind == ".png" else len(shown_frames(stage.frames, shown_fps, rate))
    with metered(count, "picture", quiet) as meter:
        if kind == ".png":
            data = contact_sheet(stage, poses, ACROSS, meter.add)
        else:
            data = (gif if kind == ".gif" else mp4)(stage, rate, speed, meter.add)
    publish_bytes(output, data, force=force)
    if as_json:
        result = {"schema_version": 1, "output": str(output), "clips": names, "pictures": count, "bytes": len(data)}
        typer.echo(json.dumps(result | {"seconds": round(meter.seconds, 3)}))
    else:
        typer.echo(f"{output}: {counted(count, 'pictures')} of {', '.join(names)}, {len(data) / 1000:,.0f} kB")


def _columns(motion: MotionSet, asked: str | None) -> list[tuple[int, str]]:
    """Number and name of the columns whose curves are drawn where there is no figure."""
    from vqtool.motion import column_names, resolve_columns
    from vqtool.pictures import MAX_CURVES

    body = next(iter(motion.companions.bodies), None)
    names = column_names(motion.layout, motion.dim, None if body is None else body.names)
    numbers = range(motion.dim)[slice(None) if asked is None else resolve_columns(asked, motion.layout, motion.dim)]
    return [(number, names[number]) for number in numbers[:MAX_CURVES]]
