"""The only place that prints. Results go to stdout; progress, warnings and errors to stderr."""

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from magbench.errors import StoreError

if TYPE_CHECKING:
    from magbench.runners.execute import Event


def _console(*, stderr: bool = False) -> Console:
    """A console on the stream as it is now. Off a terminal nothing is wrapped, cut or coloured."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 10_000, highlight=False, soft_wrap=True)


def _harmless(text: str) -> str:
    """`text` without control characters but line breaks and tabs: a file's name must not steer the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def say(text: str = "") -> None:
    """Print a line of result to stdout, as it is but for control characters."""
    _console().print(Text(_harmless(text)))


def fold(text: str, hang: int) -> None:
    """Print a line of result; a terminal gets it broken between words, the further lines `hang` columns in."""
    lines = textwrap.wrap(text, width(), subsequent_indent=" " * hang, break_on_hyphens=False)
    say("\n".join(lines) if sys.stdout.isatty() else text)


def note(text: str) -> None:
    """Print a line about what is going on to stderr."""
    _console(stderr=True).print(Text(_harmless(text)))


def warn(text: str) -> None:
    """Print a warning to stderr."""
    _console(stderr=True).print(Text.assemble(("warning: ", "yellow"), _harmless(text)))


def error(message: str, hint: str | None, *, traceback: bool = False) -> None:
    """Print an error, its hint, and on request the traceback of the exception being handled, to stderr."""
    console = _console(stderr=True)
    if traceback:
        console.print_exception()
    console.print(Text.assemble(("error: ", "bold red"), _harmless(message)))
    if hint:
        console.print(Text.assemble(("hint: ", "cyan"), _harmless(hint)))


def dump(value: Any) -> None:
    """Print strict JSON to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def write(file: Path, text: str) -> None:
    """Write a text file that the user has named.

    Raises:
        StoreError: it can't be written.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write '{file}': {os.strerror(error.errno or 0)}", "choose another file") from error


def rows(headers: Sequence[str], body: Iterable[Sequence[str]]) -> None:
    """Print a plain table to stdout: a rich one on a terminal, tab-separated lines otherwise."""
    body = [[_harmless(re.sub(r"[\t\r\n]", " ", cell)) for cell in row] for row in body]
    if not sys.stdout.isatty():
        for row in body:
            sys.stdout.write("\t".join(row) + "\n")
        return
    table = Table(*headers, box=None, header_style="bold", pad_edge=False)
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def show(renderable: Any) -> None:
    """Print a rich table to stdout."""
    _console().print(renderable, soft_wrap=False)


def width() -> int:
    """Columns that a table may take."""
    return Console(file=sys.stdout).width if sys.stdout.isatty() else 120


class Progress:
    """Two bars on a terminal, one line per finished batch elsewhere. Goes to stderr.

    Args:
        videos: Videos to make.
        scores: Videos to score.
    """

    def __init__(self, videos: int, scores: int) -> None:
        self._totals = {"video": videos, "score": scores}
        self._done = {"video": 0.0, "score": 0.0}
        self._start = time.monotonic()
        self._bars: rich.progress.Progress | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._bars = rich.progress.Progress(
                rich.progress.TextColumn("{task.description:>7}"),
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.completed:.0f}/{task.total}"),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TimeRemainingColumn(),
                console=Console(file=sys.stderr),
            )
            self._tasks = {
                "video": self._bars.add_task("videos", total=self._totals["video"]),
                "score": self._bars.add_task("scores", total=self._totals["score"]),
            }
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def observe(self, event: "Event") -> None:
        """Take progress from the workers."""
        if event.kind == "task":
            if not self._bars:
                done, total = round(self._done["score"]), self._totals["score"]
                seconds = time.monotonic() - self._start
                note(f"{event.track} {event.label}: {event.amount:g} done ({done}/{total}, {seconds:.0f} s)")
            return
        self._done[event.kind] += event.amount
        if self._bars:
            # Chunks are fractions of a video: without rounding the last bar would never be full.
            self._bars.update(self._tasks[event.kind], completed=round(self._done[event.kind], 6))


class Bytes:
    """How far a download is: a bar on a terminal, a line per tenth elsewhere. Goes to stderr.

    Args:
        name: Of what is downloaded.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tenths = 0
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.DownloadColumn(),
            rich.progress.TransferSpeedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=None, visible=False)

    def __enter__(self) -> "Bytes":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def observe(self, done: int, total: int) -> None:
        """Take bytes here and bytes in all."""
        self._bar.update(self._task, completed=done, total=total, visible=True)
        tenths = 10 * done // total
        if self._bar.disable and tenths > self._tenths:
            note(f"{self._name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")
        self._tenths = tenths


def facts(values: dict[str, Any], indent: str = "") -> None:
    """Print nested names and values to stdout, one per line."""
    for name, value in values.items():
        if isinstance(value, dict):
            say(f"{indent}{name}:")
            facts(value, indent + "  ")
        elif "\n" in str(value):
            say(f"{indent}{name}:")
            for line in str(value).splitlines():
                fold(f"{indent}  {line.strip()}" if line.strip() else "", len(indent) + 2)
        elif value:
            fold(f"{indent}{name}: {value}", len(indent) + 2)
