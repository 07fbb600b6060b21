"""The picture of a codebook or latent report in a terminal: table, histogram, bars and verdict in 80 columns."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator
from typing import IO

import numpy as np
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from vqtool.errors import printable
from vqtool.inspection import COLLAPSED, FEW, HEALTHY, IDLE, CodebookReport, LatentReport, LayerUsage, Source

WIDTH = 80
INDENT = 4  # room for a layer's number
NAME_WIDTH = 14
HISTOGRAM_LINES = 6  # shared by the layers
UP, ASCII_UP = " ▁▂▃▄▅▆▇█", " .:-=+*%#"
ACROSS, ASCII_ACROSS = " ▏▎▍▌▋▊▉█", " #"
TINY = 1e-300
STYLES = {HEALTHY: "green", IDLE: "green", FEW: "red", COLLAPSED: "red"}


def show(report: CodebookReport | LatentReport, top: int, console: Console | None = None) -> None:
    """Print the report to stdout or `console`, with `top` codes a layer; in ASCII where blocks cannot be encoded."""
    console = console or terminal()
    draw = Drawing(console.encoding, console.options.ascii_only)
    parts = _codebook(report, top, draw) if isinstance(report, CodebookReport) else _latents(report, top, draw)
    for part in parts:
        console.print(part)


def terminal(file: IO[str] | None = None) -> Console:
    """A console of 80 columns on stdout or `file` that takes text as it is; coloured only on a terminal."""
    # rich would colour a pipe under FORCE_COLOR.
    colour = None if (file or sys.stdout).isatty() else False
    return Console(file=file, width=WIDTH, force_terminal=colour, markup=False, highlight=False, emoji=False)


class Drawing:
    """Text and bars, of block characters or of ASCII."""

    def __init__(self, encoding: str, ascii_only: bool) -> None:
        self._encoding = encoding
        self._up, self._across = (ASCII_UP, ASCII_ACROSS) if ascii_only else (UP, ACROSS)

    def bar(self, fraction: float, width: int) -> Text:
        """A bar of at most `width` characters; the least one stands for anything above 0."""
        steps = len(self._across) - 1
        filled = math.ceil(min(max(fraction, 0.0), 1.0) * width * steps)
        whole, part = divmod(filled, steps)
        return Text((self._across[-1] * whole + self._across[part] * (part > 0)).ljust(width), style="cyan")

    def histogram(self, values: np.ndarray, lines: int, label: str) -> Iterator[Text]:
        """`values` [K] >= 0, sorted and averaged into columns, drawn `lines` high on a linear scale."""
        width = WIDTH - INDENT - 1
        ranked = np.sort(values)[::-1]
        if len(ranked) > width:
            edges = np.arange(width) * len(ranked) // width
            columns = np.add.reduceat(ranked, edges) / np.diff(edges, append=len(ranked))
        else:
            columns = np.repeat(ranked, width // len(ranked))
        steps = len(self._up) - 1
        heights = np.ceil(columns / max(columns[0], TINY) * lines * steps).astype(int)
        for line in reversed(range(lines)):
            levels = np.clip(heights - line * steps, 0, steps)
            margin = label if line == lines - 1 else ""
            blocks = "".join(self._up[level] for level in levels).rstrip()
            yield Text(f"{margin:>{INDENT}} ").append(blocks, style="cyan")

    def plain(self, text: str) -> str:
        """`text` from a file, without control characters and what the terminal cannot encode."""
        return printable(text).encode(self._encoding, "backslashreplace").decode(self._encoding)

    def entry(self, name: str, what: str, style: str = "") -> Text:
        """A name and its text, which goes on below itself."""
        lines = textwrap.wrap(what, WIDTH - NAME_WIDTH, break_on_hyphens=False)
        text = Text(f"{name:<{NAME_WIDTH}}", style="bold")
        return text.append(f"\n{'':{NAME_WIDTH}}".join(lines), style=f"not bold {style}")


def _codebook(report: CodebookReport, top: int, draw: Drawing) -> Iterator[RenderableType]:
    layers = report.layers
    yield from _title(report.source, f"{_sizes(layers)} codes, {report.token_frames:,} token frames", draw)
    yield ""
    yield _layer_table(report)
    yield ""
    if report.tokens:
        yield _heading("usage", "share of each code, from the most used on the left; blank where dead")
        lines = max(1, HISTOGRAM_LINES // len(layers))
        for layer in layers:
            yield from draw.histogram(layer.counts, lines, _label(layer, layers))
        yield ""
    if report.tokens and top:
        yield _heading("top codes", "code and its share of the tokens")
        for layer in layers:
            yield from _top_codes(layer, top, _label(layer, layers), draw)
        yield ""
    if any(layer.nearest for layer in layers):
        yield _heading("nearest pair of codes", "and its distance in % of the codebook's spread")
        for layer in layers:
            if (pair := layer.nearest) is None:
                continue
            share = _percent(pair.distance / pair.spread) if pair.spread else "all codes are equal"
            apart = f"{pair.first} and {pair.second}, {_short(pair.distance)} apart ({share})"
            yield f"{_label(layer, layers):>{INDENT}} {apart}"
        yield ""
    source = report.source
    rate = f"{_short(source.token_frames_per_second)} token frames/s, {_short(report.tokens_per_second)} tokens/s"
    coded = f"{_short(report.bits_per_second)} bits/s, {_short(report.entropy_bits_per_second)} entropy-coded"
    yield draw.entry("motion", _motion(source))
    yield draw.entry("tokens", f"{rate}: {coded}")
    ratios = f"{_times(report.compression_ratio)}, {_times(report.entropy_compression_ratio)} entropy-coded"
    yield draw.entry("compression", ratios)
    yield ""
    for note in report.notes:
        yield draw.entry("note", note, "dim")
    yield draw.entry("verdict", report.verdict, STYLES.get(report.status, "yellow"))


def _layer_table(report: CodebookReport) -> Table:
    named = report.layers[0].part is not None
    table = _table(
        "layer", *(["part"] if named else []), "K", "used", "usage %", "perplexity", "bits", "dead", "bigram bits"
    )
    for layer in report.layers:
        table.add_row(
            str(layer.layer),
            *([layer.part] if named else []),
            f"{layer.codebook_size:,}",
            f"{layer.used:,}",
            f"{math.floor(1000 * layer.usage) / 10:.1f}",
            f"{layer.perplexity:,.1f}",
            f"{layer.bits:.2f}",
            f"{len(layer.dead_codes):,}",
            "-" if layer.bigram_bits is None else f"{layer.bigram_bits:.2f}",
        )
    return table


def _latents(report: LatentReport, top: int, draw: Drawing) -> Iterator[RenderableType]:
    frames = "" if report.token_frames is None else f", {report.token_frames:,} token frames"
    yield from _title(report.source, f"{report.dim} latent dimensions{frames}", draw)
    yield ""
    if report.token_frames != 0:
        information = f"{_short(report.information_bits_per_second)} bits/s"
        yield draw.entry("motion", _motion(report.source))
        yield draw.entry("latents", f"{_short(report.source.token_frames_per_second)} token frames/s")
        yield draw.entry("compression", f"{_times(report.compression_ratio)} with latents as float32")
        yield draw.entry("KL", f"{_short(float(report.kl.sum()))} nats per token frame: {information}")
        yield draw.entry("active units", f"{report.active_units} of {report.dim} (variance of the mean above 0.01)")
        yield ""
        yield _heading("KL per dimension", "from the largest on the left")
        yield from draw.histogram(np.nan_to_num(report.kl), HISTOGRAM_LINES, "")
        yield ""
    if report.token_frames != 0 and top:
        yield _dimension_table(report, top, draw)
        yield ""
    yield draw.entry("verdict", report.verdict, STYLES.get(report.status, "yellow"))


def _dimension_table(report: LatentReport, top: int, draw: Drawing) -> Table:
    table = _table("dimension", "variance", "KL nats")
    table.add_column()
    finite = np.nan_to_num(report.kl)
    for index in np.argsort(-finite, kind="stable")[:top]:
        bar = draw.bar(finite[index] / max(finite.max(), TINY), WIDTH - 36)
        table.add_row(str(index), _short(report.variance[index]), _short(report.kl[index]), bar)
    return table


def _top_codes(layer: LayerUsage, top: int, label: str, draw: Drawing) -> Iterator[Text]:
    """Code, share and bar in newspaper columns: the ranks run down, then on to the next column."""
    codes = layer.top(top)
    across = 4 if label else 2
    down = -(-len(codes) // across)
    digits = len(str(layer.codebook_size - 1))
    bar_width = (WIDTH - INDENT) // across - digits - len(" 0.012 %  ") - 1
    for row in range(down):
        line = Text(f"{label if row == 0 else '':>{INDENT}}")
        for code in codes[row::down]:
            line.append(f" {code.code:>{digits}} {_percent(code.share):>7} ")
            line.append(draw.bar(code.share / codes[0].share, bar_width)).append(" ")
        line.rstrip()
        yield line


def _table(*columns: str) -> Table:
    """A table of right-aligned columns without lines."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _title(source: Source, what: str, draw: Drawing) -> Iterator[Text]:
    yield Text(draw.plain(source.file), style="bold")
    if source.clips is not None and source.motion_frames is not None:
        seconds = round(source.motion_frames / source.fps)
        what += f", {source.clips:,} clip{'s' * (source.clips != 1)}, {_duration(seconds)} of motion"
    if source.kind == "run":
        what += " of its validation set"
    yield from (Text(line) for line in textwrap.wrap(f"{draw.plain(source.bottleneck)} {source.kind}: {what}", WIDTH))


def _heading(name: str, what: str) -> Text:
    return Text(name, style="bold").append(f"  {what}", style="not bold dim")


def _label(layer: LayerUsage, layers: list[LayerUsage]) -> str:
    """The layer's number, nothing where it is the only one."""
    return str(layer.layer) if len(layers) > 1 else ""


def _sizes(layers: list[LayerUsage]) -> str:
    """K, or Q x K, or each K where they differ."""
    sizes = [f"{layer.codebook_size:,}" for layer in layers]
    if len(set(sizes)) > 1:
        return " + ".join(sizes)
    return sizes[0] if len(sizes) == 1 else f"{len(sizes)} x {sizes[0]}"


def _short(value: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _percent(share: float) -> str:
    """At most seven characters: "100.0 %", "63.7 %", "2.00 %", "0.012 %"."""
    percent = 100 * share
    return f"{percent:.{1 if percent >= 10 else 2 if percent >= 0.1 else 3}f} %"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{_short(ratio)} x"


def _motion(source: Source) -> str:
    rate = f"{_short(source.motion_bits_per_second)} bits/s"
    return f"{source.dim:,} float32 columns at {_short(source.fps)} frames/s: {rate}"


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
