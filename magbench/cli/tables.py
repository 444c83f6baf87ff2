"""The end of `run`, `score` and `report`: tables, warnings, what is missing, what failed."""

from typing import TYPE_CHECKING

from magbench.cli import console

if TYPE_CHECKING:
    from magbench.reports.model import Report
    from magbench.results import Results

SHOWN = 10
"""Failures listed one by one."""


def show_tables(report: "Report") -> None:
    """Print the headline table of each track with its notes."""
    from magbench.reports.grids import headline
    from magbench.reports.tables import footnotes, terminal

    for track in report.tracks:
        grid = headline(track)
        console.say()
        console.show(terminal(grid, console.width()))
        for line in footnotes(grid):
            console.say(line)
    console.say()


def show_missing(results: "Results") -> None:
    """Say once per metric what it lacks and how to get it."""
    lacking = results.missing()
    if lacking:
        console.note("not computed:")
    for metric, (reason, hint) in sorted(lacking.items()):
        console.note(f"  {metric}: {reason}; {hint}")


def show_warnings(results: "Results") -> None:
    """Say once per warning which videos it is about."""
    found = results.warnings()
    for text, videos in list(found.items())[:SHOWN]:
        more = f" and {len(videos) - SHOWN} more" if len(videos) > SHOWN else ""
        console.warn(f"{'; '.join(videos[:SHOWN])}{more}: {text}")
    if len(found) > SHOWN:
        console.note(f"... and {len(found) - SHOWN} more warnings: see `warnings` in samples/*/metrics/*.json")


def show_failures(results: "Results") -> int:
    """List samples that make no sense, failed samples and failed metrics; return 4 when any failed, else 0."""
    for (label, reason), count in results.not_applicable().items():
        console.note(f"{label}: not applicable on {count} samples: {reason}")
    failed = [sample for sample in results.samples if sample.status == "error"]
    for sample in failed[:SHOWN]:
        where = ", ".join(dict.fromkeys((sample.case.id, sample.method.label)))
        console.error(f"{where}: {sample.reason}", sample.hint or None)
    if len(failed) > SHOWN:
        console.note(f"... and {len(failed) - SHOWN} more failed samples")
    broken = results.metric_errors()
    for (metric, reason), count in broken.most_common(SHOWN):
        console.error(f"{metric} failed on {count} samples: {reason}", None)
    unscored = results.unscored()
    if unscored:
        console.error(f"{unscored} scores are missing: a worker was killed", "repeat the command, with fewer --workers")
    return 4 if failed or broken or unscored else 0
