"""`vqtool inspect-codebook`: how well the codes of a run or a token file are used; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vqtool.comparison import Comparison
    from vqtool.usage import CodebookReport, LatentReport

TOP_USED, TOP_CHANGED = 20, 5  # codes listed by default


def inspect_codebook(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|TOKENS",
            readable=False,
            help="A run, a tokens.h5 or latents.h5, or the manifest of its shards.",
        ),
    ],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|TOKENS]", readable=False, help="Compare with this one: what changes towards it."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="20; of two 5",
            help="How many codes to list, for each layer: most used, or that changed most.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw the usage into this file too (needs the extra 'plot').")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow a run while it trains, until it is finished; then report as usual.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the plot if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show how well a codebook is used: codes in use, perplexity, entropy, bits per second, and a verdict.

    A VAE has no codes; its active units and KL per dimension are shown instead. A token file needs no run: it
    carries its codebooks. Its checksum is verified on the way.

    --watch follows a run that trains now.

    Of two of them it shows how the use of the codes differs: divergence, codes that gained and lost, perplexity.

    Example: vqtool inspect-codebook imu.tokens.h5 --top 8
    """
    from vqtool.errors import UsageError
    from vqtool.inspection import inspect

    if watch:
        if other is not None or plot is not None or as_json:
            what = "--watch follows one run; leave out the second file, --plot and --json"
            raise UsageError(f"{what} (metrics.jsonl in the run folder has the numbers)")
        from vqtool.cli.training_view import watch_run

        watch_run(path)
    if other is not None:
        if plot is not None:
            raise UsageError("--plot draws one file; leave it out, or compare without it")
        _print(_compare(path, other), TOP_CHANGED if top is None else top, as_json)
        return
    if plot is not None:
        from vqtool.publish import check_output, publish_bytes
        from vqtool.report import require_matplotlib, usage_plot

        check_output(plot, force=force, inputs=(path,))
        require_matplotlib()
    report = inspect(path)
    if plot is not None:
        publish_bytes(plot, usage_plot(report), force=force)
    _print(report, TOP_USED if top is None else top, as_json)
    if plot is not None:
        typer.echo(f"wrote {plot}", err=True)


def _print(report: CodebookReport | LatentReport | Comparison, top: int, as_json: bool) -> None:
    if as_json:
        import json

        from vqtool.usage import LatentReport

        plain = report.to_json() if isinstance(report, LatentReport) else report.to_json(top)
        typer.echo(json.dumps(plain, allow_nan=False))
    else:
        from vqtool.cli.codebook_view import show

        show(report, top)


def _compare(path: Path, other: Path) -> Comparison:
    from vqtool.comparison import Comparison
    from vqtool.errors import UsageError
    from vqtool.inspection import inspect
    from vqtool.usage import CodebookReport

    reports = []
    for one in (path, other):
        report = inspect(one)
        if not isinstance(report, CodebookReport):
            raise UsageError("has latents and no codes to compare; inspect it by itself", file=one)
        reports.append(report)
    return Comparison(*reports)
