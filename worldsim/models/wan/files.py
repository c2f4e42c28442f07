"""Which files of a folder, or of a listing, hold the weights of a transformer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from worldsim.errors import WeightsError
from worldsim.files import read_bytes

ENDINGS = (".safetensors", ".pt", ".pth", ".bin")
INDEX = ".index.json"
SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}")
OTHER_FOLDERS = {
    *("text_encoder", "tokenizer", "vae", "image_encoder", "image_processor", "scheduler"),
    *("google", "xlm-roberta-large"),
}
OTHER_NAMES = re.compile(r"models_t5|models_clip|vae|lora|optimizer|taew|taehv|training_args|scheduler", re.IGNORECASE)
DEPTH = 3
"""So many folders deep a folder is looked through, itself included."""


def listed(folder: Path) -> list[str]:
    """The names of the files of weights in a folder and below, relative to it, in order."""
    found = (path for depth in range(1, DEPTH + 1) for path in folder.glob("*/" * (depth - 1) + "*"))
    names = (path.relative_to(folder).as_posix() for path in found if path.is_file())
    return sorted(name for name in names if name.endswith((*ENDINGS, INDEX)))


def choose(names: Iterable[str], source: Path | str, *, looks: Callable[[str], str] = lambda name: "") -> str:
    """The one file, or index of shards, that holds a transformer.

    What other parts are stored in (text encoder, codec, CLIP, LoRA) is passed over by its name. A folder transformer/
    comes before all else, as diffusers lays a pipeline out, and safetensors before pickles of the same name.

    Args:
        names: paths relative to the source, with "/" between their parts.
        source: the folder, or the name of the repository, for the message.
        looks: what one of several looks like, likewise.

    Raises:
        WeightsError: there is none, or more than one.
    """
    known = list(names)
    found = {_whole(name, known) for name in known if _may_hold_transformer(name)}
    found = {name for name in found if PurePosixPath(name).parts[0] == "transformer"} or found
    found = {name for name in found if not _doubles(name, found)}
    if not found:
        there = ", ".join(known[:8]) or "none"
        raise WeightsError(
            f"{source} holds no weights of a transformer ({' '.join(ENDINGS)}); files of weights there: {there}"
        )
    if len(found) > 1:
        whole = f"{source}/" if isinstance(source, Path) else f"{source}:"
        each = ", ".join(f"{whole}{name}{looks(name)}" for name in sorted(found))
        raise WeightsError(f"{source} holds weights of more than one transformer; name one: {each}")
    return found.pop()


def shards(path: Path) -> tuple[Path, ...]:
    """The files that an index names, or the file itself.

    Raises:
        WeightsError: there is no such file, the index cannot be read, or a shard is missing.
    """
    if not path.exists():
        raise WeightsError(f"there is no file {path}; give the file, or the folder, that the weights are in")
    if not path.name.endswith(INDEX):
        return (path,)
    names = shard_names(path)
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise WeightsError(
            f"{path} needs {', '.join(missing[:4])}{more} beside it, which is missing; of {len(names)} shards "
            f"{len(names) - len(missing)} are there"
        )
    return tuple(path.parent / name for name in names)


def shard_names(index: Path) -> tuple[str, ...]:
    """The names of the files that an index spreads tensors over, in order; all lie beside it.

    Raises:
        WeightsError: it cannot be read, or names something else.
    """
    try:
        names = sorted({str(name) for name in json.loads(read_bytes(index).decode("utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{index} is no index of shards ({error}); get it again from where it comes from") from error
    # A name with folders in it would lead out of the folder of the index.
    odd = [name for name in names if PurePosixPath(name).name != name or not name.endswith(ENDINGS)]
    if odd or not names:
        raise WeightsError(f"{index} names {', '.join(odd[:4]) or 'no file'} as shards; those lie beside their index")
    return tuple(names)


def find_transformer(path: Path, *, looks: Callable[[Path], str] = lambda path: "") -> tuple[Path, ...]:
    """The files that hold a transformer: those of a folder, the shards of an index, or the file itself.

    Args:
        path: of the folder, the index or the file.
        looks: what a file or an index of several looks like, for the message.

    Raises:
        WeightsError: there is nothing at the path, none in the folder or more than one, or a shard is missing.
    """
    if not path.is_dir():
        return shards(path)
    return shards(path / choose(listed(path), path, looks=lambda name: looks(path / name)))


def _may_hold_transformer(name: str) -> bool:
    path = PurePosixPath(name)
    if OTHER_FOLDERS & {part.lower() for part in path.parts[:-1]} or OTHER_NAMES.search(path.name):
        return False
    return name.endswith((*ENDINGS, INDEX))


def _whole(name: str, names: Iterable[str]) -> str:
    """The index that a shard belongs to, or the name itself."""
    path = PurePosixPath(name)
    shard = SHARD.fullmatch(path.stem)
    index = (path.parent / f"{shard['stem']}{path.suffix}{INDEX}").as_posix() if shard is not None else name
    return index if index in names else name


def _doubles(name: str, names: Iterable[str]) -> bool:
    """Whether safetensors of the same name are there."""
    stem = name.removesuffix(INDEX)
    ending = PurePosixPath(stem).suffix
    better = stem.removesuffix(ending) + ".safetensors"
    alike = {better, better + INDEX}
    return ending != ".safetensors" and bool(alike & set(names))
