"""Attention in the layout of pages, and which kernel is asked for where."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from worldsim.cache import attention
from worldsim.cache.attention import attend_all


def test_every_head_attends_to_all_keys_by_its_own_scores() -> None:
    q, k, v = (torch.randn(2, n, 3, 8, generator=torch.Generator().manual_seed(n)).double() for n in (5, 7, 8))
    v = v[:, 1:]
    weights = (torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5).softmax(-1)
    exact = torch.einsum("bhqk,bkhd->bqhd", weights, v)
    found = attend_all(q, k, v)
    assert found.shape == q.shape
    assert (found - exact).abs().max() < 1e-12


class Queries:
    """What of queries decides which kernel is asked for."""

    def __init__(self, *, count: int, dtype: torch.dtype, is_cuda: bool) -> None:
        self.shape, self.dtype, self.is_cuda, self.device = (1, count, 12, 128), dtype, is_cuda, None


@pytest.mark.parametrize(
    ("count", "dtype", "is_cuda", "capability", "first"),
    [
        (4680, torch.bfloat16, True, (9, 0), True),
        (4680, torch.bfloat16, True, (8, 0), False),
        (4680, torch.bfloat16, False, (9, 0), False),
        (4680, torch.float32, True, (9, 0), False),
        (64, torch.bfloat16, True, (9, 0), False),
    ],
)
def test_long_blocks_in_half_precision_ask_for_cudnn_first_on_newer_gpus(
    monkeypatch: pytest.MonkeyPatch,
    *,
    count: int,
    dtype: torch.dtype,
    is_cuda: bool,
    capability: tuple[int, int],
    first: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    before = torch._C._get_sdp_priority_order()
    with attention._preferred(Queries(count=count, dtype=dtype, is_cuda=is_cuda)):
        order = torch._C._get_sdp_priority_order()
    assert order == ([int(each) for each in attention.ORDER] + [each for each in order[4:]] if first else before)
    assert torch._C._get_sdp_priority_order()[: len(before)] == before
    with sdpa_kernel([SDPBackend.MATH]):
        pass  # what was allowed before is allowed again
    assert torch.backends.cuda.flash_sdp_enabled()
