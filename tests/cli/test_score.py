"""`magbench score`: anybody's videos, whatever they are called and however they are broken."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import magbench
from magbench.data.video import Frame, write_video
from magbench.runners import scoring
from magbench.store import RunStore
from tests.cli.conftest import Invoke

METRICS = ("--metrics", "motion", "--metrics", "ssim_consecutive@default")
ODD = 'we ird "näme" <b>&%;$(x).mkv'


def clip(frames: int, height: int = 48, width: int = 64) -> list[Frame]:
    """Moving noise."""
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return [np.roll(picture, t, axis=1) for t in range(frames)]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two good videos and every kind of bad one."""
    folder = tmp_path / "their videos"
    (folder / "sub").mkdir(parents=True)
    write_video(folder / "good.mkv", clip(24), 8)
    write_video(folder / "sub" / ODD, clip(24, 33, 47), 8)
    write_video(folder / "one.mkv", clip(1), 8)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("hello")
    whole = (folder / "good.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not a video")
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


def test_bad_files_are_named_and_good_ones_scored(videos: Path, tmp_path: Path, invoke: Invoke) -> None:
    before = snapshot(videos)
    done = invoke("score", videos, *METRICS, "--workers", "0", "--out", tmp_path / "out")
    assert snapshot(videos) == before, "nothing is written beside the user's videos"
    assert done.code == 4
    for sentence in ("empty: ", "the file is empty (0 bytes)", "text: ", "cannot be read as a video", "cut: "):
        assert sentence in done.err
    assert "Traceback" not in done.err
    store = RunStore.open(tmp_path / "out")
    assert store.run.horizons == {"videos": ()}, "none without the metric that it takes"
    samples = {s.method.label: s for s in store.samples() if s.method.policy == "file"}
    assert {label: sample.status for label, sample in samples.items()} == {
        "good": "ok", ODD.removesuffix(".mkv"): "ok", "one": "ok", "empty": "error", "text": "error", "cut": "error"
    }  # fmt: skip
    for label in ("good", ODD.removesuffix(".mkv")):
        records = store.metrics(samples[label].key)
        assert [r.name for r in records] == ["motion@default", "ssim_consecutive@default"]
        assert {r.state for r in records} == {"value"}
        assert (store.sample_dir(samples[label].key) / "preview.mp4").is_file()
        assert not (store.sample_dir(samples[label].key) / "video.mkv").exists()
    assert {r.state for r in store.metrics(samples["one"].key)} == {"not_applicable"}
    good = samples["good"].video
    assert good is not None
    assert Path(good.path).is_absolute()
    assert store.run.kind == "score"
    assert (tmp_path / "out" / "report.html").is_file()


def test_references_of_a_video(videos: Path, tmp_path: Path, invoke: Invoke) -> None:
    assert invoke("score", videos / "good.mkv", *METRICS, "--workers", "0", "--out", tmp_path / "out").code == 0
    store = RunStore.open(tmp_path / "out")
    rows = {s.method.label: s for s in store.samples()}
    assert rows.keys() == {"good", "static", "shuffled"}
    assert {s.video.sha256 for s in rows.values() if s.video} == {rows["good"].video and rows["good"].video.sha256}
    ssim = {label: store.metrics(s.key)[1] for label, s in rows.items()}
    states = {label: {r.name: r.state for r in record.reductions} for label, record in ssim.items()}
    assert states["good"]["spike_rate"] == "value"
    assert states["static"]["spike_rate"] == "not_applicable", "a frozen clip has no spikes"


def test_a_second_time_only_what_changed(videos: Path, tmp_path: Path, invoke: Invoke) -> None:
    for name in ("empty.mp4", "text.mp4", "cut.mkv"):
        (videos / name).unlink()
    words = ["score", videos, *METRICS, "--workers", "0", "--out", tmp_path / "out"]
    assert invoke(*words).code == 0
    store = RunStore.open(tmp_path / "out")
    samples = {s.method.label: s for s in store.samples() if s.method.policy == "file"}
    stamps = {label: _scored_at(store, s.key) for label, s in samples.items()}
    write_video(videos / "good.mkv", clip(30), 8)
    (videos / "one.mkv").unlink()
    assert invoke(*words).code == 0
    again = {s.method.label: s for s in store.samples() if s.method.policy == "file"}
    assert again.keys() == {"good", ODD.removesuffix(".mkv")}
    assert _scored_at(store, again["good"].key) > stamps["good"]
    assert _scored_at(store, again[ODD.removesuffix(".mkv")].key) == stamps[ODD.removesuffix(".mkv")]
    assert again["good"].video is not None
    assert again["good"].video.frames == 30


def _scored_at(store: RunStore, key: str) -> int:
    return max(p.stat().st_mtime_ns for p in (store.sample_dir(key) / "metrics").iterdir())


def test_workers_do_not_change_a_score(videos: Path, tmp_path: Path) -> None:
    files = [videos / "good.mkv", videos / "sub" / ODD]
    here = magbench.score(*files, metrics="motion", workers=0, out=tmp_path / "0")
    there = magbench.score(*files, metrics="motion", workers=2, out=tmp_path / "2")
    assert here.metrics == there.metrics


def test_missing_weights_are_said_once(
    videos: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path / "empty cache"))
    files = [videos / "good.mkv", videos / "sub" / ODD]
    words = ["--metrics", "subject_consistency@default", "--workers", "0", "--out", tmp_path / "o"]
    done = invoke("score", *files, *words)
    assert done.code == 0
    lines = [line for line in done.err.splitlines() if "subject_consistency@default:" in line]
    assert len(lines) == 1
    assert str(tmp_path / "empty cache") in lines[0]
    assert "https://" in lines[0]


def test_what_is_odd_about_a_file_is_said_once(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "in" / f"{name}.mkv", [frame for frame in clip(12) for _ in range(2)], 24)
    done = invoke("score", tmp_path / "in", *METRICS, "--workers", "0", "--out", tmp_path / "out")
    assert done.code == 0
    said = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    repeats = "1 in 2 frames repeat the frame before: it looks like 12 fps or less, stored at 24"
    assert said == [f"warning: a; b: {repeats}"]


def test_same_stems_get_longer_labels(tmp_path: Path) -> None:
    for name in ("x/a.mkv", "y/a.mkv"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        write_video(tmp_path / "in" / name, clip(9), 8)
    results = magbench.score(tmp_path / "in", metrics="motion", workers=0, out=tmp_path / "out")
    assert results.run.methods == ("x/a.mkv", "y/a.mkv")


def test_a_name_that_is_no_text(tmp_path: Path, invoke: Invoke) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    name = os.fsdecode(b"bad\xff.mkv")
    try:
        write_video(folder / "ok.mkv", clip(9), 8)
        (folder / "ok.mkv").rename(folder / name)
    except OSError:
        pytest.skip("this file system has no such names")
    done = invoke("score", folder, "--metrics", "motion", "--workers", "0", "--out", tmp_path / "out")
    assert done.code == 4
    assert "name is not valid UTF-8" in done.err
    assert "hint: rename the file" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.mp4"], "there is no file or folder 'nothing.mp4'"),
        (["."], "no video in '.'"),
        ([".", "--metrics", "motoin"], "unknown metric 'motoin'"),
        (["--workers", "-1", "."], "option --workers '-1': Input should be greater than or equal to 0"),
        ([], "there is nothing to score"),
        ([".", "--prompts", "p.txt"], "--prompts belongs to --layout"),
        ([".", "--manifest", "m.csv"], "--manifest names the videos"),
        (["--manifest", "m.csv"], "there is no manifest 'm.csv'"),
        ([".", "--layout", "vbench"], "no file below '.' is named as in layout 'vbench'"),
    ],
)
def test_bad_requests(
    words: list[str], message: str, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("score", *words)
    assert done.code == 2
    assert f"error: {message}" in done.err
    assert "hint: " in done.err or "--workers" in words
    assert list(tmp_path.iterdir()) == []


def test_other_videos_need_another_folder(videos: Path, tmp_path: Path, invoke: Invoke) -> None:
    words = [*METRICS, "--workers", "0", "--out", tmp_path / "out"]
    assert invoke("score", videos / "good.mkv", *words).code == 0
    done = invoke("score", videos / "one.mkv", *words)
    assert done.code == 2
    assert "holds scores of other videos" in done.err
    there = invoke("score", videos / "good.mkv", "--out", videos)
    assert there.code == 2
    assert "is not empty and not a run folder" in there.err


def test_a_run_is_scored_in_place(finished: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("score", finished, "--out", tmp_path / "elsewhere")
    assert done.code == 2
    assert "is a run folder, which is scored in place" in done.err


def test_a_fault_of_ours_costs_one_video(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = scoring.write_previews

    def fail(store: RunStore, key: str, video: Path, given: int = 0) -> None:
        if video.stem == "one":
            raise ZeroDivisionError("no way")
        real(store, key, video, given)

    monkeypatch.setattr(scoring, "write_previews", fail)
    done = magbench.score(videos, metrics=["ssim_consecutive@default"], out=tmp_path / "out", workers=0)
    samples = {s.method.label: s for s in done.samples if s.method.policy == "file"}
    assert (samples["one"].status, samples["one"].reason) == ("error", "ZeroDivisionError: no way")
    assert samples["good"].status == "ok"


@pytest.mark.parametrize("name", ["static", "real"])
def test_no_file_passes_for_a_reference_row(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / f"{name}.mkv", clip(16), 8)
    done = magbench.score(tmp_path / "in", metrics=["ssim_consecutive@default"], out=tmp_path / "out", workers=0)
    assert sorted(s.method.label for s in done.samples) == sorted([f"{name}.mkv", "shuffled", "static"])


def test_scoring_does_not_complete_an_unfinished_run(finished: Path, tmp_path: Path) -> None:
    run = RunStore.open(shutil.copytree(finished, tmp_path / "run"))
    run.write_run(run.run.model_copy(update={"status": "interrupted"}))
    assert magbench.score(run.root, workers=0).run.status == "incomplete"


def test_a_command_killed_before_its_first_record_can_be_repeated(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".123-abcdef01-run.json").touch()
    assert magbench.score(videos / "good.mkv", metrics=["motion@default"], out=out, workers=0).count("ok") == 3


def test_an_empty_path_is_not_this_folder(invoke: Invoke) -> None:
    done = invoke("score", "")
    assert (done.code, done.out) == (2, "")
    assert "error: a path is empty" in done.err


def test_a_name_does_not_steer_the_terminal(tmp_path: Path, invoke: Invoke) -> None:
    write_video(tmp_path / "\x1b[31mred\x9b.mkv", clip(1), 8)
    done = invoke("score", tmp_path, "--metrics", "motion", "--workers", "0", "--out", tmp_path / "out")
    assert done.code == 0
    assert "\N{REPLACEMENT CHARACTER}[31mred" in done.err
    assert not {"\x1b", "\x9b"} & {*done.err, *done.out}
