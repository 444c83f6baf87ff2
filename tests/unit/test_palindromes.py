"""Leave-and-return clips made from others."""

import csv
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from magbench.data import palindromes
from magbench.data.mag_clips import list_clips, survey
from magbench.data.mag_frames import FrameRule
from magbench.data.mini_world import Scene, World
from magbench.data.palindromes import Recipe, build, check_folder, fitted, plan, resampled
from magbench.data.video import Frame, open_video, write_video
from magbench.errors import ConfigError, StoreError

PAN = (
    "A walker in a red coat and a tall blue hat crosses a meadow under a clear sky, while the camera pans left quickly."
)
RULE = FrameRule(8, 1, 3)


@cache
def pan(frames: int, seed: int = 5) -> Sequence[Frame]:
    return list(World(Scene.parse(PAN), seed).clip(frames))


def decoded(path: Path) -> list[Frame]:
    with open_video(path) as video:
        return [frame for _, frame in video]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    write_video(folder / "a b.mkv", pan(12), 8)
    write_video(folder / "c.mkv", pan(10, 6), 8)
    return folder


def made(source: Path, out: Path, recipe: Recipe = Recipe()) -> list[str]:  # noqa: B008
    lines: list[str] = []
    build(plan([source], recipe, RULE)[0], recipe, out, lines.append)
    return lines


def test_there_and_back_to_the_pixel(source: Path, tmp_path: Path) -> None:
    """12 frames give 24: t and 23 - t are the same picture, the turn is there twice."""
    out = tmp_path / "out"
    made(source, out)
    with (out / "mag-bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video_path"][:-12] for row in rows] == ["a-b-", "c-"]
    frames = decoded(out / rows[0]["video_path"])
    assert np.array_equal(frames, [*pan(12), *pan(12)[::-1]])
    assert float(rows[0]["duration(sec)"]) == 3.0
    manifest = json.loads((out / "manifest.json").read_text())
    for row, clip in zip(rows, manifest["clips"], strict=True):
        sha = hashlib.sha256((out / row["video_path"]).read_bytes()).hexdigest()
        assert row["sha256"] == clip["sha256"] == sha
        assert clip["source_sha256"] == hashlib.sha256((source / clip["source"]).read_bytes()).hexdigest()
        assert clip["mirror"] == clip["frames"] - 1
    clips, faults, notes = survey(list_clips(out).rows, RULE, (64, 64), lambda caption: None)
    assert ([clip.mirror for clip in clips], faults, notes) == ([23, 19], [], [])


def test_captions_and_categories_come_along(source: Path, tmp_path: Path) -> None:
    table = source / "mine.csv"
    table.write_text(f'video_path,raw_caption,duration(sec),category\nc.mkv,"{PAN}",1.25,outdoor\n')
    made(source, tmp_path / "out")
    (row,) = list_clips(tmp_path / "out").rows
    assert (row.caption, row.category, row.duration) == (PAN, "outdoor", 2.5)


def test_a_stopped_build_goes_on_and_gives_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    made(source, whole)

    def stopped(path: Path, frames: object, fps: float) -> None:
        if out.exists() and list(out.glob("a-b-*.mkv")):
            path.write_bytes(b"half a video")
            raise KeyboardInterrupt
        write_video(path, frames, fps)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(palindromes, "write_video", stopped)
        with pytest.raises(KeyboardInterrupt):
            made(source, out)
    (first,) = out.iterdir()
    before = first.stat().st_mtime_ns
    made(source, out)
    assert first.stat().st_mtime_ns == before
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_another_recipe_makes_other_files(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(source, out)
    made(source, out, Recipe(seconds=2))
    assert len(list(out.glob("*.mkv"))) == 4
    rows = list_clips(out).rows
    assert [len(decoded(row.path)) for row in rows] == [16, 16]
    assert np.array_equal(decoded(rows[0].path)[:8], pan(8))


def test_everything_that_is_wrong_is_said_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    write_video(source / "short.mkv", pan(4), 8)
    (source / "text.mkv").write_text("no video")
    (source / "more").mkdir()
    (source / "more" / "c.mkv").write_bytes((source / "c.mkv").read_bytes())
    with pytest.raises(ConfigError) as error:
        plan([source], Recipe(), RULE)
    lines = error.value.message.splitlines()
    assert len(lines) == 4
    assert "  'short.mkv': gives 0.50 s one way: too short, 0.94 s always do" in lines
    assert "  'more/c.mkv': is the same video as 'c.mkv'" in lines
    assert [line for line in lines if line.startswith("  'text.mkv': ")]
    planned, notes = plan([source], Recipe(), RULE, leave_out=True)
    assert [clip.row.name for clip in planned] == ["a b.mkv", "c.mkv"]
    assert len(notes) == 3
    with pytest.raises(ConfigError, match="has 8 frames per second, fewer than the 16 asked for"):
        plan([source], Recipe(fps=16), None)
    with pytest.raises(ConfigError, match=r"gives 1\.50 s one way, 4 s there and back need half of that"):
        plan([source], Recipe(seconds=4), RULE)
    with pytest.raises(ConfigError, match=r"1\.50 s one way: too short, 5\.06 s always do"):
        plan([source], Recipe(), None)


def test_cuts_and_stillness_are_said(tmp_path: Path) -> None:
    other = World(Scene.parse(PAN.replace("clear", "night")), 7).clip(9)
    write_video(tmp_path / "cut.mkv", [*pan(9), *other], 8)
    write_video(tmp_path / "still.mkv", [pan(1)[0]] * 18, 8)
    _, notes = plan([tmp_path], Recipe(size=(96, 64)), RULE)
    assert notes[0].startswith("'cut.mkv' seems to be cut at 1.1 s:")
    assert "'cut.mkv' is enlarged from 64x64 to cover 96x64" in notes
    assert [note for note in notes if note.startswith("'still.mkv' hardly changes")]


def test_sources_and_strangers_lists_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    planned, _ = plan([source], Recipe(), RULE)
    with pytest.raises(ConfigError, match="holds the source clips"):
        check_folder(planned, source)
    (tmp_path / "mag-bench.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"already holds a mag-bench\.csv"):
        build(planned, Recipe(), tmp_path, print)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        build(planned, Recipe(), tmp_path / "file", print)


def test_resampling_takes_the_nearest_frame() -> None:
    def taken(times: Sequence[float], fps: float) -> list[int]:
        frames = [np.full((1, 1, 3), index, np.uint8) for index in range(len(times))]
        found = list(resampled(zip(times, frames, strict=True), fps))
        assert [time for time, _ in found] == [index / fps for index in range(len(found))]
        return [int(frame[0, 0, 0]) for _, frame in found]

    assert taken([index / 16 for index in range(8)], 8) == [0, 2, 4, 6]
    assert taken([index / 24 for index in range(10)], 16) == [0, 2, 3, 5, 6, 8, 9]
    assert taken([index / 8 for index in range(4)], 8) == [0, 1, 2, 3]
    assert taken([0, 0.4, 0.5, 1.2], 4) == [0, 1, 2, 2, 3]


def test_fitting_covers_and_cuts_the_middle() -> None:
    """Cutting alone moves no pixel; halving a smooth ramp gives the ramp of the middle."""
    frame = np.random.default_rng(0).integers(0, 256, (64, 100, 3), dtype=np.uint8)
    assert fitted(frame, (100, 64)) is frame
    assert np.array_equal(fitted(frame, (64, 64)), frame[:, 18:82])
    ramp = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (64, 1, 3))
    half = fitted(ramp, (50, 32))
    assert half.shape == (32, 50, 3)
    assert np.abs(half[0, 2:-2, 0] - (50.5 + 2 * np.arange(50))[2:-2]).max() <= 1
