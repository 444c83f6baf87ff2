"""MemRoPE: a sink, moving averages of what was evicted, and the newest frames, shown at slot positions."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.policies.base import MEMORY, CachePolicy, Chunk, FrameCache, Geometry, Past, check_window
from magbench.runners.wan.configs import CHUNK_FRAMES

MEMORIES: dict[str, tuple[str, ...]] = {"both": ("long", "short"), "long": ("long",), "short": ("short",), "none": ()}


@dataclass(frozen=True)
class MemRope(CachePolicy):
    """Two exponential moving averages of evicted keys and values, each shown as one frame after the sink.

    Once `window` frames are full, a pass sees [sink | memories | recent | chunk] at time indices 0, 1, ..., window-1.
    When the window first overflows, the frames in the memories' slots are lost and the next ones start the averages,
    as in the release. Evicted frames are averaged over time and space, `adaptive` over time only. `variant=paper`
    starts the averages at zero, folds every evicted frame in, and averages over time only. Averages are fp32 whatever
    the model's dtype: in bf16, as released, a small alpha stops moving.

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
    """Which averages are kept."""
    variant: Literal["release", "paper"] = "release"
    """Where the two differ, which one runs."""

    def __post_init__(self) -> None:
        for name in ("alpha_long", "alpha_short"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} of memrope is {getattr(self, name)}, outside (0, 1].", "such as 0.01")
        if self.memory not in MEMORIES:
            raise ConfigError(f"memory of memrope is {self.memory!r}.", f"choose one of {', '.join(MEMORIES)}")
        if self.adaptive and "short" not in MEMORIES[self.memory]:
            raise ConfigError(
                f"adaptive=true of memrope needs the short memory, and memory is {self.memory}.",
                "use memory=both or memory=short",
            )
        check_window("memrope", self.window, self.sink, memories=len(MEMORIES[self.memory]))

    def layer(self, geometry: Geometry) -> "MemRopeCache":
        """An empty cache for one layer."""
        return MemRopeCache(self, geometry)

    @property
    def budget(self) -> int:
        """Past frames a pass may see, memories included."""
        return self.window - CHUNK_FRAMES


class MemRopeCache(FrameCache):
    """Sink, memories once there are any, and newest frames."""

    def __init__(self, policy: MemRope, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.policy = policy
        self.averages: dict[str, Tensor] = {}
        """Of each memory keys and values, fp32 [2, B, 1 or tokens per frame, heads, d]."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Fold what does not fit beside the chunk, right after the memories; show the rest at slot positions."""
        sink, memories = self.policy.sink, MEMORIES[self.policy.memory]
        excess = len(self.sources) + chunk.frames - self.policy.window
        folded: tuple[int, ...] = ()
        dropped: tuple[int, ...] = ()
        if excess > 0 and not memories:
            dropped = self.remove(sink, excess)
        elif excess > 0:
            first = sink + len(self.averages)
            if not self.averages and self.policy.variant == "release":
                dropped = self.remove(sink, len(memories))
            elif not self.averages:
                excess += len(memories)
            self._fold(*self.slots(first, excess))
            folded = self.remove(first, excess)
            self.remove(sink, first - sink)
            self._insert(sink)
        held = len(self.sources)
        return self.past_at(
            range(held),
            chunk,
            tuple(range(held, held + chunk.frames)),
            folded=folded,
            dropped=dropped,
            events=("evict",) * bool(dropped) + ("absorb",) * bool(folded),
        )

    @property
    def state_bytes(self) -> int:
        """Bytes of the averages; a frame of each is in the cache too."""
        return sum(average.nbytes for average in self.averages.values())

    def _insert(self, slot: int) -> None:
        """Put a frame of each average into the cache, from `slot` on."""
        size = self.geometry.tokens_per_frame
        frames = [m.to(self.keys.dtype).expand(-1, -1, size, -1, -1) for m in self.averages.values()]
        cut, values = slot * size, self.values
        self.keys = torch.cat([self.keys[:, :cut], *(m[0] for m in frames), self.keys[:, cut:]], dim=1)
        self._values = torch.cat([values[:, :cut], *(m[1] for m in frames), values[:, cut:]], dim=1)
        self.sources = self.sources[:slot] + (MEMORY,) * len(frames) + self.sources[slot:]

    def _fold(self, keys: Tensor, values: Tensor) -> None:
        new = torch.stack([self._mean(keys), self._mean(values)])
        start = new if self.policy.variant == "release" else torch.zeros_like(new)
        for name in MEMORIES[self.policy.memory]:
            old = self.averages.get(name, start)
            self.averages[name] = old.lerp(new, self._alpha(name, old[0], new[0]))

    def _mean(self, x: Tensor) -> Tensor:
        frames = torch.unflatten(x.float(), 1, (-1, self.geometry.tokens_per_frame))
        per_cell = self.policy.adaptive or self.policy.variant == "paper"
        return frames.mean(1) if per_cell else frames.mean((1, 2)).unsqueeze(1)

    def _alpha(self, name: str, old_keys: Tensor, new_keys: Tensor) -> Tensor:
        if name == "long":
            return new_keys.new_tensor(self.policy.alpha_long)
        base = new_keys.new_tensor(self.policy.alpha_short)
        if not self.policy.adaptive:
            return base
        change: Tensor = (new_keys - old_keys).square().sum(-1, keepdim=True).sqrt().mean(2, keepdim=True)
        change = change / (change.amax(1, keepdim=True) + 1e-8)
        return 0.1 * base + change * (5 * base - 0.1 * base)
