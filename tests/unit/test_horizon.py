"""Coherence horizon: closed forms, a textbook survival curve, and why thresholds are fixed."""

import numpy as np
import pytest

from magbench.horizon import Duration, Rule, defaults, duration, first, parse, survival, window_means
from magbench.records import MetricRecord, Reduction, Series
from magbench.reports.aggregate import build_report
from tests.synthetic_run import Made, make_sample, run_record

RULE = Rule("quality@default", "score", ">", 1.0)
TIMES = np.arange(0, 60.0001, 0.125)


def found(values: np.ndarray, rule: Rule = RULE, times: np.ndarray = TIMES) -> Duration:
    answer = duration(times, values, rule)
    assert answer is not None
    return answer


def test_window_means_are_those_of_the_last_5_s() -> None:
    ends, means = window_means(TIMES, TIMES)
    assert ends[0] == 5.0
    assert means == pytest.approx(ends - 2.5 + 0.0625)  # (t - 5, t], eight values a second


@pytest.mark.parametrize("step", [0.125, 0.5, 2.0])
def test_a_ramp_is_lost_where_its_5_s_mean_passes_the_threshold(step: float) -> None:
    """0.05 per second: the value is 1 at 20 s, and the mean over the 5 s up to then at 22.5 s."""
    times = np.arange(0, 60.0001, step)
    answer = found(0.05 * times, times=times)
    assert answer.ending == "lost"
    assert answer.seconds == pytest.approx(22.5, abs=step)


def test_a_step_is_lost_when_enough_of_the_window_is_beyond() -> None:
    """From 0 to 2 at 30 s: after 2.5 s half of the window is."""
    assert found(np.where(TIMES >= 30, 2.0, 0.0)).seconds == pytest.approx(32.5, abs=0.25)
    lower = Rule("quality@default", "score", "<", 1.0)
    assert found(np.where(TIMES >= 30, 0.0, 2.0), lower).seconds == pytest.approx(32.5, abs=0.25)


def test_what_recovers_within_5_s_is_not_lost() -> None:
    brief = np.where((TIMES >= 20) & (TIMES < 24), 1.5, 0.0)
    assert found(brief) == Duration(55.0, "censored")
    for_good = np.where((TIMES >= 20) & (TIMES < 24), 1.5, np.where(TIMES >= 40, 1.5, 0.0))
    assert found(for_good).seconds == pytest.approx(40 + 5 / 1.5, abs=0.25)


def test_the_last_5_s_are_censored() -> None:
    assert found(np.where(TIMES >= 51, 2.0, 0.0)) == Duration(pytest.approx(53.5, abs=0.25), "lost")
    assert found(np.where(TIMES >= 53, 2.0, 0.0)) == Duration(55.0, "censored")
    assert found(np.zeros_like(TIMES)) == Duration(55.0, "censored")


def test_lost_from_the_start_is_lost_at_the_first_window() -> None:
    assert found(np.full_like(TIMES, 2.0)) == Duration(5.0, "lost")


def test_less_than_10_s_says_nothing() -> None:
    assert duration(TIMES[:80], np.zeros(80), RULE) is None
    assert duration(TIMES[:81], np.zeros(81), RULE) == Duration(5.0, "censored")
    assert duration([3.0], [0.0], RULE) is None


def test_freezing_ends_a_video_that_would_have_held() -> None:
    held, lost = Duration(55, "censored"), Duration(20, "lost")
    assert first(held, Duration(30, "frozen")) == Duration(30, "frozen")
    assert first(lost, Duration(30, "lost")) == lost
    assert first(held, Duration(54, "censored")) == held
    assert first(held, None) == held


def ended(text: str) -> list[Duration]:
    return [Duration(float(t.strip("+")), "censored" if "+" in t else "lost") for t in text.split()]


def test_survival_of_the_leukaemia_trial() -> None:
    """Freireich et al. 1963, 6-mercaptopurine, weeks in remission; estimates as in Cox & Oakes 1984, table 1.1 f."""
    drug = ended("6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+")
    times, shares = survival(drug)
    assert times.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert shares.round(3).tolist() == [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    placebo = ended("1 1 2 2 3 4 4 5 5 8 8 8 8 11 11 12 12 15 17 22 23")
    times, shares = survival(placebo)
    area = 1.0 + sum(np.diff(times) * shares[:-1])
    assert area == pytest.approx(np.mean([d.seconds for d in placebo]))  # no censoring: the area is the mean


def test_nothing_lost_is_a_survival_without_steps() -> None:
    times, shares = survival(ended("20+ 20+"))
    assert (len(times), len(shares)) == (0, 0)


def test_a_threshold_from_the_clips_own_opening_fails_stationary_series() -> None:
    """metrics.md A3: a third of them within a minute; one from many clips fails next to none."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, len(TIMES)))
    series = np.zeros_like(noise)
    keep = np.exp(-0.125 / 2)  # a memory of 2 s
    for at in range(1, len(TIMES)):
        series[:, at] = keep * series[:, at - 1] + noise[:, at]
    means = np.array([window_means(TIMES, values)[1] for values in series[:150]])
    fixed = float(np.quantile(means.max(1), 0.95))
    own = [
        duration(TIMES, v, Rule("m@p", "s", ">", float(v[:40].mean() + 2 * v[:40].std()))).ending == "lost"
        for v in series[150:]
    ]
    shared = [duration(TIMES, v, Rule("m@p", "s", ">", fixed)).ending == "lost" for v in series[150:]]
    assert np.mean(own) > 0.2
    assert np.mean(shared) < 0.03


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("appearance_drift@default/drift > 1.5", Rule("appearance_drift@default", "drift", ">", 1.5)),
        ("appearance_drift@default/drift>1.5", Rule("appearance_drift@default", "drift", ">", 1.5)),
        (
            "subject_identity@mini/prompted attributes < 0.6",
            Rule("subject_identity@mini", "prompted attributes", "<", 0.6),
        ),
        ("motion@default/camera - real > 2e-1", Rule("motion@default", "camera", ">", 0.2, to_real=True)),
    ],
)
def test_rules_are_read_and_written(text: str, rule: Rule) -> None:
    assert parse(text) == rule
    assert parse(str(rule)) == rule


@pytest.mark.parametrize("text", ["", "drift > 1", "a@b/c > much", "a@b/c > nan", "a@b/c = 1", "a@b/ > 1"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no horizon: write"):
        parse(text)


def test_a_series_that_follows_the_camera_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ssim_consecutive@default follows the camera: write .* - real"):
        parse("ssim_consecutive@default/ssim < 0.5")


def test_defaults_are_those_whose_metric_is_scored() -> None:
    assert all(parse(text).metric == "appearance_drift@default" for text in defaults(("appearance_drift@default",)))
    assert defaults(("appearance_drift@default",))
    assert defaults(("motion@default",)) == ()


def made(label: str, index: int, lost_at: float | None, frozen_at: float | None = None) -> Made:
    """A sample of 60 s, whose drift steps from 0 to 2 and whose picture freezes."""
    times = TIMES[::8]
    sample, _, trace = make_sample("long-horizon", index, label)
    sample = sample.model_copy(update={"status": "ok", "reason": ""})
    drift = np.zeros_like(times) if lost_at is None else np.where(lost_at <= times, 2.0, 0.0)
    still = np.zeros_like(times) if frozen_at is None else np.where(frozen_at <= times, 1.0, 0.0)

    def record(metric: str, series: str, values: np.ndarray) -> MetricRecord:
        return MetricRecord(
            metric=metric,
            profile="default",
            version=1,
            state="value",
            video_sha256="0",
            reductions=(Reduction(name="mean", state="value", value=float(values.mean())),),
            series=(Series(name=series, times=tuple(times.tolist()), values=tuple(values.tolist())),),
        )

    return sample, [record("appearance_drift", "drift", drift), record("motion", "still", still)], trace


def test_the_report_has_a_column_and_a_curve() -> None:
    """fifo steps at 20 + i s, memrope freezes at 30 s in two of ten cases and else holds; `real` holds.

    With a value per second three of five must be beyond, which they are 2 s after the step.
    """
    entries = [made("fifo", i, 20.0 + i) for i in range(10)]
    entries += [made("memrope", i, None, 30.0 if i < 2 else None) for i in range(10)]
    entries += [made("real", i, None) for i in range(10)]
    run = run_record(primary={}, horizons={"long-horizon": ("appearance_drift@default/drift>1",)})
    (track,) = build_report(run, entries).tracks
    key = "coherence_horizon@default/appearance_drift@default/drift>1"
    rows = {row.label: row for row in track.rows}
    cell = rows["fifo"].cells[key].estimate
    assert cell is not None
    assert cell.value == pytest.approx(22 + 4.5)
    assert cell.low is not None
    assert rows["real"].cells[key].estimate.value == pytest.approx(55)  # type: ignore[union-attr]
    assert rows["memrope"].cells[key].estimate.value == pytest.approx((2 * 32 + 8 * 55) / 10)  # type: ignore[union-attr]
    assert rows["memrope"].cells["coherence_horizon@default/frozen"].estimate.value == pytest.approx(0.2)  # type: ignore[union-attr]
    assert (track.baseline, rows["fifo"].cells[key].mark) == ("memrope", "(-)")
    assert next(c for c in track.columns if c.key == key).headline
    panel = next(p for p in track.panels if p.metric == "coherence_horizon@default")
    curve = next(c for c in panel.curves if c.label == "fifo")
    assert (curve.mean[0], curve.mean[-1], curve.cases) == (1.0, pytest.approx(0), 10)
    assert np.interp(25.5, curve.times, curve.mean) == pytest.approx(0.6)


def test_the_difference_to_the_truth_on_the_same_path() -> None:
    """The truth's own drift, by the camera, is no loss of the method that follows it."""
    entries = [made("fifo", i, 20.0) for i in range(2)] + [made("memrope", i, 40.0) for i in range(2)]
    entries += [made("real", i, 20.0) for i in range(2)]
    run = run_record(primary={}, horizons={"long-horizon": ("appearance_drift@default/drift - real < -1",)})
    (track,) = build_report(run, entries).tracks
    cells = {
        row.label: row.cells["coherence_horizon@default/appearance_drift@default/drift-real<-1"] for row in track.rows
    }
    assert cells["fifo"].estimate.value == pytest.approx(55)  # type: ignore[union-attr]
    assert cells["memrope"].estimate.value == pytest.approx(22)  # type: ignore[union-attr]


def test_a_sample_without_the_series_says_why() -> None:
    sample, metrics, trace = made("fifo", 0, None)
    entries = [(sample, metrics[1:], trace), made("fifo", 1, None)]
    run = run_record(primary={}, horizons={"long-horizon": ("appearance_drift@default/drift>1",)})
    (track,) = build_report(run, entries).tracks
    (row,) = track.rows
    cell = row.cells["coherence_horizon@default/appearance_drift@default/drift>1"]
    assert cell.reasons == ("not applicable: appearance_drift@default was not scored (1 of 2 samples)",)


def test_a_run_without_horizons_has_none() -> None:
    (track,) = build_report(run_record(primary={}), [made("fifo", 0, None)]).tracks
    assert not [c for c in track.columns if c.metric.startswith("coherence_horizon")]
