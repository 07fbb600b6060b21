"""Kill a command, or let the disk fail it, at every system call with which it changes its output's folder.

`python tests/faults.py` goes through all of them and prints what came of it; tests/test_faults.py samples them. A
server process has imported torch and vqtool; every try is a fork of it, to which strace attaches before it starts.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from conftest import write_motion
from motion_samples import smooth, write

ERRORS = ("ENOSPC", "EIO", "EACCES", "EROFS", "EDQUOT")
CALLS = [
    *("openat", "mkdir", "mkdirat", "write", "writev", "pwrite64", "pwritev", "truncate", "ftruncate", "fallocate"),
    *("fsync", "fdatasync", "flock", "rename", "renameat", "renameat2", "link", "linkat", "symlink"),
    *("unlink", "unlinkat", "rmdir"),
]

Tree = dict[str, bytes | None]  # relative path -> content, None for a folder


def tree(path: Path) -> Tree:
    """Everything under a path; {} where nothing is, {"": content} of a file."""
    if path.is_file():
        return {"": path.read_bytes()}
    found = sorted(path.rglob("*")) if path.is_dir() else []
    inside: Tree = {str(each.relative_to(path)): None if each.is_dir() else each.read_bytes() for each in found}
    return {".": None, **inside} if path.is_dir() else inside


def put(folder: Path, content: Tree) -> None:
    """Make a folder hold exactly what `tree` gave."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in content.items():
        if data is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).write_bytes(data)


@dataclass(frozen=True)
class Point:
    """The `when`-th `call` of a run, as strace counts and shows it."""

    call: str
    when: int
    shown: str

    def __str__(self) -> str:
        return f"{self.call} {self.when}: {self.shown}"


@dataclass
class Ended:
    """How a run ended: exit code (-9: killed), stderr, and what strace wrote."""

    code: int
    stderr: str
    trace: str


def _child(gate: Connection, words: Sequence[str], folder: Path, errors: Path) -> None:
    """Run a command line when told to, with its stderr in a file."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    import torch

    from vqtool.cli import main

    torch.set_num_threads(1)
    # Where only ancestors may trace a process (Yama), let anyone.
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)
    gate.send("ready")
    gate.recv()
    code = main(list(words))
    sys.stderr.flush()
    os._exit(code)


class Shell:
    """Run command lines in `folder`, each in a fork of a process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._context = multiprocessing.get_context("forkserver")
        late = ["typer._adapters", "pydantic.type_adapter"]  # what Typer imports at its first command, where it is
        self._context.set_forkserver_preload(["faults", "vqtool.cli", "vqtool.nn.trainer", "vqtool.nn.files", *late])
        # The server looks for them where PYTHONPATH says, not where this process found them.
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)

    def run(self, words: Sequence[str], *strace: str) -> Ended:
        """Run to the end, with those options of strace if any."""
        gate, theirs = self._context.Pipe()
        errors, trace = self.folder / "stderr", self.folder / "trace"
        trace.write_text("")
        child = self._context.Process(target=_child, args=(theirs, words, self.folder, errors))
        child.start()
        theirs.close()
        gate.recv()
        tracer = None
        if strace:
            command = ["strace", "-f", "-y", "-s0", "-o", str(trace), *strace, "-p", str(child.pid)]
            tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert tracer.stderr is not None
            if "attached" not in (said := tracer.stderr.readline()):
                child.kill()
                raise PermissionError(said.strip())
        gate.send("go")
        child.join()
        if tracer is not None:
            tracer.wait()
            assert tracer.stderr is not None
            tracer.stderr.close()
        gate.close()
        assert child.exitcode is not None
        return Ended(child.exitcode, errors.read_text(errors="replace"), trace.read_text(errors="replace"))


def why_not() -> str:
    """Why no process can be traced here; empty where one can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen(["sleep", "9"]) as sleeper:
        tracer = subprocess.Popen(["strace", "-p", str(sleeper.pid)], stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        sleeper.kill()
        tracer.communicate()
    return "" if "attached" in said else said.strip()


@dataclass
class Tried:
    """What a fault did: what is wrong with it (nothing, if all promises were kept), and what it left."""

    job: str
    fault: str
    point: Point
    ended: Ended
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = self.ended.stderr.strip()
        return f"{self.job}, {self.fault} at {self.point}: {'; '.join(self.wrong)} (exit {self.ended.code}) {said}"


@dataclass
class Job:
    """A command line that writes into the folder `out`, which holds `before` at its start."""

    name: str
    words: list[str]
    shell: Shell
    units: list[str]  # what is whole or absent: patterns in `out`
    before: Tree = field(default_factory=dict)
    again: list[str] = field(default_factory=list)  # what a person types after a fault, where that differs
    whole: Tree = field(default_factory=dict)  # what an uninterrupted run leaves
    passing: Tree = field(default_factory=dict)  # and what may be seen before its end

    @property
    def out(self) -> Path:
        return self.shell.folder / "out"

    def prepare(self) -> None:
        """An uninterrupted run, to know what it leaves."""
        put(self.out, self.before)
        ended = self.shell.run(self.words)
        assert ended.code == 0, ended
        self.whole = tree(self.out)
        assert self.whole != self.before

    def points(self) -> list[Point]:
        """Every system call that changes something in `out`, in the order of one run."""
        put(self.out, self.before)
        ended = self.shell.run(self.words, "-e", "trace=" + ",".join(f"?{call}" for call in CALLS))
        assert ended.code == 0 and tree(self.out) == self.whole, ended
        met: Counter[tuple[str, str]] = Counter()
        found, writers = [], set()
        for line in ended.trace.splitlines():
            match = re.match(r"(\d+) +(\w+)\((.*)", line)
            if match is None:
                continue
            process, call, rest = match.groups()
            met[process, call] += 1
            if str(self.out) in rest and (call != "openat" or "O_CREAT" in rest):
                shown = rest.replace(str(self.out), "OUT").rsplit(" = ", 1)[0].strip()
                found.append(Point(call, met[process, call], shown))
                writers.add(process)
        assert len(writers) == 1, f"more than one thread writes: {writers}"
        return found

    def _inject(self, point: Point, what: str, done: str) -> Ended:
        put(self.out, self.before)
        injection = f"inject={point.call}:{what}:when={point.when}"
        ended = self.shell.run(self.words, "-e", f"trace={point.call}", "-e", injection)
        hit = [line for line in ended.trace.splitlines() if done in line and point.call in line]
        assert len(hit) == 1 and str(self.out) in hit[0], f"missed {point}: {ended}"
        return ended

    def _values(self, content: Tree, pattern: str) -> dict[str, Tree]:
        """What stands at the places of a unit: place -> its content."""
        shape = re.compile(re.escape(pattern).replace(r"\*", "[^/]*") + r"(/.*)?")
        found: dict[str, Tree] = {}
        depth = pattern.count("/") + 1
        for name, data in content.items():
            parts = name.split("/")
            if shape.fullmatch(name):
                found.setdefault("/".join(parts[:depth]), {})["/".join(parts[depth:])] = data
        return found

    def _partial(self, now: Tree) -> list[str]:
        """Places that hold neither what was there before nor what the run makes."""
        wrong = []
        for pattern in self.units:
            old, new, mid = (self._values(each, pattern) for each in (self.before, self.whole, self.passing))
            for place, value in self._values(now, pattern).items():
                if value not in (old.get(place), new.get(place), mid.get(place)):
                    wrong.append(f"partial {place}")
        return wrong

    def _repeat(self, tried: Tried) -> Tried:
        """Run the command once more: it must end as an uninterrupted run does."""
        ended = self.shell.run(self.again or self.words)
        if ended.code != 0:
            tried.wrong.append(f"exit {ended.code} when run again: {ended.stderr.strip()}")
        now = tree(self.out)
        if litter := sorted(now.keys() - self.whole.keys()):
            tried.wrong.append(f"litter {litter}")
        if other := sorted(name for name in self.whole if name not in now or now[name] != self.whole[name]):
            tried.wrong.append(f"differs {other}")
        return tried

    def kill(self, point: Point) -> Tried:
        """Kill the run as it enters a call; then run the command again."""
        ended = self._inject(point, "signal=KILL", "= ?")
        tried = Tried(self.name, "killed", point, ended)
        if ended.code != -signal.SIGKILL:
            tried.wrong.append("survived")
        now = tree(self.out)
        tried.wrong += self._partial(now)
        tried.left = sorted(now.keys() - self.whole.keys() - self.before.keys() - self.passing.keys())
        return self._repeat(tried)

    def fail(self, point: Point, error: str) -> Tried:
        """Let a call fail; then run the command again."""
        ended = self._inject(point, f"error={error}", "(INJECTED)")
        tried = Tried(self.name, error, point, ended)
        now = tree(self.out)
        said = [line for line in ended.stderr.splitlines() if not line.startswith("vqtool: warning:")]
        tried.left = sorted(now.keys() - self.whole.keys() - self.before.keys() - self.passing.keys())
        tried.wrong += self._partial(now)
        if ended.code < 0:
            tried.wrong.append(f"crash by signal {-ended.code}")
        elif ended.code == 0:
            if {name: now.get(name) for name in self.whole} != self.whole:
                tried.wrong.append("exit 0 without the whole output")
            if said:
                tried.wrong.append("stderr, though all is done")
        else:
            if ended.code not in (73, 74):
                tried.wrong.append("exit code")
            if str(self.out) not in ended.stderr:
                tried.wrong.append("stderr names no file of the output")
            if len(said) != 1 or not said[0].startswith("vqtool: error: ") or "Traceback" in ended.stderr:
                tried.wrong.append("stderr is not one line")
            if "nothing was changed" in ended.stderr and self._changed(now):
                tried.wrong.append("says that nothing was changed")
        return self._repeat(tried)

    def _changed(self, now: Tree) -> bool:
        return any(self._values(self.before, unit) != self._values(now, unit) for unit in self.units)


TRAIN = ["--model", "rvq", "--steps", "6", "--threads", "1", "--device", "cpu", "-q"]
for setting in (
    *("model.width=16", "model.latent_dim=8", "model.depth=2", "bottleneck.codebook_size=16"),
    *("bottleneck.num_quantizers=2", "train.batch_size=8", "train.window=32"),
    *("train.eval_every=4", "train.checkpoint_every=2"),
):
    TRAIN += ["--set", setting]
KEEP = ["--set", "train.keep_checkpoints=2"]


def build_jobs(folder: Path, only: Sequence[str] = ()) -> Iterator[Job]:
    """Small jobs of every command that writes, each on a fresh folder and over something older."""
    shell = Shell(folder)

    def make(*words: str) -> None:
        ended = shell.run(words)
        assert ended.code == 0, ended

    write_motion(folder / "motion.h5", [3, 40, 64, 130, 0, 333])
    write_motion(folder / "other.h5", [20, 30])
    for number in range(3):
        write(folder / "mocap" / f"walk.{number}.bvh", smooth(20 + number, number))
    make("train", "motion.h5", "-o", "model", *TRAIN)
    make("encode", "model", "motion.h5", "-o", "tokens.h5", "-q")
    make("encode", "model", "other.h5", "-o", "other.tokens.h5", "-q")
    make("import", "mocap", "-o", "walks.h5", "-q")
    make("import", "mocap/walk.0.bvh", "-o", "walk.h5", "-q")

    def job(name: str, words: str, output: str, older: str, units: Sequence[str] = ()) -> Iterator[Job]:
        target = folder / "out" / output
        command = [*words.split(), "-o", str(target), "--force"]
        before: Tree = {}
        for case in ("fresh", "replacing"):
            if case == "replacing":
                put(folder / "out", {})
                make(*older.split(), "-o", str(target))
                before = tree(folder / "out")
            made = Job(f"{name} {case}", command, shell, list(units or [output]), before)
            made.prepare()
            yield made

    def wanted(name: str) -> bool:
        return not only or name in only

    if wanted("encode"):
        yield from job("encode", "encode model motion.h5 -q", "tokens.h5", "encode model other.h5 -q")
    if wanted("decode"):
        yield from job("decode", "decode model tokens.h5 -q", "motion.h5", "decode model other.tokens.h5 -q")
    if wanted("import"):
        yield from job("import", "import mocap -q", "motion.h5", "import mocap/walk.1.bvh -q")
    if wanted("export"):
        words = "export {} --format {}"
        yield from job("export bvh", words.format("walks.h5", "bvh"), "bvh", words.format("walk.h5", "bvh"))
        demos = words.format("motion.h5", "robomimic"), "demos.h5", words.format("other.h5", "robomimic")
        yield from job("export robomimic", *demos)
    if wanted("train"):
        yield from _trainings(folder, shell)


def _trainings(folder: Path, shell: Shell) -> Iterator[Job]:
    out = folder / "out" / "run"
    words = ["train", "motion.h5", "-o", str(out), *TRAIN]
    units = ["run/config.toml", "run/tokenizer.safetensors", "run/checkpoints/step-*"]
    put(folder / "out", {})
    assert shell.run([*words, "--set", "train.keep_checkpoints=9"]).code == 0
    passing = {name: data for name, data in tree(folder / "out").items() if "/step-" in name}
    put(folder / "out", {})
    assert shell.run([*words, *KEEP, "--seed", "1"]).code == 0
    older = tree(folder / "out")

    base = Job("train fresh", [*words, *KEEP], shell, units, again=[*words, *KEEP, "--resume"], passing=passing)
    base.prepare()
    yield base
    third = [point for point in base.points() if point.call == "rename" and "step-000006" in point.shown]
    base._inject(third[0], "signal=KILL", "= ?")
    begun = tree(base.out)
    yield replace(base, name="train resumed", words=[*base.again], before=begun)
    yield replace(
        base, name="train replacing", words=[*base.words, "--force"], again=[*base.words, "--force"], before=older
    )


@dataclass
class Tally:
    """The tries of one job, counted."""

    kills: list[Tried] = field(default_factory=list)
    errors: list[Tried] = field(default_factory=list)

    def rows(self, name: str, points: Sequence[Point]) -> list[str]:
        def count(tries: list[Tried], *words: str) -> int:
            return sum(any(text.startswith(words) for text in tried.wrong) for tried in tries)

        calls = ", ".join(f"{call} {n}" for call, n in Counter(point.call for point in points).items())
        codes = ", ".join(f"{code}: {n}" for code, n in sorted(Counter(t.ended.code for t in self.errors).items()))
        kills, errors = self.kills, self.errors
        return [
            f"{name}: {len(points)} points ({calls})",
            f"  killed {len(kills)}: {count(kills, 'partial')} partial, {len(kills) - count(kills, 'differs')} "
            f"identical when run again, {count(kills, 'litter')} with litter, {count(kills, 'exit')} not run again",
            f"  errors {len(errors)}: {count(errors, 'crash')} crashes, {count(errors, 'partial')} partial, "
            f"{len(errors) - count(errors, 'differs')} identical when run again, {count(errors, 'litter')} with "
            f"litter, {count(errors, 'stderr', 'says', 'exit 0')} told wrongly; exit codes {{{codes}}}; "
            f"{sum(bool(t.left) for t in errors)} left something",
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--command", nargs="*", default=[], help="encode, decode, import, export, train; all by default"
    )
    parser.add_argument("--errors", nargs="*", default=ERRORS)
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true", help="list the points and what each try left")
    options = parser.parse_args()
    if reason := why_not():
        print(f"not possible here: {reason}")
        return 2
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for job in build_jobs(Path(folder), options.command):
            begin = time.monotonic()
            points, tally = job.points(), Tally()
            for point in points:
                if not options.no_kill:
                    tally.kills.append(job.kill(point))
                tally.errors += [job.fail(point, error) for error in options.errors]
                tries = [t for t in (*tally.kills, *tally.errors) if t.point is point]
                failed += sum(bool(t.wrong) for t in tries)
                for tried in tries:
                    if tried.wrong or options.verbose:
                        print(f"  {tried} {f'left {tried.left}' if tried.left else ''}")
            print("\n".join(tally.rows(job.name, points)), f"({time.monotonic() - begin:.0f} s)", flush=True)
    print(f"{failed} tries broke a promise")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
