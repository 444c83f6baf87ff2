"""Means, paired differences, their intervals and ranks, over cases.

The unit of resampling is the case: seeds are averaged within a case first (`case_means`), because
two seeds of one prompt say less than two prompts. Everything random is drawn from a fixed seed, so
the same numbers in give the same numbers out.

* A mean gets the wider of two intervals, end by end: the bootstrap-t one, which follows the skewness
  of the data (Efron & Tibshirani 1993, ch. 12.5), and Student's, because the bootstrap-t one is too
  short for heavy tails.
* A paired difference gets the wider of the bootstrap-t interval and that of the inverted sign-flip
  test. The values which that test does not reject are bounded by order statistics of the means of all
  subsets of cases (Hartigan 1969), so the inversion is exact and needs no search. The sign flips make
  the test exact wherever two methods are exchangeable, ties and heavy tails included; the bootstrap-t
  makes the interval cover skewed differences, for which sign flips alone miss the nominal level.
* p-value and interval come from the same order statistics and can't disagree.
* Below `MIN_CASES_TEST` cases there is no p-value and no mark. From `MIN_CASES_INTERVAL` up to
  there an interval is still given, and is `descriptive`: its coverage at that size is not trusted.

docs/statistics.md has the measured coverage, false alarms and power.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MIN_CASES_TEST = 10
MIN_CASES_INTERVAL = 6
TOO_FEW_TO_TEST = "too few cases to test"
EXACT_CASES = 14
"""Up to here all 2**n sign flips are enumerated, above that they are sampled."""
RESAMPLES = 9999
"""Bootstrap samples; with `k` tests the smallest Holm-adjusted p-value is `k / 5000`."""
EQUAL_T = -math.log(0.025)
"""The t of a bootstrap sample of equal values. With it, the mean of a rare event gets about the 95 % interval of its
count (Garwood 1936)."""
MOST_CASES = 10_000
"""Numbers of cases above this one are not worth naming."""


@dataclass(frozen=True)
class Estimate:
    """A mean over cases."""

    value: float
    n: int
    """Cases."""
    low: float | None = None
    high: float | None = None
    descriptive: bool = False
    """True when there are fewer than `MIN_CASES_TEST` cases."""
    note: str = ""
    """Why there is no interval."""


@dataclass(frozen=True)
class Difference:
    """A mean paired difference over cases."""

    value: float
    n: int
    """Cases that both have."""
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """Two-sided, that the mean difference is zero: at most `1 - level` exactly when the interval excludes zero."""
    detectable: float | None = None
    """Smallest true difference that an interval of this width excludes zero for with power 0.8."""
    descriptive: bool = False
    note: str = ""
    """Why there is no interval or no p-value."""
    spread: float | None = None
    """Standard deviation of the paired differences over cases, None below 2 cases."""


def case_means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Average the seeds of each case; cases without a value are left out."""
    return {case: float(np.mean(seeds)) for case, seeds in values.items() if len(seeds)}


def mean_estimate(values: Sequence[float], level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean over cases with its interval.

    Args:
        values: One finite number per case.
        level: Nominal coverage, in (0, 1).
        seed: Seed of the resampling.

    Raises:
        ValueError: `values` is empty.
    """
    if not len(values):
        raise ValueError("the mean of no case does not exist")
    mean, low, high = mean_bands(np.asarray(values, dtype=np.float64)[:, None], level, seed)
    n = len(values)
    if not np.isnan(low[0]):
        return Estimate(float(mean[0]), n, float(low[0]), float(high[0]), n < MIN_CASES_TEST)
    note = "no interval: equal values" if n >= MIN_CASES_INTERVAL else f"no interval below {MIN_CASES_INTERVAL} cases"
    return Estimate(float(mean[0]), n, descriptive=n < MIN_CASES_TEST, note=note)


def mean_bands(
    values: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Floats, Floats, Floats]:
    """Mean and pointwise interval of every column.

    Args:
        values: [cases, points], finite. The same cases are drawn for all points.
        level: Nominal coverage of each point, in (0, 1).
        seed: Seed of the resampling.
        resamples: Bootstrap samples.

    Returns:
        Mean, low, high, each [points]. Low and high are NaN where there is no interval: fewer than
        `MIN_CASES_INTERVAL` cases, or all values equal.
    """
    data = np.asarray(values, dtype=np.float64)
    n, mean = len(data), data.mean(axis=0)
    if n < MIN_CASES_INTERVAL:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    error = data.std(axis=0, ddof=1) / np.sqrt(n)
    student = _student_quantile((1 + level) / 2, n - 1) * error
    low, high = _order(_bootstrap_bounds(data, resamples, seed), level)
    none = error <= 1e-12 * np.abs(mean)
    low = np.where(none, np.nan, np.minimum(low, mean - student))
    high = np.where(none, np.nan, np.maximum(high, mean + student))
    return mean, low, high


def paired_difference(
    values: Mapping[str, float], baseline: Mapping[str, float], level: float = 0.95, seed: int = 0
) -> Difference:
    """Mean of `values - baseline` over the cases that both have, with interval and p-value.

    Args:
        values: Case -> mean over its seeds.
        baseline: The same of what it is compared with.
        level: Nominal coverage, in (0, 1).
        seed: Seed of the resampling, and of the sign flips above `EXACT_CASES` cases.

    Raises:
        ValueError: no case in common.
    """
    common = [case for case in values if case in baseline]
    if not common:
        raise ValueError("no case in common")
    d = np.array([values[case] - baseline[case] for case in common])
    n, mean = len(d), float(d.mean())
    spread = float(d.std(ddof=1)) if n > 1 else None
    if n < MIN_CASES_INTERVAL:
        return Difference(mean, n, descriptive=True, note=TOO_FEW_TO_TEST, spread=spread)
    p, *ends = (float(column[0]) for column in difference_bands(d[:, None], level, seed))
    low, high = (end if math.isfinite(end) else None for end in ends)
    if n < MIN_CASES_TEST:
        return Difference(mean, n, low, high, descriptive=True, note=TOO_FEW_TO_TEST, spread=spread)
    found = 1 + _student_quantile(0.8, n - 1) / _student_quantile((1 + level) / 2, n - 1)
    detectable = None if low is None or high is None else found * (high - low) / 2
    return Difference(mean, n, low, high, p, detectable=detectable, spread=spread)


def difference_bands(differences: ArrayLike, level: float = 0.95, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Test and interval of every column of paired differences.

    Args:
        differences: [cases, points], finite, at least `MIN_CASES_INTERVAL` cases.
        level: Nominal coverage of each point, in (0, 1).
        seed: Seed of the resampling, and of the sign flips above `EXACT_CASES` cases.

    Returns:
        p-value, low, high, each [points]. An end is infinite where so few cases can't bound it at this level.
    """
    d = np.asarray(differences, dtype=np.float64)
    tolerance = 1e-12 * np.abs(d).max(axis=0)
    below, above = np.zeros_like(tolerance), np.zeros_like(tolerance)
    low, high = np.full_like(tolerance, np.inf), np.full_like(tolerance, -np.inf)
    for bounds in (_subset_weights(len(d), seed) @ d, _bootstrap_bounds(d, RESAMPLES, seed)):
        total = len(bounds) + 1
        below = np.maximum(below, ((bounds <= tolerance).sum(axis=0) + 1) / total)
        above = np.maximum(above, ((bounds >= -tolerance).sum(axis=0) + 1) / total)
        lower, upper = _order(bounds, level)
        low, high = np.minimum(low, lower), np.maximum(high, upper)
    low, high = (np.where(np.abs(end) <= tolerance, 0.0, end) for end in (low, high))
    return np.minimum(1.0, 2 * np.minimum(below, above)), low, high


def cases_to_decide(difference: Difference, margin: float, level: float = 0.95, power: float = 0.8) -> int | None:
    """Number of cases with which the interval would lie wholly on one side of `-margin`.

    Student-t approximation: the true difference is taken to be the estimate, and its spread over cases to stay.

    Args:
        difference: Oriented so that positive is better.
        margin: The largest loss to accept, at least zero, in the unit of the difference.
        level: Of the interval, in (0, 1).
        power: Probability with which that many cases decide, in (0, 1).

    Returns:
        At least `MIN_CASES_TEST`, and more than there are now if the interval has `-margin` inside. None if the
        spread is unknown, or the estimate so close to `-margin` that it takes more than `MOST_CASES`.
    """
    if difference.spread is None:
        return None
    distance, spread = abs(difference.value + margin), difference.spread
    first = MIN_CASES_TEST
    if difference.low is not None and difference.high is not None and difference.low <= -margin <= difference.high:
        first = max(first, difference.n + 1)

    def decides(n: int) -> bool:
        quantiles = _student_quantile((1 + level) / 2, n - 1) + _student_quantile(power, n - 1)
        return distance > quantiles * spread / math.sqrt(n)

    cases = range(first, MOST_CASES + 1)
    at = bisect_left(cases, True, key=decides)
    return cases[at] if at < len(cases) else None


def rank_intervals(
    values: Mapping[str, Mapping[str, float]], level: float = 0.95, seed: int = 0
) -> dict[str, tuple[int, int]]:
    """Best and worst rank that the data allow, rank 1 for the highest mean.

    All pairs are tested by `paired_difference`, with Holm's adjustment over the pairs. A label's best rank is one
    more than the number of labels found better, its worst the number of labels less those found worse. So all
    true ranks are inside together with probability `level` (as Al Mohamad, Goeman & van Zwet 2022, with other tests).

    Args:
        values: Label -> case -> mean over its seeds; higher is better.
        level: Nominal joint coverage, in (0, 1).
        seed: Seed of the tests.

    Returns:
        Label -> (best, worst), ties included. Empty where a pair has fewer than `MIN_CASES_TEST` cases in common.
    """
    pairs = list(combinations(values, 2))
    if any(len(values[a].keys() & values[b].keys()) < MIN_CASES_TEST for a, b in pairs):
        return {}
    tests = [paired_difference(values[a], values[b], level, seed) for a, b in pairs]
    ranks = {label: (1, len(values)) for label in values}
    for (a, b), test, p in zip(pairs, tests, holm([test.p or 0.0 for test in tests]), strict=True):
        if p <= 1 - level:
            winner, loser = (a, b) if test.value > 0 else (b, a)
            ranks[winner] = (ranks[winner][0], ranks[winner][1] - 1)
            ranks[loser] = (ranks[loser][0] + 1, ranks[loser][1])
    return ranks


def holm(p: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values (Holm 1979), in the order given."""
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted


def _order(bounds: Floats, level: float) -> tuple[Floats, Floats]:
    """Ends of the interval of which each tail holds `(1 - level) / 2` of the bounds and one more, each [points]."""
    total = len(bounds) + 1
    rank = math.floor((1 - level) / 2 * total + 1e-9)
    if not rank:
        return np.full(bounds.shape[1], -np.inf), np.full(bounds.shape[1], np.inf)
    ordered: Floats = np.partition(bounds, (rank - 1, total - 1 - rank), axis=0)
    return ordered[rank - 1], ordered[total - 1 - rank]


def _bootstrap_bounds(data: Floats, resamples: int, seed: int) -> Floats:
    """[resamples, points]: the means that would put each bootstrap sample's t where the data's is.

    A sample of equal values has no t; `EQUAL_T` stands for it, or 0 if they equal the mean of the data.
    """
    n, mean = len(data), data.mean(axis=0)
    centred = data - mean
    error = centred.std(axis=0, ddof=1) / np.sqrt(n)
    counts = _bootstrap_counts(n, resamples, seed)
    means = counts @ centred / n
    means = np.where(np.abs(means) <= 1e-9 * error, 0.0, means)
    errors = np.sqrt(np.maximum(counts @ centred**2 / n - means**2, 0.0) / (n - 1))
    errors = np.where(errors <= 1e-6 * error, np.abs(means) / EQUAL_T, errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds: Floats = np.where(errors > 0, mean - means / errors * error, mean)
    return bounds


@lru_cache(maxsize=8)
def _bootstrap_counts(n: int, resamples: int, seed: int) -> Floats:
    """[resamples, n]: how often each case was drawn."""
    draws = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    return np.stack([(draws == case).sum(axis=1) for case in range(n)], axis=1).astype(np.float64)


@lru_cache(maxsize=8)
def _subset_weights(n: int, seed: int) -> Floats:
    """[subsets, n]: rows that average all non-empty subsets of cases, or random ones when there are too many."""
    if n <= EXACT_CASES:
        masks = ((np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)
    else:
        masks = np.random.default_rng(seed).integers(0, 2, size=(2**EXACT_CASES - 1, n)).astype(np.float64)
        masks = masks[masks.any(axis=1)]
    weights: Floats = masks / masks.sum(axis=1, keepdims=True)
    return weights


def _student_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t by its expansion in 1/freedom (Abramowitz & Stegun 26.7.5), for 5 degrees and more."""
    z = NormalDist().inv_cdf(p)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
