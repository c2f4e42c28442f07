"""How a video decoder makes a block: everything that is settled before the first."""

from __future__ import annotations

from dataclasses import dataclass

from worldsim.cache.answers import check_policy_parts
from worldsim.cache.policy import Policy
from worldsim.decoding.noise_plan import PLAIN, NoisePlan, noise_text
from worldsim.decoding.prompting import KEEP, PromptChange
from worldsim.decoding.rolling import Rolling
from worldsim.errors import ConfigError
from worldsim.samplers import Sampler, heun
from worldsim.schedules import check_sigmas


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlan:
    """How a video decoder makes a block.

    Args:
        frames_per_block: frames decided together.
        sigmas: noise levels at which the backbone is called, see LatentCanvas.
        sampler: takes the block from one level to the next.
        policy: what a block sees of the past.
        draw: ask the backbone, which must be a DrawingBackbone, for draws from its beliefs in place of their mean. It
            is what few_step needs; euler and heun follow means.
        recall: let the backbone, which must be a RememberingBackbone, recall what it remembers of a block to come.
        probes: how many queries of every finished block are asked how much attention each frame that it sees receives,
            see VideoDecoder.sight; none if 0.
        noise: how much noise each block begins with, and which.
        clean_pass: write what later blocks see of a block by a call on its clean frames. Off, they see the keys and
            values of the last call that made it, which were computed from what was still noisy at the last level: a
            call less, and a past as noisy as that level.
        from_nothing: let a video begin without any past.
        on_prompt: what becomes of the past when a video is told something else.
        rolling: denoise as many blocks as there are sigmas jointly, each a level behind the one before it, so that a
            block takes one call and its clean pass.
    """

    frames_per_block: int
    sigmas: tuple[float, ...]
    sampler: Sampler
    policy: Policy
    draw: bool = False
    recall: bool = False
    probes: int = 0
    noise: NoisePlan = PLAIN
    clean_pass: bool = True
    from_nothing: bool = False
    on_prompt: PromptChange = KEEP
    rolling: Rolling | None = None

    def __post_init__(self) -> None:
        check_policy_parts(self.policy)
        check_sigmas(self.sigmas)
        if self.frames_per_block < 1:
            raise ConfigError(f"a block has at least 1 frame, got {self.frames_per_block}")
        if self.noise.published % self.frames_per_block:
            raise ConfigError(
                f"noise in the published order is that of whole blocks of {self.frames_per_block} latent frames, got "
                f"{noise_text(self.noise)}; name "
                f"frames={-(-self.noise.published // self.frames_per_block) * self.frames_per_block}"
            )
        if self.rolling is not None:
            self._check_rolling()

    def _check_rolling(self) -> None:
        """Raise ConfigError unless a window can roll so."""
        wrong = {
            "the sampler heun": self.sampler is heun,
            f"noise {noise_text(self.noise)}": not self.noise.is_level,
            "no clean pass": not self.clean_pass,
            "a past that is computed anew": self.policy.anew,
        }
        if any(wrong.values()):
            raise ConfigError(
                "a window that rolls moves every block a level on by one call, from noise alone, and ends in a clean "
                f"pass, got {' and '.join(name for name, is_so in wrong.items() if is_so)}; choose few_step or euler, "
                "noise that is plain, shuffled or published, a clean pass and a policy of another name"
            )
        if 0 < self.noise.published < len(self.sigmas) * self.frames_per_block:
            raise ConfigError(
                f"a window that rolls has {len(self.sigmas)} blocks of {self.frames_per_block} frames, and a published "
                f"video no fewer, got noise {noise_text(self.noise)}; name "
                f"frames={len(self.sigmas) * self.frames_per_block} or more"
            )

    @property
    def limit(self) -> int | None:
        """The most frames of the past that are held, those among them that are computed anew; None without a bound."""
        limit = self.policy.limit
        if limit is None:
            return None
        return max(limit, self.on_prompt.anew) + (limit if self.policy.anew else 0)

    @property
    def beside(self) -> int:
        """Pages of one session beside what it holds: of its block, and of another or of what that may have packed."""
        frames, sparse = self.frames_per_block, self.policy.sparse
        return frames + (frames if sparse is None else sparse.packed(max(frames, self.on_prompt.anew)))

    @property
    def looks(self) -> dict[int, Policy]:
        """By what a block sees, 0, or its clean pass under a plan that rolls; and by what windows of so many frames."""
        if self.rolling is None:
            return {0: self.policy}
        block, rolling = self.frames_per_block, self.rolling
        windows = range(block, self.ahead + block + 1, block)
        joint = {frames: rolling.joint_of(windows[-1] - frames) or self.policy for frames in windows}
        return {0: rolling.clean or self.policy, **joint}

    @property
    def ahead(self) -> int:
        """How many frames are ahead of the past between two blocks."""
        return 0 if self.rolling is None else (len(self.sigmas) - 1) * self.frames_per_block

    def left_after(self, blocks: int) -> int | None:
        """How many blocks a video has left after so many; None where it has no end."""
        published = self.noise.published
        return max(0, published // self.frames_per_block - blocks) if published else None

    def ahead_after(self, blocks: int) -> int:
        """How many frames are ahead of the past after so many blocks: near the end of a video fewer than before."""
        left = self.left_after(blocks)
        return self.ahead if left is None else min(self.ahead, left * self.frames_per_block)
