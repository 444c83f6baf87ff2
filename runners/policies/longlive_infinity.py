"""Sink and newest frames at slot positions: LongLive's "infinity" mode."""

from dataclasses import dataclass

from torch import Tensor

from magbench.runners.policies.base import CachePolicy, Chunk, Geometry, Past, check_window
from magbench.runners.policies.fifo import FifoCache
from magbench.runners.wan.configs import CHUNK_FRAMES


@dataclass(frozen=True)
class LongLiveInfinity(CachePolicy):
    """The frames of `longlive`, shown at time indices 0, 1, ..., window-1 whatever the length of the video.

    A new prompt changes what is generated from then on; the release has no re-cache in this mode.
    """

    window: int = 12
    """Frames a pass may see, the chunk's own included."""
    sink: int = 3
    """First frames of the video that never leave."""

    def __post_init__(self) -> None:
        check_window("longlive-infinity", self.window, self.sink)

    def layer(self, geometry: Geometry) -> "SlotCache":
        """An empty cache for one layer."""
        return SlotCache(self.window, self.sink, geometry)

    @property
    def budget(self) -> int:
        """Past frames a pass may see."""
        return self.window - CHUNK_FRAMES


class SlotCache(FifoCache):
    """Sink and newest frames, each shown at its place in the cache."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Drop what does not fit; show the rest, and then the chunk, at slot positions."""
        dropped = self.evict(chunk)
        held = len(self.sources)
        own = tuple(range(held, held + chunk.frames))
        return self.past_at(range(held), chunk, own, dropped=dropped, events=("evict",) if dropped else ())
