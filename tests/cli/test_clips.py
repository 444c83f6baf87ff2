"""MAG-Bench on clips of one's own, from first to last: palindromes are built, continued, and scored."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magbench.cli import main
from magbench.data.mini_world import Scene, World
from magbench.data.video import Frame, open_video, write_video
from magbench.options import RunOptions
from magbench.records import SampleRecord
from magbench.runners.execute import execute
from magbench.runners.prepare import prepare
from magbench.store import RunStore
from tests.cli.conftest import WALK, Invoke

LEGS = {"hill": 8, "lake": 12, "moor": 12}
"""Frames of one way. Of the 16 frames of the first, 15 are used and 12 given; of 24, all are used and 18 given."""
LENGTHS = {8: (15, 12), 12: (24, 18)}
METHODS = ("memrope", "memrope:write_back=truth")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Palindromes of two lengths, as `build-mag` makes them."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built") / "clips"
    with (source / "captions.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["video_path", "raw_caption", "duration(sec)", "category"])
        for seed, (name, frames) in enumerate(LEGS.items()):
            prompt = WALK.replace("slowly", "quickly")
            write_video(source / f"{name}.mkv", World(Scene.parse(prompt), seed + 50).clip(frames), 8)
            lines.writerow([f"{name}.mkv", prompt, "", "outdoor"])
    with pytest.raises(SystemExit, match="0"):
        main(["data", "build-mag", str(source), "-o", str(out), "--model", "mini"])
    return out


@pytest.fixture(scope="module")
def finished(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A method on them in both modes. Not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["--clips", str(clips), "--no-baselines", "--workers", "0", "--out", str(out)]
    with pytest.raises(SystemExit, match="0"):
        main(["run", *words, *(word for method in METHODS for word in ("--method", method))])
    return out


def samples(run: Path) -> dict[tuple[str, str], SampleRecord]:
    """By method and clip."""
    return {(s.method.label, s.case.id[:4]): s for s in RunStore.open(run).samples()}


def frames(run: Path, sample: SampleRecord) -> list[Frame]:
    assert sample.video is not None
    with open_video(run / "samples" / sample.key / sample.video.path) as video:
        return [frame for _, frame in video]


def scores(run: Path, sample: SampleRecord) -> dict[str, float]:
    found = {m.name: m for m in RunStore.open(run).metrics(sample.key)}
    assert {"retention@default", "retention@mini", "efficiency@default"} <= found.keys()
    return {r.name: r.value for r in found["retention@default"].reductions if r.value is not None}


def test_every_row_continues_every_clip(clips: Path, finished: Path) -> None:
    with (clips / "mag-bench.csv").open(newline="") as file:
        listed = {row["video_path"][:4]: row for row in csv.DictReader(file)}
    found = samples(finished)
    rows = (*METHODS, "real", "static", "shuffled")
    assert set(found) == {(row, name) for row in rows for name in LEGS}
    for (_, name), sample in found.items():
        case = sample.case
        assert (case.frames, case.history_frames) == LENGTHS[LEGS[name]]
        assert case.mirror == 2 * LEGS[name] - 1
        assert case.clip == str(clips / listed[name]["video_path"])
        assert case.clip_sha256 == listed[name]["sha256"]
        assert case.prompt == listed[name]["raw_caption"]
        assert case.stratum == "outdoor, away 1-2 s", "(2 * 12 - 15) / 8 and (2 * 18 - 23) / 8 s"
        assert sample.status == "ok"
        assert sample.history_frames == case.history_frames
        assert scores(finished, sample)["aligned_psnr"] > 5


def test_the_truth_is_the_clip_and_the_history_went_through_the_codec(clips: Path, finished: Path) -> None:
    found = samples(finished)
    for name in LEGS:
        case = found["real", name].case
        with open_video(Path(case.clip or "")) as video:
            clip = [frame for _, frame in video]
        assert np.array_equal(frames(finished, found["real", name]), clip[: case.frames])
        assert case.mirror is not None
        assert all(np.array_equal(clip[t], clip[case.mirror - t]) for t in range(len(clip)))
        made = frames(finished, found["memrope", name])
        assert len(made) == case.frames
        given = np.asarray(made[: case.history_frames], float) - np.asarray(clip[: case.history_frames], float)
        assert 0 < np.abs(given).mean() < 8
        assert scores(finished, found["real", name])["aligned_psnr"] == 60
        static = scores(finished, found["static", name])
        assert static["aligned_psnr"] == pytest.approx(static["floor_psnr"])


def test_writing_the_truth_back_changes_what_follows_the_first_chunk_only(finished: Path) -> None:
    """The clean pass comes after the chunk."""
    one, other = (frames(finished, samples(finished)[method, "lake"]) for method in METHODS)
    assert np.array_equal(one[:21], other[:21])
    assert not np.array_equal(one[21:], other[21:])


def test_a_clip_alone_gives_the_same_as_among_others_and_what_is_missing_is_made_again(
    clips: Path, finished: Path, tmp_path: Path
) -> None:
    """Neither the batch, which lake shared with moor, nor where the clips lie matters."""
    alone = tmp_path / "elsewhere"
    shutil.copytree(clips, alone)
    header, *lines = (alone / "mag-bench.csv").read_text().splitlines()
    lake = next(line for line in lines if line.startswith("lake"))
    (alone / "mag-bench.csv").write_text(f"{header}\n{lake}\n")
    run = tmp_path / "run"

    def videos() -> dict[str, bytes]:
        options = {"clips": alone, "method": "memrope", "no_baselines": True, "workers": 0, "out": run}
        prepared = prepare(RunOptions.parse(options))
        assert prepared.notes[0].startswith("in no row of 'mag-bench.csv': 'hill")
        RunStore.create(run, prepared.record)
        unscored = replace(prepared.setup, metrics={"mag-bench": ()})
        execute(prepared.plan, unscored, 0, lambda event: None)
        return {path.parent.name: path.read_bytes() for path in run.glob("samples/*/video.mkv")}

    found = videos()
    assert set(found) == {samples(finished)[label, "lake"].key for label in ("memrope", "real")}
    for key, video in found.items():
        assert (finished / "samples" / key / "video.mkv").read_bytes() == video
        (run / "samples" / key / "sample.json").unlink()
    assert videos() == found


def test_what_cannot_be_run_is_said_before_anything_is_made(clips: Path, tmp_path: Path, invoke: Invoke) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    lines = (folder / "mag-bench.csv").read_text().splitlines()
    lines[1] = lines[1].replace("walker", "dog")
    (folder / "mag-bench.csv").write_text("\n".join([*lines, "gone.mkv,,3,,"]) + "\n")
    out = tmp_path / "run"
    command = ("run", "--clips", folder, "--method", "fifo", "--out", out)
    refused = invoke(*command)
    assert refused.code == 2
    assert not out.exists()
    assert "error: 2 of 4 clips can't be used:" in refused.err
    assert "'gone.mkv': no such file" in refused.err
    assert "--caption none" in refused.err
    assert "--faulty-clips leave-out" in refused.err
    assert "Traceback" not in refused.err
    left = invoke(*command, "--faulty-clips", "leave-out", "--caption", "none", "--dry-run")
    assert left.code == 0
    assert "left out: 'gone.mkv'" in left.err
    assert "3 cases of 15-24 latent frames" in left.err
    assert "  fifo: in-distribution" in left.err


@pytest.mark.parametrize(
    "other", [("--suite", "mini"), ("--prompts", "p.txt"), ("--track", "long-horizon"), ("--seconds", "9")]
)
def test_options_that_do_not_go_with_clips(clips: Path, other: tuple[str, str], invoke: Invoke) -> None:
    done = invoke("run", "--clips", clips, "--method", "fifo", "--dry-run", *other)
    assert done.code == 2
    assert other[0] in done.err


@pytest.mark.parametrize("words", [("--caption", "none"), ("--clips-root", "."), ("--faulty-clips", "leave-out")])
def test_options_that_need_clips(words: tuple[str, str], invoke: Invoke) -> None:
    done = invoke("run", "--method", "fifo", "--dry-run", *words)
    assert done.code == 2
    assert f"{words[0]} is about clips" in done.err


def test_the_run_says_how_it_was_made(clips: Path, finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert record["suite"] == "mag-bench-clips"
    assert record["resolved"]["captions"] == "use"
    assert record["resolved"]["clips_left_out"] == []
    assert f"--clips {clips}" in record["command"]
