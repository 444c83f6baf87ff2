import pytest

from magbench.metrics.base import Info
from magbench.metrics.efficiency import Efficiency
from magbench.records import Timing, TraceRecord
from tests.unit.clips import numbers, reason, sample


def row(chunk: int, kind: str, ms: float, past: float, cached: float, seen: float) -> TraceRecord:
    return TraceRecord(
        chunk=chunk, kind=kind, first_frame=3 * chunk, frames=3, ms=ms, passes=5, keys_passes=seen, past_frames=past,
        cached_frames=cached, cache_bytes=int(cached * 1000), state_bytes=100 * chunk, network_bytes=77,
    )  # fmt: skip


TRACE = [row(0, "history", 9999, 50, 50, 9999), row(1, "generate", 100, 3, 6, 30), row(2, "recache", 60, 2, 15, 14),
         row(2, "generate", 200, 6, 12, 45), row(3, "generate", 150, 9, 9, 61)]  # fmt: skip
"""The second generated chunk comes after a re-cache: 260 ms and 59 key frames, and 15 frames were cached."""


def scored(history: int, timing: Timing | None = None) -> Efficiency:
    metric = Efficiency()
    record = sample(12, history_frames=history, timing=timing)
    metric.start(Info(record, 0, 0, 0, 0, TRACE))
    return metric


def test_numbers_are_those_of_the_generated_chunks_with_their_recaches() -> None:
    assert numbers(scored(3).finish()) == pytest.approx(
        {
            "fps": 9 / 0.51, "chunk_ms_p50": 150, "chunk_ms_p95": 249,
            "keys_passes_peak": 61, "keys_passes_mean": 50, "past_frames_peak": 9, "past_frames_mean": 6,
            "cached_frames_peak": 15, "cached_frames_mean": 10, "cache_bytes_peak": 15000, "cache_bytes_mean": 10000,
            "state_bytes_peak": 300, "state_bytes_mean": 200, "network_bytes": 77,
        }
    )  # fmt: skip


def test_series_are_on_the_videos_clock() -> None:
    answer = scored(4, Timing(chunk_borders=(6, 8))).finish()
    ms, cached = answer.series  # type: ignore[union-attr]
    assert (ms.times, ms.values) == ((0.5, 0.75, 1.0), (100, 260, 150))
    assert (cached.times, cached.values) == ((0.5, 0.75, 1.0), (6, 15, 9))


def test_without_known_borders_there_is_no_series() -> None:
    assert scored(3).finish().series == ()  # type: ignore[union-attr]


def test_a_trace_without_generated_chunks_has_no_numbers() -> None:
    metric = Efficiency()
    metric.start(Info(sample(12), 0, 0, 0, 0, TRACE[:1]))
    assert "no generated chunk" in reason(metric.finish())
