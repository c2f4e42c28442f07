"""Latent samplers in the two loops, with commit and eviction, over a Gaussian video whose law is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from worldsim.decoding.loop import Guarantee, decide, decode_blocks, weakest
from worldsim.noise import block_noise
from worldsim.samplers import LatentCanvas, Sampler, euler, few_step, heun
from worldsim.schedules import few_step_sigmas, uniform_sigmas
from worldsim.testing.toys import GaussianVideo

SERIES = (2, 1, 250, 100)  # B, C, H, W: that many videos of one number a frame
LIMIT = 5 * 2**0.5 / 50_000**0.5  # five standard errors of a variance from 50,000 series


@dataclass(kw_only=True)
class GaussianBlocks:
    """Video block diffusion with an exact denoiser that sees the latest frames only."""

    video: GaussianVideo
    denoise: Callable[[Tensor, float, Tensor], Tensor]
    sampler: Sampler
    sigmas: tuple[float, ...]
    window: int
    seed: int = 0

    def __post_init__(self) -> None:
        batch, *frame = SERIES
        self.past = torch.zeros(batch, 0, *frame, dtype=torch.float64)
        self.blocks = 0

    @property
    def guarantee(self) -> Guarantee:
        jumps = self.sampler is few_step and self.denoise == self.video.jump
        sees_enough = self.window >= len(self.video.weights)
        return weakest(*(Guarantee.EXACT_LAW if exact else Guarantee.APPROXIMATE for exact in (jumps, sees_enough)))

    def propose(self, frames: int) -> Tensor:
        batch, *frame = SERIES

        def fresh(step: int) -> Tensor:
            return block_noise(self.seed, self.blocks, step, (batch, frames, *frame)).double()

        canvas = LatentCanvas(fresh(0), self.sigmas, fresh)
        return decide(canvas, lambda at: self.denoise(at.values, at.sigma, self.past), self.sampler).kept

    def commit(self, block: Tensor) -> None:
        self.denoise(block, 0.0, self.past)  # the clean pass
        self.past = torch.cat((self.past, block), dim=1)[:, -self.window :]
        self.blocks += 1


def decode(decoder: GaussianBlocks, frames: Iterable[int]) -> Tensor:
    return torch.cat(list(decode_blocks(decoder, frames)), dim=1)


def covariances(video: Tensor, frames: int) -> Tensor:
    """Of the last frame with itself and the ones before it."""
    latest = video[:, -frames:].transpose(0, 1).flatten(1).flip(0)
    return latest @ latest[0] / latest.shape[1]


def truth(video: GaussianVideo, frames: int) -> Tensor:
    return torch.tensor([video.covariance(lag) for lag in range(frames)], dtype=torch.float64)


@pytest.mark.parametrize("blocks", [[1] * 7, [3, 3, 3], [2, 1, 4]])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_few_step_blocks_of_a_consistency_model_have_the_exact_law_however_frames_are_cut_into_blocks(blocks, steps):
    video = GaussianVideo(0.5, 0.3)
    decoder = GaussianBlocks(
        video=video, denoise=video.jump, sampler=few_step, sigmas=few_step_sigmas(steps, 5.0), window=2, seed=steps
    )
    assert (covariances(decode(decoder, blocks), 4) - truth(video, 4)).abs().max() < LIMIT
    assert video.calls == len(blocks) * (steps + 1)
    assert decoder.guarantee is Guarantee.EXACT_LAW


def test_evicting_one_frame_too_many_shows_in_the_law():
    video = GaussianVideo(0.2, 0.6)
    decoder = GaussianBlocks(
        video=video, denoise=video.jump, sampler=few_step, sigmas=few_step_sigmas(2, 5.0), window=1, seed=1
    )
    seen = covariances(decode(decoder, [1] * 9), 3)
    lag_1 = video.covariance(1)
    expected = torch.tensor([1.0, lag_1, lag_1**2], dtype=torch.float64)
    assert (seen - expected).abs().max() < LIMIT, "one visible frame makes it an autoregression over one frame"
    assert abs(float(seen[2]) - video.covariance(2)) > 4 * LIMIT
    assert decoder.guarantee is Guarantee.APPROXIMATE


@pytest.mark.parametrize(("sampler", "steps"), [(euler, (4, 16, 64)), (heun, (2, 4, 16))])
def test_lag_and_variance_approach_the_truth_as_the_steps_grow(sampler, steps):
    errors = []
    for count in steps:
        video = GaussianVideo(0.8)
        decoder = GaussianBlocks(
            video=video, denoise=video.clean, sampler=sampler, sigmas=uniform_sigmas(count), window=1
        )
        variance, lag_1 = covariances(decode(decoder, [1] * 12), 2).tolist()
        errors.append((abs(variance - 1), abs(lag_1 - 0.8)))
        assert decoder.guarantee is Guarantee.APPROXIMATE
    for coarse, fine in pairwise(errors):
        assert fine[0] < coarse[0] / 2
        assert fine[1] < coarse[1] / 2
    assert min(errors[0]) > 4 * LIMIT


def test_few_step_with_the_mean_of_what_is_possible_loses_the_variety():
    video = GaussianVideo(0.8)
    decoder = GaussianBlocks(
        video=video, denoise=video.clean, sampler=few_step, sigmas=few_step_sigmas(4, 5.0), window=1
    )
    assert covariances(decode(decoder, [1] * 9), 1)[0] < 0.8
    assert decoder.guarantee is Guarantee.APPROXIMATE


@pytest.mark.parametrize("sampler", [few_step, euler, heun])
def test_a_proposal_can_be_thrown_away_and_made_again(sampler):
    video = GaussianVideo(0.5, 0.3)

    def make() -> GaussianBlocks:
        return GaussianBlocks(
            video=video, denoise=video.jump, sampler=sampler, sigmas=uniform_sigmas(3), window=2, seed=4
        )

    decoder, blocks = make(), []
    for _ in range(3):
        discarded, block = decoder.propose(2), decoder.propose(2)
        assert torch.equal(discarded, block)
        decoder.commit(block)
        blocks.append(block)
    assert torch.equal(torch.cat(blocks, dim=1), decode(make(), [2] * 3))
