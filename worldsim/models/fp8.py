"""Linear layers in numbers of 8 bits, whose products take half the time on GPUs of capability 8.9 or more.

Weights are rounded once, with a scale for each output; inputs as they come, each row with a scale of its own.

Source: FP8 formats for deep learning, Micikevicius et al. 2022 (arXiv:2209.05433), E4M3 for weights and activations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldsim.errors import ConfigError

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
SMALLEST = 1e-12
"""The least that a row counts as its largest number, so that a row of zeros has a scale."""
MULTIPLE = 16
"""The numbers of inputs and of outputs that products of 8 bits take divide by it."""
CAPABILITY = (8, 9)
"""Of the first GPUs that multiply such numbers."""


class Fp8Linear(nn.Module):
    """A linear layer with weights of 8 bits; what it is given and gives has the dtype of the layer it is made of.

    Args:
        linears: whose weights are rounded, each output's by its own scale; of several the outputs lie side by side.

    Raises:
        ConfigError: inputs or outputs do not divide by 16.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, *linears: nn.Linear) -> None:
        super().__init__()
        exact = torch.cat([linear.weight.detach() for linear in linears])
        if exact.shape[0] % MULTIPLE or exact.shape[1] % MULTIPLE:
            raise ConfigError(
                f"products of 8 bits take inputs and outputs in multiples of {MULTIPLE}, and a layer has "
                f"{exact.shape[1]} and {exact.shape[0]}; leave its linears in their own dtype"
            )
        weight, scale = rounded(exact)
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.register_buffer("weight", weight)  # [outputs, inputs]
        self.register_buffer("scale", scale.t().contiguous())  # [1, outputs]
        self.register_buffer("bias", torch.cat(biases) if biases else None)
        # On the meta device memory is planned, and such layers are for GPUs that multiply so.
        self._is_native = weight.is_meta or is_native(weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Of x [..., inputs], [..., outputs]."""
        rows, scale = rounded(x.flatten(0, -2))
        multiply = _scaled_mm if self._is_native else _multiplied
        made: Tensor = multiply(rows, self.weight, scale, self.scale, x.dtype).unflatten(0, x.shape[:-1])
        return made if self.bias is None else made + self.bias


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [n, inputs] in 8 bits, and what each is to be multiplied by, float32 [n, 1]: its largest number is 448."""
    exact = rows.float()
    scale = exact.abs().amax(-1, keepdim=True).clamp(min=SMALLEST) / LARGEST
    return (exact / scale).clamp(-LARGEST, LARGEST).to(FP8), scale


def is_native(device: torch.device) -> bool:
    """Whether that device multiplies numbers of 8 bits itself; others do it in float32, which is slow."""
    if device.type == "cpu" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= CAPABILITY


def _scaled_mm(rows: Tensor, weight: Tensor, scale: Tensor, outputs: Tensor, dtype: torch.dtype) -> Tensor:
    """The product on such a GPU, which answers in bfloat16."""
    made: Tensor = torch._scaled_mm(
        rows, weight.t(), scale_a=scale, scale_b=outputs, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return made.to(dtype)


def _multiplied(rows: Tensor, weight: Tensor, scale: Tensor, outputs: Tensor, dtype: torch.dtype) -> Tensor:
    """The same by its definition."""
    made: Tensor = rows.float() @ weight.float().t() * scale * outputs
    return made.to(dtype)
