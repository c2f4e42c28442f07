"""What is recalled is told to the tokens that it is of, draws them towards itself, and else changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.models.protocol import UNKNOWN
from worldsim.models.small.atlas import Scroll
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.models.small.recalling import Trust
from worldsim.training.attention import StreamAttention, StreamLayout

CONFIG = SmallConfig(
    channels=3,
    height=4,
    width=6,
    controls=5,
    patch=2,
    dim=32,
    layers=2,
    heads=2,
    head_dim=16,
    palette=7,
    scroll=Scroll(rows=1, body=(0, 1), moves=((0, 0, 1), (1, 0, -1))),
)
FRAMES, GRID = 4, (2, 3)


def drawn(seed: int = 1) -> SmallBackbone:
    """A backbone with random weights in every tensor, and a palette."""
    backbone, generator = SmallBackbone(CONFIG), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    assert backbone.palette is not None
    backbone.palette.fill(torch.randn(7, 12, generator=generator))
    return backbone


def question(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(2, 2, FRAMES, 3, 4, 6, generator=generator)
    return [*frames, torch.rand(2, FRAMES, generator=generator), torch.rand(2, FRAMES, 5, generator=generator)]


def attention(backbone: SmallBackbone) -> StreamAttention:
    """Each frame by itself."""
    layout = StreamLayout(frames=FRAMES, block=1, window=0, copies=1)
    return StreamAttention(layout, rotary=backbone.rotary, grid=GRID, device=torch.device("cpu"))


@torch.no_grad()
def test_what_is_recalled_shows_in_its_own_frame_and_in_no_other() -> None:
    backbone, given = drawn(), question(seed=2)
    attend = attention(backbone)
    recalled = torch.full((2, FRAMES, *GRID), UNKNOWN)
    nothing = backbone.recalling(recalled)(*given, attend)
    assert torch.equal(nothing, backbone(*given, attend))
    recalled[0, 1, 0, 2] = 3
    changed = (backbone.recalling(recalled)(*given, attend) != nothing).flatten(2).any(-1)
    assert changed.tolist() == [[False, True, False, False], [False] * FRAMES]


@torch.no_grad()
def test_what_is_recalled_is_of_the_last_frames_of_a_call() -> None:
    backbone, given = drawn(), question(seed=3)
    attend = attention(backbone)
    some = torch.randint(0, 7, (2, 2, *GRID), generator=torch.Generator().manual_seed(4))
    whole = torch.cat((torch.full((2, 2, *GRID), UNKNOWN), some), dim=1)
    assert torch.equal(backbone.recalling(some)(*given, attend), backbone.recalling(whole)(*given, attend))


@torch.no_grad()
def test_draws_and_surprise_are_those_of_what_is_then_believed() -> None:
    backbone, given = drawn(), question(seed=5)
    attend = attention(backbone)
    recalled = torch.randint(0, 7, (2, FRAMES, *GRID), generator=torch.Generator().manual_seed(6))
    told, dice = backbone.recalling(recalled), torch.rand(2, FRAMES, *GRID, generator=torch.Generator().manual_seed(7))
    run = backbone.run(*given, attend, recalled.flatten(2))
    assert torch.equal(told(*given, attend, dice), backbone.answer(run, dice))
    clean = question(seed=8)[0][:, 2:]
    surprise, believed = told.weighed(*given, attend, clean)
    assert torch.equal(surprise, backbone.weigh(run, clean)[0])
    assert torch.equal(believed, backbone.weigh(run, clean)[1])
    assert not torch.equal(surprise, backbone.weighed(*given, attend, clean)[0])


@torch.no_grad()
def test_an_untrained_memory_changes_nothing() -> None:
    backbone, given = SmallBackbone(CONFIG, torch.Generator().manual_seed(9)), question(seed=10)
    torch.nn.init.normal_(backbone.head.weight, generator=torch.Generator().manual_seed(11))
    attend = attention(backbone)
    told = backbone.recalling(torch.full((2, FRAMES, *GRID), 2))
    assert torch.equal(told(*given, attend), backbone(*given, attend))


@torch.no_grad()
def test_trust_draws_towards_what_was_seen_by_as_much_as_it_says() -> None:
    trust = Trust(8, 3)
    tokens, seen = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 3)
    torch.nn.init.zeros_(trust.say.weight)
    trust.say.bias.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]))
    assert torch.allclose(trust(tokens, seen), 0.5 * seen + torch.tensor([1.0, 2.0, 3.0]))


def test_who_remembers_no_places_can_recall_none() -> None:
    backbone = SmallBackbone(replace(CONFIG, scroll=None))
    video, controls = torch.zeros(1, 1, 3, 4, 6), torch.zeros(1, 1, 5)
    for ask in (
        lambda: backbone.recalling(torch.zeros(1, 1, *GRID)),
        lambda: backbone.recall({}, controls),
        lambda: backbone.remember({}, video, video, controls),
        lambda: backbone.enters(controls),
    ):
        with pytest.raises(ConfigError, match="remembers no places"):
            ask()


def test_what_enters_lies_on_the_land() -> None:
    controls = torch.zeros(1, 2, 5)
    controls[0, 1, 0] = 1
    entering = drawn().enters(controls)
    assert entering.tolist() == [[[[False] * 3, [False] * 3], [[False, False, True], [False] * 3]]]
