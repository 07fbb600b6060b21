"""examine(): what a person needs to know of a machine and a folder before an unattended run, a row a fact.

Nothing here needs a library to be whole: each is imported in a child process, so that one that is missing, broken or
that crashes is a row of the table.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import locale
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import vqtool
from vqtool.config import PREFIX, build_config, read_environment
from vqtool.errors import UsageError
from vqtool.publish import fcntl, is_held, sync

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"
SAFER_HDF5 = (2, 2)
LITTLE_DISK, LITTLE_INODES = 1 << 30, 1000
LITTLE_MEMORY = 2 << 30
ANSWER_S = 120  # torch from a cold network disk
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MOUNTS = Path("/proc/mounts")
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs"}
IN_MEMORY = {"tmpfs", "ramfs"}
EXTRAS = {"matplotlib": "plot", "PIL": "plot", "pyarrow": "parquet"}
SLOW_EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb", "ray": "ray", "fsspec": "remote"}  # seconds to import

# What is asked of each library, of which `m` is the module.
QUESTIONS = {
    "torch": "{'version': m.__version__, 'threads': m.get_num_threads(),"
    " 'capability': m.backends.cpu.get_cpu_capability(), 'cuda': m.version.cuda,"
    " 'devices': [m.cuda.get_device_name(n) for n in range(m.cuda.device_count())],"
    " 'mps': m.backends.mps.is_available()}",
    "numpy": "{'version': m.__version__}",
    "h5py": "{'version': m.__version__, 'hdf5': m.version.hdf5_version}",
    "safetensors.numpy": "{'version': __import__('safetensors').__version__}",
    **dict.fromkeys(EXTRAS, "{'version': m.__version__}"),
}


@dataclass(frozen=True)
class Check:
    """One row: `state` is ok, note, warning or problem; all but ok have an `advice`, what to do."""

    name: str
    state: str
    value: str
    advice: str = ""


@dataclass
class Machine:
    """What the checks look at: a folder, the environment, and child processes that import the libraries."""

    folder: Path
    environment: Mapping[str, str]
    _children: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _answers: dict[str, dict[str, Any] | str] = field(default_factory=dict)

    def ask(self, module: str) -> None:
        """Begin to import a library in a child process."""
        program = f"import json, {module} as m; print('\\n' + json.dumps({QUESTIONS[module]}))"
        self._children[module] = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=dict(self.environment),
        )

    def answer(self, module: str) -> dict[str, Any] | str:
        """What the library says of itself, or in words why it does not."""
        if module not in self._answers:
            if module not in self._children:
                self.ask(module)
            self._answers[module] = _answer_of(self._children[module])
        return self._answers[module]

    def torch(self) -> dict[str, Any]:
        """What torch says of itself; nothing where it cannot be imported."""
        answer = self.answer("torch")
        return {} if isinstance(answer, str) else answer

    def close(self) -> None:
        """End what still runs."""
        for child in self._children.values():
            if child.poll() is None:
                child.kill()
                child.communicate()


def _answer_of(child: subprocess.Popen[str]) -> dict[str, Any] | str:
    try:
        out, errors = child.communicate(timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return f"was not imported within {ANSWER_S} s"
    if child.returncode < 0:
        return f"crashes when it is imported ({signal.Signals(-child.returncode).name})"
    lines = [line for line in errors.splitlines() if line.strip()]
    if child.returncode > 0:
        return f"cannot be imported ({lines[-1].strip() if lines else f'exit code {child.returncode}'})"
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def examine(folder: Path, environment: Mapping[str, str] = os.environ) -> Generator[Check, None, None]:
    """All checks in the order of the table. Files are made in a new folder inside `folder` only, and removed."""
    machine = Machine(folder, environment)
    try:
        for module in QUESTIONS:  # at the same time: torch takes longest
            if module not in EXTRAS or importlib.util.find_spec(module) is not None:
                machine.ask(module)
        for check in CHECKS:
            try:
                yield from check(machine)
            except Exception as error:  # of an unknown platform or a strange library; the other rows still help
                what = f"cannot be looked at ({type(error).__name__}: {error})"
                yield Check(check.__name__.strip("_"), WARNING, what, "please report it as a bug of vqtool doctor")
    finally:
        machine.close()


# The installation


def _versions(machine: Machine) -> Iterator[Check]:
    yield Check("vqtool", OK, vqtool.__version__)
    yield Check("python", OK, f"{platform.python_version()} ({platform.python_implementation()})")


def _libraries(machine: Machine) -> Iterator[Check]:
    least = _least_versions()
    for module in [module for module in QUESTIONS if module not in EXTRAS]:
        name = module.partition(".")[0]
        answer = machine.answer(module)
        if isinstance(answer, str):
            advice = f"install it again: pip install --force-reinstall {name}"
            if name == "torch":
                advice += ", or the build for this machine from https://pytorch.org/get-started/locally"
            yield Check(name, PROBLEM, answer, advice)
        else:
            yield _library(name, answer["version"], least)
            if name == "h5py":
                yield _hdf5(answer["hdf5"])
    for name in ("typer", "rich", "tqdm"):
        try:
            yield _library(name, importlib.metadata.version(name), least)
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, PROBLEM, "is not installed", f"install it: pip install {name}")


def _least_versions() -> dict[str, str]:
    """The oldest version of each library that vqtool asks for; nothing where vqtool itself is not installed."""
    try:
        wanted = importlib.metadata.requires("vqtool") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = (re.fullmatch(r"([\w.-]+)>=([\d.]+)", line) for line in wanted)
    return {match[1]: match[2] for match in found if match}


def _numbers(version: str) -> tuple[int, ...]:
    """2.13.0+cpu as (2, 13, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[+a-z]", version)[0]))


def _library(name: str, version: str, least: Mapping[str, str]) -> Check:
    if name in least and _numbers(version) < _numbers(least[name]):
        what = f"{version}, older than {least[name]}"
        return Check(name, PROBLEM, what, f"update it: pip install '{name}>={least[name]}'")
    return Check(name, OK, version)


def _hdf5(version: str) -> Check:
    if _numbers(version) >= SAFER_HDF5:
        return Check("hdf5", OK, version)
    advice = (
        "it can crash on damaged files; vqtool therefore looks at files in a child process first. Take an h5py with "
        f"HDF5 {'.'.join(map(str, SAFER_HDF5))} or later when there is one"
    )
    return Check("hdf5", NOTE, version, advice)


def _extras(machine: Machine) -> Iterator[Check]:
    for name, extra in EXTRAS.items():
        install = f"for what needs it: pip install 'vqtool[{extra}]'"
        called = "pillow" if name == "PIL" else name
        if importlib.util.find_spec(name) is None:
            yield Check(called, NOTE, "is not installed", install)
        elif isinstance(answer := machine.answer(name), str):
            yield Check(called, WARNING, answer, install)
        else:
            yield Check(called, OK, answer["version"])
    versions = {name: _installed(name) for name in SLOW_EXTRAS}
    value = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    missing = [extra for name, extra in SLOW_EXTRAS.items() if versions[name] is None]
    advice = f"for what needs them: pip install 'vqtool[{','.join(missing)}]'" if missing else ""
    yield Check("extras", NOTE if missing else OK, value, advice)


def _installed(name: str) -> str | None:
    """The version of a library that is not imported for it."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _ffmpeg(machine: Machine) -> Iterator[Check]:
    if (found := shutil.which("ffmpeg", path=machine.environment.get("PATH"))) is None:
        yield Check("ffmpeg", NOTE, "is not on PATH", "install it for vqtool play -o x.mp4; a .gif needs none")
    else:
        yield Check("ffmpeg", OK, found)


# The machine


def _platform(machine: Machine) -> Iterator[Check]:
    yield Check("platform", OK, platform.platform())


def _cpus(machine: Machine) -> Iterator[Check]:
    usable, of = _usable_cpus(), os.cpu_count() or 1
    value = f"{usable} of {of} usable"
    capability = machine.torch().get("capability")
    if capability is not None:
        value += f", torch uses {capability}"
    value += f", bfloat16 {'yes' if _has_bfloat16() else 'no'}"
    if capability == "DEFAULT" and platform.machine() in ("x86_64", "AMD64"):
        yield Check("cpus", WARNING, value, "torch found neither AVX2 nor AVX512 and will be slow; take a newer CPU")
    else:
        yield Check("cpus", OK, value)


def _has_bfloat16() -> bool:
    with contextlib.suppress(OSError):
        return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def _usable_cpus() -> int:
    """CPUs that this process may use, by its affinity and by the quota of its control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = []
    for text in _control_group("cpu", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max":
            quotas.append(int(quota) / int(period))
    old = zip(_control_group("cpu", "cpu.cfs_quota_us"), _control_group("cpu", "cpu.cfs_period_us"), strict=False)
    quotas += [int(quota) / int(period) for quota, period in old if int(quota) > 0]
    return max(1, min([count, *map(math.ceil, quotas)]))


def _control_group(controller: str, file: str) -> Iterator[str]:
    """What a file of Linux' control groups says, for the group of this process and for those above it."""
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        place = PurePosixPath(path.lstrip("/"))
        for group in (place, *place.parents):
            with contextlib.suppress(OSError):
                yield (root / group / file).read_text().strip()


def _threads(machine: Machine) -> Iterator[Check]:
    cpus = _usable_cpus()
    names = ("VQTOOL_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    given = {name: machine.environment[name] for name in names if name in machine.environment}
    own = given.get("VQTOOL_THREADS", "")
    threads = int(own) if own.isdecimal() else machine.torch().get("threads")
    if threads is None:
        return
    value = f"{threads}" + "".join(f", {name}={text}" for name, text in given.items())
    if threads > cpus:
        advice = f"more threads than CPUs wait for each other; set VQTOOL_THREADS={cpus} or add --threads {cpus}"
        yield Check("threads", WARNING, value, advice)
    else:
        yield Check("threads", OK, value)


def _gpus(machine: Machine) -> Iterator[Check]:
    answer = machine.torch()
    if not answer:
        return
    if answer["devices"]:
        yield Check("gpus", OK, f"{', '.join(answer['devices'])} (CUDA {answer['cuda']})")
    elif Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/gpus").exists():
        what = "CUDA does not start" if answer["cuda"] else "this build of torch has no CUDA"
        advice = "take the build of torch that fits the driver: https://pytorch.org/get-started/locally"
        yield Check("gpus", WARNING, f"an NVIDIA GPU is here, but {what}; the CPU is used", advice)
    elif answer["mps"]:
        yield Check("gpus", NOTE, "MPS", "it lacks the float64 that exact tokens need, so the CPU is used")
    else:
        yield Check("gpus", OK, "none; --device auto is the CPU")


def _memory(machine: Machine) -> Iterator[Check]:
    total, available = _physical_memory()
    limits = {}
    with contextlib.suppress(ImportError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            limits["address space (ulimit -v)"] = soft
    texts = [*_control_group("memory", "memory.max"), *_control_group("memory", "memory.limit_in_bytes")]
    groups = [int(text) for text in texts if text.isdecimal() and int(text) < total]
    if groups:
        limits["control group"] = min(groups)
    value = f"{_gigabytes(available)} available of {_gigabytes(total)}"
    value += "".join(f", {name} limited to {_gigabytes(size)}" for name, size in limits.items())
    if min([available, *limits.values()]) < LITTLE_MEMORY:
        advice = (
            f"vqtool wants {_gigabytes(LITTLE_MEMORY)}: end other programs, raise the limit, or use a smaller model"
        )
        yield Check("memory", WARNING, value, advice)
    else:
        yield Check("memory", OK, value)


def _physical_memory() -> tuple[int, int]:
    """Bytes in all, and those that programs may still take."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        return total, int(found[1]) * 1024 if found else total
    return total, total


def _gigabytes(size: float) -> str:
    return f"{size / (1 << 30):,.1f} GiB"


def _encoding(machine: Machine) -> Iterator[Check]:
    names = ("PYTHONUTF8", "PYTHONIOENCODING", "LC_ALL", "LANG")
    used = {
        "file names": sys.getfilesystemencoding(),
        "text": locale.getpreferredencoding(False),
        "output": sys.stdout.encoding,
    }
    value = ", ".join(f"{what} {name.lower()}" for what, name in used.items())
    value += "".join(f", {name}={machine.environment[name]}" for name in names if name in machine.environment)
    if any(name.lower().replace("-", "").replace("_", "") != "utf8" for name in used.values()):
        yield Check("encoding", WARNING, value, "names beyond ASCII will be garbled or refused; set PYTHONUTF8=1")
    else:
        yield Check("encoding", OK, value)


# The folder


def _folder(machine: Machine) -> Iterator[Check]:
    folder = machine.folder
    if not folder.is_dir():
        yield Check("folder", PROBLEM, f"{folder} is no folder", "make it, or name another")
        return
    yield Check("folder", OK, str(folder.resolve()))
    yield from _space(folder)
    yield from _file_system(folder)
    yield from _writing(folder)
    yield from _leftovers(folder)


def _space(folder: Path) -> Iterator[Check]:
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    value = f"{_gigabytes(free)} free of {_gigabytes(disk.f_blocks * disk.f_frsize)}"
    few = disk.f_files > 0 and disk.f_favail < LITTLE_INODES  # some file systems do not count
    if disk.f_files > 0:
        value += f", {disk.f_favail:,} more files"
    if free < LITTLE_DISK or few:
        advice = "remove files, or choose another disk: a run that meets its end stops with exit code 74"
        yield Check("disk", WARNING, value, advice)
    else:
        yield Check("disk", OK, value)


def _file_system(folder: Path) -> Iterator[Check]:
    kind = _kind_of(folder)
    if kind is None:
        return
    if kind in IN_MEMORY:
        yield Check("file system", NOTE, kind, "files here are in memory and end with the machine; copy results away")
    elif kind in REMOTE or kind.startswith("fuse"):
        advice = "windows of motion read slowly over a network; train from a copy on a local disk"
        yield Check("file system", NOTE, kind, advice)
    else:
        yield Check("file system", OK, kind)


def _kind_of(folder: Path) -> str | None:
    """The type of the file system as Linux names it: of the mount point deepest above the folder."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    here = folder.resolve()
    found: tuple[int, str | None] = (-1, None)
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        place = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point))
        if here.is_relative_to(place) and len(place.parts) >= found[0]:  # the later of two mounts is on top
            found = len(place.parts), kind
    return found[1]


def _writing(folder: Path) -> Iterator[Check]:
    try:
        with tempfile.TemporaryDirectory(prefix=".vqtool-doctor-", dir=folder) as place:
            found = [_publishing(Path(place)), _locking(Path(place))]
    except OSError as error:
        advice = "choose a folder that you may write to, or mend the disk"
        found = [Check("writing", PROBLEM, f"fails ({error.strerror or error})", advice)]
    yield from found


def _publishing(place: Path) -> Check:
    """What vqtool.publish relies on."""
    with (place / "part").open("wb") as file:
        file.write(bytes(1 << 16))
        os.fsync(file.fileno())
    (place / "whole").write_bytes(b"")
    os.replace(place / "part", place / "whole")
    sync(place)
    if (place / "whole").stat().st_size != 1 << 16:
        return Check("writing", PROBLEM, "a renamed file did not replace the one before", "choose another disk")
    return Check("writing", OK, "write, fsync, rename and fsync of the folder work")


def _locking(place: Path) -> Check:
    advice = "two runs that write the same output here would not notice each other; start only one"
    if fcntl is None:
        return Check("locks", WARNING, "this platform has none", advice)
    with (place / "lock").open("wb") as first, (place / "lock").open("wb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Check("locks", WARNING, f"this file system has none ({error.strerror})", advice)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Check("locks", WARNING, "this file system gives one lock to two", advice)
    return Check("locks", OK, "a second writer of an output is refused")


def _leftovers(folder: Path) -> Iterator[Check]:
    found: list[str] = []
    busy: list[str] = []
    for place in (folder, folder / "checkpoints"):
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            if re.fullmatch(r"\..+\.(part|parts|old|part\.rows)", path.name):
                found.append(path.name)
            elif path.suffix == ".lock" and path.is_file() and path.stat().st_size == 0:  # not Cargo.lock
                (busy if is_held(path) else found).append(path.name)
    if busy:
        yield Check("writers", NOTE, f"at work now: {_some(busy)}", "wait for them, or write to other names")
    if found:
        advice = "nothing: the next run with the same output goes on from them or overwrites them, then removes them"
        yield Check("leftovers", NOTE, f"of runs that were killed: {_some(found)}", advice)
    if not busy and not found:
        yield Check("leftovers", OK, "none of killed runs")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# The environment


def _variables(machine: Machine) -> Iterator[Check]:
    given = {name: text for name, text in machine.environment.items() if name.startswith(PREFIX)}
    wrong = 0
    for name, text in sorted(given.items()):
        try:
            _check_variable(name, text)
        except UsageError as error:
            wrong += 1
            yield Check("variables", PROBLEM, f"{name}={text}: {error}", f"correct it, or: unset {name}")
    if wrong:
        return
    try:
        build_config(read_environment(given))
    except UsageError as error:
        yield Check("variables", PROBLEM, f"do not go together: {error}", f"unset one of {', '.join(sorted(given))}")
        return
    listed = ", ".join(f"{name}={text}" for name, text in sorted(given.items()))
    if listed:
        yield Check("variables", NOTE, listed, "they hold for every run from here; unset what should not")
    else:
        yield Check("variables", OK, f"no {PREFIX}* is set")


def _check_variable(name: str, text: str) -> None:
    """UsageError for a variable that names no setting, or whose value it cannot have."""
    if name == "VQTOOL_THREADS" and text and not (text.isdecimal() and int(text) > 0):
        raise UsageError("takes a number of threads")
    if name == "VQTOOL_DEVICE" and text not in ("", "auto", "cpu", "cuda"):
        raise UsageError("takes auto, cpu or cuda")
    for key, value in read_environment({name: text}).items():
        try:
            build_config({key: value})
        except UsageError as error:
            if not str(error).startswith("train.window"):  # whether two fit is asked of all together
                raise


def _hdf5_variables(machine: Machine) -> Iterator[Check]:
    advice = {}
    if machine.environment.get("HDF5_PLUGIN_PRELOAD", "::") != "::":
        advice["HDF5_PLUGIN_PRELOAD"] = "a data file may then load code of its choice; unset it"
    elif "HDF5_PLUGIN_PATH" in machine.environment:
        advice["HDF5_PLUGIN_PATH"] = "it has no effect: vqtool loads no filter plugins (h5repack makes files plain)"
    if machine.environment.get("HDF5_USE_FILE_LOCKING", "FALSE").upper() not in ("FALSE", "0"):
        advice["HDF5_USE_FILE_LOCKING"] = "HDF5 then refuses files that others have open; unset it"
    for name, text in advice.items():
        state = WARNING if name == "HDF5_PLUGIN_PRELOAD" else NOTE
        yield Check("hdf5 variables", state, f"{name}={machine.environment[name]}", text)
    if not advice:
        yield Check("hdf5 variables", OK, "none that matter")


CHECKS: tuple[Callable[[Machine], Iterator[Check]], ...] = (
    _versions,
    _libraries,
    _extras,
    _ffmpeg,
    _platform,
    _cpus,
    _threads,
    _gpus,
    _memory,
    _encoding,
    _folder,
    _variables,
    _hdf5_variables,
)
