"""The palette of recorded patches: near to all, kind to the rare, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from worldsim.errors import DataError
from worldsim.training import palette as module
from worldsim.training.palette import fit_palette


def patches(seed: int) -> tuple[Tensor, Tensor]:
    """Ten well separated patches, one seen 5,000 times as often as another, and what was seen, [N, 12]."""
    generator = torch.Generator().manual_seed(seed)
    kinds = 3 * torch.randn(10, 12, generator=generator)
    times = torch.tensor([5_000, 2_000, 900, 500, 200, 90, 30, 9, 2, 2])
    return kinds, kinds.repeat_interleave(times, 0)[torch.randperm(int(times.sum()), generator=generator)]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_kind_has_a_centre_of_its_own_however_rare() -> None:
    kinds, seen = patches(1)
    centres = fit_palette(seen, 10, rng(2))
    assert torch.cdist(kinds, centres).min(-1).values.max() < 1e-4


def test_noise_that_never_comes_back_does_not_crowd_out_what_does() -> None:
    """Around one kind 3,000 patches differ a little, each seen once; they share the centres that are left."""
    kinds, seen = patches(3)
    noisy = kinds[0] + 0.02 * torch.randn(3_000, 12, generator=torch.Generator().manual_seed(4))
    centres = fit_palette(torch.cat((seen, noisy)), 16, rng(5))
    assert torch.cdist(kinds[1:], centres).min(-1).values.max() < 0.01
    assert torch.cdist(noisy, centres).min(-1).values.mean() < 0.02 * 12**0.5


def test_the_faint_is_told_apart_as_well_as_the_bright() -> None:
    """Thirty shades of two bright kinds and of the same two at a tenth of their strength, for twelve centres."""
    generator = torch.Generator().manual_seed(12)
    kinds = torch.randn(2, 12, generator=generator)
    shades = kinds.repeat(15, 1) + 0.3 * torch.randn(30, 12, generator=generator)
    seen = torch.cat((shades, shades / 10)).repeat(2, 1)
    centres = fit_palette(seen, 12, rng(13))
    assert len(set(torch.cdist(shades / 10, centres).argmin(-1).tolist())) >= 4


def test_of_what_was_seen_once_only_so_much_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SINGLES", 5)
    kinds, seen = patches(6)
    lonely = 50 + torch.randn(400, 12, generator=torch.Generator().manual_seed(7))
    with pytest.raises(DataError, match="15 different patches give no palette of 16"):
        fit_palette(torch.cat((seen, lonely)), 16, rng(8))
    assert fit_palette(torch.cat((seen, lonely)), 15, rng(8)).shape == (15, 12)
    assert len(kinds) == 10


def test_equal_seeds_give_equal_centres_in_whatever_order_patches_come() -> None:
    _, seen = patches(9)
    one, same, other = (fit_palette(given, 6, rng(seed)) for given, seed in ((seen, 1), (seen.flip(0), 1), (seen, 2)))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("size", [11, 400])
def test_more_centres_than_patches_are_refused(size: int) -> None:
    with pytest.raises(DataError, match=f"10 different patches give no palette of {size}; record more"):
        fit_palette(patches(10)[1], size, rng(11))
