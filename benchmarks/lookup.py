"""The search for the nearest code, and a whole training step of a quantizer."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor

from benchmarks.measure import Row, faster, interleaved, milliseconds, slower
from benchmarks.peers import OneHot, drawn, vector_quantize_pytorch
from vqtool.nn.bottlenecks.nearest import BLOCK_SCORES, decide, nearest
from vqtool.nn.bottlenecks.rvq import VectorQuantizer

TITLE = "Codebook lookup and quantizer step"
VECTORS = 65536
SHAPES = ((512, 512), (512, 1024), (64, 8192))  # C, K
STEPS = ((4096, 512, 512), (16384, 64, 8192))  # N, C, K


def lookups(quick: bool) -> list[Row]:
    """Times of the search against those who do the same."""
    import faiss

    rows = []
    for dim, size in SHAPES:
        vectors, codebook = drawn(VECTORS, dim), drawn(size, dim)
        module = vector_quantize_pytorch(dim, size).eval()
        index = faiss.IndexFlatL2(dim)
        index.add(codebook.numpy())
        faiss.omp_set_num_threads(torch.get_num_threads())
        product = torch.empty(VECTORS // 8, size)

        def gemm(vectors: Tensor = vectors, codebook: Tensor = codebook, product: Tensor = product) -> None:
            for block in vectors.chunk(8):  # the whole product would time the allocation of its memory
                torch.mm(block, codebook.T, out=product)

        @torch.no_grad()
        def theirs(vectors: Tensor = vectors, module: torch.nn.Module = module) -> None:
            module(vectors[None])

        jobs = {
            "nearest": lambda v=vectors, c=codebook: nearest(v, c, exact=False),
            "exact": lambda v=vectors, c=codebook: decide(v, c),
            "GEMM": gemm,
            "cdist + argmin": lambda v=vectors, c=codebook: torch.cdist(v, c).argmin(1),
            "vector-quantize-pytorch": theirs,
            "faiss IndexFlatL2": lambda v=vectors, i=index: i.search(v.numpy(), 1),
        }
        found = interleaved(jobs, rounds=3 if quick else 5)
        what = f"{VECTORS:,} vectors, C = {dim}, K = {size:,}"
        goals = {"cdist + argmin": ">= 3.5", "vector-quantize-pytorch": ">= 6", "faiss IndexFlatL2": ""}
        for name, goal in goals.items():
            rows.append(Row(what, name, faster(found, "nearest", name), goal, milliseconds(found[name])))
        note = f"search {milliseconds(found['nearest'])}, GEMM {milliseconds(found['GEMM'])}"
        rows.insert(-3, Row(what, "a bare GEMM", slower(found, "nearest", "GEMM"), "<= 1.25", note))
        exact = slower(found, "exact", "nearest")
        note = milliseconds(found["exact"])
        rows.append(Row(f"{what}, near ties in float64", "the search without", exact, "", note))
        rows.append(Row(f"{what}: memory beyond the input", "40 MB", [extra_memory(dim, size) / 40], "<= 1"))
    return rows


MEMORY = """
import resource, torch
from vqtool.nn.bottlenecks.nearest import nearest
torch.set_num_threads({threads})
vectors, codebook = torch.randn({n}, {dim}), torch.randn({size}, {dim})
nearest(vectors[:4096], codebook, exact=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nearest(vectors, codebook, exact=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def extra_memory(dim: int, size: int) -> float:
    """MB by which the peak of a process rises in one search, after one over 4,096 vectors; its own block included."""
    code = MEMORY.format(threads=torch.get_num_threads(), n=VECTORS, dim=dim, size=size)
    grown = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    return grown / 1024 + min(4096 * size, BLOCK_SCORES) * 4 / 2**20


def steps(quick: bool) -> list[Row]:
    """Forward, backward, moving averages and revival of one quantizer."""
    rows = []
    for count, dim, size in STEPS:
        x = drawn(1, count, dim)
        ours = VectorQuantizer(dim, codebook_size=size).train()
        ours.initialize(drawn(8 * size, dim))
        onehot, module = OneHot(dim, size), vector_quantize_pytorch(dim, size).train()

        def step_ours(x: Tensor = x, ours: VectorQuantizer = ours) -> None:
            leaf = x.clone().requires_grad_()
            output = ours(leaf)
            (output.latents.sum() + output.losses["commitment"]).backward()
            ours.follow([output])

        def step_onehot(x: Tensor = x, onehot: OneHot = onehot) -> None:
            leaf = x[0].clone().requires_grad_()
            latents, loss = onehot(leaf)
            (latents.sum() + loss).backward()

        def step_peer(x: Tensor = x, module: torch.nn.Module = module) -> None:
            leaf = x.clone().requires_grad_()
            latents, _, loss = module(leaf)
            (latents.sum() + loss.sum()).backward()

        jobs = {"ours": step_ours, "one-hot": step_onehot, "vector-quantize-pytorch": step_peer}
        found = interleaved(jobs, rounds=3 if quick else 5, least=0.2)
        what = f"quantizer training step, {count:,} tokens, C = {dim}, K = {size:,}"
        note = f"ours {milliseconds(found['ours'])}"
        theirs = faster(found, "ours", "vector-quantize-pytorch")
        rows.append(Row(what, "vector-quantize-pytorch", theirs, ">= 3.5", note))
        rows.append(Row(what, "one-hot moving averages", faster(found, "ours", "one-hot"), ">= 3", note))
    return rows


def measure(quick: bool) -> list[Row]:
    """All of it."""
    return [*lookups(quick), *steps(quick)]
