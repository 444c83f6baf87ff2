"""Sliding window: the first `sink` frames and the newest ones, at their own indices."""

from dataclasses import dataclass

from torch import Tensor

from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, Past, check_window
from magbench.runners.wan.configs import CHUNK_FRAMES


@dataclass(frozen=True)
class Fifo(CachePolicy):
    """Self-Forcing's rolling cache.

    Frames leave before a chunk's first pass, so no pass sees more than `window` frames, the chunk's own included. A new
    prompt changes what is generated from then on; the cache stays as it is.
    """

    window: int = 12
    """Frames a pass may see, the chunk's own included."""
    sink: int = 0
    """First frames of the video that never leave."""

    def __post_init__(self) -> None:
        check_window("fifo", self.window, self.sink)

    def layer(self, geometry: Geometry) -> "FifoCache":
        """An empty cache for one layer."""
        return FifoCache(self.window, self.sink, geometry)

    @property
    def budget(self) -> int:
        """Past frames a pass may see."""
        return self.window - CHUNK_FRAMES


class FifoCache(FrameCache):
    """Sink and newest frames."""

    def __init__(self, window: int, sink: int, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.window, self.sink = window, sink

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Drop what does not fit beside the chunk, right after the sink; show the rest at its own indices."""
        dropped = self.evict(chunk)
        return self.past_at(self.sources, chunk, dropped=dropped, events=("evict",) if dropped else ())

    def evict(self, chunk: Chunk) -> tuple[int, ...]:
        """Make room for the chunk, right after the sink; returns the source frames of what left."""
        return self.remove(self.sink, max(0, len(self.sources) + chunk.frames - self.window))
