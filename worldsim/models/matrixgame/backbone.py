"""The backbone of Matrix-Game 2: a causal Wan transformer that starts from a picture and hears keyboard and mouse.

It takes the weights of the distilled models as published. As the Wan backbone it predicts the flow from clean frames to
noise, and answers with the clean frames that follow from it; in place of a prompt it is told a picture.

Source: Matrix-Game 2.0, He et al. 2025 (arXiv:2508.13009).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NoReturn, cast

import torch
from torch import Tensor, nn

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError, ShapeError
from worldsim.models.matrixgame.actions import ActionModule
from worldsim.models.matrixgame.config import MatrixGameConfig
from worldsim.models.protocol import Attend
from worldsim.models.wan.backbone import clean, waves
from worldsim.models.wan.layers import Head, WanLayer, patchify, unpatchify


class MatrixGameBackbone(nn.Module):
    """See the module. It answers once it has a picture, see `prompted`.

    Made on the meta device it takes no memory, and any tensors by load_state_dict(assign=True).

    Args:
        config: its size.
    """

    def __init__(self, config: MatrixGameConfig) -> None:
        super().__init__()
        self.config = config
        self.geometry = config.geometry
        wan, patch = config.wan, (1, config.wan.patch, config.wan.patch)
        self.patch_embedding = nn.Conv3d(wan.channels + config.seen, wan.dim, patch, stride=patch)
        self.img_emb = PictureEmbedding(wan.text_dim, wan.dim)
        self.time_embedding = nn.Sequential(nn.Linear(wan.freq_dim, wan.dim), nn.SiLU(), nn.Linear(wan.dim, wan.dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(wan.dim, 6 * wan.dim))
        self.blocks = nn.ModuleList(MatrixGameLayer(config, index) for index in range(wan.layers))
        self.head = Head(wan)

    @property
    def pages(self) -> PageShape:
        return self.config.pages

    @property
    def rotary(self) -> Rotary:
        return self.config.rotary

    @property
    def controls(self) -> int:
        return self.config.controls

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> NoReturn:
        """Raise ConfigError: without a picture it has no answer."""
        raise ConfigError(
            "this backbone answers under a picture; call backbone.prompted(heard, first) and ask what it returns"
        )

    def hear(self, picture: Tensor, condition: Tensor) -> Tensor:
        """What all calls about a video need of the picture that it starts from, [N] numbers, like the weights.

        Args:
            picture: what the image encoder makes of it, [text_length, text_dim] of config.wan.
            condition: the channels that are read beside the noise of the first n frames, [n, seen, H, W], n at least 1;
                the last of them stand beside all later frames too.

        Raises:
            ShapeError: they are of another model.
        """
        wan, sides = self.config.wan, (self.config.seen, *self.geometry.frame_shape[1:])
        if picture.shape != (wan.text_length, wan.text_dim) or condition.shape[1:] != sides or not len(condition):
            raise ShapeError(
                f"expected a picture as [{wan.text_length}, {wan.text_dim}] and the channels beside the first frames, "
                f"[n, {str(sides)[1:-1]}], got {list(picture.shape)} and {list(condition.shape)}"
            )
        told = self.img_emb(picture.to(self.head.modulation))
        listeners = [cast(MatrixGameLayer, layer).cross_attn for layer in self.blocks]
        heard = torch.stack([torch.stack((each.keys(told), each.values(told))) for each in listeners])
        return torch.cat((heard.flatten(), condition.to(heard).flatten()))

    def gist(self, heard: Tensor) -> None:
        """Nothing: what is heard is a picture, see PromptedBackbone."""

    def prompted(self, heard: Tensor, first: Sequence[int]) -> Pictured:
        """The same backbone, each video of a batch starting from its own picture; weights are shared.

        Args:
            heard: what `hear` made of each, [B, N].
            first: the number of the first frame of each row; 0 is the one that shows the picture.

        Raises:
            ShapeError: it is not of this backbone, or of another number of rows.
        """
        return Pictured(self, heard, first)

    def steered(self, controls: Tensor) -> Tensor:
        """Keys and values of the keyboard in frames steered by [F, A]; see SteeredBackbone."""
        modules = [cast(MatrixGameLayer, layer).action_model for layer in self.blocks]
        sides = [module.keyboard(controls) for module in modules if module is not None]
        return torch.stack([torch.stack(side) for side in zip(*sides, strict=True)])

    def flow(self, frames: Tensor, sigma: Tensor, controls: Tensor, heard: Tensor, attend: Attend) -> Tensor:
        """The flow, noise minus clean, [B, F, C, H, W], in the dtype of the weights.

        Args:
            frames: noisy ones and what is read beside them, [B, F, C + seen, H, W].
            sigma: their levels, [B, F].
            controls: what steers them, [B, F, A].
            heard: keys and values of the picture, [B, layers, 2, text_length, heads, head_dim].
            attend: see Attend.
        """
        tokens = patchify(frames, self.patch_embedding)
        time = self.time_embedding(waves(sigma, self.config.wan.freq_dim).to(tokens.dtype))  # [B, F, D]
        level = self.time_projection(time).unflatten(-1, (6, -1))
        for index, layer in enumerate(cast(Sequence[MatrixGameLayer], self.blocks)):
            attended = attend(index, *layer.before(tokens, level))
            tokens = layer.listen(tokens, level, heard[:, index], attended)
            if layer.action_model is not None:
                tokens = layer.action_model(tokens, controls, attend)
            tokens = layer.feed(tokens, level)
        return unpatchify(self.head(tokens, time), frames.shape[1], self.geometry)


class MatrixGameLayer(WanLayer):
    """A layer of a Wan transformer, with an action module between picture and perceptron if it is one of the first."""

    PARTS: ClassVar[tuple[str, ...]] = ("before", "listen", "feed")

    def __init__(self, config: MatrixGameConfig, index: int) -> None:
        super().__init__(config.wan)
        self.action_model = ActionModule(config, index) if index < config.acting else None


class PictureEmbedding(nn.Module):
    """From the tokens of the image encoder, [n, size], to those that layers listen to, [n, D]."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, size), nn.GELU(), nn.Linear(size, dim), nn.LayerNorm(dim)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.proj(tokens)
        return embedded


class Pictured:
    """A backbone that knows the picture of every video of a batch, see MatrixGameBackbone.prompted."""

    def __init__(self, backbone: MatrixGameBackbone, heard: Tensor, first: Sequence[int]) -> None:
        self._backbone = backbone
        self.geometry = backbone.geometry
        self.pages = backbone.pages
        self.rotary = backbone.rotary
        self.controls = backbone.controls
        wan, sides = backbone.config.wan, (backbone.config.seen, *self.geometry.frame_shape[1:])
        listened, each = math.prod(wan.heard), math.prod(sides)
        beside = heard.shape[1] - listened if heard.ndim == 2 else 0
        if beside < 1 or beside % each or len(first) != len(heard):
            raise ShapeError(
                f"expected the pictures of a batch as this backbone hears them, [B, {listened} + n * {each}], and the "
                f"first frame of each, got {list(heard.shape)} and {len(first)} of these; stack what its hear() returns"
            )
        self._heard = heard[:, :listened].unflatten(1, wan.heard)
        self._condition = heard[:, listened:].unflatten(1, (-1, *sides))
        self._first = torch.tensor([[number] for number in first], device=heard.device)

    def __call__(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend, /) -> Tensor:
        """Estimate the clean frames; see worldsim.models.protocol.Backbone.

        previous decides nothing: the weights know the past through attention alone.

        Raises:
            ShapeError: frames, levels or controls of another layout, or another number of videos than of pictures.
        """
        batch, frames = len(self._heard), noisy.shape[1] if noisy.ndim == 5 else 0
        wanted = [(batch, frames, *self.geometry.frame_shape), (batch, frames), (batch, frames, self.controls)]
        found = [tuple(given.shape) for given in (noisy, sigma, controls)]
        if found != wanted:
            raise ShapeError(
                f"expected frames, levels and controls of one video for each picture, {wanted}, got {found}; controls "
                f"are windows of actions, see MatrixGameConfig.controls"
            )
        numbers = self._first + torch.arange(frames, device=self._first.device)
        rows = torch.arange(batch, device=self._first.device)[:, None]
        beside = self._condition[rows, numbers.clamp(max=self._condition.shape[1] - 1)]
        both = torch.cat((noisy.to(beside.dtype), beside), dim=2)
        return clean(noisy, sigma, self._backbone.flow(both, sigma, controls, self._heard, attend))
