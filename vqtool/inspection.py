"""Inspect a run, a tokens.h5 or a latents.h5: from its content to usage, rates and a verdict.

A file is read once, in constant memory; the same pass checks every code and the file's SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqtool.codebook import count_codes, nearest_pairs
from vqtool.errors import DataError, MismatchError
from vqtool.hdf5 import attribute, open_hdf5
from vqtool.reading import first_bytes
from vqtool.tokens import TokenSet
from vqtool.usage import CodebookReport, LatentReport, LayerUsage, Source

if TYPE_CHECKING:
    from vqtool.tokenizer_file import TokenizerFile


def inspect(path: Path) -> CodebookReport | LatentReport:
    """Inspect a run folder, a tokenizer.safetensors, a tokens.h5 or latents.h5, or a manifest of shards of these.

    The content says which it is.

    Raises MissingInputError, StorageError, and DataError for damage, for another kind of file and for a code
    outside its codebook.
    """
    # A token file needs neither what reads a run (config, TOML, safetensors) nor what reads a manifest.
    head = b"" if path.is_dir() else first_bytes(path, 9)
    if not head.startswith(b"\x89HDF\r\n\x1a\n"):
        from vqtool.merging import is_manifest
        from vqtool.tokenizer_file import read_tokenizer

        if path.is_dir() or head[8:] == b"{":  # safetensors: eight bytes of length, then JSON
            return inspect_run(read_tokenizer(path))
        if is_manifest(path):
            return inspect_shards(path)
        raise DataError("is neither a run nor a tokens.h5 or latents.h5; name one of these", file=path)
    with open_hdf5(path) as file:
        kind = attribute(file, "format")
    if kind not in ("vqtool.tokens", "vqtool.latents"):
        raise DataError(
            "is an HDF5 file without tokens; make them with `vqtool encode RUN MOTION -o tokens.h5`", file=path
        )
    with TokenSet(path) as tokens:
        return inspect_latents([tokens]) if tokens.is_latents else inspect_tokens([tokens])


def inspect_shards(manifest: Path) -> CodebookReport | LatentReport:
    """Inspect the shards that a manifest lists as the one file that they are together."""
    from vqtool.merging import opened_shards

    shards = opened_shards(manifest)
    first = next(shards, None)
    if first is None:
        raise DataError("lists no shards", file=manifest)
    report = (inspect_latents if first.is_latents else inspect_tokens)(chain([first], shards))
    return replace(report, source=replace(report.source, file=str(manifest)))


def _token_source(tokens: TokenSet, before: Source | None) -> Source:
    """What is inspected; clips and frames on top of those of the shards before."""
    header = tokens.header
    found = Source(
        file=str(tokens.path),
        kind="latents" if tokens.is_latents else "tokens",
        bottleneck=header.bottleneck,
        layout=header.layout,
        dim=header.dim,
        fps=header.fps,
        downsample=header.downsample,
        tokenizer_id=header.tokenizer_id,
        clips=len(tokens),
        motion_frames=int(tokens.num_frames.sum()),
    )
    if before is None:
        return found
    if replace(found, file=before.file, clips=before.clips, motion_frames=before.motion_frames) != before:
        raise MismatchError("is of another tokenizer, or of other motion, than the shards before it", file=tokens.path)
    clips, frames = (before.clips or 0) + (found.clips or 0), (before.motion_frames or 0) + (found.motion_frames or 0)
    return replace(before, clips=clips, motion_frames=frames)


def source_of(tokenizer: TokenizerFile, file: str, kind: str, **more: int) -> Source:
    """What is looked at with a tokenizer: `kind` and `more` as in Source."""
    return Source(
        file=file,
        kind=kind,
        bottleneck=str(tokenizer.config["model"]["bottleneck"]),
        layout=tokenizer.layout,
        dim=tokenizer.dim,
        fps=tokenizer.fps,
        downsample=tokenizer.downsample,
        tokenizer_id=tokenizer.tokenizer_id,
        **more,
    )


def part_of(parts: tuple[str, ...], layer: int) -> str | None:
    """Whose codes stand in a column."""
    return parts[layer % len(parts)] if parts else None


def inspect_tokens(shards: Iterable[TokenSet]) -> CodebookReport:
    """Usage of a tokens.h5, or of several shards together, each open while it is looked at."""
    source, counters = None, None
    for tokens in shards:
        source = _token_source(tokens, source)
        header, codebooks = tokens.header, tokens.codebooks
        for layer, (codebook, size) in enumerate(zip(codebooks, header.codebook_sizes, strict=False)):
            if len(codebook) != size or not np.isfinite(codebook).all():
                what = f"does not hold {size} finite code vectors; the file is damaged"
                raise DataError(what, file=tokens.path, dataset=f"codebooks/{layer}")
        counters = count_codes(tokens, counters)
        tokens.verify()
    assert source is not None and counters is not None
    nearest = nearest_pairs(codebooks) or [None] * len(counters)  # tokens imported without their codebooks
    layers = [
        LayerUsage(layer, counter.counts(), counter.transitions(), near, part_of(header.parts, layer))
        for layer, (counter, near) in enumerate(zip(counters, nearest, strict=True))
    ]
    return CodebookReport(source, layers)


def inspect_latents(shards: Iterable[TokenSet]) -> LatentReport:
    """Activity of a latents.h5, or of several shards together, in float64."""
    source, row = None, 0
    mean = squares = kl = np.zeros(0)  # squares: sum of squared deviations from the running mean
    for tokens in shards:
        if source is None:
            mean, squares, kl = np.zeros((3, tokens.width))
        source = _token_source(tokens, source)
        first = row
        for mu, logvar in zip(tokens.hashed_blocks("mean"), tokens.hashed_blocks("logvar"), strict=True):
            with np.errstate(invalid="ignore"):  # of a signalling NaN
                mu, logvar = mu.astype(np.float64), logvar.astype(np.float64)
            if len(bad := np.flatnonzero(~np.isfinite(mu + logvar).all(axis=1))):
                clip = int(np.searchsorted(tokens.offsets, row - first + bad[0], side="right")) - 1
                what = "its latents are not finite; the run diverged, so encode with another"
                raise DataError(what, file=tokens.path, clip=tokens.names[clip])
            with np.errstate(over="ignore"):
                kl += 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=0)
            # Two sets' variances merged (Chan et al. 1983): stable where sums of squares would cancel.
            shift = mu.mean(axis=0) - mean
            squares += ((mu - mu.mean(axis=0)) ** 2).sum(axis=0) + shift**2 * row * len(mu) / (row + len(mu))
            row += len(mu)
            mean += shift * len(mu) / row
        tokens.verify()
    assert source is not None
    with np.errstate(invalid="ignore"):
        return LatentReport(source, row, squares / row, kl / row)


def inspect_run(tokenizer: TokenizerFile) -> CodebookReport | LatentReport:
    """Usage over a run's validation set at the end of training; no transitions, for only counts were kept."""
    path, tensors = tokenizer.path, tokenizer.tensors
    try:
        source = source_of(tokenizer, str(path), "run")
        if not tokenizer.codebook_sizes:
            kl, variance = (tensors[f"usage.{name}"].astype(np.float64) for name in ("kl", "variance"))
            if kl.ndim != 1 or kl.shape != variance.shape:
                raise DataError("its usage tensors differ in shape; the file is damaged", file=path)
            if not np.isfinite([kl, variance]).all():
                raise DataError("its usage tensors are not finite; the run diverged, so train again", file=path)
            return LatentReport(source, None, variance, kl)
        counts = [tensors[f"usage.counts.{layer}"] for layer in range(len(tokenizer.codebook_sizes))]
        codebooks = [tensors[key] for key in tokenizer.codebook_keys]
    except KeyError as error:
        what = f"holds no {error.args[0]}; encode motion with it and inspect the token file"
        raise DataError(what, file=path) from error
    for count, size in zip(counts, tokenizer.codebook_sizes, strict=True):
        if count.shape != (size,) or count.dtype.kind not in "iu" or (count < 0).any():
            raise DataError("its usage counts do not fit its codebooks; the file is damaged", file=path)
    if codebooks and [codebook.shape[:-1] for codebook in codebooks] != [count.shape for count in counts]:
        raise DataError("its code vectors do not fit its codebook sizes; the file is damaged", file=path)
    if not all(np.isfinite(codebook).all() for codebook in codebooks):
        raise DataError("its code vectors are not finite; the run diverged, so train again", file=path)
    nearest = nearest_pairs(codebooks) or [None] * len(counts)  # an implicit codebook (FSQ) has no tensors
    layers = [
        LayerUsage(layer, count.astype(np.int64), None, near, part_of(tokenizer.parts, layer))
        for layer, (count, near) in enumerate(zip(counts, nearest, strict=True))
    ]
    return CodebookReport(source, layers)
