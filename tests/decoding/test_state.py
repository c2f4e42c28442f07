"""Which states a video may have been in, and that of one that shows nothing yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from worldsim.cache.policy import Full
from worldsim.cache.pool import PagePool
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.state import COMPUTED, VideoState, check_state, gists_for, state_of_nothing
from worldsim.decoding.video import VideoDecoder
from worldsim.errors import ConfigError, ShapeError
from worldsim.noise import block_noise
from worldsim.samplers import few_step
from worldsim.testing.fakes import tiny_backbone

BACKBONE = tiny_backbone(2)
SHAPE = BACKBONE.geometry.frame_shape
PLAN = VideoPlan(frames_per_block=2, sigmas=(1.0, 0.5), sampler=few_step, policy=Full(), from_nothing=True)
ODD = (torch.int32, torch.bool, torch.bfloat16, torch.float8_e4m3fn, torch.complex64)
HELD = torch.zeros(1, 2, BACKBONE.controls)


def decoder(plan: VideoPlan = PLAN) -> VideoDecoder:
    pool = PagePool(BACKBONE.pages, pages=16, dtype=torch.float32, device=torch.device("cpu"))
    return VideoDecoder(BACKBONE, pool, plan, 3)


def state() -> VideoState:
    """Three frames held of seven, and two on their way."""
    return VideoState(
        blocks=2,
        next_frame=7,
        frames=(0, 5, 6),
        latents=block_noise(1, 0, 0, (1, 3, *SHAPE)),
        controls=torch.zeros(1, 3, BACKBONE.controls),
        keys=torch.zeros(0),
        values=torch.zeros(0),
        ahead=block_noise(1, 1, 0, (1, 2, *SHAPE)),
    )


def test_a_state_that_fits_passes():
    check_state(state(), BACKBONE, ahead=2, from_nothing=False)
    check_state(replace(state(), ahead=None), BACKBONE, ahead=2, from_nothing=False)
    check_state(replace(state(), controls=state().controls.long()), BACKBONE, ahead=2, from_nothing=False)


@pytest.mark.parametrize("kind", COMPUTED)
def test_a_state_of_any_kind_of_numbers_that_blocks_are_made_of_passes(kind):
    parts = {name: getattr(state(), name).to(kind) for name in ("latents", "controls", "ahead")}
    check_state(replace(state(), **parts), BACKBONE, ahead=2, from_nothing=False)


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda own: {"frames": (0, 5)}, ConfigError, "none that a decoder was in"),
        (lambda own: {"frames": (5, 0, 6)}, ConfigError, r"frames \[5, 0, 6\] before frame 7"),
        (lambda own: {"frames": (5, 6, 6)}, ConfigError, r"frames \[5, 6, 6\] before frame 7"),
        (lambda own: {"next_frame": 8}, ConfigError, r"frames \[0, 5, 6\] before frame 8"),
        (lambda own: {"frames": (), "latents": own.latents[:, :0]}, ConfigError, r"frames \[\] before frame 7"),
        (lambda own: {"latents": own.latents[..., :-1]}, ShapeError, r"latents \[1, 3, 12, 3, 5\], got .* 4\]"),
        (lambda own: {"controls": own.controls[:, :2]}, ShapeError, r"controls \[1, 3, 6\], got \[1, 2, 6\]"),
        (lambda own: {"controls": own.controls / 0}, ConfigError, "controls that are no numbers"),
        *(
            (lambda own, kind=kind: {"latents": own.latents.to(kind)}, ConfigError, f"float64, got {kind}")
            for kind in ODD
        ),
        (
            lambda own: {"controls": own.controls.bool()},
            ConfigError,
            "controls are of one of float16, float32, float64",
        ),
        (lambda own: {"ahead": own.ahead.bfloat16()}, ConfigError, "on their way are of one of .*, got torch.bfloat16"),
        (lambda own: {"ahead": own.ahead[:, :1]}, ShapeError, r"on their way \[1, 2, 12, 3, 5\], got \[1, 1, "),
        (lambda own: {"ahead": own.ahead / 0}, ConfigError, "on their way that are no numbers"),
        (lambda own: {"salient": torch.ones(3, 14) > 0}, ShapeError, r"salient tokens bool \[3, 15\]"),
    ],
)
def test_a_state_that_does_not_fit_is_told_why(
    spoil: Callable[[VideoState], dict[str, Any]], error: type[Exception], says: str
):
    with pytest.raises(error, match=says):
        check_state(replace(state(), **spoil(state())), BACKBONE, ahead=2, from_nothing=True)


def test_before_its_first_frame_a_video_that_begins_from_nothing_holds_none():
    nothing = state_of_nothing(BACKBONE, decoder().pool)
    check_state(nothing, BACKBONE, ahead=0, from_nothing=True)
    with pytest.raises(ConfigError, match="none that a decoder was in"):
        check_state(nothing, BACKBONE, ahead=0, from_nothing=False)
    with pytest.raises(ConfigError, match="none that a decoder was in"):
        check_state(replace(nothing, blocks=1), BACKBONE, ahead=0, from_nothing=True)


@pytest.mark.parametrize("pages", [True, False])
def test_a_decoder_resumes_from_nothing(pages):
    first, other = decoder(), decoder()
    made = first.state()
    other.commit(other.propose(HELD + 1))
    other.resume(made if pages else made.without_pages())
    assert other.pool.used == 0
    for _ in range(2):
        one, twin = first.propose(HELD), other.propose(HELD)
        assert torch.equal(one.latents, twin.latents)
        first.commit(one)
        other.commit(twin)


def test_without_pages_all_else_stays():
    first = decoder()
    first.commit(first.propose(HELD))
    whole = first.state()
    light = whole.without_pages()
    assert light.keys.shape[1] == light.values.shape[1] == 0
    assert light.frames == whole.frames
    assert torch.equal(light.latents, whole.latents)


def test_gists_are_given_to_the_frames_that_were_told_so_and_todays_where_none_were_kept():
    now, told = torch.tensor([0.6, 0.8]), torch.tensor([[1.0, 0], [0, 1], [0.6, 0.8]])
    found = gists_for(replace(state(), gists=told), now)
    assert [*found] == [0, 5, 6]
    assert torch.equal(torch.stack([*found.values()]), told)
    assert gists_for(state(), now) == {0: now, 5: now, 6: now}
    assert gists_for(replace(state(), gists=told), None) == {0: None, 5: None, 6: None}
    for wrong in (told[:2], told[:, :1], told[0]):
        with pytest.raises(ShapeError, match=r"expected gists of prompts \[3, 2\], got .*; restore a whole state"):
            gists_for(replace(state(), gists=wrong), now)
    with pytest.raises(ConfigError, match="gists of prompts that are no numbers"):
        check_state(replace(state(), gists=told / 0), BACKBONE, ahead=2, from_nothing=False)
