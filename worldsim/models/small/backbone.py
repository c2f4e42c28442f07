"""The backbone of the bundled worlds: a block-causal diffusion transformer steered by controls.

It estimates the clean frames directly (x-prediction), with the previous frame beside every token's input, adaptive
modulation per frame and rotary positions over time, rows and columns.

Sources: DiT, Peebles & Xie 2022 (arXiv:2212.09748), section 3.2; one modulation shared by all layers as in
PixArt-alpha, Chen et al. 2023 (arXiv:2310.00426), section 2.3; x-prediction on pixel patches, Li & He 2025
(arXiv:2511.13720).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError
from worldsim.geometry import LatentGeometry
from worldsim.models.protocol import Attend

NOISE_FREQUENCIES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallConfig:
    """The size of one small backbone. Lengths are in tokens, channels or layers; controls in numbers a frame."""

    channels: int
    height: int
    width: int
    controls: int
    patch: int = 1
    dim: int = 256
    layers: int = 8
    heads: int = 4
    mlp_ratio: int = 4
    theta: float = 100.0

    def __post_init__(self) -> None:
        sizes = (self.channels, self.height, self.width, self.controls, self.patch, self.dim, self.layers, self.heads)
        if min(*sizes, self.mlp_ratio) < 1 or self.theta <= 0:
            raise ConfigError(f"every size of a backbone is at least 1, and theta over 0, got {self}")
        if self.dim % self.heads or self.head_dim % 8:
            raise ConfigError(
                f"a width of {self.dim} over {self.heads} heads gives heads of {self.dim / self.heads:g}; "
                "use heads of a multiple of 8"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def rotary(self) -> Rotary:
        """Time, rows and columns share a head as 2 : 1 : 1."""
        quarter = self.head_dim // 4
        return Rotary(time=2 * quarter, rows=quarter, columns=quarter, theta=self.theta)

    def geometry(self, frames_per_block: int = 1) -> LatentGeometry:
        """The latent layout, for blocks of that many frames."""
        return LatentGeometry(
            channels=self.channels,
            height=self.height,
            width=self.width,
            patch=self.patch,
            frames_per_block=frames_per_block,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a weights file keeps them."""
        return asdict(self)


class SmallBackbone(nn.Module):
    """See the module. Call it as the Backbone protocol says.

    Args:
        config: its size.
        generator: of its first weights; torch's own if None.
    """

    def __init__(self, config: SmallConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.geometry = config.geometry()
        dim, patch_values = config.dim, config.channels * config.patch**2
        self.embed = nn.Linear(2 * patch_values, dim)
        self.place = nn.Parameter(torch.zeros(self.geometry.tokens_per_frame, dim))
        self.noise_level = nn.Sequential(nn.Linear(2 * NOISE_FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.steer = nn.Linear(config.controls, dim)
        self.modulation = nn.Linear(dim, 6 * dim)
        self.layers = nn.ModuleList(SmallLayer(config) for _ in range(config.layers))
        self.head_modulation = nn.Linear(dim, 2 * dim)
        self.head = nn.Linear(dim, patch_values)
        self._initialise(generator)

    @property
    def pages(self) -> PageShape:
        c = self.config
        return PageShape(layers=c.layers, tokens=self.geometry.tokens_per_frame, heads=c.heads, head_dim=c.head_dim)

    @property
    def rotary(self) -> Rotary:
        return self.config.rotary

    @property
    def controls(self) -> int:
        return self.config.controls

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        """Estimate the clean frames; see worldsim.models.protocol.Backbone.

        All of noisy, previous [B, F, C, H, W], sigma [B, F], controls [B, F, A]; returns [B, F, C, H, W].
        """
        frames = noisy.shape[1]
        patches = torch.cat((self._patchify(noisy), self._patchify(previous)), dim=-1)
        tokens = self.embed(patches.to(self.embed.weight.dtype))
        steer = self.steer(controls.to(tokens.dtype))  # [B, F, D]
        tokens = (tokens + self.place.to(tokens.dtype) + steer[:, :, None]).flatten(1, 2)
        level = F.silu(self.noise_level(_waves(sigma).to(steer.dtype)) + steer)
        modulation = self.modulation(level).unflatten(-1, (6, -1))  # [B, F, 6, D]
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, modulation, index, attend)
        shift, scale = self.head_modulation(level).chunk(2, dim=-1)
        clean = self.head(_modulate(tokens, shift, scale))
        return self._unpatchify(clean.unflatten(1, (frames, -1))).to(noisy.dtype)

    def _patchify(self, frames: Tensor) -> Tensor:
        """[B, F, C, H, W] to [B, F, tokens, C * patch * patch]."""
        p = self.config.patch
        squares = frames.unflatten(-2, (-1, p)).unflatten(-1, (-1, p))  # [B, F, C, rows, p, columns, p]
        patches: Tensor = squares.permute(0, 1, 3, 5, 2, 4, 6).flatten(-3).flatten(2, 3)
        return patches

    def _unpatchify(self, patches: Tensor) -> Tensor:
        p, g = self.config.patch, self.geometry
        squares = patches.unflatten(2, (g.rows, g.columns)).unflatten(-1, (g.channels, p, p))
        frames: Tensor = squares.permute(0, 1, 4, 2, 5, 3, 6).flatten(-2).flatten(-3, -2)
        return frames

    def _initialise(self, generator: torch.Generator | None) -> None:
        """Every layer begins as the identity (adaLN-Zero), every estimate as the middle grey; else as torch."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                for weight in module.parameters():
                    nn.init.uniform_(weight, -(module.in_features**-0.5), module.in_features**-0.5, generator=generator)
        for layer in (self.head, self.modulation, self.head_modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.place, std=0.02, generator=generator)


class SmallLayer(nn.Module):
    """Attention and a perceptron, each modulated per frame and gated."""

    def __init__(self, config: SmallConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.out = nn.Linear(dim, dim)
        self.up = nn.Linear(dim, config.mlp_ratio * dim)
        self.down = nn.Linear(config.mlp_ratio * dim, dim)
        self.own = nn.Parameter(torch.zeros(6, dim))

    def forward(self, tokens: Tensor, modulation: Tensor, index: int, attend: Attend) -> Tensor:
        """Tokens [B, F * tokens_per_frame, D], modulation [B, F, 6, D]; returns tokens."""
        modulation = modulation + self.own.to(modulation.dtype)
        attended = attend(index, *self.before(tokens, modulation))
        return self.after(tokens, modulation, attended)

    def before(self, tokens: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, F * tokens_per_frame, heads, head_dim]."""
        shift, scale = modulation.unbind(2)[:2]
        q, k, v = self.qkv(_modulate(tokens, shift, scale)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return _norm(self.q_norm, q), _norm(self.k_norm, k), v

    def after(self, tokens: Tensor, modulation: Tensor, attended: Tensor) -> Tensor:
        """The tokens with what they attended to, through the perceptron."""
        gate, shift, scale, gate_up = modulation.unbind(2)[2:]
        tokens = tokens + _per_frame(self.out(attended.flatten(2)), gate)
        hidden = F.gelu(self.up(_modulate(tokens, shift, scale)), approximate="tanh")
        return tokens + _per_frame(self.down(hidden), gate_up)


def _norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """The norm with its weight in the dtype of x: under autocast they differ, and torch then has no fused norm."""
    return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps)


def _modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise each token, then scale and shift it by its frame's values."""
    normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6).unflatten(1, (shift.shape[1], -1))
    moved: Tensor = normed * (1 + scale[:, :, None]) + shift[:, :, None]
    return moved.flatten(1, 2)


def _per_frame(tokens: Tensor, gate: Tensor) -> Tensor:
    gated: Tensor = tokens.unflatten(1, (gate.shape[1], -1)) * gate[:, :, None]
    return gated.flatten(1, 2)


def _waves(sigma: Tensor) -> Tensor:
    """Sines and cosines of the noise level, [B, F] to [B, F, 2 * NOISE_FREQUENCIES], float32."""
    octaves = torch.linspace(0, math.log(256.0), NOISE_FREQUENCIES, device=sigma.device).exp()
    phase = sigma.float()[..., None] * octaves * math.pi
    return torch.cat((phase.cos(), phase.sin()), dim=-1)
