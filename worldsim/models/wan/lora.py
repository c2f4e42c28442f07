"""Low-rank changes to linear layers, as PEFT stores them, merged into the weights they change.

Source: LoRA, Hu et al. 2021 (arXiv:2106.09685), section 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worldsim.errors import WeightsError

NAME = re.compile(r"(?:(?:base_model|model)\.)*(?P<layer>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight")
Lazy = Callable[[], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is added to the weight of one layer: scale * up @ down.

    down: gives A [rank, in].
    up: gives B [out, rank].
    scale: alpha / rank.
    """

    down: Lazy
    up: Lazy
    scale: float

    def apply(self, weight: Tensor) -> Tensor:
        """A new weight [out, in] in the dtype of the old one; summed in float32, on its device."""
        product = self.up().to(weight.device, torch.float32) @ self.down().to(weight.device, torch.float32)
        return torch.add(weight.float(), product, alpha=self.scale).to(weight.dtype)


def is_lora(names: Sequence[str]) -> bool:
    """Whether tensors of these names are low-rank changes and nothing else."""
    return bool(names) and all(NAME.fullmatch(name) for name in names)


def changes(
    lora: Mapping[str, Lazy], shapes: Mapping[str, Sequence[int]], *, alpha: float | None, source: object
) -> dict[str, Change]:
    """What is added to which layer, by the name of the layer's weight.

    Args:
        lora: what gives the tensors of a PEFT state dict: `...LAYER.lora_A.weight` and `...LAYER.lora_B.weight`.
        shapes: of those tensors, and of the weights to change.
        alpha: the strength is alpha / rank; None stands for alpha = rank, which LongLive's is (256 of 256).
        source: where they are from, for the message.

    Raises:
        WeightsError: a tensor is no half of a change, its other half is missing, the layer is not there, or the
            shapes of the halves do not fit it.
    """
    halves = dict(_halves(lora, source))
    found = {}
    for layer in sorted({layer for layer, _ in halves}):
        pair = [halves.get((layer, half)) for half in "AB"]
        if None in pair:
            raise WeightsError(
                f"{source} has one half of the change to {layer} and lacks lora_{'AB'[pair.index(None)]}"
            )
        down, up = (name for name in pair if name is not None)
        wanted, rank = shapes.get(f"{layer}.weight"), next(iter(shapes[down]), 0)
        if wanted is None:
            raise WeightsError(
                f"{source} changes the layer {layer}, which the model does not have; it was made for another model"
            )
        if [list(shapes[up]), list(shapes[down])] != [[wanted[0], rank], [rank, *wanted[1:]]] or len(wanted) != 2:
            raise WeightsError(
                f"{source} changes {layer} by {list(shapes[up])} times {list(shapes[down])}, and its weight is "
                f"{list(wanted)}; it was made for a model of another size"
            )
        found[f"{layer}.weight"] = Change(down=lora[down], up=lora[up], scale=1.0 if alpha is None else alpha / rank)
    return found


def _halves(names: Mapping[str, object], source: object) -> Iterator[tuple[tuple[str, str], str]]:
    for name in names:
        match = NAME.fullmatch(name)
        if match is None:
            raise WeightsError(
                f"{source} is no LoRA as PEFT stores it: {name} is neither lora_A nor lora_B of a layer; merge it with "
                "the program it comes from"
            )
        yield (match["layer"], match["half"]), name
