"""Noise in the published order is what a plain loop over one video draws, whatever block is asked for first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldsim.decoding.published_noise import PublishedNoise
from worldsim.errors import ConfigError

SHAPE = (3, 4, 6)


def video(*, seed: int, total: int, frames: int, steps: int, dtype: torch.dtype = torch.bfloat16) -> list[list[Tensor]]:
    """All noise of a video as the pipelines come upon it: of each block that of every step, [1, frames, C, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    begun = torch.randn((1, total, *SHAPE), generator=generator, dtype=dtype)
    drawn = []
    for block in range(total // frames):
        own = [begun[:, block * frames : (block + 1) * frames]]
        for _ in range(steps - 1):
            own.append(torch.randn((frames, *SHAPE), generator=generator, dtype=dtype)[None])
        drawn.append(own)
    return drawn


def noise(
    *, seed: int = 4, total: int = 9, frames: int = 3, steps: int = 4, channels_first: bool = False
) -> PublishedNoise:
    return PublishedNoise(
        seed=seed,
        total=total,
        frames=frames,
        steps=steps,
        device=torch.device("cpu"),
        channels_first=channels_first,
    )


@pytest.mark.parametrize(("total", "frames", "steps"), [(9, 3, 4), (4, 1, 2), (6, 3, 1)])
def test_every_block_and_step_has_the_noise_that_a_video_meets_there(total, frames, steps):
    wanted = video(seed=4, total=total, frames=frames, steps=steps)
    drawn = noise(total=total, frames=frames, steps=steps)
    for block in reversed(range(total // frames)):
        for step in range(steps):
            found = drawn.of(block, step, SHAPE)
            assert found.dtype == torch.float32
            assert torch.equal(found, wanted[block][step].float()), (block, step)


@pytest.mark.parametrize(("total", "frames", "steps"), [(15, 3, 5), (24, 3, 4), (4, 1, 2), (6, 3, 1)])
def test_blocks_of_a_window_that_rolls_take_their_part_of_what_is_drawn_for_all_of_it(total, frames, steps):
    """As one loop over the windows of a video draws it, whatever block is asked for first."""
    generator, blocks = torch.Generator().manual_seed(4), total // frames
    begun = torch.randn((1, total, *SHAPE), generator=generator, dtype=torch.bfloat16)
    wanted = {(block, 0): begun[:, block * frames : (block + 1) * frames] for block in range(blocks)}
    for window in range(blocks + steps - 1):
        own = range(max(0, window - steps + 1), min(blocks - 1, window) + 1)
        for block in own:
            step = window - block + 1
            if step < steps:
                whole = torch.randn((len(own) * frames, *SHAPE), generator=generator, dtype=torch.bfloat16)
                at = (block - own[0]) * frames
                wanted[block, step] = whole[None, at : at + frames]
    assert {*wanted} == {(block, step) for block in range(blocks) for step in range(steps)}
    rolled = replace(noise(total=total, frames=frames, steps=steps), rolls=True)
    for (block, step), drawn in sorted(wanted.items(), reverse=True):
        assert torch.equal(rolled.of(block, step, SHAPE), drawn.float()), (block, step)


def test_each_window_of_a_video_that_rolls_is_drawn_twice_at_most(monkeypatch):
    drawn, draw = [], PublishedNoise._draw

    def counted(self, frames, *given, **named):
        drawn.append(frames)
        return draw(self, frames, *given, **named)

    monkeypatch.setattr(PublishedNoise, "_draw", counted)
    rolled = replace(noise(seed=78, total=60, steps=3), rolls=True)
    for block in range(20):
        for step in range(3):
            rolled.of(block, step, SHAPE)
    assert drawn.count(60) == 1
    assert len(drawn) <= 1 + 20 * 2 * (2 + 2)


@pytest.mark.parametrize("block", [0, 500, 798])
def test_any_block_of_a_long_video_that_rolls_may_be_asked_for_first(block):
    rolled = replace(noise(seed=79 + block, total=800, frames=1, steps=3), rolls=True)
    found = rolled.of(block, 2, SHAPE)
    assert found.shape == (1, 1, *SHAPE)
    assert torch.equal(rolled.of(block, 2, SHAPE), found)


def test_it_goes_by_the_seed():
    assert not torch.equal(noise(seed=5).of(0, 0, SHAPE), noise(seed=6).of(0, 0, SHAPE))


def test_past_the_end_of_the_video_there_is_none():
    with pytest.raises(ConfigError, match="9 frames, 3 a block, and block 3 is none of them"):
        noise().of(3, 0, SHAPE)
    with pytest.raises(ConfigError, match="in whole blocks"):
        noise(total=10).of(0, 0, SHAPE)


def test_channel_by_channel_it_is_what_pipelines_draw_that_lay_videos_out_so():
    generator, drawn = torch.Generator().manual_seed(4), noise(total=6, steps=3, channels_first=True)
    channels, *sides = SHAPE
    begun = torch.randn((1, channels, 6, *sides), generator=generator, dtype=torch.bfloat16)
    for block in range(2):
        part = begun[:, :, 3 * block : 3 * (block + 1)]
        assert torch.equal(drawn.of(block, 0, SHAPE), part.transpose(1, 2).float())
        for step in (1, 2):
            # As theirs: like the frames of a block, whose channels lie one behind the other.
            like = torch.empty((channels, 3, *sides), dtype=torch.bfloat16).transpose(0, 1)
            fresh = torch.empty_like(like).normal_(generator=generator)
            assert torch.equal(drawn.of(block, step, SHAPE)[0], fresh.float())
    assert not torch.equal(drawn.of(0, 0, SHAPE), noise(total=6, steps=3).of(0, 0, SHAPE))


def test_what_a_video_begins_with_is_drawn_once_for_all_its_blocks(monkeypatch):
    drawn, draw = [], PublishedNoise._draw

    def counted(self, frames, *given, **named):
        drawn.append(frames)
        return draw(self, frames, *given, **named)

    monkeypatch.setattr(PublishedNoise, "_draw", counted)
    for block in range(3):
        noise(seed=77).of(block, 0, SHAPE)
        noise(seed=77).of(block, 1, SHAPE)
    assert drawn.count(9) == 1


def test_noise_may_be_changed_by_whoever_asked_for_it():
    wanted = video(seed=8, total=9, frames=3, steps=4, dtype=torch.float32)
    asked = replace(noise(seed=8), dtype=torch.float32)
    for _ in range(2):
        assert torch.equal(asked.of(1, 0, SHAPE), wanted[1][0])
        asked.of(1, 0, SHAPE).zero_()
        assert torch.equal(asked.of(1, 2, SHAPE), wanted[1][2])
