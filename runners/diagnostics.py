"""What each chunk of a rollout is shown of the past, and what of it the noisy passes look at.

Every key belongs to one tier, decided by what any policy tells:

* `memory`: made, not cached (`MEMORY`).
* `sink`: its frame is below the policy's `sink`, if it has a parameter or attribute of that name.
* `newly chosen`, `chosen before`: picked one by one (`Past.chosen`), in the last choice for the first time or again.
* `newly cached`: none of these, and from the chunk before, which did not see it.
* `recent`: every other past key; in a cache that keeps everything, all of them.
* `own`: the chunk itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from magbench.records import AGES, ChunkWhy, Tier
from magbench.runners.policies.base import MEMORY, CachePolicy, Chunk, Geometry, LayerCache, Past
from magbench.runners.rollout import CachedAttention
from magbench.runners.wan.rope import rotate
from magbench.runners.wan.transformer import attention

TIERS: tuple[Tier, ...] = get_args(Tier)
SINK, MEMORIES, CHOSEN_BEFORE, NEWLY_CHOSEN, RECENT, NEWLY_CACHED, OWN = range(len(TIERS))
PADDING = -2
"""Source frame of what is no token."""
DIGITS = 5
"""Decimals of what is written down."""


@dataclass
class Look:
    """What one layer shows to one chunk, and how much each part of it is looked at."""

    first: int
    """The chunk's first frame."""
    frames: Tensor
    """Source frame of each past token, `MEMORY`, or `PADDING`: int64 [B, T]."""
    places: Tensor
    """A number for the source frame and cell of each past token, int64 [B, T]."""
    tiers: Tensor
    """Index into `TIERS` of every key, the chunk's own behind the past; padding has any: int64 [B, T + own]."""
    chosen_now: bool
    """Whether tokens have just been chosen."""
    masses: list[Tensor] = field(default_factory=list)
    """Per pass the share of each tier in the attention, [B, tiers]."""

    def add(self, q: Tensor, keys: Tensor, mask: Tensor | None) -> None:
        """Take down a pass. Attention over one-hot values is the attention that each tier gets."""
        values = F.one_hot(self.tiers, len(TIERS)).float()[:, :, None].expand(-1, -1, q.shape[2], -1)
        self.masses.append(attention(q.float(), keys.float(), values, mask).mean((1, 2)))


def look_at(past: Past, chunk: Chunk, geometry: Geometry, sink: int, before: int) -> Look:
    """Take down what a layer shows.

    Args:
        past: What it shows.
        chunk: To whom.
        geometry: Of the cache.
        sink: First frames of the video that never leave.
        before: First frame of the chunk before.
    """
    batch, tokens = past.keys.shape[:2]
    size, zeros = geometry.tokens_per_frame, past.keys.new_zeros(batch, tokens, dtype=torch.int64)

    def per_row(values: Tensor) -> Tensor:
        return zeros + values.to(zeros)

    frames = per_row(past.sources)
    cells = per_row(torch.arange(tokens) % size if past.cells is None else past.cells)
    chosen = zeros if past.chosen is None else per_row(past.chosen)
    tiers = zeros + RECENT
    tiers[frames >= before] = NEWLY_CACHED
    tiers[chosen > 1] = CHOSEN_BEFORE
    tiers[chosen == 1] = NEWLY_CHOSEN
    tiers[frames < sink] = SINK
    tiers[frames == MEMORY] = MEMORIES
    own = tiers.new_full((batch, (len(past.own_frames) - past.hide_own) * size), OWN)
    return Look(
        chunk.first,
        frames if past.padding is None else frames.masked_fill(past.padding, PADDING),
        frames * size + cells,
        torch.cat([tiers, own], dim=1),
        "compress" in past.events,
    )


class Diagnosis:
    """Collects the diagnostics of one rollout; the rollout gets `attention`.

    Args:
        policy: Of the rollout.
        layers: How many the transformer has; the first, the middle and the last are sampled.
    """

    def __init__(self, policy: CachePolicy, layers: int) -> None:
        self.sink: int = getattr(policy, "sink", 0)
        self.looks: dict[int, dict[int, Look]] = {layer: {} for layer in sorted({0, layers // 2, layers - 1})}
        """Layer -> first frame of a chunk -> its look."""

    def attention(self, caches: list[LayerCache], geometry: Geometry) -> CachedAttention:
        """The `attend` of a rollout that is to be diagnosed."""
        return _Diagnosed(self, caches, geometry)

    def open(self, layer: int, chunk: Chunk, past: Past, geometry: Geometry) -> None:
        """A layer shows something to a chunk."""
        looks = self.looks[layer]
        before = max((first for first in looks if first < chunk.first), default=chunk.first)
        looks[chunk.first] = look_at(past, chunk, geometry, self.sink, before)

    def chunks(self, row: int) -> tuple[ChunkWhy, ...]:
        """What is to be said of each chunk, for one row of the batch."""
        layers = [sorted(looks.values(), key=lambda look: look.first) for looks in self.looks.values()]
        pairs = [list(zip([None, *looks], looks, strict=False)) for looks in layers]
        return tuple(_summary(chunk, row) for chunk in zip(*pairs, strict=True))


class _Diagnosed(CachedAttention):
    """Cached attention that tells a diagnosis what the noisy passes see."""

    def __init__(self, diagnosis: Diagnosis, caches: list[LayerCache], geometry: Geometry) -> None:
        super().__init__(caches, geometry)
        self.diagnosis = diagnosis

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = super().__call__(layer, q, k, v)
        if self._watches(layer):
            buffer = self._buffers[layer]
            self.diagnosis.looks[layer][self.chunk.first].add(rotate(q, buffer.table), buffer.keys, buffer.mask)
        return out

    def _open(self, layer: int, q: Tensor, k: Tensor) -> Past:
        past = super()._open(layer, q, k)
        if self._watches(layer):
            self.diagnosis.open(layer, self.chunk, past, self.geometry)
        return past

    def _watches(self, layer: int) -> bool:
        noisy = self.chunk.kind in ("generate", "window") and not self.committing
        return noisy and layer in self.diagnosis.looks


def _summary(layers: Sequence[tuple[Look | None, Look]], row: int) -> ChunkWhy:
    """Means over layers."""
    pairs = [(old, new) for old, new in layers if old is not None]
    overlaps = [_jaccard(_cached(old, row), _cached(new, row, old.first)) for old, new in pairs]
    choices = [(old, new) for old, new in pairs if new.chosen_now]
    looks = [look for _, look in layers]
    mass = torch.stack([torch.stack(look.masses).mean(0)[row] for look in looks]).mean(0)
    keys = torch.stack([_shares(_counts(look, row)) for look in looks]).mean(0)
    ages = torch.stack([_age_shares(look, row) for look in looks]).mean(0)
    return ChunkWhy(
        first_frame=looks[0].first,
        overlap=_mean(overlaps),
        chosen_overlap=_mean([_jaccard(_chosen(old, row), _chosen(new, row)) for old, new in choices]),
        chosen_chance=_mean([_chance(old, new, row) for old, new in choices]),
        ages=tuple(round(share, DIGITS) for share in ages.tolist()),
        keys={tier: round(share, DIGITS) for tier, share in zip(TIERS, keys.tolist(), strict=True) if share},
        mass={tier: round(share, DIGITS) for tier, share in zip(TIERS, mass.tolist(), strict=True) if share},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), DIGITS) if known else None


def _jaccard(one: Tensor, other: Tensor) -> float | None:
    """Common places over all places; None where `one` is empty."""
    common = int(torch.isin(one, other).sum())
    return common / (len(one) + len(other) - common) if len(one) else None


def _cached(look: Look, row: int, until: int | None = None) -> Tensor:
    """Places of the raw past tokens, or of those from before frame `until`."""
    frames = look.frames[row]
    raw = frames >= 0
    return look.places[row][raw if until is None else raw & (frames < until)]


def _chosen(look: Look, row: int) -> Tensor:
    tiers = look.tiers[row][: look.frames.shape[1]]
    return look.places[row][(look.frames[row] >= 0) & ((tiers == CHOSEN_BEFORE) | (tiers == NEWLY_CHOSEN))]


def _chance(old: Look, new: Look, row: int) -> float | None:
    """Jaccard index of two choices with the mean number of common tokens that a random choice has.

    Whatever was cached of the past and of the chunk before can be chosen, but the sink and what stays as a whole.
    """
    before, now = len(_chosen(old, row)), len(_chosen(new, row))
    cached = _counts(old, row)[[CHOSEN_BEFORE, NEWLY_CHOSEN, RECENT, NEWLY_CACHED, OWN]].sum()
    common = before * now / float(cached - _counts(new, row)[[RECENT, NEWLY_CACHED]].sum())
    return common / (before + now - common) if before else None


def _counts(look: Look, row: int) -> Tensor:
    """Visible keys of each tier."""
    visible = F.pad(look.frames[row], (0, look.tiers.shape[1] - look.frames.shape[1])) != PADDING
    return look.tiers[row][visible].bincount(minlength=len(TIERS))


def _shares(counts: Tensor) -> Tensor:
    return counts / counts.sum()


def _age_shares(look: Look, row: int) -> Tensor:
    """Share of each bin of `AGES` in the past tokens, memories last."""
    frames = look.frames[row][look.frames[row] != PADDING]
    edges = torch.tensor(AGES, device=frames.device)
    bins = torch.bucketize(look.first - frames[frames >= 0], edges, right=True) - 1
    counts = torch.cat([bins.bincount(minlength=len(AGES)), (frames == MEMORY).sum()[None]])
    return counts / counts.sum().clamp(min=1)
