"""Turning by one kernel; importing it takes Triton, which comes with torch where there is a GPU."""

from __future__ import annotations

import subprocess

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError


def turn(x: Tensor, by: Tensor, out: Tensor) -> None:
    """Write x [..., tokens, heads, head_dim] to out, turned as worldsim_kernels.turn says, in one pass.

    Args:
        x: at most one dimension lies before its tokens; head_dim is a power of two, and its numbers lie side by side.
        by: complex64 [tokens, 1, head_dim / 2].
        out: like x, of any floating dtype.
    """
    source, target = (each if each.ndim == 4 else each[None] for each in (x, out))
    outer, tokens, heads, width = source.shape
    with torch.cuda.device_of(x):
        _turn[(outer * tokens,)](
            *(source, torch.view_as_real(by.contiguous()), target, tokens, heads),
            *(*source.stride()[:3], *target.stride()[:3]),
            block=triton.next_power_of_2(heads),
            width=width,
        )


def trouble(device: torch.device) -> str:
    """Why kernels cannot be made for that GPU, such as that there is no C compiler; empty if one ran."""
    x = torch.ones(1, 1, 2, device=device, dtype=torch.bfloat16)
    try:
        turn(x, torch.ones(1, 1, 1, device=device, dtype=torch.complex64), torch.empty_like(x))
    except (TritonError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""


@triton.jit  # type: ignore[untyped-decorator]
def _turn(
    source: tl.tensor,
    angles: tl.tensor,
    target: tl.tensor,
    tokens: tl.tensor,
    heads: tl.tensor,
    source_outer: tl.tensor,
    source_token: tl.tensor,
    source_head: tl.tensor,
    target_outer: tl.tensor,
    target_token: tl.tensor,
    target_head: tl.tensor,
    block: tl.constexpr,
    width: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    outer = (row // tokens).to(tl.int64)
    token = row % tokens
    head = tl.arange(0, block)[:, None]
    place = tl.arange(0, width)[None, :]
    inside = (head < heads) & (place < width)
    start = source + outer * source_outer + token * source_token
    numbers = tl.load(start + head * source_head + place, mask=inside, other=0).to(tl.float32)
    even, odd = tl.split(tl.reshape(numbers, (block, width // 2, 2)))
    pairs = tl.load(angles + token * width + tl.arange(0, width))
    cos, sin = tl.split(tl.reshape(pairs, (width // 2, 2)))
    cos, sin = cos[None, :], sin[None, :]
    turned = tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), (block, width))
    end = target + outer * target_outer + token * target_token
    tl.store(end + head * target_head + place, turned.to(target.dtype.element_ty), mask=inside)
