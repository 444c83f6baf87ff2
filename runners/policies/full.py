"""Keep everything: the upper bound in memory, and the reference for what forgetting costs."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, Past


@dataclass(frozen=True)
class Full(CachePolicy):
    """Every past frame at its own index, as Self-Forcing without a window."""

    matched = False

    def layer(self, geometry: Geometry) -> "FullCache":
        """An empty cache for one layer."""
        return FullCache(geometry)

    @property
    def budget(self) -> None:
        """Unbounded."""
        return

    @classmethod
    def spend(cls, budget: int) -> dict[str, Any]:
        """No parameter bounds it."""
        return {}


class FullCache(FrameCache):
    """All frames so far."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Show every frame at its own index."""
        return self.past_at(self.sources, chunk)
