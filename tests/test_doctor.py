"""vqtool doctor: it finds what is wrong with a machine or a folder, and nothing wrong keeps it from looking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, vqtool

from vqtool import doctor
from vqtool.doctor import Check, Machine, examine
from vqtool.publish import lock

ROOT = Path(__file__).parents[1]


def rows(check: object, folder: Path = Path("."), **environment: str) -> list[Check]:
    """What one check says, in an environment of these variables alone; nothing is imported for it."""
    machine = Machine(folder, environment)
    machine._answers["torch"] = {"version": "2.6", "threads": 1, "capability": "AVX2", "cuda": None, "devices": []}
    machine._answers["torch"]["mps"] = False
    return list(check(machine))  # type: ignore[operator]


def row(name: str, found: list[Check]) -> Check:
    (one,) = [check for check in found if check.name == name]
    return one


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder in front of the installed libraries."""
    folder = tmp_path / "fake"
    folder.mkdir()
    return folder


def broken(fake: Path, module: str, text: str) -> list[Check]:
    """All rows where `import module` runs this text."""
    (fake / f"{module}.py").write_text(text)
    return list(examine(fake, {**os.environ, "PYTHONPATH": f"{fake}{os.pathsep}{ROOT}"}))


def python(code: str, *flags: str, **environment: str) -> str:
    """What a program prints."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


# The command


def test_a_healthy_machine_has_no_problem_and_the_folder_is_left_as_it_was(run: Run, tmp_path: Path) -> None:
    code, out, errors = run("doctor", "--json")
    found = json.loads(out)
    assert (code, errors) == (0, "")
    assert found["schema_version"] == 1
    assert {check["state"] for check in found["checks"]} <= {"ok", "note", "warning"}
    assert [check for check in found["checks"] if (check["advice"] == "") != (check["state"] == "ok")] == []
    assert list(tmp_path.iterdir()) == []


def test_a_problem_ends_with_74_after_all_rows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (doctor._folder, doctor._platform))
    monkeypatch.setattr(doctor, "QUESTIONS", {})
    code, out, _ = run("doctor", "missing")
    assert code == 74
    assert "problem  folder          missing is no folder\n" in out
    assert "-> make it, or name another\n" in out
    assert "\nok       platform  " in out


def test_one_line_a_row_whatever_a_variable_holds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (doctor._variables,))
    monkeypatch.setattr(doctor, "QUESTIONS", {})
    monkeypatch.setenv("VQTOOL_NONSENSE", "a\nb\x1b[31m")
    code, out, _ = run("doctor")
    assert code == 74
    assert len(out.splitlines()) == 2
    assert "\x1b" not in out


# Libraries


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ModuleNotFoundError(\"No module named 'torch'\")", "No module named 'torch'"),
        ("raise OSError('libtorch_cpu.so: undefined symbol')", "libtorch_cpu.so: undefined symbol"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "crashes when it is imported (SIGILL)"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("version = 'not torch at all'", "AttributeError"),
    ],
)
def test_a_library_that_cannot_be_imported_is_a_problem_and_the_other_rows_still_come(
    fake: Path, text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "QUESTIONS", {"torch": doctor.QUESTIONS["torch"]})
    found = broken(fake, "torch", text)
    assert row("torch", found).state == "problem"
    assert why in row("torch", found).value
    assert "pip install" in row("torch", found).advice
    assert row("locks", found).state == "ok"
    assert row("cpus", found).state == "ok"


def test_a_library_that_hangs_is_a_problem(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "QUESTIONS", {"torch": doctor.QUESTIONS["torch"]})
    monkeypatch.setattr(doctor, "ANSWER_S", 0.5)
    found = broken(fake, "torch", "import time; time.sleep(100)")
    assert row("torch", found).value == "was not imported within 0.5 s"


def test_the_command_starts_without_torch_numpy_and_h5py(fake: Path) -> None:
    for module in ("torch", "numpy", "h5py"):
        (fake / f"{module}.py").write_text(f"raise ImportError('no {module} here')")
    done = vqtool("doctor", "--json", cwd=fake, PYTHONPATH=f"{fake}{os.pathsep}{ROOT}")
    states = {check["name"]: check["state"] for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 74
    assert done.stderr == ""
    assert [name for name, state in states.items() if state == "problem"] == ["torch", "numpy", "h5py", "safetensors"]


def test_a_library_older_than_vqtool_asks_for_is_a_problem() -> None:
    assert doctor._library("torch", "2.5.1+cu121", {"torch": "2.6"}).state == "problem"
    assert doctor._library("torch", "2.13.0+cpu", {"torch": "2.6"}) == Check("torch", "ok", "2.13.0+cpu")
    assert doctor._library("torch", "2.6.0a0+git1", {"torch": "2.6"}).state == "ok"


def test_an_hdf5_that_can_crash_on_damaged_files_is_a_note() -> None:
    assert doctor._hdf5("1.14.6").state == "note"
    assert doctor._hdf5("2.0.0").state == "note"
    assert doctor._hdf5("2.2.0") == Check("hdf5", "ok", "2.2.0")


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert row("matplotlib", rows(doctor._extras)).advice == "for what needs it: pip install 'vqtool[plot]'"
    assert row("pyarrow", rows(doctor._extras)).state == row("pillow", rows(doctor._extras)).state == "note"


def test_extras_that_take_long_are_named_without_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._installed("no-such-package") is None
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name in ("ray", "fsspec") else "1.2")
    found = row("extras", rows(doctor._extras))
    assert (found.state, found.value) == (
        "note",
        "tensorboard 1.2, wandb 1.2, ray not installed, fsspec not installed",
    )
    assert found.advice == "for what needs them: pip install 'vqtool[ray,remote]'"
    monkeypatch.setattr(doctor, "_installed", lambda name: "1.2")
    assert row("extras", rows(doctor._extras)).state == "ok"


def test_ffmpeg_is_looked_for_on_path(tmp_path: Path) -> None:
    assert row("ffmpeg", rows(doctor._ffmpeg, PATH=str(tmp_path))).state == "note"
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    assert row("ffmpeg", rows(doctor._ffmpeg, PATH=str(tmp_path))) == Check("ffmpeg", "ok", str(tmp_path / "ffmpeg"))


# The machine


def test_more_threads_than_cpus_are_a_warning() -> None:
    cpus = doctor._usable_cpus()
    assert row("threads", rows(doctor._threads, VQTOOL_THREADS=str(cpus))).state == "ok"
    found = row("threads", rows(doctor._threads, VQTOOL_THREADS=str(cpus + 1)))
    assert found.state == "warning"
    assert f"--threads {cpus}" in found.advice


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system with CPU affinity")
def test_cpus_are_those_that_the_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, [min(before)])
        assert doctor._usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("lines", "files", "cpus"),
    [
        ("0::/box/inner\n", {"box/cpu.max": "100000 100000", "box/inner/cpu.max": "max 100000"}, 1),
        ("4:cpu,cpuacct:/box\n", {"cpu/box/cpu.cfs_quota_us": "50000", "cpu/box/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu,cpuacct:/box\n", {"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, 64),
        ("0::/\n", {}, 64),
    ],
)
def test_the_quota_of_a_control_group_limits_the_cpus(
    lines: str, files: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(lines)
    monkeypatch.setattr(doctor, "CGROUPS", tmp_path)
    monkeypatch.setattr(doctor, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert doctor._usable_cpus() == cpus


def test_a_small_limit_of_memory_is_a_warning() -> None:
    resource = pytest.importorskip("resource")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    assert row("memory", rows(doctor._memory)).state in ("ok", "warning")
    code = "from vqtool import doctor; print(*doctor._memory(None))"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, {hard})); {code}"
    done = python(limited)
    assert "state='warning'" in done
    assert "address space (ulimit -v) limited to 1.0 GiB" in done


def test_an_encoding_that_is_not_utf_8_is_a_warning() -> None:
    code = (
        "import os; from vqtool import doctor; from pathlib import Path;"
        "print(*doctor._encoding(doctor.Machine(Path(), os.environ)))"
    )
    assert "state='ok'" in python(code, "-X", "utf8")
    found = python(code, PYTHONIOENCODING="latin-1")
    assert "state='warning'" in found
    assert "PYTHONIOENCODING=latin-1" in found


# The folder


def test_a_folder_that_cannot_be_written_to_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **words: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "mkdtemp", refuse)
    found = row("writing", rows(doctor._folder, tmp_path))
    assert (found.state, found.value) == ("problem", "fails (Permission denied)")


def test_a_disk_that_cannot_sync_is_a_problem_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(doctor.os, "fsync", fail)
    assert row("writing", rows(doctor._folder, tmp_path)).value == "fails (Input/output error)"
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.fcntl, "flock", lambda file, how: None)
    assert row("locks", rows(doctor._folder, tmp_path)).value == "this file system gives one lock to two"

    def refuse(file: object, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(doctor.fcntl, "flock", refuse)
    assert row("locks", rows(doctor._folder, tmp_path)).value == "this file system has none (No locks available)"


def test_leftovers_of_killed_runs_are_told_and_other_files_are_not(tmp_path: Path) -> None:
    for name in (".t.h5.part", "t.h5.lock", "other.part", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "Cargo.lock").write_text("[[package]]")
    (tmp_path / ".big.h5.parts").mkdir()
    found = row("leftovers", rows(doctor._folder, tmp_path))
    assert found.state == "note"
    assert found.value == "of runs that were killed: .big.h5.parts, .t.h5.part, t.h5.lock"


def test_a_run_at_work_is_no_leftover(tmp_path: Path) -> None:
    with lock(tmp_path / "t.h5"):
        found = rows(doctor._folder, tmp_path)
    assert row("writers", found).value == "at work now: t.h5.lock"
    assert not [check for check in found if check.name == "leftovers"]


def test_a_disk_that_is_nearly_full_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:3], 1, 1, *real[5:]))  # blocks free, and for us
    monkeypatch.setattr(doctor.os, "statvfs", lambda folder: full)
    assert row("disk", rows(doctor._folder, tmp_path)).state == "warning"


@pytest.mark.parametrize(
    ("kind", "state"), [("ext4", "ok"), ("nfs4", "note"), ("fuse.sshfs", "note"), ("tmpfs", "note")]
)
def test_disks_over_a_network_and_in_memory_are_notes(
    kind: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    here = str(tmp_path.resolve()).replace(" ", "\\040")
    mounts.write_text(f"root / overlay rw 0 0\nx {here} {kind} rw 0 0\ny {here}2 xfs rw 0 0\n")
    monkeypatch.setattr(doctor, "MOUNTS", mounts)
    found = row("file system", rows(doctor._folder, tmp_path))
    assert (found.state, found.value) == (state, kind)


# The environment


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("VQTOOL_TRIAN_STEPS", "3", "means nothing"),
        ("VQTOOL_TRAIN_STEP", "3", "did you mean 'train.steps'"),
        ("VQTOOL_TRAIN_STEPS", "many", "takes a whole number"),
        ("VQTOOL_THREADS", "0", "takes a number of threads"),
        ("VQTOOL_DEVICE", "tpu", "takes auto, cpu or cuda"),
    ],
)
def test_a_variable_that_no_command_would_take_is_a_problem(name: str, text: str, why: str) -> None:
    found = row("variables", rows(doctor._variables, **{name: text}))
    assert found.state == "problem"
    assert why in found.value
    assert f"unset {name}" in found.advice


def test_variables_that_hold_for_every_run_are_a_note() -> None:
    assert rows(doctor._variables, HOME="/") == [Check("variables", "ok", "no VQTOOL_* is set")]
    found = row("variables", rows(doctor._variables, VQTOOL_TRAIN_LR="1e-3", VQTOOL_DEBUG="1"))
    assert (found.state, found.value) == ("note", "VQTOOL_DEBUG=1, VQTOOL_TRAIN_LR=1e-3")
    both = {"VQTOOL_TRAIN_WINDOW": "30", "VQTOOL_MODEL_DOWNSAMPLE": "2"}
    assert row("variables", rows(doctor._variables, **both)).state == "note"
    both["VQTOOL_MODEL_DOWNSAMPLE"] = "8"
    assert "do not go together" in row("variables", rows(doctor._variables, **both)).value


def test_a_variable_that_lets_files_load_code_is_a_warning() -> None:
    assert rows(doctor._hdf5_variables, HDF5_PLUGIN_PRELOAD="::")[0].state == "ok"
    assert rows(doctor._hdf5_variables, HDF5_PLUGIN_PRELOAD="")[0].state == "warning"
    assert rows(doctor._hdf5_variables, HDF5_PLUGIN_PATH="/plugins")[0].state == "note"
    assert rows(doctor._hdf5_variables, HDF5_USE_FILE_LOCKING="TRUE")[0].state == "note"


def test_a_check_that_fails_is_a_row_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def _strange(machine: Machine) -> list[Check]:
        raise AttributeError("no such thing on this platform")

    monkeypatch.setattr(doctor, "QUESTIONS", {})
    monkeypatch.setattr(doctor, "CHECKS", (_strange, doctor._platform))
    strange, normal = examine(tmp_path)
    assert (strange.name, strange.state, normal.state) == ("strange", "warning", "ok")
    assert "no such thing on this platform" in strange.value
