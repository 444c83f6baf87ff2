"""What a training step of the transformer sees.

Every cache of a rollout is something training shows: first chunks from text alone; short clips; windows of 21 or 24
frames, contiguous, or sink + recent shown at contiguous indices, or sink + recent at their own indices; and long clips
up to the trained span, mostly of cameras that return to where they were.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from magbench.runners.wan.configs import CHUNK_FRAMES

TRAINED_SPAN = 129
"""Latent frames of the longest clip: a `full` cache is in distribution up to here."""
SINK = 3


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of batches from step `since` on; long clips get the rest.

    Args:
        since: First step.
        starts: Share of first chunks.
        short: Of the others, share of clips of 6 frames.
        windows: Of the others, share of windows.
        layout: Share of the noise levels that are drawn where a picture's layout is decided; twice that for `starts`.
    """

    since: int
    starts: float
    short: float
    windows: float
    layout: float


MIXES = (Mix(0, 0, 0.4, 0.4, 0), Mix(1300, 0.2, 0.4, 0.4, 0.25), Mix(2700, 0.1, 0.22, 0.38, 0.25))
"""Everything at first; then the layout, because with only relative positions, what is up and what is down in a frame
of pure noise is learned last; then memory."""

_RETURNING = 0.7
_LONG_CHUNKS = 16


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    Args:
        clips: Indices of the clips, [B].
        frames: Which of their frames, [B, F].
        shown: The time index at which each frame is shown.
        chunks: Indices of the chunks to denoise.
        layout: Share of the noise levels drawn where the layout is decided.
    """

    clips: Tensor
    frames: Tensor
    shown: tuple[int, ...]
    chunks: list[int]
    layout: float


def draw_batch(returning: Tensor, step: int, generator: torch.Generator) -> Batch:
    """Draw one batch; `returning` bool [N] marks the clips whose camera comes back."""

    def below(limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, shape, generator=generator)

    def chance() -> float:
        return float(torch.rand((), generator=generator))

    def window(length: int, size: int) -> Tensor:
        return below(TRAINED_SPAN - length + 1, size, 1) + torch.arange(length)

    mix = next(mix for mix in reversed(MIXES) if step >= mix.since)
    count = len(returning)
    if mix.starts and chance() < mix.starts:
        return Batch(below(count, 160), window(CHUNK_FRAMES, 160), tuple(range(CHUNK_FRAMES)), [0], 2 * mix.layout)
    kind = chance()
    if kind < mix.short:
        return Batch(below(count, 48), window(6, 48), tuple(range(6)), [0, 1], mix.layout)
    if kind < mix.short + mix.windows:
        length = 21 + CHUNK_FRAMES * int(below(2))
        clips, chunks, shown = below(count, 16), list(range(length // CHUNK_FRAMES)), tuple(range(length))
        mode, recent = int(below(3)), length - SINK
        if mode == 0:
            return Batch(clips, window(length, 16), shown, chunks, mix.layout)
        late = SINK + below(TRAINED_SPAN - recent - SINK + 1, 16 if mode == 1 else 1, 1) + torch.arange(recent)
        frames = torch.cat([torch.arange(SINK).expand(16, -1), late.expand(16, -1)], 1)
        return Batch(clips, frames, shown if mode == 1 else tuple(frames[0].tolist()), chunks, mix.layout)
    length, size = ((TRAINED_SPAN, 4), (84, 6), (48, 10))[int(below(3))]
    pool = returning.nonzero()[:, 0] if chance() < _RETURNING else torch.arange(count)
    chunks = torch.randperm(length // CHUNK_FRAMES, generator=generator)[:_LONG_CHUNKS].sort().values.tolist()
    return Batch(pool[below(len(pool), size)], window(length, size), tuple(range(length)), chunks, mix.layout)
