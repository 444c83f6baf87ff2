"""What each released policy shows when: the event traces of the published descriptions, on one driven cache.

Numbers of Deep Forcing's choice and of MemRoPE's averages come from direct computations in NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from magbench.runners.policies.base import MEMORY, CachePolicy, Chunk, LayerCache, Past
from magbench.runners.policies.deep_forcing import DeepForcing
from magbench.runners.policies.deep_sink import DeepSink
from magbench.runners.policies.fifo import Fifo
from magbench.runners.policies.infinity_rope import InfinityRope
from magbench.runners.policies.longlive import LongLive
from magbench.runners.policies.longlive_infinity import LongLiveInfinity
from magbench.runners.policies.mag import Mag
from magbench.runners.policies.memrope import MemRope
from magbench.runners.policies.rolling_forcing import RollingForcing
from magbench.runners.rolling_window import RollingWindow
from magbench.runners.rollout import CachedAttention
from magbench.runners.wan.configs import TransformerConfig
from magbench.runners.wan.sampler import FewStepSampler, seeded_noise
from magbench.runners.wan.transformer import CausalWanTransformer
from tests.driven_cache import COLS, SIZE, drive, from_text, geometry, projections

Array = npt.NDArray[np.float64]


def run(policy: CachePolicy, chunks: Sequence[Chunk] | int) -> tuple[list[Past], LayerCache]:
    cache = policy.layer(geometry())
    return [past for _, past in drive(cache, from_text(chunks) if isinstance(chunks, int) else chunks)], cache


def whole_frames(per_token: Tensor) -> list[int]:
    """One number per frame, which all tokens of the frame must have."""
    rows = per_token.reshape(-1, SIZE)
    assert (rows == rows[:, :1]).all()
    return rows[:, 0].tolist()


def layout(past: Past) -> dict[int, int]:
    """Time index of each shown source frame."""
    return dict(zip(whole_frames(past.sources), whole_frames(past.frames), strict=True))


def clean(frame: int) -> tuple[Array, Array]:
    """Keys and values of a frame as a plain loop writes them: [tokens, heads, d]."""
    part = slice(frame % 3 * SIZE, (frame % 3 + 1) * SIZE)
    _, k, v = projections(Chunk(frame // 3 * 3, 3, "generate"))
    return k[0, part].double().numpy(), v[0, part].double().numpy()


@pytest.mark.parametrize(
    ("policy", "chunk", "expected"),
    [
        (Fifo(window=12, sink=3), 4, [0, 1, 2, *range(6, 12)]),
        (Fifo(window=12, sink=3), 5, [0, 1, 2, *range(9, 15)]),
        (Fifo(window=13, sink=1), 4, [0, *range(3, 12)]),
        (Fifo(window=13, sink=1), 5, [0, *range(6, 15)]),
        (LongLive(), 5, [0, 1, 2, *range(9, 15)]),
    ],
)
def test_rolling_window(policy: CachePolicy, chunk: int, expected: list[int]) -> None:
    pasts, _ = run(policy, chunk + 1)
    assert layout(pasts[chunk]) == {frame: frame for frame in expected}
    assert pasts[chunk].own_frames == (3 * chunk, 3 * chunk + 1, 3 * chunk + 2)


def test_longlive_infinity() -> None:
    pasts, _ = run(LongLiveInfinity(), 6)
    assert layout(pasts[3]) == {frame: frame for frame in range(9)}
    assert layout(pasts[5]) == dict(zip([0, 1, 2, *range(9, 15)], range(9), strict=True))
    assert [past.own_frames for past in pasts[2:]] == [(6, 7, 8), (9, 10, 11), (9, 10, 11), (9, 10, 11)]


@pytest.mark.parametrize(
    ("switch", "global_sink", "shown", "hidden", "after"),
    [
        (6, True, [0, 1, 2], 3, [0, 1, 2, *range(9, 18)]),
        (6, False, [], 0, [*range(6, 18)]),
        (2, True, [], 0, [*range(6)]),
        (2, False, [], 0, [*range(6)]),
        (4, True, [], 0, [*range(12)]),
    ],
)
def test_longlive_recache(switch: int, global_sink: bool, shown: list[int], hidden: int, after: list[int]) -> None:
    """min(12, f) newest frames at their own indices; a sink that stays takes the place of the first of them."""
    count = min(12, 3 * switch)
    again = Chunk(3 * switch - count, count, "recache")
    chunks = [*from_text(switch), again, *from_text(switch + 2, switch=switch)[switch:]]
    pasts, cache = run(LongLive(global_sink=global_sink), chunks)
    past, following = pasts[switch], pasts[switch + 1]
    assert layout(past) == {frame: frame for frame in shown}
    assert (past.own_frames, past.hide_own) == (again.span, hidden)
    left = {*range(3 * switch)} - {*shown} - {*again.span[hidden:]}
    assert {*past.dropped} == left - {frame for earlier in pasts[:switch] for frame in earlier.dropped}
    assert isinstance(cache, LayerCache)
    sink, newest = after[:3], after[-(len(after) - 3) :]
    kept = [*sink, *newest[max(0, len(after) - 9) :]]
    assert layout(following) == {frame: frame for frame in kept}
    _, k, v = projections(again)
    for slot, frame in enumerate(kept):
        tokens = slice(slot * SIZE, (slot + 1) * SIZE)
        renewed = slice((frame - again.first) * SIZE, (frame - again.first + 1) * SIZE)
        keys, values = clean(frame) if frame in shown else (k[0, renewed].numpy(), v[0, renewed].numpy())
        np.testing.assert_array_equal(following.keys[0, tokens].numpy(), keys.astype(np.float32))
        np.testing.assert_array_equal(following.values[0, tokens].numpy(), values.astype(np.float32))


def test_infinity_rope() -> None:
    pasts, _ = run(InfinityRope(), 5)
    assert layout(pasts[1]) == {0: 0, 1: 1, 2: 2}
    assert layout(pasts[2]) == {0: 0, 4: 1, 5: 2}
    assert layout(pasts[4]) == {0: 0, 10: 1, 11: 2}
    assert [past.own_frames for past in pasts] == [(0, 1, 2)] + [(3, 4, 5)] * 4


@pytest.mark.parametrize(("cut", "own"), [(False, (3, 4, 5)), (True, (45, 46, 47))])
def test_infinity_rope_flush_and_cut(cut: bool, own: tuple[int, ...]) -> None:
    pasts, _ = run(InfinityRope(), from_text(6, **{"cut" if cut else "switch": 4}))
    assert layout(pasts[4]) == {0: 0, 10: 1, 11: 2}
    assert (pasts[4].own_frames, pasts[5].own_frames) == (own, (3, 4, 5))
    assert pasts[4].events[: 1 + cut] == ("flush", "cut")[: 1 + cut]
    assert layout(pasts[5]) == {0: 0, 13: 1, 14: 2}


@pytest.mark.parametrize(
    ("policy", "kept", "later"),
    [
        (InfinityRope(sink=2), [0, 10, 11], [0, 10, 14]),
        (InfinityRope(window=12, sink=3), [0, 10, 11], [0, 10, 11, 12, 13, 14]),
        (InfinityRope(variant="paper"), [0, 11], [0, 13, 14]),
        (InfinityRope(window=12, variant="paper"), [0, 11], [0, 11, 12, 13, 14]),
    ],
)
def test_what_a_flush_keeps(policy: InfinityRope, kept: list[int], later: list[int]) -> None:
    """The newest two frames, the newest one in the paper; the second then counts as sink where that is larger."""
    pasts, _ = run(policy, from_text(6, switch=4))
    assert layout(pasts[4]) == {frame: slot for slot, frame in enumerate(kept)}
    assert pasts[4].own_frames == tuple(range(len(kept), len(kept) + 3))
    assert layout(pasts[5]) == {frame: slot for slot, frame in enumerate(later)}
    dropped = [frame for past in pasts[:5] for frame in past.dropped]
    assert sorted(dropped) == [frame for frame in range(12) if frame not in kept]


def test_flush_of_a_cache_that_is_not_full() -> None:
    pasts, _ = run(InfinityRope(window=12), from_text(3, switch=1))
    assert layout(pasts[1]) == {0: 0, 1: 1, 2: 2}
    assert (pasts[1].dropped, pasts[1].events) == ((), ("flush",))
    assert layout(pasts[2]) == {frame: frame for frame in range(6)}


def test_deep_sink() -> None:
    """The sink rests at the first eviction, then moves three frames a chunk, and ends three before the tail."""
    pasts, _ = run(DeepSink(), 12)
    assert [past.dropped for past in pasts[6:9]] == [(), (14, 15, 16), (17, 18, 19)]
    for chunk in range(7, 12):
        first = 3 * chunk
        tail = range(first - 4, first)
        assert layout(pasts[chunk]) == {s: first - 21 + s for s in range(14)} | {frame: frame for frame in tail}
        assert pasts[chunk].own_frames == (first, first + 1, first + 2)
    assert [*layout(pasts[8])][:14] == [*range(14)]
    assert [*layout(pasts[8]).values()] == [*range(3, 17), *range(20, 24)]


def test_mag() -> None:
    pasts, _ = run(Mag(), 24)
    assert layout(pasts[0]) == {}
    assert layout(pasts[1]) == {0: 0, 1: 1, 2: 2}
    assert layout(pasts[2]) == {frame: frame for frame in (0, 1, 2, 5)}
    assert layout(pasts[21]) == {frame: frame for frame in (0, 1, *range(2, 63, 3))}
    assert len(layout(pasts[21])) + 3 == 26
    assert layout(pasts[22]) == {frame: frame for frame in (0, 1, *range(5, 66, 3))}
    assert [past.own_frames for past in pasts] == [(3 * b, 3 * b + 1, 3 * b + 2) for b in range(24)]
    assert [pasts[b].folded for b in (1, 2, 22)] == [(), (3, 4), (63, 64)]
    assert [pasts[b].dropped for b in (2, 21, 22, 23)] == [(), (), (2,), (5,)]


def test_mag_of_the_paper_forgets_nothing() -> None:
    pasts, _ = run(Mag(ring=3, variant="paper"), 24)
    assert layout(pasts[23]) == {frame: frame for frame in (0, 1, *range(2, 69, 3))}
    assert not any(past.dropped for past in pasts)


@dataclass(frozen=True)
class Shown:
    """What a pass of Rolling Forcing shows besides its own frames."""

    kind: str
    own: tuple[int, ...]
    held: dict[int, int]


def rolling(chunks: int) -> list[Shown]:
    """Every pass of the loop at the released five steps, as layer 0 sees it."""
    torch.manual_seed(0)
    config = TransformerConfig(dim=24, ffn_dim=32, heads=2, layers=1, text_dim=8, text_len=4, freq_dim=16)
    model = CausalWanTransformer(config).eval()
    with torch.inference_mode():
        text = model.encode_text(torch.randn(1, 4, 8))
    steps = FewStepSampler(steps=(1000, 800, 600, 400, 200))
    seen: list[Shown] = []

    class Watching(CachedAttention):
        def _open(self, layer: int, q: Tensor, k: Tensor) -> None:
            super()._open(layer, q, k)
            seen.append(Shown(self.chunk.kind, self.shown.own_frames, layout(self.shown)))

    loop = RollingWindow(model, RollingForcing(), steps, text, seeded_noise((1,), (3, 16, 4, 6)), (4, 6))
    loop.attention = Watching(loop.attention.caches, loop.attention.geometry)
    list(loop.generate(chunks))
    return seen


def test_rolling_forcing() -> None:
    passes = rolling(15)
    assert [one.kind for one in passes] == ["window", "history"] * 19
    windows, cleans = passes[::2], passes[1::2]
    assert [(one.own[0], one.own[-1]) for one in windows] == [
        *((0, 3 * w + 2) for w in range(5)),
        *((3 * w - 12, 3 * w + 2) for w in range(5, 15)),
        *((3 * w - 12, 44) for w in range(15, 19)),
    ]
    assert all(one.held == {} for one in windows[:5])
    assert windows[5].held == {0: 0, 1: 1, 2: 2}
    for w in range(6, 15):
        first = 3 * w - 12
        anchor = {frame: first - 6 + frame for frame in range(3)}
        assert windows[w].held == anchor | {frame: frame for frame in range(first - 3, first)}
    for w, room in zip(range(15, 19), (6, 9, 12, 15), strict=True):
        first = 3 * w - 12
        anchor = {frame: first - room - 3 + frame for frame in range(3)}
        assert windows[w].held == anchor | {frame: frame for frame in range(first - room, first)}
    assert [one.own for one in cleans] == [(0, 1, 2)] * 4 + [(3 * b, 3 * b + 1, 3 * b + 2) for b in range(15)]
    for block in range(15):
        expected = range(max(0, 3 * block - 18), 3 * block)
        assert cleans[4 + block].held == {frame: frame for frame in expected}


def test_memrope() -> None:
    """Frames 3 and 4 are lost, 5 to 7 start both averages, then three frames are folded per chunk."""
    pasts, _ = run(MemRope(), 8)
    assert [layout(past) for past in pasts[:4]] == [{f: f for f in range(3 * chunk)} for chunk in range(4)]
    assert [past.own_frames[0] for past in pasts] == [0, 3, 6, 9, 9, 9, 9, 9]
    means = [np.mean([np.mean(clean(f), axis=1) for f in range(first, first + 3)], axis=0) for first in (5, 8, 11, 14)]
    slow = fast = means[0]
    for chunk, mean in zip(range(4, 8), means, strict=True):
        if chunk > 4:
            slow, fast = 0.01 * mean + 0.99 * slow, 0.1 * mean + 0.9 * fast
        past, newest = pasts[chunk], range(3 * chunk - 4, 3 * chunk)
        assert whole_frames(past.sources) == [0, 1, 2, MEMORY, MEMORY, *newest]
        assert whole_frames(past.frames) == [*range(9)]
        for slot, expected in ((3, slow), (4, fast)):
            tokens = slice(slot * SIZE, (slot + 1) * SIZE)
            for shown, right in zip((past.keys, past.values), expected, strict=True):
                np.testing.assert_allclose(
                    shown[0, tokens].numpy(), np.broadcast_to(right, (SIZE, *right.shape)), atol=1e-6
                )
        for slot, frame in ((0, 0), (5, 3 * chunk - 4), (8, 3 * chunk - 1)):
            np.testing.assert_array_equal(past.keys[0, slot * SIZE : (slot + 1) * SIZE], clean(frame)[0].astype("f4"))
    assert [past.dropped for past in pasts[3:6]] == [(), (3, 4), ()]
    assert [past.folded for past in pasts[3:6]] == [(), (5, 6, 7), (8, 9, 10)]


@pytest.mark.parametrize(("window", "sink"), [(12, 3), (10, 2), (11, 0)])
def test_memrope_of_the_paper(window: int, sink: int) -> None:
    """From zero, per position, every evicted frame: sum over n of a (1-a)^(N-n) m_n, where m_n are means in time."""
    pasts, _ = run(MemRope(window=window, sink=sink, variant="paper", alpha_long=0.05, alpha_short=0.3), 9)
    recent = window - sink - 5
    means: list[Array] = []
    done = sink
    for chunk, past in enumerate(pasts):
        if 3 * chunk + 3 <= window:
            assert layout(past) == {frame: frame for frame in range(3 * chunk)}
            continue
        evicted = range(done, 3 * chunk - recent)
        done = evicted.stop
        assert past.folded == tuple(evicted)
        assert past.dropped == ()
        means.append(np.mean([clean(frame) for frame in evicted], axis=0))
        for slot, alpha in ((sink, 0.05), (sink + 1, 0.3)):
            weights = alpha * (1 - alpha) ** np.arange(len(means))[::-1]
            expected = np.einsum("n,nktha->ktha", weights, np.array(means))
            tokens = slice(slot * SIZE, (slot + 1) * SIZE)
            for shown, right in zip((past.keys, past.values), expected, strict=True):
                np.testing.assert_allclose(shown[0, tokens].numpy(), right, atol=1e-6)
        assert whole_frames(past.frames) == [*range(window - 3)]
    assert len(means) > 4


@pytest.mark.parametrize(
    ("policy", "before", "after", "moves"),
    [
        (
            DeepForcing(),
            [0, 3, 6, 9, 12, 15, 18, 21, 16, 19, 16, 19, 16, 19, 16],
            [3, 6, 9, 12, 15, 18, 21, 16, 19, 16, 19, 16, 19, 16, 19],
            [0] * 7 + [5, 5, 11, 11, 17, 17, 23, 23],
        ),
        (
            DeepForcing(window=12, sink=3, keep=10),
            [0, 3, 6, 9, 12, 10, 10, 10],
            [3, 6, 9, 12, 10, 10, 10, 10],
            [0, 0, 0, 0, 2, 5, 8, 11],
        ),
    ],
)
def test_deep_forcing_sizes(policy: DeepForcing, before: list[int], after: list[int], moves: list[int]) -> None:
    """Frames in the cache before a chunk, with the chunk after its first pass, and how far the sink has moved."""
    cache = policy.layer(geometry())
    held = 0.0
    for index, (chunk, past) in enumerate(drive(cache, from_text(len(before)))):
        sink, tokens = policy.sink * SIZE, past.keys.shape[1]
        assert held == before[index]
        assert tokens / SIZE + 3 == after[index] == cache.frames
        move = past.frames - past.sources
        assert (move[0, :sink] == moves[index]).all()
        assert not move[0, sink:].any()
        assert past.padding is None
        assert past.own_frames == chunk.span
        assert past.events == (("compress",) if after[index] < before[index] + 3 else ())
        newest = past.sources[0, tokens - (policy.recent - 3) * SIZE :] if past.events else past.sources[0, tokens:]
        assert set(newest.tolist()) <= {3 * index - 1}
        held = cache.frames


def turned(x: Array, frame: int, cell: int) -> Array:
    """A token [heads, d] rotated to a time index and a grid cell, straight from the definition."""
    angle = np.concatenate([place * 10000.0 ** (-np.arange(2) / 2) for place in (frame, cell // COLS, cell % COLS)])
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


@dataclass
class Token:
    frame: int
    cell: int
    key: Array
    times: int = 0


def tokens_of(chunk: Chunk, x: Tensor, row: int) -> list[Token]:
    places = [(frame, cell) for frame in chunk.span for cell in range(SIZE)]
    return [Token(*place, key) for place, key in zip(places, x[row].double().numpy(), strict=True)]


def released_choices(policy: DeepForcing, chunks: Sequence[Chunk], row: int) -> list[tuple[list[tuple[int, int]], int]]:
    """Deep Forcing as described, a token at a time: of each chunk the places of what is cached, and the sink's move."""
    held: list[Token] = []
    asked: list[Array] = []
    found, move, base = [], 0, None
    sink, recent = policy.sink * SIZE, policy.recent * SIZE
    rows = slice(0, 3)
    for chunk in chunks:
        q, k, _ = projections(chunk, rows, clean=False)
        asked += [turned(t.key, t.frame, t.cell) for t in tokens_of(chunk, q, row)]
        asked = asked[-recent:]
        pool = held + tokens_of(chunk, k, row)
        if len(pool) > policy.window * SIZE:
            free = [i for i in range(sink, len(pool) - recent) if pool[i].times < policy.reuse]
            total = np.sum(asked, axis=0)
            score = {i: (total * turned(pool[i].key, pool[i].frame, pool[i].cell)).sum() for i in free}
            count = policy.keep * SIZE - sink - recent
            best = sorted(sorted(free, key=lambda i: -score[i])[:count])
            for i in best:
                pool[i].times += 1
            pool = [*pool[:sink], *(pool[i] for i in best), *pool[-recent:]]
            want = chunk.first - len(pool) // SIZE
            move += policy.window - policy.keep if base is None else want - base
            base = want
        own = len(projections(chunk)[0][0])
        past = pool[:-own]
        found.append(([(t.frame, t.cell) for t in past], move))
        q, k, _ = projections(chunk, rows)
        asked = [*asked, *(turned(t.key, t.frame, t.cell) for t in tokens_of(chunk, q, row))][-recent:]
        held = past + tokens_of(chunk, k, row)
    return found


@pytest.mark.parametrize(
    "policy",
    [
        DeepForcing(),
        DeepForcing(window=12, sink=3, keep=10),
        DeepForcing(window=12, sink=3, keep=10, recent=3),
        DeepForcing(window=12, sink=1, keep=9, recent=6),
        DeepForcing(window=12, sink=3, keep=10, reuse=2),
        DeepForcing(window=9, sink=0, keep=9, recent=4, reuse=1),
        DeepForcing(window=12, sink=0, keep=12, reuse=2),
        DeepForcing(window=12, sink=3, keep=7),
    ],
)
def test_deep_forcing_chooses_what_recent_queries_ask_for(policy: DeepForcing) -> None:
    """Tokens, their order and the sink's move, chunk by chunk, of three rows at once: rows never mix.

    The queries are those of the last `recent` frames over all passes: the first pass and the end of the clean one.
    """
    chunks = from_text(14)
    expected = [released_choices(policy, chunks, row) for row in range(3)]
    cache = policy.layer(geometry(batch=3))
    for index, (_, past) in enumerate(drive(cache, chunks, slice(0, 3))):
        assert past.cells is not None
        for row in range(3):
            seen = slice(None) if past.padding is None else ~past.padding[row]
            places = list(zip(past.sources[row, seen].tolist(), past.cells[row, seen].tolist(), strict=True))
            right, move = expected[row][index]
            assert places == right
            moved = (past.frames - past.sources)[row, seen]
            assert set(moved[: policy.sink * SIZE].tolist()) <= {move}
            assert not moved[policy.sink * SIZE :].any()
    differ = any(len({tuple(row[chunk][0]) for row in expected}) == 3 for chunk in range(14))
    assert differ == (policy.keep > policy.sink + policy.recent)


def test_some_rows_run_short() -> None:
    """The settings above do reach what they are there for: rows of different lengths."""
    policy = DeepForcing(window=12, sink=0, keep=12, reuse=2)
    lengths = {tuple(len(released_choices(policy, from_text(14), row)[c][0]) for row in range(3)) for c in range(14)}
    assert any(len(set(per_row)) > 1 for per_row in lengths)


def test_older_queries_count() -> None:
    """The end of the clean pass before changes what is chosen."""
    policy = DeepForcing(window=12, sink=3, keep=10)
    _, past = list(drive(policy.layer(geometry()), from_text(5)))[-1]
    cache = policy.layer(geometry())
    other = None
    for chunk in from_text(5):
        q, k, _ = projections(chunk, clean=False)
        other = cache.past(chunk, q, k)
        q, k, v = projections(chunk)
        cache.commit(chunk, -q, k, v)
    assert other is not None
    assert not torch.equal(other.sources, past.sources)
