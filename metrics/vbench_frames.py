"""Which frames VBench and VBench-Long look at. Indices, not times: a wrong frame rate in a file changes the answer."""

from itertools import pairwise


def middle(frames: int, count: int) -> tuple[int, ...]:
    """The middle of each of `count` equal parts of a video; a shorter video repeats its last frame.

    Args:
        frames: Of the video, at least 1.
        count: Frames to pick, at least 1.
    """
    parts = min(frames, count)
    borders = [part * frames // parts for part in range(parts + 1)]
    picked = [(low + high - 1) // 2 for low, high in pairwise(borders)]
    return (*picked, *[frames - 1] * (count - parts))


def kept_every(fps: float) -> int:
    """`dynamic_degree` keeps every k-th frame, nominally 8 per second: 8, 12, 24, 25 fps give 8, 6, 8, 8.33."""
    return max(1, round(fps / 8))


def clip_starts(frames: int, length: int) -> tuple[int, ...]:
    """First frame of each clip of VBench-Long; a rest is made whole with frames of the clip before it.

    Args:
        frames: Of the video, at least 1.
        length: Frames per clip, at least 1. A video that is no longer is one clip.
    """
    whole = tuple(range(0, max(frames - length, 0) + 1, length))
    return whole if frames <= length or frames % length == 0 else (*whole, frames - length)
