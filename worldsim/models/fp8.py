"""Linear layers in floating numbers of 8 bits, whose products take half the time on GPUs of capability 8.9 or more.

Source: FP8 formats for deep learning, Micikevicius et al. 2022 (arXiv:2209.05433), E4M3 for weights and activations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldsim.errors import ConfigError
from worldsim.models.coded import SMALLEST, CodedLinear

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
MULTIPLE = 16
"""The numbers of inputs and of outputs that products of 8 bits take divide by it."""
CAPABILITY = (8, 9)
"""Of the first GPUs that multiply such numbers."""


class Fp8Linear(CodedLinear):
    """One in floating numbers of 8 bits; see CodedLinear."""

    def __init__(self, *linears: nn.Linear) -> None:
        super().__init__(*linears)
        # On the meta device memory is planned, and such layers are for GPUs that multiply so.
        self._is_native = self.weight.is_meta or is_native(self.weight.device)

    @staticmethod
    def check_device(device: torch.device) -> None:
        """See CodedLinear."""
        if not is_native(device):
            raise ConfigError(
                "only GPUs of compute capability 8.9 or more, such as an H100 or an RTX 4090, multiply in floating "
                "numbers of 8 bits; choose linears='int8' (--linears int8) on a CPU, or leave linears='fp8' (--linears "
                "fp8) out"
            )

    @staticmethod
    def check_size(inputs: int, outputs: int) -> None:
        """See CodedLinear."""
        if inputs % MULTIPLE or outputs % MULTIPLE:
            raise ConfigError(
                f"products of 8 bits take inputs and outputs in multiples of {MULTIPLE}, and a layer has {inputs} and "
                f"{outputs}; leave its linears in their own dtype"
            )

    @staticmethod
    def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
        """See CodedLinear: the largest number of each is 448."""
        exact = rows.float()
        scale = exact.abs().amax(-1, keepdim=True).clamp(min=SMALLEST) / LARGEST
        return (exact / scale).clamp(-LARGEST, LARGEST).to(FP8), scale

    def multiply(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """See CodedLinear: on a GPU, which answers in bfloat16, or by its definition."""
        if self._is_native:
            made: Tensor = torch._scaled_mm(
                rows,
                self.weight.t(),
                scale_a=scale,
                scale_b=self.scale,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        else:
            made = rows.float() @ self.weight.float().t() * scale * self.scale
        return made.to(dtype)


def is_native(device: torch.device) -> bool:
    """Whether that device multiplies numbers of 8 bits itself; others do it in float32, which is slow."""
    if device.type == "cpu" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= CAPABILITY
