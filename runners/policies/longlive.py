"""LongLive v1: frame sink and short window, encoded again with the new prompt when it changes."""

from dataclasses import dataclass

from torch import Tensor

from magbench.runners.policies.base import CachePolicy, Chunk, Geometry, Past, check_window
from magbench.runners.policies.fifo import FifoCache
from magbench.runners.wan.configs import CHUNK_FRAMES


@dataclass(frozen=True)
class LongLive(CachePolicy):
    """Sink and newest frames at their own indices; KV re-cache at a prompt switch.

    Without a switch it is `fifo` with a sink. At a switch the newest `window` frames run through the model once more,
    at timestep 0, with the new prompt and all seeing each other. With `global_sink` the sink keeps the keys of the old
    prompt, and as many of the oldest re-encoded frames are not used; without, they become the new sink. While the
    video is no longer than the window the whole cache is replaced either way.
    """

    window: int = 12
    """Frames a pass may see, the chunk's own included."""
    sink: int = 3
    """First frames of the video that never leave."""
    global_sink: bool = True
    """Keep the sink as it is when the prompt changes."""

    def __post_init__(self) -> None:
        check_window("longlive", self.window, self.sink)

    def layer(self, geometry: Geometry) -> "LongLiveCache":
        """An empty cache for one layer."""
        return LongLiveCache(self, geometry)

    @property
    def budget(self) -> int:
        """Past frames a pass may see."""
        return self.window - CHUNK_FRAMES

    @property
    def recache_frames(self) -> int:
        """The window."""
        return self.window


class LongLiveCache(FifoCache):
    """Sink and newest frames, replaceable."""

    def __init__(self, policy: LongLive, geometry: Geometry) -> None:
        super().__init__(policy.window, policy.sink, geometry)
        self.global_sink = policy.global_sink

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """As `fifo`; to a re-cache pass, the sink that stays."""
        if chunk.kind != "recache":
            return super().past(chunk, q, k)
        kept = self._kept(chunk)
        gone = self.remove(kept, len(self.sources) - kept)
        dropped = tuple(frame for frame in gone if frame not in chunk.span[kept:])
        return self.past_at(self.sources, chunk, hide_own=kept, dropped=dropped, events=("recache",))

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Append the chunk; of a re-cache pass, what does not stand in the sink's place."""
        kept = self._kept(chunk) if chunk.kind == "recache" else 0
        skipped = kept * self.geometry.tokens_per_frame
        self.append(chunk.span[kept:], k[:, skipped:], v[:, skipped:])

    def _kept(self, chunk: Chunk) -> int:
        return self.sink if self.global_sink and chunk.first > 0 else 0
