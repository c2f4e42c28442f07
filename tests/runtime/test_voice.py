"""What a block hears of its prompts, and that it is kept."""

from __future__ import annotations

import torch

from worldsim.runtime.voice import KEPT, Voice
from worldsim.session.prompt import Told, first_told
from worldsim.testing.fakes import ToldBackbone, embed_words, tiny_backbone

BACKBONE = ToldBackbone(inner=tiny_backbone(0))


def voice() -> tuple[Voice, list[str]]:
    asked: list[str] = []

    def embed(text: str) -> torch.Tensor:
        asked.append(text)
        return embed_words(text)

    return Voice(embed, BACKBONE, torch.device("cpu")), asked


def test_a_prompt_is_heard_as_its_words_are():
    heard, _ = voice()
    assert torch.equal(heard(first_told("a lake by night"), 5), BACKBONE.hear(embed_words("a lake by night")))


def test_on_its_way_a_prompt_is_heard_as_the_mean_of_both_word_by_word():
    heard, _ = voice()
    told = Told(text="a lake", before="one wood by night", since=2, over=4)
    old, new = embed_words("one wood by night"), torch.cat((embed_words("a lake"), torch.zeros(2, 2)))
    assert torch.allclose(heard(told, 2), BACKBONE.hear(0.75 * old + 0.25 * new))
    assert torch.allclose(heard(told, 4), BACKBONE.hear(0.25 * old + 0.75 * new))
    assert torch.equal(heard(told, 5), BACKBONE.hear(embed_words("a lake")))


def test_the_latest_prompts_are_embedded_once():
    heard, asked = voice()
    for text in ("a", "b", "a", "c", "a"):
        assert heard(first_told(text), 0) is heard(first_told(text), 3)
    assert asked == ["a", "b", "c"]
    for number in range(KEPT):
        heard(first_told(str(number)), 0)
    heard(first_told("a"), 0)
    assert asked[-1] == "a"
