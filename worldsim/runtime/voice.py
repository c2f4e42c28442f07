"""What a backbone hears of what a session is told, and of the picture that it begins from; the latest is kept."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from worldsim.models.protocol import PromptedBackbone
from worldsim.session.log import Given
from worldsim.session.prompt import Told, cut_prompt

KEPT = 4
"""What was heard last, so many times: a prompt of a model with 1.3 billion parameters takes 94 MB."""
ASKED = 256
"""Prompts of which it is kept how much is left out: each state of each session asks."""
Wanted = TypeVar("Wanted", bound=Hashable)

log = logging.getLogger(__name__)


def kept_prompt(text: object) -> str:
    """A prompt as a session keeps it, without the end of one that is too long, which is said; ConfigError if none."""
    kept, lost = cut_prompt(text)
    if lost:
        log.warning(
            "the prompt is too long: the last %d of its %d characters are left out, as one has %d at most",
            *(lost, lost + len(kept), len(kept)),
        )
    return kept


class Latest(Generic[Wanted]):
    """What was made last, so many times."""

    def __init__(self) -> None:
        self._made: OrderedDict[Wanted, Tensor] = OrderedDict()

    def get(self, wanted: Wanted, make: Callable[[], Tensor]) -> Tensor:
        """What is made of it, anew if it is not among the latest."""
        if wanted not in self._made:
            self._made[wanted] = make()
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        self._made.move_to_end(wanted)
        return self._made[wanted]


class Voice:
    """Makes what a block hears of what its session is told.

    A prompt that takes effect over several blocks is heard as a mean of the embeddings of both prompts, word by word.

    Args:
        embed: the embeddings of a prompt's words, [L, E]; called again for a prompt that was not heard of for a while.
        backbone: who hears.
        device: where.
        left_out: how many tokens at the end of a prompt `embed` leaves out, because it is too long.
    """

    def __init__(
        self,
        embed: Callable[[str], Tensor],
        backbone: PromptedBackbone,
        device: torch.device,
        *,
        left_out: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self.left_out = lru_cache(maxsize=ASKED)(left_out)
        self._embed = embed
        self._backbone = backbone
        self._device = device
        self._heard = Latest[tuple[str, str, float]]()

    @torch.no_grad()
    def __call__(self, told: Told, block: int) -> Tensor:
        """What that block hears, see PromptedBackbone.hear."""
        share = told.share(block)
        wanted = (told.text, told.text if share == 1 else told.before, share)
        return self._heard.get(wanted, lambda: self._backbone.hear(self._words(*wanted).to(self._device)))

    def _words(self, text: str, before: str, share: float) -> Tensor:
        words = self._embed(text)
        if share == 1:
            return words
        old = self._embed(before)
        longest = max(len(words), len(old))
        # Models take the room behind the last word for words of zeros.
        words, old = (pad(each, (0, 0, 0, longest - len(each))) for each in (words, old))
        return torch.lerp(old, words, share)


class Eye:
    """Makes what all blocks of a session hear of the picture that it begins from.

    Args:
        hear: what a backbone hears of a picture uint8 [H, W, 3]; called again for one that was not seen for a while.
    """

    def __init__(self, hear: Callable[[Tensor], Tensor]) -> None:
        self._hear = hear
        self._heard = Latest[bytes]()

    @torch.no_grad()
    def __call__(self, given: Given) -> Tensor:
        """What they hear of the last of the given frames."""
        pixels = np.frombuffer(given.pixels, dtype=np.uint8).reshape(given.shape)[-1]
        return self._heard.get(pixels.tobytes(), lambda: self._hear(torch.from_numpy(pixels.copy())))
