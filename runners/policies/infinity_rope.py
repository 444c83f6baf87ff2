"""Infinity-RoPE: a short window at slot positions that is flushed at a scene border and cut in time."""

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from magbench.runners.policies.base import CachePolicy, Chunk, Geometry, Past, check_window
from magbench.runners.policies.longlive_infinity import SlotCache
from magbench.runners.wan.configs import CHUNK_FRAMES

CUT_FRAMES = (45, 46, 47)
"""Time indices of the first chunk after a cut."""
FLUSH_KEEPS = {"release": 2, "paper": 1}
"""Newest frames that a flush keeps."""


@dataclass(frozen=True)
class InfinityRope(CachePolicy):
    """Block-relative positions, KV flush, RoPE cut.

    A new prompt flushes the cache: the first frame and the newest two stay (`variant=paper`: the newest one). In the
    first chunk after a scene cut, all passes show the chunk at time indices 45, 46, 47, far from the past.

    The release fills a flushed cache with zeros when it was not full yet, puts queries off their keys after a flush for
    windows above 6, and does not rotate slot 0 when there is no sink; here the frames that are there stay, at slot
    positions. At window=6, sink=1 a flush of a full cache changes nothing that the next chunk would not evict anyway.
    """

    window: int = 6
    """Frames a pass may see, the chunk's own included."""
    sink: int = 1
    """First frames of the video that leave only in a flush; the very first one stays."""
    variant: Literal["release", "paper"] = "release"
    """Whether a flush keeps the newest two frames or one."""

    def __post_init__(self) -> None:
        check_window("infinity-rope", self.window, self.sink)

    def layer(self, geometry: Geometry) -> "InfinityRopeCache":
        """An empty cache for one layer."""
        return InfinityRopeCache(self, geometry)

    @property
    def budget(self) -> int:
        """Past frames a pass may see."""
        return self.window - CHUNK_FRAMES


class InfinityRopeCache(SlotCache):
    """Slots that can be flushed."""

    def __init__(self, policy: InfinityRope, geometry: Geometry) -> None:
        super().__init__(policy.window, policy.sink, geometry)
        self.flush_keeps = FLUSH_KEEPS[policy.variant]

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Flush at a new prompt, then as `SlotCache`; after a cut the chunk stands far from the past."""
        flushed = self.remove(1, len(self.sources) - 1 - self.flush_keeps) if chunk.prompt_changed else ()
        past = super().past(chunk, q, k)
        events = ("flush",) * chunk.prompt_changed + ("cut",) * chunk.scene_cut + past.events
        own = CUT_FRAMES if chunk.scene_cut else past.own_frames
        return replace(past, own_frames=own, dropped=flushed + past.dropped, events=events)
