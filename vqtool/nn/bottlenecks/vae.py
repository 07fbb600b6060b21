"""The Gaussian bottleneck of a VAE, arXiv 1312.6114: z = mean + sigma * eps, eps ~ N(0, I)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqtool.errors import UsageError
from vqtool.nn.bottlenecks.base import Bottleneck, BottleneckOutput, full_precision, masked_mean

MAX_DIM = 1 << 16
START_LOGVAR = -4.0


class GaussianBottleneck(Bottleneck):
    """Continuous latents with a Gaussian posterior.

    dim  width of z per token frame

    The loss "kl" is KL(N(mean, sigma^2) || N(0, I)) in nats, averaged over valid tokens and dimensions.
    """

    def __init__(self, latent_dim: int, *, dim: int = 32) -> None:
        super().__init__(latent_dim)
        if not 1 <= dim <= MAX_DIM:
            raise UsageError(f"dim is from 1 to {MAX_DIM:,}, not {dim!r}")
        self.dim = dim
        self.to_moments = nn.Linear(latent_dim, 2 * dim)
        self.from_sample = nn.Linear(dim, latent_dim)

    @torch.no_grad()
    def start(self, spread: Tensor) -> None:
        """Begin with the first `dim` channels at unit spread as means, and a little noise."""
        used = min(self.dim, int((spread > 0).sum()))
        diagonal = torch.arange(used)
        for weight in (self.to_moments.weight, self.to_moments.bias, self.from_sample.weight, self.from_sample.bias):
            weight *= 0.1
        self.to_moments.weight[diagonal] = torch.diag(1 / spread.clamp_min(1e-6))[:used]
        self.to_moments.bias[self.dim :] = START_LOGVAR
        self.from_sample.weight[:, :used] = torch.diag(spread)[:, :used]

    def moments(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, [B, L, dim] each."""
        mean, logvar = self.to_moments(latents).chunk(2, -1)
        return mean, logvar.clamp(-30, 20)

    def forward(self, latents: Tensor, mask: Tensor | None = None) -> BottleneckOutput:
        """Sample z in training, take the mean in eval; mask [B, L] is True on valid tokens."""
        with torch.autocast(latents.device.type, enabled=False):
            mean, logvar = self.moments(full_precision(latents))
            z = mean
            if self.training:
                noise = torch.randn(mean.shape, generator=self.draws.generator(own=True))
                z = mean + (logvar / 2).exp() * noise.to(mean)
            kl = masked_mean(kl_per_dimension(mean, logvar), mask)
            output = self.from_sample(z)
            if mask is not None:
                output = torch.where(mask.unsqueeze(-1), output, 0.0)
            return BottleneckOutput(output, losses={"kl": kl})

    def decode_latents(self, z: Tensor) -> Tensor:
        """What the decoder takes, [B, L, C], of z [B, L, dim]."""
        return self.from_sample(z)


def kl_per_dimension(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats, elementwise."""
    return (mean.square() + logvar.exp() - 1 - logvar) / 2
