"""Which codec shows the latents of a published model, and where it leaves what it carries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from worldsim.codec.preview import PreviewCodec
from worldsim.codec.taehv import load_taehv_codec
from worldsim.codec.tail import ForgetfulCodec
from worldsim.codec.wan import WanCodec
from worldsim.codec.wan_weights import load_wan_codec


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecChoice:
    """How pictures are made of latents.

    preview: a file of the tiny decoder (taew2_1.pth), in place of the codec's own decoder.
    offload: have the codec cut frames into tiles, and what it carries from frame to frame wait in host memory: it takes
        little where it computes, and longer.
    """

    preview: str | Path | None = None
    offload: bool = False

    def load(self, folder: Path, *, device: torch.device, dtype: torch.dtype) -> tuple[WanCodec, ForgetfulCodec]:
        """The codec in a folder, which encodes, and what decodes: the same, or the preview; errors as its loaders."""
        codec = load_wan_codec(folder, device=device, dtype=dtype, offload=self.offload)
        if self.preview is None:
            return codec, codec
        return codec, PreviewCodec(codec, load_taehv_codec(Path(self.preview), device=device, dtype=dtype))
