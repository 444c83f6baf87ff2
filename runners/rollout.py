"""The chunk loop: a transformer, a cache policy and a sampler make video latents, chunk by chunk."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.records import TraceRecord
from magbench.runners.policies.base import MEMORY, CachePolicy, Chunk, Geometry, LayerCache, Past
from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.runners.wan.rope import Rope, rotate
from magbench.runners.wan.sampler import NoiseSource, Sampler
from magbench.runners.wan.transformer import CausalWanTransformer, TextCache, attention


class CachedAttention:
    """The `attend` of a rollout: each layer's past, rotated once per chunk, and the chunk's own tokens behind it.

    Args:
        caches: One per layer.
        geometry: Of the caches.
    """

    def __init__(self, caches: list[LayerCache], geometry: Geometry) -> None:
        self.caches, self.geometry = caches, geometry
        self._buffers: list[_Buffer] = []
        self._committing = False

    def begin(self, chunk: Chunk) -> None:
        """Start a chunk: the next pass asks each cache for its past."""
        self.chunk = chunk
        self._buffers = []
        self._committing = False
        self.past_tokens = 0
        """Most past tokens any layer shows to this chunk."""

    def commit_next_pass(self) -> None:
        """Make the next pass write the caches."""
        self._committing = True

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend to the past and the chunk itself; un-rotated [B, L, heads, d] in, [B, L, heads, d] out."""
        if layer == len(self._buffers):
            self._open(layer, q, k)
        out = self._buffers[layer].attend(q, k, v)
        if self._committing:
            self.caches[layer].commit(self.chunk, q, k, v)
        return out

    def _open(self, layer: int, q: Tensor, k: Tensor) -> None:
        past = self.caches[layer].past(self.chunk, q, k)
        self.past_tokens = max(self.past_tokens, past.keys.shape[1])
        if layer == 0:
            self.shown = past
            """What layer 0 shows to this chunk."""
        self._buffers.append(_Buffer(past, q.shape[1], self.geometry))


class _Buffer:
    """Rotated past keys and the values, with room for the chunk's own at the end."""

    def __init__(self, past: Past, own: int, geometry: Geometry) -> None:
        self.past = past.keys.shape[1]
        self.hidden = past.hide_own * geometry.tokens_per_frame
        self.table = geometry.rope.grid(past.own_frames, geometry.device)
        room = past.keys.new_empty(past.keys.shape[0], own - self.hidden, *past.keys.shape[2:])
        frames = past.frames.to(geometry.device)
        self.keys = torch.cat([geometry.rotate(past.keys, frames, past.cells), room], dim=1)
        self.values = torch.cat([past.values, room], dim=1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.keys[:, self.past :] = rotate(k, self.table)[:, self.hidden :]
        self.values[:, self.past :] = v[:, self.hidden :]
        return attention(rotate(q, self.table), self.keys, self.values)


@dataclass(frozen=True)
class Step:
    """One finished chunk."""

    latents: Tensor
    """Clean latents [B, F, C, H, W]: generated, or the history as given."""
    trace: TraceRecord
    """What the chunk cost. Bytes are per sample; `ms` is the wall time of the whole batch, its B samples together."""


class Rollout:
    """One batch of videos in the making.

    Rows of the batch share the clock and the policy and nothing else: each comes out as if it ran alone, up to the
    rounding of batched matrix products.

    Args:
        model: In eval mode, on the device and in the dtype to run with.
        policy: Decides what of the past each chunk sees.
        sampler: The noisy passes of a chunk.
        text: From `model.encode_text`, its B is the batch.
        noise: (chunk, step) -> [B, F, C, H, W] in the model's dtype; chunks count from the start of the video, history
            included.
        size: (H, W) of the latents.
    """

    def __init__(
        self,
        model: CausalWanTransformer,
        policy: CachePolicy,
        sampler: Sampler,
        text: TextCache,
        noise: NoiseSource,
        size: tuple[int, int],
    ) -> None:
        self.model, self.sampler, self.text, self.noise = model, sampler, text, noise
        config, keys = model.config, text[0][0]
        self.geometry = Geometry(
            batch=keys.shape[0],
            heads=config.heads,
            rope=Rope(config.head_dim, size[0] // config.patch[1], size[1] // config.patch[2]),
            dtype=keys.dtype,
            device=keys.device,
        )
        self.attention = CachedAttention([policy.layer(self.geometry) for _ in range(config.layers)], self.geometry)
        self.frames = 0
        """Latent frames so far."""

    def history(self, latents: Tensor) -> Iterator[Step]:
        """Put given latents [B, F, C, H, W] into the cache, one clean pass per chunk.

        Raises:
            ConfigError: F is not a multiple of the chunk.
        """
        if latents.shape[1] % CHUNK_FRAMES:
            raise ConfigError(
                f"a history of {latents.shape[1]} latent frames does not split into chunks of {CHUNK_FRAMES}.",
                "give a multiple of the chunk",
            )
        for given in torch.split(latents, CHUNK_FRAMES, dim=1):
            yield self._run(given)

    def generate(self, chunks: int) -> Iterator[Step]:
        """Make the next `chunks` chunks, each as soon as it is asked for."""
        for _ in range(chunks):
            yield self._run(None)

    @torch.inference_mode()
    def _run(self, given: Tensor | None) -> Step:
        chunk = Chunk(self.frames, CHUNK_FRAMES, "history" if given is not None else "generate")
        index = chunk.first // CHUNK_FRAMES
        start = self._clock()
        self.attention.begin(chunk)
        clean = self._denoise(index) if given is None else given
        self.attention.commit_next_pass()
        self._flow(clean, 0.0)
        self.frames += chunk.frames
        passes = 1 + (len(self.sampler.timesteps) if given is None else 0)
        return Step(clean, self._trace(chunk, index, (self._clock() - start) * 1000, passes))

    def _denoise(self, index: int) -> Tensor:
        latents = self.noise(index, 0)
        for step, timestep in enumerate(self.sampler.timesteps):
            flow = self._flow(latents, timestep)
            latents = self.sampler.step(step, latents, flow, partial(self.noise, index, step + 1))
        return latents

    def _flow(self, latents: Tensor, timestep: float) -> Tensor:
        timesteps = torch.full(latents.shape[:2], timestep, dtype=torch.float32, device=latents.device)
        flow: Tensor = self.model(latents, timesteps, self.text, self.attention)
        return flow

    def _clock(self) -> float:
        if torch.device(self.geometry.device).type == "cuda":
            torch.cuda.synchronize(self.geometry.device)
        return time.perf_counter()

    def _trace(self, chunk: Chunk, index: int, ms: float, passes: int) -> TraceRecord:
        caches, shown = self.attention.caches, self.attention.shown
        size, batch = self.geometry.tokens_per_frame, self.geometry.batch
        return TraceRecord(
            chunk=index,
            kind=chunk.kind,
            first_frame=chunk.first,
            frames=chunk.frames,
            ms=ms,
            passes=passes,
            past_frames=self.attention.past_tokens / size,
            cached_frames=max(cache.frames for cache in caches),
            cache_bytes=sum(cache.nbytes for cache in caches) // batch,
            state_bytes=sum(cache.state_bytes for cache in caches) // batch,
            held=tuple(sorted(set(shown.sources.flatten().tolist()) - {MEMORY})),
            folded=shown.folded,
            dropped=shown.dropped,
            events=shown.events,
        )
