"""Measure what the statistics promise, on data of known truth: `python docs/statistics_simulation.py`.

Writes the tables of docs/statistics.md between its two markers. Needs scipy; takes about a minute of one core.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray

from magbench import stats

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

PAGE = Path(__file__).with_name("statistics.md")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
CASES = (10, 16, 32)
COVERED, TESTED, AT_ONCE = 2000, 1000, 50
"""Data sets per number of the coverage and of the other tables, and how many of them are in memory together."""
RANKINGS = 300
LEVEL = 0.05

ROUNDED = float(np.arange(11) / 10 @ np.diff(scipy.stats.beta(5, 1).cdf(np.clip(np.arange(12) / 10 - 0.05, 0, 1))))
"""Mean of a beta(5, 1) in steps of 0.1."""
DATA: dict[str, tuple[Draw, float]] = {
    "normal": (lambda g, s: g.normal(0, 1, s), 0.0),
    "Student t, 3 degrees (heavy tails)": (lambda g, s: g.standard_t(3, s), 0.0),
    "exponential (skewness 2)": (lambda g, s: g.exponential(1, s), 1.0),
    "lognormal σ=0.5 (skewness 1.8)": (lambda g, s: g.lognormal(0, 0.5, s), float(np.exp(1 / 8))),
    "lognormal σ=1 (skewness 6.2)": (lambda g, s: g.lognormal(0, 1, s), float(np.exp(1 / 2))),
    "beta(5, 1) in steps of 0.1 (bounded, ties)": (lambda g, s: np.round(g.beta(5, 1, s), 1), ROUNDED),
    "exponential minus half an exponential": (lambda g, s: g.exponential(1, s) - g.exponential(0.5, s), 0.5),
    "half zeros, half exponential": (lambda g, s: g.exponential(1, s) * g.integers(0, 2, s), 0.5),
}
"""Name -> how to draw, and the true mean."""
EXCHANGEABLE: dict[str, Draw] = {
    "normal": lambda g, s: g.normal(0, 1, s),
    "two lognormals, σ=1": lambda g, s: g.lognormal(0, 1, s) - g.lognormal(0, 1, s),
    "two beta(2, 1) in steps of 0.25": lambda g, s: np.subtract(*np.round(4 * g.beta(2, 1, (2, *s))) / 4),
    "-1, 0 or 1, three quarters zeros": lambda g, s: g.choice([-1.0, 0.0, 1.0], s, p=[1 / 8, 3 / 4, 1 / 8]),
}


def main() -> None:
    """Write the tables into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    tables = "\n\n".join((coverage(), false_alarms(), power(), family(), ranks()))
    PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")


def coverage() -> str:
    """Share of intervals with the truth inside."""
    rows = []
    for name, (draw, truth) in DATA.items():
        data = [draw(np.random.default_rng(n), (n, COVERED)) for n in CASES]
        found = [_inside(bands, one, truth) for bands in (stats.mean_bands, stats.difference_bands) for one in data]
        rows.append((name, *map(_percent, found)))
    head = ("cases are", *(f"mean, n={n}" for n in CASES), *(f"paired difference, n={n}" for n in CASES))
    return f"**Coverage of 95 % intervals** ({COVERED} data sets each, ±1 point)\n\n{_table(head, rows)}"


def false_alarms() -> str:
    """Share of tests that find a difference between exchangeable methods."""
    rows = []
    for name, draw in EXCHANGEABLE.items():
        found = []
        for n in CASES:
            p = _p_values(draw(np.random.default_rng(100 + n), (n, TESTED)))
            found += [np.mean(p <= LEVEL), np.mean(p <= LEVEL / 5)]
        rows.append((name, *map(_percent, found)))
    head = ("difference of two exchangeable methods", *(f"n={n}, p ≤ {a:g}" for n in CASES for a in (LEVEL, LEVEL / 5)))
    return f"**False alarms of the paired test** ({TESTED} data sets each)\n\n{_table(head, rows)}"


def power() -> str:
    """Share of known effects found, beside that of Student's test by its closed form."""
    rows = []
    for n in CASES:
        noise = np.random.default_rng(200 + n).normal(0, 1, (n, TESTED))
        _, low, high = _joined(noise)
        known = float(np.mean(high - low)) / 2 * (1 + scipy.stats.t.ppf(0.8, n - 1) / scipy.stats.t.ppf(0.975, n - 1))
        for label, effect in (*((f"power {q:.0%}", _effect(n, q)) for q in (0.5, 0.8, 0.95)), ("the mean MDE", known)):
            closed = _student_power(n, effect)
            found = np.mean(_p_values(noise + effect) <= LEVEL)
            rows.append((f"{n}", f"{effect:.2f} ({label})", _percent(closed), _percent(found)))
    head = ("cases", "true difference in standard deviations", "Student's test, closed form", "found")
    return f"**Power** (normal differences, p ≤ {LEVEL}, {TESTED} data sets each)\n\n{_table(head, rows)}"


def family() -> str:
    """Share of tracks with any false alarm among its primary comparisons."""
    rows = []
    for n in CASES:
        rng = np.random.default_rng(300 + n)
        d = rng.normal(0, 1, (2, 3, n, TESTED)) - rng.normal(0, 1, (2, 1, n, TESTED))
        p = np.array([_p_values(one) for one in d.reshape(6, n, TESTED)])
        holm = [min(stats.holm(column)) <= LEVEL for column in p.T.tolist()]
        rows.append((f"{n}", _percent(np.mean(holm)), _percent(np.mean(p.min(axis=0) <= LEVEL))))
    head = ("cases", "any Holm-adjusted p ≤ 0.05", "any unadjusted p ≤ 0.05")
    what = f"2 endpoints × 3 methods against one baseline, no true difference, {TESTED} data sets each"
    return f"**Family-wise false alarms** ({what})\n\n{_table(head, rows)}"


def ranks() -> str:
    """Share of tracks in which every true rank is inside its interval."""
    rows = []
    for label, truth in (("four equal", (0.0, 0.0, 0.0, 0.0)), ("two equal, two steps of 0.7", (1.4, 0.7, 0.0, 0.0))):
        best = [1 + sum(other > own for other in truth) for own in truth]
        worst = [sum(other >= own for other in truth) for own in truth]
        for n in CASES:
            rng = np.random.default_rng(400 + n)
            inside, width = [], []
            for _ in range(RANKINGS):
                values = rng.normal(0, 1, n) + rng.normal(0, 1, (4, n)) + np.array(truth)[:, None]
                named = {str(i): {str(c): float(v) for c, v in enumerate(row)} for i, row in enumerate(values)}
                spans = list(stats.rank_intervals(named).values())
                inside.append(all(a <= b and c >= d for (a, c), b, d in zip(spans, best, worst, strict=True)))
                width.append(np.mean([c - a + 1 for a, c in spans]))
            rows.append((label, f"{n}", _percent(np.mean(inside)), f"{np.mean(width):.1f}"))
    head = ("true means of four methods (noise 1)", "cases", "all true ranks inside", "mean number of ranks left open")
    return f"**Rank intervals** ({RANKINGS} rankings each, nominal 95 %, ±2.5 points)\n\n{_table(head, rows)}"


def _parts(data: Floats) -> Iterable[Floats]:
    return (data[:, i : i + AT_ONCE] for i in range(0, data.shape[1], AT_ONCE))


def _joined(data: Floats) -> list[Floats]:
    return [np.concatenate(parts) for parts in zip(*map(stats.difference_bands, _parts(data)), strict=True)]


def _p_values(data: Floats) -> Floats:
    return _joined(data)[0]


def _inside(bands: Callable[[Floats], tuple[Floats, Floats, Floats]], data: Floats, truth: float) -> float:
    found = [(low <= truth + 1e-9) & (truth - 1e-9 <= high) for _, low, high in map(bands, _parts(data))]
    return float(np.mean(np.concatenate(found)))


def _student_power(n: int, effect: float) -> float:
    """On the right side; the other one is below 1e-4 for the effects here."""
    return float(scipy.stats.nct.sf(scipy.stats.t.ppf(1 - LEVEL / 2, n - 1), n - 1, effect * np.sqrt(n)))


def _effect(n: int, wanted: float) -> float:
    return float(scipy.optimize.brentq(lambda effect: _student_power(n, effect) - wanted, 0.01, 2))


def _percent(share: float | np.floating[Any]) -> str:
    return f"{100 * share:.1f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
