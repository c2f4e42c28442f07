"""What a walk begins from and follows, read and refused before weights are read, which may take minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from worldsim_apps.about import Ahead, past_of
from worldsim_apps.telling import Refused, say

if TYPE_CHECKING:
    from worldsim.runtime.chunk import Frames
    from worldsim_apps.actions import Actions, Pace


def beginning(
    world: Ahead, *, image: Path | None, video: Path | None, start: int | None, policy: str | None
) -> Frames | None:
    """The frames of a picture, or of the end of a video, that a walk begins from; None if it begins otherwise.

    Raises:
        Refused: the world cannot begin so, or from both.
        ConfigError: what is given cannot be read, or there is no such policy.
    """
    from worldsim.published import fit_picture

    if image is not None and video is not None:
        raise Refused("both --image and --video say what the walk begins from; leave one out")
    if video is not None and world.needs_picture:
        raise Refused(f"{world.name} begins from one picture; name that with --image, in place of --video")
    if image is None and world.needs_picture:
        raise Refused(f"{world.name} begins from a picture, and none was given; name one with --image")
    if start is not None and not world.has_starts:
        raise Refused(f"{world.name} comes without starting places; leave --start out, or name a picture with --image")
    if video is not None:
        from worldsim_apps.footage import last_frames

        held, group = past_of(world.name, policy)
        return last_frames(video, world.size, most=1 + (held - 1) * group, group=group)
    return None if image is None else fit_picture(image, world)


def script_of(world: Ahead, pace: Pace, actions: Path | None, prompt: str | None, prompts: Path | None) -> Actions:
    """What is held and told at which block of a walk of that pace; the prompt stands for the beginning.

    Raises:
        Refused: the world takes no prompts, or two of them stand for the beginning.
        ActionsError: a line cannot be read.
    """
    from worldsim_apps.actions import Actions, read_actions, read_prompts

    script = read_actions(actions, world.controls, pace) if actions else Actions()
    told = read_prompts(prompts, pace) if prompts is not None else {}
    given = "--prompt" if prompt is not None else "--prompts" if prompts is not None else None
    if given is not None and not world.is_told:
        raise Refused(
            f"{world.name} is steered by keys alone and takes no prompts; leave {given} out, and give it --actions"
        )
    if prompt is not None and 0 in told:
        raise Refused(f"both --prompt and {prompts} say what block 0 shows; leave one out")
    return script.told(told if prompt is None else {0: (prompt, 1), **told})


def remark(scripts: Mapping[Path | None, Sequence[int]], *, blocks: int) -> None:
    """Tell what in scripts that were given, each with the blocks that its lines are of, changes nothing."""
    from worldsim_apps.actions import unread

    for path, begins in scripts.items():
        if path is not None and (said := unread(begins, blocks)):
            say(f"{path}: {said}")
