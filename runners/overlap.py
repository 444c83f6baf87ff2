"""The loop of CausVid: rollouts of a fixed length, each of which begins with the end of the one before."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.policies.base import Chunk, FrameCache
from magbench.runners.rollout import PromptSwitch, Rollout, Step
from magbench.runners.wan.configs import CHUNK_FRAMES


class OverlappingRollouts(Rollout):
    """The last chunk of a rollout that the video goes on from is not part of it: the next rollout's first is.

    That one is not generated: its first frame is decoded and encoded again, the others stay, and a clean pass opens a
    fresh cache with it. A rollout that follows a given history begins in the same way with the history's last chunk.
    Where a video ends decides which chunk is the last, so all chunks that are left have to be asked for in one call.
    """

    _lost: tuple[int, ...] = ()
    """Source frames that the rollout before held and this one lacks, until they have been told."""

    def state(self) -> dict[str, Any]:
        """See `Rollout.state`."""
        return super().state() | {"lost": self._lost}

    def restore(self, state: Mapping[str, Any], switches: Mapping[int, PromptSwitch] | None = None) -> None:
        """See `Rollout.restore`."""
        super().restore(state, switches)
        self._lost = state["lost"]

    def history(self, latents: Tensor) -> Iterator[Step]:
        """See `Rollout.history`; only the last chunk stays in the cache."""
        for given in torch.split(latents, CHUNK_FRAMES, dim=1):
            dropped = self._restart()
            (step,) = super().history(torch.cat([self._first_frame(given), given[:, 1:]], dim=1))
            trace = step.trace.model_copy(update={"dropped": dropped, "events": ("evict",) * bool(dropped)})
            yield Step(given, trace)

    def generate(self, chunks: int, switches: Mapping[int, PromptSwitch] | None = None) -> Iterator[Step]:
        """See `Rollout.generate`."""
        last = self.frames // CHUNK_FRAMES + chunks - 1
        while (index := self.frames // CHUNK_FRAMES) <= last:
            switch = self._switch(index, switches)
            chunk = Chunk(self.frames, CHUNK_FRAMES, "generate", switch is not None, switch is not None and switch.cut)
            step = self._step(chunk, None)
            trace = step.trace.model_copy(update={"dropped": self._lost, "events": ("flush",) * bool(self._lost)})
            step, self._lost = Step(step.latents, trace), ()
            if index < last and self.attention.caches[0].frames > (self.policy.budget or 0):
                step, self._lost = self._start_over(chunk, step)
            yield self._finish(step)

    def _start_over(self, chunk: Chunk, step: Step) -> tuple[Step, tuple[int, ...]]:
        """The chunk that was just made, as the first of a fresh rollout, and the source frames that this one lacks."""
        lost = tuple(frame for frame in self._restart() if frame < chunk.first)
        start = torch.cat([self._first_frame(step.latents), step.latents[:, 1:]], dim=1)
        opened = self._step(replace(chunk, kind="history"), start)
        cost = {
            name: getattr(step.trace, name) + getattr(opened.trace, name) for name in ("ms", "passes", "keys_passes")
        }
        return Step(start, step.trace.model_copy(update=cost)), lost

    def _restart(self) -> tuple[int, ...]:
        """Empty the cache; returns the source frames it held."""
        cache = self.attention.caches[0]
        held = cache.sources if isinstance(cache, FrameCache) else ()
        self.attention = self._empty_cache()
        return held

    def _first_frame(self, latents: Tensor) -> Tensor:
        if self.reencode is None:
            raise ConfigError("rollouts that start over decode and encode a frame, and the model can't.")
        return self.reencode(latents)
