"""A shard: the output for one share of the clips, which `merge` joins with the others to that for all.

It is a whole file of its kind and can be used alone. Besides, it says which share it is:

```
attrs  shard          "3/100": number 3 of 0 .. 99
       shard_of       SHA-256 of the work: inputs, tokenizer, options and number of shards
       shard_clips    int64 (2,)  [first, last) of the input's clips
       shard_machine  JSON of what last bits depend on (device, threads, torch); {} where they depend on nothing
/shard/clips      (N,)  int64  the number of each clip in the input: some may have been left out
/shard/mirror_of  (N,)  int64  mirror_of with such numbers
/shard/captions   (M,)  int64  the place of each caption among those of the input
```
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqtool.companions import Companions
from vqtool.errors import DataError, UsageError
from vqtool.flat import FlatReader


def parse_shard(text: str) -> tuple[int, int]:
    """(3, 100) of "3/100"; UsageError for anything that is not one of N shards, counted from 0."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(count) > 0):
        raise UsageError(f"--shard takes I/N such as 3/100 or $SLURM_ARRAY_TASK_ID/100, not {text!r}")
    if int(index) >= int(count):
        what = f"--shard {text}: the shards are 0 to {int(count) - 1}, as of sbatch --array=0-{int(count) - 1}"
        raise UsageError(what)
    return int(index), int(count)


def clip_range(shard: tuple[int, int], sizes: np.ndarray, starts: np.ndarray) -> tuple[int, int]:
    """The clips [first, last) of a shard (index, count): about the same total of `sizes` [N] in each.

    `starts`, ascending from 0, are the clips with which a shard may begin. Every clip is in one shard; where there
    are few starts, some shards are empty.
    """
    index, count = shard
    before = np.concatenate([[0], np.cumsum(sizes)])
    total = int(before[-1])

    def cut(number: int) -> int:
        if number in (0, count):
            return 0 if number == 0 else len(sizes)
        place = int(np.searchsorted(before[starts], -(-total * number // count)))
        return int(starts[place]) if place < len(starts) else len(sizes)

    return cut(index), cut(index + 1)


@dataclass(frozen=True)
class Shard:
    """Which share of which work a file is; see the attributes and arrays above."""

    index: int
    count: int
    of: str
    first: int
    last: int
    machine: str
    clips: np.ndarray
    mirror_of: np.ndarray | None
    captions: np.ndarray | None

    @staticmethod
    def make(
        shard: tuple[int, int],
        work: Mapping[str, Any],
        machine: Mapping[str, Any],
        share: tuple[int, int],
        clips: Sequence[int],
        companions: Companions,
    ) -> Shard:
        """The shard of the clips (numbers in `share`) of an input that has these companions."""
        digest = hashlib.sha256(json.dumps({**work, "shards": shard[1]}, sort_keys=True).encode()).hexdigest()
        chosen = np.array(clips, dtype=np.int64)
        kept = set(clips)
        places = [place for place, caption in enumerate(companions.captions) if caption.clip in kept]
        return Shard(
            *shard,
            digest,
            *share,
            json.dumps(machine, sort_keys=True),
            chosen,
            None if companions.mirror_of is None else companions.mirror_of[chosen].astype(np.int64),
            np.array(places, dtype=np.int64) if companions.captions else None,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As the arrays of a file."""
        every = {"clips": self.clips, "mirror_of": self.mirror_of, "captions": self.captions}
        return {f"shard/{name}": value for name, value in every.items() if value is not None}

    def to_attrs(self) -> dict[str, Any]:
        """As the attributes of a file."""
        share = np.array([self.first, self.last], dtype="<i8")
        return {
            "shard": f"{self.index}/{self.count}",
            "shard_of": self.of,
            "shard_clips": share,
            "shard_machine": self.machine,
        }


def read_shard(flat: FlatReader, companions: Companions) -> Shard:
    """The shard that a file says it is; DataError where it is none, or does not fit its clips."""
    if "shard" not in flat.attrs:
        raise DataError("is no shard: name files that --shard made, or a manifest of them", file=flat.path)

    def array(name: str, rows: int) -> np.ndarray:
        value = flat.array(f"shard/{name}", ndim=1, kinds="i").astype(np.int64)
        if len(value) != rows:
            raise DataError("does not fit the clips; the file is damaged", file=flat.path, dataset=f"shard/{name}")
        return value

    try:
        index, count = parse_shard(str(flat.attrs["shard"]))
        first, last = (int(number) for number in flat.attrs["shard_clips"])
        of, machine = str(flat.attrs["shard_of"]), str(flat.attrs["shard_machine"])
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DataError("does not say which shard it is; the file is damaged", file=flat.path) from error
    clips = array("clips", len(flat.names))
    if (np.diff(clips, prepend=first - 1, append=max(last, first)) < 1).any() or not 0 <= first <= last:
        raise DataError("does not fit the clips; the file is damaged", file=flat.path, dataset="shard/clips")
    return Shard(
        index,
        count,
        of,
        first,
        last,
        machine,
        clips,
        None if companions.mirror_of is None else array("mirror_of", len(clips)),
        array("captions", len(companions.captions)) if companions.captions else None,
    )
