"""What benchmarks.fit weighs, and beside which plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import fit
from benchmarks.fit import SETTINGS, Setting, codec_of, measure, planned_of
from worldsim.codec.preview import PreviewCodec
from worldsim.codec.wan import WanCodec
from worldsim.errors import ConfigError
from worldsim.wan_memory import Shortcuts

pytest.importorskip("diffusers")
CPU = torch.device("cpu")
PIXELS = (32, 48)
PREVIEW, OFFLOAD = Shortcuts(preview=True), Shortcuts(offload=True)


def test_every_setting_for_a_card_is_planned_to_fit_it() -> None:
    assert len({setting.label for setting in SETTINGS}) == len(SETTINGS)
    gpu = torch.device("cuda")  # of which nothing but the name is asked
    for setting in SETTINGS:
        planned = planned_of("1.3b", setting, pixels=(480, 832), device=gpu)
        assert setting.card is None or 0.8 * setting.card < planned.card < setting.card, setting.label


@pytest.mark.parametrize("shortcuts", [PREVIEW, OFFLOAD, Shortcuts()])
def test_a_setting_lives_on_from_a_picture_and_is_told_beside_its_plan(shortcuts: Shortcuts) -> None:
    setting = Setting(card=None, frames=3, budget="2MB", shortcuts=shortcuts)
    kept: list[list[str]] = []
    found = measure(
        "tiny",
        blocks=2,
        pixels=PIXELS,
        device=CPU,
        settings=[setting, replace(setting, frames=6)],
        keep=lambda found: kept.append([*found["settings"]]),
    )
    told = found["settings"][setting.label]
    assert told["fits"]
    assert told["planned_gb"] == planned_of("tiny", setting, pixels=PIXELS, device=CPU).device / 1e9
    assert told["card_gb"] > told["planned_gb"]
    assert told["block_ms"]["count"] == 2
    assert told["fps"] == pytest.approx(12_000 / told["block_ms"]["median"])
    assert told["first_chunk_ms"] > 0
    assert [len(each) for each in kept] == [1, 2]


def test_the_codec_is_made_as_the_setting_says() -> None:
    whole, away, tiny = (
        codec_of(shortcuts, widths=fit.NARROW, device=CPU) for shortcuts in (Shortcuts(), OFFLOAD, PREVIEW)
    )
    assert isinstance(whole, WanCodec)
    assert isinstance(away, WanCodec)
    assert (whole.tiling is None, away.tiling is None) == (True, False)
    assert isinstance(tiny, PreviewCodec)


def test_a_setting_that_runs_out_of_memory_is_told_not_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(fit, "held", lack)
    setting = Setting(card=None, frames=3, budget=None, shortcuts=PREVIEW)
    told = measure("tiny", blocks=1, pixels=PIXELS, device=CPU, settings=[setting])["settings"][setting.label]
    assert (told["fits"], told["told"]) == (False, "no room")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="only a GPU's memory is weighed"):
        fit.main()
