"""What goes along with clips from file to file besides their frames: splits, bodies, starts, captions.

In motion.h5, tokens.h5 and latents.h5 alike, each part only where it is known:

```
/splits               (N,)      uint8    0 train, 1 val, 2 test, 255 none of them
/mirror_of            (N,)      int64    the clip of which this one is the mirror image; itself where that one is
                                         not in the file; -1: no mirror image
/starts               (N, 3)    float64  root's x and z in metres and its heading in radians in the first frame,
                                         which features relative to the body do not hold
/skeleton/names       (J,)      utf-8
/skeleton/parents     (J,)      int64    -1: the root
/skeleton/offsets     (S, J, 3) float64  metres; S bodies of the same joints, whose bones differ in length
/skeleton/of_clip     (N,)      int64    which of the S bodies each clip has
/skeleton/hierarchy   (S,)      utf-8    of a BVH file: its text before MOTION,
/skeleton/metres_per_unit (S,)  float64  its unit,
/skeleton/up          (S,)      utf-8    its vertical axis
/captions/clip        (M,)      int64
/captions/text, words (M,)      utf-8    words: tagged for language models ("a/DET man/NOUN"), or empty
/captions/start_s, end_s (M,)   float32  what part of the clip it tells of; 0 and 0: all of it
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vqtool.errors import DataError, counted
from vqtool.flat import FlatReader, encode_texts
from vqtool.skeleton import BvhTemplate, Skeleton

MAX_SHOWN = 80  # characters of a name in a message


@dataclass(frozen=True)
class Caption:
    """What a text says of a clip (its number), or of a part of it in seconds; 0 and 0: all of it."""

    clip: int
    text: str
    start_s: float = 0.0
    end_s: float = 0.0
    words: str = ""


@dataclass(frozen=True)
class Companions:
    """What is known of N clips besides their frames; see the arrays above. `bodies` have the same joints."""

    splits: np.ndarray | None = None
    mirror_of: np.ndarray | None = None
    starts: np.ndarray | None = None
    bodies: tuple[Skeleton, ...] = ()
    body_of: np.ndarray | None = None
    captions: tuple[Caption, ...] = ()

    def body(self, clip: int) -> Skeleton | None:
        """The skeleton of a clip, None where the file has none."""
        return None if self.body_of is None else self.bodies[int(self.body_of[clip])]

    def start(self, clip: int) -> tuple[float, float, float]:
        """The root's x and z and its heading in the first frame; zeros where they are not known."""
        if self.starts is None:
            return 0.0, 0.0, 0.0
        x, z, heading = self.starts[clip].tolist()
        return x, z, heading

    def select(self, clips: Sequence[int]) -> Companions:
        """Those of some of the clips, in that order."""
        chosen = np.array(clips, dtype=np.int64)
        place = {int(clip): number for number, clip in enumerate(chosen)}
        mirror_of = self.mirror_of
        if mirror_of is not None:
            pairs = enumerate(mirror_of[chosen].tolist())
            mirror_of = np.array([-1 if of < 0 else place.get(of, n) for n, of in pairs], dtype=np.int64)
        return replace(
            self,
            splits=None if self.splits is None else self.splits[chosen],
            mirror_of=mirror_of,
            starts=None if self.starts is None else self.starts[chosen],
            body_of=None if self.body_of is None else self.body_of[chosen],
            captions=tuple(replace(one, clip=place[one.clip]) for one in self.captions if one.clip in place),
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As the arrays of a file."""
        own = {"splits": self.splits, "mirror_of": self.mirror_of, "starts": self.starts}
        arrays = {name: value for name, value in own.items() if value is not None}
        if self.body_of is not None:
            first = self.bodies[0]
            arrays["skeleton/names"] = encode_texts(first.names)
            arrays["skeleton/parents"] = np.array(first.parents, dtype="<i8")
            arrays["skeleton/offsets"] = np.array([body.offsets for body in self.bodies], dtype="<f8")
            arrays["skeleton/of_clip"] = self.body_of.astype("<i8")
            templates = [body.bvh for body in self.bodies if body.bvh is not None]
            if len(templates) == len(self.bodies):
                arrays["skeleton/hierarchy"] = encode_texts([one.hierarchy for one in templates])
                arrays["skeleton/metres_per_unit"] = np.array([one.metres_per_unit for one in templates], dtype="<f8")
                arrays["skeleton/up"] = encode_texts([one.up for one in templates])
        if self.captions:
            arrays["captions/clip"] = np.array([one.clip for one in self.captions], dtype="<i8")
            arrays["captions/text"] = encode_texts([one.text for one in self.captions])
            arrays["captions/words"] = encode_texts([one.words for one in self.captions])
            arrays["captions/start_s"] = np.array([one.start_s for one in self.captions], dtype="<f4")
            arrays["captions/end_s"] = np.array([one.end_s for one in self.captions], dtype="<f4")
        return arrays


def read_companions(flat: FlatReader) -> Companions:
    """What a flat file knows of its clips; DataError where it does not fit them."""
    clips = len(flat.names)
    found = Companions(
        splits=_per_clip(flat, "splits", "u", clips),
        mirror_of=_per_clip(flat, "mirror_of", "i", clips, below=clips),
        starts=_per_clip(flat, "starts", "f", clips, ndim=2),
    )
    if flat.has("skeleton"):
        bodies = _read_bodies(flat)
        of_clip = _per_clip(flat, "skeleton/of_clip", "i", clips, below=len(bodies))
        if of_clip is None or (of_clip < 0).any():
            raise _damaged(flat.path, "skeleton/of_clip")
        found = replace(found, bodies=bodies, body_of=of_clip)
    if flat.has("captions"):
        found = replace(found, captions=_read_captions(flat, clips))
    if found.starts is not None and (found.starts.shape[1] != 3 or not np.isfinite(found.starts).all()):
        raise _damaged(flat.path, "starts")
    return found


def _per_clip(
    flat: FlatReader, name: str, kinds: str, clips: int, *, ndim: int = 1, below: int | None = None
) -> np.ndarray | None:
    """An array with a row for each clip, None where the file has none; values in [-1, below)."""
    if not flat.has(name):
        return None
    value = flat.array(name, ndim=ndim, kinds=kinds)
    if len(value) != clips or (below is not None and len(value) and not (-1 <= value.min() <= value.max() < below)):
        raise _damaged(flat.path, name)
    return value


def _read_bodies(flat: FlatReader) -> tuple[Skeleton, ...]:
    names, parents = flat.texts("skeleton/names"), flat.array("skeleton/parents", ndim=1, kinds="i")
    offsets = flat.array("skeleton/offsets", ndim=3, kinds="f").astype(np.float64)
    templates: list[BvhTemplate | None] = [None] * len(offsets)
    if flat.has("skeleton/hierarchy"):
        units = flat.array("skeleton/metres_per_unit", ndim=1, kinds="f").tolist()
        texts = zip(flat.texts("skeleton/hierarchy"), units, flat.texts("skeleton/up"), strict=False)
        templates = [BvhTemplate(*one) for one in texts]
    if len(templates) != len(offsets) or not templates:
        raise _damaged(flat.path, "skeleton/hierarchy")
    try:
        return tuple(
            Skeleton(tuple(names), tuple(parents.tolist()), rest, template)
            for rest, template in zip(offsets, templates, strict=True)
        )
    except DataError as error:
        raise DataError(error.what, file=flat.path, dataset="skeleton") from None


def _read_captions(flat: FlatReader, clips: int) -> tuple[Caption, ...]:
    number = flat.array("captions/clip", ndim=1, kinds="i")
    texts, words = flat.texts("captions/text"), flat.texts("captions/words")
    start, end = (flat.array(f"captions/{name}", ndim=1, kinds="f") for name in ("start_s", "end_s"))
    if len({len(number), len(texts), len(words), len(start), len(end)}) > 1 or not all(0 <= n < clips for n in number):
        raise _damaged(flat.path, "captions")
    rows = zip(number.tolist(), texts, start.tolist(), end.tolist(), words, strict=True)
    return tuple(Caption(*row) for row in rows)


def _damaged(path: Path, name: str) -> DataError:
    return DataError("does not fit the clips; the file is damaged", file=path, dataset=name)


def joined(parts: Sequence[tuple[Path, int, Companions]]) -> Companions:
    """Those of several files (path, clips, companions) as of one; DataError where their skeletons differ."""
    known = [companions for _, _, companions in parts]
    bodies: list[Skeleton] = []
    body_of, captions, mirror_of = [], [], []
    first = 0
    for path, clips, one in parts:
        if bodies and one.bodies and (difference := skeleton_difference(bodies[0], one.bodies[0])):
            raise DataError(f"has another skeleton than {parts[0][0]}: {difference}", file=path)
        if one.body_of is not None:
            body_of.append(one.body_of + len(bodies))
        bodies += one.bodies
        captions += [replace(caption, clip=caption.clip + first) for caption in one.captions]
        of = np.full(clips, -1) if one.mirror_of is None else one.mirror_of
        mirror_of.append(np.where(of < 0, -1, of + first))
        first += clips
    starts = [one.starts for one in known if one.starts is not None]
    splits = [one.splits for one in known if one.splits is not None]
    if splits and len(splits) != len(parts):
        raise DataError("some of these files say which clips are train, val and test, and some do not")
    return Companions(
        splits=np.concatenate(splits) if splits else None,
        mirror_of=np.concatenate(mirror_of) if any(one.mirror_of is not None for one in known) else None,
        starts=np.concatenate(starts) if len(starts) == len(parts) else None,
        bodies=tuple(bodies) if len(body_of) == len(parts) else (),
        body_of=np.concatenate(body_of) if len(body_of) == len(parts) else None,
        captions=tuple(captions),
    )


def skeleton_difference(one: Skeleton, other: Skeleton) -> str:
    """How the joints of two skeletons differ, in names or parents; "" where they do not."""
    if one.names == other.names and one.parents == other.parents:
        return ""
    only_one = [name for name in one.names if name not in other.names]
    only_other = [name for name in other.names if name not in one.names]
    if only_one or only_other:
        parts = [f"lacks {some(only_one)}"] * bool(only_one) + [f"adds {some(only_other)}"] * bool(only_other)
        count = (
            f"{counted(len(other.names), 'joints')}, not {len(one.names)}; "
            if len(other.names) != len(one.names)
            else "it "
        )
        return count + ", ".join(parts)
    for name in one.names:
        above = [_parent(body, name) for body in (one, other)]
        if above[0] != above[1]:
            return f"{name} hangs on {above[1]}, not on {above[0]}"
    return "its joints come in another order"


def _parent(body: Skeleton, name: str) -> str:
    parent = body.parents[body.names.index(name)]
    return body.names[parent] if parent >= 0 else "nothing"


def some(names: Sequence[str], shown: int = 4) -> str:
    """The first names as a list for a person, and how many more there are."""
    listed = [name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}..." for name in names[:shown]]
    return ", ".join(listed) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")
