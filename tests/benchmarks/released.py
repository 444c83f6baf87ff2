"""MemRoPE's cache handled as in its released code, in our words: the baseline that `memrope` is measured against.

Every pass of every layer clones the buffers, writes the chunk into the clone, rotates all of it in fp64, joins sink and
window once more, and then writes the chunk into the buffers themselves. Queries are stored, and nobody reads them.
Source: YoungRaeKimm/MemRoPE, revision b89bf5b.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from magbench.runners.policies.base import Chunk, Geometry, LayerCache, Past
from magbench.runners.policies.memrope import MemRope
from magbench.runners.rollout import CachedAttention, Rollout
from magbench.runners.wan.rope import axis_widths
from magbench.runners.wan.transformer import attention

POSITIONS = 1024


@dataclass(frozen=True)
class ReleasedMemRope(MemRope):
    """At memrope's defaults of `adaptive`, `memory` and `variant`."""

    rollout = "tests.benchmarks.released:ReleasedLoop"

    def layer(self, geometry: Geometry) -> "ReleasedCache":  # type: ignore[override]
        return ReleasedCache(self, geometry)


class ReleasedLoop(Rollout):
    def _empty_cache(self) -> "ReleasedAttention":
        caches = [self.policy.layer(self.geometry) for _ in range(self.model.config.layers)]
        return ReleasedAttention(caches, self.geometry)


class ReleasedCache(LayerCache):
    """Three buffers of `window` frames, allocated at once."""

    def __init__(self, policy: ReleasedMemRope, geometry: Geometry) -> None:
        self.policy, self.size = policy, geometry.tokens_per_frame
        self.capacity = policy.window * self.size
        shape = (geometry.batch, self.capacity, geometry.heads, geometry.rope.head_dim)
        self.keys, self.values, self.queries = torch.zeros(3, *shape, dtype=geometry.dtype, device=geometry.device)
        self.seen, self.held, self.averaging = 0, 0, False
        """Tokens of the video so far, tokens in the buffers, whether there are averages yet."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        raise NotImplementedError("the loop reads the buffers itself")

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        raise NotImplementedError("the loop writes the buffers itself")

    def write(self, buffer: Tensor, fresh: Tensor, end: int, *, averaged: bool = True) -> int:
        """Write a pass's tokens, the last of them token `end` of the video; returns how many the buffer holds then."""
        own = fresh.shape[1]
        held = self.held + end - self.seen
        if end > self.seen and held > self.capacity:
            self._roll(buffer, held - self.capacity, averaged)
            held = self.capacity
        buffer[:, held - own : held] = fresh
        return held

    def _roll(self, buffer: Tensor, gone: int, averaged: bool) -> None:
        memories = self.policy.sink * self.size
        recent = memories + 2 * self.size
        if averaged:
            mean = buffer[:, recent : recent + gone].mean(1, keepdim=True)
            for slot, alpha in enumerate((self.policy.alpha_long, self.policy.alpha_short)):
                average = buffer[:, memories + slot * self.size : memories + (slot + 1) * self.size]
                average.copy_(alpha * mean + (1 - alpha) * average if self.averaging else mean)
        buffer[:, recent : self.held - gone] = buffer[:, recent + gone : self.held].clone()

    @property
    def frames(self) -> float:
        return self.held / self.size

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    @property
    def state_bytes(self) -> int:
        return self.queries.nbytes


class ReleasedAttention(CachedAttention):
    def __init__(self, caches: list[LayerCache], geometry: Geometry) -> None:
        super().__init__(caches, geometry)
        self.turns = [_turns(width).to(geometry.device) for width in axis_widths(geometry.rope.head_dim)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache, own = self.caches[layer], q.shape[1]
        assert isinstance(cache, ReleasedCache)
        end = self.chunk.first * cache.size + own
        keys, values = cache.keys.clone(), cache.values.clone()
        held = cache.write(keys, k, end)
        cache.write(values, v, end)
        frames, sink = held // cache.size, cache.policy.sink * cache.size
        positions = tuple(range(frames - self.chunk.frames, frames))
        rotated = self._rotate(keys[:, :held], tuple(range(frames)))
        shown = [torch.cat([x[:, :sink], x[:, sink:held]], dim=1) for x in (rotated, values)]
        out = attention(self._rotate(q, positions), *shown)
        for buffer, fresh in ((cache.keys, k), (cache.values, v), (cache.queries, q)):
            cache.write(buffer, fresh, end, averaged=buffer is not cache.queries)
        cache.averaging |= end > cache.seen and cache.held + own > cache.capacity
        cache.seen, cache.held = end, held
        self.past_tokens = held - own
        none = torch.empty(0, dtype=torch.int64)
        self.shown = Past(k[:, :0], v[:, :0], frames=none, sources=none, own_frames=positions)
        return out

    def _rotate(self, x: Tensor, frames: tuple[int, ...]) -> Tensor:
        rope, (time, row, col) = self.geometry.rope, self.turns
        grid = (len(frames), rope.rows, rope.cols, -1)
        parts = time[list(frames)][:, None, None], row[: rope.rows][None, :, None], col[: rope.cols][None, None]
        table = torch.cat([part.expand(grid) for part in parts], dim=-1).flatten(0, 2)[:, None]
        pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)


def _turns(width: int) -> Tensor:
    """complex128 [positions, width]."""
    frequencies = 10000.0 ** (-torch.arange(width, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(POSITIONS, dtype=torch.float64), frequencies)
    return torch.polar(torch.ones_like(angles), angles)
