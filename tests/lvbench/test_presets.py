"""An extractor is had by its name."""

from __future__ import annotations

import pytest

from lvbench.errors import UnknownName
from lvbench.presets import EXTRACTORS, extractor_of


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_an_extractor_has_the_name_it_is_had_by(name):
    assert extractor_of(name).name == name


def test_an_unknown_extractor_is_refused():
    with pytest.raises(UnknownName, match="no extractor 'lite'"):
        extractor_of("lite")
