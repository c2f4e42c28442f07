"""The Matrix-Game 2 backbone: its published layout, a slow definition of all of it, the cache, and pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from worldsim.cache.policies import parse_policy
from worldsim.cache.policy import Policy, SinkWindow, Window
from worldsim.cache.pool import PagePool
from worldsim.cache.quant import parse_storage
from worldsim.decoding.batch import propose_together, write_together
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import PromptChange
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.errors import ConfigError, ShapeError
from worldsim.models.matrixgame.backbone import MatrixGameBackbone, Pictured
from worldsim.models.matrixgame.config import KINDS, MatrixGameConfig, matrixgame_config
from worldsim.noise import block_noise, uniforms
from worldsim.samplers import few_step
from worldsim.testing.conformance import check_backbone, check_decoder
from worldsim.testing.recompute import RecomputingDecoder

TINY = {kind: matrixgame_config(kind, "tiny", height_px=48, width_px=80) for kind in KINDS}
CONFIG = TINY["universal"]
FRAMES, TOKENS, TOLD = 3, 15, 4
SIGMAS = (1.0, 0.9088427, 0.7139794)
WINDOW = 3


def drawn(seed: int, kind: str = "universal", *, dtype: torch.dtype = torch.float32) -> MatrixGameBackbone:
    """A backbone with random weights in every tensor: those of norms about 1, others keep the size of their input."""
    backbone, generator = MatrixGameBackbone(TINY[kind]), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            fan = parameter[0].numel() if parameter.ndim in (2, 5) else 9
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
            if "norm" in name and name.endswith("weight"):
                parameter += 1
    return backbone.to(dtype).requires_grad_(False)


def picture(seed: int) -> tuple[Tensor, Tensor]:
    """What an image encoder makes of a picture, and the channels beside the first frames."""
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randn(TOLD, CONFIG.seen, *CONFIG.geometry.frame_shape[1:], generator=generator)
    return torch.randn(5, 20, generator=generator), seen


def actions(seed: int, frames: int, kind: str = "universal") -> Tensor:
    """What steers frames: windows of random rows, those of the frame before moved on by four, [1, frames, A]."""
    config = TINY[kind]
    rows = uniforms(seed, 0, 0, (4 * frames, config.keyboard + config.mouse)).float()
    rows[:, : config.keyboard] = rows[:, : config.keyboard].round()
    windows = [rows[torch.arange(4 * frame - 12, 4 * frame).clamp(min=0)].flatten() for frame in range(frames)]
    return torch.stack(windows)[None]


@dataclass(frozen=True)
class Wrong:
    """What is wrong about a definition; nothing as it stands."""

    turning: int = 8
    weighted: bool = False
    window: int = 0
    lag: int = 0


RIGHT = Wrong()


@dataclass
class Slow:
    """The model by its definition, all frames of a video at once, in the dtype of the weights.

    weights: of one backbone. blocks: the frames of each. window: how many frames before it a block sees.
    """

    weights: Mapping[str, Tensor]
    config: MatrixGameConfig
    blocks: Sequence[range]
    window: int
    wrong: Wrong = RIGHT

    def flow(self, frames: Tensor, levels: Tensor, controls: Tensor, told: tuple[Tensor, Tensor]) -> Tensor:
        """Of frames [F, 16, H, W] at levels [F] under controls [F, A]."""
        wan, count = self.config.wan, len(frames)
        dtype = self.weights["head.modulation"].dtype
        beside = torch.stack([told[1][min(frame, len(told[1]) - 1)] for frame in range(count)]).to(dtype)
        both = torch.cat((frames.to(dtype), beside), dim=1)
        tokens = torch.nn.functional.conv2d(
            both, self.weights["patch_embedding.weight"][:, :, 0], self.weights["patch_embedding.bias"], stride=2
        ).flatten(2)
        tokens = tokens.transpose(1, 2)  # [F, tokens, D]
        phases = 1000 * levels.double()[:, None] / 10_000 ** (torch.arange(16) / 16).double()
        waves = torch.cat((phases.cos(), phases.sin()), dim=1).to(dtype)
        time = self.linear(silu(self.linear(waves, "time_embedding.0")), "time_embedding.2")
        level = self.linear(silu(time), "time_projection.1").view(count, 6, 1, wan.dim)
        seen = self.picture(told[0].to(dtype))
        for layer in range(wan.layers):
            tokens = self.layer(f"blocks.{layer}", tokens, level, seen, controls.to(dtype), acts=layer < 2)
        shift, scale = (self.weights["head.modulation"][0] + time[:, None]).split(1, dim=1)
        numbers = self.linear(normed(tokens) * (1 + scale) + shift, "head.head")  # [F, tokens, 2 * 2 * 16]
        return numbers.view(count, 3, 5, 2, 2, 16).permute(0, 5, 1, 3, 2, 4).reshape(count, 16, 6, 10)

    def picture(self, tokens: Tensor) -> Tensor:
        """The tokens of the picture as layers listen to them."""
        inside = self.linear(self.affine(tokens, "img_emb.proj.0", 1e-5), "img_emb.proj.1")
        curve = 0.5 * inside * (1 + torch.erf(inside / 2**0.5))
        return self.affine(self.linear(curve, "img_emb.proj.3"), "img_emb.proj.4", 1e-5)

    def layer(self, name: str, tokens: Tensor, level: Tensor, seen: Tensor, controls: Tensor, *, acts: bool) -> Tensor:
        m = [part[:, 0] for part in (level + self.weights[f"{name}.modulation"][0, :, None]).split(1, dim=1)]
        inside = normed(tokens) * (1 + m[1]) + m[0]
        q, k, v = self.heads(inside, f"{name}.self_attn")
        attended = self.attend(places(q), places(k), v.flatten(0, 1).unflatten(0, (-1, TOKENS)))
        tokens = tokens + self.linear(attended.flatten(2), f"{name}.self_attn.o") * m[2]
        asked = self.affine(tokens, f"{name}.norm3", 1e-6)
        q, _, _ = self.heads(asked, f"{name}.cross_attn")
        _, k, v = self.heads(seen[None], f"{name}.cross_attn")
        tokens = tokens + self.linear(softmaxed(q, k[0], v[0]).flatten(2), f"{name}.cross_attn.o")
        if acts:
            tokens = self.act(f"{name}.action_model", tokens, controls)
        up = gelu(self.linear(normed(tokens) * (1 + m[4]) + m[3], f"{name}.ffn.0"))
        return tokens + self.linear(up, f"{name}.ffn.2") * m[5]

    def act(self, name: str, tokens: Tensor, controls: Tensor) -> Tensor:
        config, w = self.config, self.weights
        rows = controls.view(len(controls), 12, -1)
        if self.wrong.lag:
            rows = torch.cat((rows[1:], rows[-1:]))
        if config.mouse:
            moved = rows[:, :, config.keyboard :].flatten(1)[:, None].expand(-1, TOKENS, -1)
            inner = self.linear(
                gelu(self.linear(torch.cat((tokens, moved), -1), f"{name}.mouse_mlp.0")), f"{name}.mouse_mlp.2"
            )
            inside = self.affine(inner, f"{name}.mouse_mlp.3", 1e-5) @ w[f"{name}.t_qkv.weight"].T
            q, k, v = (part.unflatten(2, (2, 16)) for part in inside.split(32, dim=2))
            q, k = self.bare(q, f"{name}.img_attn_q_norm"), self.bare(k, f"{name}.img_attn_k_norm")
            tokens = tokens + self.along(q, k, v).flatten(2) @ w[f"{name}.proj_mouse.weight"].T
        embedded = self.linear(
            silu(self.linear(rows[:, :, : config.keyboard], f"{name}.keyboard_embed.0")), f"{name}.keyboard_embed.2"
        )
        both = embedded.flatten(1) @ w[f"{name}.keyboard_attn_kv.weight"].T
        k, v = (part.unflatten(1, (2, 16))[:, None].expand(-1, TOKENS, -1, -1) for part in both.split(32, dim=1))
        q = self.bare((tokens @ w[f"{name}.mouse_attn_q.weight"].T).unflatten(2, (2, 16)), f"{name}.key_attn_q_norm")
        k = self.bare(k, f"{name}.key_attn_k_norm")
        return tokens + self.along(q, k, v).flatten(2) @ w[f"{name}.proj_keyboard.weight"].T

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every token over all tokens of the frames that its block sees, [F, tokens, heads, head_dim]."""
        return torch.cat(
            [
                softmaxed(q[own].flatten(0, 1)[None], k[seen].flatten(0, 1), v[seen].flatten(0, 1))[0]
                for own, seen in self.looks()
            ]
        ).unflatten(0, (-1, TOKENS))

    def along(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every token over itself in those frames."""
        q, k = (turned(x, torch.arange(len(x))[:, None, None], 256.0, self.wrong.turning) for x in (q, k))
        answers = []
        for own, seen in self.looks():
            rows = [softmaxed(q[own, at][None], k[seen, at], v[seen, at])[0] for at in range(TOKENS)]
            answers.append(torch.stack(rows, dim=1))
        return torch.cat(answers)

    def looks(self) -> list[tuple[list[int], list[int]]]:
        """The frames of each block, and those that it sees."""
        window = self.window - self.wrong.window
        return [([*own], [*range(max(0, own.start - window), own.stop)]) for own in self.blocks]

    def heads(self, x: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [F, n, heads, head_dim]."""
        parts = []
        for each in "qkv":
            part = self.linear(x, f"{name}.{each}")
            if each != "v":
                part = rms(part) * self.weights[f"{name}.norm_{each}.weight"]
            parts.append(part.unflatten(-1, (3, 16)))
        return parts[0], parts[1], parts[2]

    def bare(self, x: Tensor, name: str) -> Tensor:
        return rms(x) * self.weights[f"{name}.weight"] if self.wrong.weighted else rms(x)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def affine(self, x: Tensor, name: str, eps: float) -> Tensor:
        return normed(x, eps) * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)))


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6) ** 0.5


def normed(x: Tensor, eps: float = 1e-6) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps) ** 0.5


def softmaxed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of q [B, n, heads, head_dim] over keys and values [m, heads, head_dim]."""
    scores = torch.einsum("bqhd,khd->bhqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhqk,khd->bqhd", scores.softmax(-1), v)


def turned(x: Tensor, at: Tensor, theta: float, dims: int) -> Tensor:
    """The first dims of heads x [..., head_dim], pair by pair, turned as far as they are at."""
    angles = at[..., None].double() * theta ** (-torch.arange(0, dims, 2).double() / dims)
    even, odd, rest = x[..., 0:dims:2], x[..., 1:dims:2], x[..., dims:]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat((torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2), rest), -1)


def places(x: Tensor) -> Tensor:
    """Heads of the main attention [F, tokens, heads, 16] turned: 8 numbers by time, 4 by row, 4 by column."""
    token = torch.arange(TOKENS)[None, :, None]
    time, rows, columns = x.split((8, 4, 4), dim=-1)
    frames = torch.arange(len(x))[:, None, None]
    return torch.cat(
        (turned(time, frames, 1e4, 8), turned(rows, token // 5, 1e4, 4), turned(columns, token % 5, 1e4, 4)), -1
    )


def plan_of(policy: Policy, **changed: object) -> VideoPlan:
    settings = {"frames_per_block": FRAMES, "sigmas": SIGMAS, "sampler": few_step, "from_nothing": True}
    return VideoPlan(policy=policy, **(settings | changed))


def decoder_of(
    backbone: MatrixGameBackbone, plan: VideoPlan, seed: int = 18, *, kv: str = "", pool: PagePool | None = None
) -> VideoDecoder:
    """One that is told a picture and has no past."""
    storage = parse_storage(kv) if kv else None
    pool = pool or PagePool(backbone.pages, pages=90, dtype=torch.float32, device=torch.device("cpu"), storage=storage)
    made = VideoDecoder(backbone, pool, plan, seed)
    made.heard = backbone.hear(*picture(30 + seed))
    return made


Question = tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]
WRONG = {
    "all turn": Wrong(turning=16),
    "weighted": Wrong(weighted=True),
    "a frame less": Wrong(window=1),
    "a row more": Wrong(lag=1),
}


def defined(weights: Mapping[str, Tensor], kind: str, question: Question, wrong: Wrong = RIGHT) -> Tensor:
    """The flow of the last block of some frames, by the definition."""
    blocks = [range(start, start + FRAMES) for start in range(0, len(question[0]), FRAMES)]
    return Slow(weights, TINY[kind], blocks, WINDOW, wrong).flow(*question)[-FRAMES:]


@torch.no_grad()
def apart(kind: str, seed: int, blocks: int = 4) -> dict[str, float]:
    """How far answers through pages are from the slow definition in float64, at the most over blocks.

    "exact" is what the slow definition is apart from itself in float32, the others what it is apart when it is wrong.
    """
    backbone, told, steering = drawn(seed, kind), picture(30 + 18), actions(seed, FRAMES * blocks, kind)
    double = {name: tensor.double() for name, tensor in backbone.state_dict().items()}
    decoder = decoder_of(backbone, plan_of(Window(frames=WINDOW)))
    past, found = torch.zeros(0, *CONFIG.geometry.frame_shape), dict.fromkeys(("ours", "exact", *WRONG), 0.0)
    for block in range(blocks):
        noisy = block_noise(seed, block, 0, (FRAMES, *CONFIG.geometry.frame_shape))
        sigma = torch.tensor([[0.9, 0.5, 0.2]])
        controls = steering[:, FRAMES * block : FRAMES * (block + 1)]
        levels = torch.cat((torch.zeros(len(past)), sigma[0]))
        question = torch.cat((past, noisy)), levels, steering[0, : len(past) + FRAMES], told
        truth = defined(double, kind, question)
        asked = backbone.prompted(decoder.heard[None], [decoder.context.next_frame])
        clean = asked(noisy[None], noisy[None], sigma, controls, decoder.view(FRAMES).attend)
        answers = {name: defined(double, kind, question, wrong) for name, wrong in WRONG.items()}
        answers["exact"] = defined(backbone.state_dict(), kind, question)
        answers["ours"] = (noisy - clean[0]) / sigma[0, :, None, None, None]
        found = {name: max(found[name], float((answers[name].double() - truth).abs().max())) for name in found}
        recording = decoder.recording(FRAMES)
        asked(noisy[None], noisy[None], torch.zeros_like(sigma), controls, recording.attend)
        decoder.absorb(LatentBlock(latents=noisy[None], controls=controls), recording)
        past = torch.cat((past, noisy))
    return found


@pytest.mark.parametrize(("kind", "seed"), [("universal", 1), ("gta_drive", 2), ("templerun", 3)])
def test_through_pages_it_answers_as_its_slow_definition_does_and_no_wrong_one(kind: str, seed: int) -> None:
    found = apart(kind, seed)
    assert found["ours"] < 4 * found["exact"]
    for wrong in WRONG:
        assert found[wrong] > 1000 * found["exact"], wrong


def published(kind: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the published weights."""
    config = matrixgame_config(kind)
    d, inner = 1536, 1024

    def linear(name: str, out: int, into: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})

    def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (size,), f"{name}.bias": (size,)}

    layout = {"patch_embedding.weight": (d, 36, 1, 2, 2), "patch_embedding.bias": (d,), "head.modulation": (1, 2, d)}
    layout |= norm("img_emb.proj.0", 1280) | linear("img_emb.proj.1", 1280, 1280)
    layout |= linear("img_emb.proj.3", d, 1280) | norm("img_emb.proj.4", d)
    layout |= linear("time_embedding.0", d, 256) | linear("time_embedding.2", d, d)
    layout |= linear("time_projection.1", 6 * d, d) | linear("head.head", 64, d)
    for block in (f"blocks.{number}" for number in range(30)):
        layout |= {f"{block}.modulation": (1, 6, d)} | norm(f"{block}.norm3", d)
        layout |= linear(f"{block}.ffn.0", 8960, d) | linear(f"{block}.ffn.2", d, 8960)
        for part in (f"{block}.self_attn", f"{block}.cross_attn"):
            layout |= {f"{part}.norm_q.weight": (d,), f"{part}.norm_k.weight": (d,)}
            for name in "qkvo":
                layout |= linear(f"{part}.{name}", d, d)
    for module in (f"blocks.{number}.action_model" for number in range(15)):
        if config.mouse:
            layout |= linear(f"{module}.mouse_mlp.0", inner, d + 24) | linear(f"{module}.mouse_mlp.2", inner, inner)
            layout |= norm(f"{module}.mouse_mlp.3", inner) | linear(f"{module}.t_qkv", 3 * inner, inner, bias=False)
            layout |= {f"{module}.img_attn_{each}_norm.weight": (64,) for each in "qk"}
            layout |= linear(f"{module}.proj_mouse", d, inner, bias=False)
        layout |= linear(f"{module}.keyboard_embed.0", 128, config.keyboard)
        layout |= linear(f"{module}.keyboard_embed.2", 128, 128)
        layout |= linear(f"{module}.mouse_attn_q", inner, d, bias=False)
        layout |= linear(f"{module}.keyboard_attn_kv", 2 * inner, 1536, bias=False)
        layout |= {f"{module}.key_attn_{each}_norm.weight": (64,) for each in "qk"}
        layout |= linear(f"{module}.proj_keyboard", d, inner, bias=False)
    return layout


@pytest.mark.parametrize(
    ("kind", "tensors", "numbers"),
    [("universal", 1114, 1_619_242_304), ("gta_drive", 1114, 1_619_238_464), ("templerun", 964, 1_508_715_584)],
)
def test_its_tensors_are_those_of_the_published_weights(kind: str, tensors: int, numbers: int) -> None:
    with torch.device("meta"):
        backbone = MatrixGameBackbone(matrixgame_config(kind))
    found = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    assert found == published(kind)
    assert (len(found), sum(math.prod(shape) for shape in found.values())) == (tensors, numbers)


def questions(seed: int, batch: int = 2, frames: int = FRAMES, kind: str = "universal") -> list[Tensor]:
    """Noisy and previous frames, levels and what steers them."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, batch, frames, *CONFIG.geometry.frame_shape, generator=generator)
    steering = torch.cat([actions(seed + row, frames, kind) for row in range(batch)])
    return [*latents, torch.rand(batch, frames, generator=generator), steering]


def pictured(backbone: MatrixGameBackbone, *seeds: int, first: int = 0) -> Pictured:
    """The backbone with the pictures of some videos, asked about frames from that one on."""
    return backbone.prompted(torch.stack([backbone.hear(*picture(seed)) for seed in seeds]), [first] * len(seeds))


def alone(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of every token to its own value, or to that of its frame."""
    return v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)


@torch.no_grad()
def test_made_on_the_meta_device_it_takes_any_weights_as_its_own() -> None:
    there, given = drawn(1, dtype=torch.bfloat16), questions(2, batch=1)
    with torch.device("meta"):
        here = MatrixGameBackbone(CONFIG)
    here.load_state_dict(there.state_dict(), assign=True)
    assert torch.equal(pictured(here, 3)(*given, alone), pictured(there, 3)(*given, alone))
    assert here.head.head.weight.data_ptr() == there.head.head.weight.data_ptr()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_with_its_pictures_it_keeps_the_contract_of_backbones(kind: str) -> None:
    check_backbone(pictured(drawn(11, kind), 12, 13, first=100))


@torch.no_grad()
def test_what_went_before_is_known_through_attention_alone_and_latents_keep_their_dtype() -> None:
    exact, (noisy, previous, sigma, controls) = pictured(drawn(14), 15, 16), questions(17)
    answer = exact(noisy, previous, sigma, controls, alone)
    assert torch.equal(exact(noisy, previous + 1, sigma, controls, alone), answer)
    rounded = pictured(drawn(14, dtype=torch.bfloat16), 15, 16)(noisy, previous, sigma, controls, alone)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - answer).abs().max() < 16 * torch.finfo(torch.bfloat16).eps * answer.abs().max()


@pytest.mark.parametrize("first", [0, 2, 3, 50])
@torch.no_grad()
def test_each_frame_has_the_channels_of_its_number_and_late_ones_those_of_the_last(first: int) -> None:
    """Told apart by the attention of each frame to itself: what is changed of one number shows in that frame alone."""
    backbone, (noisy, previous, sigma, controls) = drawn(18), questions(19, batch=1)
    words, beside = picture(20)
    answers = []
    for number in (None, *range(TOLD)):
        changed = beside.clone()
        if number is not None:
            changed[number] += 1
        told = backbone.prompted(backbone.hear(words, changed)[None], [first])
        answers.append(told(noisy, previous, sigma, controls, alone)[0])
    for frame in range(FRAMES):
        changes = [not torch.equal(answer[frame], answers[0][frame]) for answer in answers[1:]]
        assert changes == [number == min(first + frame, TOLD - 1) for number in range(TOLD)]


@pytest.mark.parametrize("layer", range(CONFIG.wan.layers))
@torch.no_grad()
def test_every_layer_listens_to_the_picture_of_its_own_video(layer: int) -> None:
    backbone, given = drawn(21), questions(22)
    heard = torch.stack([backbone.hear(*picture(seed)) for seed in (23, 24)])
    other = heard.clone()
    own = math.prod(CONFIG.wan.heard[1:])
    other[1, layer * own : (layer + 1) * own] += 1
    before, after = (backbone.prompted(each, [0, 7])(*given, alone) for each in (heard, other))
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def start(kind: str, dtype: torch.dtype = torch.float32) -> LatentBlock:
    """Three given frames."""
    latents = block_noise(1, 0, 0, (1, FRAMES, *CONFIG.geometry.frame_shape)).to(dtype)
    return LatentBlock(latents=latents, controls=actions(2, FRAMES, kind).to(dtype))


@pytest.mark.parametrize(
    ("kind", "policy"),
    [("universal", Window(frames=3)), ("gta_drive", Window(frames=1)), ("templerun", SinkWindow(sink=1, window=2))],
)
@torch.no_grad()
def test_block_by_block_through_pages_it_makes_what_it_makes_of_all_at_once(kind: str, policy: Policy) -> None:
    plan, told = plan_of(policy), picture(30 + 18)
    cached = decoder_of(drawn(25, kind), plan)
    cached.prefill(start(kind).latents, start(kind).controls)
    exact, rounded = (
        RecomputingDecoder(one.prompted(one.hear(*told)[None], [0]), plan, 18, [start(kind, dtype)])
        for dtype, one in ((dtype, drawn(25, kind, dtype=dtype)) for dtype in (torch.float64, torch.float32))
    )
    for block in range(4):
        controls = actions(26 + block, FRAMES, kind)
        wanted = exact.propose(controls.double())
        # Each goes on from the same past, so that no error is carried from block to block.
        same = LatentBlock(latents=wanted.latents.float(), controls=controls)
        plain, found = (one.propose(controls).latents for one in (rounded, cached))
        error = (plain - wanted.latents).abs().max()
        assert (found - wanted.latents).abs().max() < 4 * error
        for one, own in ((exact, wanted), (rounded, same), (cached, same)):
            one.commit(own)


@pytest.mark.parametrize(
    ("kind", "policy", "kv"),
    [
        ("universal", "window:frames=3", ""),
        ("gta_drive", "sink:sink=1,window=2", "int8:recent=2"),
        ("universal", "full", "kivi4:recent=1"),
        ("universal", "window:frames=4", "gear4:recent=1,rank=1"),
        ("universal", "blockvid:recent=2,run=2,top=1,tau=0.5", ""),
        ("templerun", "blockvid:recent=2,run=2,top=1,tau=0.5", "int8:recent=2"),
    ],
)
@torch.no_grad()
def test_it_is_forked_and_brought_back_bit_for_bit_whatever_the_cache(kind: str, policy: str, kv: str) -> None:
    decoder = decoder_of(drawn(27, kind), plan_of(parse_policy(policy)), kv=kv)
    conditions = tuple(actions(seed, FRAMES, kind) for seed in (28, 29))
    check_decoder(decoder, conditions, values=lambda block: block.latents, blocks=2)
    again, mark = decoder_of(decoder.backbone, decoder.plan, pool=decoder.pool), decoder.fork()
    again.resume(decoder.state())
    before = mark.propose(conditions[0]).latents
    for block in range(3):
        made = [one.propose(conditions[block % 2]) for one in (decoder, again)]
        assert torch.equal(made[0].latents, made[1].latents)
        decoder.commit(made[0])
        again.commit(made[1])
    states = [one.state() for one in (decoder, again)]
    assert torch.equal(states[0].keys, states[1].keys)
    assert torch.equal(states[0].values, states[1].values)
    assert torch.equal(mark.propose(conditions[0]).latents, before)
    decoder.pool.check_integrity([decoder.context, again.context, mark.context])


@torch.no_grad()
def test_videos_of_all_ages_share_calls_each_with_the_channels_of_its_own_frames() -> None:
    def lived(dtype: torch.dtype, *, together: bool) -> list[Tensor]:
        backbone = drawn(31, dtype=dtype)
        pool = PagePool(backbone.pages, pages=60, dtype=dtype, device=torch.device("cpu"))
        videos = [decoder_of(backbone, plan_of(Window(frames=3)), seed, pool=pool) for seed in (1, 2)]
        videos[1].prefill(*(part.to(dtype) for part in (start("universal").latents, start("universal").controls)))
        groups, made = ([videos] if together else [[video] for video in videos]), []
        for block in range(2):
            controls = {video.seed: actions(video.seed + block, FRAMES).to(dtype) for video in videos}
            for group in groups:
                proposed = propose_together(group, [controls[video.seed] for video in group])
                blocks = [
                    LatentBlock(latents=latents, controls=controls[video.seed])
                    for (latents, _), video in zip(proposed, group, strict=True)
                ]
                write_together(group, blocks)
                made += [own.latents for own in blocks]
                for video in group:
                    video.blocks += 1
        return made

    truth = lived(torch.float64, together=False)
    limits = [(one - other).abs().max() for one, other in zip(lived(torch.float32, together=False), truth, strict=True)]
    for found, wanted in zip(lived(torch.float32, together=True), truth, strict=True):
        assert (found - wanted).abs().max() < 4 * max(limits)


@torch.no_grad()
def test_frames_that_are_computed_anew_keep_their_numbers() -> None:
    """Told the same picture again, a past that is computed anew from its first frame on is what it was."""
    plan = plan_of(Window(frames=6), on_prompt=PromptChange(anew=3))
    decoder = decoder_of(drawn(32), plan)
    decoder.commit(decoder.propose(actions(33, FRAMES)))
    before = decoder.state()
    decoder.tell(decoder.heard.clone())
    after = decoder.state()
    assert torch.equal(after.keys, before.keys)
    assert torch.equal(after.values, before.values)


@torch.no_grad()
def test_no_number_of_frames_is_too_many() -> None:
    backbone, plan = drawn(34), plan_of(Window(frames=3))
    near, far = decoder_of(backbone, plan), decoder_of(backbone, plan)
    for block in range(2):
        near.commit(near.propose(actions(35 + block, FRAMES)))
    state = near.state()
    later = 1_000_000
    far.resume(replace(state, next_frame=state.next_frame + later, frames=tuple(f + later for f in state.frames)))
    for block in range(2):
        here, there = (one.propose(actions(37 + block, FRAMES)) for one in (near, far))
        assert torch.equal(here.latents, there.latents)
        near.commit(here)
        far.commit(there)


@pytest.mark.parametrize(
    ("words", "beside"),
    [
        ((6, 20), (4, 20, 6, 10)),
        ((5, 21), (4, 20, 6, 10)),
        ((5, 20), (0, 20, 6, 10)),
        ((5, 20), (4, 16, 6, 10)),
        ((5, 20), (20, 6, 10)),
    ],
)
def test_pictures_of_another_model_are_refused(words: tuple[int, ...], beside: tuple[int, ...]) -> None:
    says = rf"\[5, 20\] .*\[n, 20, 6, 10\], got {re.escape(f'{list(words)} and {list(beside)}')}"
    with pytest.raises(ShapeError, match=says):
        drawn(38).hear(torch.zeros(words), torch.zeros(beside))


@pytest.mark.parametrize(
    ("shape", "first"), [((1, 1440), [0]), ((1, 1440 + 1199), [0]), ((1440 + 1200,), [0]), ((2, 2640), [0])]
)
def test_what_another_backbone_heard_is_refused(shape: tuple[int, ...], first: list[int]) -> None:
    with pytest.raises(ShapeError, match=r"\[B, 1440 \+ n \* 1200\], and the first frame of each, got"):
        drawn(39).prompted(torch.zeros(shape), first)


def test_without_a_picture_it_says_what_to_call() -> None:
    with pytest.raises(ConfigError, match="prompted"):
        drawn(40)(*questions(41), alone)


@pytest.mark.parametrize(
    ("which", "shape"),
    [(0, (1, 3, 16, 6, 10)), (0, (2, 3, 36, 6, 10)), (0, (2, 16, 6, 10)), (2, (2, 1)), (3, (2, 3, 6))],
)
def test_frames_levels_or_controls_that_do_not_fit_are_refused(which: int, shape: tuple[int, ...]) -> None:
    backbone, given = pictured(drawn(42), 43, 44), questions(45)
    given[which] = torch.zeros(shape)
    with pytest.raises(ShapeError, match=rf"one video for each picture.*{re.escape(str(shape))}"):
        backbone(*given, alone)
