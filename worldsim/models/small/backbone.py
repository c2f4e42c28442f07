"""The backbone of the bundled worlds: a block-causal diffusion transformer steered by controls.

It estimates the clean frames directly (x-prediction), with the previous frame around every token beside its input,
adaptive modulation per frame and rotary positions over time, rows and columns. It answers with numbers, or with
beliefs over a palette of patches, from which its estimate is the mean or a draw.

Sources: DiT, Peebles & Xie 2022 (arXiv:2212.09748), section 3.2; one modulation shared by all layers as in
PixArt-alpha, Chen et al. 2023 (arXiv:2310.00426), section 2.3; x-prediction on pixel patches, Li & He 2025
(arXiv:2511.13720).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError, shown
from worldsim.geometry import LatentGeometry
from worldsim.models.protocol import UNKNOWN, Attend, Chart, Memory
from worldsim.models.small.atlas import Atlas, Scroll
from worldsim.models.small.palette import RARE, Palette
from worldsim.models.small.recalling import Recalling, Trust
from worldsim.models.small.things import settle

NOISE_FREQUENCIES = 64
LARGEST = 1e9
"""Of the numbers of a configuration that are no sizes."""
SIZES = ("channels", "height", "width", "controls", "patch", "dim", "layers", "heads", "head_dim", "mlp_ratio")
"""What of a configuration is at least 1."""
CLEAN_DEVIATION = 0.5
"""About how far the numbers of clean frames spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallConfig:
    """The size of one small backbone. Lengths are in tokens, channels or layers; controls in numbers a frame.

    palette and unlikely are those of worldsim.models.small.palette; a palette of 0 is none, and unlikely is one share
    for all tokens or one for each of their rows, rows of one share being a field of worldsim.models.small.things; of
    what enters the view and is not recalled it is RARE at most. glance is how many numbers of each patch of the
    previous frame every token is told, all patches at once; 0 is none. scroll is how its view moves over a land, see
    worldsim.models.small.atlas: the backbone then remembers places, for which it needs a palette; None is no such view.
    """

    channels: int
    height: int
    width: int
    controls: int
    patch: int = 1
    dim: int = 256
    layers: int = 8
    heads: int = 4
    head_dim: int = 64
    mlp_ratio: int = 4
    theta: float = 100.0
    palette: int = 0
    unlikely: float | tuple[float, ...] = 0.0
    glance: int = 0
    scroll: Scroll | None = None

    def __post_init__(self) -> None:
        for name, least in (*((size, 1) for size in SIZES), ("palette", 0), ("glance", 0)):
            number = getattr(self, name)
            if type(number) is not int or number < least:
                raise ConfigError(f"{name} is a whole number of {least} or more, got {shown(number)}")
        if type(self.theta) not in (int, float) or not 0 < self.theta <= LARGEST:
            raise ConfigError(f"theta is a number over 0 to {LARGEST:.0e}, got {shown(self.theta)}")
        rows = self.height // self.patch
        if not isinstance(self.unlikely, float | int):  # a weights file has a list
            object.__setattr__(self, "unlikely", tuple(self.unlikely))
        if isinstance(self.scroll, dict):
            object.__setattr__(self, "scroll", Scroll(**self.scroll))
        if self.scroll is not None:
            self._check_scroll(self.scroll)
        shares = self.shares
        if len(shares) != rows or not all(0 <= share <= 1 for share in shares):
            raise ConfigError(
                f"unlikely is a share of the likeliest patch, or one for each of {rows} rows, got {shown(shares)}"
            )
        if self.head_dim % 8:
            raise ConfigError(f"heads of {self.head_dim} do not divide among three axes; use a multiple of 8")

    def _check_scroll(self, scroll: Scroll) -> None:
        if not isinstance(scroll, Scroll):
            raise ConfigError(f"how a view scrolls is told by its rows, body and moves, got {shown(scroll)}")
        rows, columns = self.height // self.patch, self.width // self.patch
        if not self.palette or scroll.rows > rows:
            raise ConfigError(
                f"places are remembered as codes of a palette in at most {rows} rows, got palette={self.palette} and "
                f"{shown(scroll.rows)} rows"
            )
        row, column = scroll.body
        numbers = (scroll.rows, row, column, *chain.from_iterable(scroll.moves))
        if any(type(number) is not int for number in numbers):
            raise ConfigError(f"rows, a body and moves are whole numbers, got {shown(scroll)}")
        movers = [control for control, *_ in scroll.moves]
        if not (0 <= row < scroll.rows and 0 <= column < columns and 0 <= min(movers) <= max(movers) < self.controls):
            raise ConfigError(
                f"a body or a control lies outside {rows} x {columns} tokens and {self.controls}: {shown(scroll)}"
            )

    @property
    def shares(self) -> tuple[float, ...]:
        """What is unlikely in each row of tokens."""
        return self.unlikely if isinstance(self.unlikely, tuple) else (self.unlikely,) * (self.height // self.patch)

    @property
    def patch_values(self) -> int:
        """Numbers in what one token covers."""
        return self.channels * self.patch**2

    @property
    def rotary(self) -> Rotary:
        """Time, rows and columns share a head as 2 : 1 : 1."""
        quarter = self.head_dim // 4
        return Rotary(time=2 * quarter, rows=quarter, columns=quarter, theta=self.theta)

    def geometry(self, frames_per_block: int = 1) -> LatentGeometry:
        """The latent layout, for blocks of that many frames."""
        return LatentGeometry(
            channels=self.channels,
            height=self.height,
            width=self.width,
            patch=self.patch,
            frames_per_block=frames_per_block,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a weights file keeps them."""
        return asdict(self)


class SmallBackbone(nn.Module):
    """See the module. Call it as the Backbone protocol says.

    Args:
        config: its size.
        generator: of its first weights; torch's own if None.
    """

    def __init__(self, config: SmallConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.geometry = config.geometry()
        dim, patch_values = config.dim, config.patch_values
        self.embed = nn.Linear(patch_values, dim)
        self.around = nn.Conv2d(patch_values, dim, 3, padding=1, bias=False)
        self.glance = Glance(config) if config.glance else None
        self.place = nn.Parameter(torch.zeros(self.geometry.tokens_per_frame, dim))
        self.noise_level = nn.Sequential(nn.Linear(2 * NOISE_FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.steer = nn.Linear(config.controls, dim)
        self.modulation = nn.Linear(dim, 6 * dim)
        self.layers = nn.ModuleList(SmallLayer(config) for _ in range(config.layers))
        self.head_modulation = nn.Linear(dim, 2 * dim)
        self.head = nn.Linear(dim, patch_values)
        self.palette = Palette(config.palette, patch_values, dim) if config.palette else None
        self.recollect = nn.Linear(patch_values, dim) if config.scroll else None
        self.trust = Trust(dim, patch_values) if config.scroll else None
        self._initialise(generator)

    @property
    def pages(self) -> PageShape:
        c = self.config
        return PageShape(layers=c.layers, tokens=self.geometry.tokens_per_frame, heads=c.heads, head_dim=c.head_dim)

    @property
    def rotary(self) -> Rotary:
        return self.config.rotary

    @property
    def controls(self) -> int:
        return self.config.controls

    def forward(
        self,
        noisy: Tensor,
        previous: Tensor,
        sigma: Tensor,
        controls: Tensor,
        attend: Attend,
        dice: Tensor | None = None,
    ) -> Tensor:
        """Estimate the clean frames; see worldsim.models.protocol.Backbone and DrawingBackbone.

        All of noisy, previous [B, F, C, H, W], sigma [B, F], controls [B, F, A], dice [B, F, rows, columns] or None for
        the mean; returns [B, F, C, H, W].
        """
        return self.answer(self.run(noisy, previous, sigma, controls, attend), dice).to(noisy.dtype)

    def weighed(
        self,
        noisy: Tensor,
        previous: Tensor,
        sigma: Tensor,
        controls: Tensor,
        attend: Attend,
        clean: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """How little clean frames were expected, and what was; see worldsim.models.protocol.DrawingBackbone.

        Raises:
            ConfigError: the backbone has no palette, so that it holds no beliefs.
        """
        return self.weigh(self.run(noisy, previous, sigma, controls, attend), clean)

    @torch.no_grad()
    def remember(self, memory: Memory, latents: Tensor, before: Tensor, controls: Tensor) -> Memory:
        """The memory with frames more; see worldsim.models.protocol.RememberingBackbone."""
        palette, scroll, geometry = self._memory_parts()
        frames = self.patchify(torch.cat((before, latents), dim=1))[0]
        codes = palette.nearest(frames[1:]).unflatten(1, (geometry.rows, geometry.columns))
        patches = frames.unflatten(1, (geometry.rows, geometry.columns))
        made = scroll.made(patches[:-1], patches[1:], controls[0]).tolist()
        atlas, restless = Atlas.of(memory, scroll, geometry.columns), palette.is_restless.cpu().numpy()
        dims = scroll.dim(patches[:-1], patches[1:], made, palette.centres)
        for seen, move, dim in zip(codes.cpu().numpy().astype(np.int16), made, dims, strict=True):
            atlas = atlas.see(seen, move, dim, restless=restless)
        return atlas.tensors

    def recall(self, memory: Memory, controls: Tensor) -> Tensor:
        """The codes last seen where each frame will look, int64 [1, F, rows, columns]; see RememberingBackbone.

        Of K codes it is by K more what surely is there, having been seen by day.
        """
        _, scroll, geometry = self._memory_parts()
        atlas = Atlas.of(memory, scroll, geometry.columns)
        recalled = np.full((1, controls.shape[1], geometry.rows, geometry.columns), UNKNOWN, np.int64)
        for at, move in enumerate(scroll.asked(controls[0].cpu()).cumsum(0).tolist()):
            recalled[0, at, : scroll.rows] = atlas.recall(move) + self.config.palette * atlas.surely(move)
        return torch.from_numpy(recalled).to(controls.device)

    def chart(self, memory: Memory) -> Chart | None:
        """The places of its atlas; see worldsim.models.protocol.RememberingBackbone."""
        palette, scroll, geometry = self._memory_parts()
        if not memory:
            return None
        atlas = Atlas.of(memory, scroll, geometry.columns)
        if atlas.tiles.min() < UNKNOWN or atlas.tiles.max() >= len(palette.centres):
            raise ConfigError(f"the places of that memory are of sorts that are not among {len(palette.centres)}")
        sorts = palette.centres.unflatten(1, (geometry.channels, self.config.patch, self.config.patch))
        view = (*atlas.view, scroll.rows, geometry.columns)
        return Chart(places=torch.from_numpy(atlas.tiles), sorts=sorts, view=view)

    def enters(self, controls: Tensor) -> Tensor:
        """Which tokens will show what was not in view; see worldsim.models.protocol.RememberingBackbone."""
        _, scroll, geometry = self._memory_parts()
        land = scroll.enters(controls, geometry.columns)
        return F.pad(land, (0, 0, 0, geometry.rows - scroll.rows))

    def recalling(self, recalled: Tensor) -> Recalling:
        """The same backbone with something to recall; see worldsim.models.protocol.RememberingBackbone."""
        self._memory_parts()
        return Recalling(self, recalled)

    def _memory_parts(self) -> tuple[Palette, Scroll, LatentGeometry]:
        if self.palette is None or self.config.scroll is None:
            raise ConfigError("this backbone remembers no places; its configuration has no scroll")
        return self.palette, self.config.scroll, self.geometry

    def run(
        self,
        noisy: Tensor,
        previous: Tensor,
        sigma: Tensor,
        controls: Tensor,
        attend: Attend,
        codes: Tensor | None = None,
    ) -> Run:
        """The layers, on frames of which codes are recalled, [B, F, tokens], or nothing is."""
        frames = noisy.shape[1]
        told = noisy * _gain(sigma)[:, :, None, None, None]
        tokens = self.embed(self.patchify(told).to(self.embed.weight.dtype)) + self._surroundings(previous)
        steer = self.steer(controls.to(tokens.dtype))  # [B, F, D]
        if self.glance is not None:
            tokens = tokens + self.glance(self.patchify(previous))[:, :, None]
        if codes is not None:
            tokens = tokens + self._recollected(codes)
        tokens = (tokens + self.place.to(tokens.dtype) + steer[:, :, None]).flatten(1, 2)
        level = F.silu(self.noise_level(_waves(sigma).to(steer.dtype)) + steer)
        modulation = self.modulation(level).unflatten(-1, (6, -1))  # [B, F, 6, D]
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, modulation, index, attend)
        shift, scale = self.head_modulation(level).chunk(2, dim=-1)
        tokens = _modulate(tokens, shift, scale).unflatten(1, (frames, -1))
        before, logits = self.patchify(previous[:, :1])[:, 0], self._logits(tokens, codes)
        return Run(logits=logits, numbers=self.head(tokens), before=before, controls=controls, codes=codes)

    def answer(self, run: Run, dice: Tensor | None) -> Tensor:
        """The frames estimated or drawn, [B, F, C, H, W]."""
        if self.palette is None or run.logits is None:
            return self.unpatchify(run.numbers)
        return self.unpatchify(self._believe(self.palette, run.logits, run, dice))

    def weigh(self, run: Run, clean: Tensor) -> tuple[Tensor, Tensor]:
        """See weighed."""
        if self.palette is None or run.logits is None:
            raise ConfigError("a backbone without a palette holds no beliefs; train it with DiffusionForcing")
        judged = clean.shape[1]
        logits, offset = run.logits[:, -judged:], run.numbers[:, -judged:]
        found: Tensor = self.palette.surprise(logits, offset, self.patchify(clean))
        grid = (self.geometry.rows, self.geometry.columns)
        return found.unflatten(2, grid), logits.float().log_softmax(-1).unflatten(2, grid)

    def _believe(self, palette: Palette, logits: Tensor, run: Run, dice: Tensor | None) -> Tensor:
        """The patches believed in, [B, F, tokens, P]: their mean, or a draw."""
        if dice is None:
            return palette.mean(logits, run.numbers)
        likely, restless = palette.likely(logits, self._unlikely(run)), palette.is_restless
        if run.codes is not None:
            recalled = run.codes != UNKNOWN
            likely[recalled] = palette.surest_ground(likely[recalled])
        if restless.any():
            fields = [len(list(rows)) for _, rows in groupby(self.config.shares)]
            before = restless[palette.nearest(run.before)].sum(-1)
            likely = settle(likely, palette.kin, restless, before, dice, fields=fields)
        return palette.draw(logits, run.numbers, likely, dice.flatten(2))

    def _unlikely(self, run: Run) -> Tensor:
        """What is unlikely of each token, fit for [B, F, tokens]."""
        shares = torch.tensor(self.config.shares, device=run.numbers.device).repeat_interleave(self.geometry.columns)
        if self.config.scroll is None:
            return shares
        known = ~self.enters(run.controls).flatten(2)
        known = known if run.codes is None else known | (run.codes != UNKNOWN)
        return shares.where(known, shares.clamp_max(RARE))

    def _surroundings(self, previous: Tensor) -> Tensor:
        """What lay around every token one frame before, [B, F, C, H, W] to [B, F, tokens, D]."""
        g = self.geometry
        patches = self.patchify(previous).flatten(0, 1).transpose(1, 2).unflatten(2, (g.rows, g.columns))
        seen = self.around(patches.to(self.around.weight.dtype))
        tokens: Tensor = seen.flatten(2).transpose(1, 2).unflatten(0, (previous.shape[0], -1))
        return tokens

    def _logits(self, tokens: Tensor, codes: Tensor | None) -> Tensor | None:
        """What the last tokens believe, [B, F, tokens, K], if they do: what is recalled draws them to itself."""
        if self.palette is None:
            return None
        if codes is None or self.trust is None:
            return self.palette.logits(tokens)
        seen = self.palette.codes.to(tokens.dtype)[codes.clamp_min(0)]
        drawn = self.trust(tokens, seen) * (codes != UNKNOWN)[..., None]
        return self.palette.logits(tokens, drawn)

    def _recollected(self, codes: Tensor) -> Tensor:
        """What recalled codes [B, F, tokens] tell each token, [B, F, tokens, D]; nothing where unknown."""
        assert self.recollect is not None
        assert self.palette is not None
        told = self.recollect(self.palette.centres.to(self.recollect.weight.dtype))
        tokens: Tensor = told[codes.clamp_min(0)] * (codes != UNKNOWN)[..., None]
        return tokens

    def patchify(self, frames: Tensor) -> Tensor:
        """[B, F, C, H, W] to [B, F, tokens, C * patch * patch]."""
        p = self.config.patch
        squares = frames.unflatten(-2, (-1, p)).unflatten(-1, (-1, p))  # [B, F, C, rows, p, columns, p]
        patches: Tensor = squares.permute(0, 1, 3, 5, 2, 4, 6).flatten(-3).flatten(2, 3)
        return patches

    def unpatchify(self, patches: Tensor) -> Tensor:
        p, g = self.config.patch, self.geometry
        squares = patches.unflatten(2, (g.rows, g.columns)).unflatten(-1, (g.channels, p, p))
        frames: Tensor = squares.permute(0, 1, 4, 2, 5, 3, 6).flatten(-2).flatten(-3, -2)
        return frames

    def _initialise(self, generator: torch.Generator | None) -> None:
        """Every layer begins as the identity (adaLN-Zero), every estimate as the middle grey; else as torch."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                bound = module.weight[0].numel() ** -0.5
                for weight in module.parameters():
                    nn.init.uniform_(weight, -bound, bound, generator=generator)
        more = [] if self.palette is None else [self.palette.aim]
        more += [] if self.glance is None else [self.glance.all]
        more += [] if self.recollect is None else [self.recollect]
        more += [] if self.trust is None else [self.trust.say]
        for layer in (self.head, self.modulation, self.head_modulation, *more):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.place, std=0.02, generator=generator)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Run:
    """What the layers made of some frames.

    logits: what the last tokens believe, [B, F, tokens, K], if they believe in a palette.
    numbers: read off the last tokens, [B, F, tokens, C * patch * patch].
    before: the frame before the first, [B, tokens, C * patch * patch].
    controls: what they were steered by, [B, F, A].
    codes: what was recalled, [B, F, tokens], if anything was.
    """

    logits: Tensor | None
    numbers: Tensor
    before: Tensor
    controls: Tensor
    codes: Tensor | None


class Glance(nn.Module):
    """What the whole of a frame looks like, in few numbers for each of its patches, told to every token at once.

    What a key does may be decided in one place and shown in another, far from it. Attention can carry that, once both
    ends have learned what to say and where to listen; here one layer is enough.
    """

    def __init__(self, config: SmallConfig) -> None:
        super().__init__()
        tokens = config.geometry().tokens_per_frame
        self.each = nn.Linear(config.patch_values, config.glance)
        self.all = nn.Linear(tokens * config.glance, config.dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches [B, F, tokens, P]; returns [B, F, D]."""
        few = self.each(patches.to(self.each.weight.dtype))
        told: Tensor = self.all(few.flatten(2))
        return told


class SmallLayer(nn.Module):
    """Attention and a perceptron, each modulated per frame and gated."""

    def __init__(self, config: SmallConfig) -> None:
        super().__init__()
        dim, attended = config.dim, config.heads * config.head_dim
        self.heads = config.heads
        self.qkv = nn.Linear(dim, 3 * attended, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.out = nn.Linear(attended, dim)
        self.up = nn.Linear(dim, config.mlp_ratio * dim)
        self.down = nn.Linear(config.mlp_ratio * dim, dim)
        self.own = nn.Parameter(torch.zeros(6, dim))

    def forward(self, tokens: Tensor, modulation: Tensor, index: int, attend: Attend) -> Tensor:
        """Tokens [B, F * tokens_per_frame, D], modulation [B, F, 6, D]; returns tokens."""
        modulation = modulation + self.own.to(modulation.dtype)
        attended = attend(index, *self.before(tokens, modulation))
        return self.after(tokens, modulation, attended)

    def before(self, tokens: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, F * tokens_per_frame, heads, head_dim]."""
        shift, scale = modulation.unbind(2)[:2]
        q, k, v = self.qkv(_modulate(tokens, shift, scale)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return _norm(self.q_norm, q), _norm(self.k_norm, k), v

    def after(self, tokens: Tensor, modulation: Tensor, attended: Tensor) -> Tensor:
        """The tokens with what they attended to, through the perceptron."""
        gate, shift, scale, gate_up = modulation.unbind(2)[2:]
        tokens = tokens + _per_frame(self.out(attended.flatten(2)), gate)
        hidden = F.gelu(self.up(_modulate(tokens, shift, scale)), approximate="tanh")
        return tokens + _per_frame(self.down(hidden), gate_up)


def _norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """The norm with its weight in the dtype of x: under autocast they differ, and torch then has no fused norm."""
    return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps)


def _modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise each token, then scale and shift it by its frame's values."""
    normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6).unflatten(1, (shift.shape[1], -1))
    moved: Tensor = normed * (1 + scale[:, :, None]) + shift[:, :, None]
    return moved.flatten(1, 2)


def _per_frame(tokens: Tensor, gate: Tensor) -> Tensor:
    gated: Tensor = tokens.unflatten(1, (gate.shape[1], -1)) * gate[:, :, None]
    return gated.flatten(1, 2)


def _gain(sigma: Tensor) -> Tensor:
    """How much of a noisy frame to believe, the best linear guess of the clean one: 1 without noise, 0 for noise alone.

    Left as it is, the noise of high levels drowns the previous frame in the tokens that both are added up in, and the
    layers first have to learn to take it out again.
    """
    power = CLEAN_DEVIATION**2 * (1 - sigma)
    return power / (power * (1 - sigma) + sigma.square())


def _waves(sigma: Tensor) -> Tensor:
    """Sines and cosines of the noise level, [B, F] to [B, F, 2 * NOISE_FREQUENCIES], float32."""
    octaves = torch.linspace(0, math.log(256.0), NOISE_FREQUENCIES, device=sigma.device).exp()
    phase = sigma.float()[..., None] * octaves * math.pi
    return torch.cat((phase.cos(), phase.sin()), dim=-1)
