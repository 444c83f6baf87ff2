"""Shared by metrics that compare frames a fixed time apart: the pairs, and what is read from their series.

Pairs lie 1/8 s apart whatever the frame rate, because the level of any such metric depends on the gap; the profile
`native` compares neighbours, as others do, and is not to be set beside videos of another frame rate. Either way `gap`
says how far apart the pairs really are. Levels have no direction: a frozen video would win. What has one:

* spike rate: on the logarithm of the dissimilarity, the share of pairs further than 5 MAD from the median of the +-2 s
  around them. The MAD is that of the whole clip, but at least `MAD_FLOOR`, else every flutter of a calm clip counts.
* border effect: median over pairs across a chunk border, minus median over pairs across a border between latent frames
  inside a chunk. A decoder that turns each latent frame into several pixel frames leaves its own step at those borders;
  only what is beyond that step is the cache's.
* update effect: median over pairs across a chunk border at which the policy compressed or re-arranged its cache, minus
  median over pairs across the other chunk borders since the first update. Before it the cache was still growing, and
  the video was younger.

Borders at which the prompt switches count for neither: a new prompt changes the picture whatever the cache does.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from magbench.metrics.base import Declared, NotApplicable, Scores
from magbench.records import Border, Direction, Series, Timing

GAP = 0.125
"""Seconds between the two frames of a pair."""
WINDOW = 2.0
"""Seconds on each side of a pair that its rolling median looks at."""
SPIKE_MADS = 5.0
MAD_FLOOR = 0.05
"""In units of the natural logarithm: a spike is always a change of the dissimilarity by more than a quarter."""
MIN_PAIRS = 3
"""Fewest pairs of each kind behind an effect."""
MIN_SPIKE_PAIRS = 16
"""Fewest pairs behind a spike rate: two seconds at 8 fps."""
_TIE = 0.005
"""Seconds: candidates this close to equally near count as equally near, since containers round timestamps."""

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
T = TypeVar("T")


@dataclass(frozen=True)
class Pair(Generic[T]):
    """Two frames one gap apart, each with whatever the metric keeps of a frame."""

    index: int
    """Of the later frame, in the video."""
    index_before: int
    time: float
    """Seconds, of the later frame."""
    time_before: float
    now: T
    before: T


class Pairs(Generic[T]):
    """Pairs each frame with the one nearest to `gap` seconds before it, keeping no more frames than that takes.

    Of two equally near the older is taken. Frames in the first `gap` of a video have no partner.

    Args:
        gap: Seconds; None pairs each frame with the one before it.
        keep: Copies what has to wait for its partner, where it is a part of something larger that would wait with it.
    """

    def __init__(self, gap: float | None = GAP, keep: Callable[[T], T] = lambda item: item) -> None:
        self._gap = gap
        self._keep = keep
        self._tail: list[tuple[int, float, T]] = []
        self._start: float | None = None

    def add(self, first: int, times: Sequence[float], items: Sequence[T]) -> list[Pair[T]]:
        """Pairs whose later frame is among these, which follow those added before."""
        pairs = []
        for index, (time, item) in enumerate(zip(times, items, strict=True), start=first):
            self._start = time if self._start is None else self._start
            if self._tail and (self._gap is None or time - self._gap >= self._start - _TIE):
                del self._tail[: self._nearest(time)]  # targets only grow, so nothing older will be asked for
                pairs.append(Pair(index, self._tail[0][0], time, self._tail[0][1], item, self._tail[0][2]))
            self._tail.append((index, time, item))
        for place in range(max(0, len(self._tail) - len(items)), len(self._tail)):
            index, time, item = self._tail[place]
            self._tail[place] = index, time, self._keep(item)
        return pairs

    def _nearest(self, time: float) -> int:
        """Place in the tail of the partner of the frame at `time`."""
        if self._gap is None:
            return len(self._tail) - 1
        distances = [abs(then - (time - self._gap)) for _, then, _ in self._tail]
        return next(i for i, distance in enumerate(distances) if distance <= min(distances) + _TIE)


@dataclass(frozen=True)
class Recipe:
    """How a metric's series becomes its reductions.

    Args:
        name: Of the series.
        worse: Which way the values go when neighbours are less alike.
        dissimilarity: Values to something that is 0 for identical frames.
        effect: Values to what the border and update effects are differences of.
        still: Dissimilarity up to which a pair counts as identical.
    """

    name: str
    worse: Literal["lower", "higher"]
    dissimilarity: Callable[[Values], Values]
    effect: Callable[[Values], Values]
    still: float

    @property
    def tail(self) -> str:
        """Name of the percentile on the bad side."""
        return "p05" if self.worse == "lower" else "p95"

    def declared(self, low: float, high: float) -> tuple[Declared, ...]:
        """The reductions, for values between `low` and `high`."""
        better: Direction = "higher" if self.worse == "lower" else "lower"
        return (
            Declared("median", "none", "", low, high),
            Declared(self.tail, "none", "", low, high),
            Declared("spike_rate", "lower", "", 0, 1),
            Declared("border_effect", better),
            Declared("update_effect", better),
            Declared("gap", "none", "s", 0),
        )


@dataclass(frozen=True)
class Seams:
    """The borders that effects compare, in pixel-frame indices, without those at which the prompt switches."""

    chunk: frozenset[int]
    """All chunk borders."""
    latent: frozenset[int]
    """Borders between latent frames inside a chunk."""
    update: frozenset[int]
    """Chunk borders at which the cache was re-arranged."""
    other: frozenset[int]
    """Chunk borders at which it wasn't, since it first was; all of them where it never was."""

    @classmethod
    def of(cls, timing: Timing) -> "Seams":
        """The borders of a video."""
        chunk = frozenset(timing.chunk_borders) - set(timing.switch_borders)
        update = chunk & set(timing.update_borders)
        since = min(update, default=0)
        other = frozenset(border for border in chunk - update if border > since)
        return cls(chunk, frozenset(timing.latent_borders), update, other)


class Consecutive:
    """Collects one value per pair, and reduces them."""

    def __init__(self) -> None:
        self._frames = 0
        self._pairs: list[tuple[int, int, float, float]] = []
        self._values: list[float] = []

    def add(self, frames: int, pairs: Sequence[Pair[T]], values: Sequence[float]) -> None:
        """Take the values of the pairs that `frames` further frames made."""
        self._frames += frames
        self._pairs += [(pair.index, pair.index_before, pair.time, pair.time_before) for pair in pairs]
        self._values += values

    def scores(self, recipe: Recipe, timing: Timing) -> Scores | NotApplicable:
        """Median first, then the rest; see the module."""
        if not self._values:
            return NotApplicable(
                "one frame: nothing to compare" if self._frames == 1 else f"no two frames are {GAP:g} s apart"
            )
        values = np.array(self._values)
        _, _, times, times_before = (np.array(column) for column in zip(*self._pairs, strict=True))
        effect, across = recipe.effect(values), self._across(timing)
        return Scores(
            {
                "median": float(np.median(values)),
                recipe.tail: float(np.percentile(values, 5 if recipe.worse == "lower" else 95)),
                "spike_rate": _spike_rate(recipe.dissimilarity(values), times, recipe.still),
                "border_effect": _border_effect(effect, across, timing),
                "update_effect": _update_effect(effect, across, timing),
                "gap": float(np.median(times - times_before)),
            },
            (Series(name=recipe.name, times=tuple(times.tolist()), values=tuple(self._values)),),
        )

    def medians(self, timing: Timing) -> dict[Border, float]:
        """Median value of the pairs across each kind of border, see `Seams`; no entry where there are none."""
        values = np.array(self._values)
        return {kind: float(np.median(values[at])) for kind, at in self._across(timing).items() if at.any()}

    def _across(self, timing: Timing) -> dict[Border, Mask]:
        """For each kind of border, by the names of `Seams`, the pairs with one between their frames."""
        seams = Seams.of(timing)
        after, before = (np.array([pair[place] for pair in self._pairs], dtype=np.int64) for place in (0, 1))

        def across(borders: Iterable[int]) -> Mask:
            sides = np.array(sorted(borders), dtype=np.int64)
            return np.asarray(np.searchsorted(sides, before, "right") < np.searchsorted(sides, after, "right"))

        update, chunk = across(seams.update), across(timing.chunk_borders)
        return {
            "chunk": across(seams.chunk),
            "latent": across(seams.latent) & ~chunk,
            "update": update,
            "other": across(seams.other) & ~update,
        }


def spikes(log_values: Values, times: Values) -> Mask:
    """Which values stand out from the +-2 s around them, upwards or downwards.

    Args:
        log_values: float64 [n], natural logarithm of a dissimilarity.
        times: float64 [n], seconds, ascending.
    """
    starts = np.searchsorted(times, times - WINDOW, "left")
    stops = np.searchsorted(times, times + WINDOW, "right")
    around = [np.median(log_values[start:stop]) for start, stop in zip(starts, stops, strict=True)]
    residual = np.abs(log_values - np.array(around))
    return np.asarray(residual > SPIKE_MADS * max(float(np.median(residual)), MAD_FLOOR))


def _spike_rate(dissimilarity: Values, times: Values, still: float) -> float | NotApplicable:
    if len(dissimilarity) < MIN_SPIKE_PAIRS:
        return NotApplicable(f"{len(dissimilarity)} pairs are too few, {MIN_SPIKE_PAIRS} are needed")
    frozen = float(np.mean(dissimilarity <= still))
    if frozen >= 0.5:
        return NotApplicable(f"the picture stands still in {frozen:.0%} of the pairs")
    return float(np.mean(spikes(np.log(np.maximum(dissimilarity, still)), times)))


def _border_effect(effect: Values, across: Mapping[Border, Mask], timing: Timing) -> float | NotApplicable:
    if not timing.chunk_borders:
        return NotApplicable("the chunk borders of this video are not known, or it has none")
    return _difference(effect, across["chunk"], across["latent"], "chunk borders", "latent borders inside chunks")


def _update_effect(effect: Values, across: Mapping[Border, Mask], timing: Timing) -> float | NotApplicable:
    if not timing.chunk_borders:
        return NotApplicable("the chunk borders of this video are not known, or it has none")
    if not timing.update_borders:
        return NotApplicable("the policy never re-arranged its cache")
    seams = Seams.of(timing)
    if not seams.update:
        return NotApplicable("the policy re-arranged its cache only where the prompt switched")
    if not seams.other:
        return NotApplicable("since its first update the policy re-arranges its cache at every border")
    return _difference(effect, across["update"], across["other"], "borders with an update", "borders without")


def _difference(effect: Values, one: Mask, other: Mask, one_name: str, other_name: str) -> float | NotApplicable:
    for chosen, name in ((one, one_name), (other, other_name)):
        if chosen.sum() < MIN_PAIRS:
            return NotApplicable(f"{chosen.sum()} pairs across {name} are too few, {MIN_PAIRS} are needed")
    return float(np.median(effect[one]) - np.median(effect[other]))
