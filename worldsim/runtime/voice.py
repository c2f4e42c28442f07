"""Prompts as a backbone hears them, the latest kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from worldsim.models.protocol import PromptedBackbone
from worldsim.session.prompt import Told

KEPT = 4
"""What was heard last, so many times: a prompt of a model with 1.3 billion parameters takes 94 MB."""


class Voice:
    """Makes what a block hears of what its session is told.

    A prompt that takes effect over several blocks is heard as a mean of the embeddings of both prompts, word by word.

    Args:
        embed: the embeddings of a prompt's words, [L, E]; called again for a prompt that was not heard of for a while.
        backbone: who hears.
        device: where.
    """

    def __init__(self, embed: Callable[[str], Tensor], backbone: PromptedBackbone, device: torch.device) -> None:
        self._embed = embed
        self._backbone = backbone
        self._device = device
        self._heard: OrderedDict[tuple[str, str, float], Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, told: Told, block: int) -> Tensor:
        """What that block hears, see PromptedBackbone.hear."""
        share = told.share(block)
        wanted = (told.text, told.text if share == 1 else told.before, share)
        if wanted not in self._heard:
            self._heard[wanted] = self._backbone.hear(self._words(*wanted).to(self._device))
            if len(self._heard) > KEPT:
                self._heard.popitem(last=False)
        self._heard.move_to_end(wanted)
        return self._heard[wanted]

    def _words(self, text: str, before: str, share: float) -> Tensor:
        words = self._embed(text)
        if share == 1:
            return words
        old = self._embed(before)
        longest = max(len(words), len(old))
        # Models take the room behind the last word for words of zeros.
        words, old = (pad(each, (0, 0, 0, longest - len(each))) for each in (words, old))
        return torch.lerp(old, words, share)
