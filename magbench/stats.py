"""Means, paired differences and their intervals, over cases.

The unit of resampling is the case: seeds are averaged within a case first (`case_means`), because
two seeds of one prompt say less than two prompts. Everything random is drawn from a fixed seed, so
the same numbers in give the same numbers out.

* A mean gets a bootstrap-t interval (Efron & Tibshirani 1993, ch. 12.5). A percentile bootstrap
  covers far less than it says at benchmark sizes.
* A paired difference gets the interval of the inverted sign-flip test. The values that test does not
  reject are bounded by order statistics of the means of all subsets of cases (Hartigan 1969), so
  the inversion is exact and needs no search; p-value and interval can't disagree.
* Below `MIN_CASES_TEST` cases there is no p-value and no mark. From `MIN_CASES_INTERVAL` up to
  there an interval is still given, and is `descriptive`: its coverage at that size is not trusted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MIN_CASES_TEST = 10
MIN_CASES_INTERVAL = 6
TOO_FEW_TO_TEST = "too few cases to test"
EXACT_CASES = 14
"""Up to here all 2**n sign flips are enumerated, above that they are sampled."""
RESAMPLES = 4000


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
    """Two-sided, of the sign-flip test that the mean difference is zero."""
    detectable: float | None = None
    """Smallest true difference found with power 0.8 at level 0.05 (Student-t approximation)."""
    descriptive: bool = False
    note: str = ""
    """Why there is no interval or no p-value."""


def case_means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Average the seeds of each case; cases without a value are left out."""
    return {case: float(np.mean(seeds)) for case, seeds in values.items() if len(seeds)}


def mean_estimate(values: Sequence[float], level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean over cases with a bootstrap-t interval.

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
    """Mean and pointwise bootstrap-t interval of every column.

    Args:
        values: [cases, points], finite. The same cases are drawn for all points.
        level: Nominal coverage of each point, in (0, 1).
        seed: Seed of the resampling.
        resamples: Bootstrap samples.

    Returns:
        Mean, low, high, each [points]. Low and high are NaN where there is no interval: fewer than
        `MIN_CASES_INTERVAL` cases, or so many equal values that resamples without spread reach the tails.
    """
    data = np.asarray(values, dtype=np.float64)
    n, points = data.shape
    mean = data.mean(axis=0)
    nothing = np.full(points, np.nan)
    if n < MIN_CASES_INTERVAL:
        return mean, nothing, nothing.copy()
    centred = data - mean
    error = centred.std(axis=0, ddof=1) / np.sqrt(n)
    counts = _bootstrap_counts(n, resamples, seed)
    means = counts @ centred / n
    variances = np.maximum(counts @ centred**2 / n - means**2, 0.0) / (n - 1)
    flat = variances <= 1e-12 * error**2
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = np.where(flat, np.copysign(np.inf, means), means / np.sqrt(variances))
    lower, upper = np.quantile(pivots, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf")
    with np.errstate(invalid="ignore"):
        low, high = mean - upper * error, mean - lower * error
    none = ~(np.isfinite(low) & np.isfinite(high)) | (error <= 1e-12 * np.abs(mean))
    return mean, np.where(none, np.nan, low), np.where(none, np.nan, high)


def paired_difference(
    values: Mapping[str, float], baseline: Mapping[str, float], level: float = 0.95, seed: int = 0
) -> Difference:
    """Mean of `values - baseline` over the cases that both have, with interval and p-value.

    Exact for differences that are symmetric about their centre. The p-value is twice the smaller tail,
    so it is below `1 - level` exactly when the interval excludes zero.

    Args:
        values: Case -> mean over its seeds.
        baseline: The same of what it is compared with.
        level: Nominal coverage, in (0, 1).
        seed: Seed of the sign flips, used above `EXACT_CASES` cases.

    Raises:
        ValueError: no case in common.
    """
    common = [case for case in values if case in baseline]
    if not common:
        raise ValueError("no case in common")
    d = np.array([values[case] - baseline[case] for case in common])
    n, mean = len(d), float(d.mean())
    if n < MIN_CASES_INTERVAL:
        return Difference(mean, n, descriptive=True, note=TOO_FEW_TO_TEST)
    subsets = _subset_means(d, seed)
    total = len(subsets) + 1
    tolerance = 1e-12 * float(np.abs(d).max())
    tail = min(int((subsets <= tolerance).sum()), int((subsets >= -tolerance).sum())) + 1
    p = min(1.0, 2 * tail / total)
    rank = int((1 - level) / 2 * total)
    low, high = (float(subsets[rank - 1]), float(subsets[-rank])) if rank else (None, None)
    if n < MIN_CASES_TEST:
        return Difference(mean, n, low, high, descriptive=True, note=TOO_FEW_TO_TEST)
    quantiles = _student_quantile(0.975, n - 1) + _student_quantile(0.8, n - 1)
    return Difference(mean, n, low, high, p, detectable=float(quantiles * d.std(ddof=1) / np.sqrt(n)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values (Holm 1979), in the order given."""
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted


@lru_cache(maxsize=8)
def _bootstrap_counts(n: int, resamples: int, seed: int) -> Floats:
    """[resamples, n]: how often each case was drawn."""
    draws = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    return np.stack([(draws == case).sum(axis=1) for case in range(n)], axis=1).astype(np.float64)


def _subset_means(d: Floats, seed: int) -> Floats:
    """Sorted means of all non-empty subsets of `d`, or of random ones when there are too many."""
    masks = _subsets(len(d), seed)
    means: Floats = np.sort(masks @ d / masks.sum(axis=1))
    return means


@lru_cache(maxsize=8)
def _subsets(n: int, seed: int) -> Floats:
    """[subsets, n] of zeros and ones."""
    if n <= EXACT_CASES:
        return ((np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)
    masks = np.random.default_rng(seed).integers(0, 2, size=(2**EXACT_CASES - 1, n)).astype(np.float64)
    return masks[masks.any(axis=1)]


def _student_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t by its expansion in 1/freedom (Abramowitz & Stegun 26.7.5), for 9 degrees and more."""
    z = NormalDist().inv_cdf(p)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
