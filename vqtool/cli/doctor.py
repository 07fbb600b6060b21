"""`vqtool doctor`."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vqtool.cli.options import Json
from vqtool.errors import StorageError, printable

COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where outputs will be written.")] = Path("."),
    as_json: Json = False,
) -> None:
    """Look at the machine and a folder before an unattended run; what it prints belongs in a bug report.

    Versions and whether each library works, CPUs, threads, GPUs, memory, encoding, disk, locks, leftovers of killed
    runs, variables. Each is ok, a note, a warning or a problem; with a problem the exit code is 74.

    Example: vqtool doctor .
    """
    from vqtool.doctor import examine

    checks = []
    with contextlib.closing(examine(folder)) as found:
        for check in found:
            checks.append(check)
            if not as_json:
                state = typer.style(check.state.ljust(9), fg=COLOURS[check.state], bold=check.state != "ok")
                typer.echo(f"{state}{check.name:<16}{printable(check.value)}")
                if check.advice:
                    typer.echo(f"{'':25}-> {printable(check.advice)}")
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "checks": [asdict(check) for check in checks]}, allow_nan=False))
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(StorageError.exit_code)
