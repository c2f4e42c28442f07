"""What becomes of the past of a video when it is told to show something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from worldsim.cache.options import parse_options
from worldsim.cache.policy import Seen
from worldsim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptChange:
    """Which frames of the past outlive a change of the prompt, and which of them are computed anew under the new one.

    sink: of the first frames held, how many stay, beside the newest; all frames stay if recent is None.
    recent: of the newest frames, how many stay; None for all.
    anew: of the newest frames, how many are computed anew, in one pass in which they see each other whole. So many of
        the past are held for it, those among them that no block sees too.
    gap: so many frames further back than else what stays stands for the next block alone, which so shows another scene.

    Sources: recent and sink, the flush of infinity-RoPE, and gap, its cut, Yesiltepe et al. 2025 (arXiv:2511.20649);
    anew, the re-cache of LongLive, Yang et al. 2025 (arXiv:2509.22622), section 3.1.
    """

    sink: int = 0
    recent: int | None = None
    anew: int = 0
    gap: int = 0

    def __post_init__(self) -> None:
        if min(self.sink, self.anew, self.gap) < 0 or (self.recent is not None and self.recent < 1):
            raise ConfigError(
                "a change of the prompt keeps 1 or more recent frames, the rest is 0 or more, got "
                f"sink={self.sink}, recent={self.recent}, anew={self.anew} and gap={self.gap}"
            )

    @property
    def further(self) -> PromptChange:
        """What a further step of a change over several blocks does: no more is forgotten, or stands further back."""
        return PromptChange(anew=self.anew)

    def keep(self, held: Sequence[int]) -> Sequence[int]:
        """Which of the frames held, ascending, stay."""
        if self.recent is None:
            return held
        return sorted({*held[: self.sink], *held[-self.recent :]})

    def hold(self, held: Sequence[int], kept: Sequence[int]) -> Sequence[int]:
        """Of the frames held, ascending, those that a policy keeps, and the newest beside them up to `anew` in all."""
        others = [frame for frame in held if frame not in kept]
        spare = min(max(self.anew - len(kept), 0), len(others))
        return sorted([*kept, *others[len(others) - spare :]])

    def distant(self, seen: Sequence[Seen]) -> Sequence[Seen]:
        """What the next block sees, as far back as it then stands."""
        return [replace(one, position=one.position - self.gap) for one in seen]


KEEP = PromptChange()
KNOWN = {"keep": (), "flush": ("sink", "recent"), "cut": ("gap", "sink", "recent"), "recache": ("frames",)}
FLUSH: dict[str, Any] = {"sink": 1, "recent": 2}
CUT = FLUSH | {"gap": 42}
"""As infinity-RoPE has them: its newest three frames stand at 45 to 47 in place of 3 to 5."""


def parse_prompt_change(text: str) -> PromptChange:
    """The change that a text names: "keep", "flush:sink=1,recent=2", "cut:gap=42,sink=1,recent=2", "recache:frames=12".

    Options left out are those of the examples.

    Raises:
        UnknownName: nobody knows that change, or that option of it.
        ConfigError: an option is given twice, is not a whole number, or does not fit.
    """
    name, options = parse_options(text, KNOWN, kind="prompt change")
    if name == "recache":
        frames: Any = options.get("frames", 12)
        if frames < 1:
            raise ConfigError(f"1 frame or more is computed anew, got frames={frames}; ask for keep otherwise")
        return PromptChange(anew=frames)
    return KEEP if name == "keep" else PromptChange(**((CUT if name == "cut" else FLUSH) | options))


def prompt_change_text(change: PromptChange) -> str:
    """The text that parse_prompt_change reads as this change."""
    if change.anew:
        return f"recache:frames={change.anew}"
    if change.recent is None:
        return "keep"
    kept = f"sink={change.sink},recent={change.recent}"
    return f"cut:gap={change.gap},{kept}" if change.gap else f"flush:{kept}"


def newest_run(held: Sequence[int], next_frame: int) -> list[int]:
    """Those of the frames held, ascending, that follow each other without a gap up to the next one."""
    run: list[int] = []
    for frame in reversed(held):
        if frame != next_frame - 1 - len(run):
            break
        run.insert(0, frame)
    return run
