"""Rolling Forcing: chunks of rising noise are denoised together, before them an anchor and the newest clean frames."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, Past
from magbench.runners.wan.configs import CHUNK_FRAMES


@dataclass(frozen=True)
class RollingForcing(CachePolicy):
    """The first chunk as an anchor right before whatever it is shown with, and the newest clean frames.

    The window of noisy chunks sees the anchor, then as many clean frames as make `window` frames in all. When its first
    chunk is clean it is encoded with the newest `window` frames of the cache at their own indices; once the cache of
    `window` + 3 frames is full, the anchor is not among them. Sizes are hard-coded in the release.

    A history is encoded chunk by chunk like clean chunks (the release's own path for it fails). A new prompt holds from
    the pass in which its first chunk enters the window, for the chunks that are in there already too.
    """

    rollout = "magbench.runners.rolling_window:RollingWindow"

    sink: ClassVar[int] = CHUNK_FRAMES
    """First frames of the video that never leave: the anchor."""

    window: int = 21
    """Frames a pass may see, the noisy ones included."""

    def __post_init__(self) -> None:
        if self.window < 2 * CHUNK_FRAMES:
            raise ConfigError(
                f"window {self.window} of rolling-forcing is smaller than anchor and chunk ({CHUNK_FRAMES} each).",
                f"use window={2 * CHUNK_FRAMES} or more",
            )

    def layer(self, geometry: Geometry) -> "RollingForcingCache":
        """An empty cache for one layer."""
        return RollingForcingCache(self, geometry)

    @property
    def budget(self) -> int:
        """Past frames that the clean pass of a chunk may see."""
        return self.window - CHUNK_FRAMES

    @classmethod
    def spend(cls, budget: int) -> dict[str, Any]:
        """All of it is window: the noisy chunks of a pass have to fit in, too, behind the anchor.

        Raises:
            ConfigError: it is smaller than the anchor.
        """
        if budget < CHUNK_FRAMES:
            raise ConfigError(
                f"rolling-forcing can't use a budget of {budget} frames.", f"its anchor alone is {CHUNK_FRAMES}"
            )
        return {"window": budget + CHUNK_FRAMES}


class RollingForcingCache(FrameCache):
    """Clean frames: the anchor and the newest."""

    def __init__(self, policy: RollingForcing, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.window = policy.window

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Show anchor and clean frames to a window, or the newest frames to a clean chunk."""
        known = sum(frame < chunk.first for frame in self.sources)
        self.remove(known, len(self.sources) - known)
        dropped = self.remove(CHUNK_FRAMES, max(0, known - self.window))
        held, room = len(self.sources), self.window - chunk.frames
        if chunk.kind == "window" and held:
            start = max(CHUNK_FRAMES, held - room + CHUNK_FRAMES)
            return self._show(CHUNK_FRAMES, start, chunk, k, dropped)
        return self._show(0, max(0, held - room), chunk, k, dropped)

    def _show(self, anchor: int, start: int, chunk: Chunk, k: Tensor, dropped: tuple[int, ...]) -> Past:
        """The first `anchor` frames, right before the others, and those from slot `start` on."""
        first = chunk.first - (len(self.sources) - start) - anchor
        parts = [self.slots(0, anchor), self.slots(start, len(self.sources) - start)]
        return Past(
            torch.cat([keys for keys, _ in parts], dim=1),
            torch.cat([*(values for _, values in parts), torch.empty_like(k)], dim=1),
            frames=self.per_token((*range(first, first + anchor), *self.sources[start:])),
            sources=self.per_token(self.sources[:anchor] + self.sources[start:]),
            own_frames=chunk.span,
            dropped=dropped,
            events=("evict",) if dropped else (),
        )
