"""Every registered metric, through the engine, on files: a rendered mini world video and what can be done to it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magbench.data.mini_world import FPS, World
from magbench.data.video import video_ref, write_video
from magbench.metrics import METRICS, engine
from magbench.metrics.base import Metric
from magbench.metrics.engine import score
from magbench.metrics.weights import manifest
from magbench.records import MetricRecord, SampleRecord, Switch, Timing, TraceRecord
from tests.unit.one_video import SCENE, Case

CASE = Case()
NAMES = tuple(METRICS)
LEARNED = tuple(name for name in NAMES if METRICS[name].needs.features and not name.endswith("@mini"))
CHUNK = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth, another world in its place, and a single frame of it."""
    folder = tmp_path_factory.mktemp("world")
    truth = CASE.world.clip(CASE.frames)
    other = World(CASE.world.scene, CASE.seed + 1, CASE.path).clip(CASE.frames)
    write_video(folder / "truth.mkv", truth, FPS)
    write_video(folder / "other.mkv", np.concatenate([truth[: CASE.history], other[CASE.history :]]), FPS)
    write_video(folder / "one.mkv", truth[:1], FPS)
    return folder


@pytest.fixture(autouse=True)
def _no_downloaded_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path))


def sample(world: Path, file: str = "truth.mkv", **view: Any) -> SampleRecord:
    """A complete sample of the case, as a run would leave it."""
    borders = tuple(range(CHUNK, CASE.frames, CHUNK))
    switch = Switch(at=9.0, prompt=replace(SCENE, sky="night").sentence())
    made = CASE.sample(CASE.truth()[:1], None, "fifo", schedule=(switch,))
    return made.model_copy(
        update={
            "video": video_ref(world / file, world, **view),
            "truth": video_ref(world / "truth.mkv", world),
            "timing": Timing(
                chunk_borders=borders,
                latent_borders=tuple(b for b in range(1, CASE.frames) if b not in borders),
                update_borders=borders[::2],
            ),
        }
    )


def trace() -> list[TraceRecord]:
    return [
        TraceRecord(
            chunk=first // CHUNK,
            kind="history" if first < CASE.history else "generate",
            first_frame=first,
            frames=CHUNK,
            ms=10.0,
            passes=5,
            past_frames=min(first, 12),
            cached_frames=min(first + CHUNK, 12),
            cache_bytes=1000,
            held=tuple(range(max(0, first - 12), first)),
        )
        for first in range(0, CASE.frames, CHUNK)
    ]


def scored(name: str, record: SampleRecord, world: Path) -> MetricRecord:
    (found,) = score(record, world, trace(), [name])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_declares_itself(name: str) -> None:
    metric: type[Metric] = METRICS[name]
    assert name == f"{metric.name}@{metric.profile}"
    assert metric.title
    assert (metric.__doc__ or "").strip()
    assert metric.version >= 1
    assert metric.memory in ("constant", "frame", "pairs")
    assert (metric.memory_cap > 0) == (metric.memory == "pairs")
    names = [reduction.name for reduction in metric.reductions]
    assert len(set(names)) == len(names) > 0
    assert all(reduction.low < reduction.high for reduction in metric.reductions)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_says_was_declared_is_finite_and_in_bounds(name: str, world: Path) -> None:
    record = scored(name, sample(world), world)
    assert record.state != "error", record.reason
    declared = {reduction.name: reduction for reduction in METRICS[name].reductions}
    for reduction in record.reductions:
        assert reduction.state != "error", reduction.reason
        if reduction.value is not None:
            bounds = declared[reduction.name]
            assert bounds.low - 1e-6 <= reduction.value <= bounds.high + 1e-6
    if record.reductions:
        assert record.reductions[0].name == METRICS[name].reductions[0].name
    for series in record.series:
        assert all(map(math.isfinite, (*series.times, *series.values)))
        assert list(series.times) == sorted(series.times)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_video_gets_the_same_record_whatever_the_chunks(
    name: str, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = sample(world, "other.mkv")
    whole = scored(name, record, world)
    assert scored(name, record, world) == whole
    monkeypatch.setattr(engine, "CHUNK_FRAMES", 5)
    chunked = scored(name, record, world)
    assert [(r.name, r.state) for r in chunked.reductions] == [(r.name, r.state) for r in whole.reductions]
    for one, other in zip(chunked.reductions, whole.reductions, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-5)


@pytest.mark.parametrize("name", LEARNED)
def test_without_its_weights_it_says_which_and_how_to_get_them(name: str, world: Path, tmp_path: Path) -> None:
    """The file, its place in the cache folder, its address, size and licence; no traceback, no number."""
    record = scored(name, sample(world), world)
    assert record.state == "not_applicable"
    assert not record.reductions
    assert record.reason.startswith("the weights ")
    entries = [entry for entry in manifest().values() if str(tmp_path / "weights" / entry.file) in record.reason]
    assert len(entries) == 1
    for part in (entries[0].url, f"{entries[0].megabytes} MB", entries[0].licence):
        assert part in record.hint


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("view", ["static", "shuffled"])
def test_reference_rows_are_scored(name: str, view: Any, world: Path) -> None:
    record = scored(name, sample(world, transform=view, hold_from=CASE.history), world)
    assert record.state != "error", record.reason
    assert not [reduction for reduction in record.reductions if reduction.state == "error"]


@pytest.mark.parametrize("name", NAMES)
def test_one_frame_is_no_error(name: str, world: Path) -> None:
    record = scored(name, sample(world, "one.mkv").model_copy(update={"history_frames": 0}), world)
    assert record.state != "error", record.reason


@pytest.mark.parametrize("name", NAMES)
def test_an_external_video_is_scored_or_not_applicable(name: str, world: Path) -> None:
    bare = sample(world).model_copy(update={"truth": None, "timing": Timing(), "model": "", "history_frames": 0})
    (record,) = score(bare, world, [], [name])
    assert record.state != "error", record.reason
