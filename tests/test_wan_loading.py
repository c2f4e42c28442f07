"""Loading published weights takes little more host memory than those that were asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.codec.test_wan_weights import original
from worldsim.models.wan.config import wan_config
from worldsim.models.wan.stored import wanted_shapes

MEASURED = """
import sys
from pathlib import Path
import torch

def told(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

def begin():
    Path("/proc/self/clear_refs").write_text("5")  # the most from here on
    return told("VmRSS")
"""
BACKBONE = """
from worldsim.models.wan.backbone import WanBackbone
from worldsim.wan import RECIPES, fill_backbone, open_backbone

before = begin()
weights, config = open_backbone(RECIPES["self-forcing"], Path(sys.argv[1]), size=(480, 832))
with torch.device("meta"):
    backbone = WanBackbone(config)
fill_backbone(backbone, weights, device=torch.device("cpu"), dtype=torch.float32)
print(told("VmHWM") - before, sum(tensor.nbytes for tensor in backbone.state_dict().values()))
"""
CODEC = """
from diffusers import AutoencoderKLWan
from worldsim.codec.wan_weights import load_wan_codec

before = begin()
codec = load_wan_codec(Path(sys.argv[1]), device=torch.device("cpu"), dtype=torch.float32)
print(told("VmHWM") - before, sum(tensor.nbytes for tensor in codec.model.state_dict().values()))
"""
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the most that was taken"
)


def taken(program: str, path: Path) -> tuple[int, int]:
    """How many bytes more than before loading took at the most, and how many the weights have."""
    command = [sys.executable, "-c", MEASURED + program, path]
    most, weights = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return most, weights


def test_of_a_file_of_two_sets_only_the_chosen_one_is_held(tmp_path: Path) -> None:
    config = replace(wan_config("1.3b"), dim=512, ffn_dim=2_048, layers=4, heads=4)
    sets = {
        part: {f"model.{name}": torch.full(shape, 0.01) for name, shape in wanted_shapes(config).items()}
        for part in ("generator", "generator_ema")
    }
    torch.save(sets, tmp_path / "a.pt")
    most, weights = taken(BACKBONE, tmp_path / "a.pt")
    assert weights > 80e6
    assert most < 1.2 * weights


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_of_a_codec_is_not_held_beside_what_is_made_of_it(tmp_path: Path, name: str) -> None:
    tensors = {name: torch.full(shape, 0.01) for name, shape in original(64).items()}
    (torch.save if name == "a.pth" else save_file)(tensors, tmp_path / name)
    most, weights = taken(CODEC, tmp_path / name)
    assert weights > 200e6
    assert most < 1.2 * weights
