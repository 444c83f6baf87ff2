"""The parity profiles: frames looked at, reductions, aggregation."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.metrics import METRICS
from magbench.metrics.base import Clip, Metric, Scores
from magbench.metrics.engine import default_metrics
from magbench.metrics.vbench import (
    AestheticVBench,
    BackgroundConsistencyVBench,
    PreviousAndFirst,
    SubjectConsistencyVBench,
    dataset_score,
)
from magbench.metrics.vbench_frames import clip_starts, kept_every, middle
from magbench.metrics.vbench_long import BackgroundConsistencyLong, SubjectConsistencyLong
from magbench.records import MetricRecord, Reduction
from magbench.runners.scoring import metric_names
from tests.unit.clips import numbers, pan, reason, run, sample


@pytest.mark.parametrize(
    ("frames", "count", "expected"),
    [
        (1440, 8, (89, 269, 449, 629, 809, 989, 1169, 1349)),
        (5, 8, (0, 1, 2, 3, 4, 4, 4, 4)),
        (1, 3, (0, 0, 0)),
        (16, 8, (0, 2, 4, 6, 8, 10, 12, 14)),
    ],
)
def test_middle_sampler(frames: int, count: int, expected: tuple[int, ...]) -> None:
    assert middle(frames, count) == expected


@pytest.mark.parametrize(
    ("fps", "rate"), [(8, 8), (12, 6), (16, 8), (20, 10), (24, 8), (25, 25 / 3), (30, 7.5), (4, 4), (23.976, 7.992)]
)
def test_frames_per_second_that_dynamic_degree_keeps(fps: float, rate: float) -> None:
    assert fps / kept_every(fps) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("frames", "length", "expected"),
    [(96, 32, (0, 32, 64)), (97, 32, (0, 32, 64, 65)), (127, 32, (0, 32, 64, 95)), (32, 32, (0,)), (31, 32, (0,))],
)
def test_clips_of_vbench_long_end_with_the_last_frames(frames: int, length: int, expected: tuple[int, ...]) -> None:
    assert clip_starts(frames, length) == expected


def angles(*degrees: float) -> Tensor:
    turned = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return (torch.stack([turned.cos(), turned.sin()], 1) * 3).float()


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_consistency_is_the_mean_of_two_clamped_cosines(cut: int) -> None:
    """0, 60, 120, 180 degrees: cosine 1/2 to the frame before; 1/2, -1/2, -1 to the first, of which two count as 0."""
    features, consistency = angles(0, 60, 120, 180), PreviousAndFirst()
    found = consistency.add(features[:cut]) + (consistency.add(features[cut:]) if cut < 4 else [])
    assert found == pytest.approx([0.5, 0.25, 0.25], abs=1e-6)


def turning(clip: Clip) -> Tensor:
    """Uneven turns, past 90 degrees, told by the time of each frame alone."""
    return angles(*(100 * math.sin(2.3 * time) + 9 * time for time in clip.times))


@pytest.mark.parametrize("metric", [SubjectConsistencyVBench, BackgroundConsistencyVBench])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_every_frame_is_compared_with_the_one_before_and_the_first(metric: type[Metric], chunk: int) -> None:
    fps, count = 24, 60
    found = numbers(run(metric(), pan(count), fps, feature=turning, chunk=chunk))
    unit = [tuple(row / np.linalg.norm(row)) for row in turning(times_of(count, fps)).double().numpy()]
    pairs = [(max(0.0, dot(a, b)) + max(0.0, dot(unit[0], b))) / 2 for a, b in pairwise(unit)]
    assert found == {"consistency": pytest.approx(np.mean(pairs), abs=1e-6), "pairs": count - 1}


def times_of(count: int, fps: float) -> Clip:
    return Clip(0, tuple(index / fps for index in range(count)), torch.zeros(count, 2, 2, 3, dtype=torch.uint8))


def dot(one: Any, other: Any) -> float:
    return float(sum(a * b for a, b in zip(one, other, strict=True)))


def test_one_frame_has_nothing_to_compare() -> None:
    assert "fewer than two frames" in reason(run(SubjectConsistencyVBench(), pan(1), feature=turning))
    assert "fewer than two frames" in reason(run(SubjectConsistencyLong(), pan(1), feature=turning))


def test_aesthetic_is_the_mean_of_all_frames() -> None:
    ratings: Callable[[Clip], Tensor] = lambda clip: torch.tensor([0.4 + 0.1 * time for time in clip.times])  # noqa: E731
    answer = run(AestheticVBench(), pan(33), 16, feature=ratings)
    assert numbers(answer) == {"rating": pytest.approx(0.5, abs=1e-6)}
    assert isinstance(answer, Scores)
    assert len(answer.series[0].values) == 33


def record(name: str, value: float, frames: int) -> MetricRecord:
    return MetricRecord(
        metric=name,
        profile="vbench-0.1.5",
        version=1,
        state="value",
        video_sha256="0",
        reductions=(
            Reduction(name="consistency", state="value", value=value),
            Reduction(name="pairs", state="value", value=frames - 1),
        ),
    )


def test_weighing_by_frames_or_by_videos() -> None:
    """The three videos of the study: the number of processes alone moves VBench's score from 0.9075 to 0.9500."""
    videos = [record("subject_consistency", *video) for video in ((0.98, 81), (0.97, 81), (0.90, 1440))]
    assert dataset_score(videos, "frames") == pytest.approx(0.9075, abs=5e-5)
    assert dataset_score(videos) == pytest.approx(0.9500, abs=5e-5)
    broken = MetricRecord(
        metric="subject_consistency", profile="vbench-0.1.5", version=1, state="error", reason="cut", video_sha256="0"
    )
    with pytest.raises(ConfigError, match="no consistency to average: cut"):
        dataset_score([*videos, broken])
    with pytest.raises(ConfigError, match="no record"):
        dataset_score([])


def by_hand(features: Tensor, length: int) -> tuple[list[float], list[float]]:
    """Clips of VBench-Long cut one after the other: mean in each, and from each first frame to the next."""

    def values(rows: Tensor) -> list[float]:
        unit = [tuple(row / np.linalg.norm(row)) for row in rows.double().numpy()]
        return [(max(0.0, dot(a, b)) + max(0.0, dot(unit[0], b))) / 2 for a, b in pairwise(unit)]

    clips = [features[start : start + length] for start in range(0, len(features) - length + 1, length)]
    if len(features) < length:
        clips = [features]
    elif len(features) % length:
        clips.append(features[-length:])
    return [float(np.mean(values(clip))) for clip in clips], values(torch.stack([clip[0] for clip in clips]))


@pytest.mark.parametrize("metric", [SubjectConsistencyLong, BackgroundConsistencyLong])
@pytest.mark.parametrize(("fps", "frames", "length"), [(8.0, 48, 16), (8.0, 53, 16), (23.976, 150, 46), (1.5, 7, 2)])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_long_consistency_equals_clips_cut_by_hand(
    metric: type[Metric], fps: float, frames: int, length: int, chunk: int
) -> None:
    answer = run(metric(), pan(frames), fps, feature=turning, chunk=chunk)
    inside, between = by_hand(turning(times_of(frames, fps)), length)
    assert numbers(answer) == {
        "in_clip": pytest.approx(np.mean(inside), abs=1e-6),
        "clip_to_clip": pytest.approx(np.mean(between), abs=1e-6),
        "clips": len(inside),
    }
    assert isinstance(answer, Scores)
    assert answer.series[0].values == pytest.approx(inside, abs=1e-6)
    assert answer.series[0].times[-1] == pytest.approx((frames - length) / fps)
    assert answer.series[1].values == pytest.approx(between, abs=1e-6)


def test_a_short_video_is_one_clip_and_has_no_long_range() -> None:
    answer = run(SubjectConsistencyLong(), pan(16), 8, feature=turning)
    assert numbers(answer)["in_clip"] == pytest.approx(by_hand(turning(times_of(16, 8)), 16)[0][0], abs=1e-6)
    assert "not longer than one clip" in reason(answer, "clip_to_clip")
    assert "clip of 2 s has 0 frames" in reason(run(SubjectConsistencyLong(), pan(4), 0.9, feature=turning))


def test_frames_that_were_not_announced_move_the_last_clip() -> None:
    metric = SubjectConsistencyLong()
    answer = run(metric, pan(40), 8, feature=turning)
    metric._frames = 39
    assert "39 frames were announced and 40 came" in reason(metric.finish())
    assert numbers(answer)["clips"] == 3


def test_a_scene_that_alternates_is_seen_from_clip_to_clip_only() -> None:
    """Each clip stands still, neighbours are at right angles: the published table would still give this 0.9."""

    def alternating(clip: Clip) -> Tensor:
        return angles(*(90 * (int(time / 2 + 1e-6) % 2) for time in clip.times))

    found = numbers(run(SubjectConsistencyLong(), pan(64), 8, feature=alternating))
    assert found["in_clip"] == pytest.approx(1)
    assert found["clip_to_clip"] == pytest.approx(np.mean([0, 0.5, 0]), abs=1e-6)


def test_no_parity_profile_is_scored_unasked() -> None:
    """They cost hours and are for comparison with published tables."""
    assert metric_names("background_consistency") == ("background_consistency@default",)
    assert metric_names("dynamic_degree") == ("dynamic_degree@vbench-0.1.5",)
    assert metric_names("aesthetic@vbench-0.1.5") == ("aesthetic@vbench-0.1.5",)
    assert not [name for name in default_metrics(sample(model="mini")) if "vbench" in name]
    assert "subject_consistency@vbench-long" in METRICS
