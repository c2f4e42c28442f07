"""What stands where in a training pass: levels, previous frames, controls, and who can know of whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.cache.stream import Stream
from worldsim.errors import ConfigError, ShapeError
from worldsim.models.protocol import UNKNOWN, Attend
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.training.objectives import DiffusionForcing
from worldsim.training.passes import FORGETFUL, MISTAKEN, Play, TrainingPass, add_noise, forget, open_pass

CONFIG = SmallConfig(channels=3, height=2, width=3, controls=2, dim=16, layers=2, heads=2)
PLAN = DiffusionForcing(frames=8, first=4, blocks=(2,), copies=2, context_noise=0.5)


class Spy(SmallBackbone):
    """A backbone that keeps what it was called with."""

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        self.seen = noisy, previous, sigma, controls
        return super().forward(noisy, previous, sigma, controls, attend)


def spy() -> Spy:
    """Random weights in every tensor: as first drawn, some are zero and nothing would depend on anything."""
    backbone = Spy(CONFIG)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return backbone


def given(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 9, 3, 2, 3, generator=generator), torch.rand(3, 9, 2, generator=generator)


def noisy_streams(seed: int) -> tuple[Tensor, Tensor]:
    """Noisy frames and their levels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 8, 3, 2, 3, generator=generator), torch.rand(3, 8, generator=generator)


def opened(latents: Tensor, controls: Tensor) -> TrainingPass:
    return open_pass(PLAN, Play(latents, controls), torch.Generator().manual_seed(2))


def test_the_tail_of_a_noisy_frame_is_the_frame_before_its_block() -> None:
    window = opened(*given(seed=3))
    before = [window.context[:, frame] for frame in (4, 4, 6, 6)]  # after a frame more, so that 4 is the one before 4
    assert torch.equal(window.tails, torch.stack(before * 2, dim=1))


def test_every_frame_stands_beside_its_previous_one_its_level_and_its_controls() -> None:
    latents, controls = given(seed=3)
    window, backbone = opened(latents, controls), spy()
    noisy, sigma = noisy_streams(seed=8)
    with torch.no_grad():
        window.estimate(backbone, noisy, sigma)
    values, previous, levels, steering = backbone.seen
    for frame in range(8):
        assert torch.equal(values[:, frame], window.context[:, 1 + frame])
        assert torch.equal(previous[:, frame], window.context[:, frame])
        assert torch.equal(levels[:, frame], window.context_sigma[:, 1 + frame])
        assert torch.equal(steering[:, frame], controls[:, 1 + frame])
    for copy in range(2):
        for time in range(4, 8):
            own, at = 4 * copy + time - 4, 8 + 4 * copy + time - 4
            assert torch.equal(window.clean[:, own], latents[:, 1 + time])
            assert torch.equal(values[:, at], noisy[:, own])
            assert torch.equal(previous[:, at], noisy[:, own - 1] if time % 2 else window.context[:, time])
            assert torch.equal(levels[:, at], sigma[:, own])
            assert torch.equal(steering[:, at], controls[:, 1 + time])


def test_half_of_the_context_is_noisy_up_to_the_highest_level_and_is_told_so() -> None:
    latents = torch.zeros(200, 9, 3, 2, 3)
    window = opened(latents, torch.zeros(200, 9, 2))
    sigma = window.context_sigma
    assert float(sigma.max()) < PLAN.context_noise
    assert abs(float((sigma > 0).float().mean()) - 0.5) < 4 * 0.5 / sigma.numel() ** 0.5
    assert torch.equal(window.context[sigma == 0], latents[sigma == 0])
    spread = window.context.flatten(2).square().mean(-1).sqrt()  # of unit noise at its level: sigma
    assert torch.allclose(spread[sigma > 0.1] / sigma[sigma > 0.1], torch.tensor(1.0), atol=0.75)
    assert abs(float((spread[sigma > 0.1] / sigma[sigma > 0.1]).square().mean()) - 1) < 0.05


@pytest.mark.parametrize("time", [0, 3, 5, 6])
def test_a_later_frame_changes_nothing_in_earlier_blocks(time: int) -> None:
    """Frame `time` of the window is seen by its own block and by later ones only, in every stream."""
    latents, controls = given(seed=4)
    backbone, (noisy, sigma) = spy(), noisy_streams(seed=8)
    before = opened(latents, controls)
    estimate = before.estimate(backbone, noisy, sigma)
    latents[:, 1 + time] += 1
    controls[:, 1 + time] += 1
    after = opened(latents, controls).estimate(backbone, noisy, sigma)
    changed = (estimate != after).flatten(2).any(-1).any(0)
    block = time - time % 2
    expected = [seen >= block for _ in range(2) for seen in (4, 4, 6, 6)]
    # In the block of the frame itself a noisy stream holds values of its own, but the same controls.
    assert [bool(changed[i]) for i in range(8)] == expected


def test_without_a_window_a_block_knows_the_frame_before_it_and_no_more() -> None:
    """The pass goes without the clean stream; the frame before a block still stands beside its first frame."""
    plan = replace(PLAN, window=0, copies=1)
    latents, controls = given(seed=9)
    backbone, (noisy, sigma) = spy(), noisy_streams(seed=10)
    noisy, sigma = noisy[:, :4], sigma[:, :4]

    def estimate(latents: Tensor) -> Tensor:
        window = open_pass(plan, Play(latents, controls), torch.Generator().manual_seed(2))
        return window.estimate(backbone, noisy, sigma)

    before = estimate(latents)
    values, previous, *_ = backbone.seen
    assert values.shape[1] == previous.shape[1] == before.shape[1] == 4
    for time, blocks in ((4, [True, False]), (6, [False, True]), (3, [False, False])):
        other = latents.clone()
        other[:, time] += 1
        changed = (estimate(other) != before).flatten(2).any(-1).any(0).unflatten(0, (2, 2)).any(-1)
        assert changed.tolist() == blocks, time


def test_a_noisy_block_is_seen_by_nobody_else() -> None:
    window, backbone = opened(*given(seed=5)), spy()
    noisy, sigma = noisy_streams(seed=8)
    estimate = window.estimate(backbone, noisy, sigma)
    noisy[:, 2] += 1
    changed = (window.estimate(backbone, noisy, sigma) != estimate).flatten(2).any(-1).any(0)
    assert changed.tolist() == [False, False, True, True, False, False, False, False]


def test_noise_is_mixed_in_at_the_level_of_each_frame() -> None:
    clean = torch.full((2, 3, 4, 1, 1), 5.0)
    sigma = torch.tensor([[0.0, 1.0, 0.5], [0.25, 0.0, 1.0]])
    noisy = add_noise(clean, sigma, torch.Generator().manual_seed(6))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(6))
    level = sigma[:, :, None, None, None]
    assert torch.equal(noisy, (1 - level) * clean + level * noise)


@pytest.mark.parametrize(("frames", "controls"), [(8, 8), (9, 8), (10, 10)])
def test_windows_of_another_length_are_refused(frames: int, controls: int) -> None:
    with pytest.raises(ShapeError, match=r"windows of 1 \+ 8 frames"):
        opened(torch.zeros(2, frames, 3, 2, 3), torch.zeros(2, controls, 2))


@pytest.mark.parametrize("wrong", [{"blocks": ()}, {"copies": 0}, {"context_noise": 1.0}, {"blocks": (1, 3)}])
def test_a_plan_without_anything_to_learn_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        DiffusionForcing(**({"frames": 8, "first": 4} | wrong))  # type: ignore[arg-type]


def remembered(plan: DiffusionForcing, seed: int) -> Play:
    """Windows of which something else is recalled at each place in a block."""
    latents, controls = given(seed)
    codes = torch.arange(3 * 4 * 9 * 6).reshape(3, 4, 9, 2, 3)
    return Play(latents, controls, codes)


def test_a_noisy_frame_recalls_what_was_seen_before_its_block(monkeypatch) -> None:
    monkeypatch.setattr("worldsim.training.passes.FORGETFUL", 0.0)
    monkeypatch.setattr("worldsim.training.passes.MISTAKEN", 0.0)
    for block in (1, 2, 4):
        plan = replace(PLAN, blocks=(block,))
        play = remembered(plan, seed=11)
        recalled = open_pass(plan, play, torch.Generator().manual_seed(2)).recalled
        assert recalled is not None
        assert play.recalled is not None
        assert recalled.shape == (3, 2 * 4, 2, 3)
        for copy in range(2):
            for time in range(4, 8):
                found = recalled[:, 4 * copy + time - 4]
                assert torch.equal(found, play.recalled[:, time % block, 1 + time])


def test_some_windows_forget_a_share_of_places_and_a_few_places_are_mistaken() -> None:
    recalled = torch.randint(0, 500, (4000, 1, 2, 5, 5), generator=torch.Generator().manual_seed(3))
    recalled[:, :, :, 0] = UNKNOWN
    found = forget(recalled, torch.Generator().manual_seed(4))
    known = recalled != UNKNOWN
    assert bool((found[~known] == UNKNOWN).all())
    share = (known & (found == UNKNOWN)).flatten(1).sum(1) / known.flatten(1).sum(1)
    forgetful = share > 0.1
    # Nine windows of ten with gaps miss more than a tenth.
    assert abs(float(forgetful.float().mean()) - 0.9 * FORGETFUL) < 4 * (0.15 / 4000) ** 0.5
    assert float(share[forgetful].std()) > 0.2
    whole = ~forgetful
    mistaken = (found[whole] != recalled[whole]) & known[whole] & (found[whole] != UNKNOWN)
    assert abs(float(mistaken.float().sum() / known[whole].sum()) - MISTAKEN) < 0.001


def test_where_nothing_is_recalled_there_is_nothing_to_mistake() -> None:
    recalled = torch.full((2, 1, 2, 3, 3), UNKNOWN)
    assert torch.equal(forget(recalled, torch.Generator().manual_seed(5)), recalled)


def test_what_is_recalled_is_handed_to_the_backbone() -> None:
    class Remembering(SmallBackbone):
        def recalling(self, recalled: Tensor) -> SmallBackbone:  # type: ignore[override]
            self.recalled = recalled
            return self

    backbone = Remembering(CONFIG)
    for play, wanted in ((remembered(PLAN, seed=12), True), (Play(*given(seed=12)), False)):
        window = open_pass(PLAN, play, torch.Generator().manual_seed(2))
        backbone.recalled = torch.empty(0)
        window.estimate(backbone, *noisy_streams(seed=8))
        assert (backbone.recalled is window.recalled) is wanted


def test_a_backbone_that_attends_along_time_is_refused() -> None:
    class Streamed(Spy):
        @property
        def pages(self) -> PageShape:
            stream = Stream(layers=1, heads=1, head_dim=4, rotary=Rotary(time=2, rows=0, columns=0))
            return super().pages.with_streams((), stream)

    with pytest.raises(ConfigError, match="in no stream, got PageShape"):
        opened(*given(seed=3)).estimate(Streamed(CONFIG), *noisy_streams(seed=8))
