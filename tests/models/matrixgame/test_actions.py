"""The action module against its definition, frame by frame and token by token, and what it hears of which row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worldsim.models.matrixgame.actions import ActionModule, BareNorm
from worldsim.models.matrixgame.config import KINDS, matrixgame_config

BATCH, FRAMES, TOKENS = 2, 3, 4
EPS = 1e-6


def drawn(kind: str, seed: int, index: int = 1) -> ActionModule:
    """A module with random weights in every tensor, each keeping about the size of what it is given."""
    module, generator = ActionModule(matrixgame_config(kind, "tiny"), index), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = parameter[0].numel() if parameter.ndim == 2 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
    return module.double().requires_grad_(False)


def questions(module: ActionModule, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens, and what steers their frames."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (BATCH, FRAMES * TOKENS, module.config.wan.dim), (BATCH, FRAMES, module.config.controls)
    tokens, controls = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    return tokens, controls


def mixing(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """An attend that shows which of its arguments is which."""
    times = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(times, dim=1) for x in (k, v))
    return torch.sin(q) + 2 * k.flip(1) - 3 * v + layer


def normed(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS) ** 0.5


def heads(x: Tensor) -> Tensor:
    return x.view(2, 16)


def slow(module: ActionModule, tokens: Tensor, controls: Tensor) -> Tensor:
    """The module by its definition, of one video; layers of attention are those of a tiny backbone and its streams."""
    config = module.config
    rows = controls.view(FRAMES, 12, config.keyboard + config.mouse)
    if config.mouse:
        q, k, v = [], [], []
        for at, token in enumerate(tokens):
            told = torch.cat([token, *(row[config.keyboard :] for row in rows[at // TOKENS])])
            up = module.mouse_mlp[0](told)
            curve = 0.5 * up * (1 + torch.tanh((2 / math.pi) ** 0.5 * (up + 0.044715 * up**3)))
            inner = module.mouse_mlp[2](curve)
            scaled = (inner - inner.mean()) / (inner.var(correction=0) + 1e-5) ** 0.5
            inside = module.t_qkv.weight @ (scaled * module.mouse_mlp[3].weight + module.mouse_mlp[3].bias)
            for side, part in zip((q, k, v), inside.split(32), strict=True):
                side.append(heads(part))
        q, k = ([normed(x) for x in side] for side in (q, k))
        attended = mixing(3 + 1, *(torch.stack(side)[None] for side in (q, k, v)))[0]
        tokens = torch.stack(
            [token + module.proj_mouse.weight @ seen.flatten() for token, seen in zip(tokens, attended, strict=True)]
        )
    keys, values = [], []
    for frame in rows:
        embedded = []
        for row in frame:
            up = module.keyboard_embed[0](row[: config.keyboard])
            embedded.append(module.keyboard_embed[2](up * torch.sigmoid(up)))
        both = module.keyboard_attn_kv.weight @ torch.cat(embedded)
        keys.append(normed(heads(both[:32])))
        values.append(heads(both[32:]))
    q = torch.stack([normed(heads(module.mouse_attn_q.weight @ token)) for token in tokens])
    layer = 3 + 1 + (2 if config.mouse else 0)
    attended = mixing(layer, q[None], torch.stack(keys)[None], torch.stack(values)[None])[0]
    return torch.stack(
        [token + module.proj_keyboard.weight @ seen.flatten() for token, seen in zip(tokens, attended, strict=True)]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1])
def test_a_module_is_what_it_is_defined_as(kind: str, seed: int) -> None:
    module = drawn(kind, seed)
    tokens, controls = questions(module, seed + 1)
    found = module(tokens, controls, mixing)
    for row in range(BATCH):
        wanted = slow(module, tokens[row], controls[row])
        assert (found[row] - wanted).abs().max() < 1e-12 * wanted.abs().max()


def test_a_norm_of_the_published_weights_has_a_weight_and_goes_without() -> None:
    norm, x = BareNorm(6, EPS), torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    before = norm(x)
    norm.load_state_dict({"weight": torch.full((6,), 7.0)})
    assert torch.equal(norm(x), before)
    assert torch.allclose(before, normed(x))


@pytest.mark.parametrize(("kind", "column"), [("universal", 0), ("universal", 4), ("gta_drive", 3), ("templerun", 6)])
@pytest.mark.parametrize("row", [0, 11])
def test_every_row_of_a_window_is_heard_in_its_frame(kind: str, column: int, row: int) -> None:
    """Where frames see each other, what steers one shows in all; where they do not, in that one alone."""
    module = drawn(kind, 5)
    tokens, controls = questions(module, 6)
    other = controls.clone()
    other[:, 1, row * (controls.shape[2] // 12) + column] += 1

    def apart(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v.repeat_interleave(q.shape[1] // v.shape[1], dim=1) + q

    change = (module(tokens, other, apart) - module(tokens, controls, apart)).abs().amax((0, 2)).view(FRAMES, TOKENS)
    assert torch.equal(change.amin(1) > 1e-6, torch.tensor([False, True, False]))
    assert torch.equal(change.amax(1) > 0, torch.tensor([False, True, False]))


def test_a_model_without_a_mouse_has_no_part_for_one() -> None:
    names = {name.split(".")[0] for name, _ in drawn("templerun", 7).named_parameters()}
    assert names == {
        "keyboard_embed",
        "mouse_attn_q",
        "keyboard_attn_kv",
        "key_attn_q_norm",
        "key_attn_k_norm",
        "proj_keyboard",
    }
