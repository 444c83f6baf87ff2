"""A manifest: anybody's videos with what is known of them, as JSON lines or CSV.

    {"id": "pianist", "path": "memrope/0-0.mp4", "prompt": "A pianist ...", "method": "memrope", "seed": 0}
    {"id": "pianist", "path": "fifo/0-0.mp4", "prompt": "A pianist ...", "method": "fifo", "seed": 0}

Rows of one id are the same case, so that methods on the same ids can be compared pair by pair. Paths are relative to
the manifest. In CSV, lists are written as in JSON, or borders as numbers with spaces between. Borders that come at
equal distances can be given as "first+step": "9+12" is 9, 21, 33 and so on to the end of the video.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from magbench.errors import ConfigError
from magbench.records import Record, Schedule
from magbench.registry import did_you_mean

MAX_BYTES = 64 * 2**20
MAX_ROWS = 100_000
MAX_PROMPT = 20_000
"""Characters."""
SHOWN = 100
"""Faults listed one by one."""
REFERENCES = ("real", "static", "shuffled")
"""Labels of reference rows, which no method may take."""


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("not a number")
    return value


def _borders(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] == "[":
        return _parsed(value)
    return value if "+" in value else [int(part) for part in value.split()]


def _parsed(value: Any) -> Any:
    return _loads(value) if isinstance(value, str) else value


def _ascending(borders: tuple[int, ...]) -> tuple[int, ...]:
    if any(one >= other for one, other in pairwise(borders)):
        raise ValueError("not ascending")
    return borders


def _a_method(label: str) -> str:
    if label in REFERENCES:
        raise ValueError("taken")
    return label


Whole = Annotated[int, BeforeValidator(_number), Field(ge=0, lt=2**63)]
Border = Annotated[int, BeforeValidator(_number), Field(gt=0, lt=2**40)]
Every = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}\+[1-9][0-9]{0,8}$")]
"""Borders at equal distances, `first+step`."""
Borders = Annotated[Every | Annotated[tuple[Border, ...], AfterValidator(_ascending)], BeforeValidator(_borders)]


class ManifestRow(Record):
    """One video."""

    id: Annotated[str, Field(min_length=1, max_length=1000)]
    """Of the case: what was asked for."""
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    prompt: Annotated[str, Field(max_length=MAX_PROMPT)] = ""
    schedule: Annotated[Schedule, BeforeValidator(_parsed)] = ()
    """Prompts that follow."""
    method: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_a_method)] = "videos"
    """What made the video: a row of the table."""
    seed: Whole = 0
    chunk_borders: Borders = ()
    """Pixel frames with which a chunk starts."""
    latent_borders: Borders = ()
    """Pixel frames with which a latent frame starts; those that start a chunk count as chunk borders."""
    truth: Annotated[str, Field(max_length=4096)] = ""
    """Path of the ground truth on the same clock."""
    history_frames: Whole = 0
    """Pixel frames at the start that were given, not generated."""


EXPECTED = {
    "id": "a text of 1 to 1000 characters",
    "path": "the path of a video file",
    "prompt": f"a text of at most {MAX_PROMPT} characters",
    "schedule": '[{"at": 8.0, "prompt": "..."}, ...], at in seconds, ascending',
    "method": f"a text of 1 to 1000 characters, none of {', '.join(REFERENCES)}",
    "seed": "a whole number, 0 or more",
    "chunk_borders": "ascending pixel-frame numbers above 0, as [9, 21, 33], 9 21 33 or 9+12",
    "latent_borders": "ascending pixel-frame numbers above 0, as [1, 5, 13], 1 5 13 or 1+4",
    "truth": "the path of a video file",
    "history_frames": "a whole number, 0 or more",
}


@dataclass(frozen=True)
class _Fault:
    row: int
    text: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.text}"


def read_manifest(file: Path) -> tuple[ManifestRow, ...]:
    """Read and check a manifest; nothing of a video but its being there.

    Returns:
        The rows, with absolute paths.

    Raises:
        ConfigError: with every fault on a line of its own: the row (of a CSV, its header is row 1), what is wrong, and
            what is expected.
    """
    text = read_text(file, "manifest")
    faults: list[_Fault] = []
    rows: dict[int, ManifestRow] = {}
    parse = _json_lines if text.lstrip()[:1] in ("{", "[") else _csv_rows
    for number, fields in parse(text, faults):
        if len(rows) == MAX_ROWS:
            faults.append(_Fault(number, f"more than {MAX_ROWS} rows, split the manifest"))
            break
        try:
            rows[number] = ManifestRow.model_validate(fields)
        except ValidationError as error:
            faults += (_Fault(number, text) for text in dict.fromkeys(_sentence(e, fields) for e in error.errors()))
    rows = {number: _located(number, row, file.parent, faults) for number, row in rows.items()}
    faults += _contradictions(rows)
    if faults:
        faults.sort(key=lambda fault: fault.row)
        rest = [f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        lines = "\n".join(f"  {line}" for line in (*map(str, faults[:SHOWN]), *rest))
        count = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}"
        raise ConfigError(f"manifest '{file}' has {count}:\n{lines}", "correct the rows and repeat the command")
    if not rows:
        raise ConfigError(f"manifest '{file}' holds no row", "write one row per video")
    return tuple(rows.values())


def read_text(file: Path, what: str) -> str:
    """The text of a file that a user wrote.

    Raises:
        ConfigError: it isn't there, isn't UTF-8, or is larger than 64 MiB.
    """
    try:
        if not file.is_file():
            raise ConfigError(f"there is no {what} '{file}'", "check the path")
        with file.open("rb") as stream:
            found = stream.read(MAX_BYTES + 1)
        if len(found) > MAX_BYTES:
            raise ConfigError(f"{what} '{file}' is larger than {MAX_BYTES // 2**20} MiB", "split it")
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} '{file}' is not UTF-8 text (byte {found[error.start]:#04x} at position {error.start})",
            "save it as UTF-8",
        ) from error
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise ConfigError(f"cannot read {what} '{file}': {reason}", "check the path") from error


def manifest_text(rows: Iterable[ManifestRow], folder: Path) -> str:
    """JSON lines that `read_manifest` reads back from a file in `folder`; paths below it are written relative to it."""

    def shown(path: str) -> str:
        return os.path.relpath(path, folder) if Path(path).is_relative_to(folder) else path

    lines = []
    for row in rows:
        fields = row.model_dump(mode="json", exclude_defaults=True)
        fields |= {name: shown(fields[name]) for name in ("path", "truth") if name in fields}
        lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
    return "".join(lines)


def _json_lines(text: str, faults: list[_Fault]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also split at U+2028 in a text
        if not line.strip():
            continue
        try:
            fields = _loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(_Fault(number, f"is not JSON ({error}), expected one object per line"))
            continue
        if isinstance(fields, dict):
            yield number, fields
        else:
            faults.append(_Fault(number, f"is {_shown(fields)}, expected one JSON object per line"))


def _loads(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not strict JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            raise ValueError("a field stands there twice")
        return fields

    return json.loads(text, parse_constant=refuse, object_pairs_hook=once)


def _csv_rows(text: str, faults: list[_Fault]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            faults.append(_Fault(number, f"is not CSV ({error}), and what follows cannot be read"))
            return
        if cells is None:
            return
        if not header:
            header = [cell.strip() for cell in cells]
            if wrong := [name for name in header if header.count(name) > 1]:
                faults.append(_Fault(number, f"the column {wrong[0]!r} stands there twice"))
                return
            if wrong := [name for name in header if name not in EXPECTED]:
                faults += (_Fault(number, _unknown(name)) for name in wrong)
                return
        elif cells and len(cells) != len(header):
            faults.append(_Fault(number, f"has {len(cells)} cells and the header {len(header)}, quote commas"))
        elif cells:
            yield number, {name: cell for name, cell in zip(header, cells, strict=True) if cell}


def borders(given: str | tuple[int, ...], frames: int) -> tuple[int, ...]:
    """The borders of a video of so many frames, where they are given as `first+step`."""
    if isinstance(given, tuple):
        return given
    first, step = map(int, given.split("+"))
    return tuple(range(first, frames, step))


def _sentence(error: Any, fields: dict[str, Any]) -> str:
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return _unknown(name)
    if error["type"] == "missing":
        return f"{name} is missing, expected {EXPECTED[name]}"
    if name == "schedule" and len(error["loc"]) > 1:
        return f"schedule {' '.join(map(str, error['loc'][1:]))} is {_shown(error['input'])}, expected {EXPECTED[name]}"
    return f"{name} is {_shown(fields[name])}, expected {EXPECTED[name]}"


def _unknown(name: str) -> str:
    return f"unknown field {_shown(name)}, {did_you_mean(name, EXPECTED)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _located(number: int, row: ManifestRow, folder: Path, faults: list[_Fault]) -> ManifestRow:
    """The row with absolute paths."""
    found = {}
    for name in ("path", "truth"):
        if not getattr(row, name):
            continue
        path = (folder / getattr(row, name)).absolute()
        found[name] = str(path)
        try:
            what = "" if path.is_file() else "is a folder" if path.is_dir() else "does not exist"
        except OSError as error:
            what = f"cannot be read ({os.strerror(error.errno or 0)})"
        if what:
            faults.append(_Fault(number, f"{name} {_shown(getattr(row, name))} {what}, paths start at the manifest"))
    return row.model_copy(update=found)


def _contradictions(rows: dict[int, ManifestRow]) -> Iterator[_Fault]:
    """Rows that stand in the same cell of a table, or say different things of the same case."""
    cells: dict[tuple[str, str, int], int] = {}
    cases: dict[str, int] = {}
    pairs: dict[tuple[str, int], int] = {}
    for number, row in rows.items():
        first = cells.setdefault((row.id, row.method, row.seed), number)
        if first != number:
            which = f"id {_shown(row.id)}, method {_shown(row.method)}, seed {row.seed}"
            yield _Fault(number, f"{which} is row {first} already, give it another id, method or seed")
        wholes: Sequence[tuple[int, str, tuple[str, ...]]] = (
            (cases.setdefault(row.id, number), f"id {_shown(row.id)}", ("prompt", "schedule")),
            (
                pairs.setdefault((row.id, row.seed), number),
                f"id {_shown(row.id)}, seed {row.seed}",
                ("truth", "history_frames"),
            ),
        )
        for before, which, names in wholes:
            for name in names:
                if getattr(rows[before], name) != getattr(row, name):
                    yield _Fault(number, f"{which} has another {name} than in row {before}, make them the same")
