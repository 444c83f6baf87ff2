"""What every registered cache policy must keep, whatever it does with the past."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from magbench.runners.methods import METHODS, POLICIES, parse_method
from magbench.runners.policies.base import MEMORY, CachePolicy, Chunk, Geometry, LayerCache, Past
from magbench.runners.rollout import Rollout, Step
from magbench.runners.wan.configs import TransformerConfig
from magbench.runners.wan.rope import Rope
from magbench.runners.wan.sampler import OdeSampler, seeded_noise
from magbench.runners.wan.transformer import CausalWanTransformer

CHUNKS, ROWS, COLS, HEADS, WIDTH = 14, 2, 3, 2, 12
SIZE = ROWS * COLS
SPECS = [
    *METHODS,
    "fifo:window=13,sink=1",
    "fifo:window=3",
    "fifo:window=11,sink=5",
    "memrope:adaptive=true",
    "memrope:memory=long",
    "memrope:memory=short",
    "memrope:memory=none",
    "memrope:window=10,sink=2",
    "memrope:window=8",
    "memrope:sink=0",
]


def policy_of(spec: str) -> CachePolicy:
    return parse_method(spec).policy


def geometry(batch: int, dtype: torch.dtype = torch.float32) -> Geometry:
    return Geometry(batch=batch, heads=HEADS, rope=Rope(WIDTH, ROWS, COLS), dtype=dtype)


def chunks() -> list[Chunk]:
    return [Chunk(3 * index, 3, "history" if index < 2 else "generate") for index in range(CHUNKS)]


def projections(chunk: Chunk, rows: slice = slice(0, 3)) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a chunk for three samples, cut to `rows`."""
    generator = torch.Generator().manual_seed(chunk.first)
    q, k, v = torch.randn(3, 3, chunk.frames * SIZE, HEADS, WIDTH, generator=generator)
    return q[rows], k[rows], v[rows]


def run(spec: str, rows: slice = slice(0, 3)) -> Iterator[tuple[Chunk, Past, LayerCache]]:
    """Drive one layer's cache; what comes out is seen after the commit."""
    batch = len(range(3)[rows])
    cache = policy_of(spec).layer(geometry(batch))
    for chunk in chunks():
        q, k, v = projections(chunk, rows)
        past = cache.past(chunk, q, k)
        cache.commit(chunk, q, k, v)
        yield chunk, past, cache


def stored_bytes(thing: Any, seen: dict[int, int] | None = None) -> int:
    """Bytes of all distinct tensor storages reachable from `thing`."""
    seen = {} if seen is None else seen
    if isinstance(thing, Tensor):
        seen[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    elif isinstance(thing, dict):
        for value in thing.values():
            stored_bytes(value, seen)
    elif isinstance(thing, list | tuple | set):
        for value in thing:
            stored_bytes(value, seen)
    elif hasattr(thing, "__dict__") and not isinstance(thing, Geometry | CachePolicy):
        stored_bytes(vars(thing), seen)
    return sum(seen.values())


def test_every_policy_is_under_test() -> None:
    assert {METHODS[spec.partition(":")[0]].policy for spec in SPECS} == set(POLICIES)


@pytest.mark.parametrize("spec", SPECS)
def test_memory_is_bounded(spec: str) -> None:
    budget = policy_of(spec).budget
    peaks = [(past.keys.shape[1] / SIZE, cache.frames, cache.nbytes) for _, past, cache in run(spec)]
    if budget is None:
        assert [peak[0] for peak in peaks] == [3 * index for index in range(CHUNKS)]
        return
    assert max(peak[0] for peak in peaks) == budget
    assert max(peak[1] for peak in peaks) <= budget + 3
    assert peaks[-1] == peaks[CHUNKS // 2 + 1]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nbytes_is_what_is_held(spec: str, dtype: torch.dtype) -> None:
    cache = policy_of(spec).layer(geometry(3, dtype))
    for chunk in chunks():
        q, k, v = (x.to(dtype) for x in projections(chunk))
        past = cache.past(chunk, q, k)
        assert past.keys.dtype == past.values.dtype == dtype
        cache.commit(chunk, q, k, v)
        del past
        assert cache.nbytes + cache.state_bytes == stored_bytes(cache)


@pytest.mark.parametrize("spec", SPECS)
def test_positions_are_sane(spec: str) -> None:
    """No two tokens of a pass share a place in time and space, and nothing comes from the future."""
    for chunk, past, _ in run(spec):
        tokens = past.keys.shape[1]
        assert past.keys.shape == past.values.shape == (3, tokens, HEADS, WIDTH)
        cells = torch.arange(tokens) % SIZE if past.cells is None else past.cells
        assert past.frames.shape[-1] == past.sources.shape[-1] == cells.shape[-1] == tokens
        places = list(zip(past.frames.tolist(), cells.tolist(), strict=True))
        own = [(frame, cell) for frame in past.own_frames for cell in range(SIZE)]
        assert len({*places, *own}) == len(places) + len(own)
        assert all(frame >= 0 for frame, _ in places + own)
        assert len(past.own_frames) == chunk.frames
        assert all(source == MEMORY or 0 <= source < chunk.first for source in past.sources.tolist())


@pytest.mark.parametrize("spec", SPECS)
def test_raw_tokens_are_those_of_their_source(spec: str) -> None:
    committed = {frame: (k, v) for chunk in chunks() for frame, k, v in frames_of(chunk)}
    for _, past, _ in run(spec):
        cells = torch.arange(past.keys.shape[1]) % SIZE if past.cells is None else past.cells
        for token, (source, cell) in enumerate(zip(past.sources.tolist(), cells.tolist(), strict=True)):
            if source != MEMORY:
                keys, values = committed[source]
                assert torch.equal(past.keys[:, token], keys[:, cell])
                assert torch.equal(past.values[:, token], values[:, cell])


def frames_of(chunk: Chunk) -> list[tuple[int, Tensor, Tensor]]:
    _, k, v = projections(chunk)
    return [(chunk.first + i, k[:, i * SIZE : (i + 1) * SIZE], v[:, i * SIZE : (i + 1) * SIZE]) for i in range(3)]


@pytest.mark.parametrize("spec", SPECS)
def test_every_frame_is_accounted_for(spec: str) -> None:
    gone: set[int] = set()
    for chunk, past, _ in run(spec):
        leaving = [*past.folded, *past.dropped]
        assert not gone & {*leaving}
        gone |= {*leaving}
        held = {source for source in past.sources.tolist() if source != MEMORY}
        assert sorted([*held, *gone]) == list(range(chunk.first))
        assert bool(past.events) == bool(leaving)


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_is_shared_with_the_caller(spec: str) -> None:
    """What is committed may be overwritten; what was shown stays as it was while the cache goes on."""
    cache = policy_of(spec).layer(geometry(3))
    reference = [past for _, past, _ in run(spec)]
    for index, chunk in enumerate(chunks()):
        q, k, v = projections(chunk)
        past = cache.past(chunk, q, k)
        kept = past.keys.clone(), past.values.clone()
        cache.commit(chunk, q, k, v)
        for given in (q, k, v):
            given.fill_(float("nan"))
        assert torch.equal(past.keys, kept[0])
        assert torch.equal(past.values, kept[1])
        assert torch.equal(past.keys, reference[index].keys)
        assert torch.equal(past.values, reference[index].values)


@pytest.mark.parametrize("spec", SPECS)
def test_rows_of_a_batch_do_not_mix(spec: str) -> None:
    together = [past for _, past, _ in run(spec)]
    for row in range(3):
        for whole, (_, alone, _) in zip(together, run(spec, slice(row, row + 1)), strict=True):
            torch.testing.assert_close(whole.keys[row], alone.keys[0], atol=1e-6, rtol=0)
            torch.testing.assert_close(whole.values[row], alone.values[0], atol=1e-6, rtol=0)
            assert torch.equal(whole.frames, alone.frames)


MODEL = TransformerConfig(dim=24, ffn_dim=32, heads=HEADS, layers=2, text_dim=8, text_len=4, freq_dim=16)


def rollout(spec: str, seeds: tuple[int, ...]) -> list[Step]:
    torch.manual_seed(0)
    model = CausalWanTransformer(MODEL).eval()
    torch.nn.init.normal_(model.head.head.weight, std=0.1)
    text = torch.stack([torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    history = torch.stack([torch.randn(6, 16, 4, 6, generator=torch.Generator().manual_seed(-seed)) for seed in seeds])
    noise = seeded_noise(seeds, (3, 16, 4, 6))
    with torch.inference_mode():
        run = Rollout(model, policy_of(spec), OdeSampler(steps=2), model.encode_text(text), noise, (4, 6))
    return [*run.history(history), *run.generate(5)]


@pytest.mark.parametrize("spec", SPECS)
def test_a_rollout_repeats_itself(spec: str) -> None:
    first, second = rollout(spec, (1, 2)), rollout(spec, (1, 2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.latents, b.latents)
        assert a.trace.model_copy(update={"ms": 0.0}) == b.trace.model_copy(update={"ms": 0.0})
    assert len({step.latents.sum().item() for step in first}) == len(first)


@pytest.mark.parametrize("spec", SPECS)
def test_a_batch_equals_its_samples_alone(spec: str) -> None:
    together = rollout(spec, (1, 2))
    for row, seed in enumerate((1, 2)):
        for whole, alone in zip(together, rollout(spec, (seed,)), strict=True):
            torch.testing.assert_close(whole.latents[row], alone.latents[0], atol=1e-5, rtol=0)
            assert whole.trace.cache_bytes == alone.trace.cache_bytes
