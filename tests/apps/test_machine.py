"""The description of a machine fits into JSON and names what matters."""

from __future__ import annotations

import json

import torch

from worldsim_apps.machine import machine


def test_a_machine_is_described_in_plain_values():
    found = machine()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] in ("cpu", "cuda")
    assert found["h264"] is True


def test_the_gain_of_bfloat16_is_a_measured_ratio():
    assert 0 < machine()["cpu_bf16_speedup"] < 100
