"""Leave-and-return clips from anybody's videos, as MAG-Bench is made: a clip, and behind it the clip reversed.

The frame at the turn is there twice, as when one file is put behind the other, so a leg of N frames gives 2N frames, of
which t and 2N - 1 - t are the same picture. They are, to the pixel: videos are written lossless.
"""

import csv
import io
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

from magbench.data.footage import Footage
from magbench.data.mag_clips import CAPTION, CATEGORY, DURATION, SHA256, VIDEO, Fault, Row, list_clips, settle
from magbench.data.mag_frames import FrameRule
from magbench.data.video import Frame, VideoReader, open_video, sha256_file, write_video
from magbench.errors import ConfigError, StoreError, VideoError
from magbench.names import digest, slug
from magbench.records import Record

TABLE, MANIFEST = "mag-bench.csv", "manifest.json"
MAX_BYTES = 2**31
"""Most memory for the frames of a leg, which have to be held to be reversed."""
RECIPE = 1
"""Version of how a palindrome is made; part of the files' names."""


@dataclass(frozen=True)
class Recipe:
    """How the clips come out."""

    fps: float | None = None
    """None keeps each source's."""
    size: tuple[int, int] | None = None
    """Width and height: scaled to cover, cut at the centre. None keeps each source's."""
    seconds: float | None = None
    """Length there and back, from the source's start; None takes all of it."""


class PalindromeRecord(Record):
    """One clip in the manifest."""

    video: str
    sha256: str
    frames: int
    fps: float
    width: int
    height: int
    mirror: int
    """Frames t and mirror - t are the same picture."""
    source: str
    source_sha256: str
    warnings: tuple[str, ...] = ()


class ManifestRecord(Record):
    """manifest.json of a folder of palindromes."""

    schema_version: int = 1
    recipe: int = RECIPE
    fps: float | None
    size: tuple[int, int] | None
    seconds: float | None
    clips: tuple[PalindromeRecord, ...]


@dataclass(frozen=True)
class Planned:
    """A clip to make."""

    row: Row
    recipe: Recipe
    fps: float
    size: tuple[int, int]
    leg: int
    """Frames of one way."""
    source_sha256: str
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """File name, with a hash of all that decides the pixels: what has this name is this clip."""
        identity = {
            "recipe": RECIPE,
            "source": self.source_sha256,
            "fps": self.fps,
            "size": self.size,
            "leg": self.leg,
        }
        return f"{slug(Path(self.row.name).stem)}-{digest(identity)[:8]}.mkv"

    def write(self, path: Path) -> None:
        """Write it, there and back.

        Raises:
            VideoError: the source can't be read.
        """
        with open_video(self.row.path) as video:
            there = [fitted(frame, self.size) for _, frame in _way_there(video, self.recipe)]
        write_video(path, chain(there, reversed(there)), self.fps)


def plan(
    sources: Sequence[Path], recipe: Recipe, rule: FrameRule | None = None, leave_out: bool = False
) -> tuple[list[Planned], list[str]]:
    """Look through the sources, decoding each once, and write nothing.

    Args:
        sources: Each a CSV file like MAG-Bench's, a folder, or a video; captions and categories are kept.
        recipe: What to make.
        rule: Of the model that the clips are for; None takes the release's, at each clip's own rate.
        leave_out: Go on without clips that can't be used.

    Returns:
        The clips to make, and what to know of them.

    Raises:
        ConfigError: there is nothing to make, or clips can't be used and aren't to be left out: all are named.
    """
    listings = [list_clips(source) for source in sources]
    found: dict[str, Planned] = {}
    faults = [fault for listing in listings for fault in listing.faults]
    for row in (row for listing in listings for row in listing.rows):
        try:
            planned, wrong = _look(row, recipe, rule)
        except VideoError as error:
            faults.append(Fault(row.name, error.message.removeprefix(f"{row.path}: ")))
            continue
        faults += [Fault(row.name, reason) for reason in wrong]
        if not wrong and found.setdefault(planned.name, planned) is not planned:
            faults.append(Fault(row.name, f"is the same video as {found[planned.name].row.name!r}"))
    settle(faults, len(found), leave_out)
    notes = [f"{planned.row.name!r} {warning}" for planned in found.values() for warning in planned.warnings]
    return list(found.values()), notes + [f"left out: {fault}" for fault in faults]


def _look(row: Row, recipe: Recipe, rule: FrameRule | None) -> tuple[Planned, list[str]]:
    with open_video(row.path) as video:
        fps, size = recipe.fps or video.fps, recipe.size or (video.width, video.height)
        footage = Footage.of(_way_there(video, recipe))
    leg, wrong = len(footage), []
    if video.fps < fps * (1 - 1e-3):
        wrong.append(f"has {video.fps:g} frames per second, fewer than the {fps:g} asked for")
    if recipe.fps is None and not footage.evenly_spaced(fps):
        wrong.append("its frames are not evenly spaced in time: give a rate with --fps")
    if recipe.seconds is not None and leg < _leg(recipe.seconds, fps):
        wrong.append(f"gives {leg / fps:.2f} s one way, {recipe.seconds:g} s there and back need half of that")
    rule = rule or FrameRule(fps)
    if not rule.fits(2 * leg, 2 * leg / fps):
        wrong.append(f"gives {leg / fps:.2f} s one way: too short, {rule.long_enough / rule.fps / 2:.2f} s always do")
    if 3 * size[0] * size[1] * leg > MAX_BYTES:
        wrong.append(f"{leg} frames of {size[0]}x{size[1]} are too many to be reversed: shorten it with --seconds")
    warnings = []
    if footage.cuts:
        times = ", ".join(f"{cut / fps:.1f} s" for cut in footage.cuts[:5])
        warnings.append(f"seems to be cut at {times}: only one camera motion can be returned from")
    if footage.still:
        warnings.append("hardly changes: there is nothing to leave and to return to")
    if video.width < size[0] or video.height < size[1]:
        warnings.append(f"is enlarged from {video.width}x{video.height} to cover {size[0]}x{size[1]}")
    return Planned(row, recipe, fps, size, leg, sha256_file(row.path), tuple(warnings)), wrong


def _leg(seconds: float, fps: float) -> int:
    return max(1, round(seconds * fps) // 2)


def _way_there(video: VideoReader, recipe: Recipe) -> Iterator[tuple[float, Frame]]:
    frames = iter(video) if recipe.fps is None else resampled(video, recipe.fps)
    limit = None if recipe.seconds is None else _leg(recipe.seconds, recipe.fps or video.fps)
    return islice(frames, limit)


def resampled(video: Iterable[tuple[float, Frame]], fps: float) -> Iterator[tuple[float, Frame]]:
    """For each multiple of 1/fps up to the last frame's time, the frame nearest to it; the later one of two."""
    index = 0
    before: tuple[float, Frame] | None = None
    for time, frame in video:
        while before is not None and index / fps < (before[0] + time) / 2 - 1e-6:
            yield index / fps, before[1]
            index += 1
        before = time, frame
    while before is not None and index / fps <= before[0] + 1e-6:
        yield index / fps, before[1]
        index += 1


def fitted(frame: Frame, size: tuple[int, int]) -> Frame:
    """The frame scaled to cover width x height, antialiased (Lanczos), and cut at the centre."""
    height, width = frame.shape[:2]
    if (width, height) == size:
        return frame
    scale = min(width / size[0], height / size[1])
    left, top = (width - scale * size[0]) / 2, (height - scale * size[1]) / 2
    box = (left, top, width - left, height - top)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS, box=box))


def build(clips: Sequence[Planned], recipe: Recipe, out: Path, observe: Callable[[str], None]) -> Path:
    """Write the clips that are not there yet, then the manifest, then the CSV file, each whole or not at all.

    Args:
        clips: From `plan`.
        recipe: As there.
        out: Folder, made if needed; repeat the call to go on where one stopped.
        observe: Gets a line per clip.

    Returns:
        The CSV file, for `magbench run --clips`.

    Raises:
        ConfigError: the folder holds a CSV file that is not of this making, or sources.
        StoreError: something can't be written.
        VideoError: a source can't be read any more.
    """
    check_folder(clips, out)
    records = []
    for number, clip in enumerate(clips, 1):
        path = out / clip.name
        if not path.is_file():
            _publish(path, clip.write)
        observe(f"{number}/{len(clips)} {clip.name}")
        records.append(
            PalindromeRecord(
                video=clip.name,
                sha256=sha256_file(path),
                frames=2 * clip.leg,
                fps=clip.fps,
                width=clip.size[0],
                height=clip.size[1],
                mirror=2 * clip.leg - 1,
                source=clip.row.name,
                source_sha256=clip.source_sha256,
                warnings=clip.warnings,
            )
        )
    manifest = ManifestRecord(fps=recipe.fps, size=recipe.size, seconds=recipe.seconds, clips=tuple(records))
    _publish(out / MANIFEST, lambda temporary: temporary.write_text(manifest.model_dump_json(indent=1) + "\n"))
    _publish(out / TABLE, lambda temporary: temporary.write_text(_table(clips, records), encoding="utf-8"))
    return out / TABLE


def check_folder(clips: Sequence[Planned], out: Path) -> None:
    """Refuse a folder in which something would be overwritten, or would be in the way.

    Raises:
        ConfigError: it is a source's folder, or holds a CSV file that is not of this making.
    """
    if out.resolve() in {clip.row.path.resolve().parent for clip in clips}:
        raise ConfigError(f"'{out}' holds the source clips themselves", "choose another folder with --out")
    if (out / TABLE).exists() and not (out / MANIFEST).exists():
        raise ConfigError(f"'{out}' already holds a {TABLE} from elsewhere", "choose another folder with --out")


def _table(clips: Sequence[Planned], records: Sequence[PalindromeRecord]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow((VIDEO, CAPTION, DURATION, CATEGORY, SHA256))
    for clip, record in zip(clips, records, strict=True):
        seconds = record.frames / record.fps
        lines.writerow((record.video, clip.row.caption, seconds, clip.row.category, record.sha256))
    return text.getvalue()


def _publish(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.parent / f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(f"cannot write '{path}': {reason}", "repeat the command to go on where it stopped") from error
