"""Attention of all queries over all keys, by the kernel that is fastest where it runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

ORDER = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Of kernels on a GPU that multiplies matrices asynchronously, for long blocks."""
LONG = 1024
"""Queries from which on cuDNN's kernel is taken: it is planned anew for every size."""
CAPABILITY = (9, 0)
"""Of the first GPUs on which that one is faster than torch's own."""


def attend_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The attended values, scaled by 1 / sqrt(head_dim), of q [B, n, heads, head_dim]; like it.

    Args:
        q: queries.
        k, v: keys and values, [B, m, heads, head_dim], of any strides.
    """
    with _preferred(q):
        attended = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return attended.transpose(1, 2)


def _preferred(q: Tensor) -> AbstractContextManager[object]:
    if not q.is_cuda or q.dtype == torch.float32 or q.shape[1] < LONG:
        return nullcontext()
    if torch.cuda.get_device_capability(q.device) < CAPABILITY:
        return nullcontext()
    return sdpa_kernel(ORDER, set_priority=True)
