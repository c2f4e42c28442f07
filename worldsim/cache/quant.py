"""Codes for pages: keys and values in 8, 4 or 2 bits, each page by itself, scales and all in one row of bytes.

The papers encode a cache that grows token by token and so leave the newest tokens out until a group of them is full. A
page is a whole frame and never grows; its groups divide its own tokens, and what stays exact is a matter of the pool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from worldsim.cache.options import parse_options
from worldsim.cache.pool import PageShape, Storage
from worldsim.errors import ConfigError, shown, whole

GREATEST = {"int8": 127.0, "fp8": 448.0}
"""The greatest number of each 8-bit format; of fp8 that of e4m3 without infinities."""
DTYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
HALF_MAX = torch.finfo(torch.float16).max
SWEEPS = 3
Part = tuple[torch.dtype, tuple[int, ...]]
"""A tensor inside a coded page: its dtype and shape."""


def _check_bits(bits: object) -> None:
    if bits not in (2, 4):
        raise ConfigError(f"numbers are kept in 2 or 4 bits, got bits={shown(bits)}; see PerToken for 8")


@dataclass(frozen=True, slots=True, kw_only=True)
class PerToken:
    """Every token of every layer scaled to its greatest magnitude: 8 bits a number and 16 a token.

    A scale is a bfloat16: times a code it is exact in float32, so what was decoded once is encoded to the same again.

    Sources: int8 by the absolute maximum of a row, LLM.int8(), Dettmers et al. 2022 (arXiv:2208.07339); e4m3,
        Micikevicius et al. 2022 (arXiv:2209.05433).
    """

    form: Literal["int8", "fp8"]

    def __post_init__(self) -> None:
        if self.form not in tuple(DTYPES):
            raise ConfigError(f"8 bits are int8 or fp8, got form={shown(self.form)}; see kivi for fewer")

    def bytes(self, shape: PageShape) -> int:
        return _bytes(self._parts(shape))

    def encode(self, keys: Tensor, values: Tensor) -> Tensor:
        numbers = torch.stack((keys, values)).float().flatten(3)
        greatest = GREATEST[self.form]
        scales = (numbers.abs().amax(3, keepdim=True) / greatest).bfloat16()
        codes = (numbers / _divisor(scales)).clamp(-greatest, greatest)
        return _join([scales, (codes.round() if self.form == "int8" else codes).to(DTYPES[self.form])])

    def decode(self, data: Tensor, shape: PageShape) -> tuple[Tensor, Tensor]:
        scales, codes = _split(data, self._parts(shape))
        numbers = codes.float() if self.form == "int8" else _from_fp8(codes)
        keys, values = numbers.mul_(scales.float()).unflatten(3, (shape.heads, shape.head_dim))
        return keys, values

    def _parts(self, shape: PageShape) -> list[Part]:
        tokens = (2, shape.layers, shape.tokens)
        return [(torch.bfloat16, (*tokens, 1)), (DTYPES[self.form], (*tokens, shape.heads * shape.head_dim))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kivi:
    """Keys by channel, in groups of tokens; values by token, in groups of channels; `bits` a number and 32 a group.

    A group lies between its least and its greatest number, kept as zero point and step in float16. Keys have channels
    that are large in every token, which a scale for each token would ruin.

    Args:
        bits: 2 or 4.
        group: the most numbers in a group; a page is cut into groups as equal as can be.

    Source: KIVI, Liu et al. 2024 (arXiv:2402.02750).
    """

    bits: Literal[2, 4]
    group: int = 32

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        if whole(self.group, "a group has a whole number of numbers") < 1:
            raise ConfigError(f"a group has at least 1 number, got group={self.group}")

    def bytes(self, shape: PageShape) -> int:
        return _bytes(self.parts(shape))

    def encode(self, keys: Tensor, values: Tensor) -> Tensor:
        return _join(self.encode_parts(keys.float().flatten(2), values.float().flatten(2)))

    def decode(self, data: Tensor, shape: PageShape) -> tuple[Tensor, Tensor]:
        keys, values = self.decode_parts(_split(data, self.parts(shape)), shape)
        return keys.unflatten(2, (shape.heads, shape.head_dim)), values.unflatten(2, (shape.heads, shape.head_dim))

    def parts(self, shape: PageShape) -> list[Part]:
        """What a coded page consists of: zero points and steps of keys and of values, then the codes of each."""
        ends: list[Part] = []
        codes: list[Part] = []
        for outer, length, inner in self._axes(shape):
            groups, size = _groups(length, self.group)
            ends += [(torch.float16, (outer, groups, 1, inner))] * 2
            codes.append((torch.uint8, (-(-outer * groups * size * inner * self.bits // 8),)))
        return ends + codes

    def encode_parts(self, keys: Tensor, values: Tensor) -> list[Tensor]:
        """The parts of keys and values, float32 [layers, tokens, channels]."""
        ends: list[Tensor] = []
        codes: list[Tensor] = []
        for numbers in (keys, values.reshape(-1, values.shape[2], 1)):
            grouped = _grouped(numbers, self.group)
            zeros = _half(grouped.amin(2, keepdim=True))
            steps = _half((grouped.amax(2, keepdim=True) - zeros.float()) / (2**self.bits - 1))
            found = ((grouped - zeros.float()) / _divisor(steps)).round().clamp(0, 2**self.bits - 1)
            ends += [zeros, steps]
            codes.append(pack(found.byte(), self.bits))
        return ends + codes

    def decode_parts(self, parts: Sequence[Tensor], shape: PageShape) -> tuple[Tensor, Tensor]:
        """Keys and values, float32 [layers, tokens, channels], of the parts that encode_parts gave."""
        decoded = []
        for at, (outer, length, inner) in enumerate(self._axes(shape)):
            zeros, steps, codes = parts[2 * at], parts[2 * at + 1], parts[4 + at]
            sizes = (outer, *_groups(length, self.group), inner)
            numbers = unpack(codes, self.bits, math.prod(sizes)).view(sizes).float()
            numbers = numbers.mul_(steps.float()).add_(zeros.float())
            decoded.append(numbers.flatten(1, 2)[:, :length].reshape(shape.layers, shape.tokens, -1))
        return decoded[0], decoded[1]

    @staticmethod
    def _axes(shape: PageShape) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """What is outside of the grouped axis, along it and inside of it, for keys and for values."""
        channels = shape.heads * shape.head_dim
        return (shape.layers, shape.tokens, channels), (shape.layers * shape.tokens, channels, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gear:
    """KIVI, with outliers kept apart and what is still wrong repaired by a matrix of low rank.

    Of every vector (a channel of keys along the tokens, a token of values along the channels) the `outliers` largest
    and as many smallest numbers are kept in float16 with their places in 16 bits, and their mean takes their place
    before the rest is encoded. The error that is left is approximated head by head by P Q^T in float16.

    Departures from the source: outliers are counted, not a share of the vector, and power iteration begins with the
    first tokens of the error in place of random numbers, so that equal pages give equal bytes.

    Source: GEAR, Kang et al. 2024 (arXiv:2403.05527).
    """

    bits: Literal[2, 4]
    group: int = 32
    rank: int = 2
    outliers: int = 1

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        wanted = "group, rank and outliers are whole numbers"
        if min(whole(one, wanted) for one in (self.group, self.rank, self.outliers)) < 1:
            raise ConfigError(
                f"group, rank and outliers are at least 1, got group={self.group}, rank={self.rank} and "
                f"outliers={self.outliers}; use kivi{self.bits} for no repair"
            )

    @property
    def base(self) -> Kivi:
        """What encodes the rest."""
        return Kivi(bits=self.bits, group=self.group)

    def bytes(self, shape: PageShape) -> int:
        return _bytes(self._parts(shape))

    def encode(self, keys: Tensor, values: Tensor) -> Tensor:
        layers, tokens, heads, head_dim = keys.shape
        shape = PageShape(layers=layers, tokens=tokens, heads=heads, head_dim=head_dim)
        whole = [keys.float().flatten(2), values.float().flatten(2)]
        filled, extremes = [], []
        for numbers, axis in zip(whole, (1, 2), strict=True):
            places = _extremes(numbers, axis, self.outliers)
            extremes += [_half(numbers.gather(axis, places)), places.to(torch.int16)]
            filled.append(numbers.scatter(axis, places, numbers.mean(axis, keepdim=True).expand_as(places)))
        coded = self.base.encode_parts(filled[0], filled[1])
        rough = self._with_outliers(coded, extremes, shape)
        factors: list[Tensor] = []
        for numbers, other in zip(whole, rough, strict=True):
            error = (numbers - other).unflatten(2, (heads, head_dim)).transpose(1, 2)
            factors += [_half(factor) for factor in low_rank(error, self.rank, sweeps=SWEEPS)]
        return _join([*coded[:4], *extremes, *factors, *coded[4:]])

    def decode(self, data: Tensor, shape: PageShape) -> tuple[Tensor, Tensor]:
        parts = _split(data, self._parts(shape))
        repaired = []
        for at, numbers in enumerate(self._with_outliers([*parts[:4], *parts[12:]], parts[4:8], shape)):
            left, right = (factor.float() for factor in parts[8 + 2 * at : 10 + 2 * at])
            numbers = numbers.unflatten(2, (shape.heads, shape.head_dim))
            repaired.append(numbers + (left @ right.mT).transpose(1, 2))
        return repaired[0], repaired[1]

    def _parts(self, shape: PageShape) -> list[Part]:
        layers, tokens, channels, most = shape.layers, shape.tokens, shape.heads * shape.head_dim, 2 * self.outliers
        if most > min(tokens, channels) or self.rank > min(tokens, shape.head_dim) or max(tokens, channels) >= 2**15:
            raise ConfigError(
                f"a page of {tokens} tokens and {shape.heads} heads of {shape.head_dim} has no {self.outliers} "
                f"outliers at either end of a vector, or no error of rank {self.rank}; choose fewer"
            )
        extremes = [(layers, most, channels), (layers, tokens, most)]
        sides = [(layers, shape.heads, length, self.rank) for length in (tokens, shape.head_dim)] * 2
        rest = self.base.parts(shape)
        apart: list[Part] = [(dtype, sizes) for sizes in extremes for dtype in (torch.float16, torch.int16)]
        return [*rest[:4], *apart, *[(torch.float16, side) for side in sides], *rest[4:]]

    def _with_outliers(self, coded: Sequence[Tensor], extremes: Sequence[Tensor], shape: PageShape) -> list[Tensor]:
        """Keys and values, float32 [layers, tokens, channels], with outliers back in their places."""
        return [
            numbers.scatter(axis, places.long(), kept.float())
            for numbers, axis, kept, places in zip(
                self.base.decode_parts(coded, shape), (1, 2), extremes[::2], extremes[1::2], strict=True
            )
        ]


Code = PerToken | Kivi | Gear
CODES: dict[str, Code] = {
    "int8": PerToken(form="int8"),
    "fp8": PerToken(form="fp8"),
    "kivi4": Kivi(bits=4),
    "kivi2": Kivi(bits=2),
    "gear4": Gear(bits=4),
    "gear2": Gear(bits=2),
}
FIXED = ("form", "bits")
"""What the name of a code says of it."""
RECENT = 8


def parse_storage(text: str) -> Storage:
    """The storage that a text names: "int8", "kivi2:recent=16,group=27", "gear4:rank=4".

    Options left out have their defaults: `recent`, see Storage, and the numbers that a code has beside its bits.

    Raises:
        UnknownName: nobody knows that code, or that option of it.
        ConfigError: an option is given twice, is not a whole number, or does not fit.
    """
    known = {name: ["recent", *_options(code)] for name, code in CODES.items()}
    name, given = parse_options(text, known, kind="code for keys and values")
    options: dict[str, Any] = dict(given)
    recent = options.pop("recent", RECENT)
    return Storage(code=replace(CODES[name], **options), recent=recent)


def storage_text(storage: Storage) -> str:
    """The text that parse_storage reads as this storage, with all options; of a code it does not know, its repr."""
    for name, known in CODES.items():
        if type(storage.code) is type(known):
            options: dict[str, Any] = {option: getattr(storage.code, option) for option in _options(known)}
            if replace(known, **options) == storage.code:
                chosen = {"recent": storage.recent, **options}
                return f"{name}:" + ",".join(f"{option}={value}" for option, value in chosen.items())
    return repr(storage)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes below 2**bits, uint8 of any shape, as bytes: uint8 [count * bits / 8, rounded up].

    The first byte holds the first of each 8 / bits equal stretches of codes, so that both ways are a few passes over
    memory without a gather.
    """
    stretches = 8 // bits
    flat = codes.flatten()
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % stretches)).view(stretches, -1)
    packed = flat[0].clone()
    for at in range(1, stretches):
        packed |= flat[at] << bits * at
    return packed


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` codes that were packed, uint8 [count]."""
    stretches = 8 // bits
    codes = torch.empty(stretches, len(packed), dtype=torch.uint8, device=packed.device)
    for at in range(stretches):
        torch.bitwise_right_shift(packed, bits * at, out=codes[at])
    return codes.bitwise_and_(2**bits - 1).flatten()[:count]


def low_rank(matrices: Tensor, rank: int, *, sweeps: int) -> tuple[Tensor, Tensor]:
    """Factors P [..., rows, rank] and Q [..., columns, rank] whose product P Q^T is near matrices [..., rows, columns].

    Power iteration, made orthogonal in every sweep: left alone, all columns soon show the same direction.
    """
    right = matrices[..., :rank, :].mT
    for _ in range(sweeps):
        left = torch.linalg.qr(matrices @ right).Q
        right = matrices.mT @ left
    return left, right


def _options(code: Code) -> list[str]:
    """The numbers of a code that may be chosen beside its name."""
    return [field.name for field in fields(code) if field.name not in FIXED]


def _from_fp8(codes: Tensor) -> Tensor:
    """Numbers of e4m3, none of them NaN, as float32.

    Its exponent and fraction become those of a float16, which is then 2**8 too small: on a CPU a seventh of the time
    that torch takes to convert them.
    """
    wide = codes.view(torch.int8).to(torch.int16)
    return (wide << 7).bitwise_and_(~0x4000).view(torch.float16).float().mul_(2.0**8)


def _groups(length: int, most: int) -> tuple[int, int]:
    """Into how many groups of which size so many numbers are cut; the last may be shorter."""
    groups = -(-length // most)
    return groups, -(-length // groups)


def _grouped(numbers: Tensor, most: int) -> Tensor:
    """Numbers [outer, length, inner] in groups, [outer, groups, size, inner]; the last is filled up with its end."""
    groups, size = _groups(numbers.shape[1], most)
    end = numbers[:, -1:].expand(-1, groups * size - numbers.shape[1], -1)
    return torch.cat((numbers, end), dim=1).view(len(numbers), groups, size, -1)


def _extremes(numbers: Tensor, axis: int, count: int) -> Tensor:
    """Places of the `count` largest and then of as many smallest numbers along an axis."""
    return torch.cat([numbers.topk(count, dim=axis, largest=largest).indices for largest in (True, False)], dim=axis)


def _half(numbers: Tensor) -> Tensor:
    """Numbers in float16; what is beyond its range comes as near as it can."""
    return numbers.clamp(-HALF_MAX, HALF_MAX).half()


def _divisor(steps: Tensor) -> Tensor:
    """Steps to divide by, float32: those that are 0, of numbers that are all equal, as 1."""
    return torch.where(steps > 0, steps.float(), 1.0)


def _bytes(parts: Sequence[Part]) -> int:
    """The memory of these parts one after the other; even, so that a row of 16-bit numbers may follow."""
    total = sum(math.prod(sizes) * dtype.itemsize for dtype, sizes in parts)
    return total + total % 2


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Tensors, the ones of 16 bits first, as one row of bytes."""
    row = torch.cat([part.contiguous().view(torch.uint8).flatten() for part in parts])
    return torch.nn.functional.pad(row, (0, len(row) % 2))


def _split(row: Tensor, parts: Sequence[Part]) -> list[Tensor]:
    """The tensors that were joined, as views of the row."""
    split, start = [], 0
    for dtype, sizes in parts:
        end = start + math.prod(sizes) * dtype.itemsize
        split.append(row[start:end].view(dtype).view(sizes))
        start = end
    return split
