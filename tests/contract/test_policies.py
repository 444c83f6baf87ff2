"""What every registered cache policy must keep, whatever it does with the past."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from magbench.registry import load_object
from magbench.runners.methods import METHODS, POLICIES, parse_method
from magbench.runners.policies.base import MEMORY, CachePolicy, Chunk, Geometry, LayerCache, Past
from magbench.runners.policies.causvid import CausVid
from magbench.runners.policies.deep_forcing import DeepForcing
from magbench.runners.policies.rolling_forcing import RollingForcing
from magbench.runners.rollout import PromptSwitch, Step, Writer
from magbench.runners.wan.configs import TransformerConfig
from magbench.runners.wan.sampler import OdeSampler, seeded_noise
from magbench.runners.wan.transformer import CausalWanTransformer
from tests.driven_cache import HEADS, LEVELS, SIZE, WIDTH, drive, geometry, projections, sequence

CHUNKS, SWITCH = 15, 9
"""By the ninth chunk all caches but MAG's are full."""
SETTLED = 30
"""Chunks after which that one is too, and has been for a while."""
SPECS = [
    *METHODS,
    "fifo:window=13,sink=1",
    "fifo:window=3",
    "fifo:window=11,sink=5",
    "longlive:global_sink=false",
    "longlive:window=10,sink=2",
    "longlive:window=11,sink=5",
    "longlive-infinity:window=10,sink=1",
    "memrope:adaptive=true",
    "memrope:memory=long",
    "memrope:memory=short",
    "memrope:memory=none",
    "memrope:variant=paper",
    "memrope:variant=paper,memory=long",
    "memrope:window=10,sink=2",
    "memrope:window=8",
    "memrope:sink=0",
    "infinity-rope:variant=paper",
    "infinity-rope:window=13,sink=4",
    "infinity-rope:sink=0",
    "deep-sink:window=12,sink=7",
    "deep-sink:window=13,sink=9",
    "deep-forcing:keep=10,sink=3,window=12",
    "deep-forcing:keep=9,recent=6,sink=1,window=12",
    "deep-forcing:keep=9,reuse=1,sink=0,window=9",
    "deep-forcing:keep=12,reuse=2,sink=0,window=12",
    "mag:ring=3",
    "mag:ring=4,sink=0,variant=paper",
    "mag:writer=generator",
    "mag:write_back=truth",
    "rolling-forcing:window=9",
    "rolling-forcing:window=13",
    "causvid:rollout_frames=6",
]
specs = pytest.mark.parametrize("spec", SPECS)
switched = pytest.mark.parametrize("switch", [None, SWITCH], ids=["one_prompt", "switch"])


def policy_of(spec: str) -> CachePolicy:
    return parse_method(spec).policy


def runs_short(policy: CachePolicy) -> bool:
    """Whether a row may find too few tokens to choose from, so that rows differ in length from then on."""
    return isinstance(policy, DeepForcing) and policy.reuse < 7


def run(
    spec: str, switch: int | None = None, rows: slice = slice(0, 3), chunks: int = CHUNKS
) -> Iterator[tuple[Chunk, Past, LayerCache]]:
    """Drive one layer's cache by the chunks of its loop; what comes out is seen after the commit."""
    policy = policy_of(spec)
    cache = policy.layer(geometry(len(range(3)[rows])))
    for chunk, past in drive(cache, sequence(policy, chunks, switch), rows):
        yield chunk, past, cache


def per_row(past: Past) -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Of each row of the batch keys, values, time indices, sources and cells of its tokens, padding left out."""
    batch, tokens = past.keys.shape[:2]
    cells = torch.arange(tokens) % SIZE if past.cells is None else past.cells
    frames, sources, cells = (x.expand(batch, -1) for x in (past.frames, past.sources, cells))
    seen = torch.ones(batch, tokens, dtype=torch.bool) if past.padding is None else ~past.padding
    return [
        tuple(x[row, :tokens][seen[row]] for x in (past.keys, past.values, frames, sources, cells))
        for row in range(batch)
    ]


def held_by(past: Past) -> set[int]:
    """Source frames that some row shows."""
    return {source for *_, sources, _ in per_row(past) for source in sources.tolist()} - {MEMORY}


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
    assert {METHODS[spec.partition(":")[0]].name for spec in SPECS} == set(POLICIES) == set(METHODS)


@specs
def test_memory_is_bounded(spec: str) -> None:
    """The budget is reached and kept, and what is held repeats itself in the end: every chunk, or every second one."""
    policy = policy_of(spec)
    seen = [(past.keys.shape[1] / SIZE, cache.frames, cache.nbytes) for _, past, cache in run(spec, chunks=SETTLED)]
    shown = [frames for frames, _, _ in seen]
    if policy.budget is None:
        assert shown == sorted({*shown})
        return
    assert max(shown) == policy.budget
    behind = 3 if isinstance(policy, RollingForcing) else 0
    assert max(frames for _, frames, _ in seen) <= policy.budget + 3 + behind
    if not isinstance(policy, CausVid) and not runs_short(policy):
        assert seen[-4:] == seen[-8:-4]


@specs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nbytes_is_what_is_held(spec: str, dtype: torch.dtype) -> None:
    policy = policy_of(spec)
    cache = policy.layer(geometry(3, dtype))
    for chunk, past in drive(cache, sequence(policy, CHUNKS, SWITCH), slice(0, 3), dtype):
        assert past.keys.dtype == past.values.dtype == dtype
        del past
        if chunk.kind != "window":
            assert cache.nbytes + cache.state_bytes == stored_bytes(cache)


@specs
@switched
def test_positions_are_sane(spec: str, switch: int | None) -> None:
    """No two tokens of a pass share a place in time and space, and nothing comes from the future.

    A sink of Deep Forcing may stand where chosen tokens do, as in the release.
    """
    policy = policy_of(spec)
    for chunk, past, _ in run(spec, switch):
        tokens = past.keys.shape[1]
        room = (0, (chunk.frames - past.hide_own) * SIZE)
        assert past.keys.shape == (3, tokens, HEADS, WIDTH)
        assert past.values.shape in [(3, tokens + more, HEADS, WIDTH) for more in room]
        assert past.frames.shape[-1] == past.sources.shape[-1] == tokens
        assert past.frames.dtype == past.sources.dtype == torch.int64
        assert len(past.own_frames) == chunk.frames
        own = [(frame, cell) for frame in past.own_frames[past.hide_own :] for cell in range(SIZE)]
        for _, _, frames, sources, cells in per_row(past):
            apart = sources < policy.sink if isinstance(policy, DeepForcing) else torch.zeros_like(sources, dtype=bool)
            for part in (apart, ~apart):
                places = list(zip(frames[part].tolist(), cells[part].tolist(), strict=True))
                assert len({*places, *own}) == len(places) + len(own)
            assert min([*past.own_frames, *frames.tolist()]) >= 0
            assert ((cells >= 0) & (cells < SIZE)).all()
            assert all(source == MEMORY or 0 <= source < chunk.first for source in sources.tolist())


@specs
@switched
def test_raw_tokens_are_those_of_their_source(spec: str, switch: int | None) -> None:
    """Shown as last written, at the grid cell they came from."""
    written: dict[int, tuple[Tensor, Tensor]] = {}
    for chunk, past, _ in run(spec, switch):
        for row, (keys, values, _, sources, cells) in enumerate(per_row(past)):
            raw = (sources != MEMORY).nonzero()[:, 0].tolist()
            places = [(int(sources[token]), int(cells[token])) for token in raw]
            for shown, part in ((keys, 0), (values, 1)):
                right = [written[source][part][row, cell] for source, cell in places]
                assert torch.equal(shown[raw], torch.stack(right) if right else shown[:0])
        if chunk.kind != "window":
            _, k, v = projections(chunk, slice(0, 3))
            for index, frame in enumerate(chunk.span):
                if index >= past.hide_own:
                    part = slice(index * SIZE, (index + 1) * SIZE)
                    written[frame] = k[:, part], v[:, part]


@specs
@switched
def test_every_frame_is_accounted_for(spec: str, switch: int | None) -> None:
    """A past frame is shown, folded or dropped; once, unless a re-cache encodes one again that had been dropped.

    Rolling Forcing caches frames that a pass does not show.
    """
    gone: set[int] = set()
    hidden_ones = isinstance(policy_of(spec), RollingForcing)
    for chunk, past, _ in run(spec, switch):
        leaving = [*past.folded, *past.dropped]
        assert not gone & {*leaving}
        assert len({*leaving}) == len(leaving)
        gone |= {*leaving}
        again = {*chunk.span[past.hide_own :]} if chunk.kind == "recache" else set()
        gone -= again
        held, before = held_by(past), {*range(chunk.first + (chunk.frames if chunk.kind == "recache" else 0))}
        assert not held & (gone | again)
        assert held | gone | again == before or (hidden_ones and held | gone < before)
        told = {"flush": chunk.prompt_changed, "cut": chunk.scene_cut, "recache": chunk.kind == "recache"}
        told["compress"] = True  # may thin frames out without losing one
        assert all(told.get(event, leaving) for event in past.events)
        assert past.events or not leaving


@specs
@switched
def test_nothing_is_shared_with_the_caller(spec: str, switch: int | None) -> None:
    """What is committed may be overwritten; what was shown stays as it was while the cache goes on."""
    policy = policy_of(spec)
    cache = policy.layer(geometry(3))
    reference = [past for _, past, _ in run(spec, switch)]
    for chunk, expected in zip(sequence(policy, CHUNKS, switch), reference, strict=True):
        asked = projections(chunk, slice(0, 3), clean=chunk.kind not in ("generate", "window"))
        past = cache.past(chunk, *asked[:2])
        tokens = past.keys.shape[1]
        past.values[:, tokens:].fill_(7.0)
        kept = past.keys.clone(), past.values[:, :tokens].clone()
        given = projections(chunk, slice(0, 3))
        if chunk.kind != "window":
            cache.commit(chunk, *given)
        for tensor in (*asked, *given):
            tensor.fill_(float("nan"))
        assert torch.equal(past.keys, kept[0])
        assert torch.equal(past.values[:, :tokens], kept[1])
        assert torch.equal(past.keys, expected.keys)
        assert torch.equal(past.values[:, :tokens], expected.values[:, :tokens])


@specs
@switched
def test_rows_of_a_batch_do_not_mix(spec: str, switch: int | None) -> None:
    together = [per_row(past) for _, past, _ in run(spec, switch)]
    for row in range(3):
        for whole, (_, past, _) in zip(together, run(spec, switch, slice(row, row + 1)), strict=True):
            (alone,) = per_row(past)
            for ours, theirs in zip(whole[row][:2], alone[:2], strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
            for ours, theirs in zip(whole[row][2:], alone[2:], strict=True):
                assert torch.equal(ours, theirs)


MODEL = TransformerConfig(dim=24, ffn_dim=32, heads=HEADS, layers=2, text_dim=8, text_len=4, freq_dim=16)


def network(seed: int) -> CausalWanTransformer:
    torch.manual_seed(seed)
    model = CausalWanTransformer(MODEL).eval()
    torch.nn.init.normal_(model.head.head.weight, std=0.1)
    return model


def reencode(latents: Tensor) -> Tensor:
    return latents[:, :1].flip(-1)


GENERATED, NEW_PROMPT = 9, 8
"""Chunks after two of history, and the chunk of the whole video at which a prompt switch acts."""


def rollout(spec: str, seeds: tuple[int, ...], switch: int | None = NEW_PROMPT) -> list[Step]:
    """Two chunks of history, then generated ones, in the policy's own loop; a switch is a cut too."""
    policy, model, second = policy_of(spec), network(0), network(1)

    def draw(seed: int, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    def text(shift: int) -> Tensor:
        return torch.stack([draw(seed + shift, 4, 8) for seed in seeds])

    history = torch.stack([draw(seed + 200, 6, 16, 4, 6) for seed in seeds])
    truth = torch.stack([draw(seed + 300, 6 + 3 * GENERATED, 16, 4, 6) for seed in seeds])
    with torch.inference_mode():
        made = load_object(policy.rollout)(
            model,
            policy,
            OdeSampler(steps=LEVELS),
            model.encode_text(text(0)),
            seeded_noise(seeds, (3, 16, 4, 6)),
            (4, 6),
            memory=Writer(second, second.encode_text(torch.zeros(len(seeds), 4, 8))),
            truth=torch.cat([history, truth], dim=1) if policy.writes_truth else None,
            reencode=reencode,
        )
        switches = {switch: PromptSwitch(model.encode_text(text(100)), cut=True)} if switch else None
    return [*made.history(history), *made.generate(GENERATED, switches)]


@lru_cache
def pair(spec: str) -> list[Step]:
    """A batch of two with a switch in the middle."""
    return rollout(spec, (1, 2))


@specs
def test_a_rollout_repeats_itself(spec: str) -> None:
    first, second = pair(spec), rollout(spec, (1, 2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.latents, b.latents)
        assert a.trace.model_copy(update={"ms": 0.0}) == b.trace.model_copy(update={"ms": 0.0})
    assert len({step.latents.sum().item() for step in first}) == len(first)


@specs
def test_a_batch_equals_its_samples_alone(spec: str) -> None:
    for row, seed in enumerate((1, 2)):
        for whole, alone in zip(pair(spec), rollout(spec, (seed,)), strict=True):
            torch.testing.assert_close(whole.latents[row], alone.latents[0], atol=1e-5, rtol=0)
            padded = whole.trace.cache_bytes - alone.trace.cache_bytes
            assert padded >= 0 if runs_short(policy_of(spec)) else padded == 0


@specs
def test_a_new_prompt_is_heard(spec: str) -> None:
    """From its chunk on; in Rolling Forcing from the window on that this chunk enters."""
    made = [step for step in pair(spec) if step.latents.shape[1]]
    assert [step.trace.first_frame for step in made] == [*range(0, 3 * GENERATED + 6, 3)]
    before = NEW_PROMPT - (LEVELS - 1) * isinstance(policy_of(spec), RollingForcing)
    for index, (changed, same) in enumerate(zip(made, rollout(spec, (1, 2), switch=None), strict=True)):
        assert torch.equal(changed.latents, same.latents) == (index < before)
        assert torch.isfinite(changed.latents).all()
    kinds = [step.trace.kind for step in pair(spec)]
    again = bool(policy_of(spec).recache_frames)
    assert kinds == ["history"] * 2 + ["generate"] * 6 + ["recache"] * again + ["generate"] * 3


@specs
def test_a_trace_accounts_for_every_frame(spec: str) -> None:
    """Held, folded or dropped, once; where a re-cache replaces the sink too, frames that were dropped come back."""
    gone: set[int] = set()
    for step in pair(spec):
        trace = step.trace
        leaving = {*trace.folded, *trace.dropped}
        assert not gone & leaving
        gone |= leaving
        span = {*range(trace.first_frame, trace.first_frame + trace.frames)} if trace.kind == "recache" else set()
        if not getattr(policy_of(spec), "global_sink", True):
            gone -= span
        again = span - gone - {*trace.held}
        assert not {*trace.held} & gone
        assert {*trace.held} | gone | again == {*range(trace.first_frame + len(span))}
