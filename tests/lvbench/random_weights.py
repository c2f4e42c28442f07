"""Weights for networks, drawn by their names: the same on every machine, whoever builds the network."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lvbench.networks.loading import built
from lvbench.sizes import ClipSize, DinoSize, MusiqSize, Sizes
from lvbench.weights import LPIPS, SOURCES, Networks, find, hashed

TINY = Sizes(
    aesthetic=ClipSize(patch=56, width=24, layers=2, heads=3, out=10),
    background=ClipSize(patch=112, width=16, layers=1, heads=2, out=6),
    subject=DinoSize(width=32, layers=2, heads=4),
    clarity=MusiqSize(width=24, hidden=40, layers=2, heads=3),
    flow_rounds=2,
)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Random weights for each name in the state of a network, which may be on "meta"."""
    return {name: drawn(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()}


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weights of one name: about 1 where something is scaled, else so small that sums stay about as large."""
    same = name.replace(".downsample.1.", ".norm3.")  # RAFT's weights name one part twice
    numbers = np.random.default_rng(zlib.crc32(same.encode())).standard_normal(shape)
    if name.endswith("num_batches_tracked"):
        return torch.ones(shape, dtype=torch.int64)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return torch.tensor(np.abs(1 + 0.1 * numbers), dtype=torch.float32)
    return torch.tensor(numbers * 0.5 / np.sqrt(np.prod(shape[1:], initial=1)), dtype=torch.float32)


def folder_of_weights(folder: Path, sizes: Sizes = TINY) -> Path:
    """A folder with a file for each network as they are published: names, wrappings and prefixes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in SOURCES.items():
        state = state_of(built(name, sizes))
        if name in ("aesthetic", "background"):
            path = folder / source.names[-1]
            path.parent.mkdir()
            save_file({**{f"visual.{each}": tensor for each, tensor in state.items()}, "text": torch.zeros(2)}, path)
        else:
            wrapped = {"state_dict": state} if name == "motion" else state
            plain = {f"module.{each}": tensor for each, tensor in state.items()} if name == "flow" else wrapped
            torch.save(plain, folder / source.names[0])
    return folder


def networks_of(folder: Path, sizes: Sizes = TINY) -> Networks:
    """The networks of such a folder."""
    return Networks(weights=hashed(find(folder, ())), sizes=sizes)


def lpips_in(folder: Path) -> Networks:
    """The networks of LPIPS, of random weights put into a folder as they are published."""
    folder.mkdir(parents=True, exist_ok=True)
    seeing, head = (state_of(built(name, TINY)) for name in LPIPS)
    features = {f"features.{name}": tensor for name, tensor in seeing.items()}
    for state, source in zip(({**features, "classifier.1.bias": torch.zeros(2)}, head), LPIPS.values(), strict=True):
        torch.save(state, folder / source.names[0])
    return Networks(weights=hashed(find(folder, (), LPIPS)))
