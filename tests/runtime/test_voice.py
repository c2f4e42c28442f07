"""What a block hears of prompts and of a picture, and that it is kept."""

from __future__ import annotations

import torch

from worldsim.runtime.voice import KEPT, Eye, Voice
from worldsim.session.log import Given
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


def test_how_much_of_a_prompt_is_left_out_is_counted_once():
    counted: list[str] = []

    def left_out(text: str) -> int:
        counted.append(text)
        return len(text) - 1

    heard = Voice(embed_words, BACKBONE, torch.device("cpu"), left_out=left_out)
    assert [heard.left_out(text) for text in ("a lake", "a", "a lake")] == [5, 0, 5]
    assert counted == ["a lake", "a"]
    assert voice()[0].left_out("a lake") == 0


def given(*levels: int) -> Given:
    """Frames of 2 x 3 pixels, each of one level."""
    pixels = b"".join(bytes([level]) * 18 for level in levels)
    return Given(pixels=pixels, shape=(len(levels), 2, 3, 3), keys=(frozenset(),) * len(levels))


def test_a_picture_is_heard_as_it_is_seen_and_the_latest_are_seen_once():
    asked = []

    def hear(picture: torch.Tensor) -> torch.Tensor:
        assert (picture.shape, picture.dtype) == ((2, 3, 3), torch.uint8)
        asked.append(int(picture[0, 0, 0]))
        return picture.float().mean().reshape(1)

    sees = Eye(hear)
    assert sees(given(7)) is sees(given(3, 7))
    assert [float(sees(given(level))) for level in (7, 9, 7)] == [7, 9, 7]
    assert asked == [7, 9]
    for level in range(KEPT):
        sees(given(level))
    sees(given(7))
    assert asked == [7, 9, *range(KEPT), 7]
