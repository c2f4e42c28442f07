"""From weights as they are published to one folder that worldsim reads lazily: the command `worldsim convert`."""

from __future__ import annotations

from pathlib import Path


def convert(
    source: str | Path,
    out: Path,
    *,
    ema: bool | None = None,
    lora: str | Path | None = None,
    alpha: float | None = None,
    recipe: str | None = None,
) -> dict[str, object]:
    """What the card of the new folder says: model, tensors, parameters, files with their SHA-256, what was changed.

    Args:
        source: an original .pt, safetensors, a folder that holds one of these, or a name on the hub such as
            gdhe17/Self-Forcing:checkpoints/self_forcing_dmd.pt.
        out: a new folder, or an empty one; it is there whole or not at all.
        ema: whether to take the averaged weights of a file that has those beside the last ones.
        lora: changes to merge, as PEFT stores them.
        alpha: of the changes; None stands for their rank.
        recipe: the name of the recipe that the weights are for, kept in config.json.

    Raises:
        ConfigError: out is there and not empty, or alpha stands without changes.
        WeightsError: the source is not there, not whole, or no text-driven Wan transformer; the changes do not fit.
        OSError: the folder could not be written.
    """
    from worldsim.errors import ConfigError
    from worldsim.files import check_free
    from worldsim.models.wan.hub import local_path
    from worldsim.models.wan.stored import read_card, write_model
    from worldsim.models.wan.weights import load_tensors

    check_free(out)  # before anything is downloaded
    if lora is None and alpha is not None:
        raise ConfigError(f"alpha={alpha} is the strength of a LoRA, and none was given; name its file, or leave alpha")
    added = None if lora is None else local_path(lora)
    weights = load_tensors(local_path(source), ema=ema, lora=added, alpha=alpha)
    return read_card(write_model(out, weights, recipe=recipe))
