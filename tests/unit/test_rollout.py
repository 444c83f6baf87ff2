"""The chunk loop against a rollout without any cache, and the corners of the contract no shipped policy uses."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, Past
from magbench.runners.policies.fifo import Fifo
from magbench.runners.policies.full import Full
from magbench.runners.policies.memrope import MemRope
from magbench.runners.rollout import Rollout, Step
from magbench.runners.wan.configs import TransformerConfig
from magbench.runners.wan.rope import Rope, rotate
from magbench.runners.wan.sampler import FewStepSampler, OdeSampler, Sampler, seeded_noise
from magbench.runners.wan.transformer import CausalWanTransformer, attention

CONFIG = TransformerConfig(dim=24, ffn_dim=32, heads=2, layers=2, text_dim=8, text_len=4, freq_dim=16)
SHAPE = (3, 16, 4, 6)
SIZE = 6
ODE = OdeSampler(steps=2)


def model() -> CausalWanTransformer:
    torch.manual_seed(0)
    return CausalWanTransformer(CONFIG).eval().requires_grad_(False)


def text(batch: int = 2) -> Tensor:
    return torch.randn(batch, 4, 8, generator=torch.Generator().manual_seed(1))


def history(frames: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, frames, *SHAPE[1:], generator=torch.Generator().manual_seed(2))


def start(policy: CachePolicy, sampler: Sampler = ODE) -> Rollout:
    transformer = model()
    return Rollout(transformer, policy, sampler, transformer.encode_text(text()), seeded_noise((1, 2), SHAPE), (4, 6))


def cacheless(chunks: int, visible: Callable[[int, int], bool]) -> Tensor:
    """Every pass runs the whole video so far, clean frames at t = 0, with a mask instead of a cache.

    `visible(query chunk, key frame)` says what a chunk sees besides itself.
    """
    transformer, noise, done = model(), seeded_noise((1, 2), SHAPE), torch.empty(2, 0, *SHAPE[1:])
    rope, rows = Rope(12, 2, 3), transformer.encode_text(text())
    for chunk in range(chunks):
        frames = 3 * chunk + 3
        mask = torch.tensor(
            [[k // 3 == q // 3 or (k < q and visible(q // 3, k)) for k in range(frames)] for q in range(frames)]
        )
        mask = mask.repeat_interleave(SIZE, 0).repeat_interleave(SIZE, 1)
        table = rope.grid(tuple(range(frames)))

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, table: Tensor = table, mask: Tensor = mask) -> Tensor:
            return attention(rotate(q, table), rotate(k, table), v, mask)

        noisy = noise(chunk, 0)
        for timestep, after in zip((1000.0, 500.0), (500.0, 0.0), strict=True):
            timesteps = torch.zeros(2, frames)
            timesteps[:, -3:] = timestep
            flow = transformer(torch.cat([done, noisy], 1), timesteps, rows, attend)[:, -3:]
            noisy = noisy + (after - timestep) / 1000 * flow
        done = torch.cat([done, noisy], 1)
    return done


def latents(steps: list[Step]) -> Tensor:
    return torch.cat([step.latents for step in steps], 1)


def test_full_cache_equals_a_causal_mask() -> None:
    expected = cacheless(4, lambda chunk, frame: True)
    torch.testing.assert_close(latents([*start(Full()).generate(4)]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("window", "sink"), [(6, 0), (9, 3), (7, 1)])
def test_fifo_equals_a_banded_mask(window: int, sink: int) -> None:
    def visible(chunk: int, frame: int) -> bool:
        return frame < sink or frame >= 3 * chunk + 3 - (window - sink)

    steps = [*start(Fifo(window=window, sink=sink)).generate(5)]
    torch.testing.assert_close(latents(steps), cacheless(5, visible), atol=1e-5, rtol=0)
    assert (latents(steps) - latents([*start(Full()).generate(5)])).abs().max() > 1e-3


def test_all_policies_agree_until_the_window_is_full() -> None:
    whole = latents([*start(Full()).generate(4)])
    for policy in (Fifo(), MemRope(), MemRope(memory="none")):
        torch.testing.assert_close(latents([*start(policy).generate(4)]), whole, atol=1e-6, rtol=0)
        assert (latents([*start(policy).generate(5)])[:, 12:] - latents([*start(Full()).generate(5)])[:, 12:]).any()


def test_history_is_put_in_the_cache_in_one_pass_per_chunk() -> None:
    run = start(Full())
    given = [*run.history(history(6))]
    assert torch.equal(latents(given), history(6))
    assert [(step.trace.kind, step.trace.passes, step.trace.first_frame) for step in given] == [
        ("history", 1, 0),
        ("history", 1, 3),
    ]
    made = next(run.generate(1))
    assert (made.trace.kind, made.trace.passes, made.trace.chunk, made.trace.past_frames) == ("generate", 3, 2, 6)
    other = start(Full())
    list(other.history(history(6) + 1))
    assert (next(other.generate(1)).latents - made.latents).abs().max() > 1e-3


def test_history_must_be_whole_chunks() -> None:
    with pytest.raises(ConfigError, match="history of 7 latent frames does not split into chunks of 3"):
        next(start(Full()).history(history(7)))


def test_trace_of_memrope() -> None:
    """The event trace of the published description: frames 3 and 4 are lost, then three frames are folded per chunk."""
    traces = [step.trace for step in start(MemRope()).generate(7)]
    assert [trace.dropped for trace in traces] == [(), (), (), (), (3, 4), (), ()]
    assert [trace.folded for trace in traces] == [(), (), (), (), (5, 6, 7), (8, 9, 10), (11, 12, 13)]
    assert [trace.events for trace in traces[3:6]] == [(), ("evict", "absorb"), ("absorb",)]
    assert traces[4].held == (0, 1, 2, 8, 9, 10, 11)
    assert [trace.past_frames for trace in traces] == [0, 3, 6, 9, 9, 9, 9]
    assert [trace.cached_frames for trace in traces] == [3, 6, 9, 12, 12, 12, 12]
    frame = 2 * CONFIG.layers * CONFIG.dim * SIZE * 4
    assert traces[3].cache_bytes == 12 * frame
    assert traces[4].cache_bytes == 10 * frame + 2 * frame // SIZE
    assert all(trace.ms > 0 for trace in traces)


def test_noise_is_drawn_as_the_sampler_asks() -> None:
    asked: list[tuple[int, int]] = []
    source = seeded_noise((1, 2), SHAPE)

    def noise(chunk: int, step: int) -> Tensor:
        asked.append((chunk, step))
        return source(chunk, step)

    run = start(Full(), FewStepSampler())
    run.noise = noise
    list(run.history(history(3)))
    steps = run.generate(2)
    next(steps)
    assert asked == [(1, 0), (1, 1), (1, 2), (1, 3)]
    next(steps)
    assert asked[4:] == [(2, 0), (2, 1), (2, 2), (2, 3)]


@dataclass(frozen=True)
class Probe(CachePolicy):
    """Full, told through single tokens in reverse order, or with frames of the chunk hidden from itself."""

    hide: int = 0
    scrambled: bool = False

    def layer(self, geometry: Geometry) -> "ProbeCache":
        return ProbeCache(self, geometry)

    @property
    def budget(self) -> None:
        return None


class ProbeCache(FrameCache):
    def __init__(self, policy: Probe, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.policy = policy
        self.calls: list[str] = []

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        self.calls.append("past")
        frames = self.per_token(self.sources)
        past = Past(self.keys, self.values, frames=frames, sources=frames, own_frames=chunk.span)
        if self.policy.scrambled:
            cells = torch.arange(frames.shape[0]) % SIZE
            past = replace(
                past,
                keys=past.keys.flip(1),
                values=past.values.flip(1),
                frames=frames.flip(0).expand(2, -1),
                sources=frames.flip(0).expand(2, -1),
                cells=cells.flip(0).expand(2, -1),
            )
        return replace(past, hide_own=self.policy.hide if self.sources else 0)

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        self.calls.append("commit")
        super().commit(chunk, q, k, v)


def test_tokens_may_come_in_any_order() -> None:
    whole = latents([*start(Full()).generate(3)])
    torch.testing.assert_close(latents([*start(Probe(scrambled=True)).generate(3)]), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("hide", [1, 3])
def test_own_frames_may_be_hidden(hide: int) -> None:
    """A change of a hidden frame's noise reaches that frame only."""

    def flows(change: float) -> Tensor:
        run = start(Probe(hide=hide), OdeSampler(steps=1))
        source = run.noise
        list(run.history(history(3)))
        shift = torch.zeros(3, 1, 1, 1)
        shift[0] = change
        run.noise = lambda chunk, step: source(chunk, step) + shift
        return next(run.generate(1)).latents

    difference = (flows(1.0) - flows(0.0)).abs().amax((0, 2, 3, 4))
    assert difference[0] > 1e-3
    assert difference[1:].max() < 1e-6


def test_a_cache_is_asked_and_written_once_per_chunk() -> None:
    run = start(Probe(), OdeSampler(steps=4))
    list(run.generate(2))
    for cache in run.attention.caches:
        assert isinstance(cache, ProbeCache)
        assert cache.calls == ["past", "commit", "past", "commit"]
