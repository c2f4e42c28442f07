"""Block Forcing: which past is alike, where estimates are forced to, and how much beliefs are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.errors import ConfigError, UnknownName
from worldsim.training.attention import StreamLayout
from worldsim.training.forcing import BlockForcing, past_of


def shades(*levels: float) -> Tensor:
    """One window of frames of those grey levels, [1, F, 2, 1, 3]."""
    return torch.tensor(levels)[None, :, None, None, None].expand(1, -1, 2, 1, 3)


def alike(window: Tensor, **layout: int) -> list[float]:
    found = past_of(window, StreamLayout(frames=window.shape[1] - 1, window=9, **layout))
    return found[0, :, 0, 0, 0].tolist()


def test_the_frame_most_like_the_one_to_come_is_found_among_all_before_it() -> None:
    window = shades(0.0, 9.0, 0.2, 4.0, 8.7, 0.15)
    assert alike(window, block=1) == pytest.approx([0.0, 0.0, 0.2, 9.0, 0.2])


def test_a_run_of_frames_is_alike_as_a_whole_and_lies_before_the_block() -> None:
    window = shades(1.0, 2.0, 1.0, 2.0, 7.0, 1.1, 2.1, 7.0, 1.2)
    assert alike(window, block=2) == pytest.approx([2.0, 1.0, 1.0, 2.0, 1.0, 2.0, 7.0, 1.1])


def test_a_block_without_a_whole_run_before_it_is_alike_itself() -> None:
    window = shades(3.0, 1.0, 2.0, 5.0, 6.0)
    assert alike(window, block=2)[:2] == [1.0, 2.0]
    assert alike(window, block=4) == [1.0, 2.0, 5.0, 6.0]


def test_every_copy_of_a_block_is_forced_alike_and_frames_that_are_context_only_are_not() -> None:
    window = shades(0.0, 9.0, 0.2, 4.0, 8.7)
    assert alike(window, block=1, first=2, copies=2) == pytest.approx([0.2, 9.0] * 2)


def test_the_latest_run_ends_where_the_block_begins() -> None:
    window = shades(1.0, 2.0, 1.0, 2.0, 7.0, 1.1, 2.1, 7.0, 1.2)
    layout = StreamLayout(frames=8, block=2, window=9, first=2, copies=2)
    found = past_of(window, layout, "latest")[0, :, 0, 0, 0].tolist()
    assert found == pytest.approx([2.0, 1.0, 2.0, 7.0, 1.1, 2.1] * 2)


def test_windows_find_their_own() -> None:
    window = torch.cat((shades(0.0, 5.0, 1.0), shades(0.0, 5.0, 4.0)))
    found = past_of(window, StreamLayout(frames=2, block=1, window=2))
    assert found[:, 1, 0, 0, 0].tolist() == [0.0, 5.0]


def test_the_aim_is_the_estimate_whose_velocity_is_the_published_target() -> None:
    generator = torch.Generator().manual_seed(1)
    clean, past, noise = (torch.randn(2, 3, 4, 1, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    sigma = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    aim = BlockForcing(gamma=0.8).aim(clean, past, sigma)
    spread = sigma[:, :, None, None, None]
    velocity = (((1 - spread) * clean + spread * noise) - aim) / spread
    torch.testing.assert_close(velocity, noise - 0.8 * past)


@pytest.mark.parametrize("weight", [0.1, 3.0])
def test_beliefs_lean_as_far_as_the_sum_of_both_errors_would_have_them(weight: float) -> None:
    clean, past = torch.zeros(1, 2, 3, 40, 60), torch.ones(1, 2, 3, 40, 60)
    sigma = torch.tensor([[0.9, 0.2]])
    force, generator = BlockForcing(weight=weight), torch.Generator().manual_seed(2)
    drawn = force.drawn(clean, past, sigma, (20, 30), generator)
    assert torch.equal(drawn, drawn[:, :, :1].expand_as(drawn))
    tokens = drawn[0, :, 0].unflatten(1, (20, 2)).unflatten(3, (30, 2))
    assert torch.equal(tokens, tokens[:, :, :1, :, :1].expand_as(tokens))
    estimate = torch.linspace(0, 1, 10_001)
    for frame, level in enumerate((0.9, 0.2)):
        best = estimate[(estimate.square() + weight * (estimate - level).square()).argmin()]
        assert abs(drawn[0, frame].mean() - best) < 4 * (best * (1 - best) / 600).sqrt()


@pytest.mark.parametrize("wrong", [{"weight": 0.0}, {"weight": -1.0}, {"gamma": 0.0}, {"weight": float("nan")}])
def test_a_force_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="leave it out for none"):
        BlockForcing(**wrong)


def test_a_past_that_is_none_is_refused() -> None:
    with pytest.raises(UnknownName, match="alike, latest"):
        BlockForcing(past="oldest")
