"""The networks of the published extractor behind numpy: frames go in, numbers come out, and torch stays here.

On a GPU if torch has one, else on one thread of the CPU: how a sum is split over threads decides its last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lvbench import sizes as kinds
from lvbench.extractor import Floats, Frames, Slots
from lvbench.networks import amt, archive, attention, clip, correlation, dino, lpips, musiq, pictures, raft, reading
from lvbench.sizes import Sizes
from lvbench.weights import Networks, Weights

CODE = (amt, archive, attention, clip, correlation, dino, kinds, lpips, musiq, pictures, raft, reading)
LEAST_PX = 128
"""Of a side where pictures are correlated: the smallest level of the pyramid is a 64th of it, and needs two places."""
BUILDERS: Mapping[str, Callable[[Sizes], nn.Module]] = {
    "clarity": lambda sizes: musiq.Musiq(sizes.clarity),
    "motion": lambda sizes: amt.Amt(),
    "aesthetic": lambda sizes: clip.Clip(sizes.aesthetic),
    "aesthetic_head": lambda sizes: nn.Linear(sizes.aesthetic.out, 1),
    "background": lambda sizes: clip.Clip(sizes.background),
    "subject": lambda sizes: dino.Dino(sizes.subject),
    "flow": lambda sizes: raft.Raft(sizes.flow_rounds),
    "lpips": lambda sizes: lpips.AlexNet(),
    "lpips_head": lambda sizes: lpips.Head(),
}


def device() -> torch.device:
    """Where the networks run."""
    return torch.device(torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def machine() -> str:
    """What the numbers of equal networks still depend on: torch, and the kind of device."""
    return f"torch {torch.__version__} on {device().type}"


def built(name: str, sizes: Sizes) -> nn.Module:
    """A network by its name, its shapes only: on "meta"."""
    with torch.device("meta"):
        return BUILDERS[name](sizes)


def check(networks: Networks) -> None:
    """Raise ConfigError unless every file has the weights of its network."""
    for name, weights in networks.weights.items():
        _loaded(name, weights, networks.sizes)


def slots_of(networks: Networks) -> Slots:
    """What they do, once loaded; a slot whose networks are not among them is not to be asked. Raises ConfigError."""
    where = device()
    loaded = {name: _loaded(name, weights, networks.sizes).to(where) for name, weights in networks.weights.items()}
    return Slots(
        clarity=_row(lambda x: loaded["clarity"](pictures.clarity_input(x)), where),
        aesthetic=_row(lambda x: beauty(loaded["aesthetic"], loaded["aesthetic_head"], x), where),
        background=_row(lambda x: loaded["background"](pictures.clip_input(x)), where),
        subject=_row(lambda x: loaded["subject"](pictures.dino_input(x)), where),
        between=lambda before, after: between(loaded["motion"], where, before, after),
        flow=lambda before, after: flow(loaded["flow"], where, before, after),
    )


def distance_of(networks: Networks) -> Callable[[Frames, Frames], float]:
    """How different two frames [H, W, 3] look, by LPIPS; 0 for equal ones. Raises ConfigError."""
    where = device()
    seeing, head = (_loaded(name, networks.weights[name], networks.sizes).to(where) for name in ("lpips", "lpips_head"))
    assert isinstance(head, lpips.Head)

    def distance(one: Frames, other: Frames) -> float:
        with _exact():
            added = pictures.edges((one.shape[0], one.shape[1]), 1, lpips.LEAST_PX)
            pair = F.pad(pictures.planes(np.stack([one, other]), where), added, mode="replicate")
            return float(lpips.distance(seeing, head, pair[:1], pair[1:]))

    return distance


def beauty(seeing: nn.Module, judging: nn.Module, frames: Tensor) -> Tensor:
    """How beautiful frames [n, 3, H, W], 0 to 255, are, [n], about 0 to 1."""
    features = F.normalize(seeing(pictures.clip_input(frames)), dim=-1)
    found: Tensor = judging(features)[:, 0] / 10
    return found


def between(network: nn.Module, where: torch.device, before: Frames, after: Frames) -> Frames:
    """The frame [H, W, 3] in the middle of two, by a network; cut to bytes, not rounded, as published."""
    with _exact():
        pair = pictures.planes(np.stack([before, after]), where) / 255
        added = pictures.edges((before.shape[0], before.shape[1]), 16, LEAST_PX)
        pair = F.pad(pair, added, mode="replicate")
        guess = pictures.inside(network(pair[:1], pair[1:]), added)[0]
        bytes_ = (guess * 255).permute(1, 2, 0).cpu().numpy().clip(0, 255)
    return np.asarray(bytes_, np.uint8)


def flow(network: nn.Module, where: torch.device, before: Frames, after: Frames) -> Floats:
    """The flow [H, W, 2] from one frame to another, by a network, in pixels.

    As published, with the edges that were added to make the sides multiples of 8; without those that were added to make
    a small picture large enough, which the published program cannot measure.
    """
    size = before.shape[0], before.shape[1]
    with _exact():
        added = pictures.edges(size, 8, LEAST_PX)
        pair = F.pad(pictures.planes(np.stack([before, after]), where), added, mode="replicate")
        found = network(pair[:1], pair[1:])
        if min(size) < LEAST_PX:
            found = pictures.inside(found, added)
    return np.asarray(found[0].permute(1, 2, 0).cpu().numpy(), np.float32)


def _loaded(name: str, weights: Weights, sizes: Sizes) -> nn.Module:
    return reading.fill(built(name, sizes), reading.read(weights.path), weights.path)


def _row(network: Callable[[Tensor], Tensor], where: torch.device) -> Callable[[Frames], Floats]:
    """A network over frames [n, H, W, 3]: a number or a row of them for each."""

    def measure(frames: Frames) -> Floats:
        with _exact():
            return np.asarray(network(pictures.planes(frames, where)).cpu().numpy(), np.float32)

    return measure


@contextmanager
def _exact() -> Iterator[None]:
    """No gradients, full float32, and sums in the same order whatever else the process does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
