"""Attention is its formula."""

from __future__ import annotations

import torch

from lvbench.networks.attention import attend


def test_each_head_mixes_values_by_the_softmax_of_its_products():
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, 5, 12, generator=generator, dtype=torch.float64) for _ in range(3))
    found = attend((queries, keys, values), 3)
    for head in (slice(0, 4), slice(4, 8), slice(8, 12)):
        share = (queries[..., head] @ keys[..., head].transpose(1, 2) / 2).softmax(-1)
        torch.testing.assert_close(found[..., head], share @ values[..., head])
