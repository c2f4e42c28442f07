"""Codes for pages against plain loops of numpy, number by number, and their bytes against counts by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray
from torch import Tensor

from worldsim.cache.pool import PageShape, Storage
from worldsim.cache.quant import CODES, Code, Gear, Kivi, PerToken, low_rank, pack, parse_storage, storage_text, unpack
from worldsim.errors import ConfigError, UnknownName

SHAPE = PageShape(layers=2, tokens=15, heads=3, head_dim=10)
CHANNELS = SHAPE.heads * SHAPE.head_dim
EVERY = pytest.mark.parametrize("name", CODES)
Floats = NDArray[np.float32]


def page(seed: int) -> tuple[Tensor, Tensor]:
    """Keys with a channel that is large in every token, and values with a token that is."""
    size = (2, SHAPE.layers, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim)
    keys, values = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    keys[:, :, 1, 3] = 20 + keys[:, :, 1, 3]
    values[:, 4] *= 30
    return keys, values


def rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def to_bfloat16(x: Floats) -> Floats:
    """Rounded to the nearest with eight bits, of two as near to the even one."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


E4M3 = np.array([m / 8 * 2.0**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)][:-1])


def to_e4m3(x: float) -> float:
    """The nearest number of the format, of two as near the one with an even fraction."""
    distance = np.abs(E4M3 - abs(x))
    nearest = np.flatnonzero(distance == distance.min())
    return float(np.copysign(E4M3[nearest[nearest % 2 == 0][0] if len(nearest) > 1 else nearest[0]], x))


def plain_per_token(x: Tensor, form: str) -> Floats:
    """Keys or values, token by token, number by number."""
    greatest = np.float32(127 if form == "int8" else 448)
    answer = np.empty(x.shape, np.float32)
    for layer, token in np.ndindex(SHAPE.layers, SHAPE.tokens):
        numbers = x[layer, token].numpy()
        scale = to_bfloat16(np.abs(numbers).max(keepdims=True).reshape(1) / greatest)[0]
        for at, number in np.ndenumerate(numbers):
            scaled = np.clip(number / (scale or np.float32(1)), -greatest, greatest)
            answer[layer, token][at] = (np.rint(scaled) if form == "int8" else np.float32(to_e4m3(scaled))) * scale
    return answer


def plain_groups(vector: Floats, bits: int, most: int) -> Floats:
    """One channel or token, group by group."""
    count = -(-len(vector) // most)
    size = -(-len(vector) // count)
    answer = []
    for start in range(0, len(vector), size):
        group = vector[start : start + size]
        zero = np.float32(np.float16(group.min()))
        step = np.float32(np.float16((group.max() - zero) / np.float32(2**bits - 1)))
        divisor = step if step > 0 else np.float32(1)
        codes = np.clip(np.rint((group - zero) / divisor), 0, 2**bits - 1)
        answer.append(codes * step + zero)
    return np.concatenate(answer)


def plain_kivi(keys: Floats, values: Floats, bits: int, group: int) -> tuple[Floats, Floats]:
    """Keys and values [layers, tokens, channels], the ones channel by channel, the others token by token."""
    keys, values = keys.copy(), values.copy()
    for layer in range(SHAPE.layers):
        for channel in range(CHANNELS):
            keys[layer, :, channel] = plain_groups(keys[layer, :, channel], bits, group)
        for token in range(SHAPE.tokens):
            values[layer, token] = plain_groups(values[layer, token], bits, group)
    return keys, values


def flat(x: Tensor) -> Floats:
    return x.flatten(2).numpy()


@pytest.mark.parametrize("form", ["int8", "fp8"])
@pytest.mark.parametrize("size", [1.0, 3e4, 1e-20])
def test_eight_bits_decode_to_what_plain_loops_give(form, size):
    keys, values = (size * x for x in page(1))
    keys[1, 3] = 0
    code = PerToken(form=form)
    decoded = code.decode(code.encode(keys, values), SHAPE)
    for ours, x in zip(decoded, (keys, values), strict=True):
        assert np.array_equal(ours.numpy(), plain_per_token(x, form))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("group", [1, 7, 8, 15, 32])
def test_kivi_decodes_to_what_plain_loops_give(bits, group):
    keys, values = page(2)
    code = Kivi(bits=bits, group=group)
    decoded = code.decode(code.encode(keys, values), SHAPE)
    for ours, plain in zip(decoded, plain_kivi(flat(keys), flat(values), bits, group), strict=True):
        assert np.array_equal(flat(ours), plain)


@pytest.mark.parametrize(("bits", "rank", "outliers"), [(4, 2, 1), (2, 3, 2)])
def test_gear_is_kivi_with_outliers_apart_and_the_best_of_its_rank_of_what_is_left(bits, rank, outliers):
    code = Gear(bits=bits, group=8, rank=rank, outliers=outliers)
    pages = page(3)
    decoded = code.decode(code.encode(*pages), SHAPE)
    whole = [flat(x).copy() for x in pages]
    filled = [x.copy() for x in whole]
    apart = [np.zeros(x.shape, bool) for x in whole]
    for side, (layers, along) in enumerate([(SHAPE.layers, CHANNELS), (SHAPE.layers, SHAPE.tokens)]):
        for layer, at in np.ndindex(layers, along):
            vector = (layer, slice(None), at) if side == 0 else (layer, at)
            order = np.argsort(whole[side][vector])
            ends = np.concatenate((order[:outliers], order[-outliers:]))
            apart[side][vector][ends] = True
            filled[side][vector][ends] = whole[side][vector].mean()
    for ours, truth, rough, kept in zip(decoded, whole, plain_kivi(*filled, bits, 8), apart, strict=True):
        rough[kept] = truth[kept].astype(np.float16)
        error = (truth - rough).reshape(SHAPE.layers, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim).swapaxes(1, 2)
        beyond = np.sqrt((np.linalg.svd(error, compute_uv=False)[..., rank:] ** 2).sum())
        left = np.sqrt(((flat(ours) - truth).astype(np.float64) ** 2).sum())
        assert beyond * 0.999 <= left <= 1.1 * beyond


def test_a_channel_of_keys_that_is_large_in_every_token_spoils_no_other():
    keys, _ = page(4)
    code = Kivi(bits=4, group=30)
    as_keys, as_values = code.decode(code.encode(keys, keys), SHAPE)
    others = torch.ones(SHAPE.heads, SHAPE.head_dim, dtype=torch.bool)
    others[1, 3] = False
    assert rms((as_keys - keys)[..., others]) < 0.3 * rms((as_values - keys)[..., others])


def test_every_repair_and_every_bit_more_brings_a_page_nearer():
    keys, values = page(5)
    errors = {}
    for name, code in CODES.items():
        decoded = code.decode(code.encode(keys, values), SHAPE)
        errors[name] = sum(rms(one - other) for one, other in zip(decoded, (keys, values), strict=True))
    for better, worse in (("gear4", "kivi4"), ("gear2", "kivi2"), ("gear4", "gear2"), ("kivi4", "kivi2")):
        assert errors[better] < 0.7 * errors[worse]


def test_the_bytes_of_a_page_are_all_that_decoding_needs():
    numbers, tokens = 2 * 2 * 15 * 30, 2 * 2 * 15
    ends = 2 * 2 * (2 * 30 * 2 + 2 * 15 * 3)  # zero and step, float16; two groups of 8 tokens, three of 10 channels
    codes = 2 * (16 + 15) * 30  # of keys one token more, which fills the second group
    apart = 4 * 2 * (2 * 30 + 2 * 15)  # float16 and int16; largest and smallest, of a channel and of a token
    factors = 2 * 2 * 2 * 3 * 2 * (15 + 10)
    assert PerToken(form="int8").bytes(SHAPE) == PerToken(form="fp8").bytes(SHAPE) == numbers + 2 * tokens
    assert Kivi(bits=4, group=10).bytes(SHAPE) == ends + codes // 2
    assert Kivi(bits=2, group=10).bytes(SHAPE) == ends + codes // 4 + 1, "and one that makes it even"
    assert Gear(bits=4, group=10).bytes(SHAPE) == ends + codes // 2 + apart + factors
    odd = PageShape(layers=1, tokens=3, heads=1, head_dim=3)
    assert Kivi(bits=2).bytes(odd) == 2 * 2 * (3 + 3) + 2 * 3 + 0


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_coded_page_has_its_bytes_and_comes_from_numbers_alone(name, dtype):
    code = CODES[name]
    keys, values = (x.to(dtype) for x in page(6))
    data = code.encode(keys, values)
    assert (data.dtype, data.shape) == (torch.uint8, (code.bytes(SHAPE),))
    strided = torch.stack((keys, values), dim=-1)
    assert torch.equal(code.encode(strided[..., 0], strided[..., 1]), data)
    row = torch.zeros(3, len(data), dtype=torch.uint8)
    row[1] = data
    for decoded, x in zip(code.decode(row[1], SHAPE), (keys, values), strict=True):
        assert (decoded.dtype, decoded.shape) == (torch.float32, x.shape)
        assert rms(decoded - x.float()) < 0.5 * rms(x.float())


@pytest.mark.parametrize("name", ["int8", "fp8", "kivi4", "kivi2"])
def test_what_was_decoded_once_is_encoded_to_the_same_again(name):
    code = CODES[name]
    for seed in range(20):
        once = code.decode(code.encode(*page(seed)), SHAPE)
        again = code.decode(code.encode(*once), SHAPE)
        assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


@EVERY
def test_numbers_beyond_float16_and_numbers_all_alike_stay_numbers(name):
    keys, values = page(7)
    code = CODES[name]
    keys[0, 2] = 1e6
    values[:] = 1.5
    decoded_keys, decoded_values = code.decode(code.encode(keys, values), SHAPE)
    assert decoded_keys.isfinite().all()
    assert rms(decoded_values - 1.5) < 0.005


@given(bits=st.sampled_from([2, 4]), codes=st.lists(st.integers(0, 3), min_size=1, max_size=40), top=st.integers(0, 12))
@settings(max_examples=200, derandomize=True, database=None, deadline=None)
def test_packed_codes_are_as_small_as_can_be_and_come_back(bits, codes, top):
    given_codes = torch.tensor([code + (top if bits == 4 else 0) for code in codes], dtype=torch.uint8)
    packed = pack(given_codes, bits)
    assert len(packed) == -(-len(codes) * bits // 8)
    assert torch.equal(unpack(packed, bits, len(codes)), given_codes)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_matrix_of_low_rank_is_found_and_of_any_other_nearly_the_best(rank):
    generator = torch.Generator().manual_seed(8)
    exact = torch.randn(4, 9, rank, generator=generator) @ torch.randn(4, rank, 7, generator=generator)
    left, right = low_rank(exact, rank, sweeps=3)
    assert (left.shape, right.shape) == ((4, 9, rank), (4, 7, rank))
    assert rms(left @ right.mT - exact) < 1e-5 * rms(exact)
    noisy = exact + 0.3 * torch.randn(4, 9, 7, generator=generator)
    left, right = low_rank(noisy, rank, sweeps=3)
    best = torch.linalg.svdvals(noisy.double())[..., rank:].square().sum().sqrt().item()
    assert (left @ right.mT - noisy).double().square().sum().sqrt().item() < 1.02 * best
    assert not (left @ low_rank(torch.zeros(4, 9, 7), rank, sweeps=3)[1].mT).any()


@pytest.mark.parametrize(
    ("text", "code", "recent"),
    [
        ("int8", PerToken(form="int8"), 8),
        ("fp8:recent=0", PerToken(form="fp8"), 0),
        ("kivi2:group=9,recent=3", Kivi(bits=2, group=9), 3),
        ("gear4:rank=4,outliers=2", Gear(bits=4, rank=4, outliers=2), 8),
    ],
)
def test_a_storage_is_read_from_its_text_and_written_with_all_it_holds(text, code, recent):
    storage = parse_storage(text)
    assert storage == Storage(code=code, recent=recent)
    assert parse_storage(storage_text(storage)) == storage
    assert f"recent={recent}" in storage_text(storage)


@EVERY
def test_every_name_is_read_as_the_code_it_names(name):
    assert parse_storage(name).code is CODES[name] or parse_storage(name).code == CODES[name]
    assert storage_text(parse_storage(name)).partition(":")[0] == name


def test_a_code_that_nobody_named_is_written_as_what_it_is():
    class Mine(PerToken):
        pass

    storage = Storage(code=Mine(form="int8"), recent=1)
    assert storage_text(storage) == repr(storage)


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("int9", UnknownName, r"no code for keys and values 'int9'; known: .*int8.*did you mean 'int8'"),
        ("", UnknownName, "no code for keys and values ''"),
        ("int8:group=3", UnknownName, r"no option 'group' of code for keys and values 'int8'; known: recent"),
        ("kivi4:bits=2", UnknownName, r"no option 'bits' of code for keys and values 'kivi4'; known: group, recent"),
        ("int8:recent=3,recent=3", ConfigError, "takes recent once, as a whole number"),
        ("int8:recent=-1", ConfigError, "takes recent once, as a whole number"),
        ("int8:", UnknownName, "no option '' of code for keys and values 'int8'"),
        ("kivi4:group=0", ConfigError, "at least 1 number, got group=0"),
        ("gear2:rank=0", ConfigError, "at least 1, got group=32, rank=0 and outliers=1; use kivi2 for no repair"),
    ],
)
def test_a_text_that_names_no_storage_is_refused_with_what_does(text, error, told):
    with pytest.raises(error, match=told):
        parse_storage(text)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: PerToken(form="int7"), "int8 or fp8, got form='int7'"),
        (lambda: PerToken(form=[]), "int8 or fp8"),
        (lambda: Kivi(bits=3), "2 or 4 bits, got bits=3"),
        (lambda: Gear(bits=8), "2 or 4 bits, got bits=8"),
        (lambda: Kivi(bits=2, group=1.5), "a whole number of numbers, got 1.5"),
        (lambda: Gear(bits=4, rank="x"), "are whole numbers, got 'x'"),
    ],
)
def test_a_code_that_is_none_is_refused_when_it_is_made(made, told):
    with pytest.raises(ConfigError, match=told):
        made()


@pytest.mark.parametrize("code", [Gear(bits=2, outliers=8), Gear(bits=2, rank=11)])
def test_a_repair_larger_than_a_page_is_refused(code: Code):
    with pytest.raises(ConfigError, match="choose fewer"):
        code.bytes(SHAPE)
