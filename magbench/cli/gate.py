"""`magbench gate RUN`."""

import json
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import click

from magbench.cli import console
from magbench.errors import ConfigError
from magbench.store import RunStore

if TYPE_CHECKING:
    from magbench.gate import Outcome

STYLES = {"PASS": "green", "IMPROVED": "green", "INCONCLUSIVE": "yellow", "INCOMPLETE": "yellow"}
FOLDER = click.Path(path_type=Path)


@click.command("gate")
@click.argument("run", metavar="RUN", type=FOLDER)
@click.option("--baseline", metavar="DIR", type=FOLDER, help="Run or saved baseline to hold RUN against.")
@click.option("--policy", metavar="FILE", type=FOLDER, help="gate.yaml. Default: the one for the suites of mini.")
@click.option("--strict", is_flag=True, help="Fail when there are too few cases to decide.")
@click.option("--summary", metavar="FILE", type=FOLDER, help="Write a Markdown summary.")
@click.option("--junit", metavar="FILE", type=FOLDER, help="Write JUnit XML.")
@click.option("--json", "as_json", metavar="FILE", type=FOLDER, help="Write everything as JSON.")
@click.option("--annotations", is_flag=True, help="Print GitHub annotations.")
@click.option("--save-baseline", metavar="DIR", type=FOLDER, help="Judge nothing: write a slim copy of RUN to commit.")
def command(
    run: Path,
    baseline: Path | None,
    policy: Path | None,
    strict: bool,
    summary: Path | None,
    junit: Path | None,
    as_json: Path | None,
    annotations: bool,
    save_baseline: Path | None,
) -> int:
    """Does RUN pass against a baseline: same arithmetic, and no primary endpoint worse than its margin.

    Exit codes: 0 PASS or IMPROVED, 3 REGRESSION, 4 INCOMPLETE, 2 NOT_COMPARABLE, and INCONCLUSIVE 0, or 3 with
    --strict.
    """
    from datetime import UTC, datetime

    from magbench.gate import judge
    from magbench.gate_policy import load_policy
    from magbench.reports import verdict as writing

    if save_baseline is not None:
        if any((baseline, policy, strict, summary, junit, as_json, annotations)):
            raise click.UsageError("--save-baseline goes with no other option")
        return _save(run, save_baseline)
    if baseline is None:
        raise ConfigError("option --baseline is needed", "make one: magbench gate RUN --save-baseline DIR")
    rules = load_policy(policy)
    store, old = RunStore.open(run), RunStore.open(baseline)
    outcome = judge(store, old, rules, datetime.now(UTC).date(), strict, str(policy) if policy else "of magbench")
    if summary:
        console.write(summary, writing.summary(outcome))
    if junit:
        console.write(junit, writing.junit(outcome))
    if as_json:
        console.write(as_json, json.dumps(outcome.model_dump(), indent=1, allow_nan=False) + "\n")
    _show(outcome, guarded=annotations)
    for line in writing.annotations(outcome) if annotations else ():
        console.say(line)
    return outcome.exit_code


def _save(run: Path, folder: Path) -> int:
    from magbench.baseline import save_baseline

    copy = save_baseline(RunStore.open(run), folder)
    files = [file for file in copy.root.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 2**20
    console.say(f"baseline: {folder}, {len(files)} files, {size:.1f} MiB")
    return 0


def _show(outcome: "Outcome", guarded: bool) -> None:
    """Print the tables; `guarded`: a runner that reads commands from stdout is told to read none in between."""
    from rich.text import Text

    from magbench.reports import verdict as writing
    from magbench.reports.tables import footnotes, terminal

    token = token_hex(16)
    if guarded:
        console.say(f"::stop-commands::{token}")
    for grid in writing.grids(outcome):
        console.show(terminal(grid, console.width()))
        for line in footnotes(grid):
            console.say(line)
        console.say()
    for line in writing.remarks(outcome):
        console.say(line)
    style = STYLES.get(outcome.verdict, "red")
    console.show(Text.assemble("gate: ", (writing.headline(outcome), f"bold {style}")))
    if guarded:
        console.say(f"::{token}::")
