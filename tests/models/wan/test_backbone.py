"""The Wan backbone: its published layout, an independent implementation, the cache, and prompts."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from worldsim.cache.policy import Window
from worldsim.cache.pool import PagePool
from worldsim.cache.rotary import rotate
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.errors import ConfigError, ShapeError
from worldsim.models.wan.backbone import Prompted, WanBackbone
from worldsim.models.wan.config import WanConfig, wan_config
from worldsim.noise import block_noise
from worldsim.samplers import few_step
from worldsim.testing.conformance import check_backbone
from worldsim.testing.recompute import RecomputingDecoder

CONFIG = wan_config("tiny", height_px=48, width_px=80)
GRID, FRAMES = (3, 5), 3
SIGMAS = (1.0, 0.9375, 0.8333333, 0.625)


def drawn(seed: int, *, config: WanConfig = CONFIG, dtype: torch.dtype = torch.float32) -> WanBackbone:
    """A backbone with random weights in every tensor: those of norms about 1, others keep the size of their input."""
    backbone, generator = WanBackbone(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            fan = parameter[0].numel() if parameter.ndim in (2, 5) else 9
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
            if "norm" in name and name.endswith("weight"):
                parameter += 1
    return backbone.to(dtype).requires_grad_(False)


def embeddings(seed: int, length: int = 4) -> Tensor:
    return torch.randn(length, CONFIG.text_dim, generator=torch.Generator().manual_seed(seed))


def prompted(backbone: WanBackbone, *seeds: int) -> Prompted:
    return backbone.prompted(torch.stack([backbone.hear(embeddings(seed)) for seed in seeds]))


def questions(seed: int, batch: int = 2, frames: int = FRAMES) -> list[Tensor]:
    """Noisy and previous frames, levels and the controls that are none."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, batch, frames, *CONFIG.geometry.frame_shape, generator=generator)
    return [*latents, torch.rand(batch, frames, generator=generator), torch.zeros(batch, frames, 0)]


def full(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of all frames among each other, at positions 0, 1, 2 ..."""
    angles = CONFIG.rotary.angles(range(q.shape[1] // math.prod(GRID)), *GRID)
    turned = rotate(q, angles), rotate(k, angles), v
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in turned)).transpose(1, 2)


def published(config: WanConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the published weights of that size."""
    d, ffn = config.dim, config.ffn_dim

    def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    layout = {"patch_embedding.weight": (d, 16, 1, 2, 2), "patch_embedding.bias": (d,), "head.modulation": (1, 2, d)}
    layout |= linear("text_embedding.0", d, config.text_dim) | linear("text_embedding.2", d, d)
    layout |= linear("time_embedding.0", d, config.freq_dim) | linear("time_embedding.2", d, d)
    layout |= linear("time_projection.1", 6 * d, d) | linear("head.head", 64, d)
    for block in (f"blocks.{number}" for number in range(config.layers)):
        layout |= {f"{block}.modulation": (1, 6, d), f"{block}.norm3.weight": (d,), f"{block}.norm3.bias": (d,)}
        layout |= linear(f"{block}.ffn.0", ffn, d) | linear(f"{block}.ffn.2", d, ffn)
        for part in (f"{block}.self_attn", f"{block}.cross_attn"):
            layout |= {f"{part}.norm_q.weight": (d,), f"{part}.norm_k.weight": (d,)}
            for name in "qkvo":
                layout |= linear(f"{part}.{name}", d, d)
    return layout


@pytest.mark.parametrize(("size", "tensors", "numbers"), [("1.3b", 825, 1_418_996_800), ("14b", 1095, 14_288_491_584)])
def test_its_tensors_are_those_of_the_published_weights(size: str, tensors: int, numbers: int) -> None:
    config = wan_config(size)
    with torch.device("meta"):
        backbone = WanBackbone(config)
    found = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    assert found == published(config)
    assert (len(found), sum(math.prod(shape) for shape in found.values())) == (tensors, numbers)


def test_made_on_the_meta_device_it_takes_any_weights_as_its_own() -> None:
    there = drawn(1, dtype=torch.bfloat16)
    with torch.device("meta"):
        here = WanBackbone(CONFIG)
    here.load_state_dict(there.state_dict(), assign=True)
    given = questions(2, batch=1)
    assert torch.equal(prompted(here, 3)(*given, full), prompted(there, 3)(*given, full))
    assert here.head.head.weight.data_ptr() == there.head.head.weight.data_ptr()


NAMES = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
    ".attn1.": ".self_attn.",
    ".attn2.": ".cross_attn.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    ".to_out.0.": ".o.",
    ".ffn.net.0.proj.": ".ffn.0.",
    ".ffn.net.2.": ".ffn.2.",
    ".norm2.": ".norm3.",
    ".scale_shift_table": ".modulation",
}
"""What diffusers calls parts of this model, and what the published weights do."""


def in_diffusers(backbone: WanBackbone) -> Any:
    """The same weights in the implementation of diffusers, which attends to all frames and tells times per token."""
    diffusers = pytest.importorskip("diffusers", reason="the extra `wan` is not installed")
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=CONFIG.heads,
        attention_head_dim=CONFIG.head_dim,
        text_dim=CONFIG.text_dim,
        freq_dim=CONFIG.freq_dim,
        ffn_dim=CONFIG.ffn_dim,
        num_layers=CONFIG.layers,
    )
    weights, theirs = backbone.state_dict(), {}
    for name, tensor in model.state_dict().items():
        ours = "head.modulation" if name == "scale_shift_table" else name
        for part, ours_part in NAMES.items():
            ours = ours.replace(part, ours_part)
        theirs[name] = weights.pop(ours).view(tensor.shape)
    assert not weights, f"diffusers has nothing for {sorted(weights)}"
    model.load_state_dict(theirs)
    return model.eval()


@pytest.mark.parametrize("latest", [1.0, 1e-3])
@pytest.mark.parametrize("seed", [1, 2])
@torch.no_grad()
def test_a_block_at_levels_of_its_own_for_each_frame_is_what_diffusers_makes_of_it(seed: int, latest: float) -> None:
    """Up to the rounding of our own float32, and of theirs of the phases of times, which are largest at the latest."""
    theirs = in_diffusers(drawn(seed))
    noisy, _, sigma, _ = questions(seed + 10)
    sigma = sigma * latest
    told = [embeddings(seed + 20, length=3), embeddings(seed + 30, length=7)]

    def ours(sigma: Tensor, dtype: torch.dtype) -> Tensor:
        backbone = drawn(seed, dtype=dtype)
        return backbone.flow(noisy, sigma, torch.stack([backbone.hear(text) for text in told]), full)

    found = theirs(
        noisy.transpose(1, 2),
        (1000 * sigma).repeat_interleave(math.prod(GRID), dim=1),
        torch.stack([pad(text, (0, 0, 0, CONFIG.text_length - len(text))) for text in told]),
    ).sample.transpose(1, 2)
    exact, own = ours(sigma, torch.float64), ours(sigma, torch.float32)
    late = ours(sigma.double() * (1 + torch.finfo(torch.float32).eps), torch.float64)
    rounding, of_phases = ((other - exact).abs().max() for other in (own, late))
    assert (found - own).abs().max() < 4 * rounding + of_phases


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_times_are_never_whole_numbers_and_told_exactly_whatever_the_weights(dtype: torch.dtype) -> None:
    backbone, taken = drawn(1, dtype=dtype), []
    backbone.time_embedding.register_forward_pre_hook(lambda _, arguments: taken.append(arguments[0]))
    noisy, previous, _, controls = questions(2, batch=1, frames=4)
    sigma = torch.tensor([SIGMAS])
    prompted(backbone, 3)(noisy, previous, sigma, controls, full)
    half = CONFIG.freq_dim // 2
    for told, level in zip(taken[0][0], sigma[0].tolist(), strict=True):
        phases = [1000 * level / 10_000 ** (at / half) for at in range(half)]
        wanted = torch.tensor([math.cos(p) for p in phases] + [math.sin(p) for p in phases], dtype=torch.float64)
        # Rounded once: a phase of a thousand in float32 would be wrong by 3e-5.
        assert (told.double() - wanted).abs().max() <= torch.finfo(dtype).eps / 4


@torch.no_grad()
def test_a_token_is_a_patch_on_its_way_in_and_out() -> None:
    """In as by the convolution that the weights are of; out with the channels of each latent pixel side by side."""
    backbone, (noisy, *_) = drawn(43), questions(44)
    taken, numbers = [], block_noise(45, 0, 0, (2, FRAMES * 15, 64))
    backbone.blocks[0].register_forward_pre_hook(lambda _, arguments: taken.append(arguments[0]))
    backbone.head.register_forward_hook(lambda *_: numbers)
    flow = backbone.flow(noisy, torch.ones(2, FRAMES), torch.stack([backbone.hear(embeddings(46))] * 2), full)
    tokens = backbone.patch_embedding(noisy.transpose(1, 2)).flatten(2).transpose(1, 2)
    assert (taken[0] - tokens).abs().max() < 1e-5 * tokens.abs().max()
    for frame in range(FRAMES):
        for y in range(CONFIG.height):
            for x in range(CONFIG.width):
                token, corner = 15 * frame + 5 * (y // 2) + x // 2, 2 * (y % 2) + x % 2
                assert torch.equal(flow[:, frame, :, y, x], numbers[:, token, 16 * corner : 16 * (corner + 1)])


@torch.no_grad()
def test_the_clean_estimate_follows_from_the_flow_in_float64() -> None:
    backbone, (noisy, previous, sigma, controls) = drawn(4), questions(5)
    sigma[0, 1] = 0
    heard = prompted(backbone, 6, 7)
    answer = heard(noisy, previous, sigma, controls, full)
    flow = backbone.flow(noisy, sigma, heard.heard, full)
    for row in range(2):
        for frame in range(FRAMES):
            wanted = noisy[row, frame].double() - sigma[row, frame].double() * flow[row, frame].double()
            assert torch.equal(answer[row, frame], wanted.float())
    assert torch.equal(answer[0, 1], noisy[0, 1])


@torch.no_grad()
def test_latents_keep_their_dtype_whatever_the_weights() -> None:
    exact = prompted(drawn(8), 9)(*questions(10, batch=1), full)
    found = prompted(drawn(8, dtype=torch.bfloat16), 9)(*questions(10, batch=1), full)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 16 * torch.finfo(torch.bfloat16).eps * exact.abs().max()


@torch.no_grad()
def test_prompted_it_keeps_the_contract_of_backbones() -> None:
    check_backbone(prompted(drawn(11), 12, 13))


@torch.no_grad()
def test_what_went_before_is_known_through_attention_alone() -> None:
    backbone, (noisy, previous, sigma, controls) = prompted(drawn(14), 15, 16), questions(17)
    answer = backbone(noisy, previous, sigma, controls, full)
    assert torch.equal(backbone(noisy, previous + 1, sigma, controls, full), answer)
    assert not torch.equal(backbone(noisy, previous, sigma, controls, lambda _, q, k, v: v), answer)


def plan(window: int) -> VideoPlan:
    return VideoPlan(frames_per_block=FRAMES, sigmas=SIGMAS, sampler=few_step, policy=Window(frames=window))


def start(dtype: torch.dtype) -> LatentBlock:
    """Three given frames."""
    latents = block_noise(1, 0, 0, (1, FRAMES, *CONFIG.geometry.frame_shape)).to(dtype)
    return LatentBlock(latents=latents, controls=torch.zeros(1, FRAMES, 0))


def decoder(backbone: Prompted, window: int) -> VideoDecoder:
    """One that goes on from the given frames."""
    pool = PagePool(CONFIG.pages, pages=24, dtype=torch.float32, device=torch.device("cpu"))
    made = VideoDecoder(backbone, pool, plan(window), 18)
    made.prefill(start(torch.float32).latents, start(torch.float32).controls)
    return made


@pytest.mark.parametrize("window", [2, 6])
@torch.no_grad()
def test_block_by_block_through_pages_it_makes_what_it_makes_of_all_at_once(window: int) -> None:
    cached = decoder(prompted(drawn(19), 20), window)
    exact, rounded = (
        RecomputingDecoder(prompted(drawn(19, dtype=dtype), 20), plan(window), 18, [start(dtype)])
        for dtype in (torch.float64, torch.float32)
    )
    for _ in range(4):
        wanted = exact.propose(start(torch.float64).controls)
        # Each goes on from the same past, so that no error is carried from block to block.
        same = LatentBlock(latents=wanted.latents.float(), controls=wanted.controls)
        plain, found = (one.propose(same.controls).latents for one in (rounded, cached))
        error = (plain - wanted.latents).abs().max()
        assert (found - wanted.latents).abs().max() < 4 * error
        for one, block in ((exact, wanted), (rounded, same), (cached, same)):
            one.commit(block)


@pytest.mark.parametrize("later", [1_024, 1_000_000])
@torch.no_grad()
def test_no_number_of_frames_is_too_many(later: int) -> None:
    backbone = prompted(drawn(21), 22)
    near, far = decoder(backbone, 6), decoder(backbone, 6)
    state = near.state()
    frames = tuple(frame + later for frame in state.frames)
    far.resume(replace(state, next_frame=state.next_frame + later, frames=frames))
    for _ in range(3):
        here, there = (one.propose(start(torch.float32).controls) for one in (near, far))
        assert torch.equal(here.latents, there.latents)
        near.commit(here)
        far.commit(there)
    assert far.context.next_frame == later + 12


@torch.no_grad()
def test_a_prompt_heard_once_is_as_one_heard_anew() -> None:
    backbone, text, given = drawn(23), embeddings(24), questions(25, batch=1)
    heard = backbone.hear(text)
    once = backbone.prompted(heard[None])
    assert heard.shape == CONFIG.heard
    first, again = once(*given, full), once(*given, full)
    anew = backbone.prompted(backbone.hear(text)[None])(*given, full)
    assert torch.equal(first, again)
    assert torch.equal(first, anew)


@torch.no_grad()
def test_what_is_heard_are_keys_and_values_of_the_text_and_of_zeros_behind_it() -> None:
    backbone, text = drawn(26, dtype=torch.float64), embeddings(27, length=3).double()
    heard = backbone.hear(text)
    for at in range(CONFIG.text_length):
        word = text[at] if at < 3 else torch.zeros(CONFIG.text_dim, dtype=torch.float64)
        inside = backbone.text_embedding[0](word)
        curve = 0.5 * inside * (1 + torch.tanh((2 / math.pi) ** 0.5 * (inside + 0.044715 * inside**3)))
        inside = backbone.text_embedding[2](curve)
        for layer, block in enumerate(backbone.blocks):
            key, value = block.cross_attn.k(inside), block.cross_attn.v(inside)
            key = key / (key.square().mean() + CONFIG.eps) ** 0.5 * block.cross_attn.norm_k.weight
            for found, wanted in zip(heard[layer, :, at].flatten(1), (key, value), strict=True):
                assert (found - wanted).abs().max() < 1e-12 * wanted.abs().max()


@torch.no_grad()
def test_another_prompt_changes_the_answer_for_its_own_video_alone() -> None:
    backbone, given = drawn(28), questions(29)
    both = prompted(backbone, 30, 31)(*given, full)
    other = prompted(backbone, 30, 32)(*given, full)
    assert torch.equal(other[0], both[0])
    assert (other[1] - both[1]).abs().max() > 1e-3 * both[1].abs().max()


@pytest.mark.parametrize("layer", range(CONFIG.layers))
@torch.no_grad()
def test_every_layer_listens_to_what_was_heard_for_it(layer: int) -> None:
    backbone, (noisy, _, sigma, _) = drawn(47), questions(48, batch=1)
    heard = backbone.hear(embeddings(49))[None]
    other = heard.clone()
    other[:, layer] += 1
    assert not torch.equal(backbone.flow(noisy, sigma, other, full), backbone.flow(noisy, sigma, heard, full))


@torch.no_grad()
def test_a_prompt_of_another_dtype_is_heard_in_that_of_the_weights() -> None:
    backbone, text = drawn(33), embeddings(34)
    assert torch.equal(backbone.hear(text.double()), backbone.hear(text))
    assert drawn(33, dtype=torch.bfloat16).hear(text).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(8, 24), (3, 23), (1, 3, 24), (24,)])
def test_embeddings_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    says = rf"one prompt, \[up to 7, 24\], got {re.escape(str(list(shape)))}; cut"
    with pytest.raises(ShapeError, match=says):
        drawn(35).hear(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 2, 7, 3, 16), (1, 3, 2, 8, 3, 16), (1, 4, 2, 7, 3, 16)])
def test_what_another_backbone_heard_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\[B, 3, 2, 7, 3, 16\], got .*stack what its hear"):
        drawn(36).prompted(torch.zeros(shape))


def test_without_a_prompt_it_says_what_to_call() -> None:
    with pytest.raises(ConfigError, match="prompted"):
        drawn(37)(*questions(38), full)


@pytest.mark.parametrize(
    ("which", "shape"), [(0, (1, 3, 16, 6, 10)), (0, (2, 3, 16, 6, 12)), (0, (2, 16, 6, 10)), (2, (2, 1)), (2, (2,))]
)
def test_frames_or_levels_that_do_not_fit_are_refused(which: int, shape: tuple[int, ...]) -> None:
    backbone, given = prompted(drawn(39), 40, 41), questions(42)
    given[which] = torch.zeros(shape)
    says = rf"expected frames \[2, F, 16, 6, 10\] .*got .*{re.escape(str(list(shape)))}"
    with pytest.raises(ShapeError, match=says):
        backbone(*given, full)


@pytest.mark.parametrize("seed", [31, 32])
def test_prompts_are_like_each_other_by_their_words_however_short_they_are(seed: int) -> None:
    backbone = drawn(seed)
    short, other = embeddings(seed, 2), embeddings(seed + 9, 2)
    gists = [backbone.gist(backbone.hear(words)) for words in (short, short.flip(0), other, torch.cat((short, other)))]
    like = torch.stack(gists) @ gists[0]
    assert gists[0].dtype == torch.float32
    assert float(like[0]) == pytest.approx(1)
    assert float(like[1]) == pytest.approx(1, abs=1e-5), "the order of words is none of theirs"
    assert float(like[2]) < 0.8
    assert float(like[2]) < float(like[3]) < 0.99, "half of the words are the same"
