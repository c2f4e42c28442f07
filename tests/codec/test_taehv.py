"""The tiny decoder: its published layout, the numbers of a plain whole pass, whatever the cutting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad, relu

from worldsim.codec.taehv import TaehvCodec, TaehvConfig, TaehvState, load_taehv_codec
from worldsim.codec.wan import WanCodec
from worldsim.errors import ConfigError, ShapeError, WeightsError

CPU = torch.device("cpu")
TINY = TaehvConfig(channels=16, widths=(12, 8, 6, 5))
MEMORIES, GROWS, CHANGES = (3, 4, 5, 9, 10, 11, 15, 16, 17), (7, 13, 19), (8, 14, 20)


def published(config: TaehvConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the decoder in taew2_1.pth, for these sizes."""
    a, b, c, d = config.widths
    shapes: dict[str, tuple[int, ...]] = {
        "decoder.1.weight": (a, config.channels, 3, 3),
        "decoder.1.bias": (a,),
        "decoder.22.weight": (3, d, 3, 3),
        "decoder.22.bias": (3,),
    }
    for place, width in zip(MEMORIES, [a] * 3 + [b] * 3 + [c] * 3, strict=True):
        for number, given in ((0, 2 * width), (2, width), (4, width)):
            shapes[f"decoder.{place}.conv.{number}.weight"] = (width, given, 3, 3)
            shapes[f"decoder.{place}.conv.{number}.bias"] = (width,)
    for place, width, times in zip(GROWS, (a, b, c), (1, 2, 2), strict=True):
        shapes[f"decoder.{place}.conv.weight"] = (width * times, width, 1, 1)
    for place, given, made in zip(CHANGES, (a, b, c), (b, c, d), strict=True):
        shapes[f"decoder.{place}.weight"] = (made, given, 3, 3)
    return shapes


def weights(config: TaehvConfig = TINY, *, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in published(config).items()}
    # As large as keeps numbers as they are through a ReLU.
    scaled = {
        name: tensor / ((tensor[0].numel() / 2) ** 0.5 if name.endswith("weight") else 10)
        for name, tensor in drawn.items()
    }
    return scaled | {"decoder.22.bias": scaled["decoder.22.bias"] + 0.5}


def codec_of(tensors: dict[str, Tensor], folder: Path, dtype: torch.dtype = torch.float32) -> TaehvCodec:
    torch.save(tensors, folder / "taew2_1.pth")
    return load_taehv_codec(folder / "taew2_1.pth", device=CPU, dtype=dtype, config=TINY)


def latents_of(frames: int, rows: int = 3, columns: int = 5, *, seed: int) -> Tensor:
    return torch.randn(frames, 16, rows, columns, generator=torch.Generator().manual_seed(seed))


def plainly(tensors: dict[str, Tensor], latents: Tensor) -> Tensor:
    """All pictures in [0, 1], a layer at a time over the whole video, in the order of the published network."""

    def convolve(x: Tensor, name: str) -> Tensor:
        weight = tensors[f"decoder.{name}.weight"]
        return conv2d(x, weight, tensors.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)

    x = relu(convolve(torch.tanh(latents / 3) * 3, "1"))
    for place in range(3, 21):
        if place in MEMORIES:
            before = pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:-1]
            made = relu(convolve(torch.cat([x, before], dim=1), f"{place}.conv.0"))
            x = relu(convolve(relu(convolve(made, f"{place}.conv.2")), f"{place}.conv.4") + x)
        elif place in GROWS:
            x = convolve(x, f"{place}.conv").reshape(-1, x.shape[1], *x.shape[2:])
        elif place in CHANGES:
            x = convolve(x, str(place))
        else:
            x = interpolate(x, scale_factor=2.0, mode="nearest")
    return convolve(relu(x), "22").clamp(0, 1)[3:].movedim(1, -1)


def in_pieces(codec: TaehvCodec, latents: Tensor, cuts: Sequence[int]) -> tuple[Tensor, TaehvState]:
    state, pieces = codec.open(), []
    for piece in latents.split(list(cuts)):
        pictures, state = codec.decode(piece, state)
        pieces.append(pictures)
    return torch.cat(pieces), state


@pytest.mark.parametrize("seed", [1, 2])
def test_it_shows_what_a_plain_pass_over_the_whole_shows(seed: int, tmp_path: Path) -> None:
    tensors, latents = weights(seed=seed), latents_of(5, seed=seed)
    found, _ = codec_of(tensors, tmp_path).decode(latents, {})
    truth = plainly({name: tensor.double() for name, tensor in tensors.items()}, latents.double()) * 255
    plain = plainly(tensors, latents) * 255
    assert found.shape == truth.shape == (17, 24, 40, 3)
    assert truth.std() > 20, "pictures this flat would prove nothing"
    # Rounding to a level, and twice the error of plain float32.
    assert (found - truth).abs().max() <= 0.5 + 2 * (plain - truth).abs().max()


@pytest.mark.parametrize("cuts", [[1, 8], [3, 3, 3], [1] * 9, [4, 5]])
def test_decoding_in_pieces_is_decoding_the_whole_bit_for_bit(cuts: list[int], tmp_path: Path) -> None:
    codec, latents = codec_of(weights(seed=3), tmp_path), latents_of(9, seed=3)
    whole, end = codec.decode(latents, codec.open())
    pieces, state = in_pieces(codec, latents, cuts)
    assert len(whole) == 33
    assert torch.equal(pieces, whole)
    assert all(torch.equal(state[name], end[name]) for name in end)


def test_as_many_pictures_are_shown_as_by_the_codec_itself(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    tiny, latents = codec_of(weights(seed=4), tmp_path), latents_of(4, 2, 2, seed=4)
    large = WanCodec(diffusers.AutoencoderKLWan(base_dim=8).eval())
    assert tiny.group == large.group == 4
    states = tiny.open(), large.open()
    for piece in latents.split([1, 1, 2]):
        shown, state = tiny.decode(piece, states[0])
        wanted, other = large.decode(piece, states[1])
        assert shown.shape == wanted.shape
        states = state, other


def test_two_futures_share_a_past_that_stays_as_it_was(tmp_path: Path) -> None:
    codec = codec_of(weights(seed=5), tmp_path)
    _, past = codec.decode(latents_of(2, seed=5), codec.open())
    kept = {name: memory.clone() for name, memory in past.items()}
    first, _ = codec.decode(latents_of(2, seed=6), past)
    elsewhere, _ = codec.decode(latents_of(2, seed=7), past)
    assert all(torch.equal(past[name], kept[name]) for name in kept)
    assert torch.equal(codec.decode(latents_of(2, seed=6), past)[0], first)
    assert not torch.equal(elsewhere, first)


def test_a_past_is_kept_as_its_last_latents(tmp_path: Path) -> None:
    codec = codec_of(weights(seed=8), tmp_path)
    latents = latents_of(codec.horizon + 4, seed=8)
    _, state = codec.decode(latents, codec.open())
    _, rebuilt = codec.decode(latents[-codec.horizon :], codec.open())
    assert all(torch.equal(rebuilt[name], state[name]) for name in state)
    _, short = codec.decode(latents[-codec.horizon + 3 :], codec.open())
    assert not all(torch.equal(short[name], state[name]) for name in state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_is_plain_and_as_large_as_foretold(dtype: torch.dtype, tmp_path: Path) -> None:
    codec = codec_of(weights(seed=9), tmp_path, dtype)
    _, state = codec.decode(latents_of(2, seed=9), codec.open())
    assert state.keys() == {f"memory.{place}" for place in MEMORIES}
    assert all(memory.is_contiguous() and memory.dtype == dtype for memory in state.values())
    assert codec.state_bytes(24, 40) == sum(memory.untyped_storage().nbytes() for memory in state.values())


def test_bfloat16_streams_bit_for_bit_and_shows_about_the_same(tmp_path: Path) -> None:
    latents = latents_of(4, seed=10)
    codec = codec_of(weights(seed=10), tmp_path, torch.bfloat16)
    whole, _ = codec.decode(latents, codec.open())
    assert torch.equal(in_pieces(codec, latents, [1, 2, 1])[0], whole)
    wanted, _ = codec_of(weights(seed=10), tmp_path).decode(latents, {})
    assert (whole.float() - wanted.float()).abs().mean() < wanted.float().std() / 20


def test_the_network_has_the_published_names_and_shapes(tmp_path: Path) -> None:
    tensors = weights(TaehvConfig(), seed=11)
    torch.save(tensors, tmp_path / "taew2_1.pth")
    network = load_taehv_codec(tmp_path / "taew2_1.pth", device=CPU, dtype=torch.bfloat16).network
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == published(TaehvConfig())
    assert not network.training


def test_the_encoder_in_the_file_is_left_out(tmp_path: Path) -> None:
    tensors = weights(seed=12)
    plain, _ = codec_of(tensors, tmp_path).decode(latents_of(2, seed=12), {})
    whole = codec_of(tensors | {"encoder.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path)
    assert torch.equal(whole.decode(latents_of(2, seed=12), {})[0], plain)


def test_a_stage_that_could_make_more_pictures_makes_the_last_of_them(tmp_path: Path) -> None:
    tensors = weights(seed=13)
    plain, _ = codec_of(tensors, tmp_path).decode(latents_of(2, seed=13), {})
    wide = torch.cat([torch.ones(12, 12, 1, 1), tensors["decoder.7.conv.weight"]])
    shown, _ = codec_of(tensors | {"decoder.7.conv.weight": wide}, tmp_path).decode(latents_of(2, seed=13), {})
    assert torch.equal(shown, plain)


def test_safetensors_are_loaded_too(tmp_path: Path) -> None:
    tensors = weights(seed=14)
    save_file(tensors, tmp_path / "taew2_1.safetensors")
    codec = load_taehv_codec(tmp_path / "taew2_1.safetensors", device=CPU, dtype=torch.float32, config=TINY)
    latents = latents_of(2, seed=14)
    assert torch.equal(codec.decode(latents, {})[0], codec_of(tensors, tmp_path).decode(latents, {})[0])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    tensors = weights(seed=15)
    del tensors["decoder.22.bias"]
    with pytest.raises(WeightsError, match=r"1 missing \(decoder\.22\.bias\).*TAEHV"):
        codec_of(tensors, tmp_path)
    with pytest.raises(WeightsError, match="mis-shaped"):
        load_taehv_codec(tmp_path / "taew2_1.pth", device=CPU, dtype=torch.float32)


def test_encoding_is_refused(tmp_path: Path) -> None:
    codec = codec_of(weights(seed=16), tmp_path)
    with pytest.raises(ConfigError, match="encode with the codec of the model"):
        codec.encode(torch.zeros(1, 24, 40, 3, dtype=torch.uint8), codec.open())


@pytest.mark.parametrize("shape", [(0, 16, 3, 5), (1, 15, 3, 5), (16, 3, 5)])
def test_latents_that_do_not_fit_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    codec = codec_of(weights(seed=17), tmp_path)
    with pytest.raises(ShapeError, match=r"latents \[F, 16, h, w\]"):
        codec.decode(torch.zeros(shape), codec.open())


def test_a_state_of_another_size_or_codec_is_refused(tmp_path: Path) -> None:
    codec, latents = codec_of(weights(seed=18), tmp_path), latents_of(1, 3, 5, seed=18)
    _, state = codec.decode(latents, codec.open())
    with pytest.raises(ShapeError, match="of frames of 3x5 latent pixels, and these are 3x4"):
        codec.decode(latents[..., :4], state)
    with pytest.raises(ShapeError, match=r"'decode\.0\.0' is none of this codec"):
        codec.decode(latents, {"decode.0.0": torch.zeros(1)})


@pytest.mark.parametrize("sizes", [{"channels": 0}, {"widths": (4, 0, 4, 4)}])
def test_a_decoder_without_channels_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least one channel"):
        TaehvConfig(**sizes)


def test_a_file_of_numbers_that_are_none_is_refused(tmp_path: Path) -> None:
    tensors = {name: torch.zeros(shape) for name, shape in published(TaehvConfig()).items()}
    tensors["decoder.22.weight"].view(-1)[1] = torch.inf
    torch.save(tensors, tmp_path / "taew2_1.pth")
    with pytest.raises(WeightsError, match=r"taew2_1\.pth is damaged: decoder\.22\.weight holds numbers that are none"):
        load_taehv_codec(tmp_path / "taew2_1.pth", device=torch.device("cpu"), dtype=torch.float32)
