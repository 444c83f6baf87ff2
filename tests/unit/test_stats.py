"""Statistics against scipy and closed forms."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from magbench import stats


def mapping(values):
    return {f"case{i}": float(v) for i, v in enumerate(values)}


def zeros(n):
    return mapping([0.0] * n)


def scipys_p(d, alternative="two-sided"):
    options = {"permutation_type": "samples", "n_resamples": np.inf, "alternative": alternative}
    return scipy.stats.permutation_test((d,), np.mean, **options).pvalue


def scipys_interval(d):
    """Where scipy's sign-flip test stops rejecting."""
    reach = 3 * d.std()

    def edge(end):
        return scipy.optimize.brentq(lambda c: scipys_p(d - c) - 0.0501, d.mean() + end * reach, d.mean(), xtol=1e-7)

    return edge(-1), edge(1)


def bootstrap_t(d, resamples=60_000):
    """t of the data, and of bootstrap samples about the mean of the data."""
    drawn = np.random.default_rng(99).choice(d, (resamples, len(d)))
    return scipy.stats.ttest_1samp(d, 0).statistic, scipy.stats.ttest_1samp(drawn, d.mean(), axis=1).statistic


def bootstrap_t_interval(d):
    _, t = bootstrap_t(d)
    upper, lower = np.quantile(t, [0.975, 0.025]) * scipy.stats.sem(d)
    return d.mean() - upper, d.mean() - lower


SAMPLES = {
    "normal": np.random.default_rng(3).normal(0.4, 1, 10),
    "skewed": np.random.default_rng(4).exponential(1, 12) - 0.3,
    "heavy": np.random.default_rng(5).standard_t(3, 11),
}


def test_seeds_are_averaged_within_a_case_and_empty_cases_left_out():
    assert stats.case_means({"a": [1.0, 3.0], "b": [5.0], "c": []}) == {"a": 2.0, "b": 5.0}


@pytest.mark.parametrize("d", SAMPLES.values(), ids=SAMPLES)
def test_interval_is_the_wider_of_scipys_sign_flips_and_a_plain_bootstrap_t(d):
    found = stats.paired_difference(mapping(d), zeros(len(d)))
    flips, boot = scipys_interval(d), bootstrap_t_interval(d)
    close = 0.04 * (found.high - found.low)
    assert found.low == pytest.approx(min(flips[0], boot[0]), abs=close)
    assert found.high == pytest.approx(max(flips[1], boot[1]), abs=close)
    assert found.low <= flips[0] + 1e-6
    assert found.high >= flips[1] - 1e-6


@pytest.mark.parametrize("d", SAMPLES.values(), ids=SAMPLES)
def test_p_value_is_the_larger_of_scipys_sign_flips_and_a_plain_bootstrap_t(d):
    found = stats.paired_difference(mapping(d), zeros(len(d)))
    own, t = bootstrap_t(d)
    above = max(scipys_p(d, "greater"), np.mean(t >= own))
    below = max(scipys_p(d, "less"), np.mean(t <= own))
    assert found.p == pytest.approx(2 * min(above, below), abs=0.015)
    assert (found.value, found.n) == (pytest.approx(d.mean()), len(d))
    assert found.spread == pytest.approx(d.std(ddof=1))


@pytest.mark.parametrize("n", [10, 13, 18])
@pytest.mark.parametrize("step", [0, 0.5, 1])
def test_p_value_and_interval_never_disagree(n, step):
    d = np.random.default_rng(n).normal(0.6, 1, (n, 300))
    d = np.round(d / step) * step if step else d
    p, low, high = stats.difference_bands(d)
    assert np.array_equal(p <= 0.05, (low > 0) | (high < 0))
    assert 30 < np.sum(p <= 0.05) < 290


def test_many_cases_give_students_test():
    d = np.random.default_rng(5).normal(0.5, 1, 40)
    found = stats.paired_difference(mapping(d), zeros(40))
    reference = scipy.stats.ttest_1samp(d, 0)
    low, high = reference.confidence_interval()
    assert found.p == pytest.approx(reference.pvalue, rel=0.35)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))


def test_swapping_the_two_turns_the_difference_around():
    a, b = mapping(SAMPLES["skewed"]), zeros(12)
    found, turned = stats.paired_difference(a, b), stats.paired_difference(b, a)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert (turned.p, turned.detectable) == pytest.approx((found.p, found.detectable))


def test_no_difference_at_all_is_a_tie_not_a_discovery():
    found = stats.paired_difference(zeros(12), zeros(12))
    assert (found.value, found.low, found.high, found.p, found.spread) == (0.0, 0.0, 0.0, 1.0, 0.0)


def test_the_same_difference_everywhere_is_found():
    found = stats.paired_difference(mapping([0.25] * 10), zeros(10))
    assert (found.low, found.high) == pytest.approx((0.25, 0.25))
    assert found.p == 2 / 2**10


def test_one_case_that_differs_decides_nothing_and_bounds_the_interval():
    found = stats.paired_difference(mapping([0.0] * 11 + [1.0]), zeros(12))
    assert found.p == 1.0
    assert -0.1 < found.low <= 0
    assert 0.25 <= found.high < 0.6


def test_only_common_cases_are_paired():
    found = stats.paired_difference({"a": 1.0, "b": 5.0}, {"b": 2.0, "c": 9.0})
    assert (found.value, found.n, found.spread) == (3.0, 1, None)
    with pytest.raises(ValueError, match="no case in common"):
        stats.paired_difference({"a": 1.0}, {"b": 1.0})


@pytest.mark.parametrize(
    ("n", "interval", "tested"), [(5, False, False), (6, True, False), (9, True, False), (10, True, True)]
)
def test_too_few_cases(n, interval, tested):
    found = stats.paired_difference(mapping(np.arange(n) + 1.0), zeros(n))
    assert (found.low is not None) == interval
    assert (found.p is not None) == (found.detectable is not None) == tested
    assert found.descriptive != tested
    assert found.note == ("" if tested else "too few cases to test")
    assert stats.mean_estimate(np.arange(n) + 1.0).descriptive != tested


def test_a_level_that_so_few_cases_cannot_reach_has_no_interval():
    found = stats.paired_difference(mapping(SAMPLES["normal"]), zeros(10), level=0.999)
    assert (found.low, found.high, found.detectable) == (None, None, None)


@pytest.mark.parametrize("freedom", [5, 9, 15, 60])
def test_student_quantile(freedom):
    for p in (0.8, 0.975):
        assert stats._student_quantile(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=2e-3)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.6]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_holm_is_bonferroni_on_the_closure():
    rng = np.random.default_rng(1)
    for p in rng.uniform(0, 0.2, (20, 5)).round(2).tolist():
        sets = [s for k in range(1, 6) for s in itertools.combinations(range(5), k)]
        by_closure = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(5)]
        assert stats.holm(p) == pytest.approx(by_closure)


def difference(value, n, spread, low=None, high=None):
    return stats.Difference(value, n, low, high, spread=spread)


@pytest.mark.parametrize(("value", "margin"), [(0.0, 0.5), (0.3, 0.1), (-0.9, 0.3)])
def test_cases_to_decide_have_the_power_they_say(value, margin):
    n = stats.cases_to_decide(difference(value, 10, 1.0), margin)
    powers = [
        scipy.stats.nct.sf(scipy.stats.t.ppf(0.975, m - 1), m - 1, abs(value + margin) * np.sqrt(m)) for m in (n, n - 2)
    ]
    assert powers[0] == pytest.approx(0.8, abs=0.015)
    assert powers[1] < powers[0]


def test_cases_to_decide_are_more_than_did_not_decide():
    assert stats.cases_to_decide(difference(1.0, 12, 1.0, low=-0.1, high=2.1), 0.0) == 13
    assert stats.cases_to_decide(difference(1.0, 12, 0.1, low=0.9, high=1.1), 0.0) == stats.MIN_CASES_TEST


@pytest.mark.parametrize(("value", "spread"), [(0.0, None), (-0.1, 1.0), (-0.099, 1.0)])
def test_no_number_of_cases_is_said_to_decide_at_the_margin(value, spread):
    assert stats.cases_to_decide(difference(value, 10, spread), 0.1) is None


def noisy(means, n=12):
    noise = np.random.default_rng(2).normal(0, 0.1, (len(means), n))
    return {label: mapping(mean + row) for (label, mean), row in zip(means.items(), noise, strict=True)}


def test_rank_intervals_of_clear_and_unclear_orders():
    assert stats.rank_intervals(noisy({"b": 0.0, "a": 5.0, "c": -5.0})) == {"b": (2, 2), "a": (1, 1), "c": (3, 3)}
    assert stats.rank_intervals(noisy({"a": 0.0, "b": 0.0, "c": -5.0})) == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert stats.rank_intervals({"a": zeros(10), "b": zeros(10)}) == {"a": (1, 2), "b": (1, 2)}
    assert stats.rank_intervals({"only": zeros(10)}) == {"only": (1, 1)}


def test_no_ranks_from_too_few_common_cases():
    few = {"a": mapping(range(9)), "b": zeros(20)}
    assert stats.rank_intervals(few) == {}
    assert stats.rank_intervals({"a": {"x": 1.0}, "b": {"y": 1.0}}) == {}


@pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES)
def test_mean_interval_is_the_wider_of_students_and_a_plain_bootstrap_t(data):
    found = stats.mean_estimate(data)
    student = scipy.stats.ttest_1samp(data, 0).confidence_interval()
    boot = bootstrap_t_interval(data)
    close = 0.04 * (found.high - found.low)
    assert found.value == pytest.approx(data.mean())
    assert found.low == pytest.approx(min(student[0], boot[0]), abs=close)
    assert found.high == pytest.approx(max(student[1], boot[1]), abs=close)


def test_no_interval_from_equal_values():
    found = stats.mean_estimate([1.0] * 12)
    assert (found.low, found.high, found.note) == (None, None, "no interval: equal values")


@pytest.mark.parametrize(("events", "n"), [(2, 16), (2, 63), (3, 16), (3, 40)])
def test_rare_events_get_about_the_interval_of_their_count(events, n):
    """Garwood's exact interval of a Poisson count."""
    upper = scipy.stats.chi2.ppf(0.975, 2 * (events + 1)) / 2 / n
    assert stats.mean_estimate([1.0] * events + [0.0] * (n - events)).high == pytest.approx(upper, rel=0.15)


@pytest.mark.parametrize("few", [(1.0, -1.0), (0.3, -0.1, -0.2)])
def test_gains_and_losses_that_cancel_among_ties_bound_both_ends(few):
    """Bootstrap samples of nothing but zeros have the mean of the data, exactly or up to rounding."""
    data = np.array([*few] + [0.0] * (16 - len(few)))
    found, turned = stats.mean_estimate(data), stats.mean_estimate(-data)
    paired = stats.paired_difference(mapping(data), zeros(16))
    reach = scipy.stats.ttest_1samp(data, 0).confidence_interval().high
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low))
    assert 0.999 * reach < min(-found.low, found.high) and max(-found.low, found.high) < 1.5 * reach
    assert 0.5 * reach < min(-paired.low, paired.high) and max(-paired.low, paired.high) < 1.5 * reach


def test_few_values_and_none():
    found = stats.mean_estimate([1.0, 2.0])
    assert (found.value, found.n, found.low, found.note) == (1.5, 2, None, "no interval below 6 cases")
    with pytest.raises(ValueError, match="mean of no case"):
        stats.mean_estimate([])


def test_band_columns_are_the_single_estimates_and_repeat_exactly():
    data = np.random.default_rng(10).normal(1000, 1e-3, (12, 3))
    mean, low, high = stats.mean_bands(data)
    for column in range(3):
        single = stats.mean_estimate(data[:, column])
        expected = pytest.approx((mean[column], low[column], high[column]), rel=1e-12)
        assert (single.value, single.low, single.high) == expected
        assert single.low < single.value < single.high
    assert np.array_equal(low, stats.mean_bands(data)[1])


def test_import_stays_free_of_torch():
    code = "import sys, magbench.stats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
