"""The small backbone: its layout, what can know of what, and its first weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.models.protocol import UNKNOWN
from worldsim.models.small.atlas import Scroll
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.testing.fakes import tiny_backbone
from worldsim.training.attention import StreamAttention, StreamLayout

CONFIG = SmallConfig(channels=3, height=4, width=6, controls=5, patch=2, dim=32, layers=2, heads=2, head_dim=16)
BELIEVING = replace(CONFIG, palette=7)
FRAMES = 6


def drawn(config: SmallConfig = CONFIG, *, seed: int = 1) -> SmallBackbone:
    """A backbone with random weights in every tensor: as first drawn, many are zero."""
    backbone, generator = SmallBackbone(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return backbone


def inputs(batch: int, *, seed: int, config: SmallConfig = CONFIG) -> list[Tensor]:
    """Noisy and previous frames, levels and controls."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(2, batch, FRAMES, config.channels, config.height, config.width, generator=generator)
    sigma, controls = torch.rand(batch, FRAMES, generator=generator), torch.rand(batch, FRAMES, 5, generator=generator)
    return [*frames, sigma, controls]


def causal(backbone: SmallBackbone, block: int) -> StreamAttention:
    """Attention of a clean stream: each block sees itself and what was before it."""
    geometry = backbone.geometry
    layout = StreamLayout(frames=FRAMES, block=block, window=FRAMES, copies=0)
    return StreamAttention(
        layout, rotary=backbone.rotary, grid=(geometry.rows, geometry.columns), device=torch.device("cpu")
    )


@torch.no_grad()
def test_an_answer_has_the_shape_and_dtype_of_the_noisy_frames() -> None:
    backbone = drawn()
    given = inputs(3, seed=2)
    answer = backbone(*given, causal(backbone, 2))
    assert answer.shape == given[0].shape
    assert answer.dtype == given[0].dtype
    assert answer.std() > 0.1


@pytest.mark.parametrize("patch", [1, 2])
def testunpatchify_undoes_patchify(patch: int) -> None:
    config = SmallConfig(channels=3, height=4, width=6, controls=5, patch=patch, dim=32, layers=1, heads=2, head_dim=8)
    backbone, (frames, *_) = SmallBackbone(config), inputs(2, seed=3, config=config)
    patches = backbone.patchify(frames)
    assert patches.shape == (2, FRAMES, 24 // patch**2, 3 * patch**2)
    assert torch.equal(backbone.unpatchify(patches), frames)
    # Token 1 of a frame is the second square of the first row.
    assert torch.equal(patches[0, 0, 1], frames[0, 0, :, :patch, patch : 2 * patch].flatten())


@torch.no_grad()
def test_rows_of_a_batch_are_independent() -> None:
    backbone, given = drawn(), inputs(3, seed=4)
    attend = causal(backbone, 1)
    before = backbone(*given, attend)
    for tensor in given:
        tensor[1] += 0.5
    after = backbone(*given, attend)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])


@pytest.mark.parametrize("which", range(4), ids=["noisy", "previous", "sigma", "controls"])
@pytest.mark.parametrize("block", [1, 2, 3])
@torch.no_grad()
def test_a_later_block_changes_nothing_earlier_and_everything_since(block: int, which: int) -> None:
    backbone, given = drawn(), inputs(1, seed=5)
    attend = causal(backbone, block)
    before = backbone(*given, attend)
    given[which][:, 3] += 0.5
    changed = (backbone(*given, attend) != before).flatten(2).any(-1)[0]
    begin = 3 - 3 % block
    assert changed.tolist() == [frame >= begin for frame in range(FRAMES)]


@torch.no_grad()
def test_noise_alone_tells_nothing_and_no_noise_everything() -> None:
    """At level 1 the answer is the same whatever the noise; at level 0 the noisy frame is taken as it is."""
    backbone, given = drawn(), inputs(1, seed=16)
    other = [torch.randn(given[0].shape, generator=torch.Generator().manual_seed(17)), *given[1:]]
    attend = causal(backbone, 1)
    for level, equal in ((1.0, True), (0.9, False)):
        given[2][:] = level
        assert torch.equal(backbone(*given, attend), backbone(*other, attend)) is equal
    taken: list[Tensor] = []
    backbone.embed.register_forward_pre_hook(lambda _, arguments: taken.append(arguments[0]))
    given[2][:] = 0.0
    backbone(*given, attend)
    assert torch.equal(taken[0], backbone.patchify(given[0]))


@torch.no_grad()
def test_a_token_is_given_the_nine_patches_around_it_of_the_frame_before() -> None:
    """With the layers taken out, a change of one patch of the previous frame reaches its neighbours and no others."""
    backbone = SmallBackbone(replace(CONFIG, height=8, width=10), torch.Generator().manual_seed(18))
    torch.nn.init.normal_(backbone.head.weight, generator=torch.Generator().manual_seed(19))
    frames = torch.zeros(2, 1, 1, 3, 8, 10)
    sigma, controls = torch.ones(1, 1), torch.zeros(1, 1, 5)
    ask = lambda: backbone(*frames, sigma, controls, lambda _, q, k, v: v)  # noqa: E731
    before = ask()
    frames[1, 0, 0, :, 2:4, 4:6] += 1  # the patch in row 1, column 2 of four rows and five columns
    moved = backbone.patchify(ask() != before).any(-1)[0, 0].unflatten(0, (4, 5))
    near = torch.zeros(4, 5, dtype=torch.bool)
    near[0:3, 1:4] = True
    assert torch.equal(moved, near)


@torch.no_grad()
def test_a_draw_is_a_patch_of_the_palette_and_its_offset_and_the_mean_lies_between() -> None:
    backbone, given = drawn(BELIEVING), inputs(2, seed=20)
    attend = causal(backbone, 1)
    assert backbone.palette is not None
    backbone.palette.fill(torch.randn(7, 12, generator=torch.Generator().manual_seed(25)))
    run = backbone.run(*given, attend)
    logits, offset = run.logits, run.numbers
    assert logits is not None
    dice = torch.rand(2, FRAMES, 2, 3, generator=torch.Generator().manual_seed(21))
    drawn_patches = backbone.patchify(backbone(*given, attend, dice)) - offset
    distances = torch.cdist(drawn_patches.flatten(0, 2), backbone.palette.centres)
    assert distances.min(-1).values.median() < 0.05  # the mean of those near it, here mostly of one
    law = logits.softmax(-1)
    mean = backbone.patchify(backbone(*given, attend))
    assert torch.allclose(mean, law @ backbone.palette.centres + offset, atol=1e-5)


@torch.no_grad()
def test_surprise_is_asked_of_the_last_frames_only() -> None:
    backbone, given = drawn(BELIEVING), inputs(2, seed=22)
    clean = torch.randn(2, 2, 3, 4, 6, generator=torch.Generator().manual_seed(23))
    attend = causal(backbone, 1)
    surprise = backbone.weighed(*given, attend, clean)[0]
    assert surprise.shape == (2, 2, 2, 3)
    whole = torch.cat((given[0][:, :-2], clean), dim=1)
    assert torch.allclose(surprise, backbone.weighed(*given, attend, whole)[0][:, -2:])
    clean[1, 0] += 5
    changed = (backbone.weighed(*given, attend, clean)[0] != surprise).flatten(2).any(2)
    assert changed.tolist() == [[False, False], [True, False]]


def test_what_is_believed_of_each_token_is_a_law_that_the_surprise_is_of() -> None:
    backbone, given = drawn(BELIEVING), inputs(2, seed=22)
    assert backbone.palette is not None
    clean = torch.randn(2, 2, 3, 4, 6, generator=torch.Generator().manual_seed(23))
    surprise, believed = backbone.weighed(*given, causal(backbone, 1), clean)
    assert believed.shape == (2, 2, 2, 3, len(backbone.palette.centres))
    assert torch.allclose(believed.exp().sum(-1), torch.ones(2, 2, 2, 3))
    labels = backbone.palette.nearest(backbone.patchify(clean)).unflatten(2, (2, 3))
    assert bool((surprise >= -believed.gather(-1, labels[..., None])[..., 0]).all())  # offsets surprise as well


def test_a_backbone_without_a_palette_has_no_beliefs_to_surprise() -> None:
    backbone, given = drawn(), inputs(1, seed=24)
    with pytest.raises(ConfigError, match="train it with DiffusionForcing"):
        backbone.weighed(*given, causal(backbone, 1), given[0])


@torch.no_grad()
def test_every_token_of_a_frame_knows_every_other() -> None:
    backbone, given = drawn(), inputs(1, seed=6)
    attend = causal(backbone, 1)
    before = backbone(*given, attend)
    given[0][0, 2, 0, 0, 0] += 1
    given[2][0, 2] = 0.5  # of noise alone nothing is told
    changed = backbone.patchify(backbone(*given, attend) != before).any(-1)
    assert changed[0, 2].all()


def test_layers_are_asked_in_order_with_keys_that_are_not_turned_yet() -> None:
    backbone, given = drawn(), inputs(1, seed=7)
    asked: list[int] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        asked.append(layer)
        assert q.shape == k.shape == v.shape == (1, FRAMES * 6, 2, 16)
        return v

    backbone(*given, attend)
    assert asked == [0, 1]
    pages = backbone.pages
    assert (pages.layers, pages.tokens, pages.heads, pages.head_dim) == (2, 6, 2, 16)
    assert backbone.controls == 5


def test_the_first_answer_is_the_middle_grey_and_the_seed_decides_the_weights() -> None:
    one, same, other = (SmallBackbone(CONFIG, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert not one(*inputs(1, seed=8), causal(one, 1)).any()
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])
        constant = bool((weight == weight.flatten()[0]).all())
        assert constant == torch.equal(weight, other.state_dict()[name]), f"{name} is not drawn from the seed"


def test_it_computes_in_half_precision_without_a_warning() -> None:
    """pytest turns warnings into errors; in bfloat16 the answer agrees to its 8 bits, by root mean squares."""
    backbone, given = drawn(), inputs(1, seed=9)
    truth = backbone(*given, causal(backbone, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = backbone(*given, causal(backbone, 1))
    assert half.dtype == torch.float32
    assert (half - truth).square().mean() < (2**-4) ** 2 * truth.square().mean()


@pytest.mark.parametrize(
    "wrong",
    [
        {"heads": 0},
        {"head_dim": 12},
        {"head_dim": 0},
        {"layers": 0},
        {"controls": 0},
        {"dim": -32},
        {"theta": 0.0},
        {"patch": 4},
        {"palette": -1},
        {"unlikely": 1.5},
        {"unlikely": (0.1, 0.2)},
        {"unlikely": (0.1, 0.2, 0.3, -0.1)},
    ],
)
def test_a_size_that_cannot_work_is_refused(wrong: dict[str, int]) -> None:
    sizes = {"channels": 3, "height": 4, "width": 6, "controls": 5, "dim": 32, "layers": 1, "heads": 2}
    with pytest.raises(ConfigError):
        SmallBackbone(SmallConfig(**(sizes | wrong)))  # type: ignore[arg-type]


@torch.no_grad()
def test_a_glance_tells_every_token_of_a_frame_what_changed_anywhere_in_the_frame_before() -> None:
    blind, given = replace(CONFIG, layers=1), inputs(1, seed=30)
    changed = [tensor.clone() for tensor in given]
    changed[1][0, 2, :, 0, 0] += 3

    def moved(config: SmallConfig) -> Tensor:
        backbone = drawn(config)
        answers = [backbone(*each, lambda _layer, q, _k, _v: torch.zeros_like(q)) for each in (given, changed)]
        return backbone.patchify((answers[1] - answers[0]).abs()).amax(-1)[0] > 1e-6

    assert moved(replace(blind, glance=3))[2].all()
    assert not moved(replace(blind, glance=3))[[0, 1, 3, 4, 5]].any()
    assert moved(blind)[2].sum() == 4  # the patch itself and its neighbours, from its corner


def test_a_glance_tells_nothing_before_anything_is_learned() -> None:
    with_glance = SmallBackbone(replace(CONFIG, glance=3), torch.Generator().manual_seed(4))
    assert with_glance.glance is not None
    assert not with_glance.glance(torch.randn(1, 2, 6, 12)).any()


@torch.no_grad()
def test_what_is_unlikely_may_differ_from_row_to_row() -> None:
    config = replace(BELIEVING, unlikely=(0.0, 1.0))
    backbone, given = drawn(config), inputs(1, seed=31)
    dice = [torch.full((1, FRAMES, 2, 3), dot) for dot in (0.01, 0.99)]
    one, other = (backbone.patchify(backbone(*given, causal(backbone, 1), each))[0] for each in dice)
    differs = (one != other).any(-1).unflatten(1, (2, 3))
    assert differs[:, 0].any()
    assert not differs[:, 1].any()  # the likeliest, whatever the dice say


@torch.no_grad()
@pytest.mark.parametrize("recalled", [False, True])
def test_what_enters_the_view_is_drawn_in_its_variety_though_what_is_known_is_the_likeliest(recalled: bool) -> None:
    to_the_right = Scroll(rows=2, body=(0, 0), moves=((1, 0, 1),))
    backbone, given = drawn(replace(BELIEVING, unlikely=1.0, scroll=to_the_right)), inputs(1, seed=31)
    given[-1] = torch.eye(5)[1].repeat(1, FRAMES, 1)
    given[-1][:, FRAMES // 2 :] = 0  # then it stays
    dice = [torch.full((1, FRAMES, 2, 3), dot) for dot in (0.01, 0.99)]
    seen = torch.full((1, FRAMES, 2, 3), UNKNOWN)
    seen[:, :, 0] = 1 if recalled else UNKNOWN
    asked = backbone.recalling(seen)
    one, other = (backbone.patchify(asked(*given, causal(backbone, 1), each))[0] for each in dice)
    differs = (one != other).any(-1).unflatten(1, (2, 3))
    assert differs[: FRAMES // 2, 1, 2].any()
    assert differs[: FRAMES // 2, 0, 2].any() != recalled
    differs[: FRAMES // 2, :, 2] = False
    assert not differs.any()


@torch.no_grad()
@pytest.mark.parametrize("restless", [False, True])
def test_what_is_recalled_is_no_matter_of_dice_unless_it_does_not_rest(restless: bool) -> None:
    to_the_right = Scroll(rows=2, body=(0, 0), moves=((1, 0, 1),))
    backbone, given = drawn(replace(BELIEVING, scroll=to_the_right)), inputs(1, seed=31)
    assert backbone.palette is not None
    backbone.palette.fill(torch.randn(backbone.palette.centres.shape, generator=torch.Generator().manual_seed(32)))
    backbone.palette.restless.fill_(float(restless))
    seen = torch.full((1, FRAMES, 2, 3), UNKNOWN)
    seen[:, :, 0] = 1
    dice = [torch.full((1, FRAMES, 2, 3), dot) for dot in (0.01, 0.99)]
    answers = (backbone.recalling(seen)(*given, causal(backbone, 1), each) for each in dice)
    one, other = (backbone.palette.nearest(backbone.patchify(answer)[0]) for answer in answers)
    differs = (backbone.palette.kin[one, other] == 0).unflatten(1, (2, 3))
    assert differs[:, 1].any()
    assert differs[:, 0].any() == restless


def test_a_list_of_what_is_unlikely_as_a_weights_file_has_it_equals_the_tuple() -> None:
    assert replace(BELIEVING, unlikely=[0.1, 0.2]) == replace(BELIEVING, unlikely=(0.1, 0.2))  # type: ignore[arg-type]
    assert replace(BELIEVING, unlikely=0.1).shares == (0.1, 0.1)


def test_a_chart_shows_each_place_as_the_patch_that_was_seen_there() -> None:
    backbone = tiny_backbone(1, palette=6, remembers=True)
    assert backbone.chart({}) is None
    centres = backbone.palette.centres
    codes = torch.randint(6, (1, 1, 15), generator=torch.Generator().manual_seed(2))
    frame = backbone.unpatchify(centres[codes])
    chart = backbone.chart(backbone.remember({}, frame, frame, torch.zeros(1, 1, backbone.controls)))
    assert chart is not None
    scroll = backbone.config.scroll
    top, left, rows, columns = chart.view
    assert (rows, columns) == (scroll.rows, 5)
    known = (chart.places != UNKNOWN).nonzero()
    assert known.min(0).values.tolist() == [top, left]
    assert (known.max(0).values + 1).tolist() == [top + rows, left + columns]
    seen = chart.places[top : top + rows, left : left + columns].long()
    wanted = codes[0, 0, : 5 * rows].unflatten(0, (rows, 5))
    seen[scroll.body] = wanted[scroll.body]  # who stands there hides it
    assert torch.equal(seen, wanted)
    assert chart.sorts.shape == (6, 12, 1, 1)
    shown = frame[0, 0].permute(1, 2, 0)[:rows]
    assert torch.equal(chart.sorts[seen][..., 0, 0], shown)


@pytest.mark.parametrize("sort", [6, -2])
def test_a_memory_of_sorts_that_the_palette_does_not_have_is_refused(sort: int) -> None:
    backbone = tiny_backbone(1, palette=6, remembers=True)
    frame = torch.zeros(1, 1, 12, 3, 5)
    memory = dict(backbone.remember({}, frame, frame, torch.zeros(1, 1, backbone.controls)))
    memory["tiles"] = memory["tiles"].clone()
    memory["tiles"][0, 0] = sort
    with pytest.raises(ConfigError, match="not among 6"):
        backbone.chart(memory)


@torch.no_grad()
@pytest.mark.parametrize(("restless", "shown", "most"), [(True, 0, 3), (True, 16, 16), (False, 0, 16)])
def test_what_is_restless_settles_together_and_does_not_multiply_after_a_frame_that_shows_little_of_it(
    restless: bool, shown: int, most: int
) -> None:
    """Four patches, equally likely on each of 6 x 6 tokens, of which the last may be restless."""
    config = SmallConfig(channels=4, height=6, width=6, controls=1, dim=16, layers=1, heads=2, head_dim=8, palette=4)
    backbone = SmallBackbone(config, torch.Generator().manual_seed(31))
    assert backbone.palette is not None
    backbone.palette.fill(torch.eye(4))
    backbone.palette.restless[3] = float(restless)
    before = torch.zeros(100, 1, 36, 4)
    before[:, :, :, 0] = 1
    before[:, :, :shown] = torch.eye(4)[3]
    frames = before.view(100, 1, 6, 6, 4).movedim(-1, 2)
    dice = torch.rand(100, 1, 6, 6, generator=torch.Generator().manual_seed(32))
    layout = StreamLayout(frames=1, block=1, window=1, copies=0)
    attend = StreamAttention(layout, rotary=backbone.rotary, grid=(6, 6), device=torch.device("cpu"))
    made = backbone(torch.zeros_like(frames), frames, torch.ones(100, 1), torch.zeros(100, 1, 1), attend, dice)
    inside = backbone.palette.nearest(backbone.patchify(made)).view(100, 6, 6)[:, 1:-1, 1:-1]
    counts = (inside == 3).sum((1, 2))
    assert counts.max() <= most
    assert (counts.float().std() < 1.5) == restless  # drawn each by itself it is 1.7
    assert (counts.float().mean() > 3.2) == (most > 3)
