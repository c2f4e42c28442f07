"""A world small enough for tests, complete from its engine to its random weights, and good for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from worldsim.cache.policy import Policy, Window
from worldsim.cache.pool import PagePool, PageShape
from worldsim.cache.rotary import Rotary
from worldsim.codec.patches import PatchCodec
from worldsim.controls import Action, Controls, Keys
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import KEEP, PromptChange
from worldsim.errors import ConfigError
from worldsim.geometry import LatentGeometry
from worldsim.models.protocol import Attend
from worldsim.models.small.atlas import Scroll
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.noise import block_noise
from worldsim.runtime.starts import Starts
from worldsim.runtime.voice import Eye, Voice
from worldsim.runtime.world import Origin, World
from worldsim.samplers import few_step
from worldsim.schedules import few_step_sigmas
from worldsim.simulators.protocol import Frame

SIDE_PX = 2
GRID = (3, 5)
MOST_WORDS = 64
"""So many words of a prompt are heard."""

CONTROLS = Controls(
    exclusive=False,
    day=12,
    actions=(
        Action(name="left", keys=("KeyA", "ArrowLeft")),
        Action(name="right", keys=("KeyD", "ArrowRight")),
        Action(name="jump", keys=("Space",)),
    ),
)
SCROLL = Scroll(
    rows=2,
    body=(1, 2),
    moves=((CONTROLS.number("left"), 0, -1), (CONTROLS.number("right"), 0, 1)),
)


class DotSimulator:
    """A dot that walks over a striped ground and jumps by day; the episode ends after `length` frames."""

    controls = CONTROLS
    fps = 4
    size = (GRID[0] * SIDE_PX, GRID[1] * SIDE_PX)

    def __init__(self, *, length: int = 1_000) -> None:
        self._length = length
        self._ground = np.zeros((*self.size, 3), dtype=np.uint8)
        self._at = 0
        self._left = 0

    def reset(self, seed: int) -> Frame:
        """Begin the episode of that seed, which colours the ground; returns its first frame, uint8 [6, 10, 3]."""
        self._ground = np.random.default_rng(seed).integers(0, 200, (*self.size, 3), dtype=np.uint8)
        self._at = self.size[1] // 2
        self._left = self._length
        return self._draw(row=-1)

    def step(self, keys: Keys) -> Frame:
        """Advance by one frame with these keys held; returns it, uint8 [6, 10, 3]."""
        names = {action.name for action in self.controls.held(keys)}
        self._at = (self._at + ("right" in names) - ("left" in names)) % self.size[1]
        self._left -= 1
        return self._draw(row=-3 if "jump" in names else -1)

    def close(self) -> None:
        """End the episode; nothing runs beside it."""
        self._left = 0

    @property
    def hour(self) -> int:
        """Frames since the last midnight; an episode begins at one."""
        return (self._length - self._left) % 12

    @property
    def event(self) -> str:
        """Nothing of note happens here."""
        return ""

    @property
    def over(self) -> bool:
        """Whether all frames of the episode have been shown."""
        return self._left <= 0

    def _draw(self, *, row: int) -> Frame:
        frame = self._ground.copy()
        frame[row, self._at] = 255
        return frame


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceCodec:
    """Patches of the difference to the frame before; its state is that frame, [1, C, H, W], or None before the first.

    A codec whose state matters: with the state of another moment everything comes out wrong.
    """

    patches: PatchCodec

    @property
    def group(self) -> int:
        """A latent frame for every frame."""
        return self.patches.group

    def open(self) -> Tensor | None:
        """The state before the first frame."""
        return None

    def encode(self, frames: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames uint8 [F, H, W, 3] to latents float32 [F, C, H / side, W / side]."""
        own, _ = self.patches.encode(frames, None)
        before = torch.cat((torch.zeros_like(own[:1]) if state is None else state, own[:-1]))
        return own - before, own[-1:]

    def decode(self, latents: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Latents [F, C, h, w] to frames uint8 [F, h * side, w * side, 3]."""
        sums = latents.cumsum(0) if state is None else torch.cat((state, latents)).cumsum(0)[1:]
        frames, _ = self.patches.decode(sums, None)
        return frames, sums[-1:]


def tiny_backbone(
    seed: int, *, dtype: torch.dtype = torch.float32, palette: int = 0, remembers: bool = False
) -> SmallBackbone:
    """A backbone for latents of that world, [12, 3, 5], with every parameter drawn from the seed.

    Gates too, which training begins at 0: attention, controls and noise levels all show in its answers. With a palette
    of so many patches it holds beliefs, and then it may remember places too, as of a view that its keys move.
    """
    rows, columns = GRID
    config = SmallConfig(
        channels=3 * SIDE_PX**2,
        height=rows,
        width=columns,
        controls=len(CONTROLS),
        dim=32,
        layers=2,
        heads=2,
        head_dim=16,
        palette=palette,
        scroll=SCROLL if remembers else None,
    )
    backbone = SmallBackbone(config)
    with torch.no_grad():
        for index, (name, parameter) in enumerate(backbone.named_parameters()):
            drawn = block_noise(seed, index, 0, parameter.shape) / parameter.shape[-1] ** 0.5
            parameter.copy_(1 + drawn if "norm" in name else drawn)
    return backbone.to(dtype).eval().requires_grad_(False)


def tiny_world(
    *,
    policy: Policy | None = None,
    frames_per_block: int = 1,
    pages: int = 64,
    steps: int = 2,
    length: int = 1_000,
    remembers: bool = False,
) -> World:
    """A world of the dot, with random weights and three starting places of five frames.

    Args:
        policy: what a block sees of the past; the latest five frames if None.
        frames_per_block: frames made together.
        pages: frames that all its sessions may hold together.
        steps: backbone calls that denoise a block.
        length: of an episode of its engine, in frames.
        remembers: it draws from beliefs, and recalls what it saw of each place.
    """
    backbone = tiny_backbone(0, palette=6 if remembers else 0, remembers=remembers)
    plan = VideoPlan(
        frames_per_block=frames_per_block,
        sigmas=few_step_sigmas(steps, 3.0),
        sampler=few_step,
        policy=Window(frames=5) if policy is None else policy,
        draw=remembers,
        recall=remembers,
    )
    return World(
        Origin.learned_from(lambda: DotSimulator(length=length), name="dot", weights="tiny", starts=_starts()),
        backbone=backbone,
        codec=DifferenceCodec(patches=PatchCodec(side=SIDE_PX)),
        plan=plan,
        pool=PagePool(backbone.pages, pages=pages, dtype=torch.float32, device=torch.device("cpu")),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ToldBackbone:
    """A tiny backbone that is told prompts: words move the latents of every frame by their mean. See PromptedBackbone.

    heard: [B, C], what each row of a call is told; None if it is told nothing.
    """

    inner: SmallBackbone
    heard: Tensor | None = None

    @property
    def geometry(self) -> LatentGeometry:
        return self.inner.geometry

    @property
    def pages(self) -> PageShape:
        return self.inner.pages

    @property
    def rotary(self) -> Rotary:
        return self.inner.rotary

    @property
    def controls(self) -> int:
        return self.inner.controls

    def hear(self, embeddings: Tensor) -> Tensor:
        """From words [L, 2] what is heard of them, [C]."""
        angles = torch.arange(1.0, 1 + self.geometry.channels, device=embeddings.device)
        return torch.sin(embeddings.mean(0) @ torch.stack((angles, angles.square())))

    def gist(self, heard: Tensor) -> Tensor:
        """What is heard, of length 1."""
        return torch.nn.functional.normalize(heard.float(), dim=0)

    def prompted(self, heard: Tensor, first: Sequence[int] = ()) -> ToldBackbone:
        """The same one, told that of all frames."""
        return replace(self, heard=heard)

    def __call__(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        """See Backbone."""
        if self.heard is None:
            raise ConfigError("nobody told it anything; call what `prompted` returns")
        told = self.heard[:, None, :, None, None]
        clean: Tensor = self.inner(noisy + told, previous, sigma, controls, attend)
        return clean + told


def embed_words(text: str) -> Tensor:
    """Embeddings of the first MOST_WORDS words for a ToldBackbone, float32 [L, 2], at least one."""
    words = text.split()[:MOST_WORDS] or [""]
    return torch.tensor([[len(word), sum(map(ord, word)) % 17] for word in words]).float() / 8


def told_world(*, policy: Policy | None = None, on_prompt: PromptChange = KEEP, pages: int = 64) -> World:
    """A world of the dot that is told prompts, begins from nothing and makes blocks of two frames; random weights."""
    backbone = ToldBackbone(inner=tiny_backbone(0))
    plan = VideoPlan(
        frames_per_block=2,
        sigmas=few_step_sigmas(2, 3.0),
        sampler=few_step,
        policy=Window(frames=6) if policy is None else policy,
        from_nothing=True,
        on_prompt=on_prompt,
    )
    pool = PagePool(backbone.pages, pages=pages, dtype=torch.float32, device=torch.device("cpu"))
    return World(
        Origin(name="told", weights="tiny", controls=CONTROLS, fps=4, size=DotSimulator.size, starts=Starts.none()),
        backbone=backbone,
        codec=DifferenceCodec(patches=PatchCodec(side=SIDE_PX)),
        plan=plan,
        pool=pool,
        hears=Voice(embed_words, backbone, pool.device, left_out=lambda text: max(0, len(text.split()) - MOST_WORDS)),
    )


def pictured_world(*, pages: int = 64) -> World:
    """That world, which is told nothing in words but hears the colours of the picture that it begins from."""
    told = told_world(pages=pages)
    backbone: ToldBackbone = cast(ToldBackbone, told.backbone)

    def hear(picture: Tensor) -> Tensor:
        return backbone.hear(picture.to(told.pool.device).float().flatten(0, 1)[:, :2] / 64)

    origin = replace(told.origin, name="pictured")
    return World(origin, backbone=backbone, codec=told._home.codec, plan=told.plan, pool=told.pool, hears=Eye(hear))


def _starts() -> Starts:
    """Three walks of five frames, each under other keys."""
    frames, controls = [], []
    for seed, action in enumerate(CONTROLS.actions):
        simulator, held = DotSimulator(), frozenset(action.keys[:1])
        frames.append(np.stack([simulator.reset(seed), *(simulator.step(held) for _ in range(4))]))
        controls.append([CONTROLS.vector(held if hour else (), hour) for hour in range(5)])
    return Starts(torch.from_numpy(np.stack(frames)), torch.tensor(controls))
