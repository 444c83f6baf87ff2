"""Drift functionals: what a series says about start and end. Defined for any series over time."""

from collections.abc import Mapping, Sequence

import numpy as np

from magbench.metrics.base import Declared, NotApplicable
from magbench.records import Direction, Unit

FUNCTIONALS = ("start_end@15%", "start_end@5s", "slope", "worst_window")


def declared(worse: Direction, unit: Unit = "") -> tuple[Declared, ...]:
    """The four reductions of a series that gets worse as it gets `higher` or `lower`."""
    better: Direction = "lower" if worse == "higher" else "higher"
    return tuple(Declared(name, better, unit) for name in FUNCTIONALS)


def functionals(
    times: Sequence[float], values: Sequence[float], worse: Direction, name: str = ""
) -> Mapping[str, float | NotApplicable]:
    """Drift of a series.

    * `start_end@15%`, `start_end@5s`: mean of the last part minus mean of the first, signed.
    * `slope`: least squares, per minute.
    * `worst_window`: the single worst value.

    On a stationary series the absolute difference of start and end is 0.5 to 1 standard deviation with no drift at all:
    read each beside the `real` and `static` rows.

    Args:
        times: Seconds, ascending, at least one.
        values: One per time.
        worse: Which way the values go when the video gets worse: `higher` or `lower`.
        name: Put before each functional's name, with a dot between.
    """
    at, series = np.asarray(times), np.asarray(values)
    span = float(at[-1] - at[0])
    found: dict[str, float | NotApplicable] = {
        "start_end@15%": _start_end(at, series, 0.15 * span),
        "start_end@5s": _start_end(at, series, 5.0),
        "slope": _slope(at, series),
        "worst_window": float(series.max() if worse == "higher" else series.min()),
    }
    return {f"{name}.{key}" if name else key: value for key, value in found.items()}


def _start_end(times: np.ndarray, values: np.ndarray, part: float) -> float | NotApplicable:
    if times[-1] - times[0] < 2 * part or len(times) < 2:
        return NotApplicable(f"the series spans {times[-1] - times[0]:.1f} s, too short for two parts of {part:g} s")
    first, last = values[times <= times[0] + part], values[times >= times[-1] - part]
    return float(last.mean() - first.mean())


def _slope(times: np.ndarray, values: np.ndarray) -> float | NotApplicable:
    if len(times) < 3:
        return NotApplicable(f"a slope needs three points, there are {len(times)}")
    centred = times - times.mean()
    return float(60 * (centred @ values) / (centred @ centred))
