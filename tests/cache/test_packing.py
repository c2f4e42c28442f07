"""Parts lie in pages one behind the other, in order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldsim.cache.packing import pack

TOKENS = 7


def part(tokens: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, tokens, 3, 5, generator=generator), torch.randn(2, tokens, 3, 5, generator=generator)


@given(st.lists(st.integers(1, TOKENS), min_size=1, max_size=12), st.integers(0, 2**32))
def test_every_part_is_found_where_it_was_put(lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [part(length, generator) for length in lengths]
    packed = pack(parts, TOKENS)
    assert packed.keys.shape == packed.values.shape == (2, -(-sum(lengths) // TOKENS), TOKENS, 3, 5)
    for (keys, values), pages, place in zip(parts, packed.pages, packed.places, strict=True):
        assert len(pages) in (1, 2)
        for side, wanted in ((packed.keys, keys), (packed.values, values)):
            assert torch.equal(side[:, pages.start : pages.stop].flatten(1, 2)[:, place], wanted)


@pytest.mark.parametrize("seed", [3])
def test_what_is_left_free_repeats_the_last_token(seed: int) -> None:
    keys, values = part(4, torch.Generator().manual_seed(seed))
    packed = pack([(keys, values)], TOKENS)
    assert torch.equal(packed.keys[:, 0, 4:], keys[:, 3:].expand(-1, 3, -1, -1))
    assert torch.equal(packed.values[:, 0, 4:], values[:, 3:].expand(-1, 3, -1, -1))
