"""Linear layers in numbers of 8 bits: weights are rounded once, with a scale for each output; inputs as they come.

Source: ZeroQuant, Yao et al. 2022 (arXiv:2206.01861): a scale for each row of what comes, found as it comes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Self, cast

import torch
from torch import Tensor, nn

SMALLEST = 1e-12
"""The least that a row counts as its largest number, so that a row of zeros has a scale."""


class CodedLinear(nn.Module):
    """A linear layer with weights of 8 bits; what it is given and gives has the dtype of the layer it is made of.

    Args:
        linears: whose weights are rounded, each output's by its own scale; of several the outputs lie side by side.

    Raises:
        ConfigError: their sizes are none that can be multiplied so.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, *linears: nn.Linear) -> None:
        super().__init__()
        exact = torch.cat([linear.weight.detach() for linear in linears])
        self.check_size(exact.shape[1], exact.shape[0])
        weight, scale = self.rounded(exact)
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.register_buffer("weight", weight)  # [outputs, inputs]
        self.register_buffer("scale", scale.t().contiguous())  # [1, outputs]
        self.register_buffer("bias", torch.cat(biases) if biases else None)

    def forward(self, x: Tensor) -> Tensor:
        """Of x [..., inputs], [..., outputs]."""
        rows, scale = self.rounded(x.flatten(0, -2))
        made: Tensor = self.multiply(rows, scale, x.dtype).unflatten(0, x.shape[:-1])
        return made if self.bias is None else made + self.bias

    @classmethod
    def of(cls, *linears: nn.Module) -> Self:
        """The layer of what are linears where their types do not say so."""
        return cls(*(cast(nn.Linear, linear) for linear in linears))

    @staticmethod
    @abstractmethod
    def check_device(device: torch.device) -> None:
        """Raise ConfigError, with what would do, unless numbers of this kind are multiplied well there."""

    @staticmethod
    def check_size(inputs: int, outputs: int) -> None:
        """Raise ConfigError unless products of that size can be computed."""

    @staticmethod
    @abstractmethod
    def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [n, inputs] in 8 bits, and what each is to be multiplied by, float32 [n, 1]."""

    @abstractmethod
    def multiply(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """The product of such rows with the weights, [n, outputs], in that dtype."""
