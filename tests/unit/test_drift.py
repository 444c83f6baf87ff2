"""Drift functionals: closed forms, and what they read where nothing drifts."""

import numpy as np
import pytest

from magbench.metrics.base import NotApplicable
from magbench.metrics.drift import SIGNED, UNSIGNED, declared, functionals


def found(times: np.ndarray, values: np.ndarray, worse: str = "higher") -> dict[str, float | NotApplicable]:
    return dict(functionals(times.tolist(), values.tolist(), worse))  # type: ignore[arg-type]


def test_unsigned_differences_forget_the_direction() -> None:
    times = np.arange(0, 61.0)
    falling = found(times, 2 - 0.1 * times)
    assert falling["start_end@15%"] == pytest.approx(-5.1)
    assert falling["abs_start_end@15%"] == pytest.approx(5.1)
    assert falling["start_end@5s"] == pytest.approx(-5.5)
    assert falling["abs_start_end@5s"] == pytest.approx(5.5)


@pytest.mark.parametrize("rate", [0.5, 1, 8, 16])
def test_variability_is_the_spread_of_2_s_means_at_any_rate(rate: float) -> None:
    """Windows of 1 and 3 in turn: a standard deviation of 1, whatever their order."""
    levels = np.array([1.0, 3, 1, 3, 1, 3])
    times = np.arange(12 * rate) / rate
    values = levels[(times // 2).astype(int)]
    assert found(times, values)["variability@2s"] == pytest.approx(1.0)
    assert found(times, np.sort(values))["variability@2s"] == pytest.approx(1.0)


def test_variability_ignores_what_averages_out_and_a_tail_shorter_than_half_a_window() -> None:
    times = np.arange(0, 12.6, 0.125)
    assert found(times, np.where(times >= 12, 100.0, (-1) ** np.arange(len(times))))["variability@2s"] == 0
    longer = np.arange(0, 13, 0.125)
    assert found(longer, np.where(longer >= 12, 7.0, 0.0))["variability@2s"] == pytest.approx(np.std([7, *[0] * 6]))


def test_a_short_series_says_why_it_has_none() -> None:
    short = found(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
    for name in ("variability@2s", "slope", "start_end@5s", "abs_start_end@5s"):
        assert isinstance(short[name], NotApplicable), name
    assert "no two windows of 2 s" in short["variability@2s"].reason  # type: ignore[union-attr]


def test_names_and_directions_are_declared() -> None:
    names = {d.name: d.direction for d in declared("lower")}
    assert tuple(names) == (*SIGNED, *UNSIGNED) == tuple(found(np.arange(20.0), np.arange(20.0)))
    assert {names[name] for name in SIGNED} == {"higher"}
    assert {names[name] for name in UNSIGNED} == {"lower"}


@pytest.mark.parametrize("memory", [0.0, 2.0, 10.0])
def test_where_nothing_drifts_start_and_end_still_differ_by_half_a_standard_deviation_or_more(memory: float) -> None:
    """Stationary series of a minute, in windows of 2 s, that remember so many seconds: metrics.md A3."""
    rng = np.random.default_rng(0)
    times = np.arange(1, 60.0, 2)
    keep = np.exp(-2 / memory) if memory else 0.0
    series = np.empty((1000, len(times)))
    series[:, 0] = rng.normal(size=1000)
    for at in range(1, len(times)):
        series[:, at] = keep * series[:, at - 1] + np.sqrt(1 - keep**2) * rng.normal(size=1000)
    answers = [found(times, values) for values in series]
    for part in ("15%", "5s"):
        signed = np.array([answer[f"start_end@{part}"] for answer in answers])
        unsigned = np.array([answer[f"abs_start_end@{part}"] for answer in answers])
        assert abs(signed.mean()) < 0.1
        assert 0.45 < unsigned.mean() < 1.1
    assert abs(np.mean([answer["slope"] for answer in answers])) < 0.1
