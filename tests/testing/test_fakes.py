"""The small world is a whole one: its parts keep their contracts, and everything in it shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from worldsim.codec.patches import PatchCodec
from worldsim.noise import block_noise
from worldsim.testing.conformance import check_backbone, check_codec
from worldsim.testing.fakes import CONTROLS, DifferenceCodec, DotSimulator, tiny_backbone, tiny_world

CODEC = DifferenceCodec(patches=PatchCodec(side=2))
WORLD = tiny_world()


def dot(frame) -> tuple[int, int]:
    (row, column, _), *_ = np.argwhere(frame == 255)
    return int(row), int(column)


def test_the_dot_walks_round_and_jumps_as_the_keys_say():
    simulator = DotSimulator()
    assert dot(simulator.reset(1)) == (5, 5)
    assert dot(simulator.step(CONTROLS.press("left"))) == (5, 4)
    assert dot(simulator.step(frozenset({"KeyD", "Space"}))) == (3, 5)
    for _ in range(5):
        frame = simulator.step(CONTROLS.press("right"))
    assert dot(frame) == (5, 0)


def test_an_episode_of_the_dot_ends_after_its_length_and_is_the_same_for_equal_seeds():
    simulator = DotSimulator(length=2)
    first = simulator.reset(1)
    assert np.array_equal(first, DotSimulator().reset(1))
    assert not np.array_equal(first, DotSimulator().reset(2))
    over = []
    for _ in range(2):
        over.append(simulator.over)
        simulator.step(frozenset())
    assert [*over, simulator.over] == [False, False, True]


def test_a_day_of_the_dot_has_twelve_frames_and_an_episode_begins_at_midnight():
    simulator = DotSimulator()
    simulator.reset(1)
    hours = [simulator.hour]
    for _ in range(13):
        simulator.step(frozenset())
        hours.append(simulator.hour)
    assert hours == [*range(12), 0, 1]


def test_differences_come_back_as_the_frames_they_were_taken_from():
    check_codec(CODEC, size=(6, 10))
    frames = WORLD.origin.starts.get(1)[0]
    latents, state = CODEC.encode(frames, CODEC.open())
    decoded, same = CODEC.decode(latents, CODEC.open())
    assert torch.equal(decoded, frames)
    assert torch.allclose(state, same, atol=1e-6)


def test_differences_without_the_state_of_the_frames_before_come_out_wrong():
    frames = WORLD.origin.starts.get(1)[0]
    _, state = CODEC.encode(frames[:2], CODEC.open())
    rest, _ = CODEC.encode(frames[2:], state)
    assert torch.equal(CODEC.decode(rest, state)[0], frames[2:])
    assert not torch.equal(CODEC.decode(rest, CODEC.open())[0], frames[2:])


def attend(layer, q, k, v):
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def test_every_input_of_the_tiny_backbone_shows_in_its_answer():
    backbone = tiny_backbone(1)
    check_backbone(backbone)
    frames = block_noise(1, 0, 0, (2, 1, 2, 12, 3, 5))
    inputs = [frames[0], frames[1], torch.full((1, 2), 0.3), torch.zeros(1, 2, len(CONTROLS))]
    answer = backbone(*inputs, attend)
    for at in range(4):
        changed = [x + 0.5 * (at == number) for number, x in enumerate(inputs)]
        assert (backbone(*changed, attend) - answer).abs().max() > 0.01
    assert (backbone(*inputs, lambda layer, q, k, v: 0 * v) - answer).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tiny_backbone_is_drawn_from_its_seed_alone(dtype):
    one, same, other = (tiny_backbone(seed, dtype=dtype).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not any(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert {tensor.dtype for tensor in one.values()} == {dtype}
