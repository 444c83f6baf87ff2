"""`check_policy` passes every method, and finds each fault that was put into a policy."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from magbench.runners.check_policy import CHECKS, check_policy
from magbench.runners.methods import METHODS, BoundMethod, PolicyFile, parse_method
from magbench.runners.policies.base import CachePolicy, Chunk, Geometry, LayerCache, Past
from magbench.runners.policies.fifo import Fifo, FifoCache

NAMES = [check.__name__.removeprefix("_") for check in CHECKS]


@pytest.mark.parametrize("spec", [*METHODS, "memrope:variant=paper", "mag:variant=paper", "longlive:global_sink=false"])
def test_every_method_passes(spec: str) -> None:
    checks = check_policy(parse_method(spec))
    assert [check.name for check in checks] == NAMES
    assert [f"{check.name}: {check.found}" for check in checks if not check.ok] == []
    notes = [check.name for check in checks if "note" in check.found]
    assert notes == (["positions"] if spec == "deep-forcing" else [])


class Cache(FifoCache):
    """A FIFO with a fault."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(9, 1, geometry)


@dataclass(frozen=True)
class Broken(Fifo):
    """A small FIFO whose caches are those of `cache`."""

    cache: ClassVar[type[Cache]] = Cache
    window: int = 9
    sink: int = 1

    def layer(self, geometry: Geometry) -> Any:
        return self.cache(geometry)


def test_the_policy_without_a_fault_passes() -> None:
    assert failures(Broken) == {}


def failures(policy: type[CachePolicy]) -> dict[str, str]:
    """Reasons of the checks that failed, by name."""
    name = f"broken.py:{policy.__name__}"
    method = PolicyFile(name, "", "", policy)
    return {c.name: c.found for c in check_policy(BoundMethod(name, method, policy(), name)) if not c.ok}


class Raises(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        return super().past(chunk, q, k) if chunk.first < 9 else {}["lost"]


class Blind(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        past = super().past(chunk, q, k)
        past.values.fill_(float("nan"))
        return past


class Greedy(Cache):
    def evict(self, chunk: Chunk) -> tuple[int, ...]:
        return self.remove(1, max(0, len(self.sources) + chunk.frames - 10))


class Timid(Cache):
    def evict(self, chunk: Chunk) -> tuple[int, ...]:
        return self.remove(1, max(0, len(self.sources) + chunk.frames - 8))


class Growing(Cache):
    """Honest about it."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.notes: list[Tensor] = []

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        super().commit(chunk, q, k, v)
        self.notes.append(q.mean().clone())

    @property
    def state_bytes(self) -> int:
        return sum(note.nbytes for note in self.notes)


class Secretive(Cache):
    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        super().commit(chunk, q, k, v)
        self.secret = {"last": [q.mean((1, 2))]}


class Ahead(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        past = super().past(chunk, q, k)
        return replace(past, frames=past.frames + 7)


class Before(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        past = super().past(chunk, q, k)
        return replace(past, frames=past.frames - 1)


class Torn(Cache):
    """Its tokens are no whole frames, and it doesn't say where they belong."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        past = super().past(chunk, q, k)
        return replace(past, frames=past.frames.roll(1), sources=past.sources.roll(1))


class Vague(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        past = super().past(chunk, q, k)
        return replace(past, keys=1.01 * past.keys)


class Swapped(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        past = super().past(chunk, q, k)
        return replace(past, sources=past.sources.flip(0))


class Silent(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        return replace(super().past(chunk, q, k), dropped=())


class Undead(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        past = super().past(chunk, q, k)
        return replace(past, folded=(2,) if chunk.first == 3 else ())


class Clinging(Cache):
    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        super().commit(chunk, q, k, v)
        self.last = q

    @property
    def state_bytes(self) -> int:
        return self.last.untyped_storage().nbytes()


class Meddling(Cache):
    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        super().commit(chunk, q, k, v)
        v.mul_(0.5)


class Counting(Cache):
    """Remembers the videos before this one."""

    videos: ClassVar[int] = 0

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        type(self).videos += 1
        self.first = 1 + self.videos // 2 % 2

    def evict(self, chunk: Chunk) -> tuple[int, ...]:
        return self.remove(self.first, max(0, len(self.sources) + chunk.frames - 9))


class Forgetful(Cache):
    """Leaves out of its state what decides what leaves."""

    chunks = 0

    def evict(self, chunk: Chunk) -> tuple[int, ...]:
        self.chunks += 1
        return self.remove(1 + self.chunks % 3, max(0, len(self.sources) + chunk.frames - 9))

    def state(self) -> dict[str, Any]:
        return {name: value for name, value in super().state().items() if name != "chunks"}


class Sealed(Cache):
    """Holds what can't be put down."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.inner = iter(())


class Leading(Cache):
    """What leaves is decided by the first video of the batch for all."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        self.first = 1 + int(1000 * q[0].mean().abs()) % 3
        return super().past(chunk, q, k)

    def evict(self, chunk: Chunk) -> tuple[int, ...]:
        return self.remove(self.first, max(0, len(self.sources) + chunk.frames - 9))


class Precise(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        past = super().past(chunk, q, k)
        return replace(past, keys=past.keys.float())


class Startled(Cache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        if chunk.scene_cut:
            raise RuntimeError("what now?")
        return super().past(chunk, q, k)


class Spilling(Cache):
    def evict(self, chunk: Chunk) -> tuple[int, ...]:
        return () if chunk.prompt_changed else super().evict(chunk)


FAULTS = [
    ("runs", Raises, "KeyError: 'lost'"),
    ("runs", Blind, "latents of chunk 1 are not finite"),
    ("memory", Greedy, "chunk 3 sees 7 past frames, its budget is 6"),
    ("memory", Timid, "its budget is 6, and in 126 frames it shows 5 at most"),
    ("memory", Growing, "it goes on growing"),
    ("bytes", Secretive, "chunk 0 (history), layer 0: it says"),
    ("positions", Ahead, "a token is shown at time index 9, after the chunk's own (3, 4, 5)"),
    ("positions", Before, "a token is shown at time index -1"),
    ("positions", Torn, "cells is None, and the tokens are not whole frames"),
    ("tokens", Vague, "a token said to come from frame 0 is not as it was stored"),
    ("tokens", Swapped, "a token said to come from frame"),
    ("frames", Silent, "chunk 3, layer 0: frame 1 is neither shown nor said to be folded or dropped"),
    ("frames", Undead, "frame 2 is shown, after it was said to have left"),
    ("aliasing", Clinging, "it keeps the tensors it was given, not copies of them"),
    ("aliasing", Meddling, "it changes the tensors it was given"),
    ("determinism", Counting, "of a second video"),
    ("resume", Forgetful, "differs after it was taken up"),
    ("rows", Leading, "of the second video moves by"),
    ("dtype", Precise, "its keys are torch.float32 on cpu, the queries torch.bfloat16 on cpu"),
    ("switches", Startled, "RuntimeError: what now?"),
    ("switches", Spilling, "after a switch chunk"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "cache", "reason"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_fault_fails_its_check(name: str, cache: type[Cache], reason: str) -> None:
    found = failures(type("Faulty", (Broken,), {"cache": cache}))
    assert reason in found[name]
    assert set(found) <= {name} | ALSO.get(cache, set())


ALSO: dict[type[Cache], set[str]] = {
    Greedy: {"switches"},
    Torn: {"tokens"},
    Counting: {"rows"},
    Startled: {"positions", "tokens", "frames"},
}  # fmt: skip
"""Checks that can't help but fail too."""


def test_a_cache_that_cannot_be_saved_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "faulty", PolicyFile("faulty", "", "", type("Faulty", (Broken,), {"cache": Sealed})))
    checks = {check.name: check for check in check_policy(parse_method("faulty"))}
    assert all(check.ok for check in checks.values())
    assert checks["resume"].found == "not resumable, a stopped video starts over: it holds a tuple_iterator"


@dataclass(frozen=True)
class Fixed(CachePolicy):
    """No `window`, no `spend`, and yet it says that a budget can be chosen."""

    @property
    def budget(self) -> int:
        return 6

    def layer(self, geometry: Geometry) -> LayerCache:
        return Cache(geometry)


def test_a_budget_that_cannot_be_spent_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "fixed", PolicyFile("fixed", "", "", Fixed))
    checks = check_policy(parse_method("fixed"))
    assert {c.name: c.found for c in checks if not c.ok} == {
        "budget": "fixed has no parameter 'window' for a budget to set; its class says in `spend` which parameters a "
        "budget sets, or with `matched = False` that it sets none"
    }
    monkeypatch.setattr(Fixed, "matched", False)
    assert all(check.ok for check in check_policy(parse_method("fixed")))


@dataclass(frozen=True)
class Endless(Fixed):
    """Says that it grows, and doesn't."""

    @property
    def budget(self) -> None:  # type: ignore[override]
        return


def test_a_cache_that_does_not_grow_has_a_budget() -> None:
    assert failures(Endless) == {"memory": "its budget is None, as of a cache that grows: it stays at 6 past frames"}


def test_there_is_a_fault_for_every_check() -> None:
    assert {name for name, *_ in FAULTS} | {"budget"} == set(NAMES)


@pytest.fixture(autouse=True)
def undisturbed() -> Iterator[None]:
    """Checking leaves torch's own random numbers alone."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(torch.random.get_rng_state(), before)
