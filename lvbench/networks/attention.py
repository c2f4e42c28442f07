"""A layer of attention over tokens, for networks that differ in the names of its parts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def attend(three: Sequence[Tensor], heads: int) -> Tensor:
    """What each token takes from all, [n, T, D]: queries, keys and values, each [n, T, D], are split into heads."""
    queries, keys, values = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in three)
    return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
