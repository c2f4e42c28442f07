"""One codec encodes and another decodes, if their latents stand for equally many frames."""

from __future__ import annotations

import pytest
import torch

from worldsim.codec.patches import PatchCodec
from worldsim.codec.preview import PreviewCodec
from worldsim.errors import ConfigError
from worldsim.testing.fakes import DifferenceCodec


class Inverted(DifferenceCodec):
    """Shows everything in the opposite colours."""

    horizon = 5

    def decode(self, latents, state):
        frames, state = super().decode(latents, state)
        return 255 - frames, state


class Grouped(Inverted):
    group = 4


PLAIN, SMALL = DifferenceCodec(patches=PatchCodec(side=2)), Inverted(patches=PatchCodec(side=2))


def test_what_one_encodes_the_other_decodes():
    frames = torch.randint(256, (5, 4, 6, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    codec = PreviewCodec(PLAIN, SMALL)
    latents, state = codec.encode(frames, codec.open())
    assert torch.equal(latents, PLAIN.encode(frames, None)[0])
    first, state = codec.decode(latents[:2], state)
    then, _ = codec.decode(latents[2:], state)
    assert torch.equal(torch.cat((first, then)), 255 - frames)
    assert (codec.group, codec.horizon) == (1, 5)


def test_codecs_of_other_groups_do_not_go_together():
    with pytest.raises(ConfigError, match="1 frames of pixels in one codec and 4 in the other"):
        PreviewCodec(PLAIN, Grouped(patches=PatchCodec(side=2)))
