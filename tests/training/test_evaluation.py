"""What a backbone in training is asked on held-out play, and that the answers mean what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.cache.policy import Window
from worldsim.codec.patches import PatchCodec
from worldsim.controls import Action, Controls, Keys
from worldsim.decoding.plan import VideoPlan
from worldsim.errors import DataError
from worldsim.models.protocol import Attend
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.samplers import few_step
from worldsim.training.data import Episodes, Recording, Series, record
from worldsim.training.evaluation import SEED, Evaluation, LatentWindows, share_right
from worldsim.training.objectives import DiffusionForcing

CODEC = PatchCodec(side=2)
CONFIG = SmallConfig(channels=12, height=2, width=3, controls=1, dim=16, layers=1, heads=2)


class Blinking:
    """A picture of 2 x 3 tiles; in each frame one of them, the next in order, turns from black to white or back."""

    controls = Controls(actions=(Action(name="go", keys=("KeyW",)),), exclusive=True)
    fps = 4
    size = (4, 6)
    over = False
    hour = None
    event = ""

    def reset(self, seed: int) -> NDArray[np.uint8]:
        self._at = seed % 6
        self._tiles = np.zeros((2, 3), dtype=np.uint8)
        return self._show()

    def close(self) -> None: ...

    def step(self, keys: Keys) -> NDArray[np.uint8]:
        self._at = (self._at + 1) % 6
        self._tiles.flat[self._at] ^= 255
        return self._show()

    def _show(self) -> NDArray[np.uint8]:
        return np.repeat(self._tiles.repeat(2, 0).repeat(2, 1)[..., None], 3, axis=2)


class Player:
    """Presses by chance, from its seed."""

    def __init__(self, simulator: Blinking, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def choose(self) -> Keys:
        return frozenset(["KeyW"]) if self._rng.random() < 0.5 else frozenset()


class Stays(SmallBackbone):
    """Answers with the frame before, and keeps what it was called with: noisy frames, levels and controls."""

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        self.calls.append((noisy, sigma, controls))
        super().forward(noisy, previous, sigma, controls, attend)  # writes the keys and values of the past
        return previous


@pytest.fixture
def episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Episodes:
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 60)
    recording = Recording(world="blinking", simulator=Blinking, explorer=Player, longest=30)
    record(recording, tmp_path, Series(held_out=True), frames=60)
    return Episodes(tmp_path, world="blinking", held_out=True, device=torch.device("cpu"))


def evaluation(episodes: Episodes, *, frames_per_block: int = 1) -> Evaluation:
    plan = VideoPlan(frames_per_block=frames_per_block, sigmas=(1.0, 0.5), sampler=few_step, policy=Window(frames=4))
    objective = DiffusionForcing(frames=4, first=2, blocks=(1, 2))
    return Evaluation(episodes=episodes, codec=CODEC, objective=objective, plan=plan, windows=5)


def test_windows_are_those_of_the_episodes_behind_the_codec(episodes: Episodes) -> None:
    play = LatentWindows(episodes, CODEC).sample(np.random.default_rng(1), windows=3, frames=4)
    at = episodes.draw(np.random.default_rng(1), windows=3, frames=4)
    assert torch.equal(play.latents, CODEC.encode(episodes.frames[at], None)[0])
    assert torch.equal(play.controls, episodes.controls[at])
    assert play.recalled is None


@pytest.mark.parametrize("seldom", [0.0, 0.3, 1.0])
def test_that_share_of_the_windows_is_drawn_for_what_seldom_happens(episodes, seldom, monkeypatch):
    drawn = []
    draw = episodes.draw

    def noted(rng, *, windows, frames, seldom, under):
        drawn.append((windows, seldom))
        return draw(rng, windows=windows, frames=frames, seldom=seldom, under=under)

    monkeypatch.setattr(episodes, "draw", noted)
    play = LatentWindows(episodes, CODEC, seldom).sample(np.random.default_rng(2), windows=800, frames=3)
    assert play.latents.shape[:2] == play.controls.shape[:2] == (800, 3)
    assert sum(windows for windows, _ in drawn) == 800
    assert sum(windows for windows, rare in drawn if rare) == pytest.approx(800 * seldom, abs=50)


class Remembered:
    """Stands for what is recalled: nothing, of two places."""

    def of(self, frames: Tensor) -> Tensor:
        return torch.full((len(frames), 4, frames.shape[1], 1, 2), -1)


def test_with_what_is_recalled_it_is_told_which_windows_were_chosen(episodes: Episodes) -> None:
    windows = LatentWindows(episodes, CODEC, 0.5, recollections=Remembered())  # type: ignore[arg-type]
    play = windows.sample(np.random.default_rng(2), windows=40, frames=3)
    some = int(np.random.default_rng(2).binomial(40, 0.5))
    assert play.recalled is not None
    assert play.chosen is not None
    assert play.chosen.tolist() == [False] * (40 - some) + [True] * some
    acting = windows.sample(np.random.default_rng(3), windows=5, frames=3, under=(0,))
    assert acting.chosen is not None
    assert acting.chosen.all()
    forgetful = LatentWindows(episodes, CODEC, 0.5).sample(np.random.default_rng(2), windows=4, frames=3)
    assert forgetful.chosen is None


def test_windows_that_end_where_something_is_done_show_each_event_as_often_as_every_other(
    episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    draw = episodes.draw

    def noted(rng: np.random.Generator, **how: Any) -> torch.Tensor:
        asked.append(how)
        return draw(rng, **how)

    monkeypatch.setattr(episodes, "draw", noted)
    windows = LatentWindows(episodes, CODEC, 0.5)
    play = windows.sample(np.random.default_rng(3), windows=80, frames=3, under=(0,))
    assert play.latents.shape[:2] == (80, 3)
    assert (play.controls[:, -1, 0] > 0).all()
    assert asked == [{"windows": 80, "frames": 3, "seldom": 1.0, "under": (0,)}]


def test_no_window_ends_where_nothing_is_ever_done(episodes: Episodes) -> None:
    episodes.controls = torch.zeros_like(episodes.controls)
    with pytest.raises(DataError, match="no held-out window of 3 frames ends with such a key"):
        episodes.check(3, under=(0,))
    episodes.check(3)


def test_who_repeats_the_last_frame_scores_as_if_it_had_stayed(episodes: Episodes) -> None:
    """Five of six tiles stay from one frame to the next, and of two frames ahead five and four."""
    found = evaluation(episodes).judge(Stays(CONFIG))
    assert found["tiles"] == found["still"] == pytest.approx(5 / 6)
    assert evaluation(episodes, frames_per_block=2).judge(Stays(CONFIG))["still"] == pytest.approx(4.5 / 6)


def test_the_block_ahead_follows_eight_real_frames_each_under_its_own_controls(episodes: Episodes) -> None:
    first, second = Stays(CONFIG), Stays(CONFIG)
    for backbone in (first, second):
        evaluation(episodes).judge(backbone)
    drawn = [episodes.draw(np.random.default_rng([SEED, n]), windows=1, frames=9) for n in range(5)]
    asked = [(episodes.frames[numbers], episodes.controls[numbers]) for numbers in drawn]
    at, (pixels, controls) = next((n, each) for n, each in enumerate(asked) if each[1][0, 7, 0] != each[1][0, 8, 0])
    calls = first.calls[5 + 10 * at : 15 + 10 * at]  # after the five windows of the loss
    latents, _ = CODEC.encode(pixels, None)
    for time, (noisy, sigma, steering) in enumerate(calls[:8]):
        assert torch.equal(noisy, latents[:, time : time + 1])
        assert not sigma.any()
        assert torch.equal(steering, controls[:, time : time + 1])
    assert [float(sigma) for _, sigma, _ in calls[8:]] == [1.0, 0.5]
    assert all(torch.equal(steering, controls[:, 8:]) for _, _, steering in calls[8:])
    for (noisy, *_), (again, *_) in zip(first.calls, second.calls, strict=True):
        assert torch.equal(noisy, again)


def test_equal_weights_get_equal_answers_and_others_others(episodes: Episodes) -> None:
    backbone = SmallBackbone(CONFIG, torch.Generator().manual_seed(1))
    first = evaluation(episodes).judge(backbone)
    assert evaluation(episodes).judge(backbone) == first
    assert first["tiles"] == 0  # middle grey is neither black nor white
    torch.nn.init.constant_(backbone.head.bias, -1.0)
    assert evaluation(episodes).judge(backbone)["loss"] != first["loss"]
    assert evaluation(episodes).judge(backbone)["tiles"] > 0.2


@pytest.mark.parametrize(("error", "right"), [(4, 1.0), (5, 5 / 6), (6, 5 / 6)])
def test_a_tile_is_right_below_a_mean_absolute_error_of_five(error: int, right: float) -> None:
    truth = torch.full((1, 4, 6, 3), 100, dtype=torch.uint8)
    made = truth.clone()
    made[0, :2, 2] += error
    made[0, :2, 3] -= error
    assert share_right(made, truth, (2, 3)) == pytest.approx(right)
