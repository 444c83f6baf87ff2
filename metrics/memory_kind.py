"""What kind of memory a truth frame tests: is the place it shows still in the cache, folded into a memory, or gone?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from magbench.data.mini_world import PANORAMA, World
from magbench.metrics.base import NotApplicable
from magbench.metrics.mini_case import world_of
from magbench.records import SampleRecord, TraceRecord

Kind = Literal["held", "folded", "evicted", "unseen"]

REACH = 8.0
"""Pixels of camera travel within which two frames of the mini world show the same place: one latent cell."""


@dataclass(frozen=True)
class Place:
    """What one frame after the history shows.

    Args:
        latent: The latent frame that the frame belongs to.
        shown_by: Latent frames of the history that showed the same place, ascending; empty for one not seen before.
    """

    latent: int
    shown_by: tuple[int, ...]


def places(sample: SampleRecord, frames: int) -> list[Place] | NotApplicable:
    """The place of each frame after the history, from the case's mirror or its camera path.

    Args:
        sample: Its case says what the history showed.
        frames: Frames of the truth in all.
    """
    case, history = sample.case, sample.history_frames
    if case.mirror is not None:
        latents = case.history_frames
        if latents < 2 or (history - 1) % (latents - 1):
            return NotApplicable(f"{latents} latent frames of history don't split {history} pixel frames evenly")
        stride = (history - 1) // (latents - 1)
        return mirrored_places(case.mirror, stride, latents, range(history, frames))
    world = world_of(case)
    if isinstance(world, NotApplicable):
        return NotApplicable(f"which history frames showed the same place is not known: {world.reason}")
    return [Place(t, found) for t, found in enumerate(sources(world, history, frames), start=history)]


def mirrored_places(mirror: int, stride: int, history: int, frames: range) -> list[Place]:
    """Of a palindromic clip: what frame t shows, frame `mirror - t` showed; so did the latent frames beside either.

    Args:
        mirror: Sum of the indices of two equal frames, in pixel frames.
        stride: Pixel frames per latent frame after the first, which is one pixel frame.
        history: Latent frames given.
        frames: The pixel frames asked for.
    """

    def around(t: int) -> Iterator[int]:
        if t >= 0:
            latent = -(-t // stride)
            yield from range(max(latent - 1, 0), min(latent + 2, history))

    return [Place(-(-t // stride), tuple(sorted({*around(mirror - t), *around(t)}))) for t in frames]


def sources(world: World, history: int, frames: int) -> list[tuple[int, ...]]:
    """For each frame of the mini world after the history, the history frames that showed the same place.

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


def kinds(seen: Sequence[Place], trace: Sequence[TraceRecord]) -> list[Kind | None]:
    """How each frame's place was remembered when the frame was generated.

    `held`: a frame that showed it had its own keys in the cache. `folded`: none had, but one had been folded into a
    memory. `evicted`: neither. `unseen`: the history never showed it. Without a trace nothing counts as cached, which
    is what the reference rows are.

    Args:
        seen: See `places`.
        trace: The rollout's chunks.

    Returns:
        One kind per frame; None for a frame that no chunk of a non-empty trace generated.
    """
    chunk_of = {t: c for c in trace if c.kind == "generate" for t in range(c.first_frame, c.first_frame + c.frames)}
    folded_by: dict[int, set[int]] = {}
    folded: set[int] = set()
    for chunk in trace:
        folded |= set(chunk.folded)
        folded_by[chunk.chunk] = set(folded)

    def kind(place: Place) -> Kind | None:
        if not place.shown_by:
            return "unseen"
        if not trace:
            return "evicted"
        if place.latent not in chunk_of:
            return None
        chunk = chunk_of[place.latent]
        if set(place.shown_by) & set(chunk.held):
            return "held"
        return "folded" if set(place.shown_by) & folded_by[chunk.chunk] else "evicted"

    return [kind(place) for place in seen]
