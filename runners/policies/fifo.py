"""Sliding window: the first `sink` frames and the newest ones, at their own indices."""

from dataclasses import dataclass

from torch import Tensor

from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, Past, check_window
from magbench.runners.wan.configs import CHUNK_FRAMES


@dataclass(frozen=True)
class Fifo(CachePolicy):
    """Self-Forcing's rolling cache; with `sink=3` it is LongLive's frame sink + short window.

    Frames leave before a chunk's first pass, so no pass sees more than `window` frames, the chunk's own included. Sink
    frames hold clean keys whatever `sink` is; the LongLive release keeps noisy ones for sinks larger than a chunk.
    """

    window: int = 12
    """Frames a pass may see, the chunk's own included."""
    sink: int = 0
    """First frames of the video that never leave."""

    def __post_init__(self) -> None:
        check_window("fifo", self.window, self.sink)

    def layer(self, geometry: Geometry) -> "FifoCache":
        """An empty cache for one layer."""
        return FifoCache(self, geometry)

    @property
    def budget(self) -> int:
        """Past frames a pass may see."""
        return self.window - CHUNK_FRAMES


class FifoCache(FrameCache):
    """Sink and newest frames."""

    def __init__(self, policy: Fifo, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.policy = policy

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Drop what does not fit beside the chunk, right after the sink; show the rest at its own indices."""
        excess = max(0, len(self.sources) + chunk.frames - self.policy.window)
        dropped = self.remove(self.policy.sink, excess)[2]
        frames = self.per_token(self.sources)
        return Past(
            self.keys,
            self.values,
            frames=frames,
            sources=frames,
            own_frames=chunk.span,
            dropped=dropped,
            events=("evict",) if dropped else (),
        )
