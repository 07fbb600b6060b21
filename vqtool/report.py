"""Pictures of a report, as PNG; matplotlib (the extra `plot`) is imported only when one is drawn."""

from __future__ import annotations

import io

import numpy as np

from vqtool.errors import UsageError, counted
from vqtool.usage import ACTIVE_VARIANCE, CodebookReport, LatentReport


def require_matplotlib() -> None:
    """UsageError that says how to install matplotlib, where it is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError("plots need matplotlib; install it with: pip install 'vqtool[plot]'") from error


def usage_plot(report: CodebookReport | LatentReport) -> bytes:
    """PNG of the sorted usage of every layer, or of the KL per latent dimension.

    Raises UsageError where matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")  # draws with Agg: no display and no global state
    axes = figure.add_subplot()
    if isinstance(report, CodebookReport):
        for layer in report.layers:
            shares = np.sort(layer.counts[layer.counts > 0])[::-1] / max(1, layer.tokens)
            label = (
                f"layer {layer.layer}: {layer.used:,} of {layer.codebook_size:,}, perplexity {layer.perplexity:,.1f}"
            )
            axes.plot(np.arange(1, len(shares) + 1), 100 * shares, label=label, marker=".", markersize=3)
        if report.tokens:
            axes.set_yscale("log")
        axes.set_xlim(0, max(layer.codebook_size for layer in report.layers) + 1)
        axes.set(xlabel="codes, most used first", ylabel="share of the tokens, %", title="Codebook usage")
        axes.legend(fontsize="small")
    else:
        kl = np.nan_to_num(report.kl)
        order = np.argsort(-kl, kind="stable")
        active = report.variance[order] > ACTIVE_VARIANCE
        axes.bar(np.arange(report.dim), kl[order], color=np.where(active, "C0", "0.7"))
        title = f"{report.active_units} of {counted(report.dim, 'dimensions')} active (blue)"
        axes.set(xlabel="latent dimensions, largest KL first", ylabel="KL, nats per token frame", title=title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
