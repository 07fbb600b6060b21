"""What a person types. Each command is a file: options, one library call, one result.

Nothing here imports torch, h5py or numpy at module level: `vqtool --help` must start at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from typing import Annotated

# A caller may have closed them (>&-): then the next file to be opened would take their number, and the first print
# would go into it.
if None in (sys.stdin, sys.stdout, sys.stderr):
    while os.open(os.devnull, os.O_RDWR) < 2:  # takes the lowest number that is free
        pass
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115

# Typer would colour pipes under GITHUB_ACTIONS, FORCE_COLOR or PY_COLORS.
if not sys.stdout.isatty():
    os.environ.setdefault("_TYPER_FORCE_DISABLE_TERMINAL", "1")

import typer

import vqtool
from vqtool.cli.command import HELP_OPTIONS, Commands, told
from vqtool.errors import InterruptedRun, VqtoolError
from vqtool.signals import StopRequest

app = typer.Typer(
    name="vqtool",
    cls=Commands,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings=HELP_OPTIONS,
    rich_markup_mode=None,
)

_debug = False


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        import h5py

        typer.echo(
            f"vqtool {vqtool.__version__} (torch {version('torch')}, h5py {h5py.__version__}, "
            f"HDF5 {h5py.version.hdf5_version}, Python {sys.version.split()[0]})"
        )
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Versions.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Errors with traceback.", envvar="VQTOOL_DEBUG")] = False,
) -> None:
    """Turn continuous motion into discrete tokens and back.

    import motion, train a tokenizer on it, encode it to tokens, inspect the codebook, decode tokens to motion, export.
    """
    global _debug
    _debug = debug
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main(argv: list[str] | None = None) -> int:
    """Run a command line and return its exit code; every error is one line on stderr."""
    global _debug
    # As Typer reads it, for what goes wrong before it does.
    _debug = os.environ.get("VQTOOL_DEBUG", "").lower() in ("1", "true", "t", "yes", "y", "on")
    with StopRequest():
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    try:
        result = app(args=argv, prog_name="vqtool", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _forget_stdout()  # the reader (head, less) has enough
        return 0
    except InterruptedRun as error:
        return _die_by(error.signum, str(error))
    except VqtoolError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else "output: "  # files have been named by now
        try:
            sys.stdout.flush()
        except OSError:
            _forget_stdout()
        return _fail(f"{place}{error.strerror or error}", 74)
    except MemoryError:
        return _fail("out of memory; try a smaller batch or fewer columns", 74)
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own: a wrong option or value
            return _fail(told(error), 2)
        hint = "" if _debug else "; VQTOOL_DEBUG=1 shows where"
        return _fail(f"internal error, please report it: {type(error).__name__}: {error}{hint}", 70)


def _forget_stdout() -> None:
    """Python must not try to flush the rest at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    if _debug:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        if message:
            print(f"vqtool: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _die_by(signum: int, message: str) -> int:
    """End as the signal would have ended the process, so that a shell script stops too."""
    with contextlib.suppress(OSError):
        print(f"vqtool: {message}", file=sys.stderr, flush=True)
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    return 128 + signum
