"""When a case's prompt switches."""

import math

from magbench.errors import ConfigError
from magbench.records import CaseRecord


def switch_frames(case: CaseRecord, fps: float, stride: int, chunk: int) -> tuple[int, ...]:
    """The latent frame from which each switch of the case acts, strictly ascending.

    A chunk has one prompt, so a switch waits for the first chunk that starts at or after its time, as in LongLive.
    Latent frame i counts as i * stride / fps seconds.

    Args:
        case: With its `frames`, `history_frames` and `schedule`.
        fps: Pixel frames per second.
        stride: Pixel frames per latent frame.
        chunk: Latent frames generated together.

    Returns:
        One multiple of `chunk` per switch, above `case.history_frames` and below `case.frames`.

    Raises:
        ConfigError: a switch acts at or before the end of the given history, not before the end of the video, or in
            the same chunk as the one before it.
    """
    found: list[int] = []
    for switch in case.schedule:
        frame = math.ceil(switch.at * fps / stride / chunk - 1e-9) * chunk
        where = f"case {case.id!r}: the switch at {switch.at:g} s acts at latent frame {frame}"
        if frame <= case.history_frames:
            raise ConfigError(f"{where}, and {case.history_frames} are given", "switch after the given history")
        if frame >= case.frames:
            raise ConfigError(f"{where}, and the video ends at {case.frames}", "switch earlier or make it longer")
        if found and frame <= found[-1]:
            raise ConfigError(f"{where}, as the one before it does", f"a chunk of {chunk} frames has one prompt")
        found.append(frame)
    return tuple(found)
