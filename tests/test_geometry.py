"""The latent layout: every size follows from the five that are given."""

from __future__ import annotations

import pytest

from worldsim.errors import ConfigError
from worldsim.geometry import LatentGeometry

SIZES = {"channels": 3, "height": 15, "width": 21, "patch": 3, "frames_per_block": 2}


def test_token_counts_follow_from_the_sizes() -> None:
    layout = LatentGeometry(**SIZES)
    assert (layout.rows, layout.columns) == (5, 7)
    assert layout.tokens_per_frame == 35
    assert layout.tokens_per_block == 70
    assert layout.frame_shape == (3, 15, 21)


@pytest.mark.parametrize("side", ["height", "width"])
def test_a_side_that_does_not_divide_into_patches_is_refused_with_what_would_fit(side: str) -> None:
    with pytest.raises(ConfigError, match=r"does not divide into patches of 3; use .* multiples of 3"):
        LatentGeometry(**{**SIZES, side: 16})


@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize("value", [0, -3])
def test_a_size_below_one_is_refused(size: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"at least 1.*{size}={value}"):
        LatentGeometry(**{**SIZES, size: value})


def test_equal_sizes_make_equal_geometries() -> None:
    assert LatentGeometry(**SIZES) == LatentGeometry(**SIZES)
    assert LatentGeometry(**SIZES) != LatentGeometry(**{**SIZES, "frames_per_block": 3})
