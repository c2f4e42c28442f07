"""The commands of `worldsim` and `lvbench` and their flags are a promise: a change here breaks somebody's scripts."""

from __future__ import annotations

import pytest
import typer
from typer.main import get_command

from lvbench.cli import app as lvbench
from worldsim_apps.cli import app as worldsim

PROMISED = {
    "generate": "--world --actions --prompt --prompts --seconds --seed --start --image --video --policy --kv --budget "
    "--spill --noise --no-clean-pass --steps --frames-per-block --size --on-prompt --preview --compile --linears "
    "--offload --device --weights --output -o --log --explain --json",
    "replay": "log --verify --output -o --device --weights --preview --budget --json",
    "serve": "--world --host --port --max-sessions --token --origin --name --folder --image --policy --kv "
    "--budget --spill --noise --no-clean-pass --steps --frames-per-block --size --on-prompt --preview --compile "
    "--linears --offload --device --weights --open --json",
    "ui": "--port --folder --device --open --json",
    "record": "name --frames --seed --held-out --workers --output -o --json",
    "train": "name --data --out --minutes --updates --seed --device --compile --resume --weights --recalling --json",
    "info": "world --world --size --policy --kv --budget --preview --linears --offload --json",
    "doctor": "--json",
    "convert": "source out --ema --lora --alpha --recipe --json",
}
SCORES = {
    "score": "videos --output -o --dimension --chunks --extractor --weights --reference --workers --ray --seed "
    "--max-pixels --max-frames --max-seconds --json",
    "compare": "one other --seed --json",
    "prompts": "annotations --block-seconds --output -o --segment-seconds --json",
}


@pytest.mark.parametrize(("app", "promised"), [(worldsim, PROMISED), (lvbench, SCORES)], ids=["worldsim", "lvbench"])
def test_the_commands_and_their_flags_are_the_promised_ones(app: typer.Typer, promised: dict[str, str]) -> None:
    commands = get_command(app).commands
    found = {
        name: " ".join(flag for flags in command.params for flag in flags.opts) for name, command in commands.items()
    }
    assert found == promised
