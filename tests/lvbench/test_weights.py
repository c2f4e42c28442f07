"""Files of weights are found under their public names, in a folder or where other programs keep them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lvbench.errors import ConfigError
from lvbench.weights import SOURCES, caches, find, hashed


def put(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_file_is_found_below_a_folder_under_each_of_its_names(tmp_path, name):
    for at, known in enumerate(SOURCES[name].names):
        folder = tmp_path / str(at)
        path = put(folder / "deep" / known.replace("*", "abc123"))
        assert find(folder, ()) == {name: path}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("clarity", "huggingface/hub/models--chaofengc--IQA-PyTorch-Weights/snapshots/1/musiq_spaq_ckpt-358bb6af.pth"),
        ("clarity", "torch/hub/pyiqa/musiq_spaq_ckpt-358bb6af.pth"),
        ("motion", "huggingface/hub/models--lalala125--AMT/snapshots/1/amt-s.pth"),
        ("motion", "vbench/amt_model/amt-s.pth"),
        (
            "aesthetic",
            "huggingface/hub/models--timm--vit_large_patch14_clip_224.openai/snapshots/1/open_clip_model.safetensors",
        ),
        ("aesthetic_head", "emb_reader/sa_0_4_vit_l_14_linear.pth"),
        ("background", "clip/ViT-B-32.pt"),
        ("subject", "torch/hub/checkpoints/dino_vitbase16_pretrain.pth"),
        ("subject", "huggingface/hub/models--timm--vit_base_patch16_224.dino/snapshots/1/model.safetensors"),
        ("flow", "vbench/raft_model/models/raft-things.pth"),
    ],
)
def test_a_file_is_found_where_other_programs_keep_it(tmp_path, name, place):
    path = put(tmp_path / ".cache" / place)
    assert find(None, caches({}, tmp_path)) == {name: path}


@pytest.mark.parametrize(
    ("variable", "value", "place"),
    [
        ("XDG_CACHE_HOME", "x", "x/clip/ViT-B-32.pt"),
        (
            "HF_HOME",
            "h",
            "h/hub/models--timm--vit_base_patch32_clip_224.openai/snapshots/1/open_clip_model.safetensors",
        ),
        (
            "HF_HUB_CACHE",
            "h",
            "h/models--timm--vit_base_patch32_clip_224.openai/snapshots/1/open_clip_model.safetensors",
        ),
        ("TORCH_HOME", "t", "t/hub/checkpoints/ViT-B-32.pt"),
        ("VBENCH_CACHE_DIR", "v", "v/clip_model/ViT-B-32.pt"),
    ],
)
def test_the_environment_moves_where_they_are(tmp_path, variable, value, place):
    path = put(tmp_path / place)
    assert find(None, caches({}, tmp_path)) == {}
    assert find(None, caches({variable: str(tmp_path / value)}, tmp_path)) == {"background": path}


def test_the_folder_comes_before_the_caches(tmp_path):
    put(tmp_path / ".cache" / "clip" / "ViT-B-32.pt")
    path = put(tmp_path / "mine" / "ViT-B-32.pt")
    assert find(tmp_path / "mine", caches({}, tmp_path)) == {"background": path}
    assert find(None, caches({}, tmp_path)) != {"background": path}


def test_a_folder_of_that_name_is_no_file_and_no_folder_is_told(tmp_path):
    (tmp_path / "amt-s.pth").mkdir()
    assert find(tmp_path, ()) == {}
    with pytest.raises(ConfigError, match="none is no folder; --weights names one"):
        find(tmp_path / "none", ())


def test_files_come_with_the_hash_of_their_bytes(tmp_path, monkeypatch):
    put(tmp_path / "a", "abc")
    monkeypatch.chdir(tmp_path)
    (found,) = hashed({"flow": Path("a")}).values()
    assert (found.path, found.sha256) == (tmp_path / "a", hashlib.sha256(b"abc").hexdigest())
    with pytest.raises(ConfigError, match="gone cannot be read: No such file"):
        hashed({"flow": tmp_path / "gone"})
