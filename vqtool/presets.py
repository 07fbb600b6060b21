"""Settings that reproduce published tokenizers, for `vqtool train --preset`: their network, losses and recipe.

What differs from the papers is the data (yours, with its own statistics) and the number of steps: theirs is 300,000, so
say your own with --steps; where their learning rate drops is kept as a share of the steps.
"""

from __future__ import annotations

from typing import Any

from vqtool.errors import UsageError

# The network that both use: strided convolutions of width 512, three residual blocks after each halving.
_NETWORK: dict[str, Any] = {
    "model.downsampling": "strided",
    "model.downsample": 4,
    "model.width": 512,
    "model.latent_dim": 512,
    "model.depth": 3,
    "model.dilation_growth": 3,
    "model.activation": "relu",
    "model.dropout": 0.0,
    "model.causal": False,
}
_RECIPE: dict[str, Any] = {
    "loss.reconstruction": "smooth_l1",
    "loss.velocity": 0.0,
    "loss.positions": 0.5,  # what their code calls velocity
    "loss.joints": 0.0,
    "loss.commitment": 0.02,
    "train.start": "random",
    "train.batch_size": 256,
    "train.window": 64,
    "train.lr": 2e-4,
    "train.betas": [0.9, 0.99],
    "train.weight_decay": 0.0,
    "train.schedule": "constant",
    "train.clip_norm": 0.0,
    "train.ema_decay": 0.0,
    "train.continuous": 0.0,
}
# Codebooks from the first rows of the first batch; a code that takes less than one token a step, in the moving
# average, becomes a row of the batch.
_CODEBOOK: dict[str, Any] = {
    "bottleneck.codebook_size": 512,
    "bottleneck.codebook_update": "ema",
    "bottleneck.ema_decay": 0.99,
    "bottleneck.init": "first",
    "bottleneck.revive_rule": "absolute",
    "bottleneck.revive_below": 1.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Zhang et al., T2M-GPT, https://arxiv.org/abs/2301.06052
    "t2m-gpt": {
        **_NETWORK,
        **_RECIPE,
        **_CODEBOOK,
        "model.bottleneck": "vq",
        "train.lr_warmup": 1000,
        "train.lr_drops": [2 / 3],
        "train.lr_drop": 0.05,
    },
    # Guo et al., MoMask, https://arxiv.org/abs/2312.00063
    "momask": {
        **_NETWORK,
        **_RECIPE,
        **_CODEBOOK,
        "model.bottleneck": "rvq",
        "model.dropout": 0.2,
        "bottleneck.num_quantizers": 6,
        "bottleneck.quantizer_dropout": 0.2,
        "bottleneck.sampling_temperature": 0.5,
        "train.lr_warmup": 2000,
        "train.lr_drops": [0.5, 5 / 6],
        "train.lr_drop": 0.1,
    },
    # Chen et al., MLD, https://arxiv.org/abs/2212.04048: its weights, on the same convolutions instead of its
    # transformer, with a latent for every four frames instead of one a clip.
    "mld-vae": {
        **_NETWORK,
        **_RECIPE,
        "model.bottleneck": "vae",
        "model.activation": "gelu",
        "bottleneck.dim": 256,
        "loss.positions": 1.0,
        "loss.kl": 1e-4,
        "loss.kl_warmup": 0.0,
        "train.batch_size": 128,
        "train.lr": 1e-4,
        "train.betas": [0.9, 0.999],
        "train.lr_warmup": 0,
        "train.lr_drops": [],
    },
}


def preset(name: str) -> dict[str, Any]:
    """The flat settings of a preset; UsageError naming those there are."""
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
