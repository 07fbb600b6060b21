"""What learns: a model, the moving average of its weights, its optimizer and its codebooks, a step at a time.

The windows of a step are shared by the ranks of a training; each loss term is a mean over those of all ranks, so that
their number changes a step by no more than the order of its sums.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vqtool import signals
from vqtool.config import Config
from vqtool.errors import DivergedError, InterruptedRun
from vqtool.nn import distributed
from vqtool.nn.bottlenecks import BottleneckOutput
from vqtool.nn.checkpoint import from_numpy, optimizer_state, restore_optimizer, to_numpy
from vqtool.nn.codec import has_bfloat16
from vqtool.nn.layers import token_mask
from vqtool.nn.losses import MotionLoss
from vqtool.nn.model import build_model
from vqtool.nn.principal import start_from_components
from vqtool.nn.windows import WindowSampler
from vqtool.ranks import share
from vqtool.stats import ColumnStats
from vqtool.store import MotionSet

INIT_SAMPLES = 16384  # token frames that principal components and k-means see at least


class Learner:
    """A tokenizer in training on clips of a motion set, whose statistics are given.

    model    the trained weights
    smooth   their moving average, with the same codebooks
    sampler  the windows of a step
    loss     the terms of a reconstruction
    half     whether the networks compute in bfloat16
    """

    def __init__(
        self, config: Config, motion: MotionSet, clips: Sequence[int], stats: ColumnStats, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        settings = config.train
        self.half = settings.precision == "bfloat16" or (settings.precision == "auto" and has_bfloat16(device))
        self.sampler = WindowSampler(motion, clips, settings.window, settings.batch_size, settings.seed)
        self.model = build_model(config, motion.dim)
        self.model.normalizer.fit(stats)
        self.model.to(device)
        self.smooth = copy.deepcopy(self.model).requires_grad_(False)
        self._names = [name for name, _ in self.model.named_parameters()]
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.loss = MotionLoss(config.loss, motion.layout, motion.dim, self.model.normalizer)
        self._network: nn.Module = self.model  # as it is called in a step
        parts, first = settings.accumulate * distributed.count(), settings.accumulate * distributed.rank()
        own = (share(settings.batch_size, number, parts) for number in range(first, first + settings.accumulate))
        self._rows = [slice(rows.start, rows.stop) for rows in own]

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @torch.no_grad()
    def start(self) -> None:
        """Take the first weights that the config asks for, where they are not the random ones that it has."""
        folds = self.config.model.downsampling == "fold"
        if folds and self.config.train.start == "components" and distributed.rank() == 0:
            self._start_from_components()
        self._share_model()
        self.smooth.load_state_dict(self.model.state_dict())

    def _start_from_components(self) -> None:
        folded = []
        for motion, mask in self._extra_batches(INIT_SAMPLES):
            frames = self.model.normalizer(motion.to(self.device)).cpu().unflatten(1, (-1, self.model.downsample))
            folded.append(frames[token_mask(mask, self.model.downsample)])
        self.model.cpu()
        start_from_components(self.model, torch.cat(folded), self.config.train.seed)
        self.model.to(self.device)

    def _share_model(self) -> None:
        """Give all ranks what the model of rank 0 is, and from now on sum its gradients over them."""
        if distributed.count() == 1:
            return
        distributed.broadcast(list(self.model.state_dict().values()))
        bottleneck = self.model.bottleneck
        skipped = not bottleneck.initialized and any(True for _ in bottleneck.parameters())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of another name for broadcast_buffers in torch 2.13
            self._network = DistributedDataParallel(
                self.model, broadcast_buffers=False, init_sync=False, find_unused_parameters=skipped
            )

    @torch.no_grad()
    def initialize_codebooks(self) -> None:
        """k-means on what the encoder gives now, from as many extra batches as it takes; interrupted, none of it."""
        if distributed.rank() == 0:
            self._fit_codebooks()
        self._share_model()
        # What is fitted is no step to follow slowly.
        self.smooth.bottleneck.load_state_dict(self.model.bottleneck.state_dict())

    def _fit_codebooks(self) -> None:
        self.model.eval()
        samples: list[Tensor] = []
        for motion, mask in self._extra_batches(max(INIT_SAMPLES, 8 * max(self.model.bottleneck.codebook_sizes))):
            tokens = token_mask(mask, self.model.downsample).to(self.device)
            samples.append(self.model.latents(motion.to(self.device), tokens)[tokens])
        before = copy.deepcopy(self.model.bottleneck.state_dict())
        try:
            self.model.bottleneck.initialize(torch.cat(samples), len(samples))
        except InterruptedRun:
            self.model.bottleneck.load_state_dict(before)
            raise

    def _extra_batches(self, wanted: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of motion and mask with so many token frames at least: windows that training itself does not see."""
        found = 0
        for number in itertools.count():
            if found >= wanted:
                return
            signals.check()
            motion, mask = self.sampler.batch(self.config.train.steps + number)
            found += int(token_mask(mask, self.model.downsample).sum())
            yield motion, mask

    def step(self, number: int) -> tuple[float, dict[str, float]]:
        """Take the step of that number, counted from 0: the loss and its terms before it.

        Raises DivergedError where loss or gradient are not finite; nothing has moved then.
        """
        settings = self.config.train
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        whole = self._weights(number, slice(None))
        factors = self._factors(number)
        told: dict[str, float] = {}
        outputs = []
        for rows in self._rows:
            own = self._weights(number, rows)
            with self._summing(rows is self._rows[-1]):
                terms, output = self._terms(number, rows)
                outputs.append(output)
                shares = {name: own[COUNTED.get(name, "frames")] / whole[COUNTED.get(name, "frames")] for name in terms}
                part = torch.stack([factors[name] * shares[name] * value for name, value in terms.items()]).sum()
                (part * distributed.count()).backward()  # the mean of the ranks' gradients is taken
            for name, value in terms.items():
                told[name] = told.get(name, 0.0) + shares[name] * value.item()
        told = self._of_all_ranks(told)
        loss = sum(factors[name] * value for name, value in told.items())
        grads = [parameter.grad for parameter in self.model.parameters()]
        norm = torch.nn.utils.get_total_norm([grad for grad in grads if grad is not None])
        if not (math.isfinite(loss) and math.isfinite(norm.item())):
            raise DivergedError(
                f"the loss is {loss:g} and its gradient {norm.item():g} at step {number + 1}; begin anew with a "
                "smaller train.lr (--force)"
            )
        if norm.item() > (settings.clip_norm or math.inf):
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), settings.clip_norm, norm)
        self.model.bottleneck.follow(outputs)
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr(number)
        self._optimizer.step()
        self._follow_weights(number)
        return loss, told

    def _terms(self, number: int, rows: slice) -> tuple[dict[str, Tensor], BottleneckOutput]:
        """The loss terms of some windows of a step, each a mean over them, and what the bottleneck said."""
        motion, mask = self.sampler.batch(number, rows)
        visible = None if bool(mask.all()) else mask.to(self.device)  # spares the network a multiplication a layer
        target, mask = self.model.normalizer(motion.to(self.device)), mask.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            output, bottleneck = self._network(target, visible, quantize=self.model.bottleneck.initialized)
        return self.loss(output.float(), target, mask) | bottleneck.losses, bottleneck

    def _summing(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Around a part of a step, of which the last one exchanges gradients."""
        if last or not isinstance(self._network, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._network.no_sync()

    def _of_all_ranks(self, terms: dict[str, float]) -> dict[str, float]:
        values = torch.tensor(list(terms.values()), dtype=torch.float64, device=self.device)
        return dict(zip(terms, distributed.total([values])[0].tolist(), strict=True))

    def _weights(self, number: int, rows: slice) -> dict[str, int]:
        """How many elements some windows of a step have, of what the means of the terms are over; 1 at least."""
        lengths = self.sampler.lengths(number)[rows]
        counts = {
            "frames": lengths.sum(),
            "pairs": (lengths - 1).sum(),
            "tokens": (-(-lengths // self.model.downsample)).sum(),
        }
        return {name: max(1, int(count)) for name, count in counts.items()}

    def _factors(self, number: int) -> dict[str, float]:
        """What each term of the loss is multiplied with."""
        weights = self.config.loss
        kl_rise = min(1.0, (number + 1) / max(1.0, self.config.train.steps * weights.kl_warmup))
        return {
            "reconstruction": 1.0,
            "velocity": weights.velocity,
            "positions": weights.positions,
            "joints": weights.joints,
            "commitment": weights.commitment,
            "codebook": weights.codebook,
            "kl": weights.kl * kl_rise,
        }

    def lr(self, number: int) -> float:
        """Learning rate of a step: linear warm-up, drops, and a cosine to zero or none."""
        settings = self.config.train
        rate = settings.lr * min(1.0, (number + 1) / (settings.lr_warmup + 1))
        for drop in settings.lr_drops:
            if number >= drop * settings.steps:
                rate *= settings.lr_drop
        if settings.schedule == "constant":
            return rate
        return rate * (1 + math.cos(math.pi * number / settings.steps)) / 2

    @torch.no_grad()
    def _follow_weights(self, number: int) -> None:
        """Move the averaged weights after the trained ones, faster at the start; buffers are copied."""
        decay = min(self.config.train.ema_decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(list(self.smooth.parameters()), list(self.model.parameters()), 1 - decay)
        for mine, theirs in zip(self.smooth.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)

    def state(self) -> dict[str, np.ndarray]:
        """All that training must have to go on, but the step."""
        state = to_numpy(self.model.state_dict(), "model.")
        state |= to_numpy(dict(self.smooth.named_parameters()), "smooth.")
        return state | to_numpy(optimizer_state(self._optimizer, self._names), "optimizer.")

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Be what `state` was taken from; KeyError, ValueError or RuntimeError where it does not fit."""
        self.model.load_state_dict(from_numpy(state, "model."))
        self.smooth.load_state_dict(from_numpy(state, "model.") | from_numpy(state, "smooth."))
        restore_optimizer(self._optimizer, self._names, from_numpy(state, "optimizer."))
        self._share_model()


COUNTED = {"velocity": "pairs", "commitment": "tokens", "codebook": "tokens", "kl": "tokens"}  # the others: frames
