"""A choice of codec: the codec itself, one that shows a preview, and either with little where it computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.codec import test_taehv, test_wan_weights
from worldsim.codec.choice import CodecChoice
from worldsim.codec.preview import PreviewCodec
from worldsim.codec.taehv import TaehvConfig
from worldsim.codec.wan_tiles import Tiling

CPU = torch.device("cpu")


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("preview", [False, True])
def test_what_encodes_is_the_codec_and_what_shows_is_what_was_chosen(
    tmp_path: Path, *, offload: bool, preview: bool
) -> None:
    folder = test_wan_weights.write_diffusers_folder(tmp_path, test_wan_weights.weights(seed=1))
    tiny = tmp_path / "tiny.safetensors"
    save_file(test_taehv.weights(TaehvConfig(), seed=2), tiny)
    choice = CodecChoice(preview=tiny if preview else None, offload=offload)
    encoder, shown = choice.load(folder, device=CPU, dtype=torch.float32)
    assert encoder.tiling == (Tiling() if offload else None)
    assert isinstance(shown, PreviewCodec) == preview
    assert preview or shown is encoder
    pictures = torch.zeros(1, 16, 24, 3, dtype=torch.uint8)
    latents, _ = shown.encode(pictures, shown.open())
    assert torch.equal(latents, encoder.encode(pictures, encoder.open())[0])
    assert shown.decode(latents, shown.open())[0].shape == pictures.shape
