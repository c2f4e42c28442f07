"""A walk through a published model that is made faster, from the command line, and lived again from its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_wan import converted, tiny_decoder
from worldsim_apps.cli import main

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


def test_a_walk_in_8_bits_with_a_preview_is_verified_with_the_file_of_that_preview(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights").mkdir()
    weights = ["--weights", str(converted(tmp_path / "weights")), "--device", "cpu"]
    log, tiny, other = (str(tmp_path / name) for name in ("walk.log", "tiny.pth", "other.pth"))
    tiny_decoder(Path(tiny))
    tiny_decoder(Path(other), seed=4)
    walk = ["generate", "--world", "self-forcing", "--size", "96x64", "--seconds", "0.5", "--prompt", "a lake"]
    results = ["--output", str(tmp_path / "walk.mp4"), "--log", log]
    assert main([*walk, *weights, "--linears", "int8", "--preview", tiny, *results]) == 0
    again = ["replay", log, "--verify", *weights]
    assert main([*again, "--preview", tiny, "--budget", "1GB"]) == 0
    capsys.readouterr()
    for more, told in (
        ([], "here it is None; load the world as it was then, with the same options: preview=FILE or --preview FILE"),
        (["--preview", other], "here it is sha256:"),
        (["--preview", tiny, "--budget", "1KB"], "the budget is 1000; choose one of"),
        (["--preview", tiny, "-o", tiny], "the preview and the video are both"),
    ):
        assert main([*again, *more]) == 2
        assert told in capsys.readouterr().err
