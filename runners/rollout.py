"""The chunk loop: a transformer, a cache policy and a sampler make video latents, chunk by chunk."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.records import TraceRecord
from magbench.registry import load_object
from magbench.runners.policies.base import MEMORY, CachePolicy, Chunk, Geometry, LayerCache, Past
from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.runners.wan.rope import Rope, rotate
from magbench.runners.wan.sampler import NoiseSource, Sampler
from magbench.runners.wan.transformer import CausalWanTransformer, TextCache, attention

if TYPE_CHECKING:
    from magbench.runners.models import VideoModel


class CachedAttention:
    """The `attend` of a rollout: each layer's past, rotated once per chunk, and the chunk's own tokens behind it.

    Args:
        caches: One per layer.
        geometry: Of the caches.
    """

    def __init__(self, caches: list[LayerCache], geometry: Geometry) -> None:
        self.caches, self.geometry = caches, geometry
        self._buffers: dict[int, _Buffer] = {}
        self.committing = False

    def begin(self, chunk: Chunk) -> None:
        """Start a chunk: the next pass asks each cache for its past."""
        self.chunk = chunk
        self._buffers = {}
        self.committing = False
        self.past_tokens = 0
        """Most past tokens any layer shows to this chunk."""

    def commit_next_pass(self) -> None:
        """Make the next pass write the caches."""
        self.committing = True

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend to the past and the chunk itself; un-rotated [B, L, heads, d] in, [B, L, heads, d] out."""
        if layer not in self._buffers:
            self._open(layer, q, k)
        out = self._buffers[layer].attend(q, k, v)
        if self.committing:
            del self._buffers[layer]
            self.caches[layer].commit(self.chunk, q, k, v)
        return out

    def _open(self, layer: int, q: Tensor, k: Tensor) -> Past:
        past = self.caches[layer].past(self.chunk, q, k)
        self.past_tokens = max(self.past_tokens, past.keys.shape[1])
        if layer == 0:
            nothing = past.keys.new_empty(0)
            self.shown = replace(past, keys=nothing, values=nothing)
            """What layer 0 shows to this chunk; its keys and values are not kept."""
        self._buffers[layer] = _Buffer(past, q.shape[1], self.geometry)
        return past


class _Buffer:
    """Rotated past keys and the values, with room for the chunk's own at the end."""

    def __init__(self, past: Past, own: int, geometry: Geometry) -> None:
        batch, self.past, *head = past.keys.shape
        self.hidden = past.hide_own * geometry.tokens_per_frame
        self.table = geometry.rope.grid(past.own_frames, geometry.device)
        room = past.keys.new_empty(batch, own - self.hidden, *head)
        self.keys = torch.cat([geometry.rotate(past.keys, past.frames, past.cells), room], dim=1)
        roomy = past.values.shape[1] == self.keys.shape[1]
        self.values = past.values if roomy else torch.cat([past.values, room], dim=1)
        self.mask: Tensor | None = None
        if past.padding is not None:
            own_mask = past.padding.new_ones(batch, room.shape[1])
            self.mask = torch.cat([~past.padding, own_mask], dim=1)[:, None, None]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.keys[:, self.past :] = rotate(k, self.table)[:, self.hidden :]
        self.values[:, self.past :] = v[:, self.hidden :]
        return attention(rotate(q, self.table), self.keys, self.values, self.mask)


MakeAttention = Callable[[list[LayerCache], Geometry], CachedAttention]


@dataclass(frozen=True)
class Step:
    """One finished chunk, or a re-cache, which adds no frame."""

    latents: Tensor
    """Clean latents [B, F, C, H, W]: generated, or the history as given."""
    trace: TraceRecord
    """What the chunk cost. Bytes are per sample; `ms` is the wall time of the whole batch, its B samples together."""


def begin(
    model: "VideoModel",
    policy: CachePolicy,
    prompts: Sequence[str],
    noise: NoiseSource,
    stride: int = 1,
    truth: Tensor | None = None,
    attention: MakeAttention = CachedAttention,
) -> "Rollout":
    """The rollout that a policy runs in, on a whole model.

    Args:
        model: With transformer, sampler, text encoder and codec.
        policy: Names its rollout.
        prompts: One per row of the batch.
        noise: See `Rollout`.
        stride: Pixel frames per latent frame after the first.
        truth: See `Rollout`.
        attention: See `Rollout`.

    Raises:
        ConfigError: a prompt the model can't read, or something the policy needs is not there.
    """

    def reencode(latents: Tensor) -> Tensor:
        back = stride * (latents.shape[1] - 1) + 1
        frames = [model.decode(row)[-back:][:1] for row in latents]
        return torch.stack([model.encode(frame) for frame in frames]).to(latents)

    memory = None
    if policy.writer == "memory" and model.memory is not None:
        memory = Writer(model.memory, model.memory.encode_text(model.rows([""] * len(prompts))))
    loop: type[Rollout] = load_object(policy.rollout)
    return loop(
        model.transformer,
        policy,
        model.sampler,
        model.text(prompts),
        noise,
        model.latent_size,
        memory=memory,
        truth=truth,
        reencode=reencode,
        attention=attention,
    )


@dataclass(frozen=True)
class PromptSwitch:
    """Another prompt from a chunk on."""

    text: TextCache
    """For every network that sees a prompt, one of a batch like the first."""
    cut: bool = False
    """Whether a new shot begins."""


@dataclass(frozen=True)
class Writer:
    """A second network that writes the cache."""

    network: CausalWanTransformer
    text: TextCache
    """Of the empty prompt."""

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return sum(weight.nbytes for weight in self.network.parameters())


class Rollout:
    """One batch of videos in the making, chunk by chunk.

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
        memory: The second network, for policies whose `writer` it is.
        truth: Latents [B, F, C, H, W] of the whole video, written into the cache in the place of what is generated;
            None writes what is generated.
        reencode: The last chunk's latents [B, F, C, H, W] -> its first frame decoded and encoded as the first of a
            video, [B, 1, C, H, W]; for rollouts that start over.
        attention: Makes the `attend` of the rollout, and of what starts over in it.

    Raises:
        ConfigError: the policy needs the memory or the truth, and it isn't there.
    """

    def __init__(
        self,
        model: CausalWanTransformer,
        policy: CachePolicy,
        sampler: Sampler,
        text: TextCache,
        noise: NoiseSource,
        size: tuple[int, int],
        *,
        memory: Writer | None = None,
        truth: Tensor | None = None,
        reencode: Callable[[Tensor], Tensor] | None = None,
        attention: MakeAttention = CachedAttention,
    ) -> None:
        self.model, self.policy, self.sampler = model, policy, sampler
        self.text, self.noise, self.reencode = text, noise, reencode
        if policy.writer == "memory" and memory is None:
            raise ConfigError(
                "this cache is written by a memory network, and the model has none.", "use writer=generator"
            )
        self.memory = memory if policy.writer == "memory" else None
        if policy.writes_truth and truth is None:
            raise ConfigError("this cache is written from the ground truth, and there is none.", "use a mag-bench case")
        self.truth = truth
        config, keys = model.config, text[0][0]
        self.geometry = Geometry(
            batch=keys.shape[0],
            heads=config.heads,
            rope=Rope(config.head_dim, size[0] // config.patch[1], size[1] // config.patch[2]),
            dtype=keys.dtype,
            device=keys.device,
        )
        self._make_attention = attention
        self.attention = self._empty_cache()
        self.frames = 0
        """Latent frames so far."""
        self._newest: Tensor | None = None
        self._switched: int | None = None
        """The chunk that the prompt as it is now began with, where it isn't the first prompt."""

    def state(self) -> dict[str, Any]:
        """What it takes to go on behind the last chunk: for `restore`, and for `pack`."""
        return {
            "frames": self.frames,
            "newest": self._newest,
            "switched": self._switched,
            "caches": [cache.state() for cache in self.attention.caches],
        }

    def restore(self, state: Mapping[str, Any], switches: Mapping[int, PromptSwitch] | None = None) -> None:
        """Go on where a rollout of the same arguments was left.

        Args:
            state: Its `state`, taken between two chunks.
            switches: As for `generate`.
        """
        self.frames, self._newest, self._switched = (state[name] for name in ("frames", "newest", "switched"))
        if self._switched is not None:
            self.text = (switches or {})[self._switched].text
        for cache, held in zip(self.attention.caches, state["caches"], strict=True):
            cache.restore(held)

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
            yield self._finish(self._step(Chunk(self.frames, CHUNK_FRAMES, "history"), given))

    def generate(self, chunks: int, switches: Mapping[int, PromptSwitch] | None = None) -> Iterator[Step]:
        """Make the next `chunks` chunks, each as soon as it is asked for.

        Args:
            chunks: How many.
            switches: Prompt switches by the chunk they begin with, counted from the start of the video.
        """
        for _ in range(chunks):
            switch = self._switch(self.frames // CHUNK_FRAMES, switches)
            if switch and self.policy.recache_frames and self._newest is not None:
                yield self._recache(self._newest)
            chunk = Chunk(self.frames, CHUNK_FRAMES, "generate", switch is not None, switch is not None and switch.cut)
            yield self._finish(self._step(chunk, None))

    def _switch(self, index: int, switches: Mapping[int, PromptSwitch] | None) -> PromptSwitch | None:
        """Turn to the prompt that begins with this chunk, where one does."""
        switch = (switches or {}).get(index)
        if switch:
            self.text, self._switched = switch.text, index
        return switch

    @torch.inference_mode()
    def _step(self, chunk: Chunk, given: Tensor | None) -> Step:
        """Run a chunk: noisy passes unless its latents are given, then the clean pass that writes the cache."""
        start = self._clock()
        self.attention.begin(chunk)
        clean = self._denoise(chunk.first // CHUNK_FRAMES) if given is None else given
        self._write(clean, chunk)
        passes = 1 + (len(self.sampler.timesteps) if given is None else 0)
        seen = passes * self._keys() * chunk.frames / CHUNK_FRAMES
        return Step(clean, self._trace(chunk, self._clock() - start, passes, seen))

    def _write(self, clean: Tensor, chunk: Chunk) -> None:
        """The clean pass."""
        if self.truth is not None and chunk.kind == "generate":
            clean = self.truth[:, chunk.first : chunk.first + chunk.frames]
        self.attention.commit_next_pass()
        self._flow(clean, [0.0] * clean.shape[1], self.memory)

    def _recache(self, newest: Tensor) -> Step:
        """Encode the newest frames again, with the prompt as it is now."""
        count = newest.shape[1]
        step = self._step(Chunk(self.frames - count, count, "recache"), newest)
        return replace(step, latents=newest[:, :0])

    def _finish(self, step: Step) -> Step:
        """Move on behind a chunk."""
        self.frames += step.latents.shape[1]
        if self.policy.recache_frames:
            known = step.latents if self._newest is None else torch.cat([self._newest, step.latents], dim=1)
            self._newest = known[:, -self.policy.recache_frames :]
        return step

    def _denoise(self, index: int) -> Tensor:
        latents = self.noise(index, 0)
        for step, timestep in enumerate(self.sampler.timesteps):
            flow = self._flow(latents, [timestep] * latents.shape[1])
            latents = self.sampler.step(step, latents, flow, partial(self.noise, index, step + 1))
        return latents

    def _flow(self, latents: Tensor, timesteps: Sequence[float], writer: Writer | None = None) -> Tensor:
        """One pass; `timesteps` has one for each frame."""
        times = torch.tensor(timesteps, dtype=torch.float32, device=latents.device).expand(latents.shape[0], -1)
        network, text = (self.model, self.text) if writer is None else (writer.network, writer.text)
        flow: Tensor = network(latents, times, text, self.attention)
        return flow

    def _empty_cache(self) -> CachedAttention:
        layers = range(self.model.config.layers)
        return self._make_attention([self.policy.layer(self.geometry) for _ in layers], self.geometry)

    def _clock(self) -> float:
        if torch.device(self.geometry.device).type == "cuda":
            torch.cuda.synchronize(self.geometry.device)
        return time.perf_counter()

    def _keys(self) -> float:
        """Key frames that a query of the current chunk sees, its own included."""
        shown = self.attention.shown
        return self.attention.past_tokens / self.geometry.tokens_per_frame + len(shown.own_frames) - shown.hide_own

    def _trace(self, chunk: Chunk, seconds: float, passes: int, keys_passes: float) -> TraceRecord:
        caches, shown = self.attention.caches, self.attention.shown
        size, batch = self.geometry.tokens_per_frame, self.geometry.batch
        sources = shown.sources if shown.padding is None else shown.sources[~shown.padding]
        return TraceRecord(
            chunk=chunk.first // CHUNK_FRAMES,
            kind="generate" if chunk.kind == "window" else chunk.kind,
            first_frame=chunk.first,
            frames=chunk.frames,
            ms=seconds * 1000,
            passes=passes,
            keys_passes=keys_passes,
            past_frames=self.attention.past_tokens / size,
            cached_frames=max(cache.frames for cache in caches),
            cache_bytes=sum(cache.nbytes for cache in caches) // batch,
            state_bytes=sum(cache.state_bytes for cache in caches) // batch,
            network_bytes=self.memory.nbytes if self.memory else 0,
            held=tuple(sorted(set(sources.flatten().tolist()) - {MEMORY})),
            folded=shown.folded,
            dropped=shown.dropped,
            events=shown.events,
        )
