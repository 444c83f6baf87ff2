"""What a training step of the transformer sees.

Every cache of a rollout is something training shows: first chunks from text alone; short clips; windows of 21 or 24
frames, contiguous, or sink + recent shown at contiguous indices, or sink + recent at their own indices; and long clips
up to the trained span, mostly of cameras that turn around midway, denoised mostly after the turn: there only the cache
knows what comes.
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
        turning: Share of the contiguous windows in which the camera turns around in the middle.
    """

    since: int
    starts: float
    short: float
    windows: float
    layout: float
    turning: float = 0.0


MIXES = (
    Mix(0, 0, 0.3, 0.4, 0),
    Mix(900, 0.2, 0.3, 0.35, 0.25),
    Mix(1450, 0.05, 0.08, 0.27, 0.25, turning=0.8),
    Mix(1800, 0.03, 0.05, 0.22, 0.45, turning=0.9),
)
"""Everything at first; then the layout, because with only relative positions, what is up and what is down in a frame
of pure noise is learned last; then memory."""

_TURNING = 0.8
_LONG_CHUNKS = 16
_BEFORE_THE_TURN = 4


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


def draw_batch(turns: Tensor, step: int, generator: torch.Generator) -> Batch:
    """Draw one batch; `turns` int64 [N] is the frame at which a clip's camera turns around, -1 if it never does."""

    def below(limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, shape, generator=generator)

    def chance() -> float:
        return float(torch.rand((), generator=generator))

    def window(length: int, size: int) -> Tensor:
        return below(TRAINED_SPAN - length + 1, size, 1) + torch.arange(length)

    def around(clips: Tensor, length: int) -> Tensor:
        """Frames [B, length] with the turn near the middle, or anywhere in clips that never turn."""
        turn = turns[clips, None]
        middle = turn - length // CHUNK_FRAMES // 2 * CHUNK_FRAMES + below(13, len(clips), 1) - 6
        first = torch.where(turn < 0, below(TRAINED_SPAN, len(clips), 1), middle)
        return first.clamp(0, TRAINED_SPAN - length) + torch.arange(length)

    mix = next(mix for mix in reversed(MIXES) if step >= mix.since)
    count, turning = len(turns), (turns >= 0).nonzero()[:, 0]
    if mix.starts and chance() < mix.starts:
        return Batch(below(count, 160), window(CHUNK_FRAMES, 160), tuple(range(CHUNK_FRAMES)), [0], 2 * mix.layout)
    kind = chance()
    if kind < mix.short:
        return Batch(below(count, 48), window(6, 48), tuple(range(6)), [0, 1], mix.layout)
    if kind < mix.short + mix.windows:
        length = 21 + CHUNK_FRAMES * int(below(2))
        clips, chunks, shown = below(count, 16), list(range(length // CHUNK_FRAMES)), tuple(range(length))
        mode, recent = int(below(3)), length - SINK
        if mode == 0 and mix.turning and chance() < mix.turning:
            clips = turning[below(len(turning), 16)]
            return Batch(clips, around(clips, length), shown, chunks, mix.layout)
        if mode == 0:
            return Batch(clips, window(length, 16), shown, chunks, mix.layout)
        late = SINK + below(TRAINED_SPAN - recent - SINK + 1, 16 if mode == 1 else 1, 1) + torch.arange(recent)
        frames = torch.cat([torch.arange(SINK).expand(16, -1), late.expand(16, -1)], 1)
        return Batch(clips, frames, shown if mode == 1 else tuple(frames[0].tolist()), chunks, mix.layout)
    length, size = ((TRAINED_SPAN, 4), (84, 6), (48, 10))[int(below(3))]
    half, last = length // CHUNK_FRAMES // 2, length // CHUNK_FRAMES
    after = _LONG_CHUNKS - _BEFORE_THE_TURN
    picked = torch.randperm(half, generator=generator)[:_BEFORE_THE_TURN].tolist()
    picked += [half + i for i in torch.randperm(last - half, generator=generator)[:after].tolist()]
    clips = turning[below(len(turning), size)] if chance() < _TURNING else below(count, size)
    return Batch(clips, around(clips, length), tuple(range(length)), sorted(picked), mix.layout)
