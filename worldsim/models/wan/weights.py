"""Files of the Wan family as tensors under their public names, read lazily and without running what is in them.

A tensor is mapped from its file when it is asked for, so a model may be larger than what is free: pages of a file that
were read can be dropped and read again.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worldsim.errors import WeightsError
from worldsim.files import check_holds_weights, is_computed_with, oddity
from worldsim.models.wan.files import find_transformer, shards
from worldsim.models.wan.keymap import bare, is_diffusers, public_name, renamed
from worldsim.models.wan.kinds import looks_like
from worldsim.models.wan.lora import changes

PLAIN = ("generator", "model", "state_dict", "module", "model_state_dict")
AVERAGED = ("generator_ema", "ema", "model_ema")
CHANGES = ("generator_lora", "lora")
PORTION_BYTES = 1 << 28
"""So much of a pickle is mapped before it is mapped anew, so that a conversion does not hold all of it at once."""
SHOWN = 4
ZIP = b"PK\x03\x04"
"""How a zip begins, which is what torch saves; where it ends it says so."""
PICKLE = b"\x80"
"""How what torch saved before version 1.6 begins."""
TORN = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, AssertionError, zipfile.BadZipFile)
"""What torch stumbles over in a file that was cut off, or in which a byte is another."""
Lazy = Callable[[], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where tensors are from.

    files: that were read.
    part: the part of a pickle that was taken, such as generator_ema; empty where it has no parts.
    left: the parts that were not.
    stripped: what was taken out of names, each once.
    diffusers: whether they had the names of diffusers.
    merged: the files of a LoRA that was added.
    alpha: of that LoRA; None stands for its rank.
    """

    files: tuple[Path, ...]
    part: str = ""
    left: tuple[str, ...] = ()
    stripped: tuple[str, ...] = ()
    diffusers: bool = False
    merged: tuple[Path, ...] = ()
    alpha: float | None = None


class Weights(Mapping[str, Tensor]):
    """Tensors by name, each mapped from its file whenever it is asked for, on the CPU.

    Args:
        lazy: what gives each.
        metas: a tensor on "meta" for each, with its shape and dtype.
        origin: where they are from.
    """

    def __init__(self, lazy: Mapping[str, Lazy], metas: Mapping[str, Tensor], origin: Origin) -> None:
        self.metas = MappingProxyType(dict(metas))
        self.origin = origin
        self.lazy = MappingProxyType(dict(lazy))

    @property
    def shapes(self) -> dict[str, list[int]]:
        """The shape of each, without reading any."""
        return {name: list(meta.shape) for name, meta in self.metas.items()}

    def __getitem__(self, name: str) -> Tensor:
        """The tensor. Raises KeyError, or WeightsError if its file is no longer there or whole."""
        return self.lazy[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.lazy)

    def __len__(self) -> int:
        return len(self.lazy)

    def __contains__(self, name: object) -> bool:
        return name in self.lazy

    def check(self, wanted: Mapping[str, Sequence[int]], source: object) -> None:
        """Raise WeightsError unless they are those wanted, in floating-point numbers; none of them is read.

        Args:
            wanted, source: see check_state.
        """
        check_state(self.shapes, wanted, source)
        coded = [f"{name} in {meta.dtype}" for name, meta in self.metas.items() if not is_computed_with(meta.dtype)]
        if coded:
            raise WeightsError(
                f"{source} holds coded numbers{_some(coded)}, as a quantised model does, and is not computed with; "
                "get the model in float32, bfloat16 or float16"
            )

    def under(self, names: Mapping[str, str]) -> Weights:
        """The same under other names.

        Args:
            names: from new names to the present ones.
        """
        lazy = {new: self.lazy[old] for new, old in names.items()}
        return Weights(lazy, {new: self.metas[old] for new, old in names.items()}, self.origin)


def load_tensors(
    path: Path, *, ema: bool | None = None, lora: Path | None = None, alpha: float | None = None
) -> Weights:
    """The tensors of a transformer of the Wan family by their public names.

    Args:
        path: an original .pt, safetensors (an index of shards too), or a folder that holds one of these, such as one
            of diffusers.
        ema: whether to take the averaged weights of a file that has those beside the last ones; None if it has one
            set only. A file without parts has nothing to choose.
        lora: changes to merge, as PEFT stores them: W + alpha / rank * B @ A in float32, in the dtype of W.
        alpha: of the changes; None stands for their rank.

    Raises:
        WeightsError: nothing is there, or more than one transformer; a file is torn, or holds more than tensors; it has
            no such part; the changes do not fit. What the tensors are of is not checked, see check_state.
    """
    raw = open_tensors(find_transformer(path, looks=_looks), ema=ema)
    foreign = is_diffusers(raw)
    names = renamed(((public_name(name) if foreign else name, name) for name in raw), path)
    found = raw.under(names)
    origin = replace(found.origin, diffusers=foreign)
    if lora is None:
        return Weights(found.lazy, found.metas, origin)
    added = _open(shards(lora), lambda parts: _part_of(parts, CHANGES))
    strengths = changes(added.lazy, {**found.shapes, **added.shapes}, alpha=alpha, source=lora)
    merged = {name: partial(_merged, found.lazy[name], change.apply) for name, change in strengths.items()}
    return Weights({**found.lazy, **merged}, found.metas, replace(origin, merged=added.origin.files, alpha=alpha))


def open_tensors(paths: Sequence[Path], *, ema: bool | None = None) -> Weights:
    """The tensors of one file, or of several that make up one model, by their bare names.

    Args:
        paths: pickles of torch, or safetensors; what they are is told by their content.
        ema: see load_tensors.

    Raises:
        WeightsError: a file is not there, torn, or holds more than tensors; it has no such part, or two tensors of one
            name.
    """
    return _open(paths, lambda parts: _chosen(parts, ema))


def check_state(found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]], source: object) -> None:
    """Raise WeightsError unless the names and shapes found are those wanted.

    The error has the number and the first few of those that are missing, unexpected and mis-shaped, and says which
    model the source looks like.

    Args:
        found: shapes by name, in the public layout.
        wanted: shapes by name.
        source: where those found are from, for the message.
    """
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    odd = [
        f"{name} {list(found[name])} instead of {list(wanted[name])}"
        for name in wanted
        if name in found and list(found[name]) != list(wanted[name])
    ]
    if missing or unexpected or odd:
        raise WeightsError(
            f"{source} does not fit: {len(missing)} of {len(wanted)} tensors missing{_some(missing)}; "
            f"{len(unexpected)} unexpected{_some(unexpected)}; {len(odd)} of another shape{_some(odd)}; it looks like "
            f"{looks_like(found)}"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})" if names else ""


def _looks(path: Path) -> str:
    """What a file or an index of several looks like, in words behind its name; one of its parts stands for all."""
    return f" ({looks_like(_open(shards(path), lambda parts: min(parts.tensors)).shapes)})"


def _merged(weight: Lazy, change: Callable[[Tensor], Tensor]) -> Tensor:
    return change(weight())


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a file holds: by the name of a part, its tensors by name. A file without parts has one without a name.

    odd: by the name of a part, which of its tensors cannot be read, and why.
    """

    path: Path
    tensors: Mapping[str, Mapping[str, Tensor]]
    reader: Callable[[str, str], Tensor]
    odd: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def has(self) -> str:
        return ", ".join(sorted(self.tensors)) or "nothing that is made of tensors"

    def of(self, part: str) -> Mapping[str, Tensor]:
        """The tensors of a part; WeightsError if some of them cannot be read."""
        if odd := self.odd.get(part):
            raise WeightsError(
                f"{self.path} holds {len(odd)} of {len(self.tensors[part])} tensors otherwise than as plain numbers"
                f"{_some(odd)}; save its state dict again with dense tensors that lie on the CPU"
            )
        return self.tensors[part]


def _open(paths: Sequence[Path], choose: Callable[[_Parts], str]) -> Weights:
    lazy: dict[str, Lazy] = {}
    metas: dict[str, Tensor] = {}
    taken: list[tuple[str, str]] = []
    parts, left, stripped = set(), set(), set()
    for path in paths:
        opened = _safetensors(path) if _is_safetensors(path) else _pickle(path)
        part = choose(opened)
        parts.add(part)
        left |= opened.tensors.keys() - {part}
        for name, meta in opened.of(part).items():
            plain, found = bare(name)
            stripped |= {*found}
            key = f"{len(taken)}"
            taken.append((plain, key))
            lazy[key], metas[key] = partial(opened.reader, part, name), meta
    origin = Origin(
        files=tuple(paths), part=", ".join(sorted(parts)), left=tuple(sorted(left)), stripped=tuple(sorted(stripped))
    )
    return Weights(lazy, metas, origin).under(renamed(taken, paths[0]))


def _chosen(parts: _Parts, ema: bool | None) -> str:
    if "" in parts.tensors:
        return ""
    averaged = [name for name in AVERAGED if name in parts.tensors]
    plain = [name for name in PLAIN if name in parts.tensors]
    if ema is None and averaged and plain:
        raise WeightsError(
            f"{parts.path} holds {averaged[0]} and {plain[0]}: say whether to take the averaged weights, by "
            "`worldsim convert` with --ema or --no-ema, and name the folder that it writes"
        )
    if ema is None:
        return _part_of(parts, (*averaged, *plain) or (*PLAIN, *AVERAGED))
    if (others := plain if ema else averaged) and not (averaged if ema else plain):
        lacking, option = ("averaged weights", "--no-ema") if ema else ("weights that are not averaged", "--ema")
        raise WeightsError(
            f"{parts.path} holds {others[0]} and no {lacking}; get the file that has them, or take what it has by "
            f"`worldsim convert {parts.path} NEW {option}`, with --lora if it has one, and name the folder NEW"
        )
    return _part_of(parts, AVERAGED if ema else PLAIN)


def _part_of(parts: _Parts, wanted: Iterable[str]) -> str:
    names = ["", *wanted]
    for name in names:
        if name in parts.tensors:
            return name
    raise WeightsError(f"{parts.path} has none of the parts {', '.join(names[1:])}; it holds {parts.has()}")


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, with the length of a header and a brace; WeightsError as for reading."""
    try:
        check_holds_weights(path)
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise _unread(path, error) from error


def _unread(path: Path, error: OSError) -> WeightsError:
    return WeightsError(
        f"{path} cannot be read: {error.strerror or error}; see that it may be read, or get it again from where it "
        "comes from"
    )


def _safetensors(path: Path) -> _Parts:
    def read(part: str, name: str) -> Tensor:
        # Opened anew for each tensor: what was mapped is let go with the tensor, and not with the last of the file.
        try:
            with safe_open(path, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is torn or gone ({error}); get it again from where it comes from") from error
        return tensor

    try:
        with safe_open(path, framework="pt") as opened:
            found = {name: opened.get_tensor(name).to("meta") for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is torn ({error}); get it again from where it comes from") from error
    return _Parts(path, {"": found}, read)


class _Pickle:
    """The parts of what torch saved, mapped anew after each portion, so that what was read can be let go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: Mapping[str, Mapping[str, Tensor]] | None = None
        self._handed_bytes = 0

    def parts(self) -> Mapping[str, Mapping[str, Tensor]]:
        if self._open is None:
            self._open = _parts(_unpickled(self._path))
        return self._open

    def __call__(self, part: str, name: str) -> Tensor:
        tensor = self.parts()[part][name].detach()
        self._handed_bytes += tensor.nbytes
        if self._handed_bytes >= PORTION_BYTES:
            self._open, self._handed_bytes = None, 0
        return tensor


def _pickle(path: Path) -> _Parts:
    reader = _Pickle(path)
    metas: dict[str, dict[str, Tensor]] = {}
    odd: dict[str, list[str]] = {}
    for part, tensors in reader.parts().items():
        why = {name: oddity(tensor) for name, tensor in tensors.items()}
        odd[part] = [f"{name} {words}" for name, words in why.items() if words]
        # One that is odd stands there by its name alone.
        metas[part] = {
            name: torch.empty(0 if why[name] else tensor.shape, dtype=tensor.dtype, device="meta")
            for name, tensor in tensors.items()
        }
    if not metas:
        raise WeightsError(f"{path} holds no tensors by name; it is no file of weights")
    return _Parts(path, metas, reader, odd)


def _parts(found: object) -> dict[str, Mapping[str, Tensor]]:
    """The sets of tensors in what was unpickled; what is no tensor, such as a number of steps, is passed over."""
    if not isinstance(found, Mapping):
        return {}
    own = {str(name): tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    if own:
        return {"": own}
    inside = {str(name): _parts(each).get("", {}) for name, each in found.items()}
    return {name: tensors for name, tensors in inside.items() if tensors}


def _unpickled(path: Path) -> object:
    is_zip = zipfile.is_zipfile(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(ZIP))
        if not is_zip and head == ZIP:
            raise WeightsError(
                f"{path} is torn: its end is missing, as after a download that was cut off; get it again from where it "
                "comes from"
            )
        if not is_zip and not head.startswith(PICKLE):
            raise WeightsError(
                f"{path} is no file of weights: it begins neither as those of PyTorch do nor as safetensors; name one "
                "that does, or get it again from where it comes from"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch then refuses it also warns
            # Only what torch saved as a zip can be mapped; files from before that are read whole.
            found: object = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except OSError as error:
        raise _unread(path, error) from error
    except (pickle.UnpicklingError, SafetensorError, *TORN) as error:
        raise WeightsError(
            f"{path} is torn, or holds more than tensors, which would be run to be read and is refused; get it "
            f"again, or save its state dict alone, as safetensors"
        ) from error
    return found
