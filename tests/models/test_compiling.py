"""Compiled methods say the same up to rounding, layers share them, and a machine that compiles nothing is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from worldsim.errors import ConfigError
from worldsim.models import compiling
from worldsim.models.compiling import check_compiler, compile_parts

CPU = torch.device("cpu")


class Layer(nn.Module):
    """Two methods over one parameter."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]), requires_grad=False)

    def up(self, x: Tensor) -> Tensor:
        return x * self.weight

    def down(self, x: Tensor) -> Tensor:
        return x - self.weight


def test_only_the_named_methods_are_compiled_once_for_all_layers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    counter, compile_ = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda method, dynamic: compile_(method, dynamic=dynamic, backend=counter))
    layers = [Layer(value) for value in (2.0, 3.0, 5.0)]
    compile_parts(layers, ["up"])
    x = torch.ones(4)
    assert [layer.up(x)[0].item() for layer in layers] == [2.0, 3.0, 5.0]
    assert [layer.down(x)[0].item() for layer in layers] == [-1.0, -2.0, -4.0]
    assert counter.frame_count == 1


def test_without_a_compiler_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object, *, dynamic: bool) -> object:
        def call(x: Tensor) -> Tensor:
            raise RuntimeError("no g++\nand more")

        return call

    monkeypatch.setattr(compiling.torch, "compile", broken)
    with pytest.raises(ConfigError, match=r"nothing can be compiled here \(no g\+\+\); install a C\+\+ compiler"):
        check_compiler(CPU)
