"""What `magbench validate` found: a grid for the terminal and for Markdown, and a CSV."""

import csv
import io
from collections.abc import Iterable

from magbench.reports.grids import Grid, Item, Notes, number
from magbench.reports.tables import markdown
from magbench.validation import SEEN, Finding, ValidationRecord

WORDS = {"rises": "↑", "falls": "↓", "blind": "blind", "none": ""}
MARKS = {"holds": "+", "fails": "-"}


def matrix(record: ValidationRecord) -> Grid:
    """Reductions down, damages across: the claim, whether it holds, and the numbers behind it."""
    damages = [damage for damage in record.spec.damages if damage in record.levels]
    found = {(one.endpoint, one.damage): one for one in record.findings}
    notes = Notes()
    rows = tuple(
        (Item(endpoint), *(_item(found.get((endpoint, damage)), notes) for damage in damages))
        for endpoint in dict.fromkeys(one.endpoint for one in record.findings)
    )
    legend = [
        f"claims that hold: {record.count('holds')}, that fail: {record.count('fails')}, not measured: "
        f"{record.count('not measured')}; clips: {len(record.clips)}, damaged: {record.spec.damaged}",
        f"↑ ↓ the number follows the damage: rank correlation ρ at least {SEEN:g} in size; A: AUC against clean clips "
        "at the weakest visible strength",
        "blind: Δ, the largest change in standard deviations of the clean clips, is below 1; –: they are all alike",
        "+ the claim holds, - it fails, without a sign: not claimed or not measured",
        *(f"left out: {damage}: {reason}" for damage, reason in record.left_out.items()),
    ]
    if record.unclaimed:
        legend.append(f"no claim: {', '.join(record.unclaimed)}")
    header = (("metric",), *((damage,) for damage in damages))
    return Grid("Claims and findings", header, (rows,), tuple(notes.texts), tuple(legend))


def _item(found: Finding | None, notes: Notes) -> Item:
    if found is None:
        return Item("·")
    if found.verdict == "not measured":
        return Item(WORDS[found.claim] or "–", "n/a", notes=notes.number([found.reason]))
    parts = [f"ρ {found.rho:.2f}" if found.rho is not None and found.claim != "blind" else ""]
    parts.append(f"A {found.auc:.2f}" if found.auc is not None and found.claim != "blind" else "")
    parts.append(_change(found) if found.claim in ("blind", "none") else "")
    return Item(WORDS[found.claim] or "–", " ".join(filter(None, parts)), MARKS.get(found.verdict, ""))


def _change(found: Finding) -> str:
    return "Δ –" if found.change is None else f"Δ {found.change:.2f}"


def strengths(record: ValidationRecord) -> Grid:
    """Per damage its strengths, and from which one on it is visible."""
    rows = []
    for damage, levels in record.levels.items():
        first = next((level for level in levels if level.visible), None)
        told = "none is" if first is None else number(first.strength)
        psnr = [number(level.psnr) if level.psnr is not None else "–" for level in (levels[0], levels[-1])]
        ends = [number(levels[0].strength), number(levels[-1].strength)]
        rows.append((Item(damage), Item(" to ".join(ends)), Item(" to ".join(psnr)), Item(told)))
    limits = record.spec.visible
    legend = f"visible: at most {limits.psnr:g} dB over the changed pixels, or at least {limits.seconds:g} s long"
    header = (("damage",), ("strengths",), ("dB",), ("visible from",))
    return Grid("Damages", header, (tuple(rows),), (), (legend,))


def page(record: ValidationRecord) -> str:
    """Both tables as Markdown."""
    return "\n".join((markdown(matrix(record)), markdown(strengths(record))))


COLUMNS = ("endpoint", "damage", "claim", "verdict", "rho", "change", "auc", "series", "reason")


def findings_csv(findings: Iterable[Finding]) -> str:
    """One row per finding, numbers in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for found in findings:
        values = (getattr(found, column) for column in COLUMNS)
        writer.writerow("" if value is None else value for value in values)
    return out.getvalue()
