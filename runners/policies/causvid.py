"""CausVid: short rollouts, each beginning with the end of the one before; nothing is carried in the cache."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, Past
from magbench.runners.wan.configs import CHUNK_FRAMES


@dataclass(frozen=True)
class CausVid(CachePolicy):
    """All frames of the current rollout, at their index in it.

    A rollout begins with a chunk of `CHUNK_FRAMES` frames of the last one: the first of them decoded and encoded again,
    so that it is a proper first frame, the others as they are. They take the place of that rollout's end in the video.
    The release also drops the end of the very last rollout; here the video has the length that was asked for.
    """

    rollout = "magbench.runners.overlap:OverlappingRollouts"
    matched = False

    rollout_frames: int = 21
    """Latent frames of a rollout, the chunk it shares with the last one included."""

    def __post_init__(self) -> None:
        if self.rollout_frames % CHUNK_FRAMES or self.rollout_frames < 2 * CHUNK_FRAMES:
            raise ConfigError(
                f"rollout_frames of causvid is {self.rollout_frames}.",
                f"use a multiple of {CHUNK_FRAMES}, {2 * CHUNK_FRAMES} or more",
            )

    def layer(self, geometry: Geometry) -> "RolloutCache":
        """An empty cache for one layer of one of the short rollouts."""
        return RolloutCache(geometry)

    @property
    def budget(self) -> int:
        """Past frames the last chunk of a rollout sees."""
        return self.rollout_frames - CHUNK_FRAMES

    @classmethod
    def spend(cls, budget: int) -> dict[str, Any]:
        """Its rollouts are as long as it was trained for, whatever the budget."""
        return {}


class RolloutCache(FrameCache):
    """All frames since the first chunk it saw."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Show every frame, and the chunk, at its index in the rollout."""
        start = self.sources[0] if self.sources else chunk.first
        own = tuple(frame - start for frame in chunk.span)
        return self.past_at([frame - start for frame in self.sources], chunk, own)
