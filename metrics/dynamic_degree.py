"""VBench's dynamic degree: is there motion, by optical flow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.raft import SMALLEST
from magbench.metrics.vbench import VBENCH
from magbench.metrics.vbench_frames import kept_every
from magbench.records import Series

TOP = 0.05
"""Share of a frame's pixels whose flow counts, the fastest."""


class DynamicDegree(Metric):
    """VBench's `dynamic_degree`: 1 if enough pairs of frames have fast pixels, else 0.

    Every k-th frame is kept, k = round(fps / 8) and at least 1. Of each pair of kept neighbours the fastest 5 % of the
    pixels are averaged: RAFT trained on FlyingThings, 20 updates, frames padded to multiples of 8. The pair is a hit
    above 6 * short side / 256 pixels, and the video is dynamic with round(n / 4) hits for n kept frames. `hits` is the
    share of pairs that are hits; the series are the pixels per pair.

    The threshold is in pixels per kept pair, so a wrong frame rate in the file changes the verdict; a camera pan counts
    as dynamic; two kept frames are dynamic whatever they show, which is warned of. RAFT costs about six times ViT-L/14
    per frame, see docs/learned_metrics.md. `motion@default` is continuous and cheap.
    """

    name = "dynamic_degree"
    profile = VBENCH
    title = "VBench 0.1.5 dynamic degree (RAFT, 20 updates: needs a GPU to be practical)"
    clock = "every round(fps / 8)-th frame"
    needs = Needs(features=("magbench.metrics.raft:raft_things",))
    reductions = (Declared("dynamic", "higher", "", 0, 1), Declared("hits", "none", "", 0, 1))
    licence = "BSD-3-Clause"

    def start(self, info: Info) -> NotApplicable | None:
        """Only for frames that RAFT can read."""
        super().start(info)
        if min(info.width, info.height) <= SMALLEST - 8:
            return NotApplicable(
                f"RAFT reads frames of at least {SMALLEST}x{SMALLEST}, this one is {info.width}x{info.height}"
            )
        self._every = kept_every(info.fps)
        self._seen = self._kept = 0
        self._last: Tensor | None = None
        self._times: list[float] = []
        self._speeds: list[float] = []
        return None

    def update(self, item: Clip) -> None:
        """Flow between the frames that are kept."""
        indices = tuple(range(-self._seen % self._every, len(item), self._every))
        self._seen += len(item)
        self._kept += len(indices)
        if not indices:
            return
        kept = item.pick(indices)
        frames, times = kept.frames, kept.times
        if self._last is None:
            times = times[1:]
        else:
            frames = torch.cat([self._last, frames])
        self._last = frames[-1:].clone()
        if times:
            pairs = Clip(kept.first, tuple(range(len(frames))), frames, None, item.extractors)
            self._times += times
            self._speeds += fastest(pairs.feature(self.needs.features[0])).tolist()

    def finish(self) -> Scores | NotApplicable:
        """Decide."""
        if not self._kept:
            return NotApplicable("there are no generated frames to compare")
        short = min(self.info.width, self.info.height)
        hits = [speed > threshold(short) for speed in self._speeds]
        return Scores(
            {
                "dynamic": float(is_dynamic(hits, self._kept)),
                "hits": sum(hits) / len(hits) if hits else NotApplicable("one frame is kept: there is no pair"),
            },
            (Series(name="fastest 5 %", times=tuple(self._times), values=tuple(self._speeds), unit="px"),),
            ("two frames are kept: VBench calls any such video dynamic",) if self._kept == 2 else (),
        )


def fastest(flow: Tensor) -> Tensor:
    """Mean length of the longest 5 % of the flow vectors: float32 [n, 2, h, w] to [n], in pixels."""
    lengths = flow.square().sum(1).sqrt().flatten(1)
    return lengths.topk(int(lengths.shape[1] * TOP)).values.mean(1)


def threshold(short_side: int) -> float:
    """Pixels per pair of kept frames above which a pair is a hit."""
    return 6.0 * short_side / 256.0


def is_dynamic(hits: Sequence[bool], kept: int) -> bool:
    """The verdict on a video of `kept` frames and one hit or miss per pair."""
    return bool(hits) and sum(hits) >= round(kept / 4)
