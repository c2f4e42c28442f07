"""The size of a Matrix-Game 2 backbone is read off its tensors, and what is no such model is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worldsim.errors import WeightsError
from worldsim.models.matrixgame.config import KINDS, MatrixGameConfig, matrixgame_config
from worldsim.models.matrixgame.kinds import matrixgame_config_of, wanted_shapes
from worldsim.models.wan.config import wan_config
from worldsim.models.wan.stored import wanted_shapes as wanted_wan


def odd() -> MatrixGameConfig:
    """A model in which every size is another one."""
    plain = matrixgame_config("templerun")
    wan = replace(plain.wan, dim=256, ffn_dim=40, layers=5, heads=2, freq_dim=16, text_dim=24, patch=1)
    return replace(plain, wan=wan, acting=2, heads=3, head_dim=10, embedding=7, seen=11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_a_published_backbone_is_read_off_its_tensors(kind: str) -> None:
    config = matrixgame_config(kind)
    assert matrixgame_config_of(wanted_shapes(config), kind, "a file") == config


def test_every_size_is_read() -> None:
    assert matrixgame_config_of(wanted_shapes(odd()), "templerun", "a file") == odd()


def test_of_another_kind_it_is_read_as_the_kind_that_was_asked_for() -> None:
    found = matrixgame_config_of(wanted_shapes(matrixgame_config("gta_drive")), "universal", "a file")
    assert found == matrixgame_config("universal")


@pytest.mark.parametrize("lost", ["head.head.weight", "blocks.0.action_model.keyboard_attn_kv.weight"])
def test_what_is_no_such_transformer_is_told(lost: str) -> None:
    shapes = wanted_shapes(odd())
    del shapes[lost]
    with pytest.raises(
        WeightsError, match=r"a file is no Matrix-Game 2 transformer; it looks like .*:base_distilled_model$"
    ):
        matrixgame_config_of(shapes, "templerun", "a file")
    with pytest.raises(
        WeightsError,
        match=r"such as Skywork/Matrix-Game-2\.0:.*, or load this one, as published, as the world self-for",
    ):
        matrixgame_config_of(wanted_wan(wan_config("1.3b")), "templerun", "a file")


@pytest.mark.parametrize(
    ("name", "shape"), [("patch_embedding.weight", [100, 27, 1, 1, 1]), ("patch_embedding.weight", [256, 27, 2, 1, 1])]
)
def test_a_layout_of_another_family_is_told(name: str, shape: list[int]) -> None:
    with pytest.raises(WeightsError, match="have heads of 128 and square patches of one frame"):
        matrixgame_config_of({**wanted_shapes(odd()), name: shape}, "templerun", "a file")


def test_the_model_before_it_was_distilled_is_told() -> None:
    config = matrixgame_config("universal")
    grown = wanted_shapes(replace(config, acting=config.wan.layers))
    with pytest.raises(WeightsError, match=r"the model before distillation\), of 30 in 30 layers that hear keys"):
        matrixgame_config_of(grown, "universal", "a file")
