"""Which likeness finds the place again: real play, where the engine knows which frames show what comes into view.

    python -m benchmarks.retrieval

Wherever a step of real play brings ground into view that no recent frame shows, and some old run of frames does, every
likeness is asked for two runs. A run is right if it shows at least half of that ground.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn.functional import normalize

import worldsim
from benchmarks.record import run, write
from benchmarks.tiles import CENTRE, COLUMNS, ROWS
from benchmarks.world_metrics import Count
from benchmarks.world_quality import Episode, explore_many, share
from worldsim.cache.policy import Alike, nothing_alike
from worldsim.cache.retrieval import Retrieval
from worldsim.decoding.likeness import Looks
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.models.protocol import Attend
from worldsim.presets import CRAFTER
from worldsim.runtime.world import World

POLICY = Retrieval(recent=16, top=2, run=8, bank=1_000)
FORMS = {
    "random": Retrieval(recent=16, top=2, run=8, bank=1_000, pick="random"),
    "mismatched": Retrieval(recent=16, top=2, run=8, bank=1_000, pick="unlikest"),
    "pages": Retrieval(recent=16, top=2, run=8, bank=1_000, within=64),
}
HALF = 0.5
Ground = frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """What the backbone has of every frame of an episode.

    latents: [F, C, H, W].
    queries, keys: of every layer the mean over tokens, before rotary embedding, [layers, F, heads * head_dim].
    coming: the queries, likewise, of the frame after each but the last, as the first call that makes it asks: from
        noise, under what steers it. [layers, F - 1, heads * head_dim].
    """

    latents: Tensor
    queries: Tensor
    keys: Tensor
    coming: Tensor


class Listening:
    """Attention that keeps the mean query and key of every layer, [2, heads * head_dim] each."""

    def __init__(self, attend: Attend) -> None:
        self.means: list[Tensor] = []
        self._attend = attend

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        """See worldsim.models.protocol.Attend."""
        self.means.append(torch.stack([side[0].mean(0).flatten() for side in (q, k)]))
        return self._attend(layer, q, k, v)


@torch.no_grad()
def ask(decoder: VideoDecoder, noisy: Tensor, level: float, controls: Tensor, attend: Attend) -> Tensor:
    """What passes in a call on a frame at some level, [layers, 2, heads * head_dim], see Listening."""
    listening = Listening(attend)
    decoder.backbone(noisy, decoder.tail(noisy), torch.full((1, 1), level), controls, listening)
    return torch.stack(listening.means)


def tell(world: World, episode: Episode) -> Told:
    """Commit all frames of an episode, and keep what passes."""
    decoder = VideoDecoder(world.backbone, world.pool, world.plan, seed=0)
    vectors = [world.controls.vector(held) for held in episode.keys]
    steering = torch.tensor(vectors, dtype=torch.float32)[None]
    latents = CRAFTER.codec.encode(torch.from_numpy(episode.frames), CRAFTER.codec.open())[0][None]
    clean, coming = [], []
    for at in range(latents.shape[1]):
        block = LatentBlock(latents=latents[:, at : at + 1], controls=steering[:, at : at + 1])
        coming.append(ask(decoder, decoder.canvas().values, 1.0, block.controls, decoder.view(1).attend))
        recording = decoder.recording(1)
        clean.append(ask(decoder, block.latents, 0.0, block.controls, recording.attend))
        decoder.absorb(block, recording)
        decoder.blocks += 1  # each begins with noise of its own
    decoder.close()
    (queries, keys), (asking, _) = (torch.stack(means).permute(2, 1, 0, 3) for means in (clean, coming))
    return Told(latents=latents[0], queries=queries, keys=keys, coming=asking[:, 1:])


def likenesses(told: Told, places: Any) -> dict[str, Callable[[int], Alike]]:
    """By name, how like each frame is to what follows a frame."""
    flat = normalize(told.latents.flatten(1), dim=1)
    spots = torch.as_tensor(places)

    def pooled(at: int) -> Alike:
        return Looks({}).of(dict(enumerate(told.latents[: at + 1]))).like_newest().__getitem__

    found: dict[str, Callable[[int], Alike]] = {
        "latents, means of 3 x 3 parts": pooled,
        "latents, whole": lambda at: (flat @ flat[at]).tolist().__getitem__,
        "the true distance": lambda at: (-(spots - spots[at]).abs().sum(1)).tolist().__getitem__,
    }
    for layer, keys in enumerate(told.keys):
        found[f"queries and keys of layer {layer}"] = partial(_asked, told.queries[layer], keys)
        found[f"queries of what comes, keys of layer {layer}"] = partial(_asked, told.coming[layer], keys)
    return found


def _asked(queries: Tensor, keys: Tensor, at: int) -> Alike:
    return (keys @ queries[at]).tolist().__getitem__


def shown(place: Sequence[int]) -> Ground:
    """The ground in view from a place."""
    row, column = int(place[0]) - CENTRE[0], int(place[1]) - CENTRE[1]
    return frozenset((row + down, column + right) for down, right in np.ndindex(ROWS, COLUMNS))


def coming(episode: Episode, at: int, recent: int = POLICY.recent) -> Ground:
    """The ground that the step after frame `at` brings into view, and none of the recent frames shows."""
    views = [shown(place) for place in episode.play.places[at + 1 - recent : at + 1]]
    return shown(episode.play.places[at + 1]) - frozenset[tuple[int, int]]().union(*views)


def shows(episode: Episode, run: Sequence[int], ground: Ground) -> bool:
    """Whether frames show at least half of some ground."""
    seen = frozenset[tuple[int, int]]().union(*(shown(episode.play.places[frame]) for frame in run))
    return len(seen & ground) >= HALF * len(ground)


def judge(episode: Episode, told: Told) -> dict[str, Count]:
    """How many of the runs that each likeness brings back are right, over the steps of an episode that can tell."""
    alike = likenesses(told, episode.play.places)
    found = {name: Count(0, 0) for name in (*alike, *FORMS)}
    for at in range(POLICY.recent + POLICY.run, len(episode.frames) - 1):
        ground, block = coming(episode, at), at + 1
        runs = [range(first, first + POLICY.run) for first in range(0, block - POLICY.recent - POLICY.run, POLICY.run)]
        if not ground or len(runs) <= POLICY.top or not any(shows(episode, run, ground) for run in runs):
            continue
        for name in found:
            policy = FORMS.get(name, POLICY)
            asked = alike["latents, means of 3 x 3 parts" if name in FORMS else name](at)
            seen = policy.see(range(block), block, nothing_alike if name == "random" else asked)
            old = [one.frame for one in seen if one.frame < block - POLICY.recent]
            brought = [old[first : first + POLICY.run] for first in range(0, len(old), POLICY.run)]
            right = sum(shows(episode, run, ground) for run in brought)
            found[name] = Count(found[name].right + right, found[name].judged + len(brought))
    return found


def main(
    episodes: Annotated[int, typer.Option(min=2, help="Episodes of real play.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the first episode.")] = 600_000_000,
    name: Annotated[str, typer.Option(help="Of the file written to benchmarks/results.")] = "retrieval",
) -> None:
    """Measure which likeness finds the place, and write benchmarks/results/NAME.json."""
    torch.set_num_threads(1)
    world = worldsim.load("crafter", recall=False)
    counts: dict[str, list[list[Count]]] = {}
    with typer.progressbar(explore_many(seed, episodes, frames_per_block=1), episodes, label="real play") as going:
        for episode in going:
            for which, count in judge(episode, tell(world, episode)).items():
                counts.setdefault(which, []).append([count])
    rng = np.random.default_rng(seed)
    found: Mapping[str, Any] = {which: asdict(share(each, rng)) for which, each in counts.items()}
    for which, right in sorted(found.items(), key=lambda item: -item[1]["value"]):
        typer.echo(
            f"{which:42} {right['value']:.1%} [{right['low']:.1%}, {right['high']:.1%}] of {right['judged']} runs"
        )
    write(name, {"seed": seed, "episodes": episodes, "right": found})


if __name__ == "__main__":
    run(main)
