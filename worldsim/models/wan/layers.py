"""The layers of a Wan transformer, with parameters named and shaped as in the published weights.

Each is in two parts, one before and one after the attention over the past, which belongs to the caller; either part is
one graph, without branches, for whoever wants to compile it.

Source: Wan 2.1, Wan Team 2025 (arXiv:2503.20314), section 4.2; the modulation of each frame by itself, CausVid, Yin et
al. 2024 (arXiv:2412.07772).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.geometry import LatentGeometry
from worldsim.models.coded import CodedLinear
from worldsim.models.compiling import compile_parts
from worldsim.models.fp8 import Fp8Linear
from worldsim.models.int8 import Int8Linear
from worldsim.models.protocol import Attend
from worldsim.models.wan.config import WanConfig

LINEARS: Mapping[str, type[CodedLinear]] = {"fp8": Fp8Linear, "int8": Int8Linear}
"""In which 8 bits layers may multiply, by name."""


class WanLayer(nn.Module):
    """Attention over the past, attention to the prompt, a perceptron; first and last are modulated per frame."""

    PARTS: ClassVar[tuple[str, ...]] = ("before", "after")
    """The methods that its backbone calls beside `attend`, to be compiled."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        dim = config.dim
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))
        self.self_attn: Projections | CodedProjections = Projections(config)
        self.cross_attn = Projections(config)
        self.norm3 = nn.LayerNorm(dim, eps=config.eps)
        self.ffn = nn.Sequential(nn.Linear(dim, config.ffn_dim), nn.GELU("tanh"), nn.Linear(config.ffn_dim, dim))

    def forward(self, tokens: Tensor, level: Tensor, heard: Tensor, index: int, attend: Attend) -> Tensor:
        """The tokens after this layer.

        Args:
            tokens: [B, F * tokens_per_frame, D].
            level: what the noise level of each frame says, [B, F, 6, D].
            heard: keys and values of the prompt in this layer, [B, 2, text_length, heads, head_dim].
            index: of this layer.
            attend: attention over the past.
        """
        return self.after(tokens, level, heard, attend(index, *self.before(tokens, level)))

    def before(self, tokens: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values without positions, each [B, F * tokens_per_frame, heads, head_dim]."""
        shift, scale = (level + self.modulation).unbind(2)[:2]
        normed = modulate(tokens, shift, scale, self.eps)
        q, k, v = self.self_attn(normed)
        return q, k, v

    def after(self, tokens: Tensor, level: Tensor, heard: Tensor, attended: Tensor) -> Tensor:
        """The tokens with what they attended to, [B, F * tokens_per_frame, heads, head_dim], and what follows."""
        return self.feed(self.listen(tokens, level, heard, attended), level)

    def listen(self, tokens: Tensor, level: Tensor, heard: Tensor, attended: Tensor) -> Tensor:
        """The tokens with what they attended to, as for `after`, and with what they hear of the prompt."""
        gate = level[:, :, 2] + self.modulation[:, 2]
        tokens = _add_gated(tokens, self.self_attn.o(attended.flatten(2)), gate)
        return tokens + self._listen(self.norm3(tokens), heard)

    def feed(self, tokens: Tensor, level: Tensor) -> Tensor:
        """The tokens after the perceptron."""
        shift, scale, gate = (level[:, :, 3:] + self.modulation[:, 3:]).unbind(2)
        return _add_gated(tokens, self.ffn(modulate(tokens, shift, scale, self.eps)), gate)

    def _listen(self, tokens: Tensor, heard: Tensor) -> Tensor:
        """Attention to all of the prompt, padding included: the weights were trained to see it."""
        asked = self.cross_attn.queries(tokens).transpose(1, 2)
        keys, values = heard.transpose(2, 3).unbind(1)
        told = F.scaled_dot_product_attention(asked, keys, values)
        answer: Tensor = self.cross_attn.o(told.transpose(1, 2).flatten(2))
        return answer


class Projections(nn.Module):
    """The four projections of one attention; queries and keys are normed over all heads together."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.q: nn.Module = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o: nn.Module = nn.Linear(dim, dim)
        self.norm_q = HeadsNorm(dim, eps=config.eps)
        self.norm_k = HeadsNorm(dim, eps=config.eps)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens [B, n, D], each [B, n, heads, head_dim]."""
        return self.queries(tokens), self.keys(tokens), self.values(tokens)

    def queries(self, tokens: Tensor) -> Tensor:
        """Of tokens [B, n, D], [B, n, heads, head_dim]."""
        return self._heads(self.norm_q(self.q(tokens)))

    def keys(self, tokens: Tensor) -> Tensor:
        """Of tokens [B, n, D], [B, n, heads, head_dim]."""
        return self._heads(self.norm_k(self.k(tokens)))

    def values(self, tokens: Tensor) -> Tensor:
        """Of tokens [B, n, D], [B, n, heads, head_dim]."""
        return self._heads(self.v(tokens))

    def _heads(self, x: Tensor) -> Tensor:
        parts: Tensor = x.unflatten(-1, (self.heads, -1))
        return parts


class CodedProjections(nn.Module):
    """Those of attention over the past, in 8 bits: queries, keys and values are of one product.

    Args:
        exact: in their own dtype.
        kind: of the linears.
    """

    def __init__(self, exact: Projections, kind: type[CodedLinear]) -> None:
        super().__init__()
        self.heads = exact.heads
        self.qkv = kind.of(exact.q, exact.k, exact.v)
        self.o = kind.of(exact.o)
        self.norm_q, self.norm_k = exact.norm_q, exact.norm_k

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As of Projections."""
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        asked, kept, told = (x.unflatten(-1, (self.heads, -1)) for x in (self.norm_q(q), self.norm_k(k), v))
        return asked, kept, told


def use_8_bits(layer: WanLayer, kind: type[CodedLinear]) -> None:
    """Have a layer of the kind multiply in 8 bits, see CodedLinear, wherever it does so in every call.

    Keys and values of the prompt, which are computed once, stay exact, as do norms and modulation.

    Raises:
        ConfigError: its sizes are none for that kind.
    """
    if isinstance(layer.self_attn, CodedProjections):
        return
    layer.self_attn = CodedProjections(layer.self_attn, kind)
    layer.cross_attn.q, layer.cross_attn.o = kind.of(layer.cross_attn.q), kind.of(layer.cross_attn.o)
    first, gelu, last = layer.ffn
    layer.ffn = nn.Sequential(kind.of(first), gelu, kind.of(last))


def speed_up(layers: Iterable[nn.Module], *, compiled: bool, linears: str | None) -> None:
    """Have layers of the kind compiled, or multiply in 8 bits, or both; they stay where they are from then on.

    Args:
        linears: in which 8 bits, of LINEARS; in their own dtype if None.

    Raises:
        ConfigError: their sizes are none for those.
    """
    kept = [cast(WanLayer, layer) for layer in layers]
    for layer in kept:
        if linears is not None:
            use_8_bits(layer, LINEARS[linears])
        if compiled:
            compile_parts([layer], layer.PARTS)


class HeadsNorm(nn.RMSNorm):
    """RMSNorm that rounds to the dtype of its input before the weight, as the weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Of x [..., D]; torch's own norm would round once, after the weight."""
        return F.rms_norm(x, self.normalized_shape, eps=self.eps) * self.weight


class Head(nn.Module):
    """From tokens to the numbers of their patches, modulated per frame."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))
        self.head = nn.Linear(config.dim, config.patch**2 * config.out_channels)

    def forward(self, tokens: Tensor, time: Tensor) -> Tensor:
        """Tokens [B, F * tokens_per_frame, D] at times [B, F, D]; [B, F * tokens_per_frame, patch * patch * C]."""
        shift, scale = (time[:, :, None] + self.modulation).unbind(2)
        numbers: Tensor = self.head(modulate(tokens, shift, scale, self.eps))
        return numbers


def patchify(frames: Tensor, embedding: nn.Conv3d) -> Tensor:
    """Frames [B, F, C, H, W] to tokens [B, F * tokens_per_frame, D], by a convolution whose stride is its size.

    Such a one is a product per patch; as a product it needs no frames in [B, C, F, H, W].
    """
    p, weight = embedding.kernel_size[-1], embedding.weight
    squares = frames.to(weight.dtype).unflatten(-2, (-1, p)).unflatten(-1, (-1, p))
    patches = squares.permute(0, 1, 3, 5, 2, 4, 6).flatten(-3).flatten(1, 3)  # of [B, F, C, rows, p, columns, p]
    return F.linear(patches, weight.flatten(1), embedding.bias)


def unpatchify(patches: Tensor, frames: int, geometry: LatentGeometry) -> Tensor:
    """Numbers [B, frames * tokens_per_frame, patch * patch * C], channels last, to [B, frames, C, H, W]."""
    p, g = geometry.patch, geometry
    squares = patches.unflatten(1, (frames, g.rows, g.columns)).unflatten(-1, (p, p, g.channels))
    latents: Tensor = squares.permute(0, 1, 6, 2, 4, 3, 5).flatten(-2).flatten(-3, -2)
    return latents


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Tokens [B, F * n, D] normed, times 1 + scale and plus shift of their frame, [B, F, D] each."""
    normed = F.layer_norm(tokens, tokens.shape[-1:], eps=eps).unflatten(1, (shift.shape[1], -1))
    return torch.addcmul(shift[:, :, None], normed, 1 + scale[:, :, None]).flatten(1, 2)


def _add_gated(tokens: Tensor, more: Tensor, gate: Tensor) -> Tensor:
    """Tokens and more, [B, F * n, D] each, the latter times the gate of its frame, [B, F, D]."""
    before, after = (x.unflatten(1, (gate.shape[1], -1)) for x in (tokens, more))
    return torch.addcmul(before, after, gate[:, :, None]).flatten(1, 2)
