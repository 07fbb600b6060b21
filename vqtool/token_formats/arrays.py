"""A folder with an npy file for each clip, int64.

walk_01.npy   [Q, L]: a row of indices for each layer; with Q = 1 the [1, L] that T2M-GPT reads. Delayed
              [Q, L + Q - 1], where K of the layer marks the blanks, as in MusicGen
              with --flatten: [1, n], the ids of the sequence
meta.json     the card, with the name, file and record of every clip
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vqtool.errors import DataError
from vqtool.exporting import check_folder, safe_stems
from vqtool.formats.arrays import load_npy
from vqtool.formats.base import clip_file
from vqtool.publish import LatchingFile, lock, publish_folder
from vqtool.reading import MAX_COLUMNS
from vqtool.token_formats.base import Card, CardWriter, Export, Job, Record, read_card, refused, sound
from vqtool.token_formats.sequences import BadToken, Sequences


def write_npy(job: Job) -> None:
    """A folder that appears whole."""
    check_folder(job.out, force=job.force, ours=lambda folder: read_card(folder) is not None)
    stems = iter(safe_stems([job.tokens.names[clip] for clip in job.clips]))
    with lock(job.out), publish_folder(job.out) as folder, LatchingFile(folder / "meta.json") as note:
        card = CardWriter(note, job.card())
        try:
            for record, codes in job.codes():
                plain = job.sequences.flatten is None
                rows = job.sequences.rows(codes) if plain else job.sequence(record, codes)[None]
                if rows.shape[1] > MAX_COLUMNS:
                    what = f"is {rows.shape[1]:,} tokens long, a npy has at most {MAX_COLUMNS:,}; use another format"
                    raise DataError(what, file=job.tokens.path, clip=record["name"])
                path = clip_file(folder, next(stems), ".npy")
                np.save(path, rows, allow_pickle=False)
                card.clip(record | {"file": path.relative_to(folder).as_posix()})
            card.finish()
        finally:
            card.detach()
        note.commit()


def read_npy(path: Path, card: Card) -> Export:
    """What `write_npy` made."""
    with sound(path / "meta.json"):
        records = list(card.get("clips") or [])
        files = [path / str(record["file"]) for record in records]
    found = Export(path, card, records, lambda: _codes(found.sequences, records, files))
    return found


def _codes(sequences: Sequences, records: list[Record], files: list[Path]) -> Iterator[np.ndarray]:
    for record, file in zip(records, files, strict=True):
        try:
            yield codes_of_array(sequences, load_array(file))
        except BadToken as error:
            raise refused(error, file, record["name"]) from None
        except DataError as error:
            raise DataError(error.what, file=file, clip=record["name"]) from None


def load_array(path: Path) -> np.ndarray:
    """Integers of a npy file; DataError where it is none."""
    array = load_npy(path)
    if array.dtype.kind not in "iu":
        raise DataError(f"holds {array.dtype}; integers were expected", file=path)
    return array


def codes_of_array(sequences: Sequences, array: np.ndarray) -> np.ndarray:
    """Codes [L, Q] of rows [Q, L], or of a sequence [n] or [1, n]."""
    if sequences.flatten is None:
        return sequences.codes_of_rows(array)
    if array.ndim != 1 and array.shape[:-1] != (1,):
        shape = "x".join(map(str, array.shape))
        raise DataError(f"holds {shape} numbers; a sequence [n] or [1, n] was expected")
    return sequences.codes(array.reshape(-1))
