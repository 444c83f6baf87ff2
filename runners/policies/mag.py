"""MAG: one frame's keys and values stand for a chunk, written by a network trained for that."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, Past


@dataclass(frozen=True)
class Mag(CachePolicy):
    """The first `sink` frames and the last frame of each of the newest `ring` chunks, all at their own indices.

    The generator reads. After a chunk, the memory network runs over the clean frames with an empty prompt, sees the
    same past, and writes. `writer=generator` is the release without its memory network: the generator writes, with the
    prompt. `write_back=truth` gives the writer the ground truth instead of what was generated: MAG-Bench's "ground
    truth comparison". `variant=paper` keeps every chunk; the release forgets those older than `ring`.
    """

    ring: int = 21
    """Chunks whose last frame is kept."""
    sink: int = 2
    """First frames of the video that never leave; at most 2, since the third is the first chunk's last."""
    writer: Literal["memory", "generator"] = "memory"
    """The network that writes the cache."""
    write_back: Literal["generated", "truth"] = "generated"
    """What the writer sees of a chunk."""
    variant: Literal["release", "paper"] = "release"
    """Whether old chunks are forgotten."""

    def __post_init__(self) -> None:
        if not 0 <= self.sink <= 2:
            raise ConfigError(f"sink of mag is {self.sink}.", "use 0, 1 or 2: the third frame is kept anyway")
        if self.ring < 1:
            raise ConfigError(f"ring of mag is {self.ring}.", "use 1 or more chunks")

    def layer(self, geometry: Geometry) -> "MagCache":
        """An empty cache for one layer."""
        return MagCache(self, geometry)

    @property
    def budget(self) -> int | None:
        """Past frames a pass may see: the sink, and one per chunk."""
        return self.sink + self.ring if self.variant == "release" else None

    @classmethod
    def spend(cls, budget: int) -> dict[str, Any]:
        """All but the sink goes to the ring.

        Raises:
            ConfigError: there is nothing left for the ring.
        """
        if budget <= cls.sink:
            raise ConfigError(f"mag can't use a budget of {budget} frames.", f"its sink alone is {cls.sink}")
        return {"ring": budget - cls.sink}

    @property
    def writes_truth(self) -> bool:
        """Whether the writer sees the ground truth."""
        return self.write_back == "truth"


class MagCache(FrameCache):
    """Sink, then the last frame of each chunk."""

    def __init__(self, policy: Mag, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.policy = policy
        self._skipped: tuple[int, ...] = ()
        """Frames of the last chunk that another one stands for."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Forget the oldest chunks, show the others."""
        excess = len(self.sources) - self.policy.sink - self.policy.ring
        dropped = self.remove(self.policy.sink, max(0, excess)) if self.policy.variant == "release" else ()
        skipped, self._skipped = self._skipped, ()
        folded = skipped if self.policy.writer == "memory" else ()
        dropped += () if folded else skipped
        events = ("evict",) * bool(dropped) + ("absorb",) * bool(folded)
        return self.past_at(self.sources, chunk, folded=folded, dropped=dropped, events=events)

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Store the last frame, and of the first chunk the sink."""
        sink = chunk.span[: self.policy.sink] if chunk.first == 0 else ()
        self._skipped = tuple(frame for frame in chunk.span[:-1] if frame not in sink)
        for frame in (*sink, chunk.span[-1]):
            start = (frame - chunk.first) * self.geometry.tokens_per_frame
            part = slice(start, start + self.geometry.tokens_per_frame)
            self.append((frame,), k[:, part], v[:, part])
