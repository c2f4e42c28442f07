"""The sizes of the family: what is derived from them, and which cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from worldsim.errors import ConfigError, UnknownName
from worldsim.models.wan.config import SIZES, WanConfig, wan_config


def test_at_480_by_832_a_frame_has_1560_tokens_and_takes_288_mb_of_bf16() -> None:
    config = wan_config("1.3b")
    assert config.geometry.frame_shape == (16, 60, 104)
    assert (config.geometry.tokens_per_frame, config.geometry.tokens_per_block) == (1560, 4680)
    assert config.pages.bytes(torch.bfloat16) == 287_539_200
    assert wan_config("14b").pages.bytes(torch.bfloat16) == 1_277_952_000


@pytest.mark.parametrize(
    ("head_dim", "wanted"), [(128, (44, 42, 42)), (16, (8, 4, 4)), (6, (2, 2, 2)), (64, (24, 20, 20)), (10, (6, 2, 2))]
)
def test_rows_and_columns_turn_a_third_of_the_pairs_each_and_time_the_rest(
    head_dim: int, wanted: tuple[int, int, int]
) -> None:
    config = replace(wan_config("tiny"), dim=3 * head_dim)
    rotary = config.rotary
    assert (rotary.time, rotary.rows, rotary.columns) == wanted
    assert sum(wanted) == config.head_dim
    assert rotary.theta == 10_000.0


@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize(("height_px", "width_px"), [(16, 16), (48, 80), (720, 1280), (352, 640)])
def test_any_picture_of_whole_tokens_will_do(size: str, height_px: int, width_px: int) -> None:
    config = wan_config(size, height_px=height_px, width_px=width_px, frames_per_block=1)
    geometry = config.geometry
    assert (16 * geometry.rows, 16 * geometry.columns, geometry.frames_per_block) == (height_px, width_px, 1)
    assert config.pages.tokens == geometry.rows * geometry.columns
    assert config.heard == (config.layers, 2, config.text_length, config.heads, config.dim // config.heads)


@pytest.mark.parametrize(
    ("given", "nearest"), [((481, 832), "832x480"), ((1080, 1920), "1920x1088"), ((7, 24), "32x16")]
)
def test_a_picture_that_does_not_divide_is_told_the_nearest_that_does(given: tuple[int, int], nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"{given[1]}x{given[0]} pixels .*; the nearest size that does is {nearest}"):
        wan_config("1.3b", height_px=given[0], width_px=given[1])


def test_a_size_nobody_knows_is_answered_with_the_known() -> None:
    with pytest.raises(UnknownName, match=r"'1\.3B' of Wan; known: 1\.3b, 14b, tiny; did you mean '1\.3b'"):
        wan_config("1.3B")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layers": 0}, "at least 1"),
        ({"eps": 0.0}, "eps is over 0"),
        ({"heads": 5}, "does not make 5 heads"),
        ({"heads": 16, "dim": 48}, "does not make 16 heads"),
        ({"heads": 12, "dim": 48}, "at least 6 for each head"),
        ({"freq_dim": 7}, "freq_dim=7"),
        ({"channels": 36}, "36 in and 16 out"),
        ({"height": 61}, "61x104 latent does not divide into patches of 2"),
        ({"frames_per_block": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], says: str) -> None:
    sizes: dict[str, Any] = {"height": 60, "width": 104, **SIZES["tiny"], **settings}
    with pytest.raises(ConfigError, match=says):
        WanConfig(**sizes)
