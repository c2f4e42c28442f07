"""Low-rank changes are what PEFT's names say, summed in float32, and every one that does not fit is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from worldsim.errors import WeightsError
from worldsim.models.wan.lora import Change, changes, is_lora

OUT, IN, RANK = 7, 5, 3
PEFT = "base_model.model.blocks.0.self_attn.q"


def lora(seed: int, layer: str = PEFT, default: str = "") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{layer}.lora_A{default}.weight": torch.randn(RANK, IN, generator=generator),
        f"{layer}.lora_B{default}.weight": torch.randn(OUT, RANK, generator=generator),
    }


def found(
    tensors: Mapping[str, Tensor], alpha: float | None = None, shape: tuple[int, ...] = (OUT, IN)
) -> dict[str, Change]:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    lazy = {name: tensor.clone for name, tensor in tensors.items()}
    return changes(lazy, {"blocks.0.self_attn.q.weight": shape, **shapes}, alpha=alpha, source="lora.pt")


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), (6.0, 2.0)])
@pytest.mark.parametrize("default", ["", ".default"])
@pytest.mark.parametrize("layer", [PEFT, "blocks.0.self_attn.q", "model.base_model.model.blocks.0.self_attn.q"])
def test_a_change_is_the_product_of_its_halves_times_alpha_by_rank(
    alpha: float | None, scale: float, default: str, layer: str
) -> None:
    tensors = lora(1, layer, default)
    down, up = tensors.values()
    ((name, change),) = found(tensors, alpha).items()
    assert name == "blocks.0.self_attn.q.weight"
    weight = torch.randn(OUT, IN, generator=torch.Generator().manual_seed(2))
    truth = weight.double() + scale * up.double() @ down.double()
    plain = weight + scale * (up @ down)
    error = (change.apply(weight).double() - truth).abs().max()
    assert error <= 2 * (plain.double() - truth).abs().max()


def test_a_change_to_a_weight_in_few_bits_is_rounded_once() -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in lora(3).items()}
    down, up = tensors.values()
    (change,) = found(tensors).values()
    weight = torch.randn(OUT, IN, generator=torch.Generator().manual_seed(4)).bfloat16()
    made = change.apply(weight)
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, (weight.float() + up.float() @ down.float()).bfloat16())
    assert not torch.equal(made, weight + up @ down)  # rounded twice


def test_only_changes_are_taken_for_a_lora() -> None:
    assert is_lora(list(lora(1)))
    assert not is_lora([*lora(1), "blocks.0.self_attn.q.weight"])
    assert not is_lora([])


def test_a_change_that_does_not_fit_is_refused() -> None:
    down, up = lora(1).items()
    with pytest.raises(WeightsError, match=r"one half of the change to blocks.0.self_attn.q and lacks lora_B"):
        found(dict([down]))
    with pytest.raises(WeightsError, match="lacks lora_A"):
        found(dict([up]))
    with pytest.raises(WeightsError, match=r"changes the layer head.head, which the model does not have"):
        found(lora(1, "base_model.model.head.head"))
    with pytest.raises(WeightsError, match=r"by \[7, 3\] times \[3, 5\], and its weight is \[7, 6\]"):
        found(lora(1), shape=(OUT, IN + 1))
    with pytest.raises(WeightsError, match="model of another size"):
        found(lora(1), shape=(OUT, IN, 1))
    with pytest.raises(WeightsError, match=r"no LoRA as PEFT stores it: blocks.0.q.lora_down.weight"):
        found({"blocks.0.q.lora_down.weight": down[1]})
