"""The loop of Rolling Forcing: a window of chunks, each a noise level cleaner than the next, moves over the video."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.records import TraceRecord
from magbench.runners.policies.base import Chunk, FrameCache
from magbench.runners.rollout import PromptSwitch, Rollout, Step
from magbench.runners.wan.configs import CHUNK_FRAMES


class RollingWindow(Rollout):
    """One pass denoises all chunks of the window a step further; then its first chunk, as clean as it is, is encoded.

    A chunk enters as pure noise and is finished when it is the window's first at the last noise level: as many windows
    later as the sampler has steps. At the end of the video the window runs empty, so all chunks that are left have to
    be asked for in one call.
    """

    _noisy: dict[int, Tensor] | None = None
    """The chunks by their index that are in the window beside the one that was finished last."""

    def state(self) -> dict[str, Any]:
        """See `Rollout.state`."""
        return super().state() | {"noisy": self._noisy}

    def restore(self, state: Mapping[str, Any], switches: Mapping[int, PromptSwitch] | None = None) -> None:
        """See `Rollout.restore`."""
        super().restore(state, switches)
        self._noisy = state["noisy"]

    def generate(self, chunks: int, switches: Mapping[int, PromptSwitch] | None = None) -> Iterator[Step]:
        """See `Rollout.generate`.

        Raises:
            ConfigError: the sampler has more steps than the policy's window has room for.
        """
        levels, start = len(self.sampler.timesteps), self.frames // CHUNK_FRAMES
        room = (self.policy.budget or 0) // CHUNK_FRAMES
        if levels > room:
            raise ConfigError(
                f"{levels} noisy chunks, one per step of the sampler, do not fit into {room} beside the anchor.",
                f"give rolling-forcing a budget of {levels * CHUNK_FRAMES} frames or more",
            )
        end = start + chunks
        opened, noisy = start + (levels - 1) * bool(self._noisy), self._noisy or {}
        self._noisy = noisy
        seconds, passes, seen = 0.0, 0, 0.0
        dropped: tuple[int, ...] = ()
        for newest in range(opened, end + levels - 1):
            members = range(max(start, newest - levels + 1), min(end, newest + 1))
            if newest in members:
                noisy[newest] = self.noise(newest, 0)
                self._switch(newest, switches)
            step = self._roll(members, newest, noisy)
            seconds += step.trace.ms / 1000
            passes += step.trace.passes
            seen += step.trace.keys_passes
            dropped += step.trace.dropped
            if newest - members[0] == levels - 1:
                del noisy[members[0]]
                cost = {"ms": 1000 * seconds, "passes": passes, "keys_passes": seen}
                lost = {"dropped": dropped, "events": ("evict",) * bool(dropped)}
                yield self._finish(replace(step, trace=step.trace.model_copy(update={**cost, **lost})))
                seconds, passes, seen, dropped = 0.0, 0, 0.0, ()

    @torch.inference_mode()
    def _roll(self, members: range, newest: int, noisy: dict[int, Tensor]) -> Step:
        """One window of chunks `members`, of which chunk `newest` is, or would be, pure noise."""
        begun, first = self._clock(), members[0] * CHUNK_FRAMES
        levels = [newest - member for member in members]
        self.attention.begin(Chunk(first, len(members) * CHUNK_FRAMES, "window"))
        timesteps = [self.sampler.timesteps[level] for level in levels for _ in range(CHUNK_FRAMES)]
        flow = self._flow(torch.cat([noisy[member] for member in members], dim=1), timesteps)
        seen, shown, past_tokens = self._keys() * len(members), self.attention.shown, self.attention.past_tokens
        flows = dict(zip(members, torch.split(flow, CHUNK_FRAMES, dim=1), strict=True))
        clean = self.sampler.clean(levels[0], noisy[members[0]], flows[members[0]])
        for level, member in zip(levels, members, strict=True):
            fresh = partial(self.noise, member, level + 1)
            noisy[member] = self.sampler.step(level, noisy[member], flows[member], fresh)
        self.attention.begin(Chunk(first, CHUNK_FRAMES, "history"))
        self._write(clean, self.attention.chunk)
        seen += self._keys()
        self.attention.shown, self.attention.past_tokens = shown, max(past_tokens, self.attention.past_tokens)
        chunk = Chunk(first, CHUNK_FRAMES, "generate")
        return Step(clean, self._trace(chunk, self._clock() - begun, 2, seen))

    def _trace(self, chunk: Chunk, seconds: float, passes: int, keys_passes: float) -> TraceRecord:
        """See `Rollout`; cached frames are held where no pass sees them, too, as the anchor in a history."""
        trace, cache = super()._trace(chunk, seconds, passes, keys_passes), self.attention.caches[0]
        sources = cache.sources if isinstance(cache, FrameCache) else trace.held
        return trace.model_copy(update={"held": tuple(frame for frame in sources if frame < chunk.first)})
