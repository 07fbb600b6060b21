"""The commands, each built when it is asked for: help that ends with an example, and words for what was typed wrong."""

from __future__ import annotations

import importlib
import inspect
import keyword
import re
import textwrap
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from vqtool.errors import UsageError

COMMANDS = (  # each a module with a function, or a Typer of several, of that name
    "import",
    "validate",
    "stats",
    "train",
    "encode",
    "decode",
    "merge",
    "sample",
    "play",
    "export",
    "inspect-codebook",
    "evaluate",
    "report",
    "edit",
    "doctor",
)
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
MARK = "\n\nExample: "
VALUES = {"int": "N", "float": "X", "path": "PATH", "Path": "PATH", "str": "NAME"}  # Typer's names for ours


class Command(TyperCommand):
    """Its docstring ends with `Example: vqtool ...`, which the help shows below the options.

    A line too long for the terminal is continued as in a shell, so that what is copied runs.
    """

    def __init__(self, *args: Any, help: str | None = None, **settings: Any) -> None:
        text, _, example = (help or "").partition(MARK)
        super().__init__(*args, help=text, **settings)
        self.example = " ".join(example.split())

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first sentence, whole: the list of commands has room for a second line."""
        return str(super().get_short_help_str(200))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does, which before 0.29 takes NaN to lie within any limits."""
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:  # of the parser, which does not know whose options these are
                error.ctx = ctx  # type: ignore[attr-defined]
            raise
        for param in self.params:
            value = ctx.params.get(param.name)
            if value != value and " from " in (_takes(ctx, param) or ""):
                raise UsageError(f"{_takes(ctx, param)}, not 'nan'")
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """As manuals write them: RUN MOTION... [OTHER]."""
        pieces = [str(self.options_metavar)]
        arguments: list[Any] = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        for param in arguments:
            name = (param.metavar or param.name.upper()).strip("[]")
            pieces.append((name if param.required else f"[{name}]") + "..." * (param.nargs == -1))
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, in the order in which the command has them."""
        parts: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                is_option = param.param_type_name == "option"
                parts["Options" if is_option else "Arguments"].append(_reworded(*record, is_option=is_option))
        for title, rows in parts.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example, the last thing in the help."""
        lines = textwrap.wrap(
            self.example,
            formatter.width - len(" \\"),
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        formatter.write("\nExample:\n" + " \\\n".join(lines) + "\n")


def _reworded(name: str, text: str, *, is_option: bool) -> tuple[str, str]:
    """A line of the help with the kind of a value as N or PATH, and defaults in words without their brackets."""
    name, _, kind = name.partition(" <")
    value = next((word for typer_name, word in VALUES.items() if typer_name in kind), "")
    return (f"{name} {value}" if value and is_option else name), re.sub(r"default: \(([^)]*)\)", r"default: \1", text)


class Commands(TyperGroup):
    """COMMANDS. To build all of them took a third of the time of `vqtool --help`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.commands: Any = dict.fromkeys(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, imported and built at the first time; None where there is none."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            found = _imported(cmd_name)
            if isinstance(found, typer.Typer):
                one = found
            else:
                one = typer.Typer(rich_markup_mode=None, add_completion=False)
                one.command(cmd_name, cls=Command)(found)
            self.commands[cmd_name] = typer.main.get_command(one)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the first sentence of each."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, Command(name, help=_help(name)).get_short_help_str()) for name in COMMANDS])


def _help(name: str) -> str | None:
    found = _imported(name)
    if isinstance(found, typer.Typer):
        assert found.registered_callback is not None
        found = found.registered_callback.callback
    return inspect.getdoc(found)


def _imported(name: str) -> Any:
    place = name.replace("-", "_") + "_" * keyword.iskeyword(name)
    return getattr(importlib.import_module(f"vqtool.cli.{place}"), place)


def told(error: Any) -> str:
    """What a person is told of a command line that Typer refused: its own words, but of numbers; "" for no words."""
    message = str(error.format_message())
    context = getattr(error, "ctx", None)
    if not message:
        return ""
    if context is None:
        return f"{message} (vqtool --help shows the commands)"
    if expected := _number_expected(error):
        return expected
    if context.command.name == "train" and hasattr(error, "possibilities"):
        from vqtool.config import settings_called

        if settings := settings_called(error.option_name.lstrip("-").replace("-", "_")):
            how = " or ".join(f"--set {setting}=VALUE" for setting in settings)
            return f"No such option: {error.option_name}; it is a setting: {how}"
    shown = "commands" if hasattr(context.command, "commands") else "options"
    return f"{message} ({context.command_path} --help shows the {shown})"


def _number_expected(error: Any) -> str:
    """`--steps takes a whole number of at least 1, not 'many'`; "" where no number was asked for."""
    param = getattr(error, "param", None)
    details: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()  # of pydantic, from Typer 0.29 on
    given = [str(one["input"]) for one in details] or re.findall(r"^'?(.*?)'? is not ", str(error.message))
    if not given or param is None or (taken := _takes(error.ctx, param)) is None:
        return ""
    return f"{taken}, not {given[0]!r}"


def _takes(context: Any, param: Any) -> str | None:
    """`--steps takes a whole number of at least 1`; None of what is no number."""
    from vqtool.config import WORDS

    hint = get_type_hints(context.command.callback, include_extras=True).get(param.name)
    kind, option = get_args(hint) or (None, None)
    numbers = [one for one in (int, float) if one in (kind, *get_args(kind))]
    if not numbers:
        return None
    source = context.get_parameter_source(param.name)
    name = param.envvar if getattr(source, "name", "") == "ENVIRONMENT" else max(param.opts, key=len)
    low, high = (None if one is None else f"{one:,}" for one in (option.min, option.max))
    limits = f" from {low} to {high}" if low and high else f" of at least {low}" if low else ""
    return f"{name} takes {WORDS[numbers[0]]}{limits}"
