"""Change motion by changing its tokens: replace, splice, interpolate, trim, repeat, reverse, exchange and drop layers.

Works on tokens.h5, and on latents.h5 where no code is asked for. An edit is made of ranges of clips in token frames;
where two that were not neighbours meet there is a seam, and `judge` says how rough it is. Vectors are those of the
file's own codebooks (sums over layers, of parts side by side; of FSQ the level values), so that none of this needs
the model.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vqtool.companions import Caption, Companions
from vqtool.errors import UsageError, counted
from vqtool.publish import check_output
from vqtool.splits import NO_SPLIT
from vqtool.tokens import TokenSet, create_latents, create_tokens, seconds_of_tokens, tokens_of_seconds

NEAREST_BYTES = 32 << 20
RANGE = re.compile(r"(\d+|\d*\.?\d+s)?:(\d+|\d*\.?\d+s)?")


@dataclass(frozen=True)
class Range:
    """Token frames start..stop of a clip, read backwards where `backwards`."""

    clip: int
    start: int
    stop: int
    backwards: bool = False

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Seam:
    """Where two ranges meet: rows first..last of the result are blended; where first = last, none is."""

    first: int
    last: int


@dataclass
class Edit:
    """A clip of the result: `rows` [L, W] are codes, or mean and logvar side by side.

    clip     the clip of the file that it comes from first: its body, its start and its place are that clip's
    sources  all clips that it is made of
    """

    name: str
    rows: np.ndarray
    num_frames: int
    clip: int
    sources: tuple[int, ...]
    captions: list[Caption] = field(default_factory=list)
    seams: list[Seam] = field(default_factory=list)


# Ranges


def find_clip(tokens: TokenSet, name: str) -> int:
    """The number of a clip; UsageError with the nearest name where there is none."""
    try:
        return tokens.names.index(name)
    except ValueError:
        near = difflib.get_close_matches(name, tokens.names, 1, 0.5)
        hint = (
            f"; did you mean {near[0]}?" if near else f"; it has {len(tokens.names):,}, the first is {tokens.names[0]}"
        )
        raise UsageError(f"no clip is called {name!r}{hint}", file=tokens.path) from None


def parse_range(tokens: TokenSet, text: str) -> Range:
    """The range that NAME or NAME@FROM:TO means, in token frames, or in seconds where an s follows: walk@1.5s:3s."""
    name, at, span = text.rpartition("@")
    if text in tokens.names or not at or not RANGE.fullmatch(span):
        clip = find_clip(tokens, text)
        return _checked(tokens, Range(clip, 0, length_of(tokens, clip)), text)
    return parse_span(tokens, find_clip(tokens, name), span)


def parse_span(tokens: TokenSet, clip: int, text: str) -> Range:
    """The range FROM:TO of a clip; either may be left out."""
    if not (found := RANGE.fullmatch(text)):
        raise UsageError(f"{text!r} is no range; write FROM:TO in token frames, or in seconds as 1.5s:3s")
    length = length_of(tokens, clip)
    start, stop = (
        default if word is None else _token(tokens, word)
        for word, default in zip(found.groups(), (0, length), strict=True)
    )
    if word := found[2]:
        # Seconds up to the clip's end reach its last token, which may be covered in part.
        seconds = word.endswith("s") and float(word[:-1]) * tokens.header.fps <= int(tokens.num_frames[clip]) + 0.5
        stop = min(stop, length) if seconds else stop
    return _checked(tokens, Range(clip, start, stop), text)


def _token(tokens: TokenSet, word: str) -> int:
    if not word.endswith("s"):
        return int(word)
    return tokens_of_seconds(float(word[:-1]), 0, tokens.header.fps, tokens.header.downsample)[0]


def parse_length(tokens: TokenSet, word: str) -> int:
    """A number of token frames, or of seconds as 0.2s."""
    if not re.fullmatch(r"\d+|\d*\.?\d+s", word):
        raise UsageError(f"{word!r} is no length; write token frames as 2, or seconds as 0.2s")
    return _token(tokens, word)


def _checked(tokens: TokenSet, found: Range, text: str) -> Range:
    length, name = length_of(tokens, found.clip), tokens.names[found.clip]
    if found.start >= found.stop:
        raise UsageError(f"{text!r} is empty; {name} has the token frames 0:{length}", file=tokens.path)
    if found.stop > length:
        seconds = int(tokens.num_frames[found.clip]) / tokens.header.fps
        what = f"{text!r} is outside {name}, which has the token frames 0:{length} ({seconds:.2f} s)"
        raise UsageError(what, file=tokens.path)
    return found


def length_of(tokens: TokenSet, clip: int) -> int:
    """Token frames of a clip."""
    return int(tokens.offsets[clip + 1] - tokens.offsets[clip])


def rows_of(tokens: TokenSet, part: Range) -> np.ndarray:
    """Its rows [n, W]: codes int64, or mean and logvar side by side."""
    first = int(tokens.offsets[part.clip])
    rows = _rows(tokens, first + part.start, first + part.stop)
    return rows[::-1] if part.backwards else rows


def _rows(tokens: TokenSet, start: int, stop: int) -> np.ndarray:
    if tokens.is_latents:
        return np.concatenate([tokens.rows("mean", start, stop), tokens.rows("logvar", start, stop)], axis=1)
    return tokens.rows("codes", start, stop).astype(np.int64)


# Vectors


class Vectors:
    """Between the rows of a file and the vectors [n, C] that they stand for."""

    def __init__(self, tokens: TokenSet) -> None:
        self.is_latents = tokens.is_latents
        books = [] if tokens.is_latents else tokens.codebooks
        self.codebooks = _side_by_side([book.astype(np.float64) for book in books], len(tokens.header.parts))
        if not self.is_latents and not self.codebooks:
            what = "has no codebooks, which this needs; import it with --like RUN or --like TOKENS"
            raise UsageError(what, file=tokens.path)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of rows: the sum of the code vectors of the layers; the mean of latents."""
        if self.is_latents:
            return rows[:, : rows.shape[1] // 2].astype(np.float64)
        found = np.zeros((len(rows), self.codebooks[0].shape[1]))
        for layer, book in enumerate(self.codebooks[: rows.shape[1]]):
            found += book[rows[:, layer]]
        return found

    def quantized(self, vectors: np.ndarray) -> np.ndarray:
        """Codes [n, Q] of vectors: layer by layer the code nearest to what the layers before left over."""
        rest, codes = vectors, np.zeros((len(vectors), len(self.codebooks)), np.int64)
        for layer, book in enumerate(self.codebooks):
            codes[:, layer] = _nearest(rest, book)
            rest = rest - book[codes[:, layer]]
        return codes

    def blend(self, one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Rows between two, [n, W]: weight [n] 0 gives the first as it is, 1 the other.

        Codes are those of the vector between. Of latents mean and variance are those of the weighted sum of two
        independent draws.
        """
        share = weight[:, None]
        if self.is_latents:
            mean, logvar = (np.split(rows.astype(np.float64), 2, axis=1) for rows in (one, other))
            middle = (1 - share) * mean[0] + share * logvar[0]
            variance = (1 - share) ** 2 * np.exp(mean[1]) + share**2 * np.exp(logvar[1])
            rows = np.concatenate([middle, np.log(variance)], axis=1).astype(np.float32)
        else:
            rows = self.quantized((1 - share) * self.of(one) + share * self.of(other))
        return np.where(share <= 0, one, np.where(share >= 1, other, rows))


def _side_by_side(books: list[np.ndarray], parts: int) -> list[np.ndarray]:
    """The codebooks of parts [K, C of the part] as [K, C], zeros in the channels of others: their sum is the vector."""
    if parts < 2:
        return books
    ends = np.cumsum([0, *(book.shape[1] for book in books[:parts])])
    around = [(int(ends[n % parts]), int(ends[-1] - ends[n % parts + 1])) for n in range(len(books))]
    return [np.pad(book, ((0, 0), sides)) for book, sides in zip(books, around, strict=True)]


def _nearest(vectors: np.ndarray, book: np.ndarray) -> np.ndarray:
    """The nearest code of each vector [n, C] in a codebook [K, C], in float64."""
    half = np.square(book).sum(axis=1) / 2
    step = max(1, NEAREST_BYTES // (8 * len(book)))
    blocks = [np.argmin(half - vectors[n : n + step] @ book.T, axis=1) for n in range(0, len(vectors), step)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.int64)


# Edits


def joined(tokens: TokenSet, name: str, parts: Sequence[Range], *, cross_fade: int = 0) -> Edit:
    """A clip of ranges one behind the other.

    With a cross-fade the last token frames of one range and the first of the next lie over each other and are blended,
    so that each seam makes the result so much shorter. Ranges that were neighbours have no seam. UsageError where a
    range is too short for its fades.
    """
    parts = _merged(parts)
    if not parts:
        raise UsageError("nothing would be left of the clip", file=tokens.path)
    vectors = Vectors(tokens) if cross_fade else None
    rows = rows_of(tokens, parts[0])
    places, seams = [0], []
    for number, (before, part) in enumerate(itertools.pairwise(parts), start=1):
        for one, fades in ((before, 1 + (number > 1)), (part, 1)):
            if len(one) < cross_fade * fades:
                have = counted(len(one), "token frames")
                what = f"a range of {have} is too short for a cross-fade of {cross_fade} at each seam"
                raise UsageError(what, file=tokens.path, clip=tokens.names[one.clip])
        first = len(rows) - cross_fade
        more = rows_of(tokens, part)
        if vectors is not None:
            weight = np.arange(1, cross_fade + 1) / (cross_fade + 1)
            more = np.concatenate([vectors.blend(rows[first:], more[:cross_fade], weight), more[cross_fade:]])
        rows = np.concatenate([rows[:first], more])
        places.append(first)
        seams.append(Seam(first, first + cross_fade))
    num_frames = _num_frames(tokens, parts[-1], len(rows))
    return Edit(
        name=name,
        rows=rows,
        num_frames=num_frames,
        clip=parts[0].clip,
        sources=tuple(dict.fromkeys(part.clip for part in parts)),
        captions=_captions(tokens, parts, places, num_frames),
        seams=seams,
    )


def _merged(parts: Sequence[Range]) -> list[Range]:
    """Without empty ranges, and neighbours as one."""
    found: list[Range] = []
    for part in parts:
        last = found[-1] if found else None
        if len(part) == 0:
            continue
        if last and (last.clip, last.stop, last.backwards, part.backwards) == (part.clip, part.start, False, False):
            found[-1] = replace(last, stop=part.stop)
        else:
            found.append(part)
    return found


def _num_frames(tokens: TokenSet, last: Range, length: int) -> int:
    """Frames of a clip that ends with `last`: the last token of a clip may be covered in part."""
    downsample = tokens.header.downsample
    whole = length_of(tokens, last.clip)
    lacking = whole * downsample - int(tokens.num_frames[last.clip])
    return length * downsample - (lacking if last.stop == whole and not last.backwards else 0)


def _captions(tokens: TokenSet, parts: Sequence[Range], places: Sequence[int], num_frames: int) -> list[Caption]:
    """What the captions of the ranges say of the result of num_frames, whose ranges begin at those token frames.

    Of one clip, what was said of all of it is said of all of the result; else of where it is.
    """
    header, alone = tokens.header, len({part.clip for part in parts}) == 1
    found: list[Caption] = []
    for part, place in zip(parts, places, strict=True):
        begin, end = seconds_of_tokens(part.start, part.stop, header.fps, header.downsample)
        here = seconds_of_tokens(place, place + len(part), header.fps, header.downsample)
        for one in tokens.companions.captions:
            if one.clip != part.clip:
                continue
            start, stop = here
            if one.start_s or one.end_s:
                inside = max(one.start_s, begin), min(one.end_s, end)
                if inside[0] >= inside[1]:
                    continue
                start, stop = (here[0] + second - begin for second in inside)
                if part.backwards:
                    start, stop = here[0] + end - inside[1], here[0] + end - inside[0]
            elif alone:
                start = stop = 0.0
            moved = replace(one, start_s=start, end_s=min(stop, num_frames / header.fps))
            if moved not in found and moved.start_s <= moved.end_s:
                found.append(moved)
    return found


def replaced(
    tokens: TokenSet,
    at: Range,
    by: Range,
    *,
    cross_fade: int = 0,
    name: str | None = None,
    parts: Sequence[str] = (),
) -> Edit:
    """A clip with the range `at` of it replaced by another range: of any length, or of some body parts alone."""
    length = length_of(tokens, at.clip)
    if parts:
        return _replaced_parts(tokens, at, by, parts, cross_fade, name or tokens.names[at.clip])
    ranges = [Range(at.clip, 0, at.start), by, Range(at.clip, at.stop, length)]
    edit = joined(tokens, name or tokens.names[at.clip], ranges, cross_fade=cross_fade)
    return replace(edit, clip=at.clip)


def _replaced_parts(tokens: TokenSet, at: Range, by: Range, parts: Sequence[str], cross_fade: int, name: str) -> Edit:
    """A clip in whose range `at` the codes of some parts are those of another range of that length.

    With a cross-fade their first and last token frames are blended with what was there; the length stays.
    """
    _same_length(tokens, at, by)
    _need_codes(tokens, "parts")
    columns = [column for part in parts for column in tokens.header.columns_of(part)]
    edit = joined(tokens, name, [Range(at.clip, 0, length_of(tokens, at.clip))])
    edit.sources = tuple(dict.fromkeys((at.clip, by.clip)))
    edit.seams = _seams_at_ends(at, len(edit.rows), cross_fade)
    theirs = rows_of(tokens, by)
    if cross_fade and edit.seams:
        if len(at) < cross_fade * len(edit.seams):
            have = counted(len(at), "token frames")
            what = f"a range of {have} is too short for a cross-fade of {cross_fade} at each seam"
            raise UsageError(what, file=tokens.path, clip=tokens.names[at.clip])
        weight, ramp = np.ones(len(at)), np.arange(1, cross_fade + 1) / (cross_fade + 1)
        for seam in edit.seams:
            begins = seam.first == at.start > 0
            weight[seam.first - at.start : seam.last - at.start] = ramp if begins else ramp[::-1]
        theirs = Vectors(tokens).blend(edit.rows[at.start : at.stop], theirs, weight)
    edit.rows[at.start : at.stop, columns] = theirs[:, columns]
    return edit


def _seams_at_ends(at: Range, whole: int, cross_fade: int = 0) -> list[Seam]:
    """The seams of a range whose rows were changed in their place, in a clip of `whole` token frames."""
    found = [Seam(at.start, at.start + cross_fade)] if at.start else []
    return found + ([Seam(at.stop - cross_fade, at.stop)] if at.stop < whole else [])


def repeated(tokens: TokenSet, part: Range, times: int, *, cross_fade: int = 0, name: str | None = None) -> Edit:
    """A clip in which a range comes `times` times."""
    if times < 1:
        raise UsageError(f"--times {times}: at least 1 was expected")
    ends = Range(part.clip, 0, part.start), Range(part.clip, part.stop, length_of(tokens, part.clip))
    parts = [ends[0], *[part] * times, ends[1]]
    return joined(tokens, name or tokens.names[part.clip], parts, cross_fade=cross_fade)


def reversed_range(tokens: TokenSet, part: Range, *, name: str | None = None) -> Edit:
    """A clip in which a range runs backwards."""
    ends = Range(part.clip, 0, part.start), Range(part.clip, part.stop, length_of(tokens, part.clip))
    back = replace(part, backwards=True)
    return joined(tokens, name or tokens.names[part.clip], [ends[0], back, ends[1]])


def interpolated(tokens: TokenSet, one: Range, other: Range, name: str, weights: tuple[float, float]) -> Edit:
    """The clip between two ranges of one length; the weight of the other goes from the first to the second number."""
    _same_length(tokens, one, other)
    if not all(0 <= weight <= 1 for weight in weights):
        raise UsageError(f"--weight {weights[0]:g}:{weights[1]:g}: numbers from 0 to 1 were expected")
    rows = Vectors(tokens).blend(rows_of(tokens, one), rows_of(tokens, other), np.linspace(*weights, len(one)))
    frames = min(_num_frames(tokens, part, len(rows)) for part in (one, other))
    captions = [caption for part in (one, other) for caption in _captions(tokens, [part], [0], frames)]
    return Edit(name, rows, frames, one.clip, tuple(dict.fromkeys((one.clip, other.clip))), captions)


def exchanged(tokens: TokenSet, one: Range, other: Range, layers: Sequence[int]) -> list[Edit]:
    """Both clips, with the codes of some layers of the two ranges exchanged."""
    _same_length(tokens, one, other)
    _need_codes(tokens, "layers")
    if bad := [layer for layer in layers if not 0 <= layer < tokens.width]:
        raise UsageError(f"--layer {bad[0]}: the file has the layers 0 to {tokens.width - 1}", file=tokens.path)
    if one.clip == other.clip:
        raise UsageError("layers are exchanged between two clips; name another", file=tokens.path)
    edits = []
    for mine, theirs in ((one, other), (other, one)):
        whole = Range(mine.clip, 0, length_of(tokens, mine.clip))
        edit = joined(tokens, tokens.names[mine.clip], [whole])
        edit.rows[mine.start : mine.stop, list(layers)] = rows_of(tokens, theirs)[:, list(layers)]
        edit.sources = (mine.clip, theirs.clip)
        edit.seams = _seams_at_ends(mine, len(whole))
        edits.append(edit)
    return edits


def _same_length(tokens: TokenSet, one: Range, other: Range) -> None:
    if len(one) != len(other):
        least = min(len(one), len(other))
        names = [tokens.names[part.clip] for part in (one, other)]
        ranges = [f"{name}@{part.start}:{part.start + least}" for name, part in zip(names, (one, other), strict=True)]
        what = f"the ranges have {counted(len(one), 'token frames')} and {len(other)}"
        what += f"; name two of one length: {' '.join(ranges)}"
        raise UsageError(what, file=tokens.path)


def _need_codes(tokens: TokenSet, what: str) -> None:
    if tokens.is_latents:
        raise UsageError(f"holds the latents of a VAE, which have no {what}", file=tokens.path)


# The result


def write_edited(
    tokens: TokenSet,
    out: Path,
    edits: Sequence[Edit],
    operation: str,
    *,
    only: bool = False,
    keep_layers: int | None = None,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the file with its edited clips in place of those of their names, new ones behind; returns the clips.

    With `only` the edited clips alone; with `keep_layers` the first layers alone. The file is verified first.
    """
    check_output(out, force=force, inputs=(tokens.path,))
    if keep_layers is not None:
        _need_codes(tokens, "layers")
        if not 1 <= keep_layers <= tokens.width:
            raise UsageError(f"--keep {keep_layers}: the file has {counted(tokens.width, 'layers')}", file=tokens.path)
        tokens.header.check_layers(keep_layers)
    tokens.check()
    number = {name: clip for clip, name in enumerate(tokens.names)}
    edited = {edit.name: edit for edit in edits}
    entries: list[int | Edit] = [] if only else [edited.get(name, clip) for name, clip in number.items()]
    entries += [edit for edit in edits if only or edit.name not in number]
    names = [tokens.names[one] if isinstance(one, int) else one.name for one in entries]
    frames = np.array([tokens.num_frames[one] if isinstance(one, int) else one.num_frames for one in entries], np.int64)
    header = replace(
        tokens.header,
        source=_source(tokens.header.source, operation),
        codebook_sizes=tokens.header.codebook_sizes[:keep_layers],
    )
    along = _companions(tokens, entries)
    if tokens.is_latents:
        output = create_latents(out, names, frames, header, tokens.width, companions=along, force=force)
    else:
        books = tokens.codebooks[:keep_layers]
        output = create_tokens(out, names, frames, header, books, companions=along, force=force)
    with output as writer:
        for blocks in _blocks(tokens, entries):
            for rows in blocks:
                if tokens.is_latents:
                    writer.extend(mean=rows[:, : tokens.width], logvar=rows[:, tokens.width :])
                else:
                    writer.extend(codes=rows[:, :keep_layers])
                if progress is not None:
                    progress(len(rows))
    return len(entries)


def _blocks(tokens: TokenSet, entries: Sequence[int | Edit]) -> Iterator[Iterable[np.ndarray]]:
    """The rows of the result: those of an edit, or of the clips between two edits in blocks."""
    first = 0
    while first < len(entries):
        entry, last = entries[first], first + 1
        if isinstance(entry, Edit):
            yield [entry.rows]
        else:
            while last < len(entries) and isinstance(entries[last], int):
                last += 1
            start, stop = (int(tokens.offsets[clip]) for clip in (entry, entry + last - first))
            step = 1 << 16
            yield (_rows(tokens, row, min(row + step, stop)) for row in range(start, stop, step))
        first = last


def _source(source: str, operation: str) -> str:
    """What a file says of its origin, with what was done to it."""
    try:
        known = json.loads(source)
    except ValueError:
        known = source
    return json.dumps([*(known if isinstance(known, list) else [known]), operation])


def _companions(tokens: TokenSet, entries: Sequence[int | Edit]) -> Companions:
    """What goes along. An edited clip is nobody's mirror image; of clips of two splits it is in none."""
    along = tokens.companions
    clips = np.array([one if isinstance(one, int) else one.clip for one in entries], dtype=np.int64)
    place = {one: number for number, one in enumerate(entries) if isinstance(one, int)}
    captions: list[Caption] = []
    of_clip: dict[int, list[Caption]] = {}
    for caption in along.captions:
        of_clip.setdefault(caption.clip, []).append(caption)
    splits = None if along.splits is None else along.splits[clips]
    mirror_of = None if along.mirror_of is None else along.mirror_of[clips]
    for number, one in enumerate(entries):
        mine = of_clip.get(one, []) if isinstance(one, int) else one.captions
        captions += [replace(caption, clip=number) for caption in mine]
        if isinstance(one, Edit) and splits is not None and along.splits is not None:
            found = set(along.splits[list(one.sources)].tolist())
            splits[number] = found.pop() if len(found) == 1 else NO_SPLIT
        if mirror_of is not None:
            of = int(mirror_of[number])
            mirror_of[number] = -1 if isinstance(one, Edit) or of < 0 else place.get(of, number)
    return replace(
        along,
        splits=splits,
        mirror_of=mirror_of,
        starts=None if along.starts is None else along.starts[clips],
        body_of=None if along.body_of is None else along.body_of[clips],
        captions=tuple(captions),
    )


# Seams


@dataclass(frozen=True)
class Verdict:
    """How rough a seam is.

    jump   the largest change at the seam
    usual  the 95th percentile of the same over all places of the clips it is made of; None where they are too short
    """

    clip: str
    token: int
    frame: int
    seconds: float
    jump: float
    usual: float | None

    @property
    def ratio(self) -> float | None:
        """`jump` over `usual`."""
        return self.jump / self.usual if self.usual else None


def judge(
    tokens: TokenSet, edits: Sequence[Edit], decode: Callable[[np.ndarray], np.ndarray] | None = None
) -> list[Verdict]:
    """Every seam of edits against the clips that they are made of.

    With `decode` (rows [L, W] to normalised motion [L * downsample, D]) by the change of velocity, the second
    difference, in the frames of the two tokens that meet; without, by the step from one code vector to the next.
    """
    if not any(edit.seams for edit in edits):
        return []
    header, vectors = tokens.header, None if decode else Vectors(tokens)
    scale = header.downsample if decode else 1

    def changes(rows: np.ndarray) -> np.ndarray:
        """[n]: the change at each place; the first stands for place 1."""
        if decode is not None:
            motion = decode(rows).astype(np.float64)
            found: np.ndarray = np.linalg.norm(np.diff(motion, 2, axis=0), axis=1) / math.sqrt(motion.shape[1])
        else:
            assert vectors is not None
            found = np.linalg.norm(np.diff(vectors.of(rows), axis=0), axis=1)
        return found

    own: dict[int, np.ndarray] = {}
    found = []
    for edit in edits:
        here = changes(edit.rows) if edit.seams else np.zeros(0)
        for seam in edit.seams:
            margin = scale if decode else 0
            first = max(1, seam.first * scale - margin)
            last = min(len(here), seam.last * scale + margin)  # inclusive
            width = last - first + 1
            usual = []
            for clip in edit.sources:
                if clip not in own:
                    own[clip] = changes(rows_of(tokens, Range(clip, 0, length_of(tokens, clip))))
                if len(own[clip]) >= width > 0:
                    usual.append(np.lib.stride_tricks.sliding_window_view(own[clip], width).max(axis=1))
            frame = seam.first * header.downsample
            found.append(
                Verdict(
                    clip=edit.name,
                    token=seam.first,
                    frame=frame,
                    seconds=frame / header.fps,
                    jump=float(here[first - 1 : last].max()) if width > 0 else 0.0,
                    usual=float(np.percentile(np.concatenate(usual), 95)) if usual else None,
                )
            )
    return found
