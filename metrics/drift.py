"""Drift functionals: what a series says about start and end. Defined for any series over time."""

from collections.abc import Mapping, Sequence

import numpy as np

from magbench.metrics.base import Declared, NotApplicable
from magbench.records import Direction, Unit

SIGNED = ("start_end@15%", "start_end@5s", "slope", "worst_window")
"""Functionals that have the series' own direction."""
UNSIGNED = ("abs_start_end@15%", "abs_start_end@5s", "variability@2s")
"""Functionals that are better the lower they are, whichever way the series goes."""
VARIABILITY_WINDOW = 2.0
"""Seconds."""


def declared(worse: Direction, unit: Unit = "") -> tuple[Declared, ...]:
    """The reductions of a series that gets worse as it gets `higher` or `lower`."""
    better: Direction = "lower" if worse == "higher" else "higher"
    return (
        *(Declared(name, better, unit) for name in SIGNED),
        *(Declared(name, "lower", unit, 0) for name in UNSIGNED),
    )


def functionals(
    times: Sequence[float], values: Sequence[float], worse: Direction, name: str = ""
) -> Mapping[str, float | NotApplicable]:
    """Drift of a series.

    * `start_end@15%`, `start_end@5s`: mean of the last part minus mean of the first, signed.
    * `slope`: least squares, per minute.
    * `worst_window`: the single worst value.
    * `abs_start_end@15%` (FramePack's contrast, arXiv 2504.12626; HeliosBench), `abs_start_end@5s` (Rolling Forcing,
      Deep Forcing): the same differences without their sign, as published.
    * `variability@2s`: standard deviation (population) of the means of consecutive windows of 2 s, a last one at least
      half full included (Reward Forcing, arXiv 2512.04678). No drift: it ignores order, and a video that swings and one
      that decays can have the same.

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
    by_share, by_seconds = _start_end(at, series, 0.15 * span), _start_end(at, series, 5.0)
    found: dict[str, float | NotApplicable] = {
        "start_end@15%": by_share,
        "start_end@5s": by_seconds,
        "slope": _slope(at, series),
        "worst_window": float(series.max() if worse == "higher" else series.min()),
        "abs_start_end@15%": by_share if isinstance(by_share, NotApplicable) else abs(by_share),
        "abs_start_end@5s": by_seconds if isinstance(by_seconds, NotApplicable) else abs(by_seconds),
        "variability@2s": _variability(at, series),
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


def _variability(times: np.ndarray, values: np.ndarray) -> float | NotApplicable:
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    windows = ((times - times[0] + 0.005) // VARIABILITY_WINDOW).astype(int)  # containers round timestamps
    if times[-1] - times[0] + step - windows[-1] * VARIABILITY_WINDOW < VARIABILITY_WINDOW / 2 - 1e-6:
        windows = windows[windows < windows[-1]]
    found = np.unique(windows)
    if len(found) < 2:
        return NotApplicable(f"the series spans no two windows of {VARIABILITY_WINDOW:g} s")
    return float(np.std([values[: len(windows)][windows == window].mean() for window in found]))
