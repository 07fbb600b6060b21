"""train(): motion files in, a run folder with a tokenizer out."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

import vqtool
from vqtool import signals
from vqtool.body_parts import with_parts
from vqtool.codebook import perplexity
from vqtool.config import Config, build_config, differences, read_run, to_toml
from vqtool.errors import (
    DataError,
    DivergedError,
    InterruptedRun,
    MismatchError,
    OutputError,
    ResumeError,
    StorageError,
    UsageError,
    counted,
)
from vqtool.motion import runs
from vqtool.nn import distributed
from vqtool.nn.bottlenecks import bottleneck_options
from vqtool.nn.checkpoint import newest_checkpoint, save_checkpoint, tokenizer_file
from vqtool.nn.codec import Codec, pick_device
from vqtool.nn.evaluation import Evaluation, evaluate
from vqtool.nn.learner import Learner
from vqtool.nn.model import MotionTokenizer
from vqtool.publish import lock, publish_bytes, remove_folder, remove_leftovers, sync
from vqtool.ranks import share
from vqtool.splits import SPLITS, held_out
from vqtool.stats import ColumnStats, column_stats, hash_clips
from vqtool.store import MotionSet
from vqtool.tokenizer_file import NAME

METRICS = "metrics.jsonl"
LOG_EVERY = 50  # steps between two training lines of metrics.jsonl
LOW_USAGE = 0.2


class Report(Protocol):
    """Who is told how training goes."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something that must not be missed."""

    def stepped(self, step: int, steps: int, loss: float) -> None:
        """A training step is done."""

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """The validation set was looked at; `record` is the line of metrics.jsonl."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """A line was added to metrics.jsonl, of training or of validation."""


@dataclass
class Trained:
    """What training ended with."""

    run: Path
    steps: int
    seconds: float
    parameters: int
    evaluation: Evaluation | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class Split:
    """Clips to train on and to validate on, and how they were chosen."""

    train: list[int]
    val: list[int]
    how: str


def split_clips(motion: MotionSet, fraction: float, seed: int) -> Split:
    """The file's own splits where it has them, else a hash of each name: the same clip always falls the same way."""
    if motion.splits is not None:
        train, val = (np.flatnonzero(motion.splits == SPLITS[name]).tolist() for name in ("train", "val"))
        if not train:
            raise DataError("has no clip in split 'train'", file=motion.paths[0])
        return Split(train, val or train, "as the file says" if val else "no val clips: validating on train")
    if (splits := held_out(motion.originals, fraction, seed)) is None:
        every = list(range(len(motion)))
        return Split(every, every, "validating on the training clips")
    train, val = (np.flatnonzero(splits == SPLITS[name]).tolist() for name in ("train", "val"))
    return Split(train, val, f"{fraction:.0%} held out by a hash of the names")


def check_run(run: Path, config: Config, *, resume: bool, force: bool) -> None:
    """Refuse a folder that must not be written to, and a resume with another config; nothing is changed."""
    if run.exists() and not run.is_dir():
        raise OutputError("exists and is no folder; choose another -o", file=run)
    if (run / "config.toml").exists() and resume:
        before = _written_out(build_config(read_run(run / "config.toml")))
        changed = differences(before, config)
        changed = [one for one in changed if one.startswith("model.bottleneck:")] or changed  # says enough
        if changed:
            what = f"was begun with another config: {'; '.join(changed)}"
            if before.train.steps != config.train.steps:
                what += " (what a step does depends on how many there are: no run can be made longer)"
            raise ResumeError(f"{what}; leave out what differs to go on, or train anew with another -o", file=run)
        return
    if run.exists() and any(run.iterdir()):
        if not (run / "config.toml").exists():
            raise OutputError("is a folder that no vqtool train made; choose another -o", file=run)
        if not force:
            raise OutputError("exists already; go on with --resume, begin anew with --force", file=run)


def begin_run(run: Path, config: Config, *, resume: bool) -> None:
    """Make the run folder with its config.toml; without resume, forget what a run before left there."""
    if not resume:
        remove_folder(run / "checkpoints")  # or StorageError: --resume would take them for its own
        for name in (NAME, METRICS):
            (run / name).unlink(missing_ok=True)
    run.mkdir(exist_ok=True)
    if not (resume and (run / "config.toml").exists()):
        text = f"# vqtool {vqtool.__version__}\n{to_toml(config)}"
        publish_bytes(run / "config.toml", text.encode(), force=True)


def train(
    config: Config,
    motion: MotionSet,
    run: Path,
    report: Report,
    *,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
) -> Trained:
    """Train a tokenizer on a motion set into the folder `run`.

    With resume it goes on from the newest whole checkpoint, bit for bit as if it had never stopped (CPU, same
    threads and torch), and begins anew where there is none. Raises ResumeError where config or data differ,
    DivergedError at the first loss that is not finite, InterruptedRun after saving when a signal asked for it
    (within a `vqtool.signals.StopRequest`).

    Every rank of a process group of torch.distributed calls it with the same arguments; see `vqtool.nn.distributed`.
    """
    config = _written_out(with_parts(config, motion))
    parts = config.train.accumulate * distributed.count()
    if parts > config.train.batch_size:
        what = f"train.batch_size {config.train.batch_size} is of all ranks together and leaves some without a window"
        raise UsageError(f"{what}; set it to {parts} at least")
    if distributed.rank() > 0:  # it writes nothing
        training = _Training(config, motion, run, report, device)
        distributed.wait()
        return training.run_all()
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be created ({error.strerror})", file=run) from error
    with lock(run):
        for name in ("config.toml", METRICS, NAME):  # nobody else writes these now
            remove_leftovers(run / name)
        check_run(run, config, resume=resume, force=force)
        training = _Training(config, motion, run, report, device)
        begin_run(run, config, resume=resume)
        distributed.wait()
        return training.run_all()


def _written_out(config: Config) -> Config:
    """With all options of the bottleneck: a later default must not change what a run is."""
    options = bottleneck_options(config.model.bottleneck, config.bottleneck)
    return replace(config, bottleneck={name: value for name, value in options.items() if value is not None})


class _Training:
    """One training: everything that the loop in `run_all` needs, and what a checkpoint holds."""

    def __init__(self, config: Config, motion: MotionSet, run: Path, report: Report, device: str) -> None:
        self.config, self.motion, self.run, self.report = config, motion, run, report
        self.device = pick_device(device)
        self.split = split_clips(motion, config.data.val_fraction, config.data.seed)
        self.step = 0
        stats = self._read_through()
        self.learner = Learner(config, motion, self.split.train, stats, self.device)
        self.warnings: list[str] = []
        if stats.constant.all():
            raise DataError("no column moves; there is nothing to learn", file=motion.paths[0])
        if stats.constant.any():
            still = runs(np.flatnonzero(stats.constant).tolist())
            columns = ", ".join(f"{first}-{stop - 1}" if stop > first + 1 else f"{first}" for first, stop in still)
            self._warn(f"constant columns (kept, restored exactly, not trained on): {columns}")
        if empty := self.learner.sampler.empty:
            self._warn(
                f"{counted(empty, 'clips')} without frames {'was' if empty == 1 else 'were'} left out of training"
            )
        if idle := self.learner.loss.idle:
            names = " and ".join(f"loss.{name}" for name in idle)
            self._warn(f"{names} has no part: layout {motion.layout} does not say where joints are")
        self.evaluated = 0  # the last step whose evaluation is in metrics.jsonl

    def _read_through(self) -> ColumnStats:
        """Statistics of the training clips; sets the hashes of what is told of the motion and of all of it."""
        motion, split = self.motion, self.split
        told = [motion.names, motion.lengths.tolist(), motion.fps, motion.layout, split.train, split.val]
        digest = hashlib.sha256(json.dumps(told).encode())
        self.seen = digest.digest() + to_toml(self.config).encode()
        self._agree()  # else what follows has other shapes on each rank
        only_val = sorted(set(split.val) - set(split.train))
        rank, ranks = distributed.rank(), distributed.count()
        motion.verify(share(len(motion), rank, ranks))
        if ranks == 1:
            stats = column_stats(motion, split.train, digest)
            column_stats(motion, only_val, digest)
        else:
            own = [split.train[number] for number in share(len(split.train), rank, ranks)]
            stats = _of_all_ranks(column_stats(motion, own), self.device)
            if rank == 0:
                hash_clips(motion, split.train + only_val, digest)
        data_digest = torch.tensor(list(digest.digest()), dtype=torch.uint8, device=self.device)
        distributed.broadcast([data_digest])
        self.data_digest = data_digest.cpu().numpy()
        return stats

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.report.warn(text)

    def run_all(self) -> Trained:
        """Go on from the newest checkpoint to the last step, and write the tokenizer."""
        # No rank leaves what all do together: they stop together, after a step.
        with signals.deferred() if distributed.count() > 1 else contextlib.nullcontext():
            return self._run_all()

    def _run_all(self) -> Trained:
        settings = self.config.train
        begin = time.monotonic()
        if not self._restore():
            self.learner.start()
        self._agree(self.learner.model)
        first, evaluation = self.step, None
        (unfinished,) = self._of_rank_0(not (self.run / NAME).exists())
        try:
            self._loop()
            if first < settings.steps or unfinished:
                evaluation = self._evaluate()
        except InterruptedRun as error:
            self._save()
            what = f"stopped after step {self.step}; the same command with --resume goes on from there"
            raise InterruptedRun(what, signum=error.signum) from None
        if evaluation is not None:
            self._warn_of_dead_codes(evaluation)
            self._save()
            if distributed.rank() == 0:
                self._tokenizer(evaluation).save(self.run / NAME, force=True)
        else:
            self.report.note(f"already trained for {counted(settings.steps, 'steps')}; nothing to do")
        seconds = time.monotonic() - begin
        return Trained(self.run, self.step, seconds, self.learner.parameters, evaluation, self.warnings)

    def _loop(self) -> None:
        """Initialise, step, evaluate, save. An InterruptedRun leaves it between two steps, where it can go on."""
        settings = self.config.train
        warm_up = int(settings.steps * settings.continuous)
        if self.step == 0:
            self.report.note(
                f"{counted(len(self.split.train), 'clips')} to train on, "
                f"{len(self.split.val)} to validate on ({self.split.how})"
            )
            if settings.precision == "auto":
                self.report.note(f"networks in {'bfloat16' if self.learner.half else 'float32'}")
        self._evaluate_if_due()  # stopped while it was looking
        while self.step < settings.steps:
            (stop,) = distributed.highest([signals.stop_asked()], self.device)
            signals.stop(stop)
            if self.step >= warm_up and not self.learner.model.bottleneck.initialized:
                self.learner.initialize_codebooks()
                self.report.note(
                    f"step {self.step}: codebooks fitted; now motion goes through tokens, and the loss rises"
                )
            loss, terms = self._step()
            self.step += 1
            self.report.stepped(self.step, settings.steps, loss)
            last = self.step == settings.steps
            if self.step % LOG_EVERY == 0 or last:
                self._agree(self.learner.model.bottleneck)
                self._log({"split": "train", "lr": self.learner.lr(self.step - 1), "loss": loss, **terms})
            self._evaluate_if_due()
            (asked,) = distributed.highest([signals.checkpoint_asked()], self.device)
            if (asked or self.step % settings.checkpoint_every == 0) and not last:
                self._save()
            if asked:
                self.report.note(f"SIGUSR1: saved a checkpoint after step {self.step}, going on")

    def _step(self) -> tuple[float, dict[str, float]]:
        """The next step: the loss and its terms."""
        try:
            return self.learner.step(self.step)
        except DivergedError as error:
            error.file = str(self.run)
            raise

    def _of_rank_0(self, *values: int) -> list[int]:
        """What rank 0 says: it alone knows the run folder."""
        return distributed.highest(values if distributed.rank() == 0 else [0] * len(values), self.device)

    def _agree(self, module: nn.Module | None = None) -> None:
        """MismatchError where a rank has not the settings, clips, step and state of rank 0, bit for bit."""
        if distributed.count() == 1:
            return
        digest = hashlib.sha256(self.seen + str(self.step).encode())
        for tensor in module.state_dict().values() if module is not None else ():
            digest.update(tensor.cpu().numpy().tobytes())
        if ranks := distributed.differing(digest.digest(), self.device):
            what = "was started with other settings or motion than rank 0; give all the same command, files and RUN"
            if self.step > 0:
                what = f"has not the weights or codebooks of rank 0 after step {self.step}; go on with --resume"
            raise MismatchError(f"rank {' and '.join(map(str, ranks))} {what}", file=self.run)

    @property
    def _averaged(self) -> MotionTokenizer:
        """The weights that are saved."""
        return self.learner.smooth if self.config.train.ema_decay > 0 else self.learner.model

    def _tokenizer(self, evaluation: Evaluation | None = None) -> Any:
        usage = evaluation.usage_tensors() if evaluation is not None else {}
        motion = self.motion
        body = next(iter(motion.companions.bodies), None)
        return tokenizer_file(self._averaged, self.config, fps=motion.fps, layout=motion.layout, usage=usage, body=body)

    def _evaluate_if_due(self) -> None:
        settings = self.config.train
        due = self.step % settings.eval_every == 0 and 0 < self.step < settings.steps
        if due and self.evaluated != self.step and self.learner.model.bottleneck.initialized:
            self._evaluate()

    def _evaluate(self) -> Evaluation:
        """Errors and usage over the whole validation set, with the weights that would be saved now."""
        averaged = copy.deepcopy(self._averaged) if self._averaged is self.learner.model else self._averaged
        codec = Codec(averaged, self._tokenizer(), device=str(self.device), numerics="fast")
        found = evaluate(codec, self.motion, self.split.val, shared=distributed.count() > 1)
        record: dict[str, Any] = {"split": "val", "nmse": found.nmse, "nmae": found.nmae}
        if found.counts:
            record["usage"] = [float(np.mean(counts > 0)) for counts in found.counts]
            record["perplexity"] = [perplexity(counts) for counts in found.counts]
        if found.kl is not None:
            record["kl"] = float(found.kl.sum())
        if self.evaluated != self.step:  # else a run before logged it, and was killed before it wrote the tokenizer
            self._log(record)
        self.evaluated = self.step
        self.report.evaluated({"step": self.step, **record})
        return found

    def _log(self, record: dict[str, Any]) -> None:
        if distributed.rank() > 0:
            return
        with self._metrics() as path, path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, **record}) + "\n")
        self.report.logged({"step": self.step, **record})

    @contextlib.contextmanager
    def _metrics(self) -> Iterator[Path]:
        """metrics.jsonl to write; StorageError where the disk does not take it."""
        path = self.run / METRICS
        try:
            yield path
        except OSError as error:
            raise StorageError(f"could not be written ({error.strerror}); go on with --resume", file=path) from error

    def _warn_of_dead_codes(self, evaluation: Evaluation) -> None:
        for q, counts in enumerate(evaluation.counts):
            used = int((counts > 0).sum())
            if used < LOW_USAGE * len(counts) and evaluation.token_frames >= len(counts):
                self._warn(
                    f"layer {q} uses {used} of {len(counts)} codes ({used / len(counts):.0%}): the codebook is too "
                    "large for this data or has collapsed; try a smaller bottleneck.codebook_size, more train.steps, a "
                    "larger train.batch_size, or --model fsq"
                )

    # Checkpoints

    def _save(self) -> None:
        self._agree(self.learner.model)
        if distributed.rank() > 0:
            return
        state = self.learner.state() | {"data_digest": self.data_digest}
        with self._metrics() as path:
            if path.exists():
                sync(path)  # a checkpoint never knows of a step that metrics.jsonl does not
        keep = self.config.train.keep_checkpoints
        save_checkpoint(self.run / "checkpoints", self.step, state, keep, device=self.device.type)

    def _restore(self) -> bool:
        """Go on from the newest checkpoint, if there is one, and forget what was logged after it."""
        found = newest_checkpoint(self.run / "checkpoints", device=self.device.type)
        metrics = self.run / METRICS
        own = -1 if found is None else found[0]
        if distributed.highest([own, -own], self.device) != [own, -own]:
            what = "some ranks see other checkpoints than others; all need the run folder, on a disk that they share"
            raise MismatchError(what, file=self.run)
        if found is not None:
            self.step, state, warnings = found
            for warning in warnings:
                self._warn(warning)
            try:
                if not np.array_equal(state["data_digest"], self.data_digest):
                    what = "the motion is not what this run was begun with; give the same files"
                    raise ResumeError(what, file=self.run)
                self.learner.load_state(state)
            except (KeyError, ValueError, RuntimeError) as error:
                what = "does not fit this run; it was edited, so begin anew with --force"
                raise DataError(what, file=self.run / "checkpoints" / f"step-{self.step:06d}") from error
            self.report.note(f"going on from step {self.step}")
        if metrics.exists() and distributed.rank() == 0:
            kept = [(line, record) for line, record in records(metrics) if record["step"] <= self.step]
            publish_bytes(metrics, b"".join(line for line, _ in kept), force=True)
            self.evaluated = max((record["step"] for _, record in kept if record["split"] == "val"), default=0)
        (self.evaluated,) = self._of_rank_0(self.evaluated)
        return found is not None


def _of_all_ranks(stats: ColumnStats, device: torch.device) -> ColumnStats:
    """Statistics of what all ranks looked at, merged in the order of the ranks."""
    own = torch.from_numpy(np.stack([np.full_like(stats.mean, stats.count), *astuple(stats)[1:]]))
    every = torch.zeros(distributed.count(), *own.shape, dtype=own.dtype, device=device)
    every[distributed.rank()] = own.to(device)
    (every,) = distributed.total([every])
    found = [ColumnStats(int(count[0]), *rest) for count, *rest in every.cpu().numpy()]
    return functools.reduce(ColumnStats.merge, found)


def records(metrics: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of metrics.jsonl and what they say, but one that a kill cut off; DataError for any other text."""
    for number, line in enumerate(metrics.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line)
            if not (isinstance(record["step"], int) and isinstance(record["split"], str)):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            what = f"line {number} is not one of vqtool; mend the file, or begin anew with --force"
            raise DataError(what, file=metrics) from error
        yield line, record
