"""A block becomes messages that say which frames they are, however many frames it has."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from worldsim.cache.sight import Sight
from worldsim.runtime.chunk import Chunk
from worldsim.session.wire import Flag, Media
from worldsim_apps.encoding import H264Encoder, RawEncoder
from worldsim_apps.packing import pack

SIZE, FPS = (6, 10), 16


def world_of(seen_frames: int, group: int) -> Any:
    """What counts of a world that makes blocks of so many latent frames, each shown as a group of frames."""
    plan = SimpleNamespace(frames_per_block=seen_frames)
    return SimpleNamespace(frames_per_block=seen_frames * group, plan=plan, fps=FPS)


def packed(
    block: int, frames: int, *, seen_frames: int = 3, group: int = 1, sight: Sight | None = None, encoder: Any = None
) -> list[Media]:
    pixels = np.random.default_rng(block).integers(0, 256, (frames, *SIZE, 3), np.uint8)
    chunk = Chunk(frames=pixels, block=block, keys=frozenset(), seen=sight or Sight())
    return pack(encoder or RawEncoder(SIZE, FPS), chunk, world_of(seen_frames, group), epoch=4, action=9)


def test_each_frame_says_where_it_is_in_its_block_and_what_made_it():
    media = packed(5, 3)
    assert [(one.block, one.frame, one.frames) for one in media] == [(5, 0, 3), (5, 1, 3), (5, 2, 3)]
    assert [one.flags for one in media] == [Flag.KEY | Flag.FIRST, Flag.KEY, Flag.KEY | Flag.LAST]
    assert {(one.epoch, one.action, one.codec, one.width, one.height) for one in media} == {(4, 9, "raw", 10, 6)}
    assert [len(one.payload) for one in media] == [180] * 3


def test_of_pictures_that_need_those_before_them_the_first_of_a_block_needs_none():
    media = packed(5, 3, encoder=H264Encoder(SIZE, FPS))
    assert [one.flags for one in media] == [Flag.KEY | Flag.FIRST, Flag(0), Flag.LAST]
    assert (media[0].width, media[0].height) == (20, 12)


def test_time_begins_with_the_first_frame_of_a_session_and_is_the_same_in_blocks_of_any_length():
    assert [one.time_us for one in packed(0, 3)] == [0, 62_500, 125_000]
    assert packed(10_000, 3)[1].time_us == (30_001 * 1_000_000) // FPS


@pytest.mark.parametrize("group", [2, 4])
def test_a_first_block_that_lacks_frames_ends_when_any_block_does(group):
    full = 3 * group
    shown = [*packed(0, full - group + 1, group=group), *packed(1, full, group=group), *packed(2, full, group=group)]
    assert {later.time_us - one.time_us for one, later in pairwise(shown)} == {62_500}
    assert shown[0].time_us == (group - 1) * 62_500
    assert [one.frame for one in shown[: full - group + 2]] == [*range(full - group + 1), 0]


@pytest.mark.parametrize("group", [1, 4])
def test_what_a_block_saw_is_told_with_its_first_frame_in_frames_that_were_shown(group):
    sight = Sight(frames=(-2, -1, 4, 5), retrieved=(-2, -1))
    media = packed(2, 3 * group, group=group, sight=sight)
    assert media[0].seen == ((range(-2 * group, 0), True), (range(4 * group, 6 * group), False))
    assert all(one.seen == () for one in media[1:])
