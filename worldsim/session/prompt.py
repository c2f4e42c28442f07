"""What a session is told in words, and how far that has taken effect."""

from __future__ import annotations

from dataclasses import dataclass

from worldsim.errors import ConfigError, shown
from worldsim.session.events import MOST_OVER, MOST_PROMPT

Coming = tuple[str, int]
"""A prompt that no block has heard yet, and over how many blocks it will be heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A prompt on its way from the one before it.

    text: what is to be shown.
    before: what was to be shown until then.
    since: the first block that hears of it.
    over: blocks until it is heard alone; 1 for at once.
    """

    text: str
    before: str
    since: int
    over: int

    def share(self, block: int) -> float:
        """How much of what that block hears is the text, above 0 and at most 1; the rest is what was before it."""
        return min(1.0, (block - self.since + 1) / self.over)

    @property
    def until(self) -> int:
        """The first block that hears nothing new of it: each before it, from `since` on, hears more than the last."""
        return self.since + self.over


def first_told(text: str) -> Told:
    """What a session is told that begins with this prompt."""
    return Told(text=check_prompt(text), before=text, since=0, over=1)


def check_prompt(text: object) -> str:
    """The prompt; ConfigError if it is none."""
    if not isinstance(text, str):
        raise ConfigError(f"a prompt is a text, got {text!r:.80}")
    if len(text) > MOST_PROMPT:
        raise ConfigError(f"a prompt has at most {MOST_PROMPT:,} characters, got {len(text):,}; say it in fewer words")
    if any("\ud800" <= character <= "\udfff" for character in text):  # JSON can say it, and no tokenizer can read it
        raise ConfigError(f"a prompt is whole characters, got half of one in {text!r:.80}; leave that out")
    return text


def cut_prompt(text: object) -> tuple[str, int]:
    """A prompt of any length as a log and the protocol take it, and how many characters at its end that leaves out.

    ConfigError if it is none.
    """
    if not isinstance(text, str):
        return check_prompt(text), 0
    return check_prompt(text[:MOST_PROMPT]), max(0, len(text) - MOST_PROMPT)


def check_over(blocks: object) -> int:
    """Blocks until a prompt is heard alone; ConfigError if they are none."""
    if not isinstance(blocks, int) or isinstance(blocks, bool) or not 1 <= blocks <= MOST_OVER:
        raise ConfigError(f"a prompt takes effect over 1 block or more, and {MOST_OVER:,} at most, got {shown(blocks)}")
    return blocks
