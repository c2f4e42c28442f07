"""Room is asked for before any of it is taken, and the codec is offloaded where there is none otherwise."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from worldsim import wan_room
from worldsim.cache.policy import Window
from worldsim.errors import ConfigError
from worldsim.keeping import Keeping, tiers_of
from worldsim.models.wan.config import wan_config
from worldsim.wan import SELF_FORCING
from worldsim.wan_memory import Shortcuts, memory_plan
from worldsim.wan_room import OFFLOADED, Check, room_for

pytest.importorskip("diffusers")
CPU, GPU = torch.device("cpu"), torch.device("cuda")  # of which nothing but the name is asked
TINY = replace(wan_config("tiny", height_px=64, width_px=96), text_length=40)
SHARP = wan_config("tiny")
"""A small backbone of pictures as large as published, so that the codec takes most of it."""
PLAN = SELF_FORCING.plan(policy=Window(frames=6))
BFLOAT16 = torch.bfloat16


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """Bytes that are free, by the kind of device."""
    has: dict[str, int | None] = {"cpu": 10**12, "cuda": 10**12}
    monkeypatch.setattr(wan_room, "free_bytes", lambda device: has[device.type])
    return has


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(wan_room.log, "warning", lines.append)
    return lines


def room(device: torch.device, *, offload: bool | None = None, preview: bool = False) -> Check:
    return room_for(PLAN, device=device, shortcuts=Shortcuts(preview=preview), keeping=Keeping(), offload=offload)


@cache
def needed(*, offload: bool) -> int:
    """Bytes on a GPU that have to be free for the sharp model."""
    planned = memory_plan(SHARP, PLAN, dtype=BFLOAT16, shortcuts=Shortcuts(offload=offload)).device
    return planned + int(0.05 * planned)


def test_too_little_memory_is_told(free: dict[str, int | None]) -> None:
    check = room(CPU, preview=True)
    assert check(TINY, BFLOAT16) is False
    free["cpu"] = 10**6
    with pytest.raises(
        ConfigError, match=r"takes about 0\.3 GB on the device, where 0\.0 GB are free; choose a smaller"
    ):
        check(TINY, BFLOAT16)


@pytest.mark.parametrize("offload", [None, False, True])
def test_a_small_model_on_a_cpu_is_not_planned_for_seconds(
    free: dict[str, int | None], monkeypatch: pytest.MonkeyPatch, *, offload: bool | None
) -> None:
    monkeypatch.setattr(wan_room, "memory_plan", None)
    for has in (10**12, None):  # or the system does not tell
        free["cpu"] = has
        assert room(CPU, offload=offload)(TINY, torch.float32) is bool(offload)


def test_the_codec_is_offloaded_where_there_is_no_room_otherwise_and_that_is_said(
    free: dict[str, int | None], said: list[str]
) -> None:
    check, (whole, away) = room(GPU), (needed(offload=offload) for offload in (False, True))
    assert away < whole
    for has, offloaded in ((whole, False), (whole - 1, True), (away, True)):
        free["cuda"] = has
        said.clear()
        assert check(SHARP, BFLOAT16) is offloaded
        assert said == [OFFLOADED] * offloaded


@pytest.mark.parametrize("offload", [False, True])
def test_a_codec_is_where_it_was_chosen_to_be_or_the_world_is_refused(
    free: dict[str, int | None], said: list[str], *, offload: bool
) -> None:
    check, least = room(GPU, offload=offload), needed(offload=offload)
    free["cuda"] = least
    assert check(SHARP, BFLOAT16) is offload
    free["cuda"] = least - 1
    with pytest.raises(ConfigError, match=f"takes about {least / 1e9:.1f} GB on the device"):
        check(SHARP, BFLOAT16)
    assert said == []


def test_a_world_without_room_either_way_is_refused_by_what_it_takes_as_it_was_asked_for(
    free: dict[str, int | None], said: list[str]
) -> None:
    free["cuda"] = needed(offload=True) - 1
    with pytest.raises(ConfigError, match=f"takes about {needed(offload=False) / 1e9:.1f} GB on the device"):
        room(GPU)(SHARP, BFLOAT16)
    free |= {"cuda": needed(offload=True), "cpu": 10**6}
    with pytest.raises(ConfigError, match="on the device"):
        room(GPU)(SHARP, BFLOAT16)
    assert said == []


def test_host_memory_on_a_cpu_is_the_same_and_nothing_is_offloaded_by_plan(
    free: dict[str, int | None], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wan_room, "SPARED", 10**6)
    free["cpu"] = (needed(offload=False) + needed(offload=True)) // 2
    with pytest.raises(ConfigError, match="on the device"):
        room(CPU)(SHARP, BFLOAT16)
    assert said == []


def test_a_budget_below_what_a_block_sees_is_refused(free: dict[str, int | None]) -> None:
    keeping = Keeping(tiers=tiers_of(1000, None, CPU))
    check = room_for(PLAN, device=CPU, shortcuts=Shortcuts(), keeping=keeping)
    with pytest.raises(ConfigError, match="the budget is 1000; choose one of"):
        check(TINY, torch.float32)
