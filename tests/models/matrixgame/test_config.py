"""The sizes of the published models, and what cannot be one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError, UnknownName
from worldsim.models.matrixgame.config import KINDS, matrixgame_config


@pytest.mark.parametrize(
    ("kind", "controls", "layers"), [("universal", 72, 40), ("gta_drive", 48, 40), ("templerun", 84, 30)]
)
def test_a_frame_is_steered_by_twelve_rows_and_its_page_holds_what_the_mouse_left(
    kind: str, controls: int, layers: int
) -> None:
    config = matrixgame_config(kind)
    assert config.controls == controls
    assert config.geometry.tokens_per_frame == 880
    assert (config.pages.layers, config.pages.main) == (layers, 30)
    assert config.pages.steered == config.stream
    assert config.pages.streams == ((config.stream,) if layers > 30 else ())
    assert config.stream.rotary == Rotary(time=8, rows=0, columns=0, theta=256.0)
    assert config.rotary == Rotary(time=44, rows=42, columns=42)


def test_a_page_takes_not_a_byte_more_than_what_it_holds() -> None:
    """As published of six frames in bfloat16: 973 MB of the main attention and 324 MB of the mouse."""
    held = [6 * matrixgame_config(kind).pages.bytes(torch.bfloat16) for kind in ("templerun", "universal")]
    assert [round(each / 1e6) for each in (held[0], held[1] - held[0])] == [973, 324]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_one_differs_in_size_alone(kind: str) -> None:
    config = matrixgame_config(kind, "tiny", height_px=48, width_px=80, frames_per_block=2)
    assert config.controls == matrixgame_config(kind).controls
    assert (config.geometry.frame_shape, config.geometry.frames_per_block) == ((16, 6, 10), 2)


def test_names_that_nobody_knows_are_refused() -> None:
    with pytest.raises(UnknownName, match="universal"):
        matrixgame_config("gta")
    with pytest.raises(UnknownName, match="tiny"):
        matrixgame_config("universal", "14b")
    with pytest.raises(ConfigError, match="640x352"):
        matrixgame_config("universal", height_px=350, width_px=640)


@pytest.mark.parametrize(
    "wrong",
    [{"keyboard": 0}, {"mouse": -1}, {"acting": 0}, {"acting": 31}, {"heads": 0}, {"seen": 0}, {"embedding": 0}],
)
def test_sizes_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="acting at most the 30 layers"):
        replace(matrixgame_config("universal"), **wrong)


@pytest.mark.parametrize("head_dim", [6, 9])
def test_heads_that_do_not_turn_are_refused(head_dim: int) -> None:
    with pytest.raises(ConfigError, match="heads of a stream"):
        replace(matrixgame_config("universal"), head_dim=head_dim)
