"""A state of latents: as good as the large one, made again where it is gone back to, and small."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from worldsim.codec.tail import TailCodec
from worldsim.errors import ConfigError
from worldsim.noise import block_noise
from worldsim.testing.conformance import check_codec


@dataclass
class Smear:
    """A codec that shows of every latent frame two frames, of the sum of the last three; the first shows one."""

    horizon: int = 3
    group: int = 2
    decoded: list[int] = field(default_factory=list)

    def open(self) -> dict[str, Tensor]:
        return {}

    def encode(self, frames: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        kept = frames if state else frames[:1]
        later = frames[len(kept) % 2 :] if state else frames[1:]
        latents = torch.cat((frames[:0] if state else kept, later[::2])).movedim(-1, 1).float()
        return latents, {"began": torch.ones(1)}

    def decode(self, latents: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        self.decoded.append(len(latents))
        past = state.get("past", latents[:0])
        shown = []
        for at in range(len(latents)):
            seen = torch.cat((past, latents[: at + 1]))[-self.horizon :]
            frame = seen.sum(0).movedim(0, -1).remainder(256).to(torch.uint8)
            shown += [frame] if not len(past) and not at else [frame, 255 - frame]
        # The largest state there could be: all latents.
        return torch.stack(shown), {"past": torch.cat((past, latents))}


def latents(count: int, *, seed: int = 0) -> Tensor:
    return block_noise(seed, 0, 0, (count, 3, 4, 5)).mul(40).round()


def test_what_is_decoded_behind_its_state_is_what_the_other_codec_decodes():
    codec, given = TailCodec(Smear()), latents(9)
    whole, _ = Smear().decode(given, {})
    state, shown = codec.open(), []
    for piece in given.split([1, 2, 1, 5]):
        frames, state = codec.decode(piece, state)
        shown.append(frames)
        assert len(state) <= 3
    assert torch.equal(torch.cat(shown), whole)


def test_a_state_that_is_gone_back_to_is_made_again_from_its_latents():
    codec, given = TailCodec(Smear()), latents(8)
    _, state = codec.decode(given[:5], codec.open())
    ahead, after = codec.decode(given[5:7], state)
    codec.decode(given[7:], after)
    again, _ = codec.decode(given[5:7], state)
    assert torch.equal(again, ahead)
    fresh, _ = TailCodec(Smear()).decode(given[5:7], state.clone())
    assert torch.equal(fresh, ahead)


def test_who_goes_on_decodes_nothing_twice():
    inner = Smear()
    codec, given = TailCodec(inner, lively=2), latents(12)
    states = [codec.decode(given[:2], codec.open())[1] for _ in range(2)]
    for at in range(2, 6):
        states = [codec.decode(given[at : at + 1], state)[1] for state in states]
    assert inner.decoded == [2, 2, *[1] * 8]
    states.append(codec.decode(given[:1], codec.open())[1])
    inner.decoded.clear()
    for at in range(6, 8):
        states = [codec.decode(given[at : at + 1], state)[1] for state in states]
    assert len(inner.decoded) > 6


def test_the_first_frames_of_a_video_can_be_encoded_and_no_later_ones():
    codec, frames = TailCodec(Smear()), torch.full((5, 4, 5, 3), 7, dtype=torch.uint8)
    found, state = codec.encode(frames, codec.open())
    assert found.shape == (3, 3, 4, 5)
    assert torch.equal(state, found)
    with pytest.raises(ConfigError, match="from their first frame on"):
        codec.encode(frames[:2], state)


def test_no_session_is_no_number_of_sessions():
    with pytest.raises(ConfigError, match="lively=0"):
        TailCodec(Smear(), lively=0)


def test_the_decoding_half_of_the_contract_is_kept():
    class Whole(TailCodec):
        """Encodes pieces as the contract asks for, which a world never does."""

        def encode(self, frames, state):
            return self.codec.encode(frames, state or {})

    check_codec(Whole(Smear(horizon=9)), size=(4, 5))
