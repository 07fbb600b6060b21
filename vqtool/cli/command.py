"""A command whose help ends with an example that can be copied."""

from __future__ import annotations

import textwrap
from typing import Any

from typer.core import TyperCommand

MARK = "\n\nExample: "


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
