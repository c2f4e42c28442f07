"""The extractors by name, and which one is taken when nobody says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from lvbench.errors import ConfigError, UnknownName
from lvbench.extractor import Extractor
from lvbench.light import Light
from lvbench.measures import DIMENSIONS
from lvbench.published import NEEDED, Published
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


def choose(
    name: str,
    folder: Path | None,
    places: tuple[Path, ...],
    dimensions: Sequence[str] = tuple(DIMENSIONS),
    *,
    lpips: bool = False,
) -> Choice:
    """Which extractor measures, and whether LPIPS compares.

    Args:
        name: "light", "published", or "auto" for the published one where all its networks are here, needed or not.
        folder: where weights are looked for first.
        places: where they are looked for then; see weights.caches.
        dimensions: names in DIMENSIONS; only the published networks that these need are checked, and measure.
        lpips: whether there is something to compare.

    Raises:
        UnknownName: there is no such extractor.
        ConfigError: "published" lacks something; or a file that would be used has other weights, whoever asked for it.
    """
    if name not in CHOICES:
        raise UnknownName("extractor", name, CHOICES)
    choice = _extractor(name, folder, places, dimensions)
    return replace(choice, lpips=_lpips(folder, places)) if lpips else choice


def _extractor(name: str, folder: Path | None, places: tuple[Path, ...], dimensions: Sequence[str]) -> Choice:
    if name == "light":
        return Choice(extractor="light", reason="it was asked for")
    needed = {network for dimension in dimensions for network in NEEDED[DIMENSIONS[dimension].track]}
    paths = find(folder, places)
    # Which extractor auto takes must not hang on the dimensions: reports of two extractors do not compare.
    lacking = _lacking((SOURCES.keys() if name == "auto" else needed) - paths.keys())
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
        networks=_checked(Networks(weights=hashed({each: path for each, path in paths.items() if each in needed}))),
    )


def _lpips(folder: Path | None, places: tuple[Path, ...]) -> Networks | None:
    """The networks of LPIPS, if all that they need is here."""
    paths = find(folder, places, LPIPS)
    if paths.keys() != LPIPS.keys() or find_spec("torch") is None:
        return None
    return _checked(Networks(weights=hashed(paths)))


def _lacking(networks: Collection[str]) -> dict[str, str]:
    """What is missing with the files of these, by its short name, with where it comes from."""
    lacking = {
        source.names[0]: f"{source.names[0]} ({source.network}, from {source.address})"
        for name, source in SOURCES.items()
        if name in networks
    }
    if find_spec("torch") is None:
        lacking["torch"] = "the package torch (pip install torch)"
    return lacking


def _checked(networks: Networks) -> Networks:
    """The same networks, once every file is known to fit. Raises ConfigError."""
    from lvbench.networks.loading import check  # torch takes its time to import, and the light extractor needs none

    check(networks)
    return networks
