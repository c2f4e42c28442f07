"""The command does what it was asked, or says in one line why not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvbench import presets
from lvbench.cli import main
from lvbench.examine import READER
from lvbench.light import Light
from lvbench.measures import COMPANIONS, DIMENSIONS
from lvbench.published import NOT_NEEDED
from lvbench.reference import LIKENESSES
from lvbench.store import Store, hash_of
from lvbench.video import DECODER
from lvbench.weights import SOURCES, Networks, find
from tests.lvbench.films import cut, drifting, film, sound
from tests.lvbench.random_weights import TINY, folder_of_weights, lpips_in

CHUNKS = ("--chunks", "3")


@pytest.fixture(autouse=True)
def _bare(tmp_path, monkeypatch):
    """No weights anywhere, whatever this machine has."""
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "VBENCH_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for at in range(3):
        film(folder / f"{at}.mp4", drifting(20 + 3 * at))
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two good videos among all that can be wrong with one."""
    folder = tmp_path_factory.mktemp("mixed")
    whole = film(folder / "good.mp4", drifting(20))
    film(folder / "good too.webm", drifting(20), "libvpx-vp9")
    cut(whole, 0.5, "cut.mp4")
    (folder / "text.mp4").write_text("hello\n" * 99)
    (folder / "empty.mkv").touch()
    sound(folder / "sound.mp4")
    film(folder / "short.mp4", drifting(8))
    gif = bytearray(film(folder / "huge.gif", drifting(9), "gif", fmt="rgb8").read_bytes())
    gif[6:10] = (20_000).to_bytes(2, "little") * 2
    (folder / "huge.gif").write_bytes(gif)
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    return folder


def told(capsys) -> tuple[dict, str]:
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err


def test_a_folder_of_videos_becomes_a_report(videos, tmp_path, capsys):
    assert main(["score", str(videos), "-o", str(tmp_path / "report"), *CHUNKS, "--json"]) == 0
    fields, errors = told(capsys)
    assert (fields["scored"], fields["unscored"], errors) == (3, 0, "")
    report = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert report["summary"] == fields["summary"]
    assert (tmp_path / "report" / "scores.csv").read_text().count("\n") == 1 + 3 * (7 + 7 + 1)
    page = (tmp_path / "report" / "report.html").read_text()
    assert 1 <= page.count("data:image/jpeg;base64,") <= 3
    assert f"<p>{videos.name}: 3 videos scored" in page
    assert "reference" not in report["videos"][0]


def test_bad_videos_are_named_and_cost_nobody_else(mixed, tmp_path, capsys):
    assert main(["score", str(mixed), "-o", str(tmp_path), *CHUNKS, "--workers", "2", "--extractor", "light"]) == 3
    shown = capsys.readouterr()
    assert "2 videos scored by the light extractor, 7 not" in shown.out
    lines = dict(line.split(": ", 1) for line in shown.err.splitlines())
    assert sorted(lines) == sorted(
        ["cut.mp4", "empty.mkv", "huge.gif", "list.mp4", "short.mp4", "sound.mp4", "text.mp4"]
    )
    assert "8 frames are too few for 3 chunks" in lines["short.mp4"]
    assert "only audio" in lines["sound.mp4"]
    report = json.loads((tmp_path / "scores.json").read_text())
    assert {video["name"]: video["unscored"] for video in report["videos"] if "unscored" in video} == lines
    assert main(["score", str(mixed), "-o", str(tmp_path), *CHUNKS, "--json"]) == 3
    fields, _ = told(capsys)
    assert (fields["unscored"], fields["reasons"]) == (7, lines)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["score"], "Missing argument"),
        (["score", "--jsn"], "No such option: --jsn (Possible options: --json). lvbench --help"),
        (["scoer"], "Did you mean 'score'? lvbench --help"),
        (["score", "none"], "none does not exist"),
        (["score", "."], "there is no video in"),
        (["score", "{videos}", "--dimension", "clearity"], "did you mean 'clarity'"),
        (["score", "{videos}", "--extractor", "lite"], "no extractor 'lite'"),
        (["score", "{videos}", "--chunks", "1"], "'--chunks'"),
        (["score", "{videos}", "--workers", "0"], "'--workers'"),
        (["score", "{videos}", "--max-seconds", "0"], "limits are above 0"),
        (["score", "{videos}", "--reference", "none"], "none is no folder"),
        (["score", "{videos}", "-o", "{videos}/0.mp4"], "0.mp4 cannot be written: Not a directory; choose another"),
        (["score", "{videos}", "--max-seconds", "inf"], "of time up to 1,000,000 s"),
        (["score", "{videos}", "--chunks", "100000000"], "less than or equal to 10000"),
        (["score", "{videos}", "--chunks", "5000", "--max-frames", "14999"], "ask for at most 4,999 chunks"),
        (["score", "{videos}", "--max-pixels", "1000000000000000000"], "less than or equal to 268435456"),
        (["score", "{videos}", "--max-frames", "1000000000000000000"], "less than or equal to 10000000"),
        (["score", "{videos}", "--max-seconds", "1e18"], "of time up to 1,000,000 s"),
        (["score", "{videos}", "--workers", "1000000"], "less than or equal to 1024"),
        (["prompts", "none.json", "--block-seconds", "1"], "cannot read the annotations none.json"),
        (["prompts", "none.json"], "Missing option '--block-seconds'. lvbench --help"),
        (["compare", "none", "none"], "cannot be read"),
    ],
)
def test_wrong_use_is_told_in_one_line(videos, tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    assert main([argument.format(videos=videos) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert any(part in shown.err for part in reason.split("|"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(videos, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["score", str(videos), "-o", str(tmp_path / "report")]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_one_other_file_is_named_and_so_are_a_few(videos, tmp_path, capsys):
    os.link(videos / "0.mp4", tmp_path / "0.mp4")
    for name in ("a.md", "notes.txt"):
        (tmp_path / name).write_text("hello")
    assert main(["score", str(tmp_path), "-o", str(tmp_path / "report"), *CHUNKS, "--json"]) == 0
    assert told(capsys)[1] == "passed over, since not named as videos: a.md, notes.txt; name one alone to score it\n"


def test_files_that_are_not_named_as_videos_are_not_passed_over_in_silence(videos, tmp_path, capsys):
    for name in ("0.mp4", "1.mp4"):
        os.link(videos / name, tmp_path / name.replace("1.mp4", "1.movie"))
    asked = ["score", str(tmp_path), "-o", str(tmp_path / "report"), *CHUNKS, "--json"]
    for _ in range(2):  # the report in it is none of them
        assert main(asked) == 0
        fields, errors = told(capsys)
        assert (fields["scored"], errors) == (
            1,
            "passed over, since not named as videos: 1.movie; name one alone to score it\n",
        )


def test_what_cannot_be_kept_is_told_once_and_costs_no_score(videos, tmp_path, capsys):
    for video in videos.iterdir():
        key = (hash_of(video), Light().fingerprint, DECODER, READER)
        Store(tmp_path / "cache")._path(key).mkdir(parents=True)  # where a file should be
    assert main(["score", str(videos), "-o", str(tmp_path), *CHUNKS, "--extractor", "light", "--json"]) == 0
    fields, errors = told(capsys)
    assert (fields["scored"], errors.count("\n")) == (3, 1)
    assert errors.startswith("what was measured is not kept for the next time: [Errno 21] Is a directory")


def test_workers_change_no_byte_of_the_scores(mixed, tmp_path):
    for workers in ("1", "3"):
        main(["score", str(mixed), "-o", str(tmp_path / workers), *CHUNKS, "--workers", workers, "--json"])
    for name in ("scores.json", "scores.csv", "report.html"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_a_run_that_was_killed_goes_on_and_ends_the_same(videos, tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    main(["score", str(videos), "-o", str(whole), *CHUNKS, "--json"])
    command = [sys.executable, "-m", "lvbench", "score", str(videos), "-o", str(torn), *CHUNKS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while not (kept := list(torn.glob("cache/*.npz"))):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (torn / "scores.json").exists()
    before = {path: path.stat().st_mtime_ns for path in kept}
    main(["score", str(videos), "-o", str(torn), *CHUNKS, "--json"])
    assert (torn / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_ctrl_c_stops_it_at_once(tmp_path, videos):
    long = tmp_path / "videos"
    long.mkdir()
    for at in range(40):
        os.link(videos / "0.mp4", long / f"{at}.mp4")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "lvbench", "score", str(long), "-o", str(out), *CHUNKS, "--extractor", "light"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(out.glob("cache/*.npz")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    shown, errors = process.communicate(timeout=20)
    assert (process.returncode, shown) == (130, "")
    assert errors == "lvbench: stopped by Ctrl-C; the same command goes on\n"


def test_names_of_files_reach_a_terminal_as_text(tmp_path, capsys):
    for name in ("a\nlvbench: fine.mp4", "\x1b[2J.mp4", "\u202e4pm.mp4", "größer.mp4", os.fsdecode(b"\xff.mp4")):
        (tmp_path / name).touch()
    assert main(["score", str(tmp_path), "-o", str(tmp_path / "re\nport"), "--extractor", "light"]) == 3
    shown = capsys.readouterr()
    names = sorted(line.partition(".mp4: ")[0] for line in shown.err.splitlines())
    assert names == ["\\u202e4pm", "\\udcff", "\\x1b[2J", "a\\nlvbench: fine", "größer"]
    assert shown.out.startswith(f"{tmp_path}/re\\nport/report.html: 0 videos scored")


def test_only_the_dimensions_asked_for_are_scored(videos, tmp_path, capsys):
    arguments = ["--dimension", "motion", "--dimension", "clarity", *CHUNKS, "--json"]
    assert main(["score", str(videos), "-o", str(tmp_path), *arguments]) == 0
    assert {name for name in told(capsys)[0]["summary"] if name.startswith("drift.")} == {
        "drift.clarity",
        "drift.motion",
    }


def test_a_reference_is_compared_with_each_video(videos, tmp_path, capsys):
    assert main(["score", str(videos), "-o", str(tmp_path), *CHUNKS, "--reference", str(videos), "--json"]) == 0
    assert told(capsys)[0]["summary"]["ssim"]["mean"] == pytest.approx(1)
    assert "agreement of motion" in (tmp_path / "report.html").read_text()


def test_lpips_compares_with_a_reference_where_its_weights_are(videos, tmp_path, capsys):
    networks = lpips_in(tmp_path / "weights")
    asked = ["score", str(videos), "-o", str(tmp_path / "report"), *CHUNKS, "--reference", str(videos), "--json"]
    assert main(asked) == 0
    assert "alexnet-owt-7be5be79.pth" in next(iter(told(capsys)[0]["summary"]["lpips"]["unscored"]))
    assert main([*asked, "--weights", str(tmp_path / "weights")]) == 0
    assert told(capsys)[0]["summary"]["lpips"]["mean"] == 0
    used = json.loads((tmp_path / "report" / "scores.json").read_text())["lpips"]
    assert used == {name: weights.sha256 for name, weights in networks.weights.items()}
    assert "difference in looks, LPIPS" in (tmp_path / "report" / "report.html").read_text()


def test_a_reference_that_is_not_there_is_told_and_counted(videos, tmp_path, capsys):
    real, out = tmp_path / "real", tmp_path / "report"
    real.mkdir()
    film(real / "0.mp4", drifting(13))  # its own has 20 frames
    (real / "1.mp4").write_text("hello\n" * 99)
    asked = ["score", str(videos), "-o", str(out), *CHUNKS, "--reference", str(real), "--extractor", "light"]
    assert main(asked) == 3
    shown = capsys.readouterr()
    lines = dict(line.split(": ", 1) for line in shown.err.splitlines())
    assert set(lines) == {"1.mp4", "2.mp4"}
    assert "there is no reference of that name" in lines["2.mp4"]
    assert "3 videos scored by the light extractor, 0 not, 2 not compared with their reference" in shown.out
    beside = [video["reference"].get("sha256") for video in json.loads((out / "scores.json").read_text())["videos"]]
    assert beside == [hash_of(real / "0.mp4"), None, None]
    page = (out / "report.html").read_text()
    assert "0.mp4 (13 of 20)." in page
    assert "n 1, 2 left out [" in page
    assert page.count(lines["2.mp4"]) == 1
    assert (out / "scores.csv").read_text().count(lines["2.mp4"]) == 4
    assert main([*asked, "--json"]) == 3
    fields = told(capsys)[0]
    assert (fields["unscored"], fields["without_reference"], fields["reasons"]) == (0, 2, lines)
    assert sum(fields["summary"]["ssim"]["unscored"].values()) == 2


def test_two_reports_are_compared(videos, tmp_path, capsys):
    main(["score", str(videos), "-o", str(tmp_path), *CHUNKS, "--json"])
    capsys.readouterr()
    assert main(["compare", str(tmp_path), str(tmp_path / "scores.json")]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert "motion: drift: B - A +0, 3 pairs, chance 1: no difference shown" in lines
    assert "aesthetic: drift: not compared (3 unscored in A, 3 unscored in B)" in lines
    assert shown.err == ""
    assert main(["compare", str(tmp_path), str(tmp_path), "--json"]) == 0
    fields = told(capsys)[0]
    assert {one["verdict"] for one in fields["scores"]} == {"no difference shown", "not compared"}


def doctored(report, folder, **videos):
    """A report with other videos, given by their names."""
    folder.mkdir()
    fields = [{**fields, "name": name} for name, fields in videos.items()]
    (folder / "scores.json").write_text(json.dumps({**report, "videos": fields}))
    return str(folder)


@pytest.fixture(scope="module")
def scored(videos, tmp_path_factory):
    """The report of three videos."""
    folder = tmp_path_factory.mktemp("scored")
    main(["score", str(videos), "-o", str(folder), *CHUNKS, "--json"])
    return json.loads((folder / "scores.json").read_text())


def test_likenesses_to_other_references_are_told_as_what_they_are(scored, tmp_path, capsys):
    likened = {name: {"value": 0.5, "count": 23} for name in LIKENESSES}
    beside = [
        {"sha256": real, "frames": frames, "chunks": {}, "scores": likened}
        for real, frames in (("r", 23), ("s", 23), ("r", 12))
    ]
    shown = [*scored["videos"], scored["videos"][0]]
    one = {f"{at}.mp4": {**each, "reference": beside[0]} for at, each in enumerate(shown)}
    others = zip(shown, [beside[1], beside[1], beside[2]], strict=False)
    other = {f"{at}.mp4": {**each, "reference": real} for at, (each, real) in enumerate(others)}
    other["3.mp4"] = {"unscored": "it has no frames"}
    places = [doctored(scored, tmp_path / "one", **one), doctored(scored, tmp_path / "other", **other)]
    capsys.readouterr()
    assert main(["compare", *places]) == 0
    assert (
        "structural similarity (SSIM): not compared (in 2 pairs its reference is another video in A than in B, "
        "in 1 pair its reference is of another length in A than in B, 1 unscored in B)"
    ) in capsys.readouterr().out.splitlines()


def test_what_is_not_compared_is_told(scored, tmp_path, capsys):
    first, second, third = scored["videos"]
    still = {**second, "repeated_frames": {"value": 0.9, "count": 9}}
    one = {"0.mp4": first, "1.mp4": second, "2.mp4": third, "5.mp4": second, "6.mp4": second, "7.webm": second}
    other = {
        "0.mp4": {"unscored": "it has no frames"},
        "1.mp4": second,
        "=4.mp4": third,
        "5.mp4": second,
        "6.mp4": {**second, "frames": 230},
        "7.mkv": still,
    }
    places = [doctored(scored, tmp_path / "one", **one), doctored(scored, tmp_path / "other", **other)]
    capsys.readouterr()
    assert main(["compare", *places]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert "motion: drift: B - A +0, 2 pairs, chance 1: no difference shown (1 unscored in B)" in lines
    assert lines[-1] == "too few pairs for any verdict: 2 given, at least 9 needed"
    assert shown.err.splitlines() == [
        "2.mp4: only in A",
        "=4.mp4: only in B",
        "6.mp4: not compared, since it is 1.438 s long in A and 14.38 s in B",
        "5.mp4: has all scores of 1.mp4 in both and counts once with it",
        "A: 2 of 3 videos have all scores of another of them",
        "B is frozen in 1 of 3 pairs, such as 7.webm: most frames are the same as the one before, so in these it wins "
        "no drift, consistency, smoothness or steadiness",
    ]
    assert main(["compare", *places, "--json"]) == 0
    fields, errors = told(capsys)
    assert errors == ""
    assert fields["only"] == {"a": ["2.mp4"], "b": ["=4.mp4"]}
    assert fields["copies"] == {"5.mp4": "1.mp4"}
    assert list(fields["unlike"]) == ["6.mp4"]
    assert fields["frozen"] == {"a": [], "b": ["7.webm"]}
    assert (fields["pairs"], fields["needed"]) == (3, 9)
    motion = next(each for each in fields["scores"] if each["score"] == "drift.motion")
    assert motion["unscored"] == {"a": {}, "b": {"0.mp4": "it has no frames"}}


@pytest.mark.timeout(20)
def test_a_pipe_is_no_report_and_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "scores.json")
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "scores.json is no file" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_leaves_the_old_one_and_says_what_is_kept(
    videos, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "report"
    asked = ["score", str(videos), "-o", str(out), *CHUNKS, "--extractor", "light"]
    assert main([*asked, "--dimension", "motion"]) == 0
    before = {path.name: path.read_bytes() for path in out.glob("*.*")}
    plain = Path.write_text

    def full(path, *args, **named):
        if "report.html" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(path, *args, **named)

    monkeypatch.setattr(Path, "write_text", full)
    capsys.readouterr()
    assert main(asked) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert "report.html cannot be written: No space left on device" in shown.err
    assert f"a report that was there is as it was, and what was kept of the measures is in {out / 'cache'}" in shown.err
    assert {path.name: path.read_bytes() for path in out.glob("*.*")} == before
    monkeypatch.setattr(Path, "write_text", plain)
    assert main(asked) == 0


def test_prompts_that_cannot_be_written_exit_with_1(tmp_path, capsys):
    (tmp_path / "told.json").write_text('{"video_id": "a", "segments": [{"start": 0, "end": 2, "caption": "b"}]}')
    (tmp_path / "out" / "a.jsonl").mkdir(parents=True)
    asked = ["prompts", str(tmp_path / "told.json"), "--block-seconds", "1", "-o", str(tmp_path / "out")]
    assert main(asked) == 1
    assert "a.jsonl cannot be written" in capsys.readouterr().err


def test_videos_whose_end_is_not_known_and_copies_are_told(videos, tmp_path, capsys):
    folder, out = tmp_path / "videos", tmp_path / "report"
    folder.mkdir()
    film(folder / "a.ts", drifting(23))
    for at in range(3):
        os.link(videos / "0.mp4", folder / f"b{at}.mp4")
    asked = ["score", str(folder), "-o", str(out), *CHUNKS, "--extractor", "light"]
    assert main(asked) == 0
    assert capsys.readouterr().err.splitlines() == [
        "whether it was cut off is not known, since its file does not say where it ends: a.ts",
        "copies, which have all scores of another video, count once with it: b1.mp4 of b0.mp4, b2.mp4 of b0.mp4",
    ]
    assert main([*asked, "--json"]) == 0
    fields, _ = told(capsys)
    assert fields["end_not_known"] == ["a.ts"]
    assert fields["copies"] == {"b1.mp4": "b0.mp4", "b2.mp4": "b0.mp4"}
    assert fields["summary"]["drift.motion"]["count"] == 2


def test_who_stops_reading_what_is_done_changes_nothing(videos, tmp_path):
    asked = [sys.executable, "-m", "lvbench", "score", str(videos), "-o", str(tmp_path), *CHUNKS, "--json"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as nobody:
        done = subprocess.run(asked, stdout=nobody, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "report.html").exists()


def test_published_networks_score_where_their_weights_are(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(presets, "Networks", lambda weights: Networks(weights=weights, sizes=TINY))
    folder = folder_of_weights(tmp_path / "weights")
    one = tmp_path / "videos" / "0.mp4"
    one.parent.mkdir()
    os.link(videos / "0.mp4", one)
    reports = []
    for at, arguments in enumerate([[], ["--extractor", "published", "--workers", "2"]]):
        out = tmp_path / str(at)
        assert main(["score", str(one.parent), "-o", str(out), *CHUNKS, "--weights", str(folder), *arguments]) == 0
        reports.append(json.loads((out / "scores.json").read_text()))
    shown = capsys.readouterr()
    assert shown.out.count("1 video scored by the published extractor, 0 not") == 2
    assert shown.err == "measured by the published extractor, since all its weights are here\n"
    used = reports[0]["extractor"]
    assert (used["name"], used["reason"]) == ("published", "all its weights are here")
    assert used["weights"] == {name: hash_of(path) for name, path in find(folder, ()).items()}
    assert set(reports[0]["videos"][0]["chunks"]) == {*DIMENSIONS, *COMPANIONS}
    assert all(None not in values for values in reports[0]["videos"][0]["chunks"].values())
    assert "<td>why that one</td><td>all its weights are here</td>" in (tmp_path / "0" / "report.html").read_text()
    assert reports[1].pop("extractor") == {**reports[0].pop("extractor"), "reason": "it was asked for"}
    assert reports[0] == reports[1]


def test_one_dimension_is_scored_with_the_weights_of_its_network_alone(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(presets, "Networks", lambda weights: Networks(weights=weights, sizes=TINY))
    folder = folder_of_weights(tmp_path / "weights")
    musiq, one, out = tmp_path / "musiq", tmp_path / "videos" / "0.mp4", tmp_path / "out"
    for source, path in ((find(folder, ())["clarity"], musiq / SOURCES["clarity"].names[0]), (videos / "0.mp4", one)):
        path.parent.mkdir()
        os.link(source, path)
    asked = ["score", str(one.parent), "-o", str(out), *CHUNKS, "--json", "--extractor", "published", "--weights"]
    auto = ["auto" if each == "published" else each for each in asked]
    assert main([*auto, str(musiq), "--dimension", "clarity"]) == 0
    assert told(capsys)[0]["extractor"]["name"] == "light"
    assert main([*asked, str(musiq), "--dimension", "clarity"]) == 0
    part = json.loads((out / "scores.json").read_text())
    assert part["extractor"]["weights"] == {"clarity": hash_of(musiq / SOURCES["clarity"].names[0])}
    (video,) = part["videos"]
    assert set(video["chunks"]) == {"clarity", "imaging_quality", "temporal_flicker"}
    unscored = {name: result["unscored"] for name, result in video["scores"].items() if "unscored" in result}
    assert unscored == dict.fromkeys({*COMPANIONS} - {"imaging_quality", "temporal_flicker"}, NOT_NEEDED)
    assert "value" in video["repeated_frames"]
    assert "no dimension that was asked for needs its network" in (out / "report.html").read_text()
    assert main([*asked, str(folder)]) == 0  # what is kept of the one is not taken for the measures of all
    whole = json.loads((out / "scores.json").read_text())
    assert set(whole["videos"][0]["chunks"]) == {*DIMENSIONS, *COMPANIONS}
    assert {name: whole["videos"][0]["chunks"][name] for name in video["chunks"]} == video["chunks"]
    assert main([*asked, str(musiq)]) == 2
    capsys.readouterr()
    places = [tmp_path / "part.json", out]
    places[0].write_text(json.dumps(part))
    assert main(["compare", *map(str, places)]) == 2
    assert "the reports differ in fingerprint, networks; score both alike" in capsys.readouterr().err


def test_what_the_published_networks_lack_is_told_in_one_line(videos, tmp_path, capsys):
    folder = folder_of_weights(tmp_path / "weights")
    (folder / "amt-s.pth").unlink()
    asked = ["score", str(videos), "-o", str(tmp_path / "out"), *CHUNKS, "--weights", str(folder), "--extractor"]
    assert main([*asked, "published"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("lvbench: the published extractor lacks amt-s.pth (AMT-S, from https://")
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert not (tmp_path / "out").exists()
    assert main([*asked, "auto"]) == 0
    shown = capsys.readouterr()
    assert "by the light extractor, 0 not" in shown.out
    assert (shown.out + shown.err).count("amt-s.pth") == 1
    assert "measured by the light extractor, since the published networks lack amt-s.pth\n" in shown.err


def test_weights_of_another_network_are_told_before_any_video_is_opened(videos, tmp_path, capsys):
    folder = folder_of_weights(tmp_path / "weights")  # of small networks, and not of the published ones
    assert main(["score", str(videos), "-o", str(tmp_path / "out"), "--weights", str(folder)]) == 2
    shown = capsys.readouterr()
    assert "has the weights of another network" in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert not (tmp_path / "out").exists()


def shown_help(capsys, *command) -> str:
    """What --help says of a command, in one line."""
    assert main([*command, "--help"]) == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_the_help_of_prompts_shows_a_line_of_what_it_reads_and_of_what_it_writes(tmp_path, capsys):
    text = shown_help(capsys, "prompts").partition("╭")[0]
    read = text.partition("A line of what it reads: ")[2].partition(" A line")[0]
    written = text.partition("true until the next one: ")[2].strip()
    (tmp_path / "told.json").write_text(read)
    assert main(["prompts", str(tmp_path / "told.json"), "--block-seconds", "1", "-o", str(tmp_path)]) == 0
    assert json.loads((tmp_path / f"{json.loads(read)['video_id']}.jsonl").read_text()) == json.loads(written)


def test_the_help_names_the_dimensions_exit_codes_and_what_a_comparison_says(capsys):
    score, compared, whole = (shown_help(capsys, *command) for command in (["score"], ["compare"], []))
    assert ", ".join([*DIMENSIONS][:-1]) + f" or {[*DIMENSIONS][-1]}" in score
    assert "the published one needs and runs only the networks that these are made of" in score
    assert "Scores of whole videos are told of all that was measured" in score
    assert "auto for published if all its weights are here" in score
    assert "PSNR, SSIM" in score
    for word in ("chance is", "effect is", "12 scores need at least 9 pairs, one alone 6"):
        assert word in compared
    for code in ("0 where", "1 where", "2 for", "3 where", "130 when"):
        assert code in whole


def test_annotations_become_a_file_of_prompts_for_each_video(tmp_path, capsys):
    told = {
        "video_id": "walk",
        "segments": [{"start": 0, "end": 2, "caption": "a"}, {"start": 2, "end": 2.1, "caption": "b"}],
    }
    (tmp_path / "told.json").write_text(json.dumps([told, {**told, "video_id": "run"}]))
    arguments = ["prompts", str(tmp_path / "told.json"), "--block-seconds", "1", "-o", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "output": str(tmp_path / "out"),
        "videos": 2,
        "segments_too_short": 0,
    }
    assert (tmp_path / "out" / "run.jsonl").read_text() == (tmp_path / "out" / "walk.jsonl").read_text()
    arguments[3] = "3"
    assert main(arguments) == 0
    told = f"{tmp_path / 'out'}: prompts of 2 videos; 2 segments too short to have a block\n"
    assert capsys.readouterr().out == told
    (tmp_path / "told.json").write_text('{"prompts": ["a", "b"]}')
    assert main([*arguments, "--segment-seconds", "10", "--json"]) == 0
    assert (tmp_path / "out" / "0001.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("modules", "without"),
    [("lvbench.cli", ("cv2", "av", "torch", "worldsim")), ("lvbench.run, lvbench.page", ("torch", "worldsim"))],
)
def test_it_imports_nothing_of_the_engine_and_answers_before_it_imports_the_rest(modules, without):
    code = f"import sys, {modules}; print([name for name in sys.modules if name.split('.')[0] in {without}])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
