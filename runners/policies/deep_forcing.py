"""Deep Forcing: a deep sink, and between it and the newest frames the tokens that recent queries ask for most."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.policies.base import CachePolicy, Chunk, Geometry, LayerCache, Past, check_window
from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.runners.wan.rope import rotate

MAX_RECENT = 2 * CHUNK_FRAMES


@dataclass(frozen=True)
class DeepForcing(CachePolicy):
    """Deep sink + participative compression, per layer and token.

    When cache and chunk exceed `window` frames, `keep` frames' worth of tokens remain: the sink, the newest `recent`
    frames (the chunk's own three among them), and of all tokens in between those with the largest dot product of their
    key with the sum of the newest `recent` frames' queries: those of the chunk's first pass and of the end of the clean
    pass before. A token that was chosen `reuse` times is not chosen again. Chosen tokens keep their own time indices;
    with each compression the sink moves as in `deep-sink`. At 21 and 16 frames every second chunk compresses.

    During a given history the queries are those of clean passes: ours, the release has no history.
    """

    window: int = 21
    """Frames a pass may see before the cache is compressed, the chunk's own included."""
    sink: int = 10
    """First frames of the video that never leave."""
    keep: int = 16
    """Frames' worth of tokens after a compression, the chunk's own included ("Budget" in the release)."""
    recent: int = 4
    """Newest frames that stay whole and whose queries decide, the chunk's own included; 3 to 6."""
    reuse: int = 7
    """How often a token may be chosen."""

    def __post_init__(self) -> None:
        check_window("deep-forcing", self.window, self.sink)
        if not CHUNK_FRAMES <= self.recent <= MAX_RECENT:
            raise ConfigError(
                f"recent of deep-forcing is {self.recent}.",
                f"use {CHUNK_FRAMES} to {MAX_RECENT}: fewer cut the chunk itself, more reach into noisy passes",
            )
        if not self.sink + self.recent <= self.keep <= self.window:
            raise ConfigError(
                f"keep of deep-forcing is {self.keep}.",
                f"use sink + recent = {self.sink + self.recent} to window = {self.window}",
            )
        if not 1 <= self.reuse <= 255:
            raise ConfigError(f"reuse of deep-forcing is {self.reuse}.", "use 1 to 255")

    def layer(self, geometry: Geometry) -> "DeepForcingCache":
        """An empty cache for one layer."""
        return DeepForcingCache(self, geometry)

    @property
    def budget(self) -> int:
        """Past frames a pass may see right before a compression."""
        return self.window - CHUNK_FRAMES

    @classmethod
    def spend(cls, budget: int) -> dict[str, Any]:
        """Sink and kept frames in the proportions of 10 and 16 of 21, with a frame at least to choose tokens for.

        Raises:
            ConfigError: there is no room for a frame of chosen tokens.
        """
        window = budget + CHUNK_FRAMES
        keep = max(cls.recent + 1, round(window * cls.keep / cls.window))
        if keep > window:
            raise ConfigError(f"deep-forcing can't use a budget of {budget} frames.", "use 2 or more")
        return {
            "window": window,
            "keep": keep,
            "sink": min(round(window * cls.sink / cls.window), keep - cls.recent - 1),
        }


@dataclass(frozen=True)
class Tokens:
    """Cached tokens in order of time, each row of the batch its own."""

    keys: Tensor
    """[B, T, heads, d]."""
    values: Tensor
    """[B, T, heads, d]."""
    frames: Tensor
    """Source frame, int64 [B, T]."""
    cells: Tensor
    """int64 [B, T]."""
    chosen: Tensor
    """How often, uint8 [B, T]."""
    padding: Tensor
    """True where a row has no token, bool [B, T]."""

    def __getitem__(self, part: slice) -> "Tokens":
        """Some of them, in all rows."""
        return Tokens(*(tensor[:, part] for tensor in self.all))

    def gather(self, index: Tensor, padding: Tensor) -> "Tokens":
        """The tokens at `index` [B, C], of which `padding` are none."""
        wide = index[..., None, None].expand(-1, -1, *self.keys.shape[2:])
        return Tokens(
            self.keys.gather(1, wide),
            self.values.gather(1, wide),
            self.frames.gather(1, index),
            self.cells.gather(1, index),
            self.chosen.gather(1, index),
            padding,
        )

    def join(self, *others: "Tokens") -> "Tokens":
        """Append."""
        return Tokens(*(torch.cat(tensors, dim=1) for tensors in zip(self.all, *(o.all for o in others), strict=True)))

    def sources(self) -> set[int]:
        """Source frames, of all rows."""
        return set(torch.unique(self.frames[~self.padding]).tolist())

    @property
    def lengths(self) -> Tensor:
        """How many tokens each row has, int64 [B]."""
        return (~self.padding).sum(1)

    @property
    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Every tensor."""
        return self.keys, self.values, self.frames, self.cells, self.chosen, self.padding


def choose(scores: Tensor, barred: Tensor, count: int | Tensor) -> tuple[Tensor, Tensor]:
    """The tokens with the largest scores, in order; ties go to the older one.

    Args:
        scores: fp32 [B, T].
        barred: Those that may not be chosen, bool [B, T].
        count: How many to choose, of each row [B, 1] or of all.

    Returns:
        Indices int64 [B, C] ascending, C as many as the longest row has, and which of them are none: bool.
    """
    ranked = scores.masked_fill(barred, -math.inf).sort(dim=1, descending=True, stable=True).indices
    none = barred.gather(1, ranked) | (torch.arange(scores.shape[1], device=scores.device) >= count)
    index = ranked.masked_fill(none, scores.shape[1]).sort(dim=1).values
    index = index[:, : int((~none).sum(1).max())]
    missing = index == scores.shape[1]
    return index.masked_fill(missing, 0), missing


class DeepForcingCache(LayerCache):
    """Sink, chosen tokens, newest frames."""

    def __init__(self, policy: DeepForcing, geometry: Geometry) -> None:
        self.policy, self.geometry = policy, geometry
        self.tokens = self._fresh((), geometry.empty(), geometry.empty())
        self.queries: Tensor | None = None
        """Sum of the rotated queries of the last clean pass's last frames, fp32 [B, heads, d]."""
        self.shift = [0] * geometry.batch
        """How far each row's sink has moved."""
        self._base: list[int | None] = [None] * geometry.batch

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        """Compress rows whose cache and chunk are too much; show chosen tokens at their own indices, the sink moved."""
        size, sink = self.geometry.tokens_per_frame, self.policy.sink * self.geometry.tokens_per_frame
        dropped: tuple[int, ...] = ()
        compressed = self.tokens.keys.shape[1] + q.shape[1] > self.policy.window * size
        if compressed:
            before = self.tokens.sources()
            self._compress(chunk, q)
            dropped = tuple(sorted(before - self.tokens.sources()))
        tokens = self.tokens
        room = tokens.values.new_empty(tokens.values.shape[0], q.shape[1], *tokens.values.shape[2:])
        values = torch.cat([tokens.values, room], dim=1)
        self.tokens = replace(tokens, values=values[:, : tokens.keys.shape[1]])
        shown = tokens.frames.clone()
        shown[:, :sink] += torch.tensor(self.shift, device=shown.device)[:, None]
        return Past(
            tokens.keys,
            values,
            frames=shown,
            sources=tokens.frames,
            own_frames=chunk.span,
            cells=tokens.cells,
            chosen=tokens.chosen,
            padding=tokens.padding if bool(tokens.padding.any()) else None,
            dropped=dropped,
            events=("compress",) if compressed else (),
        )

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Append the chunk; remember what its last frames asked for."""
        self.tokens = self.tokens.join(self._fresh(chunk.span, k, v))
        asked = (self.policy.recent - CHUNK_FRAMES) * self.geometry.tokens_per_frame
        self.queries = self._sum(q, chunk, asked)

    @property
    def frames(self) -> float:
        """Frames' worth of tokens, of the fullest row."""
        return self.tokens.keys.shape[1] / self.geometry.tokens_per_frame

    @property
    def nbytes(self) -> int:
        """Bytes of K and V."""
        return self.tokens.keys.nbytes + self.tokens.values.nbytes

    @property
    def state_bytes(self) -> int:
        """Bytes of the queries' sum, of where tokens come from and of how often they were chosen."""
        own = 0 if self.queries is None else self.queries.nbytes
        return own + sum(tensor.nbytes for tensor in self.tokens.all[2:])

    def _compress(self, chunk: Chunk, q: Tensor) -> None:
        policy, size = self.policy, self.geometry.tokens_per_frame
        sink, newest = policy.sink * size, (policy.recent - chunk.frames) * size
        total = self.tokens.keys.shape[1]
        middle = self.tokens[sink : total - newest]
        asked = self._sum(q, chunk, q.shape[1])
        if self.queries is not None:
            asked = asked + self.queries
        rotated = self.geometry.rotate(middle.keys, middle.frames, middle.cells)
        scores = torch.einsum("bhd,bthd->bt", asked, rotated.float())
        scores = scores / (math.sqrt(q.shape[-1]) * q.shape[-2])
        full = self.tokens.lengths[:, None] + q.shape[1] > policy.window * size
        count = torch.where(full, (policy.keep - policy.sink - policy.recent) * size, total)
        index, missing = choose(scores, middle.padding | (full & (middle.chosen >= policy.reuse)), count)
        chosen = middle.gather(index, missing)
        chosen = replace(chosen, chosen=chosen.chosen + full)
        self.tokens = self.tokens[:sink].join(chosen, self.tokens[total - newest :])
        for row in full[:, 0].nonzero()[:, 0].tolist():
            self._move_sink(row, chunk.first - int(self.tokens.lengths[row]) // size - chunk.frames)

    def _move_sink(self, row: int, target: int) -> None:
        """A row's sink moves by as much as `target` did, the frame that is as far back as the row is long."""
        base = self._base[row]
        self.shift[row] += self.policy.window - self.policy.keep if base is None else target - base
        self._base[row] = target

    def _sum(self, q: Tensor, chunk: Chunk, last: int) -> Tensor:
        """Sum of the last `last` queries, rotated to the chunk's own indices: fp32 [B, heads, d]."""
        table = self.geometry.rope.grid(chunk.span, self.geometry.device)
        return rotate(q, table)[:, q.shape[1] - last :].float().sum(1)

    def _fresh(self, sources: tuple[int, ...], k: Tensor, v: Tensor) -> Tokens:
        batch, size, device = k.shape[0], self.geometry.tokens_per_frame, k.device
        frames = torch.tensor(sources, dtype=torch.int64, device=device).repeat_interleave(size).expand(batch, -1)
        cells = torch.arange(size, device=device).repeat(len(sources)).expand(batch, -1)
        chosen = torch.zeros(batch, k.shape[1], dtype=torch.uint8, device=device)
        return Tokens(k, v, frames, cells, chosen, torch.zeros_like(chosen, dtype=torch.bool))
