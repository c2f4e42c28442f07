"""The same world on an accelerator: equal to itself bit for bit, and to the CPU within rounding."""

from __future__ import annotations

import pytest
import torch

from worldsim.cache.pool import PagePool
from worldsim.decoding.video import VideoDecoder
from worldsim.noise import uniforms
from worldsim.testing.fakes import tiny_backbone, tiny_world

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]
BLOCKS = 12


def latents(device: str, dtype: torch.dtype) -> torch.Tensor:
    """What twelve blocks of the tiny world come to, on that device and in that dtype, float64 on the CPU."""
    where = torch.device(device)
    backbone = tiny_backbone(3, dtype=dtype).to(where)
    pool = PagePool(backbone.pages, pages=32, dtype=dtype, device=where)
    decoder = VideoDecoder(backbone, pool, tiny_world().plan, seed=11)
    shape = (1, 4, *backbone.geometry.frame_shape)
    decoder.prefill(
        uniforms(1, 0, 0, shape).to(where, dtype), torch.zeros(1, 4, backbone.controls, device=where, dtype=dtype)
    )
    made = []
    for block in range(BLOCKS):
        controls = torch.zeros(1, 1, backbone.controls, device=where, dtype=dtype)
        controls[..., block % 3] = 1
        made.append(decoder.propose(controls))
        decoder.commit(made[-1])
    return torch.cat([block.latents for block in made]).double().cpu()


def test_the_same_blocks_come_out_twice_bit_for_bit():
    assert torch.equal(latents("cuda", torch.float32), latents("cuda", torch.float32))


def test_blocks_agree_with_the_cpu_within_its_own_rounding():
    truth = latents("cpu", torch.float64)
    plain = (latents("cpu", torch.float32) - truth).square().mean().sqrt()
    ours = (latents("cuda", torch.float32) - truth).square().mean().sqrt()
    assert ours <= 4 * plain, f"error {ours:.3g} on the GPU, {plain:.3g} on the CPU"
