"""The contract of a cache policy.

Keys are cached un-rotated; positions are data. A policy answers three questions: which past frames stay, how evicted
ones are folded in, and at which time index each kept token is shown. Attention does the rotation.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.runners.wan.rope import Rope, rotate

MEMORY = -1
"""Source frame of a token that was made, not cached."""


@dataclass(frozen=True)
class Geometry:
    """Sizes that a layer's cache needs to know."""

    batch: int
    heads: int
    rope: Rope
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of one latent frame."""
        return self.rope.rows * self.rope.cols

    def empty(self) -> Tensor:
        """Keys or values of no tokens: [B, 0, heads, d]."""
        return torch.empty(self.batch, 0, self.heads, self.rope.head_dim, dtype=self.dtype, device=self.device)

    def rotate(self, x: Tensor, frames: Tensor, cells: Tensor | None = None) -> Tensor:
        """Rotate tokens [B, T, heads, d] to time indices `frames` and grid cells `cells` (see `Past`)."""
        return rotate(x, self.rope.tokens(frames, cells))


@dataclass(frozen=True)
class Chunk:
    """The frames that run through the transformer together."""

    first: int
    """Latent frame index in the whole video, given history included."""
    frames: int
    kind: Literal["history", "generate"]
    """`history` is one clean pass over given latents; `generate` is noisy passes and then a clean one."""

    @property
    def span(self) -> tuple[int, ...]:
        """Indices of the chunk's frames."""
        return tuple(range(self.first, self.first + self.frames))


@dataclass(frozen=True)
class Past:
    """What one layer shows of the past to one chunk, the same in all its passes."""

    keys: Tensor
    """Un-rotated, [B, T, heads, d]."""
    values: Tensor
    """[B, T, heads, d]."""
    frames: Tensor
    """Time index at which each token is shown, int64 [T] or [B, T]."""
    sources: Tensor
    """Latent frame each token was cached from, or `MEMORY`; int64 like `frames`."""
    own_frames: tuple[int, ...]
    """Time indices of the chunk's own frames, for its queries and keys."""
    cells: Tensor | None = None
    """row * columns + column of each token, int64 like `frames`; None when the tokens are whole frames in order."""
    hide_own: int = 0
    """How many of the chunk's leading frames no query may see."""
    folded: tuple[int, ...] = ()
    """Source frames that went into a memory just now."""
    dropped: tuple[int, ...] = ()
    """Source frames that were lost just now."""
    events: tuple[str, ...] = ()
    """What the cache did just now: `evict`, `absorb`."""


class LayerCache(ABC):
    """One attention layer's memory of one rollout. Rows of a batch never mix."""

    @abstractmethod
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """What the layer shows to a new chunk. Called once per chunk, in its first pass; evict and fold here.

        Args:
            chunk: The chunk that begins.
            q: Its un-rotated queries in the first pass, [B, L, heads, d].
            k: Its un-rotated keys, same shape.
        """

    @abstractmethod
    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Store the chunk. Called once per chunk, in its clean pass; keep copies, not these tensors."""

    @property
    @abstractmethod
    def frames(self) -> float:
        """Frames' worth of tokens in the cache, memories included."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of all keys and values held between chunks, memories included, for the whole batch."""

    @property
    def state_bytes(self) -> int:
        """Bytes of all other tensors held between chunks."""
        return 0


@dataclass(frozen=True)
class CachePolicy(ABC):
    """Hyper-parameters of a policy, and the maker of its caches.

    Subclasses are frozen dataclasses; `__post_init__` raises `ConfigError` on values that make no sense.
    """

    @abstractmethod
    def layer(self, geometry: Geometry) -> LayerCache:
        """An empty cache for one layer of one rollout."""

    @property
    @abstractmethod
    def budget(self) -> int | None:
        """Most past frames any pass attends to, the chunk itself excluded; None when it grows with the video."""


class FrameCache(LayerCache):
    """Whole raw frames in the order they came: the storage most policies build on."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.keys = geometry.empty()
        self.values = geometry.empty()
        self.sources: tuple[int, ...] = ()

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Append the chunk's frames."""
        self.keys = torch.cat([self.keys, k], dim=1)
        self.values = torch.cat([self.values, v], dim=1)
        self.sources += chunk.span

    @property
    def frames(self) -> float:
        """Frames held."""
        return len(self.sources)

    @property
    def nbytes(self) -> int:
        """Bytes of K and V."""
        return self.keys.nbytes + self.values.nbytes

    def remove(self, start: int, count: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Take `count` frames out, counted from slot `start`; returns their keys, values and source frames."""
        size = self.geometry.tokens_per_frame
        first, last = start * size, (start + count) * size
        keys, values, gone = self.keys[:, first:last], self.values[:, first:last], self.sources[start : start + count]
        self.keys = torch.cat([self.keys[:, :first], self.keys[:, last:]], dim=1)
        self.values = torch.cat([self.values[:, :first], self.values[:, last:]], dim=1)
        self.sources = self.sources[:start] + self.sources[start + count :]
        return keys, values, gone

    def per_token(self, frames: tuple[int, ...]) -> Tensor:
        """One number per frame -> one per token, int64 [len(frames) * tokens per frame]."""
        return torch.tensor(frames, dtype=torch.int64).repeat_interleave(self.geometry.tokens_per_frame)


def check_window(method: str, window: int, sink: int, memories: int = 0) -> None:
    """Refuse a window that cannot hold the sink, the memories and a chunk.

    Raises:
        ConfigError: `window` is too small, or `sink` is negative.
    """
    if sink < 0:
        raise ConfigError(f"sink of {method} is {sink}.", "use 0 or more frames")
    smallest = sink + memories + CHUNK_FRAMES
    if window < smallest:
        parts = f"sink ({sink}), memories ({memories})" if memories else f"sink ({sink})"
        raise ConfigError(
            f"window {window} of {method} is smaller than {parts} and chunk ({CHUNK_FRAMES}) together.",
            f"use window={smallest} or more, or a smaller sink",
        )
