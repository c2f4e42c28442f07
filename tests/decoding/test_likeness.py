"""Frames that look alike are told from those that do not, each looked at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from worldsim.cache.policy import Window
from worldsim.decoding import likeness
from worldsim.decoding.held import Kept
from worldsim.decoding.likeness import Likeness, Looks, look, unlike
from worldsim.errors import ConfigError


def frames(count: int, seed: int) -> dict[int, Tensor]:
    latents = torch.randn(count, 5, 7, 9, generator=torch.Generator().manual_seed(seed))
    return dict(enumerate(latents + 2 * torch.randn(count, 5, 1, 1, generator=torch.Generator().manual_seed(seed))))


@pytest.mark.parametrize("seed", [1, 2])
def test_likeness_is_the_cosine_of_the_means_of_parts(seed: int) -> None:
    held = frames(6, seed)
    # Seven rows make three parts of three that overlap, nine columns three that do not.
    parts = [(slice(a, b), slice(c, d)) for a, b in ((0, 3), (2, 5), (4, 7)) for c, d in ((0, 3), (3, 6), (6, 9))]
    flat = np.stack([[it[:, r, c].numpy().mean((1, 2)) for r, c in parts] for it in held.values()])
    flat = flat.reshape(len(held), -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    told = Looks({}).of(held).like_newest()
    np.testing.assert_allclose([told[frame] for frame in held], flat @ flat[-1], rtol=1e-5, atol=1e-6)
    assert told[5] == pytest.approx(1)


def test_a_frame_is_like_itself_seen_again_and_brighter() -> None:
    held = frames(4, seed=3)
    held[4] = 2 * held[1]
    told = Looks({}).of(held).like_newest()
    assert max(held.keys() - {4}, key=lambda frame: told[frame]) == 1


def test_each_frame_is_looked_at_once_and_forgotten_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def counted(latents: Tensor) -> Tensor:
        looked.append(latents)
        return look(latents)

    monkeypatch.setattr(likeness, "look", counted)
    held = frames(5, seed=4)
    looks = Looks({}).of({frame: held[frame] for frame in (0, 1, 2)})
    later = looks.of({frame: held[frame] for frame in (1, 2, 3)})
    assert len(looked) == 4
    assert later.like_newest().keys() == {1, 2, 3}
    assert looks.like_newest().keys() == {0, 1, 2}


def test_of_no_frames_nothing_is_told() -> None:
    assert Looks({}).like_newest() == {}


@pytest.mark.parametrize("seed", [5, 6])
def test_what_was_told_is_unlike_what_is_told_now_by_the_angle_between_them(seed: int) -> None:
    now, other = torch.nn.functional.normalize(torch.randn(2, 9, generator=torch.Generator().manual_seed(seed)), dim=1)
    found = unlike([now, -now, other], now)
    assert found == pytest.approx([0, 2, 1 - float(now.double() @ other.double())], abs=1e-6)


@pytest.mark.parametrize("seed", [7, 8])
def test_what_a_policy_asks_is_the_likeness_to_the_newest_less_what_was_told_otherwise(seed: int) -> None:
    held = frames(4, seed)
    gists = torch.nn.functional.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)), dim=1)
    kept = {
        at: Kept(it[None, None], torch.zeros(1, 1, 2), gist) for (at, it), gist in zip(held.items(), gists, strict=True)
    }
    plain = Looks({}).of(held).like_newest()
    for now in (None, gists[2]):
        alike = Likeness(Looks({}), kept, now, Window())
        assert alike.looks.like_newest() == {}, "nothing is looked at before anything is asked"
        for at in held:
            less = 0 if now is None else 1 - float(gists[at] @ now)
            assert alike(at) == pytest.approx(plain[at] - less, abs=1e-6)
        assert alike.looks.like_newest() == plain
    with pytest.raises(ConfigError, match=r"asks how like frame 9 is, which is not held; let its `see` ask about"):
        alike(9)
