"""Which files of weights the published networks need, where they come from, and where they are found on this machine.

Nothing is downloaded. Files are looked for under the names that they have where they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lvbench.errors import ConfigError
from lvbench.sizes import Sizes
from lvbench.store import hash_of

HUB = "https://huggingface.co/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one file of weights comes from.

    names: of the file, any of which will do; a path below a folder where the name alone would not tell it from others.
    address: of the first of them.
    """

    network: str
    names: tuple[str, ...]
    address: str


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights that was found, and the hash of its bytes."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """What is built of files of weights, by names in SOURCES for the published extractor, and for LPIPS in LPIPS."""

    weights: Mapping[str, Weights]
    sizes: Sizes = field(default_factory=Sizes)


def _snapshot(repository: str, file: str) -> tuple[str, str]:
    """A file as the hub's cache keeps it, and as it lies in a folder that it was downloaded to."""
    owner, name = repository.split("/")
    return f"models--{owner}--{name}/snapshots/*/{file}", f"{name}/{file}"


OPENAI = "https://openaipublic.azureedge.net/clip/models/"
SOURCES: Mapping[str, Source] = {
    "clarity": Source(
        network="MUSIQ, trained on SPAQ",
        names=("musiq_spaq_ckpt-358bb6af.pth",),
        address=f"{HUB}chaofengc/IQA-PyTorch-Weights",
    ),
    "motion": Source(network="AMT-S", names=("amt-s.pth",), address=f"{HUB}lalala125/AMT"),
    "aesthetic": Source(
        network="CLIP ViT-L/14",
        names=("ViT-L-14.pt", *_snapshot("timm/vit_large_patch14_clip_224.openai", "open_clip_model.safetensors")),
        address=f"{OPENAI}b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    ),
    "aesthetic_head": Source(
        network="LAION's aesthetic predictor",
        names=("sa_0_4_vit_l_14_linear.pth",),
        address="https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/sa_0_4_vit_l_14_linear.pth",
    ),
    "background": Source(
        network="CLIP ViT-B/32",
        names=("ViT-B-32.pt", *_snapshot("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")),
        address=f"{OPENAI}40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    ),
    "subject": Source(
        network="DINO ViT-B/16",
        names=("dino_vitbase16_pretrain.pth", *_snapshot("timm/vit_base_patch16_224.dino", "model.safetensors")),
        address="https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    ),
    "flow": Source(
        network="RAFT, trained on FlyingThings",
        names=("raft-things.pth",),
        address="https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip",
    ),
}
"""By the name of the network; "aesthetic_head" judges what "aesthetic" sees."""
LPIPS: Mapping[str, Source] = {
    "lpips": Source(
        network="AlexNet",
        names=("alexnet-owt-7be5be79.pth",),
        address="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    "lpips_head": Source(
        network="LPIPS 0.1",
        names=("LPIPS_v0.1_alex-df73285e.pth",),
        address=f"{HUB}chaofengc/IQA-PyTorch-Weights",
    ),
}
"""What compares a video with its reference, whichever extractor measures."""


def caches(environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """The folders in which programs keep such files for a user: the hub's, torch's, CLIP's, LAION's and VBench's.

    Args:
        environment: of the process, for HF_HUB_CACHE, HF_HOME, TORCH_HOME, VBENCH_CACHE_DIR and XDG_CACHE_HOME.
        home: of the user.
    """
    cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    hub = environment.get("HF_HUB_CACHE") or Path(environment.get("HF_HOME") or cache / "huggingface") / "hub"
    torch = Path(environment.get("TORCH_HOME") or cache / "torch") / "hub"
    vbench = Path(environment.get("VBENCH_CACHE_DIR") or cache / "vbench")
    return (
        Path(hub),
        *(torch / name for name in ("checkpoints", "pyiqa")),
        *(cache / name for name in ("clip", "emb_reader", "aesthetic_model/emb_reader", "amt_model")),
        *(vbench / name for name in ("clip_model", "aesthetic_model/emb_reader", "amt_model", "pyiqa_model")),
        *(vbench / name for name in ("raft_model/models", "dino_model")),
    )


def find(folder: Path | None, places: tuple[Path, ...], sources: Mapping[str, Source] = SOURCES) -> dict[str, Path]:
    """The file of each network that is there, by its name.

    Args:
        folder: looked at first, with all that is below it.
        places: looked at next, as caches() gives them.
        sources: what is looked for.

    Raises:
        ConfigError: the folder is none.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; --weights names one with the files of weights")
    found = {}
    for name, source in sources.items():
        for path in _candidates(source, folder, places):
            if path.is_file():
                found[name] = path
                break
    return found


def hashed(paths: Mapping[str, Path]) -> dict[str, Weights]:
    """The files with their hashes. Raises ConfigError if one cannot be read."""
    try:
        return {name: Weights(path.absolute(), hash_of(path)) for name, path in paths.items()}
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from error


def _candidates(source: Source, folder: Path | None, places: tuple[Path, ...]) -> Iterator[Path]:
    for name in source.names:
        if folder is not None:
            yield from sorted(folder.rglob(name))
    for place in places:
        for name in (*source.names, *_in_hub(source)):
            yield from sorted(place.glob(name))


def _in_hub(source: Source) -> tuple[str, ...]:
    """Where the hub's cache keeps the file, if it comes from there under its own name."""
    if not source.address.startswith(HUB):
        return ()
    return _snapshot(source.address.removeprefix(HUB), source.names[0])[:1]
