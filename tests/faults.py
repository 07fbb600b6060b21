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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
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
    folder.mkdir(exist_ok=True)
    fill(folder, content)


def fill(folder: Path, content: Tree) -> None:
    """Write what `tree` gave into an empty folder."""
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


def _child(gate: Connection, words: Sequence[str], folder: Path, size: int | None) -> None:
    """Run a command line when told to, its stderr in a file; with a `size`, `out` is a file system of so many bytes."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    import torch

    from vqtool import parts
    from vqtool.cli import main
    from vqtool.nn import codec

    torch.set_num_threads(1)
    codec.CHUNK_TOKENS = codec.PART_TOKENS = 40  # encode and decode keep parts
    parts.KEEP_AFTER = 0.0
    # Where only ancestors may trace a process (Yama), let anyone.
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)
    if size is not None:
        before = tree(folder / "out")
        try:
            _mount_small(folder / "out", size)
            fill(folder / "out", before)
        except OSError as error:
            gate.send(str(error))
            os._exit(1)
    gate.send("")
    gate.recv()
    code = main(list(words))
    sys.stderr.flush()
    if size is not None:  # it is gone with this process
        shutil.copytree("out", "kept", symlinks=True)
    os._exit(code)


def _mount_small(folder: Path, size: int) -> None:
    """Mount a file system of `size` bytes that only this process sees; OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    new_user, new_mounts = 0x10000000, 0x00020000
    if libc.unshare(new_user | new_mounts) != 0:
        raise OSError(ctypes.get_errno(), "no namespace of mounts can be had")
    for name, text in ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1"):
        Path("/proc/self", name).write_text(text)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()) != 0:
        raise OSError(ctypes.get_errno(), "no tmpfs can be mounted")


class Shell:
    """Run command lines in `folder`, each in a fork of a process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The last ones would be imported by the first command and the first optimizer.
        late = ["typer._adapters", "pydantic.type_adapter", "torch._dynamo"]
        forkserver.set_forkserver_preload(["faults", "vqtool.cli", "vqtool.nn.trainer", "vqtool.nn.files", *late])
        # The server looks for them where PYTHONPATH says, not where this process found them.
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        forkserver.ensure_running()
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before

    def run(self, words: Sequence[str], *strace: str, size: int | None = None) -> Ended:
        """Run to the end, with those options of strace if any; `size` as in `_child`, PermissionError where denied."""
        context = multiprocessing.get_context("forkserver")
        gate, theirs = context.Pipe()
        trace = self.folder / "trace"
        trace.write_text("")
        child = context.Process(target=_child, args=(theirs, words, self.folder, size))
        child.start()
        theirs.close()
        if refused := gate.recv():
            child.join()
            raise PermissionError(refused)
        tracer = None
        if strace:
            command = ["strace", "-f", "-y", "-s0", "-o", str(trace), *strace, "-p", str(child.pid)]
            tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert tracer.stderr is not None
            if "attached" not in (said := tracer.stderr.readline()):
                child.kill()
                raise PermissionError(said.strip())
        gate.send("go")
        child.join(120)
        if child.exitcode is None:
            child.kill()
            raise TimeoutError(f"{words} hangs")
        if tracer is not None:
            tracer.communicate()
        gate.close()
        stderr = (self.folder / "stderr").read_text(errors="replace")
        return Ended(child.exitcode, stderr, trace.read_text(errors="replace"))

    def make(self, *words: str) -> None:
        """Run a command line that must end well."""
        ended = self.run(words)
        assert ended.code == 0, ended


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
        self.shell.make(*self.words)
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

    def cut(self, point: Point, what: str, done: str) -> Ended:
        """Run with something injected at a point; `done` is how strace shows it."""
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
        left = tree(self.out).keys()
        ended = self.shell.run(self.again or self.words)
        if ended.code != 0:
            tried.wrong.append(f"again it ends with {ended.code}: {ended.stderr.strip()}")
        now = tree(self.out)
        litter = now.keys() - self.whole.keys()
        if tried.ended.code == 0 and "--resume" in self.again:
            litter -= left  # nothing but a removal failed; a finished run is not begun again
        if litter:
            tried.wrong.append(f"litter {sorted(litter)}")
        if other := sorted(name for name in self.whole if name not in now or now[name] != self.whole[name]):
            tried.wrong.append(f"differs {other}")
        return tried

    def kill(self, point: Point) -> Tried:
        """Kill the run as it enters a call; then run the command again."""
        ended = self.cut(point, "signal=KILL", "= ?")
        tried = Tried(self.name, "killed", point, ended)
        if ended.code != -signal.SIGKILL:
            tried.wrong.append("survived")
        now = tree(self.out)
        tried.wrong += self._partial(now)
        tried.left = sorted(now.keys() - self.whole.keys() - self.before.keys() - self.passing.keys())
        return self._repeat(tried)

    def fail(self, point: Point, error: str) -> Tried:
        """Let a call fail; then run the command again."""
        ended = self.cut(point, f"error={error}", "(INJECTED)")
        return self._failed(Tried(self.name, error, point, ended), tree(self.out))

    def fill_disk(self, room: int) -> Tried:
        """Run on a real file system with `room` bytes left; then again on a large one."""
        put(self.out, self.before)
        kept = self.shell.folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        ended = self.shell.run(self.words, size=_pages(self.before) + room)
        seen = tree(kept)
        put(self.out, seen)
        return self._failed(Tried(self.name, "full disk", Point("size", room, ""), ended), seen)

    def _failed(self, tried: Tried, now: Tree) -> Tried:
        """Look at what a run made of its failure, and run it again."""
        ended = tried.ended
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
            if len(self.units) == 1 and "nothing was changed" in ended.stderr and self._changed(now):
                tried.wrong.append("says that nothing was changed")
        return self._repeat(tried)

    def _changed(self, now: Tree) -> bool:
        return any(self._values(self.before, unit) != self._values(now, unit) for unit in self.units)


def _pages(content: Tree) -> int:
    """Bytes that a tmpfs needs for it, at least a page."""
    return 4096 * max(1, sum(-(-len(data) // 4096) for data in content.values() if data is not None))


TRAIN = ["--threads", "1", "--device", "cpu", "-q"]
for setting in (
    *("model.width=16", "model.latent_dim=8", "model.depth=2"),
    *("train.steps=6", "train.batch_size=8", "train.window=32", "train.eval_every=4", "train.checkpoint_every=2"),
):
    TRAIN += ["--set", setting]


def build_jobs(folder: Path, only: Sequence[str] = ()) -> Iterator[Job]:
    """Small jobs of every command that writes, each on a fresh folder and over something older."""
    shell = Shell(folder)
    make = shell.make
    write_motion(folder / "motion.h5", [3, 40, 64, 130, 0, 333])
    write_motion(folder / "other.h5", [20, 30])
    for number in range(3):
        write(folder / "mocap" / f"walk.{number}.bvh", smooth(20 + number, number))
    codes = ["--set", "bottleneck.codebook_size=16", "--set", "bottleneck.num_quantizers=2"]
    make("train", "motion.h5", "-o", "model", *TRAIN, "--model", "rvq", *codes)
    make("encode", "model", "motion.h5", "-o", "tokens.h5", "-q")
    make("encode", "model", "other.h5", "-o", "other.tokens.h5", "-q")
    make("import", "mocap", "-o", "walks.h5", "-q")
    make("import", "mocap/walk.0.bvh", "-o", "walk.h5", "-q")

    def job(name: str, words: str, output: str, older: str) -> Iterator[Job]:
        target = folder / "out" / output
        command = [*words.split(), "-o", str(target), "--force"]
        for case in filter(lambda case: wanted(f"{name} {case}"), ("fresh", "replacing")):
            put(folder / "out", {})
            if case == "replacing":
                make(*older.split(), "-o", str(target))
            made = Job(f"{name} {case}", command, shell, [output], tree(folder / "out"))
            made.prepare()
            yield made

    def wanted(name: str) -> bool:
        return not only or any(name.startswith(each) for each in only)

    yield from job("encode", "encode model motion.h5 -q", "tokens.h5", "encode model other.h5 -q")
    yield from job("decode", "decode model tokens.h5 -q", "motion.h5", "decode model other.tokens.h5 -q")
    yield from job("import", "import mocap -q", "motion.h5", "import mocap/walk.1.bvh -q")
    export = "export {} --format {}"
    yield from job("export bvh", export.format("walks.h5", "bvh"), "bvh", export.format("walk.h5", "bvh"))
    demos = export.format("motion.h5", "robomimic"), "demos.h5", export.format("other.h5", "robomimic")
    yield from job("export robomimic", *demos)
    yield from (made for made in _trainings(folder, shell, wanted) if wanted(made.name))


def _trainings(folder: Path, shell: Shell, wanted: Callable[[str], bool]) -> Iterator[Job]:
    """Training in a new folder, going on after a kill, and in the folder of an older run."""
    if not any(wanted(f"train {case}") for case in ("fresh", "resumed", "replacing")):
        return
    out = folder / "out" / "run"
    anew = ["train", "motion.h5", "-o", str(out), *TRAIN, "--model", "vae"]  # which spares it k-means
    put(folder / "out", {})
    shell.make(*anew, "--set", "train.keep_checkpoints=9")
    passing = {name: data for name, data in tree(folder / "out").items() if "/step-" in name}

    anew += ["--set", "train.keep_checkpoints=2"]
    units = ["run/config.toml", "run/tokenizer.safetensors", "run/checkpoints/step-*"]
    fresh = Job("train fresh", anew, shell, units, again=[*anew, "--resume"], passing=passing)
    fresh.prepare()
    yield fresh
    third = next(point for point in fresh.points() if point.call == "rename" and "step-000006" in point.shown)
    fresh.cut(third, "signal=KILL", "= ?")
    yield replace(fresh, name="train resumed", words=fresh.again, before=tree(fresh.out))
    put(folder / "out", {})
    shell.make(*anew, "--seed", "1")
    force = [*anew, "--force"]
    yield replace(fresh, name="train replacing", words=force, again=force, before=tree(fresh.out))


@dataclass
class Tally:
    """The tries of one job, counted."""

    kills: list[Tried] = field(default_factory=list)
    errors: list[Tried] = field(default_factory=list)
    full: list[Tried] = field(default_factory=list)

    def rows(self, name: str, points: Sequence[Point]) -> list[str]:
        calls = ", ".join(f"{call} {n}" for call, n in Counter(point.call for point in points).items())
        rows = [f"{name}: {len(points)} points ({calls})"]
        for what, tries in ("killed", self.kills), ("errors", self.errors), ("full disk", self.full):

            def count(*words: str, tries: list[Tried] = tries) -> int:
                return sum(any(text.startswith(words) for text in tried.wrong) for tried in tries)

            codes = ", ".join(f"{code}: {n}" for code, n in sorted(Counter(t.ended.code for t in tries).items()))
            rows.append(
                f"  {what} {len(tries)}: {count('crash')} crashes, {count('partial')} partial, "
                f"{count('stderr', 'says', 'exit 0', 'exit code')} told wrongly, "
                f"{sum(bool(tried.left) for tried in tries)} left something; "
                f"run again {len(tries) - count('differs', 'again')} identical, {count('litter')} with litter; "
                f"exit codes {{{codes}}}"
            )
        return rows


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

    def show(tries: list[Tried]) -> None:
        for tried in tries:
            if tried.wrong or options.verbose:
                print(f"  {tried} {f'left {tried.left}' if tried.left else ''}", flush=True)

    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for job in build_jobs(Path(folder), options.command):
            begin = time.monotonic()
            points, tally = job.points(), Tally()
            for point in points:
                tries = [] if options.no_kill else [job.kill(point)]
                tally.kills += tries
                tries += (failures := [job.fail(point, error) for error in options.errors])
                tally.errors += failures
                show(tries)
            room = 0
            while not tally.full or tally.full[-1].ended.code != 0:
                tally.full.append(job.fill_disk(room))
                show(tally.full[-1:])
                room += 4096 * max(1, room // 32768)
            failed += sum(bool(tried.wrong) for tried in (*tally.kills, *tally.errors, *tally.full))
            print("\n".join(tally.rows(job.name, points)), f"({time.monotonic() - begin:.0f} s)", flush=True)
    print(f"{failed} tries broke a promise")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
