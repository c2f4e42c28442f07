"""What is recalled is told to the tokens that it is of, draws them towards itself, and else changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.models.protocol import UNKNOWN
from worldsim.models.small.atlas import Scroll
from worldsim.models.small.backbone import Run, SmallBackbone, SmallConfig
from worldsim.models.small.recalling import Trust, remind
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


LAND = SmallConfig(
    channels=12,
    height=3,
    width=5,
    controls=5,
    dim=32,
    layers=1,
    heads=2,
    head_dim=16,
    palette=7,
    scroll=Scroll(rows=3, body=(1, 2), moves=((0, 0, 1), (1, 0, -1))),
)
TOLD, IN_ANOTHER_LIGHT, WRONG = 0, 1, 4


def walked(seed: int) -> tuple[SmallBackbone, Run, Tensor]:
    """A backbone, two frames by which a view goes on to the right over a land of its codes, and those as drawn.

    Of the column that comes into view all that is drawn is WRONG, and TOLD is told.
    """
    generator = torch.Generator().manual_seed(seed)
    backbone = SmallBackbone(LAND, generator)
    assert backbone.palette is not None
    centres = torch.randn(7, 12, generator=generator)
    centres[IN_ANOTHER_LIGHT] = 0.6 * centres[TOLD] + 0.1
    backbone.palette.fill(centres)
    land = torch.randint(7, (3, 7), generator=generator)
    land[:, 5:] = WRONG
    views = torch.stack([centres[land[:, at : at + 5]] for at in range(3)])
    views[:, 1, 2] = torch.linspace(-1, 1, 12)  # whoever moves
    codes = torch.full((1, 2, 3, 5), UNKNOWN)
    codes[..., 4] = TOLD
    run = Run(
        logits=4 * torch.randn(1, 2, 15, 7, generator=generator),
        numbers=torch.zeros(1, 2, 15, 12),
        before=views[:1].flatten(1, 2),
        controls=torch.eye(5)[:1].expand(1, 2, 5),
        codes=codes.flatten(2),
    )
    return backbone, run, views[None, 1:].movedim(-1, 2)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
def test_what_surely_is_there_comes_back_however_it_looks_in_this_light(seed: int) -> None:
    backbone, run, drawn = walked(seed)
    assert backbone.palette is not None
    sure, dice = torch.ones(1, 2, 15, dtype=torch.bool), torch.rand(1, 2, 3, 5)
    sure[..., :4] = sure[..., 5:9] = sure[..., 10:14] = False
    shown = backbone.palette.nearest(backbone.patchify(remind(backbone, run, run.before, drawn, dice, sure))).unflatten(
        2, (3, 5)
    )
    wanted = backbone.palette.nearest(backbone.patchify(drawn)).unflatten(2, (3, 5))
    assert torch.equal(shown[..., :4], wanted[..., :4])
    assert bool(((shown[..., 4] == TOLD) | (shown[..., 4] == IN_ANOTHER_LIGHT)).all())


@torch.no_grad()
@pytest.mark.parametrize("why", ["it is not sure", "the move was not made", "it is night", "somebody stands there"])
def test_what_is_drawn_stays_where_nothing_surely_is_there(why: str) -> None:
    backbone, run, drawn = walked(seed=5)
    assert backbone.palette is not None
    sure = torch.zeros(1, 2, 15, dtype=torch.bool)
    sure[..., 4::5] = why != "it is not sure"
    if why == "the move was not made":
        drawn[:, 0] = backbone.unpatchify(run.before[:, None])[:, 0]
    if why == "it is night":
        drawn, run = drawn / 10, replace(run, before=run.before / 10)
    if why == "somebody stands there":
        backbone.palette.restless[WRONG] = 1
    assert torch.equal(remind(backbone, run, run.before, drawn, torch.rand(1, 2, 3, 5), sure), drawn)


@torch.no_grad()
def test_what_is_recalled_by_as_many_more_as_there_are_codes_is_told_as_the_code() -> None:
    backbone, given = drawn(), question(seed=2)
    recalled = torch.full((2, FRAMES, *GRID), UNKNOWN)
    recalled[:, :, 0] = 3
    surely = torch.where(recalled == UNKNOWN, UNKNOWN, recalled + CONFIG.palette)
    told = [backbone.recalling(each).weighed(*given, attention(backbone), given[0])[0] for each in (recalled, surely)]
    assert torch.equal(*told)
