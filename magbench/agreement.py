"""Do metrics agree with people? Pairwise choices between videos, and which of the two each metric calls better.

The agreement of a metric is the share of choices that it shares: 1 where it calls the chosen video better, 0 where it
calls the other one better, 1/2 where both have the same value. Choices that people left as ties say nothing about which
is better: they are counted and left out. Each case weighs the same, annotators being averaged within a case first.

The interval is that of the mean over cases; with annotators named, the wider, end by end, of that and the interval of
the mean over annotators, because choices share a case as they share an annotator. 1/2 is what a coin agrees.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from magbench.errors import ConfigError
from magbench.records import MetricRecord, Reduction, SampleRecord
from magbench.registry import did_you_mean
from magbench.results import Results
from magbench.stats import Estimate, case_means, mean_estimate

Side = Literal["first", "second", "tie"]
WORDS: Mapping[str, Side] = {"first": "first", "second": "second", "tie": "tie", "left": "first", "right": "second"}
FORMAT = "columns: first, second, choice (first, second or tie), and if you like aspect, annotator, case"
KEY_HINT = "use the key.csv that `magbench study` wrote beside the same page"
OVERALL = "overall"


@dataclass(frozen=True)
class Choice:
    """What one person said of two videos."""

    first: str
    """As the file names it."""
    second: str
    side: Side
    aspect: str = OVERALL
    annotator: str = ""
    case: str = ""
    """Empty: that of the videos."""


@dataclass(frozen=True)
class Agreement:
    """One reduction of a metric beside the choices of one aspect."""

    endpoint: str
    aspect: str
    estimate: Estimate | None
    """Share of choices, mean over cases; None where there is none."""
    choices: int = 0
    """Behind it."""
    unscored: int = 0
    """Choices between videos of which one has no number."""
    tied: int = 0
    """Choices between videos with the same number."""
    reason: str = ""
    """Why there is no estimate, or why a choice is unscored."""


@dataclass(frozen=True)
class Human:
    """Everything that choices say of a run's metrics."""

    choices: int
    ties: dict[str, int]
    """Aspect to choices that were left as ties."""
    cases: dict[str, int]
    annotators: dict[str, int]
    agreements: tuple[Agreement, ...]
    left_out: dict[str, str]
    """Endpoint to why it can't agree with anybody."""


def read_choices(files: Sequence[Path], key: Path | None = None) -> list[Choice]:
    """Read people's choices.

    Args:
        files: CSVs with the columns of `FORMAT`, or those that a page of `magbench study` saved.
        key: The study's key.csv, for the latter.

    Raises:
        ConfigError: a file can't be read, or a line can't be used; it is named.
    """
    study = {row["pair"]: row for _, row in _rows(key, ("study", "pair", "left", "right"), KEY_HINT)} if key else {}
    found = []
    for file in files:
        for line, row in _rows(file, ("study", "pair", "choice") if key else ("first", "second", "choice"), FORMAT):
            where = f"{file}, line {line}"
            side = WORDS.get(row["choice"].strip().lower())
            if side is None:
                raise ConfigError(f"{where}: choice {row['choice']!r} is none of {', '.join(WORDS)}", FORMAT)
            first, second = _unblinded(row, study, where) if key else (row["first"], row["second"])
            found.append(
                Choice(first, second, side, row.get("aspect") or OVERALL, row.get("annotator", ""), row.get("case", ""))
            )
    if not found:
        raise ConfigError(f"no choice in {', '.join(map(str, files))}", FORMAT)
    return found


def _unblinded(row: Mapping[str, str], study: Mapping[str, Mapping[str, str]], where: str) -> tuple[str, str]:
    """The two videos that the page showed on the left and on the right."""
    shown = study.get(row["pair"])
    if shown is None or shown["study"] != row["study"]:
        raise ConfigError(f"{where}: pair {row['pair']!r} of study {row['study']!r} is not in the key", KEY_HINT)
    return shown["left"], shown["right"]


def _rows(file: Path, columns: Sequence[str], hint: str) -> Iterable[tuple[int, dict[str, str]]]:
    """Line number and cells of each line."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, restval="")
            if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
                raise ConfigError(f"{file} has no column {missing[0]!r}", hint)
            rows = []
            for row in reader:
                if None in row:
                    raise ConfigError(f"{file}, line {reader.line_num}: more cells than columns", hint)
                rows.append((reader.line_num, row))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"cannot read '{file}': {reason}", hint) from error


def agreement(results: Results, choices: Sequence[Choice], metrics: Sequence[str] = ()) -> Human:
    """Put choices beside a run's scores.

    Args:
        results: The run; videos need not be there.
        choices: From `read_choices`.
        metrics: Only these, `motion@default` or `motion`; none: all that the run was scored with.

    Raises:
        ConfigError: a choice names a video that the run doesn't hold, or the same video twice; or the run has no
            number of a metric.
    """
    named = _named(results.samples)
    pairs = [(choice, _find(named, choice.first), _find(named, choice.second)) for choice in choices]
    for choice, first, second in pairs:
        if first.key == second.key:
            raise ConfigError(f"a choice names the video {choice.first!r} twice", FORMAT)
    reductions = {
        f"{record.name}/{reduction.name}": reduction
        for sample in results.samples
        for record in results.metrics[sample.key]
        for reduction in record.reductions
        if not metrics or {record.name, record.metric} & set(metrics)
    }
    scored = {name for endpoint in reductions for name in (_metric(endpoint), _metric(endpoint).partition("@")[0])}
    if unknown := [name for name in metrics if name not in scored]:
        raise ConfigError(
            f"the run has no number of metric {unknown[0]!r}", "score it: magbench score RUN --metrics NAME"
        )
    if not reductions:
        raise ConfigError(f"'{results.root}' holds no scores", "score it: magbench score RUN")
    numbers = {sample.key: dict(_numbers(results.metrics[sample.key])) for sample in results.samples}
    aspects = dict.fromkeys(choice.aspect for choice in choices)
    decided = [pair for pair in pairs if pair[0].side != "tie"]
    return Human(
        choices=len(choices),
        ties={a: sum(c.aspect == a and c.side == "tie" for c in choices) for a in aspects},
        cases={a: len({_case(*pair) for pair in pairs if pair[0].aspect == a}) for a in aspects},
        annotators={a: len({c.annotator for c in choices if c.aspect == a and c.annotator}) for a in aspects},
        agreements=tuple(
            _agreement(endpoint, aspect, reduction, [pair for pair in decided if pair[0].aspect == aspect], numbers)
            for aspect in aspects
            for endpoint, reduction in sorted(reductions.items())
            if reduction.direction != "none"
        ),
        left_out={
            endpoint: "neither more nor less of it is better"
            for endpoint, reduction in sorted(reductions.items())
            if reduction.direction == "none"
        },
    )


def _metric(endpoint: str) -> str:
    return endpoint.partition("/")[0]


Pair = tuple[Choice, SampleRecord, SampleRecord]


def _named(samples: Iterable[SampleRecord]) -> dict[str, list[SampleRecord]]:
    """Keys, and of given videos also what the file is called, to the samples."""
    named: dict[str, list[SampleRecord]] = {}
    for sample in samples:
        names = {sample.key}
        if sample.method.policy == "file":
            names |= {sample.case.id, *((sample.video.path, Path(sample.video.path).name) if sample.video else ())}
        for name in names:
            named.setdefault(name, []).append(sample)
    return named


def _find(named: Mapping[str, Sequence[SampleRecord]], name: str) -> SampleRecord:
    found = named.get(name, ())
    if len(found) != 1:
        problem = f"there are {len(found)} videos called {name!r}" if found else f"the run has no video {name!r}"
        hint = "name it by its key, the name of its folder under samples/"
        raise ConfigError(problem, hint if found else f"{hint}; {did_you_mean(name, list(named)[:20])}")
    return found[0]


def _numbers(records: Iterable[MetricRecord]) -> Iterable[tuple[str, float | str]]:
    """Endpoint to its number, or to the reason why there is none."""
    for record in records:
        for reduction in record.reductions:
            yield f"{record.name}/{reduction.name}", reduction.reason if reduction.value is None else reduction.value


def _case(choice: Choice, first: SampleRecord, second: SampleRecord) -> str:
    if choice.case:
        return choice.case
    ids = sorted({first.case.id, second.case.id})
    return ids[0] if len(ids) == 1 else " | ".join(ids)


def _agreement(
    endpoint: str,
    aspect: str,
    reduction: Reduction,
    pairs: Sequence[Pair],
    numbers: Mapping[str, Mapping[str, float | str]],
) -> Agreement:
    by_case: dict[str, dict[str, list[float]]] = {}
    by_annotator: dict[str, list[float]] = {}
    unscored = tied = 0
    reason = "every choice is a tie"
    for choice, first, second in pairs:
        values = [numbers[sample.key].get(endpoint, "not every video was scored with it") for sample in (first, second)]
        one, other = values
        if isinstance(one, str) or isinstance(other, str):
            unscored += 1
            reason = one if isinstance(one, str) else str(other)
            continue
        better = (one > other) - (one < other)
        better = better if reduction.direction == "higher" else -better
        tied += not better
        agrees = 0.5 * (1 + better * (1 if choice.side == "first" else -1))
        by_case.setdefault(_case(choice, first, second), {}).setdefault(choice.annotator, []).append(agrees)
        if choice.annotator:
            by_annotator.setdefault(choice.annotator, []).append(agrees)
    if not by_case:
        return Agreement(endpoint, aspect, None, 0, unscored, 0, reason)
    cases = case_means({case: list(case_means(people).values()) for case, people in by_case.items()})
    estimate = _within(mean_estimate(list(cases.values())))
    if len(by_annotator) > 1:
        estimate = _wider(estimate, _within(mean_estimate(list(case_means(by_annotator).values()))))
    count = len(pairs) - unscored
    return Agreement(endpoint, aspect, estimate, count, unscored, tied, reason if unscored else "")


def _within(estimate: Estimate) -> Estimate:
    """A share: its interval ends at 0 and 1."""
    if estimate.low is None or estimate.high is None:
        return estimate
    low, high = max(0.0, estimate.low), min(1.0, estimate.high)
    return Estimate(estimate.value, estimate.n, low, high, estimate.descriptive, estimate.note)


def _wider(cases: Estimate, annotators: Estimate) -> Estimate:
    """The mean over cases, with the wider interval; with too few annotators for one of theirs, that is said."""
    note = cases.note or (
        "the interval is over cases only: too few annotators, or all alike" if annotators.note else ""
    )
    if cases.low is None or cases.high is None or annotators.low is None or annotators.high is None:
        return Estimate(cases.value, cases.n, cases.low, cases.high, cases.descriptive, note)
    apart = cases.value - annotators.value
    low = max(0.0, min(cases.low, annotators.low + apart))
    high = min(1.0, max(cases.high, annotators.high + apart))
    return Estimate(cases.value, cases.n, low, high, cases.descriptive or annotators.descriptive, note)
