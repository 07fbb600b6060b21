"""How long small commands take, start to end."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.material import tokenizer_of, write_motion
from benchmarks.measure import Row, interleaved, milliseconds, process, slower

TITLE = "Starting"
H5PY = "import sys, h5py; h5py.File(sys.argv[1])['codes'][:]"


def measure(quick: bool) -> list[Row]:
    """Whole processes, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_motion(folder / "motion.h5", 20)
        run = tokenizer_of("vq", path, folder, **{"model.width": 64, "bottleneck.codebook_size": 64})
        one, out, small = write_motion(folder / "one.h5", 1), folder / "tokens.h5", folder / "small.h5"
        process("-m", "vqtool", "encode", run, path, "-o", small, "-q")()
        jobs = {
            "help": process("-m", "vqtool", "--help"),
            "typer": process("-c", "import typer, rich"),
            "inspect": process("-m", "vqtool", "inspect-codebook", small),
            "h5py": process("-c", H5PY, small),
            "encode": process("-m", "vqtool", "encode", run, one, "-o", out, "--force", "-q"),
            "torch": process("-c", "import torch"),
        }
        found = interleaved(jobs, rounds=3 if quick else 9)
    lines = [
        ("help", "vqtool --help", "typer", "python -c 'import typer, rich'", "<= 2"),
        ("inspect", "vqtool inspect-codebook on a small file", "h5py", "a bare h5py script that reads it", "<= 2"),
        ("encode", "vqtool encode of one clip", "torch", "python -c 'import torch'", "<= 1.5"),
    ]
    rows = []
    for ours, what, theirs, against, goal in lines:
        note = f"{milliseconds(found[ours])} against {milliseconds(found[theirs])}"
        rows.append(Row(what, against, slower(found, ours, theirs), goal, note))
    return rows
