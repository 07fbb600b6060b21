"""The picture of a codebook or latent report, or of two, in a terminal of any width: table, bars and verdict."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import IO

import numpy as np
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from vqtool.comparison import ALIKE, DIFFERENT, Comparison, Moved, Shift
from vqtool.errors import counted, printable
from vqtool.usage import COLLAPSED, FEW, HEALTHY, IDLE, CodebookReport, LatentReport, LayerUsage, Source

WIDTH = 80  # off a terminal
NARROWEST, WIDEST = 44, 120
INDENT = 4  # room for a layer's number
NAME_WIDTH = 14
HISTOGRAM_LINES = 6  # shared by the layers
UP, ASCII_UP = " ▁▂▃▄▅▆▇█", " .:-=+*%#"
ACROSS, ASCII_ACROSS = " ▏▎▍▌▋▊▉█", " #"
TINY = 1e-300
STYLES = {HEALTHY: "green", IDLE: "green", FEW: "red", COLLAPSED: "red", ALIKE: "green", DIFFERENT: "red"}


def show(report: CodebookReport | LatentReport | Comparison, top: int, console: Console | None = None) -> None:
    """Print the report to stdout or `console`, with `top` codes a layer; in ASCII where blocks cannot be encoded."""
    console = console or terminal()
    draw = Drawing(console)
    if isinstance(report, Comparison):
        parts = _comparison(report, top, draw)
    else:
        parts = _codebook(report, top, draw) if isinstance(report, CodebookReport) else _latents(report, top, draw)
    for part in parts:
        console.print(part)


def terminal(file: IO[str] | None = None) -> Console:
    """A console on stdout or `file` that takes text as it is: coloured and as wide as the screen only on a terminal."""
    on_screen = (file or sys.stdout).isatty()
    # rich would colour a pipe under FORCE_COLOR.
    console = Console(
        file=file, force_terminal=None if on_screen else False, markup=False, highlight=False, emoji=False
    )
    console.width = min(max(console.width, NARROWEST), WIDEST) if on_screen else WIDTH
    return console


class Drawing:
    """Text and bars of a console's width, of block characters or of ASCII."""

    def __init__(self, console: Console) -> None:
        self.width = console.width
        self._encoding = console.encoding
        self._up, self._across = (ASCII_UP, ASCII_ACROSS) if console.options.ascii_only else (UP, ACROSS)

    def bar(self, fraction: float, width: int) -> Text:
        """A bar of at most `width` characters; the least one stands for anything above 0."""
        steps = len(self._across) - 1
        filled = math.ceil(min(max(fraction, 0.0), 1.0) * width * steps)
        whole, part = divmod(filled, steps)
        return Text((self._across[-1] * whole + self._across[part] * (part > 0)).ljust(width), style="cyan")

    def histogram(self, values: np.ndarray, lines: int, label: str) -> Iterator[Text]:
        """`values` [K] >= 0, sorted and averaged into columns, drawn `lines` high on a linear scale."""
        width = self.width - INDENT - 1
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

    def curve(self, values: Sequence[float], width: int) -> Text:
        """`values` over time, averaged into at most `width` characters, from the least to the most of them."""
        parts = np.array_split(np.array(values, dtype=np.float64), min(width, len(values)))
        means = np.array([part.mean() for part in parts])
        low, high = means.min(), means.max()
        share = (means - low) / (high - low) if high > low else np.full(len(means), 0.5)
        levels = 1 + np.rint(share * (len(self._up) - 2)).astype(int)
        return Text("".join(self._up[level] for level in levels), style="cyan")

    def plain(self, text: str) -> str:
        """`text` from a file, without control characters and what the terminal cannot encode."""
        return printable(text).encode(self._encoding, "backslashreplace").decode(self._encoding)

    def entry(self, name: str, what: str, style: str = "") -> Text:
        """A name and its text, which goes on below itself."""
        lines = textwrap.wrap(what, self.width - NAME_WIDTH, break_on_hyphens=False)
        text = Text(f"{name:<{NAME_WIDTH}}", style="bold")
        return text.append(f"\n{'':{NAME_WIDTH}}".join(lines), style=f"not bold {style}")

    def heading(self, name: str, what: str) -> Text:
        """A name, and what stands below it."""
        first, *more = textwrap.wrap(f"{name}  {what}", self.width, subsequent_indent=" " * INDENT)
        text = Text(name, style="bold").append(first[len(name) :], style="not bold dim")
        return text.append("".join(f"\n{line}" for line in more), style="not bold dim")

    def table(self, columns: Mapping[str, Sequence[str | Text]], spare: Sequence[str] = ()) -> Table:
        """Right-aligned `columns` without lines; those of `spare` are left out in turn until it fits."""
        columns = dict(columns)
        for name in spare:
            if sum(max(map(len, (head, *cells))) + 2 for head, cells in columns.items()) - 2 <= self.width:
                break
            columns.pop(name, None)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        return table


def _codebook(report: CodebookReport, top: int, draw: Drawing) -> Iterator[RenderableType]:
    layers = report.layers
    yield from _title(report.source, f"{_sizes(layers)} codes, {counted(report.token_frames, 'token frames')}", draw)
    yield ""
    yield _layer_table(report, draw)
    yield ""
    if report.tokens:
        yield draw.heading("usage", "share of each code, from the most used on the left; blank where dead")
        lines = max(1, HISTOGRAM_LINES // len(layers))
        for layer in layers:
            yield from draw.histogram(layer.counts, lines, _label(layer, layers))
        yield ""
    if report.tokens and top:
        yield draw.heading("top codes", "code and its share of the tokens")
        for layer in layers:
            yield from _top_codes(layer, top, _label(layer, layers), draw)
        yield ""
    if any(layer.nearest for layer in layers):
        yield draw.heading("nearest pair of codes", "and its distance in % of the codebook's spread")
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


def _layer_table(report: CodebookReport, draw: Drawing) -> Table:
    layers = report.layers
    columns: dict[str, list[str]] = {"layer": [str(layer.layer) for layer in layers]}
    if layers[0].part is not None:
        columns["part"] = [draw.plain(str(layer.part)) for layer in layers]
    columns |= {
        "K": [f"{layer.codebook_size:,}" for layer in layers],
        "used": [f"{layer.used:,}" for layer in layers],
        "usage %": [f"{math.floor(1000 * layer.usage) / 10:.1f}" for layer in layers],
        "perplexity": [f"{layer.perplexity:,.1f}" for layer in layers],
        "bits": [f"{layer.bits:.2f}" for layer in layers],
        "dead": [f"{len(layer.dead_codes):,}" for layer in layers],
        "bigram bits": ["-" if layer.bigram_bits is None else f"{layer.bigram_bits:.2f}" for layer in layers],
    }
    return draw.table(columns, spare=("dead", "usage %", "bits"))


def _latents(report: LatentReport, top: int, draw: Drawing) -> Iterator[RenderableType]:
    frames = "" if report.token_frames is None else f", {counted(report.token_frames, 'token frames')}"
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
        yield draw.heading("KL per dimension", "from the largest on the left")
        yield from draw.histogram(np.nan_to_num(report.kl), HISTOGRAM_LINES, "")
        yield ""
    if report.token_frames != 0 and top:
        yield _dimension_table(report, top, draw)
        yield ""
    yield draw.entry("verdict", report.verdict, STYLES.get(report.status, "yellow"))


def _dimension_table(report: LatentReport, top: int, draw: Drawing) -> Table:
    finite = np.nan_to_num(report.kl)
    order = np.argsort(-finite, kind="stable")[:top]
    return draw.table(
        {
            "dimension": [str(index) for index in order],
            "variance": [_short(report.variance[index]) for index in order],
            "KL nats": [_short(report.kl[index]) for index in order],
            "": [draw.bar(finite[index] / max(finite.max(), TINY), draw.width - 36) for index in order],
        }
    )


def _top_codes(layer: LayerUsage, top: int, label: str, draw: Drawing) -> Iterator[Text]:
    """Code, share and bar in newspaper columns: the ranks run down, then on to the next column."""
    codes = layer.top(top)
    across = max(1, (draw.width - INDENT) // (19 if label else 30))
    down = -(-len(codes) // across)
    digits = len(str(layer.codebook_size - 1))
    bar_width = (draw.width - INDENT) // across - digits - len(" 0.012 %  ") - 1
    for row in range(down):
        line = Text(f"{label if row == 0 else '':>{INDENT}}")
        for code in codes[row::down]:
            line.append(f" {code.code:>{digits}} {_percent(code.share):>7} ")
            line.append(draw.bar(code.share / codes[0].share, bar_width)).append(" ")
        line.rstrip()
        yield line


def _comparison(found: Comparison, top: int, draw: Drawing) -> Iterator[RenderableType]:
    for letter, report in zip("ab", (found.first, found.second), strict=True):
        yield Text(f"{letter}  ", style="bold").append(draw.plain(report.source.file), style="not bold")
        frames = f"{counted(report.token_frames, 'token frames')}"
        yield f"   {draw.plain(report.source.bottleneck)} {report.source.kind}: {_sizes(report.layers)} codes, {frames}"
    yield ""
    yield _comparison_table(found, draw)
    yield ""
    if found.shifts and top:
        yield draw.heading("gained and lost", "codes whose share of the tokens changed most from a to b")
        for shift in found.shifts:
            yield from _movers(shift, top, _label(shift.first, found.first.layers), draw)
        yield ""
    for letter, report in zip("ab", (found.first, found.second), strict=True):
        yield draw.entry(f"verdict of {letter}", report.verdict, STYLES.get(report.status, "yellow"))
    yield draw.entry("together", found.verdict, STYLES.get(found.status, "yellow"))


def _comparison_table(found: Comparison, draw: Drawing) -> Table:
    """A row a layer; the divergence only where a code means the same in both."""
    pairs = found.layers

    def both(name: str, text: Callable[[LayerUsage], str]) -> dict[str, list[str]]:
        sides = zip("ab", zip(*pairs, strict=True), strict=True)
        return {f"{name} {letter}": ["-" if one is None else text(one) for one in side] for letter, side in sides}

    columns = {"layer": [str(layer) for layer in range(len(pairs))]}
    longer = max(found.first.layers, found.second.layers, key=len)
    if found.shifts and longer[0].part is not None:
        columns["part"] = [draw.plain(str(layer.part)) for layer in longer]
    if found.shifts:
        lacking = ["-"] * (len(pairs) - len(found.shifts))
        columns |= {
            "JSD bits": [_bits(shift.divergence) for shift in found.shifts] + lacking,
            "chance": [_bits(shift.chance) for shift in found.shifts] + lacking,
            "moved": [_percent(shift.moved) for shift in found.shifts] + lacking,
            "only a": [f"{shift.only_first:,}" for shift in found.shifts] + lacking,
            "only b": [f"{shift.only_second:,}" for shift in found.shifts] + lacking,
        }
    else:
        columns |= both("K", lambda layer: f"{layer.codebook_size:,}")
        columns |= both("bits", lambda layer: f"{layer.bits:.2f}")
    columns |= both("used", lambda layer: f"{layer.used:,}") | both(
        "perplexity", lambda layer: f"{layer.perplexity:,.1f}"
    )
    return draw.table(columns, spare=("used a", "used b", "bits a", "bits b", "only a", "only b", "moved", "chance"))


def _movers(shift: Shift, top: int, label: str, draw: Drawing) -> Iterator[Text]:
    """Codes that gained and, beside or below them, that lost, with their shares in a and b."""
    gained, lost = shift.gained(top), shift.lost(top)
    if not gained:
        yield Text(f"{label:>{INDENT}} no code changed its share")
        return
    digits = len(str(shift.first.codebook_size - 1))
    least = digits + len(" +  0.012 % to  0.012 % ")
    across = 2 if draw.width - INDENT >= 2 * least else 1
    width = (draw.width - INDENT) // across
    most = max(abs(code.second - code.first) for code in gained + lost)

    def cell(sign: str, code: Moved) -> Text:
        text = Text(f" {sign} {code.code:>{digits}} {_percent(code.first):>7} to {_percent(code.second):>7} ")
        text.append(draw.bar(abs(code.second - code.first) / most, max(0, width - least)))
        text.pad_right(width - len(text))
        return text

    left, right = [cell("+", code) for code in gained], [cell("-", code) for code in lost]
    if across == 1:
        left, right = left + right, []
    for number, (one, other) in enumerate(zip_longest(left, right, fillvalue=Text(" " * width))):
        line = Text(f"{label if number == 0 else '':>{INDENT}}").append(one).append(other)
        line.rstrip()
        yield line


def _title(source: Source, what: str, draw: Drawing) -> Iterator[Text]:
    yield Text(draw.plain(source.file), style="bold")
    if source.clips is not None and source.motion_frames is not None:
        seconds = round(source.motion_frames / source.fps)
        what += f", {source.clips:,} clip{'s' * (source.clips != 1)}, {_duration(seconds)} of motion"
    if source.kind == "run":
        what += " of its validation set"
    yield from (
        Text(line) for line in textwrap.wrap(f"{draw.plain(source.bottleneck)} {source.kind}: {what}", draw.width)
    )


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


def _bits(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


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
