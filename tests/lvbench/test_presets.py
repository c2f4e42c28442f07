"""An extractor is had by its name, and which one is taken is never a secret."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from lvbench import presets
from lvbench.errors import ConfigError, UnknownName
from lvbench.measures import DIMENSIONS
from lvbench.presets import EXTRACTORS, choose, extractor_of
from lvbench.weights import SOURCES, Networks, find
from tests.lvbench.random_weights import TINY, folder_of_weights, lpips_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def tiny(monkeypatch):
    """Takes for the published networks small ones of the same kinds."""
    monkeypatch.setattr(presets, "Networks", lambda weights: Networks(weights=weights, sizes=TINY))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_an_extractor_has_the_name_it_is_had_by(name):
    assert extractor_of(name, Networks(weights={})).name == name


def test_an_unknown_extractor_is_refused():
    with pytest.raises(UnknownName, match="no extractor 'lite'"):
        extractor_of("lite")
    with pytest.raises(UnknownName, match="known: auto, light, published"):
        choose("lite", None, ())
    with pytest.raises(ConfigError, match="made of networks"):
        extractor_of("published")


def test_the_published_one_is_taken_where_all_its_weights_are(folder, tiny):
    auto, asked = choose("auto", folder, ()), choose("published", None, (folder, *sorted(folder.glob("*/"))))
    assert (auto.extractor, auto.reason) == ("published", "all its weights are here")
    assert auto.networks is not None
    assert auto.networks.weights.keys() == SOURCES.keys()
    assert (asked.extractor, asked.reason) == ("published", "it was asked for")


def test_the_light_one_is_taken_where_something_lacks_and_says_what(tmp_path):
    choice = choose("auto", None, (tmp_path,))
    assert (choice.extractor, choice.networks) == ("light", None)
    assert all(source.names[0] in choice.reason for source in SOURCES.values())
    assert choose("light", None, ()).reason == "it was asked for"


def test_the_published_one_without_its_weights_says_where_each_comes_from(folder, tmp_path):
    with pytest.raises(ConfigError) as refused:
        choose("published", tmp_path, ())
    assert all(source.names[0] in str(refused.value) for source in SOURCES.values())
    assert all(source.address in str(refused.value) for source in SOURCES.values())


NEEDS = {
    "clarity": {"clarity"},
    "motion": {"motion"},
    "aesthetic": {"aesthetic", "aesthetic_head"},
    "background": {"background"},
    "subject": {"subject"},
    "dynamic": {"flow"},
    "identity": {"subject"},
}


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_only_the_files_that_a_dimension_needs_are_needed_and_looked_at(folder, tiny, tmp_path, dimension):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for name, path in find(tmp_path, ()).items():
        if name not in NEEDS[dimension]:
            path.write_text("torn")
    for name in ("auto", "published"):
        choice = choose(name, tmp_path, (), (dimension,))
        assert choice.extractor == "published"
        assert choice.networks is not None
        assert choice.networks.weights.keys() == NEEDS[dimension]
    with pytest.raises(ConfigError, match="is torn"):
        choose("auto", tmp_path, ())
    for name, path in find(tmp_path, ()).items():
        if name not in NEEDS[dimension]:
            path.unlink()
    assert choose("published", tmp_path, (), (dimension,)).networks == choice.networks
    find(tmp_path, ())[min(NEEDS[dimension])].unlink()
    with pytest.raises(ConfigError) as refused:
        choose("published", tmp_path, (), (dimension,))
    told = [name for name, source in SOURCES.items() if source.names[0] in str(refused.value)]
    assert told == [min(NEEDS[dimension])]


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_auto_takes_the_published_one_only_where_all_is_whatever_the_dimensions(folder, tiny, tmp_path, dimension):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    gone = "flow" if dimension != "dynamic" else "motion"
    find(tmp_path, ())[gone].unlink()
    choice = choose("auto", tmp_path, (), (dimension,))
    assert (choice.extractor, choice.networks) == ("light", None)
    assert choice.reason == f"the published networks lack {SOURCES[gone].names[0]}"
    assert choose("published", tmp_path, (), (dimension,)).extractor == "published"


def test_dimensions_together_need_what_each_needs(folder, tiny):
    choice = choose("auto", folder, (), ("aesthetic", "identity"))
    assert choice.networks is not None
    assert choice.networks.weights.keys() == NEEDS["aesthetic"] | NEEDS["identity"]


def test_without_torch_the_published_one_lacks_it(folder, monkeypatch):
    monkeypatch.setattr(presets, "find_spec", lambda name: None)
    assert choose("auto", folder, ()).reason == "the published networks lack torch"
    with pytest.raises(ConfigError, match="lacks the package torch"):
        choose("published", folder, ())


@pytest.mark.parametrize("name", ["auto", "published"])
def test_wrong_weights_are_told_and_never_passed_over(folder, name):
    with pytest.raises(ConfigError, match="has the weights of another network"):  # tiny ones for the real sizes
        choose(name, folder, ())


def test_lpips_compares_where_its_weights_are_and_there_is_something_to_compare(tmp_path):
    networks = lpips_in(tmp_path / "lpips")
    assert choose("light", tmp_path, (), lpips=True).lpips == networks
    assert choose("auto", None, (tmp_path / "lpips",), lpips=True).lpips == networks
    assert choose("light", tmp_path, ()).lpips is None
    next(iter(networks.weights.values())).path.unlink()
    assert choose("light", tmp_path, (), lpips=True).lpips is None


def test_the_light_one_needs_no_torch():
    code = (
        "import sys; from pathlib import Path; from lvbench.presets import choose; from lvbench import run, page; "
        "assert choose('auto', None, ()).extractor == 'light'; print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
