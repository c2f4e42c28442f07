"""One layer and the head, against their definitions frame by frame, and in the dtypes that they run in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from worldsim.models.wan.config import wan_config
from worldsim.models.wan.layers import LINEARS, Head, HeadsNorm, WanLayer, speed_up, use_8_bits

CONFIG = wan_config("tiny", height_px=32, width_px=48)
BATCH, FRAMES, TOKENS = 2, 3, 6
EPS = CONFIG.eps


def drawn(module: nn.Module, seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The module with random weights in every tensor, each keeping about the size of what it is given."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = parameter[0].numel() if parameter.ndim == 2 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
    return module.to(dtype).requires_grad_(False)


def questions(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, what their levels say, and what is heard."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (BATCH, FRAMES * TOKENS, CONFIG.dim), (BATCH, FRAMES, 6, CONFIG.dim), (BATCH, *CONFIG.heard[1:])
    tokens, level, heard = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return tokens, level, heard


def mixing(index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """An attend that shows which of its arguments is which."""
    return torch.sin(q) + 2 * k.flip(1) - 3 * v + index


def normed(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(correction=0) + EPS) ** 0.5


def heads(x: Tensor, norm: HeadsNorm | None = None) -> Tensor:
    """One token of dim numbers as heads, normed over all of them."""
    if norm is not None:
        x = x / (x.square().mean() + EPS) ** 0.5 * norm.weight
    return x.view(CONFIG.heads, CONFIG.head_dim)


def slow(layer: WanLayer, tokens: Tensor, level: Tensor, heard: Tensor, index: int) -> Tensor:
    """The layer by its definition, token by token, of one video."""
    own = [level[at // TOKENS] + layer.modulation[0] for at in range(len(tokens))]  # [6, D] of each token
    inside = [normed(token) * (1 + m[1]) + m[0] for token, m in zip(tokens, own, strict=True)]
    attention, listening = layer.self_attn, layer.cross_attn
    q = torch.stack([heads(attention.q(x), attention.norm_q) for x in inside])[None]
    k = torch.stack([heads(attention.k(x), attention.norm_k) for x in inside])[None]
    v = torch.stack([heads(attention.v(x)) for x in inside])[None]
    answers = []
    for token, m, attended in zip(tokens, own, mixing(index, q, k, v)[0], strict=True):
        token = token + attention.o(attended.flatten()) * m[2]
        asked = heads(listening.q(normed(token) * layer.norm3.weight + layer.norm3.bias), listening.norm_q)
        scores = torch.einsum("hd,khd->hk", asked, heard[0]) / CONFIG.head_dim**0.5
        token = token + listening.o(torch.einsum("hk,khd->hd", scores.softmax(-1), heard[1]).flatten())
        up = layer.ffn[0](normed(token) * (1 + m[4]) + m[3])
        hidden = 0.5 * up * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (up + 0.044715 * up**3)))
        answers.append(token + layer.ffn[2](hidden) * m[5])
    return torch.stack(answers)


def test_a_layer_is_what_it_is_defined_as_with_the_level_of_each_frame_its_own() -> None:
    layer = drawn(WanLayer(CONFIG), 1)
    tokens, level, heard = questions(2)
    found = layer(tokens, level, heard, 5, mixing)
    for row in range(BATCH):
        wanted = slow(layer, tokens[row], level[row], heard[row], 5)
        assert (found[row] - wanted).abs().max() < 1e-12 * wanted.abs().max()


@pytest.mark.parametrize("which", range(6))
def test_the_level_of_a_frame_shows_in_no_other(which: int) -> None:
    layer = drawn(WanLayer(CONFIG), 3)
    tokens, level, heard = questions(4)
    alone = lambda index, q, k, v: q + k + v  # noqa: E731
    before = layer(tokens, level, heard, 0, alone).unflatten(1, (FRAMES, -1))
    level[:, 1, which] += 0.5
    changed = (layer(tokens, level, heard, 0, alone).unflatten(1, (FRAMES, -1)) != before).flatten(2).any(-1)
    assert changed.tolist() == [[False, True, False]] * BATCH


def test_the_head_shifts_and_scales_by_frame() -> None:
    head = drawn(Head(CONFIG), 5)
    tokens, level, _ = questions(6)
    found = head(tokens, level[:, :, 0])
    assert found.shape == (BATCH, FRAMES * TOKENS, 64)
    for row in range(BATCH):
        for at, token in enumerate(tokens[row]):
            shift, scale = head.modulation[0] + level[row, at // TOKENS, 0]
            wanted = head.head(normed(token) * (1 + scale) + shift)
            assert (found[row, at] - wanted).abs().max() < 1e-12 * wanted.abs().max()


def test_a_norm_over_heads_rounds_before_its_weight() -> None:
    generator = torch.Generator().manual_seed(7)
    norm = HeadsNorm(96, eps=EPS)
    torch.nn.init.normal_(norm.weight, generator=generator)
    norm.to(torch.bfloat16)
    x = torch.randn(500, 96, generator=generator).bfloat16()
    wide = x.float()
    wanted = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).bfloat16() * norm.weight
    assert torch.equal(norm(x), wanted)
    assert not torch.equal(nn.RMSNorm.forward(norm, x), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_layer_answers_in_the_dtype_that_it_is_in_and_about_as_exactly(dtype: torch.dtype) -> None:
    tokens, level, heard = questions(8, dtype)
    found = drawn(WanLayer(CONFIG), 9, dtype)(tokens, level, heard, 0, mixing)
    assert found.dtype == dtype
    # The same rounded weights and questions, computed without further rounding.
    exact = drawn(WanLayer(CONFIG), 9, dtype).double()(tokens.double(), level.double(), heard.double(), 0, mixing)
    assert (found.double() - exact).abs().max() < 4 * torch.finfo(dtype).eps * exact.abs().max()


def test_either_part_of_a_layer_is_one_graph() -> None:
    layer = drawn(WanLayer(CONFIG), 10, torch.float32)
    tokens, level, heard = questions(11, torch.float32)
    before, after = (torch.compile(part, fullgraph=True, backend="eager") for part in (layer.before, layer.after))
    q, k, v = before(tokens, level)
    found = after(tokens, level, heard, mixing(1, q, k, v))
    assert torch.equal(found, layer(tokens, level, heard, 1, mixing))


@pytest.mark.parametrize("linears", LINEARS)
def test_a_layer_of_8_bits_is_the_layer_within_its_rounding_and_shares_what_is_rounded(linears: str) -> None:
    layer, coded = (drawn(WanLayer(CONFIG), 11, torch.float32) for _ in range(2))
    use_8_bits(coded, LINEARS[linears])
    tokens, level, heard = questions(12, torch.float32)
    wanted, found = (each(tokens, level, heard, 0, mixing) for each in (layer, coded))
    assert 0.001 < (found - wanted).norm() / wanted.norm() < 0.1
    apart = [LINEARS[linears](getattr(layer.self_attn, name)) for name in "qkv"]
    x = torch.randn(1, 7, CONFIG.dim, generator=torch.Generator().manual_seed(13))
    q, k, v = coded.self_attn(x)
    norms = layer.self_attn.norm_q, layer.self_attn.norm_k, nn.Identity()
    for one, product, norm in zip((q, k, v), apart, norms, strict=True):
        assert torch.equal(one, norm(product(x)).unflatten(-1, (CONFIG.heads, -1)))
    left = {name for name, module in coded.named_modules() if isinstance(module, nn.Linear)}
    assert left == {"cross_attn.k", "cross_attn.v"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("linears", [None, *LINEARS])
def test_compiled_layers_are_the_layers_up_to_rounding(linears: str | None) -> None:
    plain, fast = ([drawn(WanLayer(CONFIG), seed, torch.float32) for seed in (14, 15)] for _ in range(2))
    speed_up(plain, compiled=False, linears=linears)
    speed_up(fast, compiled=True, linears=linears)
    tokens, level, heard = questions(16, torch.float32)
    with torch.no_grad():
        for one, other in zip(plain, fast, strict=True):
            wanted, found = (each(tokens, level, heard, 0, mixing) for each in (one, other))
            # Of 8 bits, some numbers in the middle between two fall to the other.
            assert (found - wanted).norm() <= (2e-2 if linears else 2e-6) * wanted.norm()
            assert linears or (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()
