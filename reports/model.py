"""The report as pure data: what every table, plot and page shows, with nothing left to decide but looks."""

from collections.abc import Mapping
from dataclasses import dataclass

from magbench.records import Direction, MethodRecord, RunRecord, State
from magbench.reports.curves import Entry, Panel, Timeline
from magbench.stats import Difference, Estimate

EFFICIENCY = "efficiency"
"""The metric that holds times and sizes; it never enters `results.json`."""
MIB = 1024**2


@dataclass(frozen=True)
class Column:
    """One number per row."""

    metric: str
    """`metric@profile`."""
    reduction: str
    """Empty when no sample of the track has this metric, so that its reductions are unknown."""
    direction: Direction = "none"
    unit: str = ""
    primary: bool = False
    headline: bool = False

    @property
    def key(self) -> str:
        """`metric@profile/reduction`."""
        return f"{self.metric}/{self.reduction}" if self.reduction else self.metric

    @property
    def quality(self) -> bool:
        """Whether it is about the video, not about time and memory."""
        return self.metric.partition("@")[0] != EFFICIENCY


@dataclass(frozen=True)
class Cell:
    """A row's number in one column, or why there is none."""

    state: State
    estimate: Estimate | None = None
    samples: int = 0
    """Samples with a value."""
    expected: int = 0
    """Samples there should be."""
    reasons: tuple[str, ...] = ()
    """Why the others have none, most frequent first, each with its count."""
    difference: Difference | None = None
    """To the baseline, paired by case."""
    p_adjusted: float | None = None
    """Holm, over the primary comparisons of the track; None for an exploratory one."""
    mark: str = ""
    """`+` better than the baseline, `-` worse, `≠` different (no better side), `~` no difference found.
    In parentheses: exploratory, not adjusted. Empty: exploratory without a difference, or not tested."""


@dataclass(frozen=True)
class Use:
    """How much of something the generated chunks of a row took."""

    peak: float
    """The most, over all chunks of all samples."""
    mean: float
    """Over chunks, then over seeds, then over cases."""


@dataclass(frozen=True)
class Cost:
    """What a row needs, as its traces measured it."""

    past_frames: Use
    """Past frames that a pass saw, its own chunk excluded."""
    keys_passes: Use
    """Key frames that a query saw, its own chunk's included, summed over the passes of a chunk."""
    cache_bytes: Use
    """Keys and values, all layers."""
    state_bytes: Use
    """Whatever else the policy keeps."""
    network_bytes: int
    """Weights of a second network, once for all samples."""


@dataclass(frozen=True)
class Row:
    """A method, or a reference."""

    method: MethodRecord
    cells: Mapping[str, Cell]
    """By `Column.key`."""
    cost: Cost | None
    against: str = ""
    """Label of the row that this one is compared with: the baseline at the same budget where there is one."""
    rank: tuple[int, int] | None = None
    """Best and worst rank that the data allow in the row's block, on the first primary endpoint; None where nothing
    could be tested."""
    unranked: str = ""
    """Why the row is listed but not ranked."""
    extended: int = 0
    """Samples that are longer than the release can make them; see `SampleRecord.extended`."""

    @property
    def label(self) -> str:
        """What the row is called."""
        return self.method.label

    @property
    def reference(self) -> bool:
        """Whether it is a reference, not a method."""
        return self.method.policy == "reference"

    @property
    def family(self) -> str:
        """What it is called whatever its budget."""
        return self.method.family or self.method.label

    @property
    def applies(self) -> bool:
        """False where it can't have numbers."""
        return self.method.applicability != "not applicable"

    @property
    def own_budget(self) -> bool:
        """Whether its budget is the one it has when none is given."""
        return self.method.budget_frames == self.method.own_budget_frames

    @property
    def block(self) -> tuple[int, float]:
        """Rows of a block have the same budget: they stand together and are ranked together.

        After the budgets come those that grow with the video, then rows whose budget can't be chosen, then references.
        """
        if self.reference or not self.method.matched:
            return 3 if self.reference else 2, 0.0
        budget = self.method.budget_frames
        return (1, 0.0) if budget is None else (0, budget)


@dataclass(frozen=True)
class Failure:
    """A sample without a video."""

    label: str
    case: str
    seed: int
    status: str
    reason: str
    hint: str


@dataclass(frozen=True)
class Missing:
    """A metric that could not be computed, and how to change that."""

    metric: str
    reason: str
    hint: str


@dataclass(frozen=True)
class TrackReport:
    """Everything about one track."""

    name: str
    baseline: str
    """Label of the method that the others are compared with; empty where nothing can be paired."""
    columns: tuple[Column, ...]
    """Primary endpoints first."""
    rows: tuple[Row, ...]
    """By block, in each the best on the first primary endpoint first."""
    panels: tuple[Panel, ...]
    timeline: Timeline
    cases: int
    failures: tuple[Failure, ...]
    missing: tuple[Missing, ...]
    entries: tuple[Entry, ...]
    """The samples themselves, by case, seed and row."""

    @property
    def methods(self) -> tuple[Row, ...]:
        """The rows that are methods."""
        return tuple(row for row in self.rows if not row.reference)

    @property
    def references(self) -> tuple[Row, ...]:
        """The rows that are references."""
        return tuple(row for row in self.rows if row.reference)

    @property
    def headline(self) -> tuple[Column, ...]:
        """The few columns of the short table."""
        return tuple(column for column in self.columns if column.headline)


@dataclass(frozen=True)
class Report:
    """A run."""

    run: RunRecord
    tracks: tuple[TrackReport, ...]
    labels: tuple[str, ...]
    """All methods in the order that fixes their colours."""


def lookup(entry: Entry | None, column: Column) -> tuple[State, float | None, str]:
    """State, value and reason of one sample in one column."""
    if entry is None:
        return "error", None, "no such sample yet, the run is incomplete"
    if entry.sample.status != "ok":
        return entry.sample.status, None, entry.sample.reason or "no reason recorded"
    record = entry.metrics.get(column.metric)
    if record is None:
        return "error", None, "not scored yet"
    if record.state != "value":
        return record.state, None, record.reason
    for reduction in record.reductions:
        if reduction.name == column.reduction:
            return reduction.state, reduction.value, reduction.reason
    return "not_applicable", None, "not reported for this video"
