"""Statistics against scipy, closed forms, and simulated coverage."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from magbench import stats


def mapping(values):
    return {f"case{i}": float(v) for i, v in enumerate(values)}


def zeros(n):
    return mapping([0.0] * n)


def test_seeds_are_averaged_within_a_case_and_empty_cases_left_out():
    assert stats.case_means({"a": [1.0, 3.0], "b": [5.0], "c": []}) == {"a": 2.0, "b": 5.0}


@pytest.mark.parametrize("n", [10, 12])
@pytest.mark.parametrize("shift", [0.0, 0.4, -1.5])
def test_sign_flip_p_value_is_scipys(n, shift):
    d = np.random.default_rng(n).normal(shift, 1, n)
    ours = stats.paired_difference(mapping(d), zeros(n))
    theirs = scipy.stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-12)
    assert ours.value == pytest.approx(d.mean())


def test_interval_is_exactly_where_the_test_stops_rejecting():
    d = np.random.default_rng(3).normal(0.3, 1, 10)
    found = stats.paired_difference(mapping(d), zeros(10))
    for edge, outward in ((found.low, -1), (found.high, 1)):
        for delta, inside in ((edge - outward * 1e-6, True), (edge + outward * 1e-6, False)):
            test = scipy.stats.permutation_test((d - delta,), np.mean, permutation_type="samples", n_resamples=np.inf)
            assert (test.pvalue > 0.05) == inside


def test_p_value_and_interval_agree_about_zero_when_sampled():
    rng = np.random.default_rng(4)
    for _ in range(60):
        d = rng.normal(0.5, 1, 16)
        found = stats.paired_difference(mapping(d), zeros(16))
        assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)


def test_sampled_sign_flips_are_close_to_students_test():
    d = np.random.default_rng(5).normal(0.5, 1, 40)
    found = stats.paired_difference(mapping(d), zeros(40))
    reference = scipy.stats.ttest_1samp(d, 0)
    low, high = reference.confidence_interval()
    assert found.p == pytest.approx(reference.pvalue, rel=0.2)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))


def test_no_difference_at_all_is_a_tie_not_a_discovery():
    found = stats.paired_difference(zeros(12), zeros(12))
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_only_common_cases_are_paired():
    found = stats.paired_difference({"a": 1.0, "b": 5.0}, {"b": 2.0, "c": 9.0})
    assert (found.value, found.n) == (3.0, 1)
    with pytest.raises(ValueError, match="no case in common"):
        stats.paired_difference({"a": 1.0}, {"b": 1.0})


@pytest.mark.parametrize(
    ("n", "interval", "tested"), [(5, False, False), (6, True, False), (9, True, False), (10, True, True)]
)
def test_too_few_cases(n, interval, tested):
    found = stats.paired_difference(mapping(np.arange(n) + 1.0), zeros(n))
    assert (found.low is not None) == interval
    assert (found.p is not None) == (found.detectable is not None) == tested
    assert found.note == ("" if tested else "too few cases to test")
    assert stats.mean_estimate(np.arange(n) + 1.0).descriptive != tested


def test_detectable_effect_has_the_power_it_says():
    n, sd = 12, 1.0
    d = scipy.stats.norm.ppf((np.arange(n) + 0.5) / n)
    d = d / d.std(ddof=1) * sd
    effect = stats.paired_difference(mapping(d), zeros(n)).detectable
    critical = scipy.stats.t.ppf(0.975, n - 1)
    power = 1 - scipy.stats.nct.cdf(critical, n - 1, effect / (sd / np.sqrt(n)))
    assert power == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("freedom", [9, 15, 60])
def test_student_quantile(freedom):
    for p in (0.8, 0.975):
        assert stats._student_quantile(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), abs=2e-3)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.6]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_bootstrap_t_is_near_students_interval_for_normal_data():
    data = np.random.default_rng(6).normal(2, 1, 40)
    found = stats.mean_estimate(data)
    low, high = scipy.stats.t.interval(0.95, 39, data.mean(), data.std(ddof=1) / np.sqrt(40))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.08), pytest.approx(high, abs=0.08))
    assert found.value == pytest.approx(data.mean())


def test_bootstrap_t_covers_skewed_data_better_than_percentiles():
    rng = np.random.default_rng(7)
    truth, n = np.exp(0.5), 12
    samples = rng.lognormal(0, 1, (1000, n))
    _, low, high = stats.mean_bands(samples.T)
    drawn = samples[:, rng.integers(0, n, (1000, n))].mean(axis=2)
    percentile_low, percentile_high = np.quantile(drawn, [0.025, 0.975], axis=1)
    coverage = np.mean((low <= truth) & (truth <= high))
    assert coverage > 0.89
    assert coverage > np.mean((percentile_low <= truth) & (truth <= percentile_high)) + 0.05


def test_bootstrap_t_covers_normal_data_nominally():
    samples = np.random.default_rng(8).normal(0, 1, (1500, 12))
    _, low, high = stats.mean_bands(samples.T)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(0.95, abs=0.02)


def test_sign_flip_interval_covers_nominally():
    samples = np.random.default_rng(9).normal(0.7, 1, (600, 10))
    found = [stats.paired_difference(mapping(d), zeros(10)) for d in samples]
    assert np.mean([f.low <= 0.7 <= f.high for f in found]) == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize("values", [[1.0] * 12, [0.0] * 11 + [1.0]])
def test_no_interval_from_equal_values(values):
    found = stats.mean_estimate(values)
    assert (found.low, found.high, found.note) == (None, None, "no interval: equal values")


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
