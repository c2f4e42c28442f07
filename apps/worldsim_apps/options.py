"""The options that commands of `worldsim` share, with what their help says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(help="Which world.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and no progress.")]
Seed = Annotated[int, typer.Option(min=0, help="Equal seeds give equal results.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, or a GPU by torch's name for it.")]
Weights = Annotated[
    str | None,  # as a Path ./a/b would be a/b, which may be a name on the hub
    typer.Option(
        help="A weights file of worldsim train in place of the shipped one; of a published model a folder, or the name "
        "on the hub that worldsim info tells."
    ),
]
Script = Annotated[
    Path | None,
    typer.Option(
        help='JSON lines such as {"block": 12, "keys": ["KeyW"]}, or "seconds": 2.5 for the block; without it, wait.'
    ),
]
Start = Annotated[int | None, typer.Option(help="Which of its starting places; by default one drawn by the seed.")]
Steps = Annotated[int | None, typer.Option(help="Backbone calls that denoise a block; by default the world's own.")]
Log = Annotated[Path | None, typer.Option(help="A new file for the log of the walk, which worldsim replay reads.")]
Policy = Annotated[
    str | None,
    typer.Option(help="What a block sees of the past, such as window:frames=32; by default the world's own."),
]
Kv = Annotated[
    str | None,
    typer.Option(help="How older keys and values are kept, such as int8 or kivi2:recent=16; by default exactly."),
]
Noise = Annotated[
    str,
    typer.Option(help="Noise that blocks begin with, such as cosine:low=60,period=32 or shuffled:window=4."),
]
NoCleanPass = Annotated[
    bool, typer.Option("--no-clean-pass", help="A block is a call less, and later ones see what its last call saw.")
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Memory for keys and values, such as 256MB; others lie on disk, with a GPU in host memory before that. By "
        "default all lie in memory."
    ),
]
Spill = Annotated[
    str | None, typer.Option(help="Folder that those beyond it lie in; by default the system's for temporary files.")
]
Explain = Annotated[
    Path | None, typer.Option(help="A .png that shows how much attention each block paid to what lies how far back.")
]
FramesPerBlock = Annotated[int | None, typer.Option(help="Frames made at once; by default the world's own, such as 1.")]
Prompt = Annotated[str | None, typer.Option(help="What a world shows that is told in words.")]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help='JSON lines such as {"block": 12, "prompt": "a lake"} for such a world, or "seconds": 2.5 for the block; '
        'with "over": 3 a prompt takes effect over so many.'
    ),
]
Size = Annotated[
    str | None, typer.Option(help="Width x height of a published model, by default its own, such as 832x480.")
]
OnPrompt = Annotated[
    str | None,
    typer.Option(
        help="What a new prompt leaves of the past: keep, flush:sink=1,recent=2, cut:gap=42 or recache:frames=12."
    ),
]
Preview = Annotated[
    Path | None, typer.Option(help="A file of the tiny decoder TAEHV, faster than the codec of published models.")
]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Compile the layers of a published model: pays in sessions of minutes.")
]
Offload = Annotated[
    bool | None,
    typer.Option(
        "--offload/--no-offload",
        help="Less GPU memory, and longer: what the codec carries waits in host memory, in tiles. By default where "
        "there is no room otherwise.",
    ),
]
PlanOffload = Annotated[
    bool, typer.Option("--offload", help="Plan for a codec that is offloaded, in tiles, as --offload of generate.")
]
Linears = Annotated[
    str | None, typer.Option(help="Layers of a published model multiply in 8 bits: fp8 on GPUs that do, int8 on CPUs.")
]
ModelPolicy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="What a block of a published model sees of the past, such as window:frames=9; by default its own.",
    ),
]
ModelKv = Annotated[
    str | None,
    typer.Option("--kv", help="How a published model keeps older keys and values, such as int8; by default exactly."),
]
ModelBudget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="GPU memory for keys and values of a published model, such as 3.5GB; others lie in host memory, then on "
        "disk. By default all lie on the GPU.",
    ),
]
Image = Annotated[
    Path | None,
    typer.Option(help="A picture to begin from, of any size, in place of a starting place; some worlds need one."),
]
FromVideo = Annotated[
    Path | None,
    typer.Option("--video", help="A video to go on from, in place of a picture: its end, as blocks see it."),
]
Video = Annotated[Path, typer.Option("--output", "-o", help="The video, an .mp4 file.")]
