"""What a gate says, for people and for machines: tables, JUnit XML, and annotations of a CI run.

Labels, case ids and reasons come from users: each writer escapes them.
"""

from collections.abc import Iterator
from xml.etree import ElementTree

from magbench.gate import RUNS, Check, Outcome
from magbench.gate_policy import FINGERPRINT
from magbench.reports.grids import ARROWS, Grid, Item, Notes, interval, number, signed
from magbench.reports.tables import escape, markdown

SIGNS: dict[str | None, str] = {
    "PASS": "✓", "IMPROVED": "✓", "INCONCLUSIVE": "?", "INCOMPLETE": "!", "NOT_COMPARABLE": "!", "REGRESSION": "✗",
    None: "–",
}  # fmt: skip
ICONS = {
    "PASS": "✅", "IMPROVED": "✅", "INCONCLUSIVE": "⚠️", "INCOMPLETE": "⚠️", "NOT_COMPARABLE": "⛔", "REGRESSION": "❌",
}  # fmt: skip
MEANING = {
    "PASS": "nothing got worse than its margin",
    "IMPROVED": "something got better by more than its margin, nothing worse",
    "INCONCLUSIVE": "too few cases to say whether something got worse than its margin",
    "INCOMPLETE": "something that the gate needs is missing",
    "NOT_COMPARABLE": "the run and the baseline cannot be held against each other",
    "REGRESSION": "something got worse than its margin, or the arithmetic changed",
}
ANNOTATIONS = 10
"""GitHub shows no more of a kind per step."""
DETAILS = 5
"""Sentences per check in a table; the JSON has all."""


def grids(outcome: Outcome) -> list[Grid]:
    """One table per part; of the tracks, one per method."""
    parts: dict[tuple[str, str], list[Check]] = {}
    for item in outcome.checks:
        parts.setdefault((item.part, "" if item.part in (FINGERPRINT, RUNS) else item.method), []).append(item)
    return [_grid(part, method, checks) for (part, method), checks in parts.items()]


def remarks(outcome: Outcome) -> list[str]:
    """What to mind, then what differs between the two and blocks nothing; one sentence each."""
    lines = [f"warning: {text}" for text in outcome.warnings]
    lines += [f"differs: {text}" for text in outcome.notices]
    lines += ["A is the baseline, B the run"] if outcome.notices else []
    return [plain(line) for line in lines]


def headline(outcome: Outcome) -> str:
    """The verdict and what it means."""
    strict = " (strict: fails)" if outcome.strict and outcome.verdict == "INCONCLUSIVE" else ""
    return f"{outcome.verdict}{strict}, {MEANING[outcome.verdict]}"


def summary(outcome: Outcome) -> str:
    """GitHub Markdown, as for the summary of a CI run."""
    verdict, _, meaning = headline(outcome).partition(", ")
    parts = [f"## {ICONS[outcome.verdict]} magbench gate: {verdict}", "", meaning[:1].upper() + meaning[1:] + ".", ""]
    parts += [markdown(grid) for grid in grids(outcome)]
    parts += [f"- {escape(line)}" for line in remarks(outcome)]
    names = (("run", outcome.run), ("baseline", outcome.baseline), ("policy", outcome.policy))
    parts += ["", f"<sub>{', '.join(f'{what} {escape(name)}' for what, name in names)}</sub>", ""]
    return "\n".join(parts)


def junit(outcome: Outcome) -> str:
    """JUnit XML: a suite per part, a test per method and endpoint.

    REGRESSION is a failure, INCOMPLETE and NOT_COMPARABLE are errors, INCONCLUSIVE is skipped or, where strict, a
    failure; what was acknowledged or has nothing to decide is skipped.
    """
    root = ElementTree.Element("testsuites", name="magbench gate")
    for part in dict.fromkeys(item.part for item in outcome.checks):
        suite = ElementTree.SubElement(root, "testsuite", name=plain(part))
        for item in (item for item in outcome.checks if item.part == part):
            name = ", ".join(filter(None, (item.method, item.endpoint))) or "comparability"
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"magbench.{plain(part)}", name=plain(name), time="0"
            )
            kind = _junit_kind(item, outcome.strict)
            if kind:
                message = plain(f"{item.verdict or 'nothing to decide'}: {_why(item)}")
                found = ElementTree.SubElement(case, kind, message=message)
                if kind != "skipped":
                    found.set("type", str(item.verdict))
                found.text = "\n".join(map(plain, (item.text, *item.details)))
        _count(suite)
    _count(root)
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data.decode() + "\n"


def annotations(outcome: Outcome) -> list[str]:
    """GitHub workflow commands, one line each: errors first, then warnings, at most `ANNOTATIONS` of a kind."""
    errors: list[str] = []
    warnings = [_command("warning", "magbench gate", text) for text in outcome.warnings]
    for item in outcome.checks:
        if not item.counts or item.verdict in ("PASS", "IMPROVED"):
            continue
        text = ": ".join(filter(None, (", ".join(filter(None, (item.method, item.endpoint))), _why(item))))
        soft = item.verdict == "INCONCLUSIVE" and not outcome.strict
        line = _command("warning" if soft else "error", f"magbench gate: {item.verdict}", text)
        (warnings if soft else errors).append(line)
    return [*_cut(errors, "error"), *_cut(warnings, "warning")]


def plain(text: str) -> str:
    """One line without control characters, lone surrogates and whatever else XML or a terminal refuses."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _grid(part: str, method: str, checks: list[Check]) -> Grid:
    notes = Notes()

    def verdict(item: Check) -> Item:
        return Item(f"{_sign(item)} {_word(item)}", notes=notes.number(_notes(item)))

    if part in (FINGERPRINT, RUNS):
        lines = tuple((Item(plain(item.method) or "all"), verdict(item)) for item in checks)
        return Grid(part, (("method",), ("verdict",)), (lines,), tuple(notes.texts), ())
    header = (("endpoint",), ("baseline",), ("run",), ("better by",), ("margin",), ("verdict",))
    rows = tuple((*_numbers(item), verdict(item)) for item in checks)
    legend = "better by: paired by case, + is better whatever the direction; [low, high] its 95 % interval"
    shown = any(item.better_by is not None for item in checks)
    return Grid(f"{part} · {plain(method)}", header, (rows,), tuple(notes.texts), (legend,) if shown else ())


def _numbers(item: Check) -> tuple[Item, ...]:
    metric, _, reduction = plain(item.endpoint).partition("/")
    unit = f"[{item.unit}]" if item.unit else ""
    return (
        Item(" ".join(filter(None, (reduction, unit, ARROWS[item.direction]))), metric),
        Item(_number(item.baseline)),
        Item(_number(item.run)),
        Item("–" if item.better_by is None else signed(item.better_by), interval(item.low, item.high)),
        Item(_number(item.margin)),
    )


def _notes(item: Check) -> Iterator[str]:
    """What stands below the table: the reason, unless the numbers of the row are the reason."""
    if item.acknowledged:
        yield plain(f"acknowledged: {item.acknowledged}")
    if item.margin is None or item.verdict == "INCOMPLETE":
        yield plain(item.text)
    yield from map(plain, item.details[:DETAILS])
    if len(item.details) > DETAILS:
        yield f"and {len(item.details) - DETAILS} more"


def _sign(item: Check) -> str:
    return "✓" if item.acknowledged else SIGNS[item.verdict]


def _word(item: Check) -> str:
    return "acknowledged" if item.acknowledged else item.verdict or "nothing to decide"


def _why(item: Check) -> str:
    shown = "; ".join((item.text, *item.details[:DETAILS]))
    return f"acknowledged: {item.acknowledged}; {shown}" if item.acknowledged else shown


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)


def _junit_kind(item: Check, strict: bool) -> str:
    if not item.counts:
        return "skipped"
    if item.verdict == "INCONCLUSIVE":
        return "failure" if strict else "skipped"
    kinds = {"REGRESSION": "failure", "INCOMPLETE": "error", "NOT_COMPARABLE": "error"}
    return kinds.get(str(item.verdict), "")


def _count(element: ElementTree.Element) -> None:
    found = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    for name, tag in found.items():
        element.set(name, str(sum(1 for _ in element.iter(tag))))
    element.set("time", "0")


def _command(kind: str, title: str, text: str) -> str:
    """A workflow command; line breaks and the signs that end a property or a value are percent-encoded."""
    return f"::{kind} title={_escaped(plain(title), ':,')}::{_escaped(plain(text))}"


def _escaped(text: str, also: str = "") -> str:
    for sign in "%\r\n" + also:
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text


def _cut(lines: list[str], kind: str) -> Iterator[str]:
    if len(lines) <= ANNOTATIONS:
        yield from lines
        return
    yield from lines[: ANNOTATIONS - 1]
    yield _command(kind, "magbench gate", f"and {len(lines) - ANNOTATIONS + 1} more, see the summary")
