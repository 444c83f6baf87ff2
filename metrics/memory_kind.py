"""What kind of memory a truth frame tests: is the place it shows still in the cache, folded into a memory, or gone?"""

from collections.abc import Sequence
from typing import Literal

from magbench.data.mini_world import PANORAMA, World
from magbench.records import TraceRecord

Kind = Literal["held", "folded", "evicted", "unseen"]

REACH = 8.0
"""Pixels of camera travel within which two frames show the same place: one latent cell."""


def sources(world: World, history: int, frames: int) -> list[tuple[int, ...]]:
    """For each frame after the history, the history frames that showed the same place.

    Args:
        world: Gives the camera.
        history: Frames given.
        frames: Frames in all.

    Returns:
        `frames - history` tuples of frame indices below `history`, ascending; empty for a place not seen before.
    """
    cameras = [world.camera(t) for t in range(frames)]

    def same(first: float, second: float) -> bool:
        apart = abs(first - second) % PANORAMA
        return min(apart, PANORAMA - apart) <= REACH

    return [tuple(s for s in range(history) if same(cameras[s], cameras[t])) for t in range(history, frames)]


def kinds(seen: Sequence[tuple[int, ...]], history: int, trace: Sequence[TraceRecord]) -> list[Kind | None]:
    """How each frame's place was remembered when the frame was generated.

    `held`: a frame that showed it had its own keys in the cache. `folded`: none had, but one had been folded into a
    memory. `evicted`: neither. `unseen`: the history never showed it. Without a trace nothing counts as cached, which
    is what the reference rows are.

    Args:
        seen: See `sources`.
        history: Frames given.
        trace: The rollout's chunks; frame numbers as in `seen`, so one latent frame must be one frame.

    Returns:
        One kind per frame; None for a frame that no chunk of a non-empty trace generated.
    """
    chunk_of = {t: c for c in trace if c.kind == "generate" for t in range(c.first_frame, c.first_frame + c.frames)}
    folded_by: dict[int, set[int]] = {}
    folded: set[int] = set()
    for chunk in trace:
        folded |= set(chunk.folded)
        folded_by[chunk.chunk] = set(folded)

    def kind(t: int, places: tuple[int, ...]) -> Kind | None:
        if not places:
            return "unseen"
        if not trace:
            return "evicted"
        if t not in chunk_of:
            return None
        chunk = chunk_of[t]
        if set(places) & set(chunk.held):
            return "held"
        return "folded" if set(places) & folded_by[chunk.chunk] else "evicted"

    return [kind(t, places) for t, places in enumerate(seen, start=history)]
