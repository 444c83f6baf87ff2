"""The contract of a cache policy.

Keys are cached un-rotated; positions are data. A policy answers three questions: which past frames stay, how evicted
ones are folded in, and at which time index each kept token is shown. Attention does the rotation.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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
        size = self.tokens_per_frame
        if cells is None and frames.ndim == 1:
            return rotate(x, self.rope.grid(tuple(frames[::size].tolist()), self.device))
        if cells is None:
            cells = (torch.arange(frames.shape[-1]) % size).expand_as(frames)
        return rotate(x, self.rope.tokens(frames.to(self.device), cells.to(self.device)))


@dataclass(frozen=True)
class Chunk:
    """The frames that run through the transformer together."""

    first: int
    """Latent frame index in the whole video, given history included."""
    frames: int
    kind: Literal["history", "generate", "recache", "window"]
    """`generate`: noisy passes, then a clean one. `history`: one clean pass over latents that are there already.
    `recache`: one clean pass over the newest frames, which are in the cache, with another prompt. `window`: one pass
    over frames of several noise levels, which are not stored; frames cached from `first` on are forgotten."""
    prompt_changed: bool = False
    """The prompt differs from the last chunk's."""
    scene_cut: bool = False
    """A new shot begins."""

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
    """[B, T, heads, d]; with room for the chunk's own visible tokens behind them, attention makes no copy."""
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
    chosen: Tensor | None = None
    """How often each token was chosen one by one, integer like `frames`, 0 if its frame stays as a whole; None when all
    frames do."""
    padding: Tensor | None = None
    """True for tokens that fill up a row of the batch and may not be seen, bool [B, T]; None when there are none."""
    folded: tuple[int, ...] = ()
    """Source frames that went into a memory just now."""
    dropped: tuple[int, ...] = ()
    """Source frames that were lost just now."""
    events: tuple[str, ...] = ()
    """What the cache did just now: `evict`, `absorb`, `compress`, `flush`, `cut`."""


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

    def state(self) -> dict[str, Any]:
        """All that it holds between chunks and was not made with, so that a stopped rollout can go on.

        Plain values, tensors, and lists, tuples, dicts or dataclasses of such; a cache that holds something else, such
        as another cache, says here what to put down, or its rollouts start over.
        """
        return {name: held for name, held in vars(self).items() if not isinstance(held, Geometry | CachePolicy)}

    def restore(self, state: dict[str, Any]) -> None:
        """Hold what a cache of the same policy and geometry gave as its `state`."""
        vars(self).update(state)


@dataclass(frozen=True)
class CachePolicy(ABC):
    """Hyper-parameters of a policy, and the maker of its caches.

    Subclasses are frozen dataclasses; `__post_init__` raises `ConfigError` on values that make no sense.
    """

    rollout: ClassVar[str] = "magbench.runners.rollout:Rollout"
    """Import path of the loop it runs in."""
    matched: ClassVar[bool] = True
    """Whether a budget can be chosen; otherwise it is a reference row."""

    @abstractmethod
    def layer(self, geometry: Geometry) -> LayerCache:
        """An empty cache for one layer of one rollout."""

    @property
    @abstractmethod
    def budget(self) -> int | None:
        """Most past frames any pass attends to, the chunk itself excluded; None when it grows with the video."""

    @classmethod
    def spend(cls, budget: int) -> dict[str, Any]:
        """Parameters with which `budget` is this many frames. By default `window`, which counts the chunk too.

        Raises:
            ConfigError: the policy can't use so few or so many.
        """
        return {"window": budget + CHUNK_FRAMES}

    @property
    def writer(self) -> Literal["generator", "memory"]:
        """The network whose clean pass writes the cache; `memory` is a second one, and sees an empty prompt."""
        return "generator"

    @property
    def writes_truth(self) -> bool:
        """Whether the clean pass sees the ground truth instead of what was generated."""
        return False

    @property
    def recache_frames(self) -> int:
        """How many of the newest frames are encoded again when the prompt changes."""
        return 0


class FrameCache(LayerCache):
    """Whole raw frames in the order they came: the storage most policies build on.

    Values are kept once: `past_at` leaves room for the chunk's own behind them, where attention puts them.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.keys = geometry.empty()
        self._values = geometry.empty()
        self.sources: tuple[int, ...] = ()

    @property
    def values(self) -> Tensor:
        """[B, T, heads, d], like `keys`."""
        return self._values[:, : self.keys.shape[1]]

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Append the chunk's frames."""
        self.append(chunk.span, k, v)

    def append(self, sources: Sequence[int], k: Tensor, v: Tensor) -> None:
        """Append frames: their source frames, keys and values."""
        held = self.keys.shape[1]
        self.keys = torch.cat([self.keys, k], dim=1)
        if self._values.shape[1] == held + v.shape[1]:
            self._values[:, held:] = v
        else:
            self._values = torch.cat([self._values[:, :held], v], dim=1)
        self.sources += tuple(sources)

    @property
    def frames(self) -> float:
        """Frames held."""
        return len(self.sources)

    @property
    def nbytes(self) -> int:
        """Bytes of K and V."""
        return self.keys.nbytes + self._values.nbytes

    def remove(self, start: int, count: int) -> tuple[int, ...]:
        """Take `count` frames out, counted from slot `start`; returns their source frames."""
        gone = self.sources[start : start + count]
        if gone:
            first, last = (slot * self.geometry.tokens_per_frame for slot in (start, start + count))
            self.keys = torch.cat([self.keys[:, :first], self.keys[:, last:]], dim=1)
            self._values = torch.cat([self._values[:, :first], self._values[:, last:]], dim=1)
            self.sources = self.sources[:start] + self.sources[start + count :]
        return gone

    def slots(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values of `count` frames from slot `start`, two of [B, T, heads, d]."""
        part = slice(start * self.geometry.tokens_per_frame, (start + count) * self.geometry.tokens_per_frame)
        return self.keys[:, part], self.values[:, part]

    def past_at(
        self, shown: Sequence[int], chunk: Chunk, own_frames: tuple[int, ...] | None = None, **fields: Any
    ) -> Past:
        """Show all frames.

        Args:
            shown: The time index of each.
            chunk: The chunk that sees them.
            own_frames: Its own time indices; left out, those it has in the video.
            fields: The other fields of `Past`.
        """
        room = (chunk.frames - fields.get("hide_own", 0)) * self.geometry.tokens_per_frame
        values = self.values
        self._values = torch.cat([values, values.new_empty(values.shape[0], room, *values.shape[2:])], dim=1)
        return Past(
            self.keys,
            self._values,
            frames=self.per_token(shown),
            sources=self.per_token(self.sources),
            own_frames=chunk.span if own_frames is None else own_frames,
            **fields,
        )

    def per_token(self, frames: Sequence[int]) -> Tensor:
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
