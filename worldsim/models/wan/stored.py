"""A converted model on disk: one folder with its tensors, its size and where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from worldsim.errors import ConfigError, WeightsError
from worldsim.files import naming, new_folder, read_bytes
from worldsim.models.wan.backbone import WanBackbone
from worldsim.models.wan.config import WanConfig
from worldsim.models.wan.kinds import looks_like, wan_config_of
from worldsim.models.wan.shards import write_shards
from worldsim.models.wan.weights import Weights

CONFIG = "config.json"
CARD = "card.json"
FAMILY = "wan"
AGAIN = "copy the whole folder again, or convert its source once more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a folder that `worldsim convert` wrote says of itself.

    config: the size of its model.
    recipe: the name of the recipe that it was converted for; None if it was for none.
    card: see card_of.
    """

    config: WanConfig
    recipe: str | None
    card: Mapping[str, Any]


def read_stored(folder: Path) -> Stored | None:
    """What a folder says of itself if `worldsim convert` wrote it; None of any other, such as one of a public model.

    Raises:
        WeightsError: config.json or card.json is missing, the other being there, or cannot be read.
    """
    config, card = (folder / name for name in (CONFIG, CARD))
    if not card.exists() and not _is_ours(config):
        return None
    for path in (config, card):
        if not path.exists():
            raise WeightsError(f"{path} is missing, which `worldsim convert` writes beside the tensors; {AGAIN}")
    size, recipe = read_config(folder)
    return Stored(config=size, recipe=recipe, card=read_card(folder))


def _is_ours(config: Path) -> bool:
    """Whether a config.json is one of a converted model: one lies beside many a public model."""
    try:
        found = _read_json(config)
    except WeightsError:
        return False
    return isinstance(found, dict) and found.get("family") == FAMILY


def wanted_shapes(config: WanConfig) -> dict[str, list[int]]:
    """The shape of every tensor of a backbone of this size, by name; nothing is allocated."""
    with torch.device("meta"):
        backbone = WanBackbone(config)
    return {name: list(tensor.shape) for name, tensor in backbone.state_dict().items()}


def write_model(out: Path, weights: Weights, *, recipe: str | None = None) -> Path:
    """The folder, written whole or not at all: safetensors, config.json and card.json.

    Args:
        out: a new folder, or an empty one.
        weights: of a Wan transformer; tensors are read and written one at a time.
        recipe: the name of the recipe they are for, kept in config.json.

    Raises:
        ConfigError: out is there and not empty, or is being written, or something else has taken its name meanwhile.
        WeightsError: the weights are not those of a Wan transformer, or cannot be read.
        OSError: it could not be written, as on a full disk; nothing is left of it.
    """
    source = ", ".join(map(str, weights.origin.files))
    config = wan_config_of(weights.shapes, source)
    weights.check(wanted_shapes(config), source)
    before = read_stored(weights.origin.files[0].parent)
    with new_folder(out) as unfinished:
        with naming(out):
            write_shards(unfinished, weights, weights.metas)
        card = card_of(weights, merged_before=before.card["merged"] if before else ())
        with naming(out):
            _write_json(unfinished / CONFIG, {"family": FAMILY, "recipe": recipe, **asdict(config)})
            _write_json(unfinished / CARD, card)
    return out


def card_of(weights: Weights, *, merged_before: Iterable[object] = ()) -> dict[str, object]:
    """What a converted model says of where it comes from; reads the files once for their SHA-256.

    merged_before: what the card of a folder that is converted once more says of what was merged.
    """
    origin = weights.origin
    return {
        "model": looks_like(weights.shapes),
        "tensors": len(weights),
        "parameters": sum(meta.numel() for meta in weights.metas.values()),
        "files": [_file(path) for path in origin.files],
        "part": origin.part,
        "left_out": list(origin.left),
        "stripped_from_names": list(origin.stripped),
        "renamed_from": "diffusers" if origin.diffusers else None,
        "merged": [*merged_before, *({**_file(path), "alpha": origin.alpha} for path in origin.merged)],
    }


def read_config(folder: Path) -> tuple[WanConfig, str | None]:
    """The size of a converted model, and the recipe that it is for, if it says one.

    Raises:
        WeightsError: the folder has no config.json of a converted Wan model.
    """
    path = folder / CONFIG
    found = _read_json(path)
    if not isinstance(found, Mapping) or found.get("family") != FAMILY:
        raise WeightsError(f"{path} is not of a model that worldsim convert wrote; convert it first")
    sizes = {name: value for name, value in found.items() if name not in ("family", "recipe")}
    recipe = found.get("recipe")
    try:
        return WanConfig(**sizes), None if recipe is None else str(recipe)
    except (TypeError, ConfigError) as error:
        raise WeightsError(f"{path} describes no backbone ({error}); it is of another version") from error


def read_card(folder: Path) -> dict[str, object]:
    """What card_of said when the model was converted. Raises WeightsError if the folder has no card."""
    path = folder / CARD
    match found := _read_json(path):
        case {"files": [*files], "merged": [*merged]} if all(
            isinstance(file, dict) and "sha256" in file for file in (*files, *merged)
        ):
            return dict(found)
    raise WeightsError(f"{path} does not say which files the model comes from; {AGAIN}")


def _read_json(path: Path) -> Any:
    """What is in a file of JSON; WeightsError if it is no file, or none of that."""
    try:
        return json.loads(read_bytes(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise WeightsError(f"{path} cannot be read ({why}); {AGAIN}") from error


def _file(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {
            "name": path.name,
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _write_json(path: Path, found: Mapping[str, object]) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
