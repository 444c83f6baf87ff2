"""`magbench compare A B`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from magbench.cli import console
from magbench.errors import ConfigError
from magbench.store import write_json

if TYPE_CHECKING:
    from magbench.comparison import Comparison


@click.command("compare")
@click.argument("old", metavar="A", type=click.Path(path_type=Path))
@click.argument("new", metavar="B", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Print every row, not only what changed.")
@click.option("--markdown", metavar="FILE", help="Write everything as GitHub Markdown; - for stdout.")
@click.option("--json", "as_json", metavar="FILE", help="Write everything as JSON; - for stdout.")
def command(old: Path, new: Path, everything: bool, markdown: str | None, as_json: str | None) -> int:
    """Compare two runs: A is the old one, B the new one; a difference is B minus A.

    First come the differences between the runs themselves. Then, per track and method, the rows that changed and the
    primary endpoints: `+` better, `-` worse, `≠` different without a better side, `~` no difference found, `!` a value
    in A only, `*` in B only, `x` not comparable, `=` the same in every case; in parentheses what is exploratory.
    Videos need not be there. Exit code 0 when compared, 2 when nothing is comparable.
    """
    from magbench.api import load
    from magbench.comparability import comparability
    from magbench.comparison import compared
    from magbench.reports import comparison as writing

    if "" in (str(markdown), str(as_json)):
        raise ConfigError("the name of an output file is empty", "give a file, or - for stdout")
    if markdown == as_json == "-":
        raise ConfigError("only one of --markdown and --json can go to stdout", "give one of them a file")
    a, b = load(old), load(new)
    found = compared(a, b, comparability(a, b))
    if as_json:
        _put_json(as_json, writing.as_json(found))
    if markdown:
        _put_text(markdown, writing.as_markdown(found, (str(old), str(new))))
    found.comparability.require()
    if "-" not in (markdown, as_json):
        _show(found, (old, new), everything)
    return 0


def _show(found: "Comparison", roots: tuple[Path, Path], everything: bool) -> None:
    from magbench.reports import comparison as writing
    from magbench.reports.tables import footnotes, terminal

    for name, root, run in zip("AB", roots, (found.a, found.b), strict=True):
        console.say(f"{name}: {root} ({writing.describe(run)})")
    for line in writing.notices(found):
        console.say(f"- {line}")
    grids = writing.grids(found, everything)
    for grid in grids:
        console.say()
        console.show(terminal(grid, console.width()))
        for line in footnotes(grid):
            console.say(line)
    if grids:
        console.say()
    for line in writing.legend(found, everything) if grids else ():
        console.say(line)
    console.say()
    for line in writing.summary(found):
        console.say(line)
    if not everything:
        console.say("rows without a change are left out; --all shows them")


def _put_json(file: str, value: dict[str, Any]) -> None:
    if file == "-":
        console.dump(value)
    else:
        write_json(Path(file), value)


def _put_text(file: str, text: str) -> None:
    if file == "-":
        console.say(text)
    else:
        console.write(Path(file), text)
