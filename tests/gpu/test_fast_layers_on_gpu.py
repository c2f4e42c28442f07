"""What is done otherwise on an accelerator: kernels of our own, products of 8 bits, compiled layers, cuDNN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.decode_wan import drawn
from worldsim.cache.attention import attend_all
from worldsim.cache.rotary import Rotary, turn, turns
from worldsim.codec.taehv import TaehvCodec, TaehvConfig, TaehvDecoder
from worldsim.codec.wan import WanCodec
from worldsim.codec.wan_tiles import Tiling
from worldsim.models.fp8 import Fp8Linear, is_native
from worldsim.models.wan.config import wan_config
from worldsim.models.wan.layers import WanLayer, speed_up
from worldsim_kernels.turn import _chosen, reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def apart(found: Tensor, exact: Tensor) -> float:
    """How far one lies from the other, of its size."""
    found, exact = found.double().cpu(), exact.double().cpu()
    return ((found - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("outer", [(), (1,), (5,)])
def test_queries_and_keys_are_turned_by_one_kernel_as_on_the_cpu(head_dim: int, outer: tuple[int, ...]) -> None:
    rotary, generator = Rotary(time=head_dim // 2, rows=head_dim // 4, columns=head_dim // 4), torch.Generator()
    by = torch.cat([turns(rotary, at, (3, 5), head_dim, CPU) for at in (0, 7)])
    x = torch.randn(*outer, 30, 36, head_dim, generator=generator.manual_seed(1)).bfloat16()[..., 12:24, :]
    room = torch.full((*outer, 34, 12, head_dim), 7.0).bfloat16()
    there = room.to(GPU)
    assert _chosen(x.to(GPU), by.to(GPU), there) is not reference.turn, "there is no kernel"
    turn(x.to(GPU), by.to(GPU), out=there[..., 4:, :, :])
    turn(x.contiguous(), by, out=room[..., 4:, :, :])
    assert (there.cpu().float() - room.float()).abs().max() <= 2**-7 * room.float().abs().max()
    assert apart(there, room) < 1e-3


@pytest.mark.parametrize("native", [False, True])
def test_products_of_8_bits_are_those_of_the_rounded_numbers(native: bool) -> None:
    if native and not is_native(GPU):
        pytest.skip("this GPU multiplies no numbers of 8 bits")
    generator = torch.Generator().manual_seed(2)
    linear = torch.nn.Linear(1536, 4608).requires_grad_(False)
    linear.weight.copy_(torch.randn(4608, 1536, generator=generator) / 39)
    linear.bias.copy_(torch.randn(4608, generator=generator))
    coded = Fp8Linear(linear.to(GPU, torch.bfloat16))
    coded._is_native = native
    x = (torch.randn(2, 780, 1536, generator=generator) * torch.rand(2, 780, 1, generator=generator)).to(GPU).bfloat16()
    rows, scale = Fp8Linear.rounded(x.flatten(0, 1))
    exact = rows.double() @ coded.weight.double().t() * scale * coded.scale + coded.bias.double()
    plain = apart(exact.bfloat16(), exact)
    assert coded(x).dtype == torch.bfloat16
    assert apart(coded(x).flatten(0, 1), exact) < 3 * plain


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("linears", [None, "fp8"])
def test_compiled_layers_are_the_layers_within_their_rounding(linears: str | None) -> None:
    config = wan_config("1.3b", height_px=64, width_px=96)
    layers = [drawn(WanLayer(config).to(GPU), seed=seed) for seed in (3, 4)]
    generator = torch.Generator(GPU).manual_seed(5)
    shapes = (1, 72, config.dim), (1, 3, 6, config.dim), (1, *config.heard[1:])
    tokens, level, heard = (torch.randn(shape, generator=generator, device=GPU) for shape in shapes)

    @torch.no_grad()
    def ran(dtype: torch.dtype) -> Tensor:
        x = tokens.to(dtype)
        for index, layer in enumerate(layers):
            x = layer(x, level.to(dtype), heard.to(dtype), index, lambda _, q, k, v: q + k.flip(1) - v)
        return x

    exact = ran(torch.float32)
    for layer in layers:
        layer.to(torch.bfloat16)
    speed_up(layers, compiled=False, linears=linears)
    plain = apart(ran(torch.bfloat16), exact)
    speed_up(layers, compiled=True, linears=linears)
    assert apart(ran(torch.bfloat16), exact) < 1.2 * plain < (0.2 if linears else 0.02)


@pytest.mark.parametrize("queries", [30, 2048])
def test_attention_is_that_of_the_cpu(queries: int) -> None:
    q, k, v = (
        torch.randn(1, n, 2, 128, generator=torch.Generator().manual_seed(n)).bfloat16() for n in (queries, 3000, 3001)
    )
    v = v[:, 1:]
    found = attend_all(q.to(GPU), k.to(GPU), v.to(GPU))
    exact = scaled_dot_product_attention(*(x.double().transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    assert found.shape == q.shape
    assert apart(found, exact) < 3 * apart(exact.bfloat16(), exact)


def test_the_tiny_decoder_shows_what_it_shows_on_the_cpu_in_pieces_too() -> None:
    network = drawn(TaehvDecoder(TaehvConfig(widths=(16, 16, 8, 8))), seed=6)
    latents = torch.randn(5, 16, 6, 8, generator=torch.Generator().manual_seed(7))
    wanted, _ = TaehvCodec(network).decode(latents, {})
    codec = TaehvCodec(network.to(GPU))
    first, state = codec.decode(latents[:2].to(GPU), {})
    rest, _ = codec.decode(latents[2:].to(GPU), state)
    found = torch.cat((first, rest)).cpu()
    assert (found.int() - wanted.int()).abs().max() <= 1
    assert torch.equal(found, codec.decode(latents.to(GPU), {})[0].cpu())


def test_an_offloaded_codec_shows_the_same_and_holds_nothing_on_the_gpu() -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    model = drawn(diffusers.AutoencoderKLWan(base_dim=32).to(GPU, torch.bfloat16), seed=5)
    latents = torch.randn(4, 16, 30, 40, generator=torch.Generator().manual_seed(6))
    found, peaks = [], []
    for home in (None, CPU):
        codec = WanCodec(model, tiling=Tiling(side=16, overlap=4), home=home)
        first, state = codec.decode(latents[:2], codec.open())
        assert {carried.device.type for carried in state.values()} == {"cuda" if home is None else "cpu"}
        torch.cuda.reset_peak_memory_stats()
        found.append(torch.cat((first, codec.decode(latents[2:], state)[0])))
        peaks.append(torch.cuda.max_memory_allocated())
    assert torch.equal(*found)
    assert peaks[1] < peaks[0] / 2
