"""Coherence horizon: for how many seconds a video holds.

A video has lost coherence at the first time t at which the mean of a series over the 5 s up to t is beyond a threshold
and stays there for 5 s more. So nothing can be said of a video's last 5 s: a video without such a time is censored 5 s
before its end. Freezing is an event of its own, by the same rule on the share of still pairs of `motion@default`: a
frozen video no longer drifts, and must not count as one that holds.

A threshold belongs to a metric and profile, and is fixed before methods are looked at, from windows of real or ground
truth videos (docs/horizon_thresholds.py measures them). One taken from each clip's own opening calls a quarter to a
half of stationary series with a memory of 2 to 5 s lost within a minute. And the series must not follow the camera, or
be the difference to the truth on the same path, written `- real`.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

WINDOW = 5.0
"""Seconds that are averaged."""
STAYS = 5.0
"""Seconds for which the mean has to stay beyond the threshold."""
CAMERA_DEPENDENT = frozenset(
    {"background_consistency", "lpips_consecutive", "motion", "ssim_consecutive", "subject_consistency"}
)
"""Metrics whose series change with the camera's motion however good the video is."""
DEFAULTS = ("appearance_drift@default/drift>1",)
"""For videos without a suite."""
_TIE = 0.005
"""Seconds: containers round timestamps."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """A series and what counts as lost: `metric@profile/series [- real] > threshold`, or `<`."""

    metric: str
    """`metric@profile`."""
    series: str
    beyond: Literal["<", ">"]
    threshold: float
    to_real: bool = False
    """Whether the series is held against that of the same case's `real` row."""

    def __str__(self) -> str:
        """As it is written, without spaces around the sign: the name of its column."""
        return f"{self.metric}/{self.series}{'-real' if self.to_real else ''}{self.beyond}{self.threshold:g}"


_RULE = re.compile(
    r"(?P<metric>[a-z0-9_]+@[a-z0-9._-]+)/(?P<series>\S.*?)(?P<real>\s*-\s*real)?\s*(?P<beyond>[<>])\s*(?P<threshold>\S+)"
)


def parse(text: str) -> Rule:
    """Read a rule.

    Raises:
        ValueError: it isn't one, or its series follows the camera.
    """
    found = _RULE.fullmatch(text.strip())
    try:
        threshold = float(found["threshold"]) if found else float("nan")
    except ValueError:
        threshold = float("nan")
    if found is None or not np.isfinite(threshold):
        raise ValueError(f"{text!r} is no horizon: write `metric@profile/series > number`")
    rule = Rule(
        found["metric"], found["series"], "<" if found["beyond"] == "<" else ">", threshold, bool(found["real"])
    )
    if not rule.to_real and rule.metric.partition("@")[0] in CAMERA_DEPENDENT:
        raise ValueError(f"{text!r}: {rule.metric} follows the camera: write `{rule.metric}/{rule.series} - real`")
    return rule


def defaults(metrics: Collection[str]) -> tuple[str, ...]:
    """The horizons of videos without a suite, as far as they are scored with the metrics that it takes."""
    return tuple(text for text in DEFAULTS if parse(text).metric in metrics)


FREEZE = Rule("motion@default", "still", ">", 0.5)
"""When a video is frozen."""


@dataclass(frozen=True)
class Duration:
    """For how long a video was seen to hold."""

    seconds: float
    ending: Literal["lost", "frozen", "censored"]

    @property
    def event(self) -> bool:
        """Whether it ended, rather than the video."""
        return self.ending != "censored"


def window_means(times: ArrayLike, values: ArrayLike) -> tuple[Floats, Floats]:
    """Means of a series over the 5 s up to each time that has so much before it.

    Args:
        times: [n], seconds, ascending.
        values: [n].

    Returns:
        Times and means, each [m].
    """
    at, series = np.asarray(times, np.float64), np.asarray(values, np.float64)
    sums = np.concatenate([[0.0], series.cumsum()])
    stops = np.flatnonzero(at >= at[:1] + WINDOW - _TIE) + 1
    starts = np.searchsorted(at, at[stops - 1] - WINDOW + _TIE, "right")
    return at[stops - 1], (sums[stops] - sums[starts]) / (stops - starts)


def duration(times: ArrayLike, values: ArrayLike, rule: Rule) -> Duration | None:
    """When a series is lost for good, as far as 5 s in a row can tell.

    Args:
        times: [n], seconds from the start of the generation, ascending, at least one.
        values: [n], of the rule's series, less the truth's where the rule says so.
        rule: What counts as lost.

    Returns:
        `lost` or `censored`; None for a series that is shorter than 10 s.
    """
    ends, means = window_means(times, values)
    if not len(ends) or ends[-1] - ends[0] < STAYS - _TIE:
        return None
    last = float(ends[-1] - STAYS)
    beyond = means > rule.threshold if rule.beyond == ">" else means < rule.threshold
    start: float | None = None
    for time, lost in zip(ends.tolist(), beyond.tolist(), strict=True):
        start = (time if start is None else start) if lost else None
        if start is not None and time >= start + STAYS - _TIE:
            return Duration(start, "lost")
    return Duration(last, "censored")


def first(lost: Duration, frozen: Duration | None) -> Duration:
    """The earlier of losing coherence and freezing, within what was seen of the former."""
    if frozen is not None and frozen.event and frozen.seconds < lost.seconds:
        return Duration(frozen.seconds, "frozen")
    return lost


def survival(durations: Sequence[Duration]) -> tuple[Floats, Floats]:
    """Share of videos that still hold (Kaplan & Meier 1958).

    A video censored at a time still counts among those that could be lost at it.

    Args:
        durations: Of the videos, at least one.

    Returns:
        The times at which a video was lost, ascending, and the share that holds from then on, each [events].
    """
    seconds, events = np.array([d.seconds for d in durations]), np.array([d.event for d in durations])
    times = np.unique(seconds[events])
    at_risk = (seconds[:, None] >= times).sum(0)
    lost = ((seconds[:, None] == times) & events[:, None]).sum(0)
    return times, np.cumprod(1 - lost / at_risk)
