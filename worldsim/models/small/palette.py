"""Beliefs over a palette: what a token will show is one of a few hundred known patches, or near one of them.

A backbone that answers with numbers answers with the mean of what is possible, which between two tiles is neither. One
that answers with a probability for each of K patches, and a small offset from whichever it is, can be asked for a draw
as well as for the mean, and a draw is a sharp patch.

Sources: cross-entropy over a fixed set of clean values inside continuous diffusion, Dieleman et al. 2022
(arXiv:2211.15089), section 3; k-means classes with offsets, Shafiullah et al. 2022 (arXiv:2206.11251), section 3.2. A
departure from the latter: one offset a token, not one for each class.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.errors import ShapeError

WHITENED = 0.1
"""Axes along which centres vary less than this share of the mean variance are stretched no further."""
SAME = 0.8
"""How alike two patches are at least, apart from how bright they are and how much they stand out, that show the same in
another light."""
NEARBY = 2.0
"""Squared distance of two codes, over one axis, at which their patches still are shades of one thing. Of Crafter's
palette half of the codes have a neighbour within 0.2; path and what lies beyond the map, its two most alike, are 8
apart. On held-out frames 2 to 8 gave 94.3 to 94.5 % of the tiles right, the patch alone 91.1 %."""
RARE = 1e-3
"""The share of the likeliest under which what enters a view is never drawn, unless it is recalled. In 6,000 tokens of
Crafter's ground never seen before, 3.0 % of what was believed lay between this and 0.02 of the likeliest, and 2.6 % of
what then came; in 110,000 tokens that had been in view, 0.4 % and 0.14 %; in 4,000 that were recalled 1.9 % and 1.2 %,
and with that drawn too 91.9 % of the tiles of a place come back to were right."""
SHARPNESS = 16.0
"""Mean squared length of a code, which sets how sure the beliefs of an untrained backbone can be."""
OFFSET_DEVIATION = 0.025
"""How far a patch lies from its centre, in latent units, where its offset is as it was expected: weighs offsets against
classes."""


class Palette(nn.Module):
    """K patches [K, P] and how to believe in them.

    Of each it is known whether it is restless, as what stands on the ground is and ground is not: 1 or 0, [K].

    Args:
        size: K.
        patch_values: P.
        dim: width of the tokens that hold the beliefs.
    """

    def __init__(self, size: int, patch_values: int, dim: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(size, patch_values), requires_grad=False)
        self.codes = nn.Parameter(torch.zeros(size, patch_values), requires_grad=False)
        self.restless = nn.Parameter(torch.zeros(size), requires_grad=False)
        self.aim = nn.Linear(dim, patch_values)
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_load_state_dict_post_hook(lambda module, _: module._forget_kin())  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def fill(self, centres: Tensor) -> None:
        """Set the patches, [K, P], and with them the codes that beliefs are measured in: the same, whitened."""
        if centres.shape != self.centres.shape:
            raise ShapeError(f"expected centres {list(self.centres.shape)}, got {list(centres.shape)}")
        self.centres.copy_(centres)
        apart = centres - centres.mean(0)
        spread, axes = torch.linalg.eigh(apart.T @ apart / len(apart))
        whiten = axes / (spread.clamp_min(0) + WHITENED * spread.mean()).sqrt()
        codes = apart @ whiten
        self.codes.copy_(codes * (SHARPNESS / codes.square().sum(-1).mean()).sqrt())
        self.bias.copy_(self.codes.square().sum(-1) / -2)
        self.restless.zero_()
        self._forget_kin()

    def logits(self, tokens: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Tokens [..., D] to unnormalised log-probabilities [..., K], float32.

        A token aims at a point among the codes, to which what it is drawn towards, [..., P], is added; the nearer a
        code, the likelier it is.
        """
        aim = self.aim(tokens) if drawn is None else self.aim(tokens) + drawn
        logits: Tensor = (aim @ self.codes.to(tokens.dtype).T).float() + self.bias
        return logits

    def mean(self, logits: Tensor, offset: Tensor) -> Tensor:
        """The mean patch, [..., P], float32, from logits [..., K] and an offset from the centre, [..., P]."""
        return logits.softmax(-1) @ self.centres.float() + offset.float()

    def likely(self, logits: Tensor, unlikely: float | Tensor = 0.0) -> Tensor:
        """How likely each patch is to be drawn, [..., K], not normalised.

        Args:
            logits: [..., K].
            unlikely: a patch less likely than this share of the likeliest is never drawn; fits [...]. 0.5 leaves a
                choice between two only where neither is twice as likely as the other. Source: min-p sampling, Nguyen
                et al. 2024 (arXiv:2407.01082), section 3.
        """
        law = logits.softmax(-1)
        return law * (law >= (law.max(-1).values * unlikely)[..., None])

    @property
    def is_restless(self) -> Tensor:
        """Which patches are restless, bool [K]."""
        return self.restless > 0.5

    @cached_property
    def kin(self) -> Tensor:
        """1 where one patch is a shade of the other, else 0, [K, K]."""
        codes = self.codes.float()
        return (torch.cdist(codes, codes).square() <= NEARBY).float()

    @cached_property
    def same(self) -> Tensor:
        """Which patches may be the same thing in another light, bool [K, K]: what correlates, number by number."""
        centres = self.centres.float()
        apart = F.normalize(centres - centres.mean(1, keepdim=True), eps=1e-6)
        return apart @ apart.T > SAME

    def surest_ground(self, likely: Tensor) -> Tensor:
        """The same likelihoods, [..., K], without any ground but the likeliest and its shades: what rests is one thing.

        What was seen before is no choice to be made by dice. Who walks over it is.
        """
        surest = (likely.masked_fill(self.is_restless, 0.0) @ self.kin.to(likely)).argmax(-1)
        return likely * (self.is_restless | (self.kin[surest] > 0))

    def _forget_kin(self) -> None:
        for name in ("kin", "same"):
            self.__dict__.pop(name, None)

    def draw(self, logits: Tensor, offset: Tensor, likely: Tensor, dice: Tensor) -> Tensor:
        """A drawn patch, [..., P], float32.

        It is the mean of those near it, each as likely as it is believed to be: two shades of one tile are no choice to
        be made by dice, and the offset was learned to lead from their mean.

        Args:
            logits: [..., K].
            offset: from the centre, whichever it is, [..., P].
            likely: how likely each patch is to be drawn, [..., K], not normalised.
            dice: uniform numbers in [0, 1), [...].
        """
        reached = likely.cumsum(-1)
        picks = torch.searchsorted(reached, dice.to(reached)[..., None] * reached[..., -1:], right=True)[..., 0]
        # A product that rounds up to the whole would pick what lies past the last likely patch.
        drawn = self.codes[picks.minimum(_last(likely))].float()
        nearness = drawn @ self.codes.float().T - self.codes.float().square().sum(-1) / 2
        near = (logits + nearness / NEARBY).softmax(-1)
        return near @ self.centres.float() + offset.float()

    def surprise(self, logits: Tensor, offset: Tensor, patches: Tensor) -> Tensor:
        """How little patches [B, F, tokens, P] were expected under logits [B, F, tokens, K], [B, F, tokens], in nats.

        Offsets, [B, F, tokens, P], count by their square.
        """
        labels = self.nearest(patches)
        missed = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
        error = (patches - self.centres[labels] - offset).square().mean(-1) / (2 * OFFSET_DEVIATION**2)
        return missed.view(labels.shape) + error

    @torch.no_grad()
    def nearest(self, patches: Tensor) -> Tensor:
        """The index of the nearest centre of each patch, [..., P] to [...]."""
        centres = self.centres.float()
        with torch.autocast(patches.device.type, enabled=False):
            return (patches.float() @ centres.T - centres.square().sum(-1) / 2).argmax(-1)


def _last(likely: Tensor) -> Tensor:
    """The highest index that is not ruled out, [..., K] to [...]."""
    order = torch.arange(likely.shape[-1], device=likely.device)
    last: Tensor = torch.where(likely > 0, order, -1).amax(-1)
    return last
