"""Training on an accelerator: the fused attention of a pass, and a stage of it, against the CPU."""

from __future__ import annotations

import pytest
import torch

from worldsim.cache.rotary import Rotary
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.training.attention import StreamAttention, StreamLayout
from worldsim.training.objectives import BeliefForcing
from worldsim.training.passes import Play
from worldsim.training.trainer import Stage, Trainer, TrainingPlan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]
GRID = (9, 9)
ROTARY = Rotary(time=16, rows=8, columns=8, theta=100.0)
CONFIG = SmallConfig(channels=192, height=9, width=9, controls=19, dim=64, layers=2, heads=2, head_dim=32, palette=8)
LAYOUTS = [
    StreamLayout(frames=4, block=1, window=0),
    StreamLayout(frames=8, block=2, window=8, first=4, copies=2),
    StreamLayout(frames=12, block=4, window=6, first=4),
]


def attended(layout: StreamLayout, given: torch.Tensor, device: str, dtype: torch.dtype) -> torch.Tensor:
    """The answer and the gradient of its squares, float64 on the CPU."""
    x = given.to(device, dtype).requires_grad_()
    out = StreamAttention(layout, rotary=ROTARY, grid=GRID, device=torch.device(device))(0, *x)
    (gradient,) = torch.autograd.grad(out.float().square().sum(), x)
    return torch.cat((out.detach().flatten(), gradient.flatten())).double().cpu()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_kernel_attends_as_block_after_block_does(layout, dtype):
    shape = (3, 2, len(layout.times) * 81, 4, 32)
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    truth = attended(layout, given, "cpu", torch.float64)
    plain = (attended(layout, given, "cpu", dtype) - truth).square().mean().sqrt()
    ours = (attended(layout, given, "cuda", dtype) - truth).square().mean().sqrt()
    # A GPU may multiply float32 in TF32, which keeps ten bits.
    assert ours <= max(4 * plain, 2e-3 * truth.square().mean().sqrt()), f"{ours:.3g}, on the CPU {plain:.3g}"


PALETTE = torch.rand(8, 192, generator=torch.Generator().manual_seed(1))


class Still:
    """Windows that show one patch of the palette everywhere, and go on showing it."""

    def sample(self, rng, *, windows, frames):
        shown = PALETTE[torch.from_numpy(rng.integers(8, size=windows))]
        latents = shown[:, None, :, None, None].expand(windows, frames, 192, 9, 9).contiguous()
        return Play(latents.cuda(), torch.zeros(windows, frames, 19, device="cuda"))


def test_a_stage_learns_its_windows():
    backbone = SmallBackbone(CONFIG, torch.Generator().manual_seed(0)).cuda()
    backbone.palette.fill(PALETTE.cuda())
    stage = Stage(updates=40, objective=BeliefForcing(frames=8, first=4, blocks=(1, 2, 4)), windows=4, lr=(2e-3, 2e-3))
    trainer = Trainer(backbone, TrainingPlan(stages=(stage,), warmup=5), Still())
    losses = [trainer.step() for _ in range(40)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
