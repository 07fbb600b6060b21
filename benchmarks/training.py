"""Training steps, data loading included, against a plain loop over windows in memory; and the windows alone."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.material import config_of, write_motion
from benchmarks.measure import Job, Row, faster, interleaved, milliseconds
from benchmarks.peers import OneHot, plain_convolutions
from vqtool.memory import keep_freed_memory
from vqtool.nn.layers import build_decoder, build_encoder
from vqtool.nn.learner import Learner
from vqtool.nn.windows import WindowSampler
from vqtool.stats import column_stats
from vqtool.store import MotionSet

TITLE = "Training"
BATCH, WINDOW = 64, 64


def plain_loop(model: str, motion: MotionSet) -> Job:
    """A step as research code takes it: windows from memory, conv1d, one-hot moving averages, AdamW."""
    config = config_of(model)
    torch.manual_seed(0)
    encoder, decoder = build_encoder(motion.dim, config.model), build_decoder(motion.dim, config.model)
    quantizer = OneHot(config.model.latent_dim, 512)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=2e-4, betas=(0.9, 0.99))
    clips = [motion.read(clip) for clip in range(len(motion)) if motion.lengths[clip] >= WINDOW]
    mean, std = (np.concatenate(clips).mean(0), np.concatenate(clips).std(0))
    random = np.random.default_rng(0)

    def step() -> None:
        windows = []
        for clip in random.integers(0, len(clips), BATCH):
            start = random.integers(0, len(clips[clip]) - WINDOW + 1)
            windows.append((clips[clip][start : start + WINDOW] - mean) / std)
        x = torch.from_numpy(np.stack(windows)).float()
        with plain_convolutions():
            latents = encoder(x)
            quantized, commitment = quantizer(latents.flatten(0, 1))
            output = decoder(quantized.view(latents.shape))
            loss = F.smooth_l1_loss(output, x) + 0.02 * commitment
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        loss.item()

    return step


def our_loop(model: str, motion: MotionSet) -> Job:
    """A step of `vqtool train`: windows from disk, losses, moving averages of the weights."""
    clips = list(range(len(motion)))
    config, stats = config_of(model, **{"train.steps": 100_000}), column_stats(motion, clips)
    learner, steps = Learner(config, motion, clips, stats, torch.device("cpu")), itertools.count()
    learner.initialize_codebooks()
    return lambda: learner.step(next(steps))


def measure(quick: bool) -> list[Row]:
    """T2M-GPT's network and the default one; then windows."""
    keep_freed_memory()  # as the commands do, for the peers too
    rows = []
    with tempfile.TemporaryDirectory() as name:
        path = write_motion(Path(name) / "motion.h5", 200 if quick else 1000)
        with MotionSet([path]) as motion:
            for model in ("t2m-gpt", "vq"):
                jobs = {"ours": our_loop(model, motion), "plain": plain_loop(model, motion)}
                found = interleaved(jobs, rounds=3 if quick else 7, least=1.0)
                note = f"{milliseconds(found['ours'])} a step, {BATCH} x {WINDOW} frames"
                ratios = faster(found, "ours", "plain")
                rows.append(
                    Row(f"{model}: training step", "a plain loop with the same network", ratios, ">= 1.3", note)
                )
            rows.append(windows(motion, Path(name), quick))
    return rows


def windows(motion: MotionSet, folder: Path, quick: bool) -> Row:
    """Random windows of motion.h5 against those of one array mapped into memory."""
    np.save(folder / "frames.npy", np.concatenate([motion.read(clip) for clip in range(len(motion))]))
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    sampler = WindowSampler(motion, range(len(motion)), WINDOW, 256, 0)
    random, steps = np.random.default_rng(0), iter(range(10**9))

    def mapped() -> None:
        starts = random.integers(0, len(frames) - WINDOW, 256)
        torch.from_numpy(np.stack([frames[start : start + WINDOW] for start in starts]))

    found = interleaved({"ours": lambda: sampler.batch(next(steps)), "memmap": mapped}, rounds=7, least=0.2)
    note = f"{milliseconds(found['ours'])} for 256 windows of {WINDOW} frames"
    return Row(
        "random windows of motion.h5", "numpy memmap, clips ignored", faster(found, "ours", "memmap"), ">= 0.5", note
    )
