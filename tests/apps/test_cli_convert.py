"""What is converted from the command line says what it lacks to be a world, and is one when that lies beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import worldsim
from tests.test_wan import beside, original
from worldsim.errors import WeightsError
from worldsim_apps.cli import main

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
LACKS = ["models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/tokenizer.json", "Wan2.1_VAE.pth"]


def test_the_next_step_after_a_conversion_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = original(tmp_path, "self_forcing_dmd.pt", "generator_ema") / "self_forcing_dmd.pt"
    out = tmp_path / "out"
    assert main(["convert", str(source), str(out), "--ema", "--recipe", "self-forcing"]) == 0
    told = capsys.readouterr().out
    fetch = f"`hf download Wan-AI/Wan2.1-T2V-1.3B {' '.join(LACKS)} --local-dir {out}`"
    assert told.startswith(f"{out}: a Wan 2.1 ")
    assert f"to be a world it lacks the text encoder ({LACKS[0]}), the tokenizer ({LACKS[1]}) and the codec" in told
    assert told.endswith(f"get them by {fetch}\n")
    with pytest.raises(WeightsError) as refused:
        worldsim.load("self-forcing", weights=out, size="96x64", device="cpu")
    assert str(refused.value).endswith(f"get them by {fetch}")
    world = worldsim.load("self-forcing", weights=beside(out), size="96x64", device="cpu")
    assert world.size == (64, 96)


def test_what_a_conversion_lacks_is_told_to_programs_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = original(tmp_path, "model.pt", "generator") / "model.pt"
    assert main(["convert", str(source), str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["folder"], told["lacks"]) == (str(tmp_path / "out"), LACKS)
