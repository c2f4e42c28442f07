"""What is known of a world, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldsim.controls import Controls
    from worldsim.presets import WorldRecipe
    from worldsim.published import Recipe
    from worldsim.wan import WanRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What is known of a world before its weights are read, which may take minutes.

    size: (height, width) of a frame in pixels.
    is_told: whether it is told in words what to show.
    needs_picture: whether a walk through it begins from a picture.
    has_starts: whether it may come with starting places.
    """

    name: str
    controls: Controls
    size: tuple[int, int]
    is_told: bool
    needs_picture: bool
    has_starts: bool


def ahead_of(name: str, size: str | None) -> Ahead:
    """What is known of a world of that size, its own if None; UnknownName or ConfigError as `describe`."""
    from worldsim.published import PUBLISHED, controls_of, size_of
    from worldsim.wan import WanRecipe

    if (recipe := PUBLISHED.get(name)) is None:
        engine = _bundled(name).simulator()
        controls, pixels, is_told, needs_picture = engine.controls, engine.size, False, False
    else:
        controls, pixels, is_told = controls_of(recipe), size_of(recipe, size), isinstance(recipe, WanRecipe)
        needs_picture = not is_told
    return Ahead(
        name=name,
        controls=controls,
        size=pixels,
        is_told=is_told,
        needs_picture=needs_picture,
        has_starts=recipe is None,
    )


def _bundled(name: str) -> WorldRecipe:
    from worldsim.errors import UnknownName
    from worldsim.presets import WORLDS
    from worldsim.published import PUBLISHED

    if name not in WORLDS:
        raise UnknownName("world", name, (*WORLDS, *PUBLISHED))
    return WORLDS[name]


def recipe_of(name: str) -> WorldRecipe:
    """The recipe of a world that is learned here; UnknownName if there is none."""
    from worldsim.errors import UnknownName
    from worldsim.presets import WORLDS

    if name not in WORLDS:
        raise UnknownName("world", name, WORLDS)
    return WORLDS[name]


def describe(name: str, size: str | None = None) -> dict[str, Any]:
    """What is known of a world, with its card if its weights are in the package.

    Args:
        name: of the world.
        size: width and height in pixels of a published model, such as "832x480"; its own if None.

    Raises:
        UnknownName: there is no such world.
        ConfigError: it is no size, or one that the world cannot have.
    """
    from worldsim.errors import ConfigError, NotShipped
    from worldsim.presets import card
    from worldsim.published import PUBLISHED

    if name in PUBLISHED:
        return _describe_published(PUBLISHED[name], size)
    recipe = _bundled(name)
    if size is not None:
        raise ConfigError(f"{name} has one size, got size={size}; leave it out")
    engine = recipe.simulator()
    try:
        known = card(name)
    except NotShipped as error:
        known = {"weights": str(error)}
    keys = {action.name: " ".join(action.keys) for action in engine.controls.actions}
    return {"name": name, "fps": engine.fps, "size": list(engine.size), "keys": keys, "card": known}


def wan_recipe(name: str) -> WanRecipe:
    """The recipe of a published model of the Wan family; UnknownName if there is none."""
    from worldsim.errors import UnknownName
    from worldsim.wan import RECIPES

    if name not in RECIPES:
        raise UnknownName("world", name, RECIPES, of="the Wan family")
    return RECIPES[name]


def _describe_published(recipe: Recipe, size: str | None) -> dict[str, Any]:
    from worldsim.cache.policies import policy_text
    from worldsim.decoding.prompting import prompt_change_text
    from worldsim.published import fps_of, size_of
    from worldsim.wan import WanRecipe

    pixels = size_of(recipe, size)
    if isinstance(recipe, WanRecipe):
        steered: dict[str, Any] = {"on_prompt": prompt_change_text(recipe.on_prompt)}
    else:
        keys = {action.name: " ".join(action.keys) for action in recipe.controls.actions}
        steered = {"begins from": "a picture, --image", "keys": keys}
    return {
        "name": recipe.name,
        "source": recipe.source,
        "published": recipe.published or "nothing of its speed",
        "weights": recipe.weights,
        "fps": fps_of(recipe),
        "size": list(pixels),
        "frames_per_block": recipe.frames_per_block,
        "sigmas": [round(sigma, 4) for sigma in recipe.sigmas],
        "policy": policy_text(recipe.policy),
        **steered,
        "memory": _memory(recipe, pixels),
    }


def _memory(recipe: Recipe, pixels: tuple[int, int]) -> dict[str, Any]:
    """What it takes on a GPU, in bfloat16, with the codec and with the tiny decoder: a text for each part."""
    import torch

    from worldsim.errors import MissingDependency
    from worldsim.wan import plan_memory

    found: dict[str, Any] = {}
    for label, preview in (("with its codec", False), ("with a preview", True)):
        try:
            plan = plan_memory(recipe, recipe.plan(), size=pixels, dtype=torch.bfloat16, preview=preview)
        except MissingDependency as error:
            return {"not planned": str(error)}
        found[label] = dict(line.split("  ", 1) for line in plan.lines())
        found[label] = {part: size.strip() for part, size in found[label].items()}
    return found


def lines_of(fields: dict[str, Any], indent: str = "") -> Iterator[str]:
    """The fields as lines of text, those of fields within them indented."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from lines_of(value, indent + "  ")
        else:
            yield f"{indent}{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
