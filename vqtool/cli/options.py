"""Options that several commands share, and progress on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqtool import signals
from vqtool.errors import counted
from vqtool.remote import located

if TYPE_CHECKING:
    from vqtool.nn.evaluation import Evaluation
    from vqtool.workers import Workers

Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run folder of vqtool train, or its tokenizer.safetensors.", readable=False),
]
Motions = Annotated[
    list[Path],
    typer.Argument(metavar="MOTION", help="motion.h5, or any HDF5 file of [T, D] datasets; or URLs.", parser=located),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="The file to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="PATTERN",
        show_default="all",
        help="Of any HDF5 file: which datasets are clips, as 'data/*/actions'.",
    ),
]
Fps = Annotated[
    float | None, typer.Option("--fps", show_default="the file's", help="Frames a second, where the file does not say.")
]
Split = Annotated[
    str | None,
    typer.Option("--split", show_default="all clips", help="Only the clips of this split: train, val or test."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.", envvar="VQTOOL_DEVICE")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=4096, show_default="all", help="CPU threads.", envvar="VQTOOL_THREADS"),
]
Numerics = Annotated[
    str,
    typer.Option(
        "--numerics",
        help="stable: the same tokens whatever the batch, threads and padding; fast: no such check; bfloat16; float64.",
    ),
]
Layers = Annotated[
    int | None, typer.Option("--num-quantizers", min=1, show_default="all", help="Only the first q layers.")
]
Flatten = Annotated[
    str | None,
    typer.Option(
        "--flatten",
        show_default="interleaved",
        help="How layers become one sequence: interleaved, layer-major or first-layer.",
    ),
]
Delay = Annotated[bool, typer.Option("--delay", help="Layer q comes q steps later, as in MusicGen.")]
Offset = Annotated[int, typer.Option("--offset", min=0, help="The id of the first token.")]
Repair = Annotated[bool, typer.Option("--repair", help="Cut off or fill up what cannot be, and say so.")]
ShardOf = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only share I of N (from 0) of the clips, for vqtool merge."),
]
WorkerCount = Annotated[
    int | None,
    typer.Option("--workers", min=1, max=4096, show_default="1", help="Processes that share the work and the threads."),
]
Engine = Annotated[
    str, typer.Option("--engine", help="Where the workers are: local, or ray (a cluster, or Ray on this machine).")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")]


def say(text: str) -> None:
    """One line for the person, on stderr; if nobody reads that any more, work goes on."""
    with contextlib.suppress(OSError):
        print(f"vqtool: {text}", file=sys.stderr, flush=True)


def tell_parts(found: int, quiet: bool) -> None:
    """That work went on from where an earlier run was stopped."""
    if found and not quiet:
        say(f"went on after {counted(found, 'parts')} that an earlier run had done")


def is_tokens(path: Path) -> bool:
    """Whether a file is a tokens.h5 or latents.h5; False of anything that cannot be opened."""
    from vqtool.errors import VqtoolError
    from vqtool.hdf5 import attribute, open_hdf5

    try:
        with open_hdf5(path) as file:
            return attribute(file, "format") in ("vqtool.tokens", "vqtool.latents")
    except VqtoolError:
        return False


def show_rows(rows: list[tuple[str, str]]) -> None:
    """A result as lines of name and value on stdout, names bold on a terminal."""
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        typer.echo(typer.style(name.ljust(width), bold=True) + value)


def error_rows(found: Evaluation) -> list[tuple[str, str]]:
    """The normalised errors of an evaluation, for `show_rows`."""
    return [
        ("normalised MSE", f"{found.nmse:.4f}  (1 = no better than the mean pose)"),
        ("normalised MAE", f"{found.nmae:.4f}"),
    ]


def layer_rows(found: Evaluation) -> list[tuple[str, str]]:
    """How the codes of each layer are used, for `show_rows`."""
    from vqtool.usage import ENOUGH_TOKENS

    rows = []
    for q, layer in enumerate(found.layers):
        used = f"{layer['used']:,} of {counted(layer['codebook_size'], 'codes')} used"
        rows.append((f"layer {q}", f"{used}, perplexity {layer['perplexity']:.1f}"))
    need = ENOUGH_TOKENS * max((layer["codebook_size"] for layer in found.layers), default=0)
    if found.token_frames < need:
        rows.append(
            ("", f"{counted(found.token_frames, 'token frames', 'are')} few to judge codes by; {need:,} would do")
        )
    return rows


def set_threads(threads: int | None) -> None:
    """Limit torch's one thread pool, and make ready for its arrays."""
    from vqtool.memory import keep_freed_memory

    keep_freed_memory()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def make_workers(count: int | None, engine: str, threads: int | None, device: str) -> Workers[Any] | None:
    """The workers that were asked for, None for none; sets the threads of this process to those of a worker."""
    from vqtool.errors import UsageError

    if engine not in ("local", "ray"):
        raise UsageError(f"--engine is local or ray, not {engine!r}")
    if engine == "ray":
        from vqtool.ray_workers import RayActors

        actors = RayActors(count, threads, device=device, say=say)
        set_threads(actors.threads)
        return actors
    set_threads(threads)
    if count is None or count == 1:
        return None
    import torch

    from vqtool.workers import Processes

    set_threads(max(1, torch.get_num_threads() // count))
    return Processes(count, say)


class Meter:
    """Progress towards `total` (None: unknown): a bar on a terminal, else a line in ten seconds; nothing if quiet."""

    def __init__(self, total: int | None, unit: str, quiet: bool) -> None:
        self.total, self.unit, self.quiet = total, unit, quiet
        self.done = self._first = 0
        self.begin = self._told = self._since = time.monotonic()
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=unit, unit_scale=unit == "frame", dynamic_ncols=True)

    def add(self, count: int, note: str = "") -> None:
        """That many more are done; raises InterruptedRun where a stop was asked for."""
        signals.check()
        now = time.monotonic()
        if self.done == 0:  # the start, and what was done before it, say nothing of the speed
            self._first, self._since = count, now
        self.done += count
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif not self.quiet and now - max(self._told, self._since) > 10:
            self._told = now
            rate = (self.done - self._first) / (now - self._since)
            share = left = ""
            if self.total is not None:
                share = f"{self.done / max(1, self.total):4.0%}  "
                left = f", {max(0, self.total - self.done) / max(rate, 1e-9):,.0f} s left"
            say(f"{share}{counted(self.done, f'{self.unit}s')}, {rate:,.1f} a second{left}  {note}".rstrip())

    def write(self, text: str, *, always: bool = False) -> None:
        """A line that does not break the bar; `always`: also if quiet."""
        if self._bar is not None:
            self._bar.write(f"vqtool: {text}", file=sys.stderr)
        elif always or not self.quiet:
            say(text)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.begin

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def metered(total: int | None, unit: str, quiet: bool) -> Iterator[Meter]:
    """Work that `meter.add` counts, and that a signal ends at the next count."""
    meter = Meter(total, unit, quiet)
    try:
        yield meter
    finally:
        meter.close()
