"""The extractors by name, and which one is taken when nobody says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from lvbench.errors import ConfigError, UnknownName
from lvbench.extractor import Extractor
from lvbench.light import Light
from lvbench.published import Published
from lvbench.weights import LPIPS, SOURCES, Networks, find, hashed

EXTRACTORS = ("light", "published")
CHOICES = ("auto", *EXTRACTORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The extractor that measures, why it is that one, and its networks if it has any.

    lpips: what compares with references, if it is here and there are any.
    """

    extractor: str
    reason: str
    networks: Networks | None = None
    lpips: Networks | None = None


def extractor_of(name: str, networks: Networks | None = None) -> Extractor:
    """The extractor of that name.

    Raises:
        UnknownName: there is none.
        ConfigError: it needs networks, and was given none.
    """
    if name not in EXTRACTORS:
        raise UnknownName("extractor", name, EXTRACTORS)
    if name == "light":
        return Light()
    if networks is None:
        raise ConfigError("the published extractor is made of networks; choose() finds them")
    return Published(networks)


def choose(name: str, folder: Path | None, places: tuple[Path, ...], *, lpips: bool = False) -> Choice:
    """Which extractor measures, and whether LPIPS compares.

    Args:
        name: "light", "published", or "auto" for the published one where all that it needs is here.
        folder: where weights are looked for first.
        places: where they are looked for then; see weights.caches.
        lpips: whether there is something to compare.

    Raises:
        UnknownName: there is no such extractor.
        ConfigError: "published" lacks something; or a file that was found has other weights, whatever was asked for.
    """
    if name not in CHOICES:
        raise UnknownName("extractor", name, CHOICES)
    choice = _extractor(name, folder, places)
    return replace(choice, lpips=_lpips(folder, places)) if lpips else choice


def _extractor(name: str, folder: Path | None, places: tuple[Path, ...]) -> Choice:
    if name == "light":
        return Choice(extractor="light", reason="it was asked for")
    paths = find(folder, places)
    lacking = _lacking(paths)
    if lacking and name == "published":
        raise ConfigError(
            f"the published extractor lacks {'; '.join(lacking.values())}. Put the files into a folder and name it "
            "with --weights, or use --extractor light"
        )
    if lacking:
        return Choice(extractor="light", reason=f"the published networks lack {', '.join(lacking)}")
    return Choice(
        extractor="published",
        reason="it was asked for" if name == "published" else "all its weights are here",
        networks=_checked(Networks(weights=hashed(paths))),
    )


def _lpips(folder: Path | None, places: tuple[Path, ...]) -> Networks | None:
    """The networks of LPIPS, if all that they need is here."""
    paths = find(folder, places, LPIPS)
    if paths.keys() != LPIPS.keys() or find_spec("torch") is None:
        return None
    return _checked(Networks(weights=hashed(paths)))


def _lacking(paths: Mapping[str, Path]) -> dict[str, str]:
    """What is missing, by its short name, with where it comes from."""
    lacking = {
        source.names[0]: f"{source.names[0]} ({source.network}, from {source.address})"
        for name, source in SOURCES.items()
        if name not in paths
    }
    if find_spec("torch") is None:
        lacking["torch"] = "the package torch (pip install torch)"
    return lacking


def _checked(networks: Networks) -> Networks:
    """The same networks, once every file is known to fit. Raises ConfigError."""
    from lvbench.networks.loading import check  # torch takes its time to import, and the light extractor needs none

    check(networks)
    return networks
