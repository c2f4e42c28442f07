"""The backbone of the Wan 2.1 family, made causal: it takes the weights of Self-Forcing and its kin as published.

It predicts the flow from clean frames to noise, and answers with the clean frames that follow from it. It hears a
prompt, whose keys and values are computed once.

Sources: Wan 2.1, Wan Team 2025 (arXiv:2503.20314), section 4.2; CausVid, Yin et al. 2024 (arXiv:2412.07772);
Self-Forcing, Huang et al. 2025 (arXiv:2506.08009).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError, ShapeError
from worldsim.models.protocol import Attend
from worldsim.models.wan.config import WanConfig
from worldsim.models.wan.layers import Head, WanLayer, patchify, unpatchify

TIMES = 1000
"""The time of pure noise, as the weights count it."""


class WanBackbone(nn.Module):
    """See the module. It answers once it has a prompt, see `prompted`.

    Made on the meta device it takes no memory, and any tensors by load_state_dict(assign=True).

    Args:
        config: its size.
    """

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        self.geometry = config.geometry
        dim, patch = config.dim, (1, config.patch, config.patch)
        self.patch_embedding = nn.Conv3d(config.channels, dim, patch, stride=patch)
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(WanLayer(config) for _ in range(config.layers))
        self.head = Head(config)

    @property
    def pages(self) -> PageShape:
        return self.config.pages

    @property
    def rotary(self) -> Rotary:
        return self.config.rotary

    @property
    def controls(self) -> int:
        """None: what steers it is its prompt."""
        return 0

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> NoReturn:
        """Raise ConfigError: without a prompt it has no answer."""
        raise ConfigError("this backbone answers under a prompt; call backbone.prompted(heard) and ask what it returns")

    def hear(self, embeddings: Tensor) -> Tensor:
        """The keys and values of a prompt in every layer, [layers, 2, text_length, heads, head_dim], like the weights.

        Args:
            embeddings: of its text, [L, text_dim], L at most text_length; zeros follow to that length, and are heard.

        Raises:
            ShapeError: embeddings of another width, or too many of them.
        """
        length, width = self.config.text_length, self.config.text_dim
        if embeddings.ndim != 2 or embeddings.shape[1] != width or len(embeddings) > length:
            raise ShapeError(
                f"expected the embeddings of one prompt, [up to {length}, {width}], got {list(embeddings.shape)}; "
                f"cut a longer text before it is embedded"
            )
        told = embeddings.to(self.head.modulation)
        text = self.text_embedding(F.pad(told, (0, 0, 0, length - len(told))))
        listeners = [cast(WanLayer, layer).cross_attn for layer in self.blocks]
        return torch.stack([torch.stack((each.keys(text), each.values(text))) for each in listeners])

    def gist(self, heard: Tensor) -> Tensor:
        """The mean of the keys and values of the first layer over all words, [2 * dim]: see PromptedBackbone.

        Each less that of the last, which is of no word as a rule: padding, alike in all prompts, would outweigh words.
        """
        words = heard[0].float()
        return F.normalize((words - words[:, -1:]).mean(1).flatten(), dim=0)

    def prompted(self, heard: Tensor, first: Sequence[int] = ()) -> Prompted:
        """The same backbone, each video of a batch hearing its own prompt; weights are shared.

        Args:
            heard: what `hear` made of each, [B, layers, 2, text_length, heads, head_dim].
            first: decides nothing: all frames hear the same.

        Raises:
            ShapeError: it is not of this backbone.
        """
        if heard.ndim != 6 or heard.shape[1:] != self.config.heard:
            raise ShapeError(
                f"expected the prompts of a batch as this backbone hears them, [B, {str(self.config.heard)[1:-1]}], "
                f"got {list(heard.shape)}; stack what its hear() returns"
            )
        return Prompted(self, heard)

    def flow(self, noisy: Tensor, sigma: Tensor, heard: Tensor, attend: Attend) -> Tensor:
        """The flow, noise minus clean, of noisy frames [B, F, C, H, W] at levels [B, F]; [B, F, C, H, W].

        heard and attend as for `prompted` and Attend. In the dtype of the weights.
        """
        tokens = patchify(noisy, self.patch_embedding)
        time = self.time_embedding(waves(sigma, self.config.freq_dim).to(tokens.dtype))  # [B, F, D]
        level = self.time_projection(time).unflatten(-1, (6, -1))
        for index, layer in enumerate(self.blocks):
            tokens = layer(tokens, level, heard[:, index], index, attend)
        return unpatchify(self.head(tokens, time), noisy.shape[1], self.geometry)


class Prompted:
    """A backbone that hears a prompt in every video of a batch, see WanBackbone.prompted."""

    def __init__(self, backbone: WanBackbone, heard: Tensor) -> None:
        self._backbone = backbone
        self.heard = heard
        self.geometry = backbone.geometry
        self.pages = backbone.pages
        self.rotary = backbone.rotary
        self.controls = backbone.controls

    def __call__(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend, /) -> Tensor:
        """Estimate the clean frames; see worldsim.models.protocol.Backbone.

        previous and controls [B, F, 0] decide nothing: the weights know the past through attention alone.

        Raises:
            ShapeError: frames of another layout, or another number of videos than of prompts.
        """
        batch, frames = len(self.heard), noisy.shape[1] if noisy.ndim == 5 else 0
        if noisy.shape != (batch, frames, *self.geometry.frame_shape) or sigma.shape != (batch, frames):
            wanted = ", ".join(map(str, self.geometry.frame_shape))
            raise ShapeError(
                f"expected frames [{batch}, F, {wanted}] and their levels [{batch}, F], one video for each prompt, "
                f"got {list(noisy.shape)} and {list(sigma.shape)}"
            )
        return clean(noisy, sigma, self._backbone.flow(noisy, sigma, self.heard, attend))


def clean(noisy: Tensor, sigma: Tensor, flow: Tensor) -> Tensor:
    """The clean frames that follow from the flow of noisy ones, [B, F, C, H, W] both, at levels [B, F].

    In float64, as the public samplers do it: at high levels the difference is small beside both of its terms.
    """
    return (noisy.double() - sigma.double()[..., None, None, None] * flow.double()).to(noisy.dtype)


def waves(sigma: Tensor, count: int) -> Tensor:
    """Cosines and sines of the time of each frame, float64 [B, F] to [B, F, count]."""
    phase = sigma.double()[..., None] * TIMES * _frequencies(count // 2, sigma.device)
    return torch.cat((phase.cos(), phase.sin()), dim=-1)


@lru_cache(maxsize=8)
def _frequencies(count: int, device: torch.device) -> Tensor:
    """That many, falling from 1, float64. No buffer of the module, which would be rounded with its weights."""
    with torch.inference_mode(False):
        return 10_000.0 ** (-torch.arange(count, dtype=torch.float64, device=device) / count)
