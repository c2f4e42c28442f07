"""Flow matching with a level for every block: what is drawn, what is counted, and that it is learned."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from worldsim.decoding.noise_plan import NoisePlan
from worldsim.errors import ConfigError
from worldsim.models.protocol import Attend
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.training.forcing import BlockForcing, past_of
from worldsim.training.objectives import BeliefForcing, DiffusionForcing
from worldsim.training.passes import Play, open_pass

CONFIG = SmallConfig(channels=3, height=2, width=3, controls=2, dim=16, layers=1, heads=2)


class Constant(SmallBackbone):
    """A backbone that answers 0 and keeps the levels it was called with."""

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        self.sigma = sigma
        return torch.zeros_like(noisy)


def levels(objective: DiffusionForcing, windows: int, seed: int) -> Tensor:
    """The noise levels of the noisy streams of one pass, [windows, copies * (frames - first)]."""
    backbone, generator = Constant(CONFIG), torch.Generator().manual_seed(seed)
    latents, controls = (
        torch.zeros(windows, 1 + objective.frames, 3, 2, 3),
        torch.zeros(windows, 1 + objective.frames, 2),
    )
    objective.loss(backbone, Play(latents, controls), generator)
    return backbone.sigma[:, objective.frames :]


@pytest.mark.parametrize("block", [1, 2, 4])
def test_levels_are_equal_inside_a_block_and_independent_across(block: int) -> None:
    sigma = levels(DiffusionForcing(frames=8, first=4, blocks=(block,), copies=2), windows=400, seed=1)
    blocks = sigma.unflatten(1, (-1, block))
    assert torch.equal(blocks, blocks[..., :1].expand_as(blocks))
    across = torch.corrcoef(blocks[..., 0].T) - torch.eye(8 // block)
    assert across.abs().max() < 4 / 400**0.5


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_levels_lean_towards_noise_by_the_shift(shift: float) -> None:
    """The distribution of shift * u / (1 + (shift - 1) * u), u uniform; Kolmogorov-Smirnov at 0.1 %."""
    sigma = levels(DiffusionForcing(frames=2, first=0, blocks=(1,), shift=shift), windows=1000, seed=2).flatten()
    u = (sigma / (shift - (shift - 1) * sigma)).sort().values
    steps = torch.arange(1, 2001) / 2000
    assert (u - steps).abs().max() < 1.95 / 2000**0.5


def test_every_block_length_is_drawn() -> None:
    objective = DiffusionForcing(frames=8, first=4)
    seen = set()
    for seed in range(30):
        sigma = levels(objective, windows=1, seed=seed)[0]
        seen.add(4 // len(sigma.unique()))
    assert seen == {1, 2, 4}


def test_an_error_counts_as_that_of_its_velocity_down_to_the_floor() -> None:
    objective = DiffusionForcing(frames=4, first=0, blocks=(1,), floor=0.4)
    backbone, generator = Constant(CONFIG), torch.Generator().manual_seed(3)
    latents = torch.randn(2, 5, 3, 2, 3, generator=generator)
    loss = objective.loss(backbone, Play(latents, torch.zeros(2, 5, 2)), generator)
    sigma = backbone.sigma[:, 4:]
    assert sigma.min() < 0.4 < sigma.max()
    errors = [
        latents[w, 1 + f].double().square().mean() / max(float(sigma[w, f]), 0.4) ** 2
        for w in range(2)
        for f in range(4)
    ]
    assert torch.isclose(loss.double(), torch.stack(errors).mean(), rtol=1e-6)


def test_a_few_updates_on_a_tiny_set_lower_the_loss() -> None:
    objective = DiffusionForcing(frames=4, first=2, blocks=(1, 2))
    backbone = SmallBackbone(CONFIG, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(5)
    latents, controls = torch.randn(2, 5, 3, 2, 3, generator=generator), torch.zeros(2, 5, 2)
    optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = objective.loss(backbone, Play(latents, controls), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_gradient_reaches_every_parameter_after_two_updates() -> None:
    """In the first, the zeros that it begins with hold gradients back; after that nothing may."""
    objective = DiffusionForcing(frames=4, first=2, blocks=(2,))
    backbone = SmallBackbone(CONFIG, torch.Generator().manual_seed(6))
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 5, 3, 2, 3, generator=generator)
    optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        play = Play(latents, torch.rand(2, 5, 2, generator=generator))
        objective.loss(backbone, play, generator).backward()
        optimizer.step()
    still = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


PATCHES = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.5, -1.0], [0.0, 1.0, 0.0]])


def believing(seed: int) -> SmallBackbone:
    """A backbone that believes in three patches."""
    backbone = SmallBackbone(replace(CONFIG, palette=3), torch.Generator().manual_seed(seed))
    assert backbone.palette is not None
    backbone.palette.fill(PATCHES)
    return backbone


def tiles(windows: int, frames: int, seed: int) -> Tensor:
    """Frames of which every token shows one of the three patches, [windows, frames, 3, 2, 3]."""
    picks = torch.randint(3, (windows, frames, 2, 3), generator=torch.Generator().manual_seed(seed))
    return PATCHES[picks].movedim(-1, 2)


def test_beliefs_learn_to_expect_what_they_are_shown() -> None:
    """Two windows of random tiles, told apart by their controls, are known by heart after a hundred updates."""
    objective = BeliefForcing(frames=4, first=2, blocks=(1, 2), context_noise=0.0)
    backbone, generator = believing(8), torch.Generator().manual_seed(9)
    latents, controls = tiles(2, 5, seed=10), torch.eye(2)[:, None].expand(2, 5, 2)
    optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        loss = objective.loss(backbone, Play(latents, controls), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert abs(losses[0] - math.log(3)) < 0.5
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])


def watched(backbone: SmallBackbone) -> tuple[SmallBackbone, list[tuple[Any, ...]]]:
    """That backbone, and what its surprise is asked of from now on."""
    asked: list[tuple[Any, ...]] = []
    weighed = backbone.weighed

    def spy(*arguments: Any) -> tuple[Tensor, Tensor]:
        asked.append(arguments)
        return weighed(*arguments)

    backbone.weighed = spy  # type: ignore[method-assign]
    return backbone, asked


def test_the_surprise_is_asked_of_the_noisy_streams_and_averaged() -> None:
    objective = BeliefForcing(frames=4, first=2, blocks=(1,), copies=2)
    backbone, asked = watched(believing(11))
    latents = tiles(3, 5, seed=12)
    loss = objective.loss(backbone, Play(latents, torch.zeros(3, 5, 2)), torch.Generator().manual_seed(13))
    ((noisy, previous, sigma, controls, attend, clean),) = asked
    assert torch.equal(clean, latents[:, 3:].repeat(1, 2, 1, 1, 1))
    assert noisy.shape[1] == 4 + 4
    assert torch.equal(loss, believing(11).weighed(noisy, previous, sigma, controls, attend, clean)[0].mean())


def test_rows_count_as_much_as_they_are_told_to() -> None:
    backbone, latents, controls = believing(11), tiles(3, 5, seed=12), torch.zeros(3, 5, 2)

    def loss(*rows: float) -> Tensor:
        objective = BeliefForcing(frames=4, first=2, blocks=(1,), rows=rows)
        return objective.loss(backbone, Play(latents, controls), torch.Generator().manual_seed(13)).detach()

    first, second = loss(1, 0), loss(0, 7)
    assert not torch.isclose(first, second, rtol=1e-3)
    assert torch.allclose(loss(), (first + second) / 2)
    assert torch.allclose(loss(1, 1), loss())
    assert torch.allclose(loss(1, 3), (first + 3 * second) / 4)


def test_spots_count_otherwise_than_their_row() -> None:
    backbone, latents, controls = believing(11), tiles(3, 5, seed=12), torch.zeros(3, 5, 2)

    def loss(rows: tuple[float, ...], *spots: tuple[int, int, float]) -> Tensor:
        objective = BeliefForcing(frames=4, first=2, blocks=(1,), rows=rows, spots=spots)
        return objective.loss(backbone, Play(latents, controls), torch.Generator().manual_seed(13)).detach()

    tokens = [loss((0, 0), (row, column, 1)) for row in range(2) for column in range(3)]
    assert torch.allclose(loss(()), sum(tokens) / 6)
    wanted = (sum(tokens[:3]) + 2 * sum(tokens[3:5]) + 9 * tokens[5]) / 16
    assert torch.allclose(loss((1, 2), (1, 2, 9)), wanted)
    with pytest.raises(ConfigError, match="no token 1, 3 among 2 rows and 3 columns"):
        loss((), (1, 3, 2))


class Entering(SmallBackbone):
    """A backbone of three patches whose first column shows what enters under the first control."""

    def enters(self, controls: Tensor) -> Tensor:
        entering = torch.zeros(*controls.shape[:2], 2, 3, dtype=torch.bool)
        entering[..., 0] = (controls[..., 0] > 0.5)[..., None]
        return entering


def test_what_a_move_brings_into_view_counts_as_much_as_it_is_told_to() -> None:
    backbone = Entering(replace(CONFIG, palette=3), torch.Generator().manual_seed(11))
    assert backbone.palette is not None
    backbone.palette.fill(PATCHES)
    latents, controls = tiles(3, 5, seed=12), torch.zeros(3, 5, 2)
    controls[:, 3:, 0] = 1

    def loss(entering: float) -> Tensor:
        objective = BeliefForcing(frames=4, first=2, blocks=(1,), entering=entering)
        return objective.loss(backbone, Play(latents, controls), torch.Generator().manual_seed(13)).detach()

    nothing, once, thrice = loss(0.0), loss(1.0), loss(3.0)
    assert 0.2 * once < once - nothing < 0.5 * once  # a third of the tokens
    assert torch.allclose(thrice - nothing, 3 * (once - nothing), rtol=1e-4)


@pytest.mark.parametrize("entering", [1.0, 3.0])
def test_what_comes_into_view_counts_nothing_in_windows_chosen_for_what_happens_in_them(entering: float) -> None:
    backbone = Entering(replace(CONFIG, palette=3), torch.Generator().manual_seed(11))
    assert backbone.palette is not None
    backbone.palette.fill(PATCHES)
    latents, controls = tiles(3, 5, seed=12), torch.zeros(3, 5, 2)
    controls[:, 3:, 0] = 1

    def loss(chosen: list[bool] | None, entering: float = entering) -> Tensor:
        objective = BeliefForcing(frames=4, first=2, blocks=(1,), entering=entering)
        play = Play(latents, controls, chosen=None if chosen is None else torch.tensor(chosen))
        return objective.loss(backbone, play, torch.Generator().manual_seed(13)).detach()

    none, some, all_ = loss([False] * 3), loss([False, True, False]), loss([True] * 3)
    assert torch.equal(none, loss(None))
    assert torch.allclose(all_, loss(None, entering=0.0))
    assert all_ < some < none
    singles = [none - loss([at == other for other in range(3)]) for at in range(3)]
    assert torch.allclose(sum(singles), none - all_, rtol=1e-4)  # type: ignore[arg-type]


def test_as_many_rows_must_count_as_there_are() -> None:
    objective = BeliefForcing(frames=4, first=2, blocks=(1,), rows=(1, 1, 1))
    play = Play(tiles(1, 5, seed=12), torch.zeros(1, 5, 2))
    with pytest.raises(ConfigError, match="there are 2 rows of tokens, and 3 say how much they count"):
        objective.loss(believing(11), play, torch.Generator().manual_seed(13))


def test_only_beliefs_can_be_trained_as_beliefs() -> None:
    backbone = SmallBackbone(CONFIG, torch.Generator().manual_seed(14))
    with pytest.raises(ConfigError, match="holds no beliefs"):
        BeliefForcing(frames=4, first=0).loss(
            backbone, Play(tiles(1, 5, seed=15), torch.zeros(1, 5, 2)), torch.Generator().manual_seed(16)
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"shift": 0.0},
        {"context_noise": 1.0},
        {"first": 3},
        {"rows": (1, -1)},
        {"rows": (0,)},
        {"entering": -1.0},
        {"spots": ((0, 0, -1),)},
    ],
)
def test_beliefs_under_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        BeliefForcing(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"floor": 0.0}, {"floor": 1.5}, {"shift": 0.0}, {"context_noise": -0.1}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        DiffusionForcing(**wrong)  # type: ignore[arg-type]


def test_estimates_are_forced_towards_what_is_alike_by_the_weight() -> None:
    """The published term, written out as the error of a velocity, on top of the loss without it."""
    force = BlockForcing(weight=0.3, gamma=0.9)
    plain = DiffusionForcing(frames=4, first=0, blocks=(2,), floor=0.01)
    backbone = Constant(CONFIG)
    latents = torch.randn(2, 5, 3, 2, 3, generator=torch.Generator().manual_seed(3))
    play = Play(latents, torch.zeros(2, 5, 2))

    def loss(objective: DiffusionForcing) -> Tensor:
        return objective.loss(backbone, play, torch.Generator().manual_seed(4)).double()

    added = loss(replace(plain, forcing=force)) - loss(plain)
    sigma = backbone.sigma[:, 4:, None, None, None].double()
    clean = latents[:, 1:].double()
    past = past_of(latents, open_pass(plain, play, torch.Generator().manual_seed(4)).layout).double()
    # An estimate of 0 has the velocity noise + (1 / sigma - 1) * clean; the noise falls out of the difference.
    velocity, target = (1 / sigma - 1) * clean, -0.9 * past
    assert torch.isclose(added, 0.3 * (velocity - target).square().mean(), rtol=1e-5)


def test_beliefs_are_forced_towards_what_is_alike_in_one_call() -> None:
    objective = BeliefForcing(frames=4, first=0, blocks=(1,), forcing=BlockForcing(weight=9.0))
    backbone, asked = watched(believing(11))
    latents = tiles(40, 5, seed=12)
    loss = objective.loss(backbone, Play(latents, torch.zeros(40, 5, 2)), torch.Generator().manual_seed(13))
    ((*inputs, target),) = asked
    clean, sigma = latents[:, 1:], inputs[2][:, 4:]
    alike = past_of(latents, open_pass(objective, Play(latents, torch.zeros(40, 5, 2)), torch.Generator()).layout)
    is_alike, is_clean = ((target == side).all(2) for side in (alike, clean))
    assert (is_alike | is_clean).all()
    other = (alike != clean).any(2)
    share, wanted = (is_alike & other).sum() / other.sum(), (0.9 * sigma[:, :, None, None] * other).sum() / other.sum()
    assert abs(share - wanted) < 4 * (0.25 / other.sum()) ** 0.5
    assert torch.equal(loss, believing(11).weighed(*inputs, target)[0].mean())


@pytest.mark.parametrize("kind", [DiffusionForcing, BeliefForcing])
def test_blocks_stand_where_a_plan_of_noise_puts_them(kind: Any) -> None:
    objective = kind(frames=4, first=0, blocks=(1,), noise=NoisePlan(low=30, high=60, period=4))
    backbone = believing(11) if kind is BeliefForcing else SmallBackbone(CONFIG)
    asked = []
    run = backbone.run

    def spy(*arguments: Any) -> Any:
        asked.append(arguments[2])
        return run(*arguments)

    backbone.run = spy  # type: ignore[method-assign]
    losses = [
        objective.loss(backbone, Play(tiles(50, 5, seed=1), torch.zeros(50, 5, 2)), torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    sigma = asked[0][:, 4:]
    at_the_beginning = (sigma[..., None] - torch.tensor([0.3, 0.4, 0.5, 0.6])).abs().amin(-1) < 1e-6
    assert 0.4 < at_the_beginning.float().mean() < 0.6
    assert sigma.max() < 0.6 + 1e-6
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(asked[0], asked[1])
    assert not torch.equal(asked[0], asked[2])


def test_beliefs_have_no_size_to_be_forced_to() -> None:
    with pytest.raises(ConfigError, match="gamma is 1"):
        BeliefForcing(forcing=BlockForcing(gamma=0.9))
