"""Files that are written whole or not at all, and the folders that they lie in."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from worldsim.errors import ConfigError, WeightsError, shown
from worldsim.locks import locked

HEAD_BYTES = 256
"""So much of a file tells whether it is a text."""
MOST_PIPED = 64 * 2**20
"""Bytes that are read of a pipe, which need not end."""
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""How a file system says that a folder cannot take a name, since something else has it."""


def path_of(given: object, name: str) -> Path:
    """The path that was given for an argument of that name; ConfigError if it is none, or one that no file can have."""
    if not isinstance(given, str | Path) or given == "":
        raise ConfigError(f"{name} is a path, as a text or a Path, got {shown(given)}")
    try:
        os.lstat(given)
    except ValueError as error:  # a zero byte, or half of a character
        raise ConfigError(
            f"{name} is a path of characters that a file's name can have, got {shown(str(given))}"
        ) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"{name} is a shorter path than {shown(str(given))}, which is too long here") from error
    return Path(given)


def read_bytes(path: Path, *, pipes: bool = False) -> bytes:
    """All that is in a file.

    Args:
        path: of the file.
        pipes: read a pipe too, such as a shell makes of `<(...)`, but no more than MOST_PIPED of it.

    Raises:
        OSError: there is no such file, or what is there may never end: a device, or a pipe.
    """
    if pipes and path.is_fifo():
        with path.open("rb") as file:
            text = file.read(MOST_PIPED + 1)
        if len(text) > MOST_PIPED:
            raise OSError(errno.EINVAL, f"it is a pipe with more than {MOST_PIPED // 2**20} MiB in it", str(path))
        return text
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a device or a pipe and no file", str(path))
    return path.read_bytes()


def make_folders(path: Path) -> None:
    """Make the folders that a file is to lie in; ConfigError if one of them is a file, or a link that leads nowhere."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        between = next(folder for folder in path.parents if os.path.lexists(folder))
        kind = "a file and no folder" if between.exists() else "a link that leads to no folder"
        raise ConfigError(f"{path} cannot be made, since {between} is {kind}; name another") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let what the file system refuses within say that it was about this path, and not about a part of it, or nothing.

    The error of a call that writes to an open file names none.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def check_free(path: Path) -> None:
    """Raise ConfigError unless a folder can be made at a path: nothing is there but an empty one, and none on its way.

    A file in place of a folder that it would lie in is in the way, too.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there and not an empty folder; name a new one, or remove it first")
    between = next(folder for folder in path.absolute().parents if folder.exists())
    if not between.is_dir():
        raise ConfigError(f"{path} cannot be made, since {between} is a file and no folder; name another")
    target = Path(os.path.realpath(path))
    for part in _parts_of(target):
        with suppress(OSError), ExitStack() as stack:
            if not _locked_folder(part, stack):
                raise _being_written(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to be filled: it takes that name when the block ends, and is gone if that ends by an error.

    Until then it lies beside it under another name, locked. What a killed process left there goes; of the folder that a
    process at work fills this tells. A link stands for what it leads to.

    Raises:
        ConfigError: see check_free; or something has taken the name meanwhile.
        OSError: it cannot be made there.
    """
    check_free(path)
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    _drop_parts(target)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    with ExitStack() as stack:
        try:
            beside.mkdir()
            is_ours = _locked_folder(beside, stack)
        except (FileExistsError, FileNotFoundError):
            is_ours = False
        if not is_ours:  # whoever came at the same moment
            raise _being_written(path)
        stack.callback(shutil.rmtree, beside, ignore_errors=True)
        yield beside
        try:
            beside.rename(target)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            raise ConfigError(
                f"{path} was made meanwhile, by another process, and stays as it is; take what is there, or remove it "
                "and start again, or name another folder"
            ) from error


def _being_written(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is being written already, here or in another process; name another folder, or wait until that has "
        "ended"
    )


def _parts_of(path: Path) -> list[Path]:
    """The folders beside a path that are being filled to take its name, or were left by a process that was killed."""
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+\.part")
    return [each for each in path.parent.glob(".*.part") if name.fullmatch(each.name) and each.is_dir()]


def _locked_folder(folder: Path, stack: ExitStack) -> bool:
    """Lock a folder until the stack ends; False if it is locked, or no longer there under its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    return locked(descriptor) and os.path.samestat(os.stat(folder), os.fstat(descriptor))


def _drop_parts(path: Path) -> None:
    """Remove what killed processes left of a folder, but for what cannot be deleted."""
    for part in _parts_of(path):
        with suppress(OSError), ExitStack() as stack:
            if _locked_folder(part, stack):
                shutil.rmtree(part)


def check_holds_weights(path: Path) -> None:
    """Raise WeightsError if what lies at a path holds no tensors: a folder, nothing, or a text in its place.

    A link to a page about a file, a pointer of Git LFS and what a server answers in place of a file are such texts.
    """
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or a pipe"
        raise WeightsError(f"{path} is a {kind}, and weights are a file; name that, or put it in its place")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise WeightsError(
            f"{path} is empty, as a download leaves it that failed; get it again from where it comes from"
        )
    if any(byte < 9 or 13 < byte < 32 for byte in head):
        return
    kind, remedy = "a text", "get the file itself, with `hf download` or by the link that downloads it"
    if head.startswith(b"version https://git-lfs"):
        kind, remedy = "a pointer of Git LFS", "run `git lfs pull` in its folder, or get the file itself"
    elif head.lstrip().startswith(b"<"):
        kind = "a web page"
    text = head.decode("utf-8", "replace").strip().partition("\n")[0]
    raise WeightsError(f"{path} holds no weights, but {kind} that begins with {shown(text)}; {remedy}")


def oddity(tensor: Tensor) -> str:
    """What keeps a tensor from being read number by number, in words; empty of an ordinary one that lies in memory."""
    if tensor.is_nested:
        return "is nested"
    if tensor.is_quantized:
        return f"is quantised ({tensor.dtype})"
    if tensor.layout != torch.strided:
        return f"is sparse ({tensor.layout})"
    if tensor.device.type != "cpu":
        return f"has a shape and no numbers (it was saved on {tensor.device})"
    return ""


def is_computed_with(dtype: torch.dtype) -> bool:
    """Whether numbers of that kind are computed with: floating-point numbers, and not two of them in a byte."""
    return dtype.is_floating_point and not str(dtype).startswith("torch.float4")


def check_finite(tensor: Tensor, name: str, source: object) -> Tensor:
    """The tensor, of floating-point numbers; WeightsError if one of them is none, NaN or without end.

    Args:
        tensor: of weights, as they are computed with.
        name: of the tensor.
        source: where it is from, for the message.
    """
    # Without a tensor of answers, and in a tenth of the time of isfinite: NaN is the least and the most of all.
    if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise WeightsError(
            f"{source} is damaged: {name} holds numbers that are none (NaN or infinite); get it again from where it "
            "comes from"
        )
    return tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file: under another name, to the disk, and only then under its own.

    Args:
        path: of the file.
        tensors: what it holds, by name.
        fields: its header, plain values; no header if None.

    Raises:
        OSError: it could not be written, as on a full disk; what was there stays.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with unfinished(path) as (file, beside):
            # Not save_file: that writes under a name of its own, with a mode that keeps all others from reading.
            file.write(save(stored, metadata=None if fields is None else {"worldsim": json.dumps(fields)}))
            file.flush()
            os.fsync(file.fileno())
            beside.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}); free some space or name another folder") from error


@contextmanager
def unfinished(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file that is to take a path once it is whole, and its name until then; at the end it is gone if it did not.

    Any number may be written for one path at once, here and in other processes: each has a name and a lock of its own.
    What killed processes left of others goes.

    Raises:
        OSError: it cannot be made there.
    """
    drop_unfinished(path.parent, path.name)
    while True:
        beside = unfinished_name(path)
        with beside.open("xb") as file:
            try:
                # Whoever drops what was left may have come before the lock.
                if locked(file.fileno()) and lies_there(beside, file.fileno()):
                    yield file, beside
                    return
            finally:
                beside.unlink(missing_ok=True)


def unfinished_name(path: Path) -> Path:
    """A name, never given before, under which a file may lie before it takes that path, see drop_unfinished."""
    return path.with_name(f"{path.name}.{secrets.randbelow(10**12)}.part")


def lies_there(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one that lies under that name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def checksum(tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> str:
    """SHA-256 of tensors and a header, to be kept in that header."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there; OSError says what is in the way of writing to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"{folder} is no folder that can be written to ({error.strerror}); name another one, or mend that"
        ) from error


def drop_unfinished(folder: Path, name: str | None = None) -> None:
    """Remove what was being written there when its process was killed, but for what cannot be deleted.

    Whoever writes holds a lock; the number in a name tells nothing. Where the file system has no locks, nobody can tell
    what is still being written, and all of it stays.

    Args:
        folder: where it lies.
        name: that the file was to have; None for any.
    """
    wanted = re.compile(rf"{'.+' if name is None else re.escape(name)}\.\d+\.part")  # what unfinished_name names
    for path in folder.glob("*.part"):
        if not wanted.fullmatch(path.name):
            continue
        with suppress(OSError), path.open("r+b") as file, path.open("r+b") as other:
            if locked(file.fileno()) and not locked(other.fileno()):  # one lock, and no more than one
                path.unlink()
