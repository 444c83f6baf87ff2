"""Agreement of metrics with people: grids, one per aspect, and a CSV."""

import csv
import io

from magbench.agreement import Agreement, Human
from magbench.reports.grids import Grid, Item, Notes, interval, number


def grids(found: Human) -> list[Grid]:
    """A table per aspect, the best agreement first."""
    return [_grid(found, aspect) for aspect in found.ties]


def _grid(found: Human, aspect: str) -> Grid:
    notes = Notes()
    those = [one for one in found.agreements if one.aspect == aspect]
    those.sort(key=lambda one: (one.estimate is None, -one.estimate.value if one.estimate else 0.0, one.endpoint))
    decided = max((one.choices + one.unscored for one in those), default=0)
    legend = [
        f"{decided + found.ties[aspect]} choices over {found.cases[aspect]} cases"
        + (f" by {found.annotators[aspect]} annotators" if found.annotators[aspect] else "")
        + f"; {found.ties[aspect]} ties, left out",
        "agreement: share of choices that the metric shares, mean over cases, with its 95 % interval; a coin agrees in "
        "0.5; equal numbers count half",
    ]
    if found.left_out:
        legend.append(f"left out, for neither more nor less of it is better: {', '.join(found.left_out)}")
    header = (("metric",), ("agreement",), ("choices",), ("equal", "numbers"))
    rows = tuple(_row(one, notes) for one in those)
    return Grid(f"Agreement with people: {aspect}", header, (rows,), tuple(notes.texts), tuple(legend))


def _row(one: Agreement, notes: Notes) -> tuple[Item, ...]:
    said = notes.number([f"{one.unscored} choices not scored: {one.reason}" if one.unscored else one.reason])
    if one.estimate is None:
        return Item(one.endpoint), Item("n/a", notes=said), Item("0"), Item("–")
    marked = notes.number([one.estimate.note])
    level = Item(number(one.estimate.value), interval(one.estimate.low, one.estimate.high), notes=marked)
    return Item(one.endpoint), level, Item(str(one.choices), notes=said), Item(str(one.tied))


COLUMNS = ("aspect", "metric", "agreement", "low", "high", "cases", "choices", "equal", "unscored", "reason")


def agreement_csv(found: Human) -> str:
    """One row per aspect and reduction, numbers in full; what is left out stands there with its reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in found.agreements:
        e = one.estimate
        level = ("", "", "", "") if e is None else (e.value, _cell(e.low), _cell(e.high), e.n)
        writer.writerow((one.aspect, one.endpoint, *level, one.choices, one.tied, one.unscored, one.reason))
    for endpoint, reason in found.left_out.items():
        writer.writerow(("", endpoint, *[""] * 7, reason))
    return out.getvalue()


def _cell(value: float | None) -> float | str:
    return "" if value is None else value
