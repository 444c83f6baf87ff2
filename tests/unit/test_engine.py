import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from magbench.data.video import VideoReader, video_ref, write_video
from magbench.errors import ConfigError, MissingWeightsError
from magbench.metrics import engine
from magbench.metrics.base import Clip, Declared, Extractor, Metric, Needs, NotApplicable, Scores
from magbench.metrics.engine import default_metrics, identity, score
from magbench.records import MetricRecord, SampleRecord, Timing, TraceRecord, VideoRef
from tests.unit.clips import Frames, pan, sample

PIXELS = ("ssim_consecutive@default", "appearance_drift@default", "motion@default")


class Watcher(Metric):
    """Remembers what it was shown."""

    name, title = "watcher", "test"
    reductions = (Declared("frames"),)
    shown: ClassVar[list[Clip]] = []

    def __init_subclass__(cls) -> None:
        cls.shown = []

    def update(self, item: Clip) -> None:
        self.shown.append(item)

    def finish(self) -> Scores | NotApplicable:
        return Scores({"frames": float(sum(len(clip) for clip in self.shown))})


class WithHistory(Watcher):
    name = "with_history"
    needs = Needs(history=True)


class WithTruth(Watcher):
    name = "with_truth"
    needs = Needs(truth=True)


class Breaks(Watcher):
    name = "breaks"

    def update(self, item: Clip) -> None:
        raise ZeroDivisionError("three by nothing")


class Infinite(Watcher):
    name = "infinite"

    def finish(self) -> Scores:
        return Scores({"frames": float("inf")})


class Undeclared(Watcher):
    name = "undeclared"

    def finish(self) -> Scores:
        return Scores({"surprise": 1.0})


class Ones(Extractor):
    weights_sha256 = "abc"
    calls = 0

    def __call__(self, clip: Clip) -> int:
        Ones.calls += 1
        return len(clip)


def ones(device: str) -> Ones:
    return Ones()


def missing(device: str) -> Ones:
    raise MissingWeightsError("the weights x are not here", "get them")


class Learned(Watcher):
    name = "learned"
    needs = Needs(features=("tests.unit.test_engine:ones",))

    def update(self, item: Clip) -> None:
        item.feature(self.needs.features[0])


class Unlearned(Watcher):
    name = "unlearned"
    needs = Needs(features=("tests.unit.test_engine:missing",))


CASES = (Watcher, WithHistory, WithTruth, Breaks, Infinite, Undeclared, Learned, Unlearned)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the metrics of this file, with nothing remembered."""
    monkeypatch.setattr(engine, "METRICS", {f"{metric.name}@default": metric for metric in CASES})
    for metric in (Watcher, WithHistory, WithTruth):
        metric.shown.clear()


def stored(folder: Path, frames: Frames, fps: float = 8, name: str = "v.mkv") -> VideoRef:
    write_video(folder / name, frames, fps)
    return video_ref(folder / name, relative_to=folder)


def by_name(records: list[MetricRecord]) -> dict[str, MetricRecord]:
    return {record.metric: record for record in records}


def values(record: MetricRecord) -> dict[str, float | None]:
    return {reduction.name: reduction.value for reduction in record.reductions}


@pytest.mark.usefixtures("known")
def test_a_broken_metric_is_an_error_and_the_others_get_their_numbers(tmp_path: Path) -> None:
    names = ["breaks@default", "watcher@default", "infinite@default", "undeclared@default", "unlearned@default"]
    records = score(sample(video=stored(tmp_path, pan(10))), tmp_path, [], names)
    assert [record.name for record in records] == names
    found = by_name(records)
    assert (found["breaks"].state, found["breaks"].reason) == ("error", "ZeroDivisionError: three by nothing")
    assert values(found["watcher"]) == {"frames": 10}
    assert found["infinite"].reductions[0].state == "error"
    assert "not a finite number" in found["infinite"].reductions[0].reason
    assert "not declared: surprise" in found["undeclared"].reason
    assert (found["unlearned"].state, found["unlearned"].hint) == ("not_applicable", "get them")


@pytest.mark.usefixtures("known")
def test_features_are_computed_once_per_clip_and_named_in_the_record(tmp_path: Path) -> None:
    Ones.calls = 0
    (first, second) = score(
        sample(video=stored(tmp_path, pan(10))), tmp_path, [], ["learned@default", "learned@default"]
    )
    assert first.weights_sha256 == second.weights_sha256 == "abc"
    assert Ones.calls == 1


def test_one_decode_and_one_of_each_view_however_many_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, views = [], []
    original, view = VideoReader._decoded, Clip.view

    def counted(reader: VideoReader) -> Iterator[tuple[float, Frames]]:
        for item in original(reader):
            decoded.append(item[0])
            yield item

    def seen(clip: Clip, make: Any) -> Any:
        views.append((make, clip.first, clip.times, make in clip._cache))
        return view(clip, make)

    monkeypatch.setattr(engine, "CHUNK_FRAMES", 5)
    record = sample(video=stored(tmp_path, pan(12)))
    monkeypatch.setattr(VideoReader, "_decoded", counted)
    monkeypatch.setattr(Clip, "view", seen)
    assert len(score(record, tmp_path, [], PIXELS * 2)) == 6
    assert len(decoded) == 12
    made = [one[:3] for one in views if not one[3]]
    assert len(made) == len(set(made)) < len(views), "the second of each metric finds its views made"


@pytest.mark.usefixtures("known")
def test_given_frames_are_shown_only_to_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CHUNK_FRAMES", 4)
    record = sample(video=stored(tmp_path, pan(20)), history_frames=6)
    score(record, tmp_path, [], ["watcher@default", "with_history@default"])
    assert [(clip.first, len(clip)) for clip in WithHistory.shown] == [
        (0, 4),
        (4, 2),
        (6, 4),
        (10, 4),
        (14, 4),
        (18, 2),
    ]
    assert [clip.first for clip in Watcher.shown] == [6, 10, 14, 18]
    assert Watcher.shown[0] is WithHistory.shown[2]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(("fps", "length", "expected"), [(8, 12, 12), (8, 20, 12), (16, 24, 12), (8, 7, 7), (4, 6, 12)])
def test_the_truth_runs_beside_the_video_by_time(tmp_path: Path, fps: int, length: int, expected: int) -> None:
    frames = np.stack([np.full((16, 16, 3), index, np.uint8) for index in range(30)])
    record = sample(video=stored(tmp_path, frames[:12]), truth=stored(tmp_path, frames[:length], fps, name="truth.mkv"))
    score(record, tmp_path, [], ["with_truth@default"])
    shown = [int(frame[0, 0, 0]) for clip in WithTruth.shown if clip.truth for frame in clip.truth.frames]
    assert len(shown) == expected
    assert shown == [min(int(index / 8 * fps + 0.5), length - 1) for index in range(expected)]


@pytest.mark.usefixtures("known")
def test_each_file_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = engine.open_video
    monkeypatch.setattr(engine, "open_video", lambda path, *view: opened.append(path.name) or original(path, *view))
    record = sample(video=stored(tmp_path, pan(10)), truth=stored(tmp_path, pan(10), name="t.mkv"))
    score(record, tmp_path, [], ["watcher@default", "with_truth@default", "with_history@default"])
    assert opened == ["v.mkv", "t.mkv"]
    score(record, tmp_path, [], ["watcher@default", "unlearned@default"])
    assert opened == ["v.mkv", "t.mkv", "v.mkv"]
    score(record, tmp_path, [], ["unlearned@default"])
    assert len(opened) == 3


@pytest.mark.parametrize(
    ("fields", "metric", "says"),
    [
        ({"status": "error", "reason": "it broke"}, "motion@default", "the sample itself is error: it broke"),
        ({"video": None}, "motion@default", "the sample has no video"),
        ({"video": None}, "retention@default", "the sample has no video"),
        ({}, "retention@default", "there is no ground truth"),
        ({}, "efficiency@default", "there is no trace"),
    ],
)
def test_what_is_missing_is_not_applicable(fields: dict[str, Any], metric: str, says: str, tmp_path: Path) -> None:
    (record,) = score(sample(**fields), tmp_path, [], [metric])
    assert record.state == "not_applicable"
    assert says in record.reason


def test_an_unreadable_video_is_an_error_for_who_needs_it(tmp_path: Path) -> None:
    video = stored(tmp_path, pan(60, height=96, width=128))
    (tmp_path / "v.mkv").write_bytes((tmp_path / "v.mkv").read_bytes()[:-4000])
    trace = [TraceRecord(chunk=0, kind="generate", first_frame=0, frames=3, ms=10, passes=5, past_frames=0,
                         cached_frames=3, cache_bytes=10)]  # fmt: skip
    found = by_name(score(sample(video=video), tmp_path, trace, [*PIXELS, "efficiency@default"]))
    for name in ("ssim_consecutive", "appearance_drift", "motion"):
        assert found[name].state == "error"
        assert "of 60 announced frames" in found[name].reason
        assert "cut short" in found[name].hint
    assert found["efficiency"].state == "value"


def test_unknown_metrics_are_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown metric 'motoin@default'") as caught:
        score(sample(), tmp_path, [], ["motoin@default"])
    assert "did you mean 'motion@default'?" in (caught.value.hint or "")


def test_numbers_do_not_depend_on_the_size_of_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = sample(video=stored(tmp_path, pan(40)), history_frames=3)
    whole = score(record, tmp_path, [], PIXELS)
    monkeypatch.setattr(engine, "CHUNK_FRAMES", 1)
    assert score(record, tmp_path, [], PIXELS) == whole
    assert {one.state for one in whole} == {"value"}


def test_a_static_view_of_a_moving_file_scores_as_a_held_frame(tmp_path: Path) -> None:
    video = stored(tmp_path, pan(44)).model_copy(update={"transform": "static", "hold_from": 4})
    found = by_name(score(sample(video=video, history_frames=4), tmp_path, [], PIXELS))
    assert values(found["ssim_consecutive"])["median"] == 1.0
    assert values(found["appearance_drift"])["drift"] == pytest.approx(0, abs=1e-12)
    assert values(found["motion"])["freeze_share"] == 1.0


def test_one_frame_is_no_error(tmp_path: Path) -> None:
    records = score(sample(video=stored(tmp_path, pan(1))), tmp_path, [], PIXELS)
    assert {record.state for record in records} == {"not_applicable"}


def test_warnings_of_the_file_reach_the_record(tmp_path: Path) -> None:
    record = sample(video=stored(tmp_path, pan(10).repeat(2, 0)))
    assert score(record, tmp_path, [], ["motion@default"])[0].warnings == (
        "1 in 2 frames repeat the frame before: it looks like 4 fps or less, stored at 8",
    )


@pytest.mark.parametrize(
    ("fps", "gap"), [(8, ""), (16, ""), (24, ""), (23.976, ""), (30, "0.133"), (25, "0.12"), (12, "0.167"), (4, "0.25")]
)
def test_a_rate_without_frames_an_eighth_of_a_second_apart_is_labelled(tmp_path: Path, fps: float, gap: str) -> None:
    record = sample(video=stored(tmp_path, pan(30), fps=fps))
    (found,) = score(record, tmp_path, [], ["ssim_consecutive@default"])
    assert found.warnings == (
        (f"at {fps:g} fps pairs of frames lie {gap} s apart, not 0.125 s: levels don't compare",) if gap else ()
    )
    if gap:
        assert values(found)["gap"] == pytest.approx(float(gap), abs=2e-3), "the warning says what the metric did"


def test_key_frames_at_chunk_borders_are_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = sample(video=stored(tmp_path, pan(12)), timing=Timing(chunk_borders=(3, 6, 9)))
    assert score(record, tmp_path, [], ["motion@default"])[0].warnings == ()
    original = engine.open_video

    def open_with_keys(*arguments: Any) -> Any:
        video = original(*arguments)
        video.key_frames = (0, 5, 6)
        return video

    monkeypatch.setattr(engine, "open_video", open_with_keys)
    (found,) = score(record, tmp_path, [], ["motion@default"])
    assert found.warnings == ("1 of 3 chunk borders coincide with key frames of the encoder",)


def test_identity_covers_all_that_changes_a_number_and_nothing_else() -> None:
    video = VideoRef(path="v.mkv", sha256="1", frames=9, fps=8, width=64, height=64)
    base = sample(video=video)

    def changed(**fields: Any) -> SampleRecord:
        return base.model_copy(update=fields)

    different = [
        changed(video=video.model_copy(update={"sha256": "2"})),
        changed(video=video.model_copy(update={"transform": "static"})),
        changed(video=video.model_copy(update={"hold_from": 3})),
        changed(truth=video),
        changed(timing=Timing(chunk_borders=(3,))),
        changed(history_frames=3),
    ]
    assert len({identity(one) for one in (base, *different)}) == len(different) + 1
    assert identity(changed(key="other", video=video.model_copy(update={"path": "elsewhere.mkv"}))) == identity(base)


def test_default_metrics_follow_the_model() -> None:
    names = default_metrics(sample())
    assert "ssim_consecutive@default" in names
    assert not any(name.endswith("@mini") for name in names)
    assert set(names) < set(default_metrics(sample(model="mini")))


class Endless:
    """A reader whose frames exist only while somebody holds them."""

    fps, width, height, key_frames, warnings = 8.0, 64, 48, (), ()

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __enter__(self) -> "Endless":
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[tuple[float, Frames]]:
        rng = np.random.default_rng(0)
        return ((i / 8, rng.integers(0, 256, (48, 64, 3), np.uint8)) for i in range(self.frames))


def _peak(frames: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    monkeypatch.setattr(engine, "open_video", lambda *_: Endless(frames))
    tracemalloc.start()
    records = score(sample(frames), tmp_path, [], PIXELS[:2])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {record.state for record in records} == {"value"}
    return peak


def test_memory_does_not_grow_with_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CHUNK_FRAMES", 16)
    _peak(40, monkeypatch, tmp_path)  # imports and caches
    short, long = _peak(60, monkeypatch, tmp_path), _peak(240, monkeypatch, tmp_path)
    assert long - short < 180 * 48 * 64 * 3 / 4  # a quarter of the frames in between, had they been kept
