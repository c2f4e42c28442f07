"""What a video keeps of its frames comes back side by side and in order."""

from __future__ import annotations

import pytest
import torch

from worldsim.decoding.held import Kept, gists_of, joined


@pytest.mark.parametrize("count", [1, 4])
def test_frames_lie_side_by_side_in_the_order_in_which_they_are_named(count: int) -> None:
    latents, controls = torch.randn(1, count, 3, 2, 2), torch.randn(1, count, 5)
    kept = [Kept(latents[:, at : at + 1], controls[:, at : at + 1]) for at in range(count)]
    found = joined(kept[::-1])
    assert torch.equal(found[0], latents.flip(1))
    assert torch.equal(found[1], controls.flip(1))


def test_gists_are_those_of_frames_that_were_told_something() -> None:
    frame, gist = torch.zeros(1, 1, 1, 1, 1), torch.ones(3)
    assert gists_of({4: Kept(frame, frame), 5: Kept(frame, frame)}) == []
    assert gists_of({4: Kept(frame, frame, gist), 5: Kept(frame, frame, 2 * gist)})[1] is not None
    assert [gist.sum() for gist in gists_of({4: Kept(frame, frame, gist), 5: Kept(frame, frame, 2 * gist)})] == [3, 6]
