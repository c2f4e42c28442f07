"""The starting places that come with a world: short pieces of real play to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from worldsim.errors import ConfigError, WeightsError, shown
from worldsim.files import write_tensors


class Starts:
    """Numbered places, each some frames of play and the controls held at them.

    Args:
        frames: uint8 [places, F, H, W, 3].
        controls: float32 [places, F, A].
    """

    def __init__(self, frames: Tensor, controls: Tensor) -> None:
        self._frames = frames
        self._controls = controls

    def __len__(self) -> int:
        return len(self._frames)

    def get(self, number: int) -> tuple[Tensor, Tensor]:
        """Frames uint8 [F, H, W, 3] and controls float32 [F, A] of that place; ConfigError if there is none."""
        if not len(self):
            raise ConfigError(
                "this world comes without starting places; begin from frames of your own: frames=... or --image"
            )
        if not 0 <= number < len(self):
            raise ConfigError(f"there is no starting place {shown(number)}; choose from 0 to {len(self) - 1}")
        return self._frames[number], self._controls[number]

    def pick(self, seed: int) -> int:
        """The number of the place that a seed begins at."""
        return seed % max(1, len(self))

    @classmethod
    def none(cls) -> Starts:
        """No places at all: a world that can only be begun from given frames."""
        return cls(torch.empty(0, 0, 0, 0, 3, dtype=torch.uint8), torch.empty(0, 0, 0))

    @classmethod
    def load(cls, path: Path) -> Starts:
        """Read what `save` wrote; WeightsError if it is not there, torn or foreign."""
        try:
            tensors = load_file(path)
            frames, controls = tensors["frames"], tensors["controls"]
        except (SafetensorError, OSError, KeyError) as error:
            raise WeightsError(f"{path} holds no starting places ({error}); install the package again") from error
        if frames.ndim != 5 or controls.ndim != 3 or frames.shape[:2] != controls.shape[:2] or not len(frames):
            raise WeightsError(
                f"{path} holds no starting places: frames [places, F, H, W, 3] need controls [places, F, A], "
                f"got {list(frames.shape)} and {list(controls.shape)}; install the package again"
            )
        return cls(frames, controls)

    @staticmethod
    def save(path: Path, places: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Write places, each frames uint8 [F, H, W, 3] and controls float32 [F, A], all of one length."""
        frames, controls = (torch.stack(list(part)) for part in zip(*places, strict=True))
        write_tensors(path, {"frames": frames, "controls": controls})
