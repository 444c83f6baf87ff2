"""One layer's cache driven with random queries, keys and values, as a loop would drive it."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from magbench.runners.policies.base import CachePolicy, Chunk, Geometry, LayerCache, Past
from magbench.runners.policies.causvid import CausVid
from magbench.runners.policies.rolling_forcing import RollingForcing
from magbench.runners.wan.rope import Rope

ROWS, COLS, HEADS, WIDTH = 2, 3, 2, 12
SIZE = ROWS * COLS
LEVELS = 2
"""Chunks in a full window of Rolling Forcing."""


def geometry(batch: int = 1, dtype: torch.dtype = torch.float32) -> Geometry:
    return Geometry(batch=batch, heads=HEADS, rope=Rope(WIDTH, ROWS, COLS), dtype=dtype)


def projections(chunk: Chunk, rows: slice = slice(0, 1), clean: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a chunk in its first or its clean pass; each row is the same in any batch."""
    kinds = ("history", "generate", "recache", "window")
    generator = torch.Generator().manual_seed(1000 * chunk.first + 10 * kinds.index(chunk.kind) + clean)
    q, k, v = torch.randn(3, 3, chunk.frames * SIZE, HEADS, WIDTH, generator=generator)
    return q[rows], k[rows], v[rows]


def drive(
    cache: LayerCache, chunks: Iterable[Chunk], rows: slice = slice(0, 1), dtype: torch.dtype = torch.float32
) -> Iterator[tuple[Chunk, Past]]:
    """Ask for each chunk's past, use it as attention does, and write the chunk unless it is a window."""
    for chunk in chunks:
        q, k, _ = (x.to(dtype) for x in projections(chunk, rows, clean=chunk.kind not in ("generate", "window")))
        past = cache.past(chunk, q, k)
        past.values[:, past.keys.shape[1] :].fill_(7.0)
        if chunk.kind != "window":
            cache.commit(chunk, *(x.to(dtype) for x in projections(chunk, rows)))
        yield chunk, past


def from_text(chunks: int, **switches: Any) -> list[Chunk]:
    """Chunks as a plain loop gives them; the prompt changes at `switch`, or at `cut`, where a new shot begins too."""
    told = [index in (switches.get("switch"), switches.get("cut")) for index in range(chunks)]
    return [
        Chunk(3 * index, 3, "generate", prompt_changed, index == switches.get("cut"))
        for index, prompt_changed in enumerate(told)
    ]


def sequence(policy: CachePolicy, chunks: int, switch: int | None = None) -> list[Chunk]:
    """The chunks that a policy's loop gives one cache: two of history, then generated ones.

    At `switch` the prompt changes and a new shot begins. A cache of CausVid ends with its rollout.
    """
    if isinstance(policy, RollingForcing):
        given = [Chunk(0, 3, "history"), Chunk(3, 3, "history")]
        for newest in range(2, chunks):
            first = 3 * max(2, newest - LEVELS + 1)
            given += [Chunk(first, 3 * newest + 3 - first, "window"), Chunk(first, 3, "history")]
        return given
    if isinstance(policy, CausVid):
        chunks = min(chunks, policy.rollout_frames // 3)
    given = []
    for index in range(chunks):
        if index == switch and policy.recache_frames:
            again = min(3 * index, policy.recache_frames)
            given.append(Chunk(3 * index - again, again, "recache"))
        kind = "history" if index < 2 else "generate"
        given.append(Chunk(3 * index, 3, kind, index == switch, index == switch))
    return given
