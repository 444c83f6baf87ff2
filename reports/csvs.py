"""The report's numbers with full precision, one line each."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from magbench.reports.model import Column, Report, TrackReport, lookup

Line = dict[str, Any]


def table_csv(track: TrackReport) -> str:
    """Every cell of a track's table."""
    return _csv(_cells(track))


def samples_csv(report: Report) -> str:
    """Every number of every sample."""
    return _csv(line for track in report.tracks for line in _samples(track))


def curves_csv(report: Report) -> str:
    """Every point of every mean curve."""
    return _csv(line for track in report.tracks for line in _points(track))


def _cells(track: TrackReport) -> Iterator[Line]:
    for row in track.rows:
        for column in track.columns:
            cell = row.cells[column.key]
            e, d = cell.estimate, cell.difference
            best, worst = row.rank or (None, None)
            yield {
                "track": track.name,
                "method": row.label,
                "group": "reference" if row.reference else "method",
                "applicability": row.method.applicability,
                "budget": row.method.budget_frames,
                "matched": "" if row.reference else int(row.method.matched),
                "rank_best": best,
                "rank_worst": worst,
                "unranked": row.unranked,
                **_names(column),
                "direction": column.direction,
                "primary": int(column.primary),
                "state": cell.state,
                "value": e and e.value,
                "low": e and e.low,
                "high": e and e.high,
                "cases": e and e.n,
                "samples": cell.samples,
                "expected": cell.expected,
                "reasons": "; ".join(cell.reasons),
                "baseline": d and row.against,
                "difference": d and d.value,
                "difference_low": d and d.low,
                "difference_high": d and d.high,
                "p": d and d.p,
                "p_holm": cell.p_adjusted,
                "detectable": d and d.detectable,
                "mark": cell.mark,
            }


def _samples(track: TrackReport) -> Iterator[Line]:
    for entry in track.entries:
        sample = entry.sample
        for column in track.columns:
            state, value, reason = lookup(entry, column)
            yield {
                "track": track.name,
                "case": sample.case.id,
                "stratum": sample.case.stratum,
                "seed": sample.seed,
                "method": sample.method.label,
                **_names(column),
                "state": state,
                "value": value,
                "reason": reason,
                "sample": sample.key,
            }


def _points(track: TrackReport) -> Iterator[Line]:
    for panel in track.panels:
        for curve in panel.curves:
            for time, mean, low, high in zip(curve.times, curve.mean, curve.low, curve.high, strict=True):
                yield {
                    "track": track.name,
                    "metric": panel.metric,
                    "series": panel.series,
                    "unit": panel.unit,
                    "axis": panel.axis,
                    "method": curve.label,
                    "cases": curve.cases,
                    "seconds": time,
                    "mean": mean,
                    "low": low,
                    "high": high,
                }


def _names(column: Column) -> Line:
    metric, _, profile = column.metric.partition("@")
    return {"metric": metric, "profile": profile, "reduction": column.reduction, "unit": column.unit}


def _csv(lines: Iterator[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = None
    for line in lines:
        if writer is None:
            writer = csv.DictWriter(out, list(line), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: _field(value) for name, value in line.items()})
    return out.getvalue()


def _field(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe; the lone marks + and - are harmless."""
    if isinstance(value, str) and len(value) > 1 and value[0] in "=+-@\t\r":
        return f"'{value}"
    return value
