"""What fits a GPU of 12 and of 16 GB: a model of 1.3 billion parameters in so much memory and no more; weights drawn.

    python -m benchmarks.fit

The settings for cards are those of docs/published.md: a window, a budget for keys and values with the rest in host
memory, and a tiny decoder or the codec offloaded. The process may take no more of the GPU than a card of that size has
beside its driver. Each world begins from a picture, lives on until its window is full, and is weighed beside its plan.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.decode_wan import NARROW, WIDTHS, config_of, drawn_backbone, drawn_codec, timed
from benchmarks.record import run, spread, write
from worldsim.cache.policy import Window
from worldsim.codec.preview import PreviewCodec
from worldsim.codec.tail import ForgetfulCodec
from worldsim.codec.wan import WanCodec
from worldsim.codec.wan_tiles import Tiling
from worldsim.errors import ConfigError
from worldsim.keeping import Keeping, tiers_of
from worldsim.runtime.devices import is_gpu, pick_device
from worldsim.runtime.world import World
from worldsim.wan import SELF_FORCING, WanParts, assemble_wan, dtype_on
from worldsim.wan_memory import DRIVER_BYTES, MemoryPlan, Shortcuts, memory_plan

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to make a world small.

    card: bytes of the GPU it is to fit; None if it may take what there is.
    frames: that a block sees of the past.
    budget: for keys and values where they are computed; None keeps all of them there.
    shortcuts: how pictures are made.
    """

    card: int | None
    frames: int
    budget: str | None
    shortcuts: Shortcuts

    @property
    def label(self) -> str:
        """In words."""
        decoder = "tiny decoder" if self.shortcuts.preview else "codec"
        parts = [
            "any" if self.card is None else f"{self.card / 1e9:.0f} GB",
            f"{self.frames} frames of the past",
            *([] if self.budget is None else [f"budget {self.budget}"]),
            f"{decoder}, offloaded" if self.shortcuts.offload else decoder,
        ]
        return ", ".join(parts)


PREVIEW, OFFLOAD = Shortcuts(preview=True), Shortcuts(offload=True)
SETTINGS = (
    Setting(card=16_000_000_000, frames=9, budget="3.5GB", shortcuts=PREVIEW),
    Setting(card=12_000_000_000, frames=6, budget="2.6GB", shortcuts=PREVIEW),
    Setting(card=16_000_000_000, frames=9, budget="3.5GB", shortcuts=OFFLOAD),
    Setting(card=12_000_000_000, frames=6, budget="2.6GB", shortcuts=OFFLOAD),
    Setting(card=None, frames=9, budget=None, shortcuts=PREVIEW),
    Setting(card=None, frames=18, budget=None, shortcuts=Shortcuts()),
)


def limit(card: int | None, device: torch.device) -> None:
    """Let this process take no more of a GPU than a card of so many bytes has beside its driver."""
    if is_gpu(device):
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if card is None else (card - DRIVER_BYTES) / whole, device)


def codec_of(shortcuts: Shortcuts, *, widths: tuple[int, ...], device: torch.device) -> ForgetfulCodec:
    """The codec as worldsim.codec.choice makes it, with drawn weights; widths as for drawn_codec."""
    drawn = partial(drawn_codec, device=device, dtype=dtype_on(device), widths=widths)
    codec = drawn(preview=False)
    assert isinstance(codec, WanCodec)
    if shortcuts.offload:
        codec = WanCodec(codec.model, tiling=Tiling(), home=CPU)
    return PreviewCodec(codec, drawn(preview=True)) if shortcuts.preview else codec


def planned_of(size: str, setting: Setting, *, pixels: tuple[int, int], device: torch.device) -> MemoryPlan:
    """What a world of that setting is said to take; arguments as measure."""
    return memory_plan(
        config_of(size, pixels),
        SELF_FORCING.plan(policy=Window(frames=setting.frames)),
        dtype=dtype_on(device),
        shortcuts=setting.shortcuts,
        keeping=_keeping(setting, device),
    )


def held(size: str, setting: Setting, *, blocks: int, pixels: tuple[int, int], device: torch.device) -> dict[str, Any]:
    """What a world of that setting takes: bytes at the most, and how long a block takes once its window is full.

    Arguments as measure.
    """
    limit(setting.card, device)
    config, dtype = config_of(size, pixels), dtype_on(device)
    if is_gpu(device):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    words = torch.randn(40, config.text_dim, generator=torch.Generator().manual_seed(1))

    def embed(_: str) -> Tensor:
        return words[: config.text_length]

    codec = codec_of(setting.shortcuts, widths=NARROW if size in ("tiny", "small") else WIDTHS, device=device)
    backbone = drawn_backbone(config, device=device, dtype=dtype)
    parts = WanParts(backbone=backbone, codec=codec, embed=embed, identity="drawn")
    plan = SELF_FORCING.plan(policy=Window(frames=setting.frames))
    world = assemble_wan(SELF_FORCING, plan, parts, keeping=_keeping(setting, device))
    return _lived(world, blocks=blocks, device=device)


def _keeping(setting: Setting, device: torch.device) -> Keeping:
    return Keeping(tiers=tiers_of(setting.budget, None, device))


def _lived(world: World, *, blocks: int, device: torch.device) -> dict[str, Any]:
    picture = np.random.default_rng(1).integers(0, 255, (1, *world.size, 3), dtype=np.uint8)
    with world.open(seed=7, prompt="drawn", frames=picture) as session:
        first, _ = timed(session.step, device)
        for _ in range((world.plan.policy.limit or 0) // world.plan.frames_per_block + 1):
            session.step()
        took = [timed(session.step, device) for _ in range(blocks)]
    times = spread([each for each, _ in took])
    found = {
        "block_ms": times,
        "fps": len(took[-1][1].frames) / times["median"] * 1e3,
        "first_chunk_ms": first,
    }
    if not is_gpu(device):
        return found
    free, whole = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    peaks = {"peak_gb": torch.cuda.max_memory_allocated(device), "reserved_gb": torch.cuda.max_memory_reserved(device)}
    return {**found, **{name: n / 1e9 for name, n in peaks.items()}, "driver_gb": (whole - free - reserved) / 1e9}


def measure(
    size: str,
    *,
    blocks: int,
    pixels: tuple[int, int],
    device: torch.device,
    settings: Sequence[Setting] = SETTINGS,
    keep: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """Every setting: whether it lives within its limit, what it took, and what was planned.

    Args:
        size: of the backbone, see benchmarks.decode_wan.config_of.
        blocks: timed for each setting.
        pixels: (height, width) of the pictures.
        device: where it computes. A CPU has no limit.
        settings: what to weigh.
        keep: given what there is after each setting, so that what is broken off has left it.
    """
    told: dict[str, Any] = {}
    found = {"size": size, "pixels": list(pixels), "settings": told}
    for setting in settings:
        planned = planned_of(size, setting, pixels=pixels, device=device)
        told[setting.label] = {"planned_gb": planned.device / 1e9, "card_gb": planned.card / 1e9}
        try:
            told[setting.label] |= {"fits": True, **held(size, setting, blocks=blocks, pixels=pixels, device=device)}
        except torch.OutOfMemoryError as error:
            told[setting.label] |= {"fits": False, "told": str(error)}
        gc.collect()  # or its pool is still there when the most memory of the next one is counted
        keep(found)
    limit(None, device)
    return found


def main(blocks: Annotated[int, typer.Option(min=1, help="Blocks timed for each setting.")] = 5) -> None:
    """Weigh a model of 1.3 billion parameters at 832 x 480 and write benchmarks/results/fit.json."""
    device = pick_device()
    if not is_gpu(device):
        raise ConfigError("torch sees no GPU here, and only a GPU's memory is weighed; run it where there is one")
    keep = partial(write, "fit")
    typer.echo(keep(measure("1.3b", blocks=blocks, pixels=(480, 832), device=device, keep=keep)).read_text())


if __name__ == "__main__":
    run(main)
