"""When turning is left to plain torch; the kernel itself is tested on GPUs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import worldsim_kernels.turn
from worldsim_kernels.turn import _chosen, _kernel, reference, turn

CPU = torch.device("cpu")
KERNEL = "worldsim_kernels.turn.kernel"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    _kernel.cache_clear()
    yield
    _kernel.cache_clear()


@pytest.mark.parametrize("seed", range(3))
def test_on_a_cpu_it_is_the_reference_bit_for_bit_and_no_kernel_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.delattr(worldsim_kernels.turn, "import_module")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 3, 8, generator=generator).bfloat16()
    by = torch.randn(5, 1, 4, generator=generator, dtype=torch.complex64)
    found, wanted = (torch.full_like(x, torch.nan) for _ in range(2))
    turn(x, by, found)
    reference.turn(x, by, wanted)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("shape", "step", "is_taken"),
    [
        ((5, 3, 8), 1, True),
        ((2, 5, 3, 8), 1, True),
        ((2, 2, 5, 3, 8), 1, False),
        ((5, 3, 6), 1, False),
        ((5, 3, 8), 2, False),
    ],
)
def test_on_a_gpu_the_kernel_is_chosen_for_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], step: int, is_taken: bool
) -> None:
    monkeypatch.setitem(sys.modules, KERNEL, SimpleNamespace(turn=print, trouble=lambda device: ""))
    lying = torch.empty(*shape[:-1], step * shape[-1])[..., ::step]
    x: Any = SimpleNamespace(shape=lying.shape, ndim=lying.ndim, stride=lying.stride, is_cuda=True, device=CPU)
    by = torch.ones(5, 1, shape[-1] // 2, dtype=torch.complex64)
    assert _chosen(x, by, torch.empty(shape)) is (print if is_taken else reference.turn)
    assert _chosen(x, by.expand(1, -1, -1, -1), torch.empty(shape)) is reference.turn


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (None, KERNEL),
        (SimpleNamespace(turn=print, trouble=lambda device: "no C compiler"), "no C compiler"),
    ],
)
def test_where_no_kernel_can_be_made_it_is_said_and_there_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kernel: Any, why: str
) -> None:
    monkeypatch.setitem(sys.modules, KERNEL, kernel)
    with caplog.at_level(logging.INFO):
        assert _kernel(CPU) is None
        assert _kernel(CPU) is None
    assert [why in line for line in caplog.messages] == [True]


def test_a_kernel_that_runs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, KERNEL, SimpleNamespace(turn=print, trouble=lambda device: ""))
    assert _kernel(CPU) is print
