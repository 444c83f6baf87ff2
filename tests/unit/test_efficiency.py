import pytest

from magbench.metrics.base import Info
from magbench.metrics.efficiency import Efficiency
from magbench.records import TraceRecord
from tests.unit.clips import numbers, reason, sample


def row(chunk: int, kind: str, ms: float, past: float, cached: float) -> TraceRecord:
    return TraceRecord(
        chunk=chunk, kind=kind, first_frame=3 * chunk, frames=3, ms=ms, passes=5, past_frames=past,
        cached_frames=cached, cache_bytes=int(cached * 1000), state_bytes=chunk,
    )  # fmt: skip


def test_numbers_are_those_of_the_generated_chunks() -> None:
    trace = [row(0, "history", 9999, 50, 50), row(1, "generate", 100, 3, 6), row(2, "recache", 50, 9, 9),
             row(3, "generate", 200, 6, 12), row(4, "generate", 150, 9, 9)]  # fmt: skip
    metric = Efficiency()
    metric.start(Info(sample(12, history_frames=3), 0, 0, 0, 0, trace))
    found = numbers(metric.finish())
    assert found == pytest.approx(
        {
            "fps": 9 / 0.5, "chunk_ms_p50": 150, "chunk_ms_p95": 195, "keys_passes": 30,
            "cached_frames_peak": 12, "cached_frames_mean": 9, "cache_bytes_peak": 12000, "cache_bytes_mean": 9000,
            "state_bytes_peak": 4,
        }
    )  # fmt: skip


def test_a_trace_without_generated_chunks_has_no_numbers() -> None:
    metric = Efficiency()
    metric.start(Info(sample(12), 0, 0, 0, 0, [row(0, "history", 1, 0, 0)]))
    assert "no generated chunk" in reason(metric.finish())
