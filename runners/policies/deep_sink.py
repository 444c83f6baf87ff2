"""Deep Forcing's deep sink: half or more of the window is sink, moved along in time."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from magbench.runners.policies.base import CachePolicy, Chunk, Geometry, Past, check_window
from magbench.runners.policies.fifo import FifoCache
from magbench.runners.wan.configs import CHUNK_FRAMES


@dataclass(frozen=True)
class DeepSink(CachePolicy):
    """A large sink behind a FIFO; with each eviction after the first, the sink's time indices move with the chunk.

    As released, the sink ends three frames before the newest frames begin, because the tail is measured from the start
    of the chunk. Its keys are rotated once by the whole angle, not again and again in place.
    """

    window: int = 21
    """Frames a pass may see, the chunk's own included."""
    sink: int = 14
    """First frames of the video that never leave."""

    def __post_init__(self) -> None:
        check_window("deep-sink", self.window, self.sink)

    def layer(self, geometry: Geometry) -> "DeepSinkCache":
        """An empty cache for one layer."""
        return DeepSinkCache(self.window, self.sink, geometry)

    @property
    def budget(self) -> int:
        """Past frames a pass may see."""
        return self.window - CHUNK_FRAMES

    @classmethod
    def spend(cls, budget: int) -> dict[str, Any]:
        """Two thirds of the window are sink, as in 14 of 21, but a chunk of newest frames stays."""
        window = budget + CHUNK_FRAMES
        return {"window": window, "sink": max(0, min(budget - CHUNK_FRAMES, round(window * cls.sink / cls.window)))}


class DeepSinkCache(FifoCache):
    """Sink that moves and newest frames that don't."""

    first_eviction: int | None = None
    """First frame of the chunk that overflowed first."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Drop what does not fit, right after the sink, and move the sink as far as the chunk has moved since."""
        dropped = self.evict(chunk)
        if dropped and self.first_eviction is None:
            self.first_eviction = chunk.first
        shift = 0 if self.first_eviction is None else chunk.first - self.first_eviction
        shown = [frame + shift if slot < self.sink else frame for slot, frame in enumerate(self.sources)]
        return self.past_at(shown, chunk, dropped=dropped, events=("evict",) if dropped else ())
