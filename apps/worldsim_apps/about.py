"""What is known of a world, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldsim.presets import WorldRecipe
    from worldsim.wan import WanRecipe


def recipe_of(name: str) -> WorldRecipe:
    """The recipe of a world that is learned here; UnknownName if there is none."""
    from worldsim.errors import UnknownName
    from worldsim.presets import WORLDS

    if name not in WORLDS:
        raise UnknownName("world", name, WORLDS)
    return WORLDS[name]


def describe(name: str) -> dict[str, Any]:
    """What is known of a world, with its card if its weights are in the package."""
    from worldsim.errors import NotShipped, UnknownName
    from worldsim.presets import WORLDS, card
    from worldsim.wan import RECIPES

    if name in RECIPES:
        return _describe_published(RECIPES[name])
    if name not in WORLDS:
        raise UnknownName("world", name, (*WORLDS, *RECIPES))
    engine = recipe_of(name).simulator()
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
        raise UnknownName("world of the Wan family", name, RECIPES)
    return RECIPES[name]


def _describe_published(recipe: WanRecipe) -> dict[str, Any]:
    from worldsim.cache.policies import policy_text
    from worldsim.decoding.prompting import prompt_change_text
    from worldsim.wan import FPS, SIZE_PX

    return {
        "name": recipe.name,
        "source": recipe.source,
        "published": recipe.published or "nothing of its speed",
        "weights": recipe.weights,
        "fps": FPS,
        "size": list(SIZE_PX),
        "frames_per_block": recipe.frames_per_block,
        "sigmas": [round(sigma, 4) for sigma in recipe.sigmas],
        "policy": policy_text(recipe.policy),
        "on_prompt": prompt_change_text(recipe.on_prompt),
    }


def lines_of(fields: dict[str, Any], indent: str = "") -> Iterator[str]:
    """The fields as lines of text, those of fields within them indented."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from lines_of(value, indent + "  ")
        else:
            yield f"{indent}{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
