"""Clips for MAG-Bench: the official CSV or a folder of videos, looked through before anything runs.

The CSV has the columns of the release, `video_path`, `raw_caption` and `duration(sec)`; a column `category` becomes the
stratum, a column `sha256` is checked, others are ignored. Everything in it is untrusted: paths stay inside the folder.
"""

import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magbench.data.footage import Footage
from magbench.data.mag_frames import FrameRule
from magbench.data.video import SUFFIXES, Frame, open_video, sha256_file
from magbench.errors import ConfigError, VideoError
from magbench.registry import did_you_mean

VIDEO, CAPTION, DURATION = "video_path", "raw_caption", "duration(sec)"
"""The release's columns."""
CATEGORY, SHA256 = "category", "sha256"
"""Further columns that are read where they exist."""
HUB = (
    "MAG-Bench itself (CC BY-NC-SA 4.0) is on the Hugging Face hub: `huggingface-cli download xilluill/MAG --local-dir "
    "MAG`, then give the path of the CSV file in it; clips of your own: magbench data build-mag"
)


@dataclass(frozen=True)
class Row:
    """One clip as it is listed."""

    name: str
    """The path as the list has it."""
    path: Path
    caption: str = ""
    duration: float | None = None
    """In seconds; None takes the file's."""
    category: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Fault:
    """Why a clip can't be used."""

    clip: str
    reason: str

    def __str__(self) -> str:
        """One line, whatever the name holds."""
        return f"{self.clip!r}: {self.reason}"


@dataclass(frozen=True)
class Listing:
    """What a CSV file or folder lists."""

    rows: tuple[Row, ...]
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """A clip that can be run."""

    row: Row
    sha256: str
    """Of the file."""
    used: int
    """Pixel frames that count, from the first on."""
    given: int
    """Pixel frames of history."""
    mirror: int | None
    """See `Footage.mirror`."""


def list_clips(source: Path, root: Path | None = None) -> Listing:
    """Read the list.

    Args:
        source: A CSV file; a folder with one CSV file, or with videos and no CSV file; or a single video.
        root: Folder that the CSV's paths are relative to; None takes the CSV's own.

    Raises:
        ConfigError: there is no such file or folder, it lists nothing, or the CSV file can't be read as one.
    """
    if not source.exists():
        raise ConfigError(f"there are no clips at '{source}'", HUB)
    if source.is_dir():
        tables = _files(source, (".csv",), deep=False)
        if len(tables) > 1:
            names = ", ".join(repr(table.name) for table in tables)
            raise ConfigError(f"'{source}' has {len(tables)} CSV files: {names}", "give the path of one of them")
        if not tables:
            videos = _files(source, SUFFIXES)
            if not videos:
                raise ConfigError(f"'{source}' has neither a CSV file nor videos", HUB)
            return Listing(tuple(Row(video.relative_to(source).as_posix(), video) for video in videos))
        source = tables[0]
    if source.suffix.lower() != ".csv":
        return Listing((Row(source.name, source),))
    return _table(source, source.parent if root is None else root)


def _files(folder: Path, suffixes: Sequence[str], deep: bool = True) -> list[Path]:
    """Files with these endings, hidden ones and those in hidden folders aside, in the order of their names."""
    found = (path for path in (folder.rglob("*") if deep else folder.iterdir()) if path.suffix.lower() in suffixes)
    parts = ((path, path.relative_to(folder).parts) for path in found if path.is_file())
    return sorted(path for path, names in parts if not any(name.startswith(".") for name in names))


def _table(source: Path, root: Path) -> Listing:
    rows: dict[str, Row] = {}
    faults: list[Fault] = []
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            columns = lines.fieldnames or []
            for column in (VIDEO, CAPTION, DURATION):
                if column not in columns:
                    raise ConfigError(f"'{source}' has no column {column!r}", did_you_mean(column, columns))
            for cells in lines:
                found = _row(cells, f"line {lines.line_num}", root)
                if isinstance(found, Fault):
                    faults.append(found)
                elif rows.setdefault(os.path.normpath(found.path), found) is not found:
                    faults.append(Fault(found.name, "is listed more than once"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read '{source}' as CSV: {error}", "save it as CSV in UTF-8") from error
    if not rows and not faults:
        raise ConfigError(f"'{source}' lists no clip", HUB)
    others = [path.relative_to(root) for path in _files(root, SUFFIXES) if os.path.normpath(path) not in rows]
    some = ", ".join(repr(path.as_posix()) for path in others[:3]) + ", ..." * (len(others) > 3)
    notes = (f"in no row of '{source.name}': {some} ({len(others)} of the videos in '{root}')",) if others else ()
    return Listing(tuple(rows.values()), tuple(faults), notes)


def _row(cells: Mapping[str | None, Any], line: str, root: Path) -> Row | Fault:
    name = (cells[VIDEO] or "").strip()
    if None in cells or None in cells.values():
        return Fault(name or line, f"{line} has more or fewer cells than the header")
    if not name:
        return Fault(line, f"has no {VIDEO}")
    inside = Path(os.path.normpath(name))
    if inside.is_absolute() or inside.parts[0] == os.pardir:
        return Fault(name, f"lies outside the folder '{root}'; paths are relative to it")
    text = cells[DURATION].strip()
    try:
        duration = float(text) if text else None
    except ValueError:
        duration = math.nan
    if duration is not None and not 0 < duration < math.inf:
        return Fault(name, f"{DURATION} is {text!r}, not a number of seconds")
    category, sha256 = (cells.get(key, "").strip() for key in (CATEGORY, SHA256))
    return Row(name, root / inside, cells[CAPTION].strip(), duration, category, sha256.lower())


def survey(
    rows: Sequence[Row], rule: FrameRule, size: tuple[int, int], readable: Callable[[str], None]
) -> tuple[list[Clip], list[Fault], list[str]]:
    """Decode every clip once and see whether it can be run.

    Args:
        rows: What is listed.
        rule: Of the model.
        size: Width and height of the model's videos.
        readable: Raises ConfigError for a caption that the model can't read.

    Returns:
        The clips that can be run, in the order of the rows; all faults of the others; and what to know besides.
    """
    clips: list[Clip] = []
    faults: list[Fault] = []
    notes: list[str] = []
    for row in rows:
        try:
            found, wrong = _survey(row, rule, size)
        except VideoError as error:
            found, wrong = None, [error.message.removeprefix(f"{row.path}: ")]
        try:
            readable(row.caption)
        except ConfigError as error:
            wrong.append(f"{error.message}; without captions: --caption none")
        faults += [Fault(row.name, reason) for reason in wrong]
        if found and not wrong:
            clips.append(found)
            if found.mirror is None:
                notes.append(f"{row.name!r} does not return the way it came: what a memory should know is not known")
    return clips, faults, notes


def _survey(row: Row, rule: FrameRule, size: tuple[int, int]) -> tuple[Clip | None, list[str]]:
    with open_video(row.path) as video:
        wrong = []
        if (video.width, video.height) != size:
            wrong.append(f"is {video.width}x{video.height}, the model's videos are {size[0]}x{size[1]}")
        timed = abs(video.fps - rule.fps) <= 1e-3 * rule.fps
        if not timed:
            wrong.append(f"has {video.fps:g} frames per second, the model's videos {rule.fps:g}")
        footage = Footage.of(video)
        seconds = len(footage) / video.fps
    if not footage.evenly_spaced(video.fps):
        wrong.append("its frames are not evenly spaced in time (variable frame rate)")
    duration = seconds if row.duration is None else row.duration
    if abs(duration - seconds) > rule.stride * rule.chunk / rule.fps:
        wrong.append(f"lasts {seconds:.2f} s, {DURATION} says {duration:g}; an empty cell takes the file's")
    elif timed and not rule.fits(len(footage), duration):
        longer = rule.long_enough
        wrong.append(
            f"{len(footage)} frames ({duration:g} s) are too short: {rule.switch(duration)} are given and whole chunks "
            f"use {max(0, rule.used(len(footage)))}; {longer} frames ({longer / rule.fps:.2f} s) or more always do"
        )
    sha256 = sha256_file(row.path)
    if row.sha256 not in ("", sha256):
        wrong.append(f"is not the file that was listed: its sha256 is {sha256[:12]}..., not {row.sha256[:12]}...")
    return Clip(row, sha256, rule.used(len(footage)), rule.switch(duration), footage.mirror), wrong


def settle(faults: Sequence[Fault], count: int, leave_out: bool, hint: str = "mend them") -> None:
    """Refuse a list with faults, unless its faulty clips are to be left out and others remain.

    Args:
        faults: All that were found.
        count: Clips without one.
        leave_out: The user's choice.
        hint: What to do about them.

    Raises:
        ConfigError: names every fault, one line each.
    """
    if not faults or (leave_out and count):
        return
    names = {fault.clip for fault in faults}
    lines = "".join(f"\n  {fault}" for fault in faults)
    raise ConfigError(
        f"{len(names)} of {len(names) + count} clips can't be used:{lines}",
        hint + (", or leave them out with --faulty-clips leave-out" if count else ""),
    )


def clip_frames(path: Path, sha256: str, frames: int) -> Iterator[Frame]:
    """The first `frames` frames of a clip, uint8 [H, W, 3] each.

    Raises:
        ConfigError: the file is not the one that was looked through.
        VideoError: it can't be read.
    """
    if not path.is_file() or sha256_file(path) != sha256:
        raise ConfigError(
            f"the clip '{path}' is gone or has changed since the run was prepared", "put it back, or repeat the command"
        )
    with open_video(path) as video:
        for index, (_, frame) in enumerate(video):
            if index == frames:
                break
            yield frame
