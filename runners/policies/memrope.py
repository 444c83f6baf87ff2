"""MemRoPE: a sink, moving averages of what was evicted, and the newest frames, shown at slot positions."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.policies.base import MEMORY, CachePolicy, Chunk, FrameCache, Geometry, Past, check_window
from magbench.runners.wan.configs import CHUNK_FRAMES

SLOTS: dict[str, tuple[str, ...]] = {"both": ("long", "short"), "long": ("long",), "short": ("short",), "none": ()}


@dataclass(frozen=True)
class MemRope(CachePolicy):
    """Two exponential moving averages of evicted keys and values, each shown as one frame after the sink.

    Once `window` frames are full, a pass sees [sink | memories | recent | chunk] at time indices 0, 1, ..., window-1.
    When the window first overflows, the frames in the memories' slots are lost and the next ones start the averages,
    as in the release (the paper starts from zero). Evicted frames are averaged over time and space, `adaptive` over
    time only. Averages are fp32 whatever the model's dtype: in bf16, as released, a small alpha stops moving.

    `memory` is `both` as released; `long` or `short` keeps one average and gives the freed slot to a recent frame;
    `none` keeps none, which is LongLive's "infinity" mode.
    """

    window: int = 12
    """Frames a pass may see, memories and the chunk's own included."""
    sink: int = 3
    """First frames of the video that never leave."""
    alpha_long: float = 0.01
    """Weight of the newest evicted frames in the long memory, in (0, 1]."""
    alpha_short: float = 0.1
    """The same for the short memory."""
    adaptive: bool = False
    """Average per grid cell, and update the short memory 0.1 to 5 times as fast, fastest where it differs most."""
    memory: Literal["both", "long", "short", "none"] = "both"

    def __post_init__(self) -> None:
        for name in ("alpha_long", "alpha_short"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} of memrope is {getattr(self, name)}, outside (0, 1].", "such as 0.01")
        if self.memory not in SLOTS:
            raise ConfigError(f"memory of memrope is {self.memory!r}.", f"choose one of {', '.join(SLOTS)}")
        if self.adaptive and "short" not in SLOTS[self.memory]:
            raise ConfigError(
                f"adaptive=true of memrope needs the short memory, and memory is {self.memory}.",
                "use memory=both or memory=short",
            )
        check_window("memrope", self.window, self.sink, memories=len(SLOTS[self.memory]))

    def layer(self, geometry: Geometry) -> "MemRopeCache":
        """An empty cache for one layer."""
        return MemRopeCache(self, geometry)

    @property
    def budget(self) -> int:
        """Past frames a pass may see, memories included."""
        return self.window - CHUNK_FRAMES


class MemRopeCache(FrameCache):
    """Sink and newest frames raw, what left in between as moving averages."""

    def __init__(self, policy: MemRope, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.policy = policy
        self.memories: dict[str, Tensor] = {}
        """Keys and values of each memory, fp32 [2, B, 1 or tokens per frame, heads, d]."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Fold what does not fit beside the chunk, right after the memories; show the rest at slot positions."""
        policy, slots = self.policy, SLOTS[self.policy.memory]
        excess = len(self.sources) + len(self.memories) + chunk.frames - policy.window
        folded: tuple[int, ...] = ()
        dropped: tuple[int, ...] = ()
        if excess > 0:
            if not self.memories:
                dropped = self.remove(policy.sink, len(slots))[2]
            keys, values, gone = self.remove(policy.sink, excess)
            if slots:
                folded = gone
                self._fold(keys, values)
            else:
                dropped = gone
        return self._show(chunk, folded, dropped)

    @property
    def frames(self) -> float:
        """Frames held, one per memory."""
        return len(self.sources) + len(self.memories)

    @property
    def nbytes(self) -> int:
        """Bytes of K and V; a memory without spatial structure is stored as one token."""
        return super().nbytes + sum(memory.nbytes for memory in self.memories.values())

    def _fold(self, keys: Tensor, values: Tensor) -> None:
        new = torch.stack([self._mean(keys), self._mean(values)])
        for slot in SLOTS[self.policy.memory]:
            old = self.memories.get(slot, new)
            self.memories[slot] = old.lerp(new, self._alpha(slot, old[0], new[0]))

    def _mean(self, x: Tensor) -> Tensor:
        frames = torch.unflatten(x.float(), 1, (-1, self.geometry.tokens_per_frame))
        return frames.mean(1) if self.policy.adaptive else frames.mean((1, 2)).unsqueeze(1)

    def _alpha(self, slot: str, old_keys: Tensor, new_keys: Tensor) -> Tensor:
        if slot == "long":
            return new_keys.new_tensor(self.policy.alpha_long)
        base = new_keys.new_tensor(self.policy.alpha_short)
        if not self.policy.adaptive:
            return base
        change: Tensor = (new_keys - old_keys).square().sum(-1, keepdim=True).sqrt().mean(2, keepdim=True)
        change = change / (change.amax(1, keepdim=True) + 1e-8)
        return 0.1 * base + change * (5 * base - 0.1 * base)

    def _show(self, chunk: Chunk, folded: tuple[int, ...], dropped: tuple[int, ...]) -> Past:
        sink, size = self.policy.sink, self.geometry.tokens_per_frame
        memories = [m.to(self.keys.dtype).expand(-1, -1, size, -1, -1) for m in self.memories.values()]
        cut = sink * size
        keys = torch.cat([self.keys[:, :cut], *(m[0] for m in memories), self.keys[:, cut:]], dim=1)
        values = torch.cat([self.values[:, :cut], *(m[1] for m in memories), self.values[:, cut:]], dim=1)
        sources = self.sources[:sink] + (MEMORY,) * len(memories) + self.sources[sink:]
        return Past(
            keys,
            values,
            frames=self.per_token(tuple(range(len(sources)))),
            sources=self.per_token(sources),
            own_frames=tuple(range(len(sources), len(sources) + chunk.frames)),
            folded=folded,
            dropped=dropped,
            events=("evict",) * bool(dropped) + ("absorb",) * bool(folded),
        )
