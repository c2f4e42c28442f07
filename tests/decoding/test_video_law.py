"""A video whose law is known through the real decoder: frame -2 is read from the pages, or was evicted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import cos, sin

import pytest
import torch
from torch import Tensor

from worldsim.cache.policy import Full, Policy, SinkWindow, Window
from worldsim.cache.pool import PagePool, PageShape
from worldsim.cache.rotary import Rotary
from worldsim.decoding.loop import decode_blocks
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.video import VideoDecoder
from worldsim.geometry import LatentGeometry
from worldsim.models.protocol import Attend
from worldsim.noise import block_noise
from worldsim.samplers import euler, few_step
from worldsim.schedules import few_step_sigmas, uniform_sigmas
from worldsim.testing.toys import GaussianVideo

HEADS, HEAD_DIM, ROWS, COLUMNS = 128, 16, 3, 5
LIMIT = 5 * (2 / (HEADS * HEAD_DIM * ROWS * COLUMNS)) ** 0.5  # five standard errors of a variance
SHARPNESS = 4_000.0  # attention takes one frame to the last bit, up to 20 frames away

Answer = Callable[[Tensor, float, Tensor], Tensor]


class GaussianBackbone:
    """The exact denoiser of an autoregression over two frames; every number of a latent is a series of its own.

    The frame before the block comes with the question. The one before that is read by attention: values are the
    latents themselves, and the query of the block's first frame turns towards position -2 at its own place. If no
    page holds that frame, the one after it is the most alike.
    """

    geometry = LatentGeometry(channels=HEADS * HEAD_DIM, height=ROWS, width=COLUMNS, patch=1, frames_per_block=1)
    pages = PageShape(layers=1, tokens=ROWS * COLUMNS, heads=HEADS, head_dim=HEAD_DIM)
    rotary = Rotary(time=2, rows=2, columns=2, theta=1.0)
    controls = 1

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __call__(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend, /) -> Tensor:
        values = noisy.flatten(3).transpose(2, 3).flatten(1, 2).unflatten(-1, (HEADS, HEAD_DIM))
        queries, keys = torch.zeros(2, *values.shape)
        queries[..., :6] = torch.tensor([cos(-2), sin(-2), 1, 0, 1, 0])
        keys[..., :6] = SHARPNESS * torch.tensor([1.0, 0, 1, 0, 1, 0])
        read = attend(0, queries, keys, values)[:, : ROWS * COLUMNS].flatten(2)
        earlier = read.transpose(1, 2).unflatten(2, (ROWS, COLUMNS))[:, None]
        past = torch.cat((earlier, previous[:, :1]), dim=1)
        return self._answer(noisy.double(), float(sigma[0, 0]), past.double()).float()


def beginning(video: GaussianVideo) -> Tensor:
    """Two frames of the right law."""
    first, other = block_noise(1, 0, 0, (2, 1, 1, *GaussianBackbone.geometry.frame_shape))
    lag_1 = video.covariance(1)
    return torch.cat((first, lag_1 * first + (1 - lag_1**2) ** 0.5 * other), dim=1)


def decode(video: GaussianVideo, answer: Answer, plan: VideoPlan, *, blocks: int) -> Tensor:
    """The frames that follow two given ones, [1, blocks * frames_per_block, C, H, W]."""
    backbone = GaussianBackbone(answer)
    pool = PagePool(backbone.pages, pages=16, dtype=torch.float32, device=torch.device("cpu"))
    decoder = VideoDecoder(backbone, pool, plan, 11)
    decoder.prefill(beginning(video), torch.zeros(1, 2, 1))
    held = [torch.zeros(1, plan.frames_per_block, 1)] * blocks
    return torch.cat([block.latents for block in decode_blocks(decoder, held)], dim=1).double()


def covariances(video: Tensor, frames: int) -> Tensor:
    """Of the last frame with itself and the ones before it."""
    latest = video[0, -frames:].flatten(1).flip(0)
    return latest @ latest[0] / latest.shape[1]


def truth(video: GaussianVideo, frames: int) -> Tensor:
    return torch.tensor([video.covariance(lag) for lag in range(frames)], dtype=torch.float64)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("policy", [Full(), Window(frames=2), SinkWindow(sink=1, window=2)])
def test_a_consistency_model_that_sees_two_frames_has_the_exact_law(policy: Policy, frames: int) -> None:
    video = GaussianVideo(0.2, 0.6)
    plan = VideoPlan(frames_per_block=frames, sigmas=few_step_sigmas(2, 5.0), sampler=few_step, policy=policy)
    found = covariances(decode(video, video.jump, plan, blocks=8 // frames), 4)
    assert (found - truth(video, 4)).abs().max() < LIMIT


def test_the_law_is_recovered_as_the_steps_grow() -> None:
    video, errors = GaussianVideo(0.5, 0.3), []
    for steps in (4, 16, 64):
        plan = VideoPlan(frames_per_block=1, sigmas=uniform_sigmas(steps), sampler=euler, policy=Window(frames=2))
        found = covariances(decode(video, video.clean, plan, blocks=8), 3)
        errors.append(float((found - truth(video, 3)).abs().max()))
    assert errors[0] > 2 * LIMIT
    assert all(fine < coarse / 2 for coarse, fine in pairwise(errors))


def test_evicting_a_frame_that_is_needed_shows_in_the_law() -> None:
    video = GaussianVideo(0.2, 0.6)
    plan = VideoPlan(frames_per_block=1, sigmas=few_step_sigmas(2, 5.0), sampler=few_step, policy=Window(frames=1))
    found = covariances(decode(video, video.jump, plan, blocks=13), 3)
    fresh = 1 - 0.2 * video.covariance(1) - 0.6 * video.covariance(2)
    wrong = torch.tensor([fresh / (1 - 0.8**2) * 0.8**lag for lag in range(3)], dtype=torch.float64)
    assert (found - wrong).abs().max() < LIMIT, "frame -1 stands in for -2, so both weights fall on it"
    assert (found - truth(video, 3)).abs().max() > 4 * LIMIT
