"""What benchmarks.decode_wan times, and how it counts."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import decode_wan
from benchmarks.decode_wan import NARROW, WIDTHS, Setting, config_of, drawn_backbone, drawn_codec, measure, world_of
from worldsim.codec.taehv import TaehvCodec
from worldsim.codec.wan import WanCodec
from worldsim.runtime.world import World

pytest.importorskip("diffusers")
CPU = torch.device("cpu")
PIXELS = (32, 48)


def flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def tiny_world(setting: Setting) -> tuple[World, decode_wan.WanBackbone]:
    backbone = drawn_backbone(config_of("tiny", PIXELS), device=CPU, dtype=torch.float32)
    codec = drawn_codec(preview=True, device=CPU, dtype=torch.float32, widths=NARROW)
    return world_of(backbone, codec, setting), backbone


@pytest.mark.parametrize("clean_pass", [True, False])
@pytest.mark.parametrize("window", [6, 12])
def test_the_floor_is_the_arithmetic_of_a_block_without_what_layers_do_not_repeat(
    window: int, clean_pass: bool
) -> None:
    world, backbone = tiny_world(Setting(window=window, clean_pass=clean_pass))
    config, past = backbone.config, window - 3
    bare = decode_wan.floor(backbone, frames=3, past=past, calls=world.calls_per_block)
    with world.open(seed=1, prompt="drawn") as session:
        while len(session._moment.decoder.context.frames) < past:
            session.step()
        decoder = session._moment.decoder
        whole = flops(lambda: decoder.commit(decoder.propose(torch.zeros(1, 3, 0))))
    tokens, patch = 3 * config.geometry.tokens_per_frame, 4 * config.channels
    ends = tokens * 2 * patch * config.dim
    levels = 3 * config.dim * (config.freq_dim + config.dim + 6 * config.dim)
    assert flops(bare) == whole - world.calls_per_block * 2 * (ends + levels)


def test_weights_are_drawn_alike_and_keep_numbers_finite() -> None:
    one, other = (drawn_backbone(config_of("tiny", PIXELS), device=CPU, dtype=torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all(parameter.isfinite().all() and parameter.std() > 0 for parameter in one.parameters())
    assert not any(parameter.requires_grad for parameter in one.parameters())


@pytest.mark.parametrize(("widths", "wide"), [(NARROW, 8), (WIDTHS, 96)])
def test_codecs_are_as_wide_as_published_unless_backbones_are_small(widths: tuple[int, ...], wide: int) -> None:
    codec = drawn_codec(preview=False, device=CPU, dtype=torch.bfloat16, widths=widths)
    assert isinstance(codec, WanCodec)
    assert (codec.model.state_dict()["encoder.conv_in.weight"].shape[0], codec.dtype) == (wide, torch.bfloat16)
    preview = drawn_codec(preview=True, device=CPU, dtype=torch.float32, widths=widths)
    assert isinstance(preview, TaehvCodec)
    assert preview.network.config.widths == widths[1:]


def test_a_small_size_has_the_proportions_of_the_published_one() -> None:
    small, full = config_of("small", PIXELS), config_of("1.3b", PIXELS)
    assert small.ffn_dim / small.dim == pytest.approx(full.ffn_dim / full.dim, rel=0.05)
    assert small.geometry == full.geometry == config_of("tiny", PIXELS).geometry


def test_a_timed_call_takes_at_least_as_long_as_it_sleeps_and_gives_what_it_returns() -> None:
    took, found = decode_wan.timed(lambda: time.sleep(0.02) or 7, CPU)
    assert (took >= 20, found) == (True, 7)


def test_everything_is_reported_of_every_setting() -> None:
    settings = [one for one in decode_wan.PLAIN if not one.compiled]
    found = measure("tiny", blocks=2, pixels=PIXELS, device=CPU, settings=settings)
    assert (found["size"], found["pixels"], found["dtype"]) == ("tiny", [*PIXELS], "float32")
    assert [*found["settings"]] == [
        "window 12, codec",
        "window 21, codec",
        "window 12, tiny decoder",
        "window 12, tiny decoder, no clean pass",
        "window 12, tiny decoder, 8 bits",
    ]
    for label, told in found["settings"].items():
        assert told["calls_per_block"] == (4 if "no clean" in label else 5)
        assert told["denoise_ms"]["count"] == told["whole_ms"]["count"] == 2
        assert told["fps"] == pytest.approx(12_000 / told["whole_ms"]["median"])
        assert told["real_time_factor"] == pytest.approx(told["fps"] / 16)
        assert 0 < told["ratio_to_floor"]["min"] <= told["ratio_to_floor"]["median"] < 1.5
        assert told["first_chunk_ms"] > 0
        assert "peak_gb" not in told


def test_what_is_found_is_kept_after_each_setting_and_layers_are_compiled_or_coded_as_it_says(monkeypatch):
    calls, kept = [], []
    monkeypatch.setattr(decode_wan, "speed_up", lambda layers, **how: calls.append((len(layers), how)))
    settings = [
        Setting(window=6, preview=True),
        Setting(window=6, preview=True, compiled=True, linears="fp8"),
        Setting(window=6, preview=True, compiled=True, linears="fp8", clean_pass=False),
    ]
    found = measure(
        "tiny",
        blocks=1,
        pixels=PIXELS,
        device=CPU,
        settings=settings,
        keep=lambda found: kept.append([*found["settings"]]),
    )
    labels = [
        "window 6, tiny decoder",
        "window 6, tiny decoder, compiled, 8 bits",
        "window 6, tiny decoder, no clean pass, compiled, 8 bits",
    ]
    assert [*found["settings"]] == labels
    assert kept == [labels[:1], labels[:2], labels]
    layers = config_of("tiny", PIXELS).layers
    assert calls == [(layers, {"compiled": False, "linears": None}), (layers, {"compiled": True, "linears": "fp8"})]


@pytest.mark.parametrize("settings", [decode_wan.PLAIN, decode_wan.FAST])
def test_settings_are_told_apart_by_their_labels(settings) -> None:
    labels = [setting.label for setting in settings]
    assert len({*labels}) == len(labels)


def test_without_a_gpu_the_settings_for_cpus_are_measured(monkeypatch) -> None:
    monkeypatch.setattr(decode_wan, "speed_up", lambda layers, **how: None)
    monkeypatch.setattr(decode_wan, "block_times", lambda *given, **more: {})
    found = measure("tiny", blocks=1, pixels=PIXELS, device=CPU)
    assert [*found["settings"]] == [setting.label for setting in decode_wan.PLAIN]
