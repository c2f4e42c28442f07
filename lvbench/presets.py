"""The extractors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lvbench.errors import UnknownName
from lvbench.extractor import Extractor
from lvbench.light import Light

EXTRACTORS: Mapping[str, Callable[[], Extractor]] = {"light": Light}


def extractor_of(name: str) -> Extractor:
    """The extractor of that name. Raises UnknownName."""
    if name not in EXTRACTORS:
        raise UnknownName("extractor", name, EXTRACTORS)
    return EXTRACTORS[name]()
