"""How fast models of the Wan family make video here, beside the bare arithmetic it is made of; weights are drawn.

    python -m benchmarks.decode --world wan-1.3b --random-weights

What a block costs does not depend on what the weights are. The floor is that of its matrix products and attention
alone, of the same shapes and dtype, timed in turn with the blocks.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from benchmarks.record import spread
from worldsim.cache.attention import attend_all
from worldsim.cache.policy import Window
from worldsim.codec.taehv import TaehvCodec, TaehvConfig, TaehvDecoder
from worldsim.codec.tail import ForgetfulCodec, TailCodec
from worldsim.codec.wan import WanCodec
from worldsim.decoding.plan import VideoPlan
from worldsim.models.wan.backbone import WanBackbone
from worldsim.models.wan.config import WanConfig, wan_config
from worldsim.models.wan.layers import speed_up
from worldsim.runtime.devices import is_gpu, pick_device
from worldsim.runtime.world import World
from worldsim.wan import FPS, SELF_FORCING, WanParts, assemble_wan

PROMPT_WORDS = 40
WIDTHS = (96, *TaehvConfig().widths)
NARROW = (8, 16, 8, 8, 8)
"""As published, and for backbones that are small: the codec has 96, and would take all of their time."""
SMALL = {"dim": 256, "ffn_dim": 1536, "layers": 6, "heads": 4, "text_dim": 64, "text_length": 128}
"""A size for CPUs, in the proportions of the published ones: where products, and not single calls, take the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to make video.

    window: latent frames that attention spans, those of the block among them.
    clean_pass: write keys and values by a pass of their own.
    preview: decode with the tiny decoder.
    compiled: compile the layers.
    linears: in which 8 bits they multiply.
    """

    window: int
    clean_pass: bool = True
    preview: bool = False
    compiled: bool = False
    linears: str | None = None

    @property
    def label(self) -> str:
        """In words."""
        parts = [f"window {self.window}", "tiny decoder" if self.preview else "codec"]
        parts += ["no clean pass"] * (not self.clean_pass)
        return ", ".join([*parts, *["compiled"] * self.compiled, *([] if self.linears is None else ["8 bits"])])


PLAIN = (
    Setting(window=12),
    Setting(window=21),
    Setting(window=12, preview=True),
    Setting(window=12, preview=True, clean_pass=False),
    Setting(window=12, preview=True, linears="int8"),
    Setting(window=12, preview=True, compiled=True),
    Setting(window=12, preview=True, compiled=True, clean_pass=False),
    Setting(window=12, preview=True, compiled=True, linears="int8"),
)
"""On a CPU; the last three take a C++ compiler."""
FAST: tuple[Setting, ...] = (
    Setting(window=12, preview=True),
    *(
        setting
        for linears in (None, "fp8")
        for setting in (
            Setting(window=12, preview=True, compiled=True, linears=linears),
            Setting(window=21, preview=True, compiled=True, linears=linears),
            Setting(window=12, preview=True, compiled=True, linears=linears, clean_pass=False),
        )
    ),
    Setting(window=12, compiled=True, linears="fp8"),
    Setting(window=12),
)
"""On a GPU, where what is said first matters most, should time run out."""


def drawn(network: nn.Module, *, seed: int) -> nn.Module:
    """The network with every parameter drawn, small enough that values stay finite."""
    generator = torch.Generator(next(network.parameters()).device).manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.02, generator=generator)
    return network.eval().requires_grad_(False)


def drawn_backbone(config: WanConfig, *, device: torch.device, dtype: torch.dtype, seed: int = 0) -> WanBackbone:
    """A backbone of that size with drawn weights, made where it stays."""
    with torch.device("meta"):
        network = WanBackbone(config).to(dtype)
    backbone = drawn(network.to_empty(device=device), seed=seed)
    assert isinstance(backbone, WanBackbone)
    return backbone


def prepared(config: WanConfig, setting: Setting, *, device: torch.device, dtype: torch.dtype) -> WanBackbone:
    """A drawn backbone, made as fast as a setting wants."""
    backbone = drawn_backbone(config, device=device, dtype=dtype)
    speed_up(backbone.blocks, compiled=setting.compiled, linears=setting.linears)
    return backbone


def config_of(size: str, pixels: tuple[int, int]) -> WanConfig:
    """The backbone of that size, "small" or one of worldsim.models.wan.config, for pictures of (height, width)."""
    config = wan_config("tiny" if size == "small" else size, height_px=pixels[0], width_px=pixels[1])
    return replace(config, **SMALL) if size == "small" else config


def drawn_codec(
    *, preview: bool, device: torch.device, dtype: torch.dtype, widths: tuple[int, ...] = WIDTHS
) -> ForgetfulCodec:
    """The codec, or the tiny decoder, with drawn weights.

    Args:
        widths: of the codec, and of the four parts of the tiny decoder.
    """
    if preview:
        first, second, third, last = widths[1:]
        network = TaehvDecoder(TaehvConfig(widths=(first, second, third, last))).to(device, dtype)
        drawn(network, seed=3)
        return TaehvCodec(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = import_module("diffusers").AutoencoderKLWan(base_dim=widths[0])
    return WanCodec(drawn(nn.Module.to(model, device, dtype), seed=2))


def world_of(backbone: WanBackbone, codec: ForgetfulCodec, setting: Setting) -> World:
    """The world of that setting: Self-Forcing's recipe, seeing the window's past."""
    generator = torch.Generator().manual_seed(1)

    def embed(text: str) -> Tensor:
        words = min(PROMPT_WORDS, backbone.config.text_length)
        return torch.randn(words, backbone.config.text_dim, generator=generator)

    plan: VideoPlan = replace(
        SELF_FORCING.plan(),
        policy=Window(frames=setting.window - SELF_FORCING.frames_per_block),
        clean_pass=setting.clean_pass,
    )
    return assemble_wan(SELF_FORCING, plan, WanParts(backbone=backbone, codec=codec, embed=embed, identity="drawn"))


def floor(backbone: WanBackbone, *, frames: int, past: int, calls: int) -> Callable[[], None]:
    """The matrix products and attention of one block, and nothing else; arguments as for benchmarks.decode.floor."""
    config, weight = backbone.config, backbone.head.head.weight
    tokens, dim, ffn = config.geometry.tokens_per_frame, config.dim, config.ffn_dim
    own, seen = frames * tokens, (past + frames) * tokens
    layer = [(dim, dim)] * 6 + [(ffn, dim), (dim, ffn)]
    weights = [torch.randn(shape).to(weight) for shape in layer]
    x = {width: torch.randn(own, width).to(weight) for width in (dim, ffn)}
    heads = (config.heads, config.head_dim)
    q, told, k = (torch.randn(1, n, *heads).to(weight) for n in (own, config.text_length, seen))

    def run() -> None:
        for _ in range(calls * config.layers):
            for weight in weights:
                linear(x[weight.shape[1]], weight)
            attend_all(q, k, k)
            attend_all(q, told, told)

    return run


@torch.no_grad()
def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """The milliseconds that one call takes, its work on the device included, and what it returns."""
    _wait(device)
    start = time.perf_counter()
    found = call()
    _wait(device)
    return (time.perf_counter() - start) * 1e3, found


def _wait(device: torch.device) -> None:
    if is_gpu(device):
        torch.cuda.synchronize(device)


def block_times(world: World, backbone: WanBackbone, codec: TailCodec, *, blocks: int) -> dict[str, Any]:
    """Milliseconds of a block with a full window by part, its floor, and frames of pixels a second end to end."""
    device, past = world.pool.device, world.plan.policy.limit
    assert past is not None
    frames = world.plan.frames_per_block
    if is_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)
    parts: dict[str, list[float]] = {"denoise": [], "commit": [], "decode": [], "whole": [], "floor": []}
    with world.open(seed=7, prompt="drawn") as session:
        first, _ = timed(session.step, device)
        for _ in range(past // frames + 1):
            session.step()
        for _ in range(blocks):
            whole, chunk = timed(session.step, device)
            parts["whole"].append(whole)
        peak = {"peak_gb": torch.cuda.max_memory_allocated(device) / 1e9} if is_gpu(device) else {}
        base = floor(backbone, frames=frames, past=past, calls=world.calls_per_block)
        session.forget()
        decoder, state = session._moment.decoder, session._moment.codec_state
        for _ in range(blocks):
            denoise, block = timed(partial(decoder.propose, torch.zeros(1, frames, 0, device=device)), device)
            decode, (_, state) = timed(partial(codec.decode, block.latents[0], state), device)
            commit, _ = timed(partial(decoder.commit, block), device)
            bare, _ = timed(base, device)
            for name, took in (("denoise", denoise), ("decode", decode), ("commit", commit), ("floor", bare)):
                parts[name].append(took)
    times = {f"{name}_ms": spread(took) for name, took in parts.items()}
    ratios = [bare / (p + c) for bare, p, c in zip(parts["floor"], parts["denoise"], parts["commit"], strict=True)]
    return {
        "calls_per_block": world.calls_per_block,
        **times,
        "ratio_to_floor": spread(ratios),
        "fps": len(chunk.frames) / times["whole_ms"]["median"] * 1e3,
        "real_time_factor": len(chunk.frames) / times["whole_ms"]["median"] * 1e3 / FPS,
        "first_chunk_ms": first,
        **peak,
    }


def measure(
    size: str,
    *,
    blocks: int,
    pixels: tuple[int, int],
    device: torch.device | None = None,
    settings: Sequence[Setting] = (),
    keep: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """Everything that is reported of one size: windows of 12 and 21 frames, either decoder, without a clean pass.

    Args:
        size: see config_of.
        blocks: timed for each setting.
        pixels: (height, width) of the pictures.
        device: the one there is, if None.
        settings: what to time; FAST on a GPU and PLAIN elsewhere, if none.
        keep: given what there is after each setting, so that what is broken off has left it.
    """
    device = device or pick_device()
    dtype = torch.bfloat16 if is_gpu(device) else torch.float32
    config, widths = config_of(size, pixels), NARROW if size in ("tiny", "small") else WIDTHS
    times: dict[str, Any] = {}
    found = {"size": size, "pixels": list(pixels), "dtype": str(dtype).removeprefix("torch."), "settings": times}
    codecs: dict[bool, ForgetfulCodec] = {}
    backbone: WanBackbone | None = None
    made: tuple[bool, str | None] = (False, None)
    for setting in settings or (FAST if is_gpu(device) else PLAIN):
        if setting.preview not in codecs:
            preview = setting.preview
            codecs[preview] = drawn_codec(preview=preview, device=device, dtype=dtype, widths=widths)
        if backbone is None or made != (setting.compiled, setting.linears):
            backbone, made = None, (setting.compiled, setting.linears)  # it goes before there is another
            backbone = prepared(config, setting, device=device, dtype=dtype)
        world = world_of(backbone, codecs[setting.preview], setting)
        times[setting.label] = block_times(world, backbone, TailCodec(codecs[setting.preview]), blocks=blocks)
        del world
        gc.collect()  # or its pool is still there when the most memory of the next one is counted
        keep(found)
    return found
