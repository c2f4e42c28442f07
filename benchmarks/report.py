"""Writes docs/measured.md from the results of all benchmarks: `python -m benchmarks.report`.

Pictures of them are drawn before by benchmarks.plots.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, ROOT

Result = dict[str, Any]
QUALITY = {
    "tiles_one_block_ahead": "tiles right one block ahead",
    "sprite_one_block_ahead": "player sprite and facing right one block ahead",
    "inventory_one_block_ahead": "inventory right one block ahead",
    "ground_after_16_frames": "ground right after 16 own frames",
    "ground_come_back_to": "ground right that left the view and came back",
    "effect_of_blocked": "blocked moves have the right effect",
    "effect_of_drink": "drinking has the right effect",
    "effect_of_collect": "collecting has the right effect",
    "effect_of_place": "placing has the right effect",
    "effect_of_make": "making has the right effect",
    "neighbour_variation": "new terrain: total variation of neighbours",
    "neighbour_variation_by_chance": "the same between two samples of the real terrain of that size",
    "clean_after_60s": "clean tiles after 60 s",
    "sun_sets": "the sun sets within 60 s",
}
PARTS = {
    "key_to_picture": "key to the first picture that contains it",
    "to_the_server": "of it: to the server",
    "waiting_for_the_block": "waiting for the border of a block",
    "making_it": "making the block",
    "encoding": "encoding",
    "to_the_page": "to the page",
    "decoding_and_drawing": "decoding and drawing",
}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def source(result: Result) -> str:
    """What a result came from: command, hardware and commit."""
    told = result["provenance"]
    hardware = told["hardware"]
    parts = [hardware[name] for name in ("gpu", "cpu") if name in hardware]
    return f"`{told['command']}`, {', '.join(parts)}, {hardware['cores']} cores, commit `{told['commit'][:12]}`."


def quality(result: Result) -> str:
    """The bundled world against the real engine."""

    def row(name: str, measure: Result) -> list[str]:
        bar = next((f"{side} {measure[key]:.1%}" for key, side in BARS.items() if key in measure), "")
        spread = f"{measure['low']:.1%} to {measure['high']:.1%}"
        return [QUALITY[name], f"{measure['value']:.1%}", spread, str(measure["judged"]), bar]

    found = [row(name, result["measures"][name]) for name in QUALITY if name in result["measures"]]
    block = {1: "one frame", 2: "two frames", 4: "four frames"}[result["frames_per_block"]]
    return table([f"in blocks of {block}", "measured", "95 % interval", "judged", "bar"], found)


BARS = {"at_least": "at least", "at_most": "at most"}


def speed(result: Result) -> str:
    """What a block takes, a long run, and the first frame."""

    def row(name: str, block: Result) -> list[str]:
        frames, dtype = name.split(" frames, ")
        took = block["block_ms"]
        return [
            f"{frames} frame{'s' * (frames != '1')}, {dtype}",
            f"{took['median']:.0f} ms ({took['min']:.0f} to {took['max']:.0f})",
            *(f"{_middle(block[key]):.2f}" for key in ("fps", "real_time_factor", "ratio_to_floor")),
        ]

    run = result["long_run"]
    (settled, filled), *_ = [
        item for item in run["resident_mb"].items() if item[0] not in ("at_block_50", "at_the_end")
    ]
    heads = ["block", "median (min to max)", "frames a second", "real-time factor", "of the floor"]
    return (
        table(heads, [row(name, block) for name, block in result["per_block"].items()])
        + f"\n\nBlock 300 takes {run['ratio_300_to_50']:.2f} times as long as block 50. Resident memory is "
        f"{run['resident_mb']['at_block_50']:.0f} MB at block 50, {filled:.0f} MB at block "
        f"{settled.removeprefix('at_block_')}, when the last 60 s are remembered that can be gone back to, and from "
        f"there to block {run['blocks']} it grows by {100 * run['growth_once_settled']:.1f} %. First frame "
        f"{result['first_frame_s']['median']:.1f} s after the start of the process. The floor is the bare matrix "
        "products and attention of a block."
    )


def published(result: Result) -> str:
    """What a block of a published model takes, by part."""

    def row(name: str, block: Result) -> list[str]:
        parts = [f"{block[f'{part}_ms']['median']:.0f}" for part in ("denoise", "commit", "decode", "whole")]
        peak = [f"{block['peak_gb']:.1f}"] if "peak_gb" in block else ["-"]
        return [name, f"{block['fps']:.1f}", *parts, f"{_middle(block['ratio_to_floor']):.2f}", *peak]

    height, width = result["pixels"]
    heads = ["", "frames a second", "noise to clean, ms", "written, ms", "shown, ms", "whole block, ms", "of the floor"]
    return (
        table([*heads, "GB at the most"], [row(name, block) for name, block in result["settings"].items()])
        + f"\n\nPictures of {width} x {height} pixels, {result['dtype']}, weights drawn. The floor is the bare matrix "
        "products and attention of a block, in that dtype."
    )


def batching(result: Result) -> str:
    """Several sessions in one batch against the same one after the other."""

    def row(count: str, found: Result) -> list[str]:
        gain, together = found["gain"], found["together"]
        return [
            count,
            f"{found['turns']['blocks_per_s']:.1f}",
            f"{together['blocks_per_s']:.1f}",
            f"{gain['median']:.2f} ({gain['min']:.2f} to {gain['max']:.2f})",
            f"{together['block_ms_p50']:.0f} / {together['block_ms_p99']:.0f} ms",
        ]

    heads = ["sessions", "blocks a second in turns", "together", "gain, median (min to max)", "a block, p50 / p99"]
    return table(heads, [row(count, found) for count, found in result["sessions"].items()])


def live(result: Result) -> str:
    """What live worlds promise."""
    found = {what: told(result[what]) for what, told in LIVE.items() if what in result}
    rows = [[*text, _bars(result[what])] for what, text in found.items()]
    actions = result["actions"]["live_ms"]
    rows.append(["the same while the world runs at its pace", f"{actions['p50']:.0f} / {actions['p99']:.0f} ms", ""])
    return table(["on the toy of the tests unless said otherwise", "measured", "bar"], rows)


LIVE: dict[str, Callable[[Result], list[str]]] = {
    "scripts": lambda f: [
        "random lives equal after rewind, replay, fork, save and restore, here and in another process",
        f"{f['equal']} of {f['scripts']}",
    ],
    "kills": lambda f: [
        "sessions that go on after `kill -9`; blocks lost at most",
        f"{f['restored']} of {f['kills']}; {f['most_blocks_lost']}",
    ],
    "cuts": lambda f: [
        "streams cut at random bytes and resumed, whole and the same; resumed, p95",
        f"{f['equal']} of {f['cuts']}; {f['resume_ms']['p95']:.0f} ms",
    ],
    "deaths": lambda f: [
        f"left of {f['deaths']:,} clients that died: pages, sessions, descriptors, threads",
        ", ".join(f"{f[f'{what}_left']:.0f}" for what in ("pages", "sessions", "descriptors", "threads")),
    ],
    "stall": lambda f: [
        f"two who stop reading for {f['seconds']:.0f} s: server memory; another's p99",
        f"{f['resident_mb_more']:+.1f} MB; {f['slower']:.2f} times",
    ],
    "crowd": lambda f: [
        "four times the capacity asks: refused; how soon, p95; those inside",
        f"{f['refused']} of {f['asked']}; {f['refused_ms']['p95']:.1f} ms; {f['slower']:.2f} times",
    ],
    "transport": lambda f: ["a frame of 832 x 480 to a client here, p99", f"{f['transport_ms']['p99']:.2f} ms"],
    "encoding": lambda f: ["a JPEG of it, p95", f"{f['jpeg_ms']['p95']:.1f} ms"],
    "bombs": lambda f: [
        "pictures that unpack to gigabytes are refused within",
        f"{f['longest_ms']:.2f} ms, {f['memory_mb']:.3f} MB",
    ],
    "actions": lambda f: [
        "crafter: action to its first frame, world standing, p50 / p99; of it beside making the block",
        f"{f['at_once_ms']['p50']:.0f} / {f['at_once_ms']['p99']:.0f} ms; "
        f"{f['overhead_ms']['p50']:.1f} / {f['overhead_ms']['p99']:.1f} ms",
    ],
}


def browser(result: Result) -> str:
    """The player page, from the key to the picture."""
    rows = [
        [text, *(f"{result[f'{name}_ms'][quantile]:.1f} ms" for quantile in ("p50", "p95", "p99"))]
        for name, text in PARTS.items()
    ]
    alone, watched = result["alone"], result["with_two_spectators"]
    seen = [watched["player"], *watched["spectators"]]
    shown = ", ".join(f"{one['frames_per_second']:.1f} ({one['late']:.1%} late)" for one in seen)
    return (
        table([f"{result['actions']} keys pressed at random moments", "p50", "p95", "p99"], rows)
        + f"\n\nFrames drawn in a second: {alone['frames_per_second']:.1f} ({alone['late']:.1%} late by more than half "
        f"a frame's time) over {result['seconds']:.0f} s; with two spectators, player and spectators: {shown}. "
        f"What the browser complained of: {len(result['complaints'])}. Chromium {result['browser']}, headless."
    )


def scoring(result: Result) -> str:
    """How fast videos are scored."""

    def row(what: str, found: Result, peak: str = "") -> list[str]:
        return [what, f"{found['median']:.3g} ({found['min']:.3g} to {found['max']:.3g})", peak]

    film, peaks = result["film"], result["peak_mb"]
    rows = []
    for size, speeds, peak in (
        (film["size"], result["seconds_of_video_a_second"], peaks["small"]),
        (film["large"], result["seconds_of_large_video_a_second"], peaks["large"]),
    ):
        name = f"{size[1]} x {size[0]}"
        rows.append(row(f"decoding alone, {name}", speeds["decoding_alone"]))
        rows.append(row(f"light, {name}", speeds["light"], f"{peak:.0f} MB"))
    published = result["published_seconds_of_video_a_second"]
    rows += [row(f"{name}, {published['on']}", found) for name, found in published.items() if name != "on"]
    heads = [f"{film['seconds']} s at {film['fps']} frames a second", "seconds of video a second", "most memory"]
    return table(heads, rows) + "\n\nThe published networks have random weights here: that changes no time."


def row_by_row(result: Result) -> str:
    """At which commit each row was measured, where not all were by one command at one; begins with a space."""
    at: dict[str, list[str]] = {}
    for name, found in result["worlds"].items():
        at.setdefault(found["commit"][:12], []).append(name)
    if len(at) < 2:
        command = result.get("provenance", {}).get("command", "")
        is_whole = "--only" not in command or all(name in command for name in result["worlds"])
        return "" if is_whole else " Rows were measured by this command with `--only` and their names."
    told = "; ".join(f"at `{commit}` {', '.join(names)}" for commit, names in at.items())
    return f" Rows were measured at several commits, by this command with `--only` and their names: {told}."


def remembering(result: Result) -> str:
    """What is still there after having been away."""

    def row(name: str, found: Result) -> list[str]:
        right, away = found["right"], found["farthest"] or {"median": 0}
        return [
            name,
            f"{right['value']:.1%} ({right['low']:.1%} to {right['high']:.1%})" if right["value"] is not None else "",
            str(right["judged"]),
            f"{found['by_chance']:.1%}" if found["by_chance"] is not None else "",
            f"{found['asked'] - found['lost']} of {found['asked']}",
            f"{away['median']:.0f}",
            f"{found['psnr_db']:.1f} dB" if found["psnr_db"] is not None else "",
            f"{found['changed']['right']} of {found['changed']['judged']}",
        ]

    how = "goes round a square" if result["away_s"] is None else f"stays away for {result['away_s']:g} s of world time"
    heads = ["what a block knows of the past", "tiles right (95 %)", "judged", "by chance", "came home", "places away"]
    heads += ["PSNR of them", "own changes kept"]
    return (
        table(heads, [row(name, found) for name, found in result["worlds"].items()])
        + f"\n\nA walker leaves real play, {how} and comes home over ground that it has seen; judged are the tiles "
        "that the engine showed at the beginning and that were out of view for two seconds or more. Where the land has "
        "changed meanwhile the walker is lost, and nothing is judged. Its own change is a tree that it felled, a stone "
        f"that it took or put down, or a table, before it left.{row_by_row(result)}"
    )


def growing_old(result: Result) -> str:
    """What remembering costs by age."""

    def row(name: str, found: Result) -> list[str]:
        took = [f"{ms['median']:.0f}" for ms in found["block_ms"].values()]
        held = [f"{sum(parts.values()) / 1e6:.1f}" for parts in found["bytes"].values()]
        first, last = float(next(iter(found["bytes"]))), float(next(reversed(found["bytes"])))
        more = (float(held[-1]) - float(held[0])) / max(last - first, 1)
        growth, ratio = found["growth"], found["to_window"]
        return [
            name,
            " / ".join(took),
            f"{growth['median']:.2f}",
            f"{ratio['median']:.2f}",
            " / ".join(held),
            f"{more:.2f}",
        ]

    ages = " / ".join(next(iter(result["worlds"].values()))["block_ms"])
    heads = ["what a block knows of the past", f"ms a block at {ages} minutes", "growth", "to the window", "MB held"]
    heads += ["MB more a minute"]
    return table(heads, [row(name, found) for name, found in result["worlds"].items()]) + (
        "\n\nMedians of blocks made in turn: growth is the oldest over the youngest, and the window is as old. Held "
        "are the pages, the latents and what the backbone remembers of one session, beside what it can go back to."
    )


def finding(result: Result) -> str:
    """Which likeness finds the place again."""

    def row(name: str, found: Result) -> list[str]:
        return [name, f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})", str(found["judged"])]

    ranked = sorted(result["right"].items(), key=lambda item: -item[1]["value"])
    return table(["likeness", "runs that show it (95 %)", "judged"], [row(*item) for item in ranked]) + (
        "\n\nTwo runs of eight frames are brought back wherever a step of real play brings ground into view that no "
        "recent frame shows and some old run does; a run is right if it shows half of that ground."
    )


def reading(result: Result) -> str:
    """Whether retrieved frames are read, by weights as they are shipped and after being taught to."""

    def row(past: str) -> list[str]:
        found = [weights[past] for weights in result["right"].values()]
        told = [f"{one['value']:.1%} ({one['low']:.1%} to {one['high']:.1%})" for one in found]
        return [past, *told, str(found[0]["judged"])]

    heads = ["what is seen of the past", *(f"tiles right, {which} (95 %)" for which in result["right"]), "judged"]
    return table(heads, [row(past) for past in next(iter(result["right"].values()))]) + (
        "\n\nWherever a step of real play brings ground into view that none of the newest 32 frames shows and older "
        "ones do, the next frame is made from that play; right are tiles of that ground that are made of what the "
        "engine shows. Places are recalled only where it says so. The nearest runs are those of the place that is "
        "coming, which no likeness knows."
    )


def fewer_bits(result: Result) -> str:
    """Keys and values in fewer bits."""

    def row(name: str, found: Result) -> list[str]:
        change = found["likeness"]["change_db"]
        return [
            name,
            f"{found['bytes']['window_share']:.3f}",
            f"{found['bytes'].get('page_share_of_16_bits', 1):.3f}",
            f"{found['held_bytes']['share']:.3f}",
            f"{found['to_exact']['median']:.2f}",
            f"{change['value']:+.3f} dB ({change['low']:+.3f} to {change['high']:+.3f})",
            f"{found['likeness']['identical']:.1%}",
        ]

    heads = [
        "code",
        "bytes of a window",
        "a page to one of 16 bits",
        "held by a session",
        "time of a block",
        "PSNR one block ahead, change (95 %)",
    ]
    return table([*heads, "identical frames"], [row(name, found) for name, found in result["storages"].items()]) + (
        "\n\nBytes and time are those of exact float32 pages times so much, and once of pages of 16 bits; PSNR is "
        "that to the real engine's frames. A session that can go back holds what was recent at each of those blocks "
        "exactly too, unless nothing is."
    )


SIDE_BY_SIDE = "Every cache policy side by side"
DRIFTS = ("clarity", "motion", "background", "subject", "dynamic", "identity")


def drifting(result: Result) -> str:
    """How far long walks drift under every policy."""

    def cell(found: Result, kind: str) -> str:
        means = [f"{one[kind]['mean']:.3f}" if one[kind]["count"] else "-" for one in found.values()]
        last = list(found.values())[-1][kind]
        bounds = f" ({last['low']:.3f} to {last['high']:.3f})" if last["low"] is not None else ""
        return " / ".join(means) + bounds

    rows = [[name, *(cell(found["drift"], kind) for kind in DRIFTS)] for name, found in result["worlds"].items()]
    ends = " / ".join(str(end) for end in result["ends"])
    return table(["drift of", *DRIFTS], rows) + (
        f"\n\nMeans of {result['walks']} walks at {ends} seconds, and the 95 % interval of the last. What is "
        f"measured, and why the real engine drifts too, says [drift.md](drift.md).{row_by_row(result)}"
    )


WORTH = {
    "surprise in_view": ("surprise in view", "{:.4f}"),
    "surprise recalled": ("come back", "{:.3f}"),
    "surprise new": ("new", "{:.3f}"),
    "tiles_one_block_ahead": ("tiles one block ahead", "{:.2%}"),
    "ground_after_16_frames": ("ground after 16 frames", "{:.1%}"),
    "ground_come_back_to": ("ground come back to", "{:.1%}"),
    "neighbour_variation": ("neighbours' variation", "{:.1%}"),
    "clean_after_10s": ("clean after 10 s", "{:.1%}"),
}


def worth(result: Result) -> str:
    """What the parts of training and sampling against drift are worth."""

    def cell(kind: str, item: Result | None) -> str:
        if item is None:
            return "-"
        said = WORTH[kind][1].format
        spread = f"{said(item['mean'])} ({said(item['min'])} to {said(item['max'])})"
        return f"**{spread}**" if item["beyond_seeds"] else spread

    rows = [[arm, *(cell(kind, row.get(kind)) for kind in WORTH)] for arm, row in result["rows"].items()]
    return table(["arm", *(title for title, _ in WORTH.values())], rows) + (
        f"\n\nMeans of {result['seeds']} seeds, and the least and greatest of them; bold where all differ from "
        "the base of the same seed in one direction, which chance alone does for every second figure if there are two "
        "seeds. Surprise is in nats a token of held-out play."
    )


def policies(cost: Result, drift: Result, memory: Result) -> str:
    """Every cache policy side by side: what it costs, how far it drifts, what it remembers."""

    def row(name: str) -> list[str]:
        spent, drifted, kept = (each["worlds"].get(name) for each in (cost, drift, memory))
        last = list(drifted["drift"].values())[-1] if drifted else {}
        right = kept["right"] if kept else {"value": None}
        return [
            name,
            f"{list(spent['block_ms'].values())[-1]['median']:.0f}; {spent['to_window']['median']:.2f}"
            if spent
            else "-",
            f"{sum(list(spent['bytes'].values())[-1].values()) / 1e6:.0f}" if spent else "-",
            *(f"{last[kind]['mean']:.3f}" if last else "-" for kind in ("clarity", "identity")),
            f"{right['value']:.0%} ({right['low']:.0%} to {right['high']:.0%})" if right["value"] is not None else "-",
        ]

    names = dict.fromkeys(name for each in (drift, memory, cost) for name in each["worlds"])
    heads = ["policy", "ms a block after an hour; to the window", "MB held then", "drift of clarity", "of identity"]
    return table([*heads, f"tiles right after {memory['away_s']:g} s away (95 %)"], map(row, names)) + (
        f"\n\nOn the same weights; drift is that of walks of {drift['ends'][-1]} s. `make policies` measures it, "
        "for hours; commands, commits and the rest of each stand below. What never forgets has no cost after an hour."
    )


SECTIONS: dict[str, tuple[str, Callable[[Result], str]]] = {
    "world_quality": ("The bundled world against the real engine, held-out seeds", quality),
    "world_quality_2": ("The same, two frames decided at once", quality),
    "world_quality_4": ("The same, four frames decided at once", quality),
    "memory_5s": ("Coming back after 5 s", remembering),
    "memory_15s": ("Coming back after 15 s", remembering),
    "memory_60s": ("Coming back after 60 s", remembering),
    "memory_square": ("Coming back round a square", remembering),
    "retrieval": ("Finding the place again", finding),
    "reading": ("Reading what is retrieved", reading),
    "cost": ("What remembering costs", growing_old),
    "drift_policies": ("How far ten minutes drift", drifting),
    "drift_policies_60s": ("How far a minute drifts under every policy", drifting),
    "ablation": ("What parts of training and sampling are worth", worth),
    "decode-crafter": ("Speed of the bundled world", speed),
    "decode-wan-1.3b": ("Speed of published models of 1.3 billion parameters", published),
    "decode-wan-small": ("Speed of their kind at a size for CPUs", published),
    "kv": ("Keys and values in fewer bits", fewer_bits),
    "batching-crafter": ("Several sessions of it in one batch", batching),
    "live": ("Live worlds", live),
    "live_browser": ("The player page", browser),
    "lvbench": ("Scoring videos", scoring),
}


def report(results: Path) -> str:
    """The whole page, of those results that are there."""
    parts = [
        "# Measured",
        "Written by `python -m benchmarks.report` from benchmarks/results; each table names its command.",
    ]
    parts_of = [results / f"{name}.json" for name in ("cost", "drift_policies_60s", "memory_15s")]
    if all(path.exists() for path in parts_of):
        parts += [f"## {SIDE_BY_SIDE}", policies(*(json.loads(path.read_text()) for path in parts_of))]
    for name, (title, section) in SECTIONS.items():
        path = results / f"{name}.json"
        if path.exists():
            result: Result = json.loads(path.read_text())
            parts += [f"## {title}", section(result), source(result)]
            parts += [f"![{title}](../benchmarks/results/{name}.svg)"] if path.with_suffix(".svg").exists() else []
    return "\n\n".join(parts) + "\n"


def _middle(value: Any) -> float:
    return float(value["median"] if isinstance(value, dict) else value)


def _bars(figures: Result) -> str:
    missed = [text for text, holds in figures.get("bars", {}).items() if not holds]
    return f"missed: {', '.join(missed)}" if missed else "reached"


if __name__ == "__main__":
    (ROOT / "docs" / "measured.md").write_text(report(RESULTS))
