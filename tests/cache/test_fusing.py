"""When turning is left to several kernels; the one kernel itself is tested on GPUs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from worldsim.cache import fusing
from worldsim.cache.fusing import turn_fused

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    fusing._kernel.cache_clear()
    yield
    fusing._kernel.cache_clear()


def test_on_a_cpu_nothing_is_done() -> None:
    x, out = torch.ones(3, 2, 4).bfloat16(), torch.full((3, 2, 4), 7.0).bfloat16()
    assert not turn_fused(x, torch.ones(3, 1, 2, dtype=torch.complex64), out)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("kernels", "why"),
    [
        (None, "worldsim.cache.kernels"),
        (SimpleNamespace(turn=print, trouble=lambda device: "no C compiler"), "no C compiler"),
    ],
)
def test_where_no_kernel_can_be_made_it_is_said_and_there_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kernels: Any, why: str
) -> None:
    monkeypatch.setitem(sys.modules, "worldsim.cache.kernels", kernels)
    with caplog.at_level(logging.INFO):
        assert fusing._kernel(CPU) is None
        assert fusing._kernel(CPU) is None
    assert [why in line for line in caplog.messages] == [True]


def test_a_kernel_that_runs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = SimpleNamespace(turn=print, trouble=lambda device: "")
    monkeypatch.setitem(sys.modules, "worldsim.cache.kernels", kernels)
    assert fusing._kernel(CPU) is print
