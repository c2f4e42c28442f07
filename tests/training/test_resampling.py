"""Self-forcing: a context that follows the backbone's own frames, near the true ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldsim.cache.policy import Full
from worldsim.cache.pool import PagePool
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.video import VideoDecoder
from worldsim.errors import ConfigError
from worldsim.models.protocol import Attend
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.samplers import few_step
from worldsim.training.objectives import BeliefForcing, DiffusionForcing
from worldsim.training.passes import Play
from worldsim.training.resampling import Resampling

CONFIG = SmallConfig(channels=3, height=2, width=3, controls=2, dim=16, layers=1, heads=2)
FRAMES = 4


def play(seed: int, windows: int = 2) -> Play:
    generator = torch.Generator().manual_seed(seed)
    return Play(
        torch.randn(windows, 1 + FRAMES, 3, 2, 3, generator=generator),
        torch.rand(windows, 1 + FRAMES, 2, generator=generator),
    )


def history(backbone: SmallBackbone, given: Play, seed: int, *, draw: bool = False, level: float = 1.0) -> Tensor:
    resampling = Resampling(levels=(level, level), share=1.0)
    made = resampling.history(backbone, given, draw=draw, generator=torch.Generator().manual_seed(seed))
    assert made is not None
    assert not made.requires_grad
    assert torch.equal(made[:, 0], given.latents[:, 0])
    return made


def trained(seed: int, palette: int = 0) -> SmallBackbone:
    """A backbone of which no weight is 0, so that its answers depend on all it is given."""
    generator = torch.Generator().manual_seed(seed)
    backbone = SmallBackbone(replace(CONFIG, palette=palette), generator)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    if backbone.palette is not None:
        backbone.palette.fill(torch.randn(palette, 3, generator=generator))
    return backbone


class Counting(SmallBackbone):
    """Takes every frame for the one before it and 1 more."""

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        super().forward(noisy, previous, sigma, controls, attend)  # so that there is something to remember
        return previous + 1


class Trusting(SmallBackbone):
    """Takes noise for what is there."""

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        super().forward(noisy, previous, sigma, controls, attend)
        return noisy


@pytest.mark.parametrize("seed", [1, 2])
def test_every_frame_follows_the_one_that_was_made_before_it(seed: int) -> None:
    given = play(seed)
    made = history(Counting(CONFIG, torch.Generator().manual_seed(seed)), given, seed)
    for at in range(1, 1 + FRAMES):
        torch.testing.assert_close(made[:, at], given.latents[:, 0] + at)


@pytest.mark.parametrize("level", [0.25, 0.75])
def test_a_frame_begins_as_the_truth_that_so_much_noise_has_left(level: float) -> None:
    given = play(3, windows=40)
    made = history(Trusting(CONFIG, torch.Generator().manual_seed(3)), given, 4, level=level)
    noise = (made[:, 1:] - (1 - level) * given.latents[:, 1:]) / level
    assert abs(float(noise.mean())) < 4 / noise.numel() ** 0.5
    assert float(noise.std()) == pytest.approx(1, abs=4 / noise.numel() ** 0.5)
    one, other = noise[0], noise[1]
    assert not torch.isclose(one, other).any()


@pytest.mark.parametrize(("seed", "draw"), [(5, False), (6, True)])
def test_from_noise_alone_it_is_what_a_decoder_makes_of_the_same_past(seed: int, draw: bool) -> None:
    """Window by window, through a cache of its own: rounding is all that sharing calls may change."""
    backbone, given = trained(seed, palette=5 if draw else 0), play(seed)
    made = history(backbone, given, seed, draw=draw)
    generator = torch.Generator().manual_seed(seed)
    torch.rand(2, generator=generator)
    seeds = torch.randint(2**62, (2,), generator=generator).tolist()
    plan = VideoPlan(frames_per_block=1, sigmas=(1.0,), sampler=few_step, policy=Full(), draw=draw)
    for row, number in enumerate(seeds):
        pool = PagePool(backbone.pages, pages=1 + FRAMES, dtype=torch.float32, device=torch.device("cpu"))
        decoder = VideoDecoder(backbone, pool, plan, seed=number)
        decoder.prefill(given.latents[row : row + 1, :1], given.controls[row : row + 1, :1])
        for at in range(1, 1 + FRAMES):
            block = decoder.propose(given.controls[row : row + 1, at : at + 1])
            decoder.commit(block)
            torch.testing.assert_close(made[row, at], block.latents[0, 0], rtol=1e-4, atol=1e-5)


def test_only_a_share_of_the_passes_follows_its_own_frames() -> None:
    backbone, given = Counting(CONFIG, torch.Generator().manual_seed(7)), play(7)
    generator = torch.Generator().manual_seed(8)
    resampling = Resampling(share=0.25)
    made = [resampling.history(backbone, given, draw=False, generator=generator) for _ in range(200)]
    assert sum(one is not None for one in made) == pytest.approx(50, abs=25)


def test_levels_are_drawn_between_those_asked_for() -> None:
    backbone, generator = Trusting(CONFIG, torch.Generator().manual_seed(9)), torch.Generator().manual_seed(10)
    found = []
    for _ in range(40):
        made = Resampling(levels=(0.4, 0.6), share=1.0).history(
            backbone, Play(torch.zeros(80, 2, 3, 2, 3), torch.zeros(80, 2, 2)), draw=False, generator=generator
        )
        assert made is not None
        found.append(float(made[:, 1:].std()))
    assert 0.38 < min(found) < 0.45
    assert 0.55 < max(found) < 0.62


class Watching(SmallBackbone):
    """Keeps what it is given, and answers 0."""

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        super().forward(noisy, previous, sigma, controls, attend)
        self.noisy, self.previous = noisy, previous
        return torch.zeros_like(noisy)


def test_a_pass_sees_the_backbones_own_frames_and_is_judged_by_the_true_ones() -> None:
    objective = DiffusionForcing(
        frames=FRAMES, first=0, blocks=(1,), context_noise=0.0, floor=1.0, resampling=Resampling(share=1.0)
    )
    backbone, given = Watching(CONFIG, torch.Generator().manual_seed(11)), play(11)
    loss = objective.loss(backbone, given, torch.Generator().manual_seed(12))
    own = torch.cat((given.latents[:, :1], torch.zeros_like(given.latents[:, 1:])), dim=1)
    assert torch.equal(backbone.noisy[:, :FRAMES], own[:, 1:])
    assert torch.equal(backbone.previous, torch.cat((own[:, :-1], own[:, :-1]), dim=1))
    torch.testing.assert_close(loss, given.latents[:, 1:].square().mean())


def test_beliefs_learn_from_such_passes_too() -> None:
    objective = BeliefForcing(frames=FRAMES, first=2, blocks=(1, 2), resampling=Resampling(share=1.0))
    backbone, given = trained(13, palette=5), play(13)
    loss = objective.loss(backbone, given, torch.Generator().manual_seed(14))
    plain = replace(objective, resampling=None).loss(backbone, given, torch.Generator().manual_seed(14))
    assert loss.isfinite()
    assert loss != plain
    loss.backward()


@pytest.mark.parametrize("wrong", [{"levels": (0.0, 1.0)}, {"levels": (0.8, 0.4)}, {"share": 0.0}, {"share": 1.5}])
def test_levels_and_shares_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="in a share of the passes in"):
        Resampling(**wrong)  # type: ignore[arg-type]
