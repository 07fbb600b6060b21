"""`vqtool train`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqtool.cli.options import (
    Dataset,
    Device,
    Fps,
    Json,
    Meter,
    Motions,
    Quiet,
    Threads,
    error_rows,
    layer_rows,
    say,
    set_threads,
    show_rows,
)
from vqtool.errors import counted

if TYPE_CHECKING:
    from vqtool.cli.training_view import LivePanel
    from vqtool.config import Config
    from vqtool.nn.trackers import Tracker
    from vqtool.nn.trainer import Trained
    from vqtool.store import MotionSet


def train(
    motion: Motions,
    output: Annotated[Path, typer.Option("-o", "--output", help="The run folder to make.")],
    model: Annotated[
        str | None,
        typer.Option("--model", show_default="rvq", help="vae, vq, rvq, fsq or product; of a --preset, its own."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="A published recipe: t2m-gpt, momask or mld-vae.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, show_default="5000", help="Training steps.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, show_default="0", help="Of weights, windows and codebooks.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings from a TOML file.", readable=False)] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, as train.lr=1e-3; repeatable.")
    ] = None,
    dataset: Dataset = None,
    fps: Fps = None,
    device: Device = "auto",
    threads: Threads = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Begin anew in a folder that a run is in.")] = False,
    log_to: Annotated[
        list[str] | None,
        typer.Option("--log-to", help="Log to tensorboard or wandb too; repeatable (needs the extra)."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a tokenizer on motion files.

    The run folder holds tokenizer.safetensors (all that encode and decode need), config.toml, metrics.jsonl and
    checkpoints. Options beat --set, --set beats VQTOOL_SECTION_KEY variables, these beat --config, and that
    beats --preset; what none of them says has its default. docs/cli.md lists all settings.

    Example: vqtool train sample_data/wrist_imu.h5 -o runs/imu --model rvq --steps 300
    """
    from vqtool import presets
    from vqtool.config import build_config, of_run, read_assignments, read_environment, read_run, read_toml
    from vqtool.ranks import launched, share
    from vqtool.store import MotionSet

    given = {
        "model.bottleneck": model,
        "train.steps": steps,
        "train.seed": seed,
        "data.dataset": dataset,
        "data.fps": fps,
    }
    begun = output / "config.toml"
    layers = [
        presets.preset(preset) if preset is not None else {},
        read_toml(config) if config is not None else {},
        read_environment(),
        read_assignments(assignments or []),
        {key: value for key, value in given.items() if value is not None},
    ]
    if resume and begun.exists():
        layers.insert(0, of_run(read_run(begun), layers))
    settings = build_config(*layers)
    rank, ranks = launched()
    with MotionSet(motion, dataset=settings.data.dataset, fps=settings.data.fps) as clips:
        if dry_run:
            if rank == 0:
                _show_plan(settings, clips, as_json)
            return

        if ranks == 1:
            clips.usable()  # before torch, which takes seconds to come
        from vqtool.nn import distributed
        from vqtool.nn.codec import pick_device
        from vqtool.nn.trackers import make_trackers
        from vqtool.nn.trainer import train as run_training

        set_threads(threads)
        where = pick_device(distributed.local_device(device))
        with distributed.joined(where):  # before what one rank alone can fail at: the others would wait for it
            if ranks > 1:
                clips.usable(clips=share(len(clips), rank, ranks))
            trackers = {} if rank else make_trackers(log_to or [], output, settings, resume=resume)
            report = _Report(settings, output, trackers, quiet, silent=rank > 0)
            try:
                done = run_training(settings, clips, output, report, resume=resume, force=force, device=str(where))
            finally:
                report.close()
        if rank == 0:
            _show(done, settings, as_json)


class _Report:
    """Tell the person and the trackers how training goes: a live panel on a terminal, plain lines elsewhere.

    `silent` tells nothing at all, as ranks that another one speaks for.
    """

    def __init__(
        self, config: Config, run: Path, trackers: dict[str, Tracker], quiet: bool, *, silent: bool = False
    ) -> None:
        self.trackers = trackers
        settings = config.train
        self._quiet, self._silent = quiet or silent, silent
        self._live = None if self._quiet else _live_panel(config, run)
        self._meter = Meter(settings.steps, "step", self._quiet or self._live is not None)

    def note(self, text: str) -> None:
        self._write(text)

    def warn(self, text: str) -> None:
        self._write(f"warning: {text}", always=True)

    def _write(self, text: str, *, always: bool = False) -> None:
        if self._live is not None:
            self._live.write(f"vqtool: {text}")
        elif (always and not self._silent) or not self._quiet:
            say(text)

    def stepped(self, step: int, steps: int, loss: float) -> None:
        if self._meter.done == 0 and step > 1:  # resumed
            self._meter.add(step - 1)
        self._meter.add(1, f"loss {loss:.4f}")
        if self._live is not None:
            self._live.stepped(step, loss)

    def evaluated(self, record: Mapping[str, Any]) -> None:
        from vqtool.monitor import told

        if self._live is None:
            self._write(told(record))

    def logged(self, record: Mapping[str, Any]) -> None:
        if self._live is not None:
            self._live.logged(record)
        for name, tracker in list(self.trackers.items()):
            try:
                tracker.log(record)
            except Exception as error:
                del self.trackers[name]
                self.warn(f"--log-to {name}: {type(error).__name__}: {error}; training goes on without it")

    def close(self) -> None:
        if self._live is not None:
            self._live.close()
        for name, tracker in self.trackers.items():
            try:
                tracker.close()
            except Exception as error:
                self.warn(f"--log-to {name}: {type(error).__name__}: {error}; its last lines may be lost")


def _live_panel(config: Config, run: Path) -> LivePanel | None:
    """The panel where stderr is a terminal that can be drawn on."""
    if not sys.stderr.isatty():
        return None
    from vqtool.cli.training_view import LivePanel

    return LivePanel.on(sys.stderr, config, run)


def _show_plan(config: Config, motion: MotionSet, as_json: bool) -> None:
    import torch

    from vqtool.body_parts import with_parts
    from vqtool.nn.model import build_model
    from vqtool.nn.trainer import split_clips

    config = with_parts(config, motion)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_model(config, motion.dim).parameters())
    split = split_clips(motion, config.data.val_fraction, config.data.seed)
    settings = config.train
    frames = int(motion.lengths[split.train].sum())
    passes = settings.steps * settings.batch_size * settings.window / max(1, frames)
    if as_json:
        result = {"schema_version": 1, "train_clips": len(split.train), "val_clips": len(split.val), "frames": frames}
        typer.echo(json.dumps(result | {"parameters": parameters, "steps": settings.steps, "passes": passes}))
        return
    work = f"{counted(settings.steps, 'steps')} of {settings.batch_size} x {counted(settings.window, 'frames')}"
    show_rows(
        [
            ("clips", f"{len(split.train):,} to train on, {len(split.val):,} to validate on ({split.how})"),
            ("frames", f"{frames:,} at {motion.fps:g} fps, {counted(motion.dim, 'columns')}, layout {motion.layout}"),
            ("model", f"{config.model.bottleneck}, {counted(parameters, 'parameters')}"),
            ("state", f"{parameters * 16 / 2**20:,.0f} MB of weights, their average, and optimizer"),
            ("work", f"{work} = {passes:.1f} times the data"),
        ]
    )


def _show(done: Trained, config: Config, as_json: bool) -> None:
    found = done.evaluation
    result: dict[str, Any] = {
        "schema_version": 1,
        "run": str(done.run),
        "steps": done.steps,
        "seconds": round(done.seconds, 3),
        "parameters": done.parameters,
        "warnings": done.warnings,
    }
    if found is not None:
        result |= {"nmse": found.nmse, "nmae": found.nmae}
        result["layers"] = found.layers
        if found.kl is not None and found.variance is not None:
            result |= {"kl": float(found.kl.sum()), "active_units": int((found.variance > 0.01).sum())}
    if as_json:
        typer.echo(json.dumps(result))
        return

    rows = []
    rows.append(("run", f"{done.run}"))
    rows.append(("model", f"{config.model.bottleneck}, {counted(done.parameters, 'parameters')}"))
    rows.append(("trained", f"{counted(done.steps, 'steps')} in {done.seconds:.1f} s"))
    if found is not None:
        rows.append(("validation", f"{counted(found.clips, 'clips')}, {counted(found.frames, 'frames')}"))
        rows += error_rows(found) + layer_rows(found)
        if "kl" in result:
            units = f"{result['active_units']} of {len(found.kl) if found.kl is not None else 0} units active"
            rows.append(("latents", f"{units}, KL {result['kl']:.2f} nats per token frame"))
    show_rows(rows)
