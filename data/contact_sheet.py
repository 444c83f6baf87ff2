"""One picture that shows a whole video: evenly spaced frames, each with its time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from magbench.data.video import Frame, probe, seek_frames

FRAMES = 12
COLUMNS = 6
WIDTH = 192
"""Pixels of one picture's width."""
CAPTION = 16
"""Pixels of the line under it."""
GAP = 4


def make_contact_sheet(video: Path, out: Path, frames: int = FRAMES, given: int = 0) -> None:
    """Write a JPEG of evenly spaced frames, first and last included, in reading order.

    Args:
        video: The video file.
        out: The picture; its parent folder must exist.
        frames: How many pictures at most.
        given: Frames at the start that were given, not generated; their captions say so.

    Raises:
        VideoError: the video cannot be read.
    """
    found = probe(video)
    indices = [int(i) for i in np.unique(np.linspace(0, found.frames - 1, frames).round())]
    captions = [f"{i / found.fps:.1f} s" + (" given" if i < given else "") for i in indices]
    sheet(seek_frames(video, indices), captions).save(out, "JPEG", quality=88)


def sheet(frames: Sequence[Frame], captions: Sequence[str]) -> Image.Image:
    """Lay frames out in rows of `COLUMNS`.

    Args:
        frames: uint8 [height, width, 3], RGB, all of one size, at least one.
        captions: One per frame.
    """
    height, width = frames[0].shape[:2]
    size = WIDTH, max(1, round(WIDTH * height / width))
    columns = min(COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    cell = size[0] + GAP, size[1] + CAPTION + GAP
    picture = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    resample = Image.Resampling.NEAREST if width < WIDTH else Image.Resampling.LANCZOS
    for index, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        x, y = GAP + index % columns * cell[0], GAP + index // columns * cell[1]
        picture.paste(Image.fromarray(frame).resize(size, resample), (x, y))
        draw.text((x, y + size[1] + 1), caption, fill="black", font=font)
    return picture
