"""The report as JSON: quality in one file, time and memory in another."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from magbench.records import SCHEMA_VERSION
from magbench.reports.model import Cell, Column, Report, Row, TrackReport

Json = dict[str, Any]


def quality(report: Report) -> Json:
    """What `results.json` holds: nothing in it depends on the machine's speed, its name or the date."""
    run = report.run
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": run.kind,
        "suite": run.suite,
        "suite_version": run.suite_version,
        "model": run.model,
        "weights": dict(sorted(run.weights.items())),
        "methods": list(report.labels),
        "tracks": {track.name: _quality(track) for track in report.tracks},
    }


def efficiency(report: Report) -> Json:
    """What `efficiency.json` holds: budgets, bytes and speed as measured."""
    return {
        "schema_version": SCHEMA_VERSION,
        "hardware": dict(sorted(report.run.hardware.items())),
        "tracks": {
            track.name: {
                row.label: {
                    "cost": asdict(row.cost) if row.cost else None,
                    "cells": _cells(row, track, lambda column: not column.quality),
                }
                for row in track.methods
            }
            for track in report.tracks
        },
    }


def _quality(track: TrackReport) -> Json:
    return {
        "cases": track.cases,
        "baseline": track.baseline,
        "primary": [column.key for column in track.columns if column.primary],
        "columns": {
            column.key: {"direction": column.direction, "unit": column.unit}
            for column in track.columns
            if column.quality
        },
        "rows": [
            {
                "label": row.label,
                "reference": row.reference,
                "applicability": row.method.applicability,
                "reason": row.method.reason,
                "extended": row.extended,
                "family": row.family,
                "budget_frames": row.method.budget_frames,
                "own_budget_frames": row.method.own_budget_frames,
                "matched": row.method.matched,
                "against": row.against,
                "rank": row.rank and list(row.rank),
                "unranked": row.unranked,
                "cells": _cells(row, track, lambda column: column.quality),
            }
            for row in track.rows
        ],
        "failures": [asdict(failure) for failure in track.failures],
        "missing": [asdict(missing) for missing in track.missing],
    }


def _cells(row: Row, track: TrackReport, wanted: Callable[[Column], bool]) -> Json:
    return {column.key: _cell(row.cells[column.key]) for column in track.columns if wanted(column)}


def _cell(cell: Cell) -> Json:
    found: Json = {"state": cell.state, "samples": cell.samples, "expected": cell.expected}
    if cell.estimate:
        found |= asdict(cell.estimate)
    if cell.reasons:
        found["reasons"] = list(cell.reasons)
    if cell.difference:
        found["difference"] = asdict(cell.difference) | {"p_holm": cell.p_adjusted, "mark": cell.mark}
    return found
