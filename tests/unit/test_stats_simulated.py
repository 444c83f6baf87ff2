"""Promises of the statistics, simulated: short versions of docs/statistics_simulation.py.

Every bound leaves room for the binomial noise of the simulation: a procedure that keeps its promise
exactly fails one such test in ten thousand.
"""

import numpy as np
import pytest
import scipy.stats

from magbench import stats

SETS = 2000
TARGET = (0.93, 0.97)
DATA = {
    "normal": (lambda g, s: g.normal(0, 1, s), 0.0),
    "heavy": (lambda g, s: g.standard_t(3, s), 0.0),
    "exponential": (lambda g, s: g.exponential(1, s), 1.0),
    "lognormal": (lambda g, s: g.lognormal(0, 0.5, s), np.exp(1 / 8)),
}


def at_most(share, sets):
    return scipy.stats.binom.ppf(1 - 1e-4, sets, share) / sets


def at_least(share, sets):
    return scipy.stats.binom.ppf(1e-4, sets, share) / sets


def draw(name, n, sets=SETS):
    function, truth = DATA[name]
    return function(np.random.default_rng(n), (n, sets)), truth


def in_parts(function, data):
    parts = [function(data[:, i : i + 50]) for i in range(0, data.shape[1], 50)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def covers_as_said(low, high, truth):
    share, sets = np.mean((low <= truth) & (truth <= high)), len(low)
    return at_least(TARGET[0], sets) <= share <= at_most(TARGET[1], sets)


@pytest.mark.parametrize("bands", [stats.mean_bands, stats.difference_bands], ids=["mean", "difference"])
@pytest.mark.parametrize(("name", "n"), [("normal", 10), ("exponential", 10), ("lognormal", 11), ("heavy", 10)])
def test_intervals_cover_normal_heavy_and_skewed_data(bands, name, n):
    data, truth = draw(name, n)
    _, low, high = in_parts(bands, data)
    assert covers_as_said(low, high, truth)


def test_a_percentile_bootstrap_would_not_pass_as_covering():
    data, truth = draw("exponential", 10, 1000)
    options = {"method": "percentile", "n_resamples": 999, "batch": 100, "rng": np.random.default_rng(0)}
    low, high = scipy.stats.bootstrap((data,), np.mean, axis=0, **options).confidence_interval
    assert not covers_as_said(low, high, truth)


def rare(rng, shape):
    return rng.choice([-1.0, 0.0, 1.0], shape, p=[1 / 8, 3 / 4, 1 / 8])


def lognormals(rng, shape):
    return rng.lognormal(0, 1, shape) - rng.lognormal(0, 1, shape)


@pytest.mark.parametrize("function", [np.random.Generator.normal, lognormals, rare])
def test_false_alarms_between_exchangeable_methods_keep_to_the_level(function):
    rng = np.random.default_rng(20)
    data = rng.normal(0, 1, (10, SETS)) if function is np.random.Generator.normal else function(rng, (10, SETS))
    p = in_parts(stats.difference_bands, data)[0]
    for level in (0.05, 0.01):
        assert np.mean(p <= level) <= at_most(level, SETS)


def test_power_is_near_students_and_the_detectable_effect_is_detected():
    n, sets = 12, 1000
    noise = np.random.default_rng(21).normal(0, 1, (n, sets))
    effect = 0.9
    closed = scipy.stats.nct.sf(scipy.stats.t.ppf(0.975, n - 1), n - 1, effect * np.sqrt(n))
    found = np.mean(in_parts(stats.difference_bands, noise + effect)[0] <= 0.05)
    assert at_least(closed - 0.06, sets) <= found <= at_most(closed, sets)
    printed = [
        stats.paired_difference(dict(enumerate(d)), dict.fromkeys(range(n), 0.0)).detectable for d in noise.T[:200]
    ]
    found = np.mean(in_parts(stats.difference_bands, noise + np.mean(printed))[0] <= 0.05)
    assert at_least(0.77, sets) <= found <= at_most(0.83, sets)


def test_holm_keeps_the_family_and_unadjusted_p_values_do_not():
    sets, tests = 4000, 6
    rng = np.random.default_rng(22)
    shared = rng.normal(0, 1, (sets, 1))
    p = 2 * scipy.stats.norm.sf(np.abs((shared + rng.normal(0, 1, (sets, tests))) / np.sqrt(2)))
    bound = at_most(0.05, sets)
    assert np.mean([min(stats.holm(row)) <= 0.05 for row in p.tolist()]) <= bound
    assert np.mean(p.min(axis=1) <= 0.05) > bound


@pytest.mark.parametrize("truth", [(0.0, 0.0, 0.0, 0.0), (1.5, 0.5, 0.5, 0.0)])
def test_true_ranks_are_inside_their_intervals(truth):
    rng, n, sets = np.random.default_rng(23), 10, 200
    inside = []
    for _ in range(sets):
        values = rng.normal(0, 1, n) + rng.normal(0, 1, (4, n)) + np.array(truth)[:, None]
        found = stats.rank_intervals({str(i): {str(c): v for c, v in enumerate(row)} for i, row in enumerate(values)})
        spans = zip(truth, found.values(), strict=True)
        inside.append(
            all(a <= 1 + sum(o > own for o in truth) and sum(o >= own for o in truth) <= b for own, (a, b) in spans)
        )
    assert np.mean(inside) >= at_least(0.95, sets)
