"""What a run holds, as records and as a table."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from magbench.records import MetricRecord, RunRecord, SampleRecord
from magbench.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "key", "track", "case", "seed", "method", "metric", "reduction", "state", "value", "reason", "direction", "unit"
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """A run folder, read."""

    root: Path
    run: RunRecord
    samples: tuple[SampleRecord, ...]
    metrics: dict[str, tuple[MetricRecord, ...]]
    """Sample key to its metric records."""

    @property
    def report(self) -> Path:
        """Where the page is, once it has been built."""
        return self.root / "report.html"

    def count(self, status: str) -> int:
        """Samples of a status: ok, error or not_applicable."""
        return sum(sample.status == status for sample in self.samples)

    def not_applicable(self) -> Counter[tuple[str, str]]:
        """How many samples of a (method, reason) make no sense; reference rows left out."""
        return Counter(
            (sample.method.label, sample.reason)
            for sample in self.samples
            if sample.status == "not_applicable" and sample.method.policy != "reference"
        )

    def metric_errors(self) -> Counter[tuple[str, str]]:
        """How often each (metric, reason) failed to score a sample."""
        return Counter(
            (record.name, record.reason)
            for records in self.metrics.values()
            for record in records
            if record.state == "error"
        )

    def unscored(self) -> int:
        """Scores that the run should hold and doesn't, because a worker was killed or the run isn't over."""
        wanted: dict[str, list[str]] = self.run.resolved.get("metrics", {})
        return sum(
            len(set(wanted.get(sample.case.track, ())) - {record.name for record in self.metrics[sample.key]})
            for sample in self.samples
            if sample.status == "ok"
        )

    def missing(self) -> dict[str, tuple[str, str]]:
        """Metric name to (reason, hint), for metrics that lack something that can be had, such as weights."""
        return {
            record.name: (record.reason, record.hint)
            for records in self.metrics.values()
            for record in records
            if record.state == "not_applicable" and record.hint
        }

    def warnings(self) -> dict[str, tuple[str, ...]]:
        """What to know about the videos: each warning, with the cases and methods it is about; no reference rows."""
        found: dict[str, dict[str, None]] = {}
        for sample in self.samples:
            if sample.method.policy != "reference":
                about = ", ".join(dict.fromkeys((sample.case.id, sample.method.label)))
                for record in self.metrics[sample.key]:
                    for text in record.warnings:
                        found.setdefault(text, {})[about] = None
        return {text: tuple(about) for text, about in found.items()}

    @property
    def frame(self) -> "pd.DataFrame":
        """One row per sample and reduction, columns `COLUMNS`; `value` is missing where `state` is not `value`."""
        import pandas as pd

        rows: list[tuple[object, ...]] = []
        for sample in self.samples:
            place = (sample.key, sample.case.track, sample.case.id, sample.seed, sample.method.label)
            for record in self.metrics[sample.key]:
                if record.state != "value":
                    rows.append((*place, record.name, None, record.state, None, record.reason, None, None))
                rows += [
                    (*place, record.name, r.name, r.state, r.value, r.reason, r.direction, r.unit)
                    for r in record.reductions
                ]
        return pd.DataFrame(rows, columns=list(COLUMNS))


def read(store: RunStore, videos: bool = True) -> Results:
    """Read a run folder.

    Args:
        store: The folder.
        videos: Whether a sample counts only with its video. A slim copy holds records without videos.
    """
    samples = tuple(store.samples() if videos else store.records())
    return Results(store.root, store.run, samples, {s.key: tuple(store.metrics(s.key)) for s in samples})
