"""`convert` makes one folder of whatever the weights came as, and refuses before it downloads or writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from worldsim.errors import ConfigError, WeightsError
from worldsim.models.wan import hub
from worldsim.models.wan.backbone import WanBackbone
from worldsim.models.wan.config import wan_config
from worldsim.models.wan.stored import read_card, read_config, wanted_shapes
from worldsim.models.wan.weights import load_tensors
from worldsim_apps.convert import convert

SMALL = replace(wan_config("1.3b"), dim=128, ffn_dim=40, layers=2, heads=1, freq_dim=16, text_dim=24)
LAYER = "blocks.1.ffn.0"


def state(seed: int, prefix: str = "") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = wanted_shapes(SMALL).items()
    return {prefix + name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file as published, with both sets of weights."""
    path = tmp_path / "self_forcing_dmd.pt"
    torch.save({"generator": state(1, "model."), "generator_ema": state(2, "model._fsdp_wrapped_module.")}, path)
    return path


def test_a_published_file_becomes_a_folder_that_fills_a_backbone(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    card = convert(source, out, ema=True, recipe="self-forcing")
    assert card == read_card(out)
    assert (card["part"], card["left_out"]) == ("generator_ema", ["generator"])
    config, recipe = read_config(out)
    assert recipe == "self-forcing"
    with torch.device("meta"):
        backbone = WanBackbone(config)
    backbone.load_state_dict(dict(load_tensors(out)), assign=True)
    assert all(torch.equal(tensor, state(2)[name]) for name, tensor in backbone.state_dict().items())


def test_a_lora_is_merged_into_what_is_written(source: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    down, up = torch.randn(4, 128, generator=generator), torch.randn(40, 4, generator=generator)
    name = f"base_model.model.{LAYER}.lora_"
    torch.save({"generator_lora": {f"{name}A.weight": down, f"{name}B.weight": up}}, tmp_path / "lora.pt")
    card = convert(source, tmp_path / "out", ema=False, lora=tmp_path / "lora.pt", alpha=8)
    (merged,) = card["merged"]
    assert (merged["name"], merged["alpha"]) == ("lora.pt", 8)
    found, wanted = load_tensors(tmp_path / "out"), state(1)
    changed = wanted[f"{LAYER}.weight"]
    wanted[f"{LAYER}.weight"] = torch.add(changed.float(), up @ down, alpha=2.0).bfloat16()
    assert not torch.equal(wanted[f"{LAYER}.weight"], changed)
    assert all(torch.equal(found[each], tensor) for each, tensor in wanted.items())


def test_a_folder_of_diffusers_becomes_one_of_public_names(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=128, text_dim=24, freq_dim=16, ffn_dim=40, num_layers=2
    )
    model.save_pretrained(tmp_path / "pipeline" / "transformer")
    card = convert(tmp_path / "pipeline", tmp_path / "out")
    assert card["renamed_from"] == "diffusers"
    assert read_config(tmp_path / "out") == (SMALL, None)
    found, theirs = load_tensors(tmp_path / "out"), model.state_dict()
    assert torch.equal(found["blocks.1.cross_attn.k.weight"], theirs["blocks.1.attn2.to_k.weight"])
    assert torch.equal(found["head.head.weight"], theirs["proj_out.weight"])


def test_what_was_converted_converts_to_the_same(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "one", ema=True)
    convert(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_a_taken_folder_is_refused_before_anything_is_downloaded(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(repository: str, file: str | None) -> Path:
        raise AssertionError("downloaded")

    monkeypatch.setattr(hub, "_brought", never)
    for out in (tmp_path, source):
        with pytest.raises(ConfigError, match="is there and not an empty folder"):
            convert("gdhe17/Self-Forcing", out)
    with pytest.raises(ConfigError, match=r"alpha=2.* name its file, or leave alpha"):
        convert("gdhe17/Self-Forcing", tmp_path / "out", alpha=2)


def test_a_file_in_place_of_a_folder_is_refused_before_anything_is_downloaded(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_brought", None)
    for out in (source / "x", source / "x" / "y"):
        with pytest.raises(
            ConfigError, match=rf"y? cannot be made, since {source} is a file and no folder; name another"
        ):
            convert("gdhe17/Self-Forcing", out)


def test_doubt_and_wrong_sources_leave_nothing_behind(source: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="say whether to take the averaged weights"):
        convert(source, tmp_path / "out")
    with pytest.raises(WeightsError, match="there is no nowhere"):
        convert("nowhere", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
