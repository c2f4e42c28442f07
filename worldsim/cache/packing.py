"""Parts of several frames in as few pages as hold them: one behind the other, across the borders of pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Pages made of parts.

    keys, values: [layers, pages, tokens, heads, head_dim].
    pages: of each part the one or two pages that it lies in, counted from 0.
    places: and where in these.
    """

    keys: Tensor
    values: Tensor
    pages: tuple[range, ...]
    places: tuple[slice, ...]


def pack(parts: Sequence[tuple[Tensor, Tensor]], tokens: int) -> Packed:
    """The fewest pages of that many tokens that hold the parts in order.

    Args:
        parts: keys and values, each [layers, n, heads, head_dim], n from 1 to tokens.
        tokens: of a page. What is left free in the last repeats the token before it, so that a code whose range spans
            the tokens of a page spans no others.
    """
    borders = list(pairwise(accumulate((keys.shape[1] for keys, _ in parts), initial=0)))
    pages = tuple(range(start // tokens, -(-end // tokens)) for start, end in borders)
    places = tuple(
        slice(start - own.start * tokens, end - own.start * tokens)
        for (start, end), own in zip(borders, pages, strict=True)
    )
    keys, values = (_filled(torch.cat(side, dim=1), tokens) for side in zip(*parts, strict=True))
    return Packed(keys=keys, values=values, pages=pages, places=places)


def _filled(side: Tensor, tokens: int) -> Tensor:
    """Whole pages of keys or values [layers, n, heads, head_dim]."""
    rest = side[:, -1:].expand(-1, -side.shape[1] % tokens, -1, -1)
    whole: Tensor = torch.cat((side, rest), dim=1).unflatten(1, (-1, tokens))
    return whole
