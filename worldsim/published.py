"""All published models behind one door: which there are, how a world is made of one, and from which pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim import matrixgame, pictures, wan
from worldsim.controls import Controls
from worldsim.decoding.plan import VideoPlan
from worldsim.errors import ConfigError, LogError, UnknownName, WeightsError
from worldsim.files import path_of
from worldsim.keeping import Keeping
from worldsim.matrixgame import MatrixGameParts, MatrixGameRecipe
from worldsim.models.compiling import check_compiler
from worldsim.models.wan.layers import LINEARS, speed_up
from worldsim.runtime.devices import free_bytes
from worldsim.runtime.world import World
from worldsim.session.log import check_lived
from worldsim.wan import WanParts, WanRecipe, dtype_on, parse_size
from worldsim.wan_memory import Shortcuts
from worldsim.wan_room import room_for

Recipe = WanRecipe | MatrixGameRecipe
PUBLISHED: Mapping[str, Recipe] = {**wan.RECIPES, **matrixgame.RECIPES}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """Where a world is loaded to.

    size: (height, width) of its pictures in pixels.
    preview: a file of the tiny decoder, in place of the codec's own.
    keeping: how its pool keeps keys and values.
    sessions: how many its memory is planned for.
    compiled: compile its layers.
    offload: the codec takes little where it computes, see CodecChoice; if None, where there is no room otherwise.
    linears: "fp8" or "int8" to have them multiply in 8 bits, or None for what they are published in.
    """

    size: tuple[int, int]
    device: torch.device
    preview: Path | None = None
    keeping: Keeping = field(default_factory=Keeping)
    sessions: int = 1
    compiled: bool = False
    offload: bool | None = None
    linears: str | None = None

    def check(self) -> None:
        """Raise ConfigError, or UnknownName, unless layers can be made as fast as is asked there."""
        if self.linears is not None:
            if not isinstance(self.linears, str) or self.linears not in LINEARS:
                raise UnknownName("way of linear layers to multiply", self.linears, LINEARS)
            LINEARS[self.linears].check_device(self.device)
        if self.compiled:
            check_compiler(self.device)

    @property
    def chosen(self) -> dict[str, Any]:
        """What logs tell of it; of a preview what is in its file, since its path is one of this machine."""
        return {"linears": self.linears, "compiled": self.compiled, "preview": _identity_of(self.preview)}


def load_published(recipe: Recipe, plan: VideoPlan, weights: str | Path | None, place: Place) -> World:
    """A world of a published model whose weights are there; errors as load_parts of its family, and assembling.

    Raises:
        ConfigError: a GPU has too little memory for it, or layers cannot be made as fast as is asked.
    """
    if weights is not None:
        path_of(weights, "weights")  # checked alone: as a path ./a/b would be a/b, which may be a name on the hub
    place.check()
    planned: dict[str, Any] = {"keeping": place.keeping, "sessions": place.sessions}
    shortcuts = Shortcuts(preview=place.preview is not None, linears=place.linears)
    check = room_for(plan, device=place.device, shortcuts=shortcuts, offload=place.offload, **planned)
    where: dict[str, Any] = {"size": place.size, "device": place.device, "preview": place.preview, "check": check}
    if isinstance(recipe, WanRecipe):
        told = _fast(wan.load_parts(recipe, weights, **where), place)
        return wan.assemble_wan(recipe, plan, told, **planned)
    seen = _fast(matrixgame.load_parts(recipe, weights, **where), place)
    return matrixgame.assemble_matrixgame(recipe, plan, seen, **planned)


Parts = TypeVar("Parts", WanParts, MatrixGameParts)


def _fast(parts: Parts, place: Place) -> Parts:
    """The parts with layers as that place wants them; weights of 8 bits are others, and make other worlds."""
    speed_up(parts.backbone.blocks, compiled=place.compiled, linears=place.linears)
    parts = replace(parts, chosen={**place.chosen, **parts.chosen})
    if place.linears is None:
        return parts
    return replace(parts, identity=hashlib.sha256(f"{parts.identity} {place.linears}".encode()).hexdigest())


def _identity_of(preview: str | Path | None) -> str | None:
    """What tells a file of the tiny decoder from others; WeightsError if there is none."""
    if preview is None:
        return None
    path = path_of(preview, "preview")
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}; give the path of one")
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def check_preview(plan: Mapping[str, Any], preview: str | Path | None) -> None:
    """Raise LogError unless a log with that plan tells of that preview, or does not tell; told before weights are read.

    Raises:
        ConfigError, WeightsError: it is no path, or there is no such file.
    """
    check_lived(plan, {**plan, "preview": _identity_of(preview)})


def size_of(recipe: Recipe, size: str | None) -> tuple[int, int]:
    """(height, width) in pixels of a text such as "832x480"; as published if None. ConfigError as parse_size."""
    if size is not None:
        return parse_size(size)
    return wan.SIZE_PX if isinstance(recipe, WanRecipe) else matrixgame.SIZE_PX


def check_room(recipe: Recipe, size: tuple[int, int], device: torch.device) -> None:
    """Raise ConfigError unless there is room for the keys and values of one block of pictures of (height, width).

    That is the least of what any plan of these weights takes, and told at once, before a picture is fitted to that size
    or weights are looked at; room_for checks the rest.
    """
    least = recipe.frames_per_block * recipe.config(size).pages.bytes(dtype_on(device))
    free = free_bytes(device)
    if free is not None and least > free:
        raise ConfigError(
            f"of pictures of {size[1]}x{size[0]} pixels the keys and values of one block alone take "
            f"{least / 1e9:.1f} GB on the device, where {free / 1e9:.1f} GB are free; choose a smaller size, such as "
            f"{recipe.name} was published for: `worldsim info {recipe.name}` says it, and what it takes"
        )


def fps_of(recipe: Recipe) -> int:
    """Frames in one second of world time."""
    return wan.FPS if isinstance(recipe, WanRecipe) else matrixgame.FPS


def controls_of(recipe: Recipe) -> Controls:
    """What can be done in its world; nothing in one that is told in words."""
    return wan.CONTROLS if isinstance(recipe, WanRecipe) else recipe.controls


def settings_of(recipe: Recipe, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the plan in a log tells of a published model alone, as `load` takes it; LogError if it does not."""
    fast = {name: plan[name] for name in ("linears", "compiled", "offload") if name in plan}
    match plan:
        case {"size": [int(height), int(width)], "on_prompt": str(change)} if isinstance(recipe, WanRecipe):
            return {"size": f"{width}x{height}", "on_prompt": change, **fast}
        case {"size": [int(height), int(width)]} if isinstance(recipe, MatrixGameRecipe):
            return {"size": f"{width}x{height}", **fast}
    raise LogError("that log of a published model does not tell its size, or what a new prompt leaves of its past")


class Fitting(Protocol):
    """A world, or what is known of one, as far as pictures have to fit it."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a frame in pixels."""
        ...

    @property
    def needs_picture(self) -> bool:
        """Whether every session begins from a picture of its own."""
        ...


def fit_picture(picture: str | Path, world: Fitting) -> NDArray[np.uint8]:
    """A picture as that world begins from it, uint8 [1, H, W, 3]; ConfigError if it is none that can be read."""
    fit = matrixgame.fit_picture if world.needs_picture else pictures.fit_picture
    return fit(picture, world.size)
