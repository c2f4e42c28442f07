"""The action module of a Matrix-Game 2 layer, with parameters named and shaped as in the published weights.

The mouse is heard in attention along time: every token tells itself what it showed and how the mouse moved, and looks
at what it told itself before. The keyboard is heard in attention to the keys held at each frame, one key and value a
frame for all of its tokens.

Source: Matrix-Game 2.0, He et al. 2025 (arXiv:2508.13009), section 3; after GameFactory, Yu et al. 2025
(arXiv:2501.08325).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.models.matrixgame.config import ROWS, MatrixGameConfig
from worldsim.models.protocol import Attend


class ActionModule(nn.Module):
    """See the module. Of a model without a mouse it has no part for one.

    Args:
        config: the size of the backbone.
        index: of its layer.
    """

    def __init__(self, config: MatrixGameConfig, index: int) -> None:
        super().__init__()
        self.config = config
        dim, inner, eps = config.wan.dim, config.heads * config.head_dim, config.wan.eps
        self.keyboard_layer = config.wan.layers + index
        if config.mouse:
            self.mouse_layer = self.keyboard_layer
            self.keyboard_layer += config.acting
            self.mouse_mlp = nn.Sequential(
                nn.Linear(dim + ROWS * config.mouse, inner),
                nn.GELU("tanh"),
                nn.Linear(inner, inner),
                nn.LayerNorm(inner),
            )
            self.t_qkv = nn.Linear(inner, 3 * inner, bias=False)
            self.img_attn_q_norm = BareNorm(config.head_dim, eps)
            self.img_attn_k_norm = BareNorm(config.head_dim, eps)
            self.proj_mouse = nn.Linear(inner, dim, bias=False)
        self.keyboard_embed = nn.Sequential(
            nn.Linear(config.keyboard, config.embedding),
            nn.SiLU(),
            nn.Linear(config.embedding, config.embedding),
        )
        self.mouse_attn_q = nn.Linear(dim, inner, bias=False)  # of the keyboard, whatever it was called
        self.keyboard_attn_kv = nn.Linear(ROWS * config.embedding, 2 * inner, bias=False)
        self.key_attn_q_norm = BareNorm(config.head_dim, eps)
        self.key_attn_k_norm = BareNorm(config.head_dim, eps)
        self.proj_keyboard = nn.Linear(inner, dim, bias=False)

    def forward(self, tokens: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        """The tokens after this module.

        Args:
            tokens: [B, F * tokens_per_frame, D].
            controls: what steers each frame, see MatrixGameConfig.controls, [B, F, A].
            attend: attention over the past.
        """
        if self.config.mouse:
            tokens = tokens + self._hear_mouse(tokens, controls, attend)
        keys, values = self.keyboard(controls)
        asked = self.key_attn_q_norm(self._heads(self.mouse_attn_q(tokens)))
        told: Tensor = self.proj_keyboard(attend(self.keyboard_layer, asked, keys, values).flatten(2))
        return tokens + told

    def keyboard(self, controls: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the keyboard in frames steered by [..., A], [..., heads, head_dim] each."""
        rows = self._rows(controls)[..., : self.config.keyboard]
        both = self._heads(self.keyboard_attn_kv(self.keyboard_embed(rows).flatten(-2)))
        keys, values = both.unflatten(-2, (2, -1)).unbind(-3)
        return self.key_attn_k_norm(keys), values

    def _hear_mouse(self, tokens: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        """What the tokens hear of the mouse, like them."""
        moved = self._rows(controls)[..., self.config.keyboard :].flatten(-2)
        beside = moved.repeat_interleave(tokens.shape[1] // moved.shape[1], dim=1)
        inside = self.t_qkv(self.mouse_mlp(torch.cat((tokens, beside), dim=-1)))
        q, k, v = self._heads(inside).unflatten(-2, (3, -1)).unbind(-3)
        attended = attend(self.mouse_layer, self.img_attn_q_norm(q), self.img_attn_k_norm(k), v)
        heard: Tensor = self.proj_mouse(attended.flatten(2))
        return heard

    def _rows(self, controls: Tensor) -> Tensor:
        """The rows of actions in controls [..., A], [..., ROWS, keys and mouse], in the dtype of the weights."""
        rows: Tensor = controls.to(self.proj_keyboard.weight.dtype).unflatten(-1, (ROWS, -1))
        return rows

    def _heads(self, x: Tensor) -> Tensor:
        parts: Tensor = x.unflatten(-1, (-1, self.config.head_dim))
        return parts


class BareNorm(nn.Module):
    """RMSNorm of each head. The published weights have one for it, which the model was trained to do without."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Of x [..., size]."""
        return F.rms_norm(x, x.shape[-1:], eps=self.eps)
