"""Records in, tables, plots and pages out.

Sees only the records and the store. Plotting and templates load when something is built, not on import.
"""

if __name__ != "magbench.reports":  # imported by its folder name: every class would exist twice
    raise ImportError("use 'magbench.reports', not 'reports'")

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from magbench.records import WhyRecord
    from magbench.reports.model import Report
    from magbench.store import RunStore


def load(store: "RunStore", baseline: str | None = None) -> "Report":
    """Aggregate a run's records.

    Args:
        store: The run.
        baseline: Label of the method that the others are compared with; None takes the first the run names.

    Returns:
        Pure data, from which everything else is drawn.

    Raises:
        ConfigError: no method of the run has that label.
    """
    from magbench.reports.aggregate import build_report

    entries = [(sample, store.metrics(sample.key), store.trace(sample.key)) for sample in store.samples()]
    return build_report(store.run, entries, baseline)


def build_why(store: "RunStore", record: "WhyRecord") -> None:
    """Write `plots/why.svg`, `plots/why.png` and `tables/why.md`.

    Raises:
        StoreError: a file cannot be written.
    """
    from magbench.reports.write import write_why

    write_why(store, record)


def build(store: "RunStore", report: "Report | None" = None) -> dict[str, Path]:
    """Write everything that can be re-created from `samples/`.

    That is `results.json` (quality only), `efficiency.json`, `tables/`, `plots/` and `report.html`. The same
    records give the same bytes.

    Args:
        store: The run.
        report: What `load` gave, or None to load it here.

    Returns:
        Path relative to the run folder -> absolute path, in the order written; `report.html` is last.

    Raises:
        StoreError: a file cannot be written.
    """
    from magbench.reports.write import write_all

    return write_all(store, report or load(store))
