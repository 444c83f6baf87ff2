"""The chunk loop against a rollout without any cache, and the corners of the contract no shipped policy uses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.registry import load_object
from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, Past
from magbench.runners.policies.causvid import CausVid
from magbench.runners.policies.fifo import Fifo
from magbench.runners.policies.full import Full
from magbench.runners.policies.infinity_rope import InfinityRope
from magbench.runners.policies.longlive import LongLive
from magbench.runners.policies.mag import Mag
from magbench.runners.policies.memrope import MemRope
from magbench.runners.policies.rolling_forcing import RollingForcing
from magbench.runners.rollout import PromptSwitch, Rollout, Step, Writer
from magbench.runners.wan.configs import TransformerConfig
from magbench.runners.wan.rope import Rope, rotate
from magbench.runners.wan.sampler import FewStepSampler, OdeSampler, Sampler, seeded_noise
from magbench.runners.wan.transformer import CausalWanTransformer, TextCache, attention

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


def start(policy: CachePolicy, sampler: Sampler = ODE, **rest: Any) -> Rollout:
    transformer = model()
    rows, noise = transformer.encode_text(text()), seeded_noise((1, 2), SHAPE)
    run: Rollout = load_object(policy.rollout)(transformer, policy, sampler, rows, noise, (4, 6), **rest)
    return run


def other_text() -> TextCache:
    return model().encode_text(text() + 1)


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
    assert [trace.cache_bytes for trace in traces[3:5]] == [12 * frame, 12 * frame]
    assert [trace.state_bytes for trace in traces[3:5]] == [0, 2 * frame // SIZE]
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


def watched(run: Rollout) -> list[tuple[tuple[float, ...], Tensor]]:
    """Timesteps and input of every pass of a rollout, as they come."""
    seen, real = [], run._flow

    def flow(latents: Tensor, timesteps: list[float], writer: Writer | None = None) -> Tensor:
        seen.append((tuple(timesteps), latents))
        return real(latents, timesteps, writer)

    run._flow = flow  # type: ignore[method-assign]
    return seen


def test_a_new_prompt_holds_from_its_chunk_on() -> None:
    """With every cache unaware of it, the chunks before are the same bit for bit and those after are not."""
    same = latents([*start(Full()).generate(4)])
    changed = latents([*start(Full()).generate(4, {2: PromptSwitch(other_text())})])
    assert torch.equal(changed[:, :6], same[:, :6])
    assert (changed[:, 6:9] - same[:, 6:9]).abs().max() > 1e-3
    from_there = start(Full())
    list(from_there.generate(2))
    from_there.text = other_text()
    assert torch.equal(latents([*from_there.generate(2)]), changed[:, 6:])


@pytest.mark.parametrize("cut", [False, True])
def test_caches_are_told_of_a_switch(cut: bool) -> None:
    seen: list[Chunk] = []
    run = start(InfinityRope())
    real = run.attention.begin
    run.attention.begin = lambda chunk: (seen.append(chunk), real(chunk))[1]  # type: ignore[method-assign]
    list(run.history(history(3)))
    list(run.generate(3, {2: PromptSwitch(other_text(), cut)}))
    assert [chunk.prompt_changed for chunk in seen] == [False, False, True, False]
    assert [chunk.scene_cut for chunk in seen] == [False, False, cut, False]
    assert [chunk.kind for chunk in seen] == ["history", "generate", "generate", "generate"]


def test_newest_frames_are_encoded_again_with_the_new_prompt() -> None:
    """One pass at timestep 0 over the newest frames, which adds none, right before the chunk of the switch."""
    run = start(LongLive(window=9, sink=1))
    passes = watched(run)
    list(run.history(history(6)))
    made = [*run.generate(4, {4: PromptSwitch(other_text())})]
    assert [(step.trace.kind, step.trace.first_frame, step.trace.frames) for step in made] == [
        ("generate", 6, 3),
        ("generate", 9, 3),
        ("recache", 3, 9),
        ("generate", 12, 3),
        ("generate", 15, 3),
    ]
    video = torch.cat([history(6), latents(made)], 1)
    again = passes[2 + 3 * 2]
    assert again[0] == (0.0,) * 9
    assert torch.equal(again[1], video[:, 3:12])
    assert made[2].latents.shape[1] == 0
    assert made[2].trace.passes == 1
    assert made[2].trace.keys_passes == 9 * 9 / 3
    assert made[2].trace.held == (0,)


def test_no_frame_is_encoded_again_where_there_is_none() -> None:
    made = [*start(LongLive()).generate(2, {0: PromptSwitch(other_text())})]
    assert [step.trace.kind for step in made] == ["generate", "generate"]


def test_a_writer_that_is_the_model_changes_nothing() -> None:
    """The memory network and its prompt are used for the clean pass, and only there."""
    plain = latents([*start(Mag(ring=2, writer="generator")).generate(4)])
    same = Writer(model(), model().encode_text(text()))
    torch.testing.assert_close(latents([*start(Mag(ring=2), memory=same).generate(4)]), plain, atol=1e-6, rtol=0)
    other = Writer(model(), other_text())
    made = [*start(Mag(ring=2), memory=other).generate(4)]
    assert torch.equal(latents(made)[:, :3], plain[:, :3])
    assert (latents(made)[:, 3:6] - plain[:, 3:6]).abs().max() > 1e-3
    assert made[0].trace.network_bytes == sum(4 * weight.numel() for weight in model().parameters())
    assert next(start(Mag(writer="generator"), memory=other).generate(1)).trace.network_bytes == 0


@pytest.mark.parametrize(
    "policy", [Mag(ring=2, writer="generator", write_back="truth"), Fifo(window=6), MemRope(window=9)]
)
def test_truth_is_written_back(policy: CachePolicy) -> None:
    """The clean pass sees the truth of that chunk; what comes out is still what was generated."""
    plain = replace(policy, write_back="generated") if isinstance(policy, Mag) else policy
    own = latents([*start(plain).generate(3)])
    again = latents([*start(policy, truth=own).generate(3)])
    torch.testing.assert_close(again, own, atol=1e-6, rtol=0)
    truth = torch.cat([history(3), own[:, :6] + 1], 1)
    run = start(policy, truth=truth)
    passes = watched(run)
    list(run.history(history(3)))
    made = [*run.generate(2)]
    clean = [given for timesteps, given in passes if timesteps == (0.0,) * 3]
    assert [torch.equal(given, truth[:, first : first + 3]) for first, given in zip((0, 3, 6), clean, strict=True)] == [
        True,
        True,
        True,
    ]
    assert (latents(made) - truth[:, 3:]).abs().max() > 1e-3


def test_what_a_policy_needs_must_be_there() -> None:
    with pytest.raises(ConfigError, match="written by a memory network, and the model has none"):
        start(Mag())
    with pytest.raises(ConfigError, match="written from the ground truth, and there is none"):
        start(Mag(writer="generator", write_back="truth"))
    with pytest.raises(ConfigError, match="decode and encode a frame, and the model can't"):
        list(start(CausVid(rollout_frames=6)).generate(3))
    with pytest.raises(ConfigError, match="3 noisy chunks, one per step of the sampler, do not fit into 2"):
        next(start(RollingForcing(window=9), OdeSampler(steps=3)).generate(1))


ROLLING = FewStepSampler(steps=(1000, 600, 300))


def test_windows_of_rolling_forcing() -> None:
    """Which chunk stands at which noise level when, what is asked for and what comes out after which window."""
    run, asked = start(RollingForcing(window=12), ROLLING), []
    source, passes = run.noise, watched(run)

    def noise(chunk: int, step: int) -> Tensor:
        asked.append((chunk, step))
        return source(chunk, step)

    run.noise = noise
    list(run.history(history(3)))
    made, windows = [], []
    for step in run.generate(4):
        made.append(step)
        windows.append(sum(set(timesteps) != {0.0} for timesteps, _ in passes))
    high, middle, low = ROLLING.timesteps
    noisy = [timesteps[::3] for timesteps, _ in passes if set(timesteps) != {0.0}]
    full = (low, middle, high)
    assert noisy == [(high,), (middle, high), full, full, (low, middle), (low,)]
    assert all(tuple(t for t in timesteps[::3] for _ in range(3)) == timesteps for timesteps, _ in passes)
    assert [timesteps for timesteps, _ in passes if set(timesteps) == {0.0}] == [(0.0,) * 3] * 7
    assert windows == [3, 4, 5, 6]
    assert [step.trace.first_frame for step in made] == [3, 6, 9, 12]
    assert [step.trace.passes for step in made] == [6, 2, 2, 2]
    draws = [[(1, 0), (1, 1)], [(2, 0), (1, 2), (2, 1)], [(3, 0), (2, 2), (3, 1)], [(4, 0), (3, 2), (4, 1)], [(4, 2)]]
    assert asked == [draw for window in draws for draw in window]


def rolling_without_cache(chunks: int) -> Tensor:
    """Each window in one masked pass over the clean frames, at timestep 0, and the noisy ones behind them."""
    transformer, noise, levels = model(), seeded_noise((1, 2), SHAPE), ROLLING.timesteps
    rows, rope = transformer.encode_text(text()), Rope(12, 2, 3)
    done, noisy = torch.empty(2, 0, *SHAPE[1:]), {}
    for newest in range(chunks + 2):
        members = [chunk for chunk in range(newest - 2, newest + 1) if 0 <= chunk < chunks]
        if newest < chunks:
            noisy[newest] = noise(newest, 0)
        latents = torch.cat([done, *(noisy[chunk] for chunk in members)], 1)
        clean, frames = done.shape[1], latents.shape[1]
        seen = torch.tensor([[k // 3 <= q // 3 or q >= clean for k in range(frames)] for q in range(frames)])
        mask = seen.repeat_interleave(SIZE, 0).repeat_interleave(SIZE, 1)
        table = rope.grid(tuple(range(frames)))

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, table: Tensor = table, mask: Tensor = mask) -> Tensor:
            return attention(rotate(q, table), rotate(k, table), v, mask)

        times = torch.zeros(2, frames)
        for place, chunk in enumerate(members):
            times[:, clean + 3 * place : clean + 3 * place + 3] = levels[newest - chunk]
        flow = transformer(latents, times, rows, attend)
        for place, chunk in enumerate(members):
            part = slice(clean + 3 * place, clean + 3 * place + 3)
            sigma = levels[newest - chunk] / 1000
            x0 = noisy[chunk] - sigma * flow[:, part]
            if newest - chunk == 2:
                done = torch.cat([done, x0], 1)
            else:
                after = levels[newest - chunk + 1] / 1000
                noisy[chunk] = (1 - after) * x0 + after * noise(chunk, newest - chunk + 1)
    return done


def test_rolling_forcing_equals_masked_windows() -> None:
    """While nothing is evicted the anchor stands where it was, so a window sees all clean frames as they are."""
    made = latents([*start(RollingForcing(window=18), ROLLING).generate(6)])
    torch.testing.assert_close(made, rolling_without_cache(6), atol=1e-5, rtol=0)
    short = latents([*start(RollingForcing(window=12), ROLLING).generate(6)])
    assert (short - made).abs().max() > 1e-3


def test_rolling_forcing_with_one_step_is_a_causal_mask() -> None:
    """A window of one chunk; the anchor hides nothing and moves nowhere while all frames fit."""
    one = OdeSampler(steps=1)
    made = latents([*start(RollingForcing(window=12), one).generate(4)])
    torch.testing.assert_close(made, latents([*start(Full(), one).generate(4)]), atol=1e-5, rtol=0)


def test_frames_lost_while_the_window_fills_are_named() -> None:
    run = start(RollingForcing(window=12), ROLLING)
    traces = [step.trace for step in [*run.history(history(15)), *run.generate(3)]]
    gone: set[int] = set()
    for trace in traces:
        gone |= {*trace.dropped}
        assert sorted([*trace.held, *gone]) == list(range(trace.first_frame))
    assert traces[5].dropped == (3, 4, 5)


def reencode(latents: Tensor) -> Tensor:
    return latents[:, :1].flip(-1)


def begin_again(chunk: Tensor) -> Tensor:
    return torch.cat([reencode(chunk), chunk[:, 1:]], 1)


def test_overlapping_rollouts_are_rollouts_of_their_own() -> None:
    """Each begins with the last chunk of the one before as its history, at time index 0, in an empty cache."""
    whole = latents([*start(CausVid(rollout_frames=9), reencode=reencode).generate(6)])
    noise, parts = seeded_noise((1, 2), SHAPE), []
    first = start(Full())
    made = latents([*first.generate(3)])
    parts.append(made[:, :6])
    for offset in (2, 4):
        run = start(Full())
        run.noise = lambda chunk, step, offset=offset: noise(chunk + offset, step)
        given = begin_again(made[:, -3:])
        list(run.history(given))
        made = torch.cat([given, latents([*run.generate(2 if offset == 2 else 1)])], 1)
        parts.append(made[:, :6])
    torch.testing.assert_close(whole, torch.cat(parts, 1), atol=1e-5, rtol=0)


def test_trace_of_overlapping_rollouts() -> None:
    made = [*start(CausVid(rollout_frames=9), reencode=reencode).generate(6)]
    traces = [step.trace for step in made]
    assert [trace.first_frame for trace in traces] == [0, 3, 6, 9, 12, 15]
    assert [trace.past_frames for trace in traces] == [0, 3, 6, 3, 6, 3]
    assert [trace.passes for trace in traces] == [3, 3, 4, 3, 4, 3]
    assert [trace.held for trace in traces] == [
        (),
        (0, 1, 2),
        (0, 1, 2, 3, 4, 5),
        (6, 7, 8),
        (6, 7, 8, 9, 10, 11),
        (12, 13, 14),
    ]
    assert [trace.dropped for trace in traces[3:]] == [(0, 1, 2, 3, 4, 5), (), (6, 7, 8, 9, 10, 11)]


def test_a_rollout_that_ends_with_the_video_is_not_started_over() -> None:
    """The last chunk stays as it was generated, where a longer video would begin a rollout with it."""
    shorter = latents([*start(CausVid(rollout_frames=9), reencode=reencode).generate(3)])
    longer = latents([*start(CausVid(rollout_frames=9), reencode=reencode).generate(4)])
    assert torch.equal(shorter[:, :6], longer[:, :6])
    assert torch.equal(longer[:, 6:9], begin_again(shorter[:, 6:9]))


def test_a_history_of_overlapping_rollouts_is_its_last_chunk() -> None:
    run = start(CausVid(rollout_frames=9), reencode=reencode)
    given = [*run.history(history(9))]
    assert torch.equal(latents(given), history(9))
    assert [step.trace.dropped for step in given] == [(), (0, 1, 2), (3, 4, 5)]
    made = latents([*run.generate(2)])
    short = start(Full())
    source = short.noise
    short.noise = lambda chunk, step: source(chunk + 2, step)
    list(short.history(begin_again(history(9)[:, 6:])))
    torch.testing.assert_close(made, latents([*short.generate(2)]), atol=1e-5, rtol=0)
