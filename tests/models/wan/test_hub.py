"""A source is a path that is there, or a name on the hub; nothing here reaches for a network."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from worldsim.errors import MissingDependency, WeightsError
from worldsim.models.wan.hub import local_path

hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")


class Hub:
    """A hub with one repository, whose files appear in a folder when they are asked for."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder, self.files = folder, files
        self.asked: list[str] = []

    def list_repo_files(self, repository: str) -> list[str]:
        self.asked.append(f"list {repository}")
        return [*self.files]

    def hf_hub_download(self, repository: str, name: str) -> str:
        if name not in self.files:
            raise errors.LocalEntryNotFoundError(f"no {name}")
        self.asked.append(name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.files[name])
        return str(path)

    def snapshot_download(self, repository: str, *, allow_patterns: str) -> str:
        self.folder.mkdir(exist_ok=True)
        for name in self.files:
            if Path(name).match(allow_patterns):
                self.hf_hub_download(repository, name)
        return str(self.folder)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A repository as published, with one transformer."""
    index = json.dumps({"weight_map": {"a": "b-00001-of-00002.safetensors", "c": "b-00002-of-00002.safetensors"}})
    files = {
        "README.md": "",
        "checkpoints/self_forcing_dmd.pt": "weights",
        "Wan2.1_VAE.pth": "vae",
        "google/umt5-xxl/spiece.model": "pieces",
        "google/umt5-xxl/tokenizer.json": "{}",
        "google/b.safetensors.index.json": index,
        "google/b-00001-of-00002.safetensors": "1",
        "google/b-00002-of-00002.safetensors": "2",
    }
    made = Hub(tmp_path / "cache", files)
    for name in ("list_repo_files", "hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(hub, name, getattr(made, name))
    return made


def test_a_path_that_is_there_is_itself(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert local_path("org/name") == Path("org/name")
    assert local_path(tmp_path) == tmp_path
    assert not served.asked


def test_a_repository_is_its_only_transformer(served: Hub) -> None:
    path = local_path("gdhe17/Self-Forcing")
    assert path.read_text() == "weights"
    assert served.asked == ["list gdhe17/Self-Forcing", "checkpoints/self_forcing_dmd.pt"]


def test_a_file_is_brought_without_asking_for_the_others(served: Hub) -> None:
    assert local_path("gdhe17/Self-Forcing:Wan2.1_VAE.pth").read_text() == "vae"
    assert served.asked == ["Wan2.1_VAE.pth"]


def test_a_folder_is_brought_whole(served: Hub) -> None:
    path = local_path("Wan-AI/Wan2.1-T2V-1.3B:google/umt5-xxl")
    assert sorted(each.name for each in path.iterdir()) == ["spiece.model", "tokenizer.json"]
    with pytest.raises(WeightsError, match=r"Wan-AI/Wan2.1-T2V-1.3B has no folder other"):
        local_path("Wan-AI/Wan2.1-T2V-1.3B:other")


def test_an_index_comes_with_its_shards(served: Hub) -> None:
    path = local_path("org/name:google/b.safetensors.index.json")
    assert [(path.parent / f"b-0000{n}-of-00002.safetensors").read_text() for n in (1, 2)] == ["1", "2"]


def test_what_lies_beside_a_file_is_brought_with_it(served: Hub) -> None:
    served.files |= {"checkpoints/lora.pt": "changes"}
    for source in ("gdhe17/Self-Forcing", "gdhe17/Self-Forcing:checkpoints/self_forcing_dmd.pt"):
        assert local_path(source, beside=["lora.pt"]).with_name("lora.pt").read_text() == "changes"
    path = local_path("org/name:Wan2.1_VAE.pth", beside=["google/umt5-xxl/tokenizer.json"])
    assert (path.parent / "google" / "umt5-xxl" / "tokenizer.json").read_text() == "{}"
    with pytest.raises(WeightsError, match=r"org/name:google/lora\.pt is neither a path here nor .* \(no google/lora"):
        local_path("org/name:google/b.safetensors.index.json", beside=["lora.pt"])


def test_of_a_folder_that_comes_whole_nothing_is_asked_for_twice(served: Hub, tmp_path: Path) -> None:
    local_path("org/name:google/umt5-xxl", beside=["lora.pt"])
    assert served.asked == ["google/umt5-xxl/spiece.model", "google/umt5-xxl/tokenizer.json"]
    local_path(tmp_path, beside=["lora.pt"])
    assert len(served.asked) == 2


def test_more_than_one_transformer_is_told(served: Hub) -> None:
    served.files["checkpoints/ode_init.pt"] = ""
    with pytest.raises(
        WeightsError, match=r"name one: gdhe17/Self-Forcing:checkpoints/ode_init.pt, gdhe17/Self-Forcing:"
    ):
        local_path("gdhe17/Self-Forcing")


@pytest.mark.parametrize("name", ["nowhere", "./a/b", "../a", "a/b/c", "C:\\a", "/no/such/file.pt", "a b/c"])
def test_what_is_neither_path_nor_name_is_told(served: Hub, name: str) -> None:
    with pytest.raises(WeightsError, match=r"there is no .*; give a file, a folder, or a name on the hub"):
        local_path(name)
    assert not served.asked


@pytest.mark.parametrize("name", ["here/nowhere", "here/nowhere:a.pt", "some/weights.pt", "~/a", "~nobody/a"])
def test_a_path_is_told_from_a_name_without_asking_the_hub(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        WeightsError, match=r"there is no .*; give a file, a folder, or .* OWNER/NAME or OWNER/NAME:FILE"
    ):
        local_path(name)
    assert not served.asked


TROUBLES = {
    "offline": errors.OfflineModeIsEnabled("offline mode is enabled"),
    "unknown": errors.LocalEntryNotFoundError("not in the cache, and no network"),
    "odd": errors.HFValidationError("odd name"),
    "cut": errors.HfHubHTTPError.__bases__[0]("connection refused"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_without_a_network_or_such_a_name_it_is_told(
    served: Hub, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TROUBLES[trouble]

    for name in ("list_repo_files", "hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(hub, name, fail)
    for source in ("org/name", "org/name:a.pt", "org/name:folder"):
        with pytest.raises(WeightsError, match=r"org/name is neither a path here nor to be had from the hub \(\w+"):
            local_path(source)


def test_without_the_hubs_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "huggingface_hub":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r"pip install .* --editable '\.\[wan\]'"):
        local_path("org/name")
