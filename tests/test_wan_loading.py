"""Loading published weights takes little more host memory than those that were asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from worldsim.models.wan.config import wan_config
from worldsim.models.wan.stored import wanted_shapes

PROGRAM = """
import sys
from pathlib import Path
import torch
from worldsim.models.wan.backbone import WanBackbone
from worldsim.wan import RECIPES, fill_backbone, open_backbone

def told(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

Path("/proc/self/clear_refs").write_text("5")  # the most from here on
before = told("VmRSS")
weights, config = open_backbone(RECIPES["self-forcing"], Path(sys.argv[1]), size=(480, 832))
with torch.device("meta"):
    backbone = WanBackbone(config)
fill_backbone(backbone, weights, device=torch.device("cpu"), dtype=torch.float32)
print(told("VmHWM") - before, sum(tensor.nbytes for tensor in backbone.state_dict().values()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the most that was taken")
def test_of_a_file_of_two_sets_only_the_chosen_one_is_held(tmp_path: Path) -> None:
    config = replace(wan_config("1.3b"), dim=512, ffn_dim=2_048, layers=4, heads=4)
    sets = {
        part: {f"model.{name}": torch.full(shape, 0.01) for name, shape in wanted_shapes(config).items()}
        for part in ("generator", "generator_ema")
    }
    torch.save(sets, tmp_path / "a.pt")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "a.pt"], capture_output=True, text=True, check=True
    )
    taken, weights = map(int, done.stdout.split())
    assert weights > 80e6
    assert taken < 1.2 * weights
