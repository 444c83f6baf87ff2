"""The only place that prints. Results go to stdout; progress, warnings and errors to stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def _console(*, stderr: bool = False) -> Console:
    """A console on the stream as it is now. Off a terminal nothing is wrapped, cut or coloured."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 10_000, highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """Print a line of result to stdout, as it is."""
    _console().print(Text(text))


def note(text: str) -> None:
    """Print a line about what is going on to stderr."""
    _console(stderr=True).print(Text(text))


def warn(text: str) -> None:
    """Print a warning to stderr."""
    _console(stderr=True).print(Text.assemble(("warning: ", "yellow"), text))


def error(message: str, hint: str | None, *, traceback: bool = False) -> None:
    """Print an error, its hint, and on request the traceback of the exception being handled, to stderr."""
    console = _console(stderr=True)
    if traceback:
        console.print_exception()
    console.print(Text.assemble(("error: ", "bold red"), message))
    if hint:
        console.print(Text.assemble(("hint: ", "cyan"), hint))


def dump(value: Any) -> None:
    """Print strict JSON to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def rows(headers: Sequence[str], body: Iterable[Sequence[str]]) -> None:
    """Print a plain table to stdout: a rich one on a terminal, tab-separated lines otherwise."""
    if not sys.stdout.isatty():
        for row in body:
            sys.stdout.write("\t".join(row) + "\n")
        return
    table = Table(*headers, box=None, header_style="bold", pad_edge=False)
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)
