"""`vqtool inspect-codebook`: how well the codes of a run or a token file are used; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect_codebook(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|TOKENS",
            readable=False,
            help="A run (its folder or tokenizer.safetensors), a tokens.h5 or a latents.h5.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    top: Annotated[int, typer.Option(min=0, help="How many of the most used codes to list, for each layer.")] = 20,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw the usage into this file too (needs the extra 'plot').")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the plot if it exists.")] = False,
) -> None:
    """Show how well a codebook is used: codes in use, perplexity, entropy, bits per second, and a verdict.

    A VAE has no codes; its active units and KL per dimension are shown instead. A token file needs no run: it
    carries its codebooks. Its checksum is verified on the way.

    Example: vqtool inspect-codebook tokens.h5 --top 8
    """
    from vqtool.inspection import CodebookReport, inspect
    from vqtool.publish import check_output, publish_bytes

    if plot is not None:
        from vqtool.report import require_matplotlib, usage_plot

        check_output(plot, force=force, inputs=(path,))
        require_matplotlib()
    report = inspect(path)
    if plot is not None:
        publish_bytes(plot, usage_plot(report), force=force)
    if as_json:
        import json

        plain = report.to_json(top) if isinstance(report, CodebookReport) else report.to_json()
        typer.echo(json.dumps(plain, allow_nan=False))
    else:
        from vqtool.cli.codebook_view import show

        show(report, top)
    if plot is not None:
        typer.echo(f"wrote {plot}", err=True)
