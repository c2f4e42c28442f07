"""Weights by the name that they have on the Hugging Face hub, brought to this machine when they are not yet here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from worldsim.errors import MissingDependency, WeightsError, installing
from worldsim.models.wan.files import ENDINGS, INDEX, choose, shard_names

HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?::(?P<file>[^\\:]+))?")
"""ORGANISATION/NAME, or ORGANISATION/NAME:FILE, where FILE may be a folder."""


def local_path(source: str | Path, *, beside: Iterable[str] = ()) -> Path:
    """The file or folder on this machine that a source names.

    Args:
        source: a path that is there, or a name on the hub: gdhe17/Self-Forcing, or with a file or folder in it,
            gdhe17/Self-Forcing:checkpoints/self_forcing_dmd.pt. Without one it is the only transformer there.
        beside: what is brought with a file from the hub, by names relative to where it lies. A folder comes whole.

    Raises:
        WeightsError: no such path, and no such name on the hub or no way to the hub; no such file there, or more than
            one transformer.
        MissingDependency: huggingface_hub is needed and not installed.
    """
    if (named := hub_name(source)) is None:
        return Path(os.path.expanduser(source))
    return _brought(named["repository"], named["file"], beside)


def hub_name(source: str | Path) -> re.Match[str] | None:
    """The repository and the file of a source that names something on the hub; None if it is a path.

    Raises:
        WeightsError: it is a path at which nothing is, so that nobody waits for the hub to say that: one that no
            repository has, or one of a file of weights or in a folder that is there.
    """
    path = Path(os.path.expanduser(source))
    if path.exists():
        return None
    named = HUB_ID.fullmatch(str(source))
    beside = path.parent != Path() and path.parent.is_dir()
    if named is None or beside or str(source).startswith(".") or named["repository"].endswith(ENDINGS):
        raise WeightsError(
            f"there is no {source}; give a file, a folder, or a name on the hub, OWNER/NAME or OWNER/NAME:FILE such as "
            "gdhe17/Self-Forcing"
        )
    return named


def _brought(repository: str, file: str | None, beside: Iterable[str]) -> Path:
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingDependency(
            f"{repository} is not here, and bringing it needs huggingface_hub: {installing('wan')}"
        ) from error
    # The bases are the errors of the client below, httpx or requests, whichever this version of the hub stands on.
    trouble: tuple[type[BaseException], ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
    wanted = repository
    try:
        if file is None:
            there = hub.list_repo_files(repository)
            file = choose([name for name in there if name.endswith((*ENDINGS, INDEX))], repository)
        if not file.endswith((*ENDINGS, INDEX)):
            return _folder(Path(hub.snapshot_download(repository, allow_patterns=f"{file}/*")), repository, file)
        path = Path(hub.hf_hub_download(repository, file))
        if file.endswith(INDEX):
            for name in shard_names(path):
                hub.hf_hub_download(repository, PurePosixPath(file).with_name(name).as_posix())
        for name in beside:
            other = (PurePosixPath(file).parent / name).as_posix()
            wanted = f"{repository}:{other}"
            hub.hf_hub_download(repository, other)
    except trouble as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{wanted} is neither a path here nor to be had from the hub ({why}); check the name and the "
            f"network, or download it elsewhere and give the path"
        ) from error
    return path


def _folder(snapshot: Path, repository: str, name: str) -> Path:
    if not (snapshot / name).is_dir():
        raise WeightsError(f"{repository} has no folder {name}; name a file or a folder that it has")
    return snapshot / name
