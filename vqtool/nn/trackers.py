"""What training logs, to programs that draw it: TensorBoard and Weights & Biases, extras of the same names.

They get the lines of metrics.jsonl and nothing else. A tracker that fails ends itself, not the training.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vqtool.config import Config
from vqtool.errors import UsageError
from vqtool.publish import publish_bytes, remove_folder


class Tracker(Protocol):
    """Takes lines of metrics.jsonl."""

    def log(self, record: Mapping[str, Any]) -> None:
        """One line; the first one comes after the run folder was made."""

    def close(self) -> None:
        """Nothing more comes."""


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """train/loss, val/nmse, val/usage/layer0: what a line says, a number each."""
    for name, value in record.items():
        if isinstance(value, list):
            yield from ((f"{record['split']}/{name}/layer{layer}", float(one)) for layer, one in enumerate(value))
        elif name not in ("step", "split"):
            yield f"{record['split']}/{name}", float(value)


class TensorBoard:
    """Event files in RUN/tensorboard; a resumed run goes on in them after its checkpoint."""

    package = "tensorboard"

    def __init__(self, run: Path, config: Config, resume: bool) -> None:
        self._folder, self._resume = run / "tensorboard", resume
        self._writer: Any = None

    def log(self, record: Mapping[str, Any]) -> None:
        """One line."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            if not self._resume:
                remove_folder(self._folder)
            # What a killed run logged from here on is hidden.
            self._writer = SummaryWriter(str(self._folder), purge_step=record["step"] if self._resume else None)
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()

    def close(self) -> None:
        """Nothing more comes."""
        if self._writer is not None:
            self._writer.close()


class WandB:
    """A Weights & Biases run in RUN/wandb: offline unless WANDB_MODE says otherwise; a resumed run goes on in it."""

    package = "wandb"

    def __init__(self, run: Path, config: Config, resume: bool) -> None:
        self._run, self._config, self._resume = run, config, resume
        self._open: Any = None

    def log(self, record: Mapping[str, Any]) -> None:
        """One line."""
        if self._open is None:
            import wandb

            name = self._run / "wandb" / "vqtool-run-id"
            known = name.read_text(encoding="utf-8") if self._resume and name.exists() else None
            self._open = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "vqtool"),
                name=self._run.name,
                dir=str(self._run),
                config=self._config.to_dict(),
                id=known,
                resume=None if known is None else "allow",
                mode=os.environ.get("WANDB_MODE", "offline"),
                settings=wandb.Settings(silent=True),
            )
            publish_bytes(name, str(self._open.id).encode(), force=True)
        self._open.log(dict(scalars(record)), step=record["step"])

    def close(self) -> None:
        """Nothing more comes."""
        if self._open is not None:
            self._open.finish()


TRACKERS: dict[str, type[TensorBoard] | type[WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}


def make_trackers(names: Sequence[str], run: Path, config: Config, *, resume: bool) -> dict[str, Tracker]:
    """Those that are named, nothing written yet; UsageError for another name or a package that is missing."""
    made: dict[str, Tracker] = {}
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"--log-to takes {' or '.join(TRACKERS)}, not {name!r}")
        try:
            importlib.import_module(TRACKERS[name].package)
        except ImportError as error:
            what = f"--log-to {name} needs the package {TRACKERS[name].package}"
            raise UsageError(f"{what}; install it with: pip install 'vqtool[{name}]'") from error
        made[name] = TRACKERS[name](run, config, resume)
    return made
