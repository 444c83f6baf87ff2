"""Contact sheets: a video at a glance."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE_HEIGHT = 128
COLUMNS = 10
CAPTION = 20
GAP = 4
PAPER, INK, HISTORY = (255, 255, 255), (60, 60, 60), (213, 94, 0)


def make_contact_sheet(
    frames: Sequence[NDArray[np.uint8]], times: Sequence[float], history: Sequence[bool] = (), columns: int = COLUMNS
) -> Image.Image:
    """Tile frames with their times.

    Args:
        frames: uint8 [height, width, 3], RGB, all of one size. They are scaled to a height of 128 px: by repeating
            pixels when a whole number does it, else by area.
        times: Seconds from the start of the video, one per frame.
        history: True for each frame that was given, not generated: it is framed and says so. Empty means none.
        columns: Tiles per row.

    Returns:
        An RGB image. The same input gives the same pixels.

    Raises:
        ValueError: no frame, or `times` or `history` of another length.
    """
    if not frames or len(times) != len(frames) or (history and len(history) != len(frames)):
        raise ValueError(f"{len(frames)} frames, {len(times)} times, {len(history)} history flags")
    height, width = frames[0].shape[:2]
    tile_width = max(1, round(width * TILE_HEIGHT / height))
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    step_x, step_y = tile_width + GAP, TILE_HEIGHT + CAPTION + GAP
    sheet = Image.new("RGB", (columns * step_x - GAP, rows * step_y - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    resample = Image.Resampling.NEAREST if TILE_HEIGHT % height == 0 else Image.Resampling.BOX
    if height < TILE_HEIGHT and TILE_HEIGHT % height:
        resample = Image.Resampling.BICUBIC
    given = list(history) or [False] * len(frames)
    for index, (frame, time, is_given) in enumerate(zip(frames, times, given, strict=True)):
        x, y = index % columns * step_x, index // columns * step_y
        sheet.paste(Image.fromarray(frame).resize((tile_width, TILE_HEIGHT), resample), (x, y))
        text = f"{time:.1f} s"
        if is_given:
            draw.rectangle((x, y, x + tile_width - 1, y + TILE_HEIGHT - 1), outline=HISTORY, width=3)
            text = f"{text} given" if tile_width >= 80 else f"{text} *"
        draw.text((x + 2, y + TILE_HEIGHT + 2), text, fill=HISTORY if is_given else INK, font=font)
    return sheet
