"""What file names of released generators say: importers from folders to rows of a manifest.

* `vbench`: `{prompt}-{i}.mp4`, i the number of the sample (VBench, README, "standard" mode; `sampled_videos.txt`).
* `memrope`: `rank{r}-{prompt index}-{sample}_{lora|ema|regular}.mp4` with `save_with_index`, else
  `rank{r}-{first 100 characters of the prompt}-{sample}.mp4` (MemRoPE `inference.py`; LongLive, from which it stems,
  and its interactive script, which adds the `_lora`). The rank is that of the GPU and says nothing.
* `self-forcing`: `{prompt index}-{sample}_{regular|ema}.mp4` with `--save_with_index`, else
  `{first 100 characters of the prompt}-{sample}.mp4` (Self-Forcing `inference.py`; CausVid and Rolling Forcing alike).
* `mag`: `{clip}-{none|caption}-{sample}.mp4`: continued without or with the caption (MAG `inference_magbench.py`).

The number of the sample becomes the seed, the folder that was named becomes the method. With a file of prompts, one
per line as those programs read it, the id is the prompt's number from 0 on, so that releases that write an index and
those that write a prompt meet in the same cases. For `mag` the file is the benchmark's CSV (`video_path`,
`raw_caption`, `duration(sec)`), whose durations say how many frames were given.

All but `vbench` are Wan models: the first latent frame is one pixel frame, each further one four, and the released
configurations generate three latent frames at a time. Hence their borders.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from magbench.data.mag_frames import FrameRule
from magbench.data.manifest import MAX_PROMPT, REFERENCES, ManifestRow, read_text
from magbench.data.video import SUFFIXES
from magbench.errors import ConfigError

Layout = Literal["vbench", "memrope", "self-forcing", "mag"]

CHUNK_BORDERS, LATENT_BORDERS = "9+12", "1+4"
CUT = 100
"""Characters of a prompt that a file name holds at most."""

_SAMPLE = r"-(?P<sample>[0-9]{1,9})"
_PATTERNS: Mapping[Layout, tuple[str, ...]] = {
    "vbench": (rf"(?P<prompt>.+){_SAMPLE}",),
    "memrope": (
        rf"rank[0-9]+-(?P<index>[0-9]{{1,9}}){_SAMPLE}_(?P<variant>lora|ema|regular)",
        rf"rank[0-9]+-(?P<prompt>.+){_SAMPLE}(?:_(?P<variant>lora|ema|regular))?",
    ),
    "self-forcing": (
        rf"(?P<index>[0-9]{{1,9}}){_SAMPLE}_(?P<variant>regular|ema)",
        rf"(?P<prompt>.+){_SAMPLE}",
    ),
    "mag": (rf"(?P<clip>.+)-(?P<variant>none|caption){_SAMPLE}",),
}
_EXAMPLE: Mapping[Layout, str] = {
    "vbench": "PROMPT-0.mp4",
    "memrope": "rank0-12-0_lora.mp4 or rank0-PROMPT-0.mp4",
    "self-forcing": "12-0_ema.mp4 or PROMPT-0.mp4",
    "mag": "CLIP-caption-0.mp4",
}


@dataclass(frozen=True)
class Understood:
    """What was made of folders."""

    rows: tuple[ManifestRow, ...]
    """With absolute paths."""
    left_out: tuple[tuple[Path, str], ...]
    """Files that were not understood, and why."""
    notes: tuple[str, ...]
    """What could not be known, and how to make it known."""


@dataclass(frozen=True)
class _Clip:
    caption: str
    history_frames: int
    truth: str


def understand(layout: Layout, folders: Sequence[Path], prompts: Path | None = None) -> Understood:
    """Read what the names of the files below folders say.

    Args:
        layout: The convention.
        folders: One per method.
        prompts: File of prompts, or MAG-Bench's CSV.

    Raises:
        ConfigError: a folder or the file of prompts can't be read, or no file was understood.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"'{folder}' is no folder, and --layout reads folders", "give one folder per method")
    clips = _clips(prompts) if prompts and layout == "mag" else {}
    texts = [line.rstrip() for line in read_text(prompts, "prompts file").split("\n")] if prompts and not clips else []
    if any(len(text) > MAX_PROMPT for text in (*texts, *(clip.caption for clip in clips.values()))):
        raise ConfigError(f"'{prompts}' has a prompt of more than {MAX_PROMPT} characters", "shorten it")
    rows: dict[tuple[str, str, int], ManifestRow] = {}
    left_out: list[tuple[Path, str]] = []
    for folder, label in _methods(folders).items():
        found = []
        for file in _files(folder):
            name = _read(layout, file)
            if isinstance(name, str):
                left_out.append((file, name))
            else:
                found.append((file, name))
        several = len({name["variant"] for _, name in found if "variant" in name}) > 1 or layout == "mag"
        for file, name in found:
            method = f"{label} {name['variant']}" if several and name.get("variant") else label
            row = _row(layout, file, name, method, texts, clips)
            if isinstance(row, str):
                left_out.append((file, row))
                continue
            first = rows.setdefault((row.id, row.method, row.seed), row)
            if first is not row:
                left_out.append((file, f"stands for the same prompt and sample as {Path(first.path).name!r}"))
    if not rows:
        why = "; ".join(f"{file.name!r}: {reason}" for file, reason in left_out[:3]) or "there are none"
        raise ConfigError(
            f"no file below {', '.join(repr(str(f)) for f in folders)} is named as in layout {layout!r} ({why})",
            f"its names look like {_EXAMPLE[layout]}",
        )
    return Understood(tuple(rows.values()), tuple(left_out), tuple(_notes(layout, rows.values(), prompts)))


def _read(layout: Layout, file: Path) -> dict[str, str] | str:
    """The parts of a name, or why it is not understood."""
    if file.suffix.lower() not in SUFFIXES:
        return "not a video by its name"
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8, rename it"
    for pattern in _PATTERNS[layout]:
        if match := re.fullmatch(pattern, file.stem, re.DOTALL):
            return {name: text for name, text in match.groupdict().items() if text is not None}
    return f"not named as {_EXAMPLE[layout]}"


def _row(
    layout: Layout,
    file: Path,
    name: Mapping[str, str],
    method: str,
    texts: Sequence[str],
    clips: Mapping[str, _Clip],
) -> ManifestRow | str:
    """The row of a file, or why there is none."""
    prompt, history, truth = "", 0, ""
    if "clip" in name:
        case = name["clip"]
        if clips:
            clip = clips.get(case)
            if clip is None:
                return f"{case!r} is no clip of the CSV"
            prompt, history, truth = clip.caption, clip.history_frames, clip.truth
    elif "index" in name or texts:
        found = int(name["index"]) if "index" in name else _position(name["prompt"], texts)
        if isinstance(found, str):
            return found
        if texts and (found >= len(texts) or not texts[found]):
            return f"the prompts file has no prompt {found}, counted from 0"
        case, prompt = f"{found:04d}", texts[found] if texts else ""
    else:
        case = prompt = name["prompt"]
    return ManifestRow(
        id=case,
        path=str(file.absolute()),
        prompt=prompt,
        method=method,
        seed=int(name["sample"]),
        chunk_borders=() if layout == "vbench" else CHUNK_BORDERS,
        latent_borders=() if layout == "vbench" else LATENT_BORDERS,
        truth=truth,
        history_frames=history,
    )


def _position(prompt: str, texts: Sequence[str]) -> int | str:
    """Which prompt it is, or why that is not known."""
    found = [index for index, text in enumerate(texts) if text == prompt]
    if not found and len(prompt) >= CUT:
        found = [index for index, text in enumerate(texts) if text.startswith(prompt)]
    if len(found) == 1:
        return found[0]
    return "its prompt is not in the prompts file" if not found else f"its prompt fits {len(found)} of the prompts file"


def _clips(file: Path) -> dict[str, _Clip]:
    """MAG-Bench's CSV: stem of a clip to what is said of it."""
    reader = csv.DictReader(io.StringIO(read_text(file, "CSV"), newline=""), strict=True)
    wanted = ("video_path", "raw_caption", "duration(sec)")
    found = {}
    try:
        if missing := [name for name in wanted if name not in (reader.fieldnames or ())]:
            raise ConfigError(f"CSV '{file}' has no column {missing[0]!r}", f"it needs {', '.join(wanted)}")
        for number, row in enumerate(reader, start=2):
            path, caption, duration = (row[name] or "" for name in wanted)
            try:
                seconds = float(duration)
                if not 0 < seconds < 1e6:
                    raise ValueError(duration)
            except ValueError:
                raise ConfigError(f"CSV '{file}', row {number}: duration {duration!r}", "give seconds") from None
            truth = (file.parent / path).absolute()
            found[truth.stem] = _Clip(caption, FrameRule().switch(seconds), str(truth) if truth.is_file() else "")
    except csv.Error as error:
        raise ConfigError(f"'{file}' is not CSV: {error}", "give MAG-Bench's CSV") from error
    return found


def _methods(folders: Sequence[Path]) -> dict[Path, str]:
    """Each folder's name, or more of its path where names collide."""
    parts = {folder: folder.resolve().parts for folder in dict.fromkeys(folders)}
    labels: dict[Path, str] = {}
    for depth in range(1, max(map(len, parts.values())) + 1):
        labels = {folder: "/".join(found[-depth:]) for folder, found in parts.items()}
        if max(Counter(labels.values()).values()) == 1 and not set(labels.values()) & set(REFERENCES):
            break
    return {folder: os.fsencode(label).decode("utf-8", "replace") for folder, label in labels.items()}


def _files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts):
            yield file


def _notes(layout: Layout, rows: Collection[ManifestRow], prompts: Path | None) -> Iterator[str]:
    if unknown := sum(not row.prompt for row in rows):
        what = "MAG-Bench's CSV" if layout == "mag" else "the file they were read from, one per line"
        if prompts is None:
            yield f"{unknown} files without a prompt: their names hold none; give --prompts FILE, {what}"
        else:
            yield f"{unknown} files without a prompt: '{prompts}' has none for them"
    if cut := sum(len(row.prompt) == CUT and prompts is None for row in rows):
        yield f"{cut} prompts of {CUT} characters are probably cut; give --prompts FILE to complete them"
    if layout != "vbench":
        yield (
            f"borders are taken to be those of three latent frames at a time (chunks {CHUNK_BORDERS}, latent frames "
            f"{LATENT_BORDERS}); if yours differ, correct them in what --save-manifest writes"
        )
    if layout == "mag" and (bare := sum(not row.truth for row in rows)):
        yield f"{bare} files without ground truth: put the clips where the CSV names them, or add `truth` to a manifest"
