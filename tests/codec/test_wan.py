"""The codec of Wan 2.1, streaming: the numbers of diffusers, whatever the cutting, whoever else uses it."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldsim.codec.wan import LATENT_MEAN, LATENT_STD, CodecState, StateBytes, WanCodec, to_pictures
from worldsim.codec.wan_tiles import Tiling
from worldsim.errors import ConfigError, ShapeError

diffusers = pytest.importorskip("diffusers")
SMALL = Tiling(side=4, overlap=2)


@cache
def network(seed: int = 1, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The smallest network of the layout, with random weights that keep numbers about as large as they come in."""
    with torch.device("meta"):
        model: nn.Module = diffusers.AutoencoderKLWan(base_dim=8)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in model.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        fan_in = tensor[0].numel() if name.endswith("weight") else 100
        weights[name] = (1 + drawn / 10 if name.endswith("gamma") else drawn / fan_in**0.5).to(dtype)
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


def latents_of(frames: int, rows: int = 3, columns: int = 5, *, seed: int) -> Tensor:
    return torch.randn(frames, 16, rows, columns, generator=torch.Generator().manual_seed(seed))


def pictures_of(count: int, height: int = 24, width: int = 16, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def in_pieces(code: Any, given: Tensor, cuts: Sequence[int], state: CodecState) -> tuple[Tensor, CodecState]:
    pieces = []
    for piece in given.split(list(cuts)):
        answer, state = code(piece, state)
        pieces.append(answer)
    return torch.cat(pieces), state


def random_cuts(total: int, *, seed: int) -> list[int]:
    dice, cuts = random.Random(seed), []
    while total:
        cuts.append(dice.randint(1, total))
        total -= cuts[-1]
    return cuts


def assert_same(one: CodecState, other: CodecState) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def raw(latents: Tensor) -> Tensor:
    """Normalised latents as the network has them, [1, C, F, h, w]."""
    mean, std = (torch.tensor(numbers).reshape(-1, 1, 1) for numbers in (LATENT_MEAN, LATENT_STD))
    return (latents * std + mean).movedim(1, 0)[None]


def test_the_numbers_that_normalise_latents_are_the_published_ones() -> None:
    defaults = network().config  # it was built without any of its own
    assert list(LATENT_MEAN) == defaults.latents_mean
    assert list(LATENT_STD) == defaults.latents_std


@pytest.mark.parametrize("seed", [1, 2])
def test_decoding_shows_what_diffusers_shows(seed: int) -> None:
    codec, latents = WanCodec(network(seed)), latents_of(6, seed=seed)
    with torch.no_grad():
        sample = codec.model.decode(raw(latents)).sample[0]
    wanted = to_pictures((sample.movedim(0, -1) + 1) * 127.5).int()
    found, _ = codec.decode(latents, codec.open())
    # The first, pointwise layer is computed there for all frames together, so a level on the border may tip over.
    assert (found.int() - wanted).abs().max() <= 1
    assert found.shape == (21, 24, 40, 3)
    assert found.float().std() > 20, "pictures this flat would prove nothing"


@pytest.mark.parametrize("seed", [1, 2])
def test_encoding_gives_what_diffusers_gives(seed: int) -> None:
    codec, pictures = WanCodec(network(seed)), pictures_of(9, seed=seed)
    video = (pictures.double() / 127.5 - 1).movedim(-1, 0)[None]
    with torch.no_grad():
        plain = codec.model.encode(video.float()).latent_dist.mode()
        truth = nn.Module.to(copy.deepcopy(codec.model), torch.float64).encode(video).latent_dist.mode()
    found, _ = codec.encode(pictures, codec.open())
    assert (found.shape, found.dtype) == ((3, 16, 3, 2), torch.float32)
    limit = 2 * (plain - truth).abs().max()
    assert (raw(found) - truth).abs().max() <= limit < 1e-3


@pytest.mark.parametrize(
    "cuts", [[1, 20], [3] * 7, [20, 1], [1] * 21, random_cuts(21, seed=1), random_cuts(21, seed=2)]
)
def test_decoding_in_pieces_is_decoding_the_whole_bit_for_bit(cuts: list[int]) -> None:
    codec, latents = WanCodec(network()), latents_of(21, 2, 3, seed=3)
    whole, end = codec.decode(latents, codec.open())
    assert len(whole) == 81
    pieces, state = in_pieces(codec.decode, latents, cuts, codec.open())
    assert torch.equal(pieces, whole)
    assert_same(state, end)


@pytest.mark.parametrize("cuts", [[1, 4, 4, 4, 4], [5, 12], [13, 4], [1, 16]])
def test_encoding_in_pieces_is_encoding_the_whole_bit_for_bit(cuts: list[int]) -> None:
    codec, pictures = WanCodec(network()), pictures_of(17, seed=4)
    whole, end = codec.encode(pictures, codec.open())
    assert len(whole) == 5
    pieces, state = in_pieces(codec.encode, pictures, cuts, codec.open())
    assert torch.equal(pieces, whole)
    assert_same(state, end)


def test_levels_are_rounded_and_clipped() -> None:
    assert to_pictures(torch.tensor([-3.0, 0.4, 0.6, 254.6, 300.0])).tolist() == [0, 0, 1, 255, 255]


def test_the_first_frame_is_one_picture_and_later_ones_four() -> None:
    codec = WanCodec(network())
    state, counts = codec.open(), []
    for latent in latents_of(3, 2, 2, seed=5).split(1):
        pictures, state = codec.decode(latent, state)
        counts.append(len(pictures))
    assert counts == [1, 4, 4]


@pytest.mark.parametrize("tiling", [None, SMALL])
def test_two_futures_share_a_past_that_stays_as_it_was(tiling: Tiling | None) -> None:
    codec = WanCodec(network(), tiling=tiling)
    _, past = codec.encode(pictures_of(5, 40, 24, seed=6), codec.open())
    _, past = codec.decode(latents_of(2, 5, 3, seed=6), past)
    kept = {name: carried.clone() for name, carried in past.items()}
    one, other = latents_of(2, 5, 3, seed=7), latents_of(2, 5, 3, seed=8)
    first, _ = codec.decode(one, past)
    elsewhere, _ = codec.decode(other, past)
    codec.encode(pictures_of(4, 40, 24, seed=9), past)
    assert_same(past, kept)
    again, _ = codec.decode(one, past)
    assert torch.equal(again, first)
    assert not torch.equal(elsewhere, first)


def test_the_sides_do_not_disturb_each_other() -> None:
    codec, pictures, latents = WanCodec(network()), pictures_of(5, seed=10), latents_of(2, seed=10)
    _, encoded = codec.encode(pictures, codec.open())
    _, decoded = codec.decode(latents, codec.open())
    _, both = codec.decode(latents, encoded)
    assert_same(both, {**encoded, **decoded})
    alone = {name: carried for name, carried in both.items() if name.startswith("decode.")}
    assert torch.equal(codec.decode(latents, both)[0], codec.decode(latents, alone)[0])


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_state_goes_on_bit_for_bit_from_a_file(frames: int, tmp_path: Path) -> None:
    codec, latents = WanCodec(network()), latents_of(frames + 2, seed=11)
    _, state = codec.decode(latents[:frames], codec.open())
    assert all(carried.is_contiguous() for carried in state.values())
    assert all(carried.untyped_storage().nbytes() == carried.nbytes for carried in state.values())
    save_file(dict(state), tmp_path / "state.safetensors")
    shown, _ = codec.decode(latents[frames:], load_file(tmp_path / "state.safetensors"))
    assert torch.equal(shown, codec.decode(latents[frames:], state)[0])


def test_arguments_stay_as_they_are() -> None:
    codec, latents, pictures = WanCodec(network()), latents_of(2, seed=12), pictures_of(5, seed=12)
    kept = latents.clone(), pictures.clone()
    codec.decode(latents, codec.open())
    codec.encode(pictures, codec.open())
    assert torch.equal(latents, kept[0])
    assert torch.equal(pictures, kept[1])


def test_threads_share_a_codec() -> None:
    codec = WanCodec(network())
    videos = [latents_of(4, seed=seed) for seed in range(4)]
    alone = [codec.decode(video, codec.open())[0] for video in videos]
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(lambda video: in_pieces(codec.decode, video, [1] * 4, codec.open())[0], videos))
    assert all(torch.equal(one, other) for one, other in zip(alone, beside, strict=True))


def test_a_network_is_left_as_it_was() -> None:
    codec = WanCodec(network())
    kept = dict(vars(codec.model))
    codec.decode(latents_of(2, seed=13), codec.open())
    codec.encode(pictures_of(5, seed=13), codec.open())
    assert vars(codec.model) == kept


def test_a_past_is_kept_as_its_last_latents() -> None:
    codec = WanCodec(network())
    latents = latents_of(codec.horizon + 5, 1, 2, seed=14)
    _, state = codec.decode(latents, codec.open())
    assert codec.horizon == 39
    _, rebuilt = codec.decode(latents[-codec.horizon :], codec.open())
    assert_same(rebuilt, state)
    _, short = codec.decode(latents[-codec.horizon // 2 :], codec.open())
    assert not all(torch.equal(short[name], state[name]) for name in state)


@pytest.mark.parametrize(("tiling", "dtype"), [(None, torch.float32), (SMALL, torch.bfloat16)])
def test_what_states_take_is_known_before_there_is_one(tiling: Tiling | None, dtype: torch.dtype) -> None:
    codec = WanCodec(network(dtype=dtype), tiling=tiling)
    _, state = codec.encode(pictures_of(9, 24, 40, seed=15), codec.open())
    _, state = codec.decode(latents_of(3, 3, 5, seed=15), state)
    found = {
        side: sum(tensor.nbytes for name, tensor in state.items() if name.startswith(side))
        for side in ("encode", "decode")
    }
    assert codec.state_bytes(24, 40) == StateBytes(**found)


def test_bfloat16_streams_bit_for_bit_and_shows_about_the_same() -> None:
    codec, exact = WanCodec(network(dtype=torch.bfloat16)), WanCodec(network())
    latents, pictures = latents_of(4, seed=16), pictures_of(5, seed=16)
    whole, state = codec.decode(latents, codec.open())
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert torch.equal(in_pieces(codec.decode, latents, [1, 2, 1], codec.open())[0], whole)
    wanted, _ = exact.decode(latents, exact.open())
    assert (whole.float() - wanted.float()).abs().mean() < wanted.float().std() / 20
    encoded, _ = codec.encode(pictures, codec.open())
    wanted, _ = exact.encode(pictures, exact.open())
    assert encoded.dtype == torch.float32
    assert (encoded - wanted).abs().mean() < wanted.std() / 20


@pytest.mark.parametrize("cuts", [[1, 3], [1, 1, 2]])
def test_tiles_stream_bit_for_bit(cuts: list[int]) -> None:
    codec, latents = WanCodec(network(), tiling=SMALL), latents_of(4, 3, 7, seed=17)
    whole, end = codec.decode(latents, codec.open())
    assert whole.shape == (13, 24, 56, 3)
    pieces, state = in_pieces(codec.decode, latents, cuts, codec.open())
    assert torch.equal(pieces, whole)
    assert_same(state, end)
    pictures = pictures_of(9, 24, 56, seed=17)
    whole, _ = codec.encode(pictures, codec.open())
    assert torch.equal(in_pieces(codec.encode, pictures, [1, 4, 4], codec.open())[0], whole)


def test_what_waits_elsewhere_is_fetched_and_put_back_and_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere is the same device here; what is asked of a tensor is where it is to be."""
    codec, latents = WanCodec(network(), tiling=SMALL), latents_of(4, 3, 7, seed=19)
    wanted, end = in_pieces(codec.decode, latents, [1, 3], codec.open())
    away = WanCodec(network(), tiling=SMALL, home=torch.device("cpu", 0))
    asked: list[torch.device] = []
    plain = Tensor.to

    def to(tensor: Tensor, *where: Any, **given: Any) -> Tensor:
        asked.extend(place for place in where if isinstance(place, torch.device))
        return plain(tensor, *where, **given)

    monkeypatch.setattr(Tensor, "to", to)
    found, state = in_pieces(away.decode, latents, [1, 3], away.open())
    assert torch.equal(found, wanted)
    assert_same(state, end)
    # After every frame each tensor is put back; the first leaves some out.
    assert 3 * len(end) < asked.count(torch.device("cpu", 0)) < 4 * len(end)


def test_one_tile_is_the_whole_frame() -> None:
    codec, plain = WanCodec(network(), tiling=Tiling(side=7, overlap=2)), WanCodec(network())
    latents = latents_of(2, 7, 5, seed=18)
    assert torch.equal(codec.decode(latents, codec.open())[0], plain.decode(latents, plain.open())[0])


def test_tiles_show_the_same_and_closer_to_it_the_more_they_share() -> None:
    plain, latents = WanCodec(network()), latents_of(1, 8, 12, seed=19)
    whole = plain.decode(latents, plain.open())[0].float()
    other = plain.decode(latents_of(1, 8, 12, seed=20), plain.open())[0].float()
    apart = []
    for side, overlap in ((6, 2), (10, 6)):
        codec = WanCodec(network(), tiling=Tiling(side=side, overlap=overlap))
        apart.append((codec.decode(latents, codec.open())[0].float() - whole).abs().mean())
    assert apart[1] < apart[0] < (other - whole).abs().mean() / 3


@pytest.mark.parametrize(
    ("pictures", "says"),
    [
        (torch.zeros(1, 24, 16, 3), "uint8"),
        (torch.zeros(24, 16, 3, dtype=torch.uint8), r"\[24, 16, 3\]"),
        (torch.zeros(1, 24, 16, 4, dtype=torch.uint8), r"\[1, 24, 16, 4\]"),
        (torch.zeros(1, 20, 16, 3, dtype=torch.uint8), "20x16 do not divide into latent pixels of 8"),
        (torch.zeros(1, 24, 0, 3, dtype=torch.uint8), "24x0"),
        (torch.zeros(0, 24, 16, 3, dtype=torch.uint8), "got 0 pictures, where a video begins with 1.*give 1,"),
        (torch.zeros(4, 24, 16, 3, dtype=torch.uint8), "got 4 pictures, where a video begins with 1.*give 1 or 5"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(pictures: Tensor, says: str) -> None:
    codec = WanCodec(network())
    with pytest.raises(ShapeError, match=says):
        codec.encode(pictures, codec.open())


def test_levels_are_encoded_as_the_pictures_that_have_them_and_so_are_those_between() -> None:
    codec, pictures = WanCodec(network()), pictures_of(5, seed=22)
    levels = pictures.float() / 127.5 - 1
    latents, state = codec.encode(pictures, codec.open())
    found, after = codec.encode_levels(levels, codec.open())
    assert torch.equal(found, latents)
    assert_same(after, state)
    grey = torch.zeros(1, 24, 16, 3)
    darker, lighter = (codec.encode(torch.full(grey.shape, at, dtype=torch.uint8), {})[0] for at in (127, 128))
    between, _ = codec.encode_levels(grey.bfloat16(), {})
    assert (between - (darker + lighter) / 2).abs().max() < (lighter - darker).abs().max() / 20
    with pytest.raises(ShapeError, match=r"levels as floats \[F, H, W, 3\], got torch.uint8 \[5, 24, 16, 3\]"):
        codec.encode_levels(pictures, codec.open())
    with pytest.raises(ShapeError, match="got 4 pictures, where a video begins with 1"):
        codec.encode_levels(levels[:4], codec.open())


@pytest.mark.parametrize(("count", "says"), [(0, "give 4,"), (1, "give 4,"), (5, "give 4 or 8")])
def test_later_pictures_come_four_by_four(count: int, says: str) -> None:
    codec = WanCodec(network())
    _, state = codec.encode(pictures_of(1, seed=20), codec.open())
    with pytest.raises(ShapeError, match=f"got {count} pictures, where a video goes on with 4.*{says}"):
        codec.encode(pictures_of(count, seed=20), state)


@pytest.mark.parametrize("shape", [(0, 16, 3, 5), (1, 15, 3, 5), (16, 3, 5), (1, 1, 16, 3, 5)])
def test_latents_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    codec = WanCodec(network())
    with pytest.raises(ShapeError, match=r"latents \[F, 16, h, w\]"):
        codec.decode(torch.zeros(shape), codec.open())


def test_a_state_of_another_size_tiling_or_codec_is_refused() -> None:
    codec, tiled = WanCodec(network()), WanCodec(network(), tiling=SMALL)
    latents = latents_of(1, 6, 6, seed=21)
    _, whole = codec.decode(latents, codec.open())
    _, tiles = tiled.decode(latents, tiled.open())
    with pytest.raises(ShapeError, match="carries 1 tiles of 6x6 pixels, and this video is 1 of 6x5"):
        codec.decode(latents[..., :5], whole)
    with pytest.raises(ShapeError, match="carries 1 tiles of 6x6 pixels, and this video is 4 of 4x4"):
        tiled.decode(latents, whole)
    with pytest.raises(ShapeError, match="carries 4 tiles of 4x4 pixels, and this video is 1 of 6x6"):
        codec.decode(latents, tiles)
    with pytest.raises(ShapeError, match=r"'memory\.3' is in no state of this codec"):
        codec.decode(latents, {"memory.3": torch.zeros(1)})


def test_networks_of_another_layout_are_refused() -> None:
    with torch.device("meta"):
        residual = diffusers.AutoencoderKLWan(base_dim=8, is_residual=True, temperal_downsample=[False, True, True])
        other = diffusers.AutoencoderKLWan(base_dim=8, z_dim=8)
    with pytest.raises(ConfigError, match=r"Wan 2\.2"):
        WanCodec(residual)
    with pytest.raises(ConfigError, match="8 channels need as many means and deviations, got 16 and 16"):
        WanCodec(other)


def test_sizes_that_do_not_divide_have_no_state() -> None:
    with pytest.raises(ShapeError, match="multiples of 8"):
        WanCodec(network()).state_bytes(24, 20)
