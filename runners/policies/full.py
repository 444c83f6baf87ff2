"""Keep everything: the upper bound in memory, and the reference for what forgetting costs."""

from dataclasses import dataclass

from torch import Tensor

from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, Past


@dataclass(frozen=True)
class Full(CachePolicy):
    """Every past frame at its own index, as Self-Forcing without a window."""

    def layer(self, geometry: Geometry) -> "FullCache":
        """An empty cache for one layer."""
        return FullCache(geometry)

    @property
    def budget(self) -> None:
        """Unbounded."""
        return


class FullCache(FrameCache):
    """All frames so far."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Show every frame at its own index."""
        frames = self.per_token(self.sources)
        return Past(self.keys, self.values, frames=frames, sources=frames, own_frames=chunk.span)
