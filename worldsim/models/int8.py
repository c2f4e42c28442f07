"""Linear layers in integers of 8 bits, whose products take a third of the time on CPUs with AVX-512 VNNI or AMX.

Source: ZeroQuant, Yao et al. 2022 (arXiv:2206.01861), token-wise activations; signed and without an offset.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.models.coded import SMALLEST, CodedLinear

LARGEST = 127


class Int8Linear(CodedLinear):
    """One in integers of 8 bits; the sums of its products are exact. See CodedLinear."""

    @staticmethod
    def check_device(device: torch.device) -> None:
        """See CodedLinear."""
        if device.type != "cpu":
            raise ConfigError(
                f"integers of 8 bits are multiplied on CPUs, and this world is on {device}; choose linears='fp8' "
                "(--linears fp8), where the GPU can, or leave linears='int8' (--linears int8) out"
            )

    @staticmethod
    def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
        """See CodedLinear: the largest number of each is 127."""
        exact = rows.float()
        scale = exact.abs().amax(-1, keepdim=True).clamp(min=SMALLEST) / LARGEST
        return (exact / scale).round().clamp(-LARGEST, LARGEST).to(torch.int8), scale

    def multiply(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """See CodedLinear."""
        sums: Tensor = torch._int_mm(rows, self.weight.t())
        made: Tensor = sums.float() * scale * self.scale
        return made.to(dtype)
