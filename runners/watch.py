"""A rollout on a small model of random weights that writes down what a policy's caches are given, show and hold."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, cast

import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.registry import load_object
from magbench.runners.policies.base import CachePolicy, Chunk, Geometry, LayerCache, Past
from magbench.runners.rollout import PromptSwitch, Rollout, Step, Writer
from magbench.runners.state import kinds_of, pack, unpack
from magbench.runners.wan.configs import CHUNK_FRAMES, TransformerConfig
from magbench.runners.wan.sampler import OdeSampler, seeded_noise
from magbench.runners.wan.transformer import CausalWanTransformer, TextCache

LAYERS = 2
HISTORY = 2
"""Chunks of given history."""
_CONFIG = TransformerConfig(dim=24, ffn_dim=32, heads=2, layers=LAYERS, text_dim=8, text_len=4, freq_dim=16)
_SIZE = (4, 6)
TOKENS = _SIZE[0] * _SIZE[1] // 4
"""Per frame."""


@dataclass(frozen=True)
class Shown:
    """What one cache gave to one chunk."""

    cache: int
    """Which one, in the order in which they were made."""
    chunk: Chunk
    past: Past
    """Copies; values without the room behind them."""
    room: int
    """Tokens for which there was room behind the values."""
    queries: Tensor
    """As given."""
    frames: float
    """What the cache says it holds."""
    misuse: str
    """What it did with the tensors it was given; empty when nothing."""


@dataclass(frozen=True)
class Stored:
    """What one cache was given to keep, and holds since."""

    cache: int
    chunk: Chunk
    keys: Tensor
    values: Tensor
    said: int
    """Bytes it says it holds."""
    held: int
    """Bytes of all tensors that can be reached from it."""
    misuse: str


@dataclass(frozen=True)
class Watched:
    """One rollout."""

    calls: tuple[Shown | Stored, ...]
    """In order."""
    steps: tuple[Step, ...]

    @property
    def shown(self) -> Iterator[Shown]:
        """What was shown, in order."""
        return (call for call in self.calls if isinstance(call, Shown))

    @property
    def stored(self) -> Iterator[Stored]:
        """What was stored, in order."""
        return (call for call in self.calls if isinstance(call, Stored))


def watch(
    policy: CachePolicy,
    chunks: int,
    *,
    history: int = HISTORY,
    seeds: Sequence[int] = (1, 2),
    switches: Mapping[int, bool] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Watched:
    """Roll out.

    Args:
        policy: To run with, in its own loop.
        chunks: How many to generate.
        history: How many are given before.
        seeds: One per row of the batch.
        switches: Chunks at which the prompt changes, and whether with a cut.
        dtype: Of the model.
        device: Torch device.

    Raises:
        ConfigError: a cache shows keys or values of another dtype or device than the queries.
    """
    calls: list[Shown | Stored] = []
    with torch.inference_mode():
        made = _start(cast(CachePolicy, _Watching(policy, calls)), history + chunks, seeds, dtype, device)
        texts = {at: PromptSwitch(made.text(at), cut) for at, cut in (switches or {}).items()}
        given = made.rollout.history(made.truth[:, : CHUNK_FRAMES * history]) if history else ()
        steps = tuple(chain(given, made.rollout.generate(chunks, texts)))
    return Watched(tuple(calls), steps)


def watch_resumed(policy: CachePolicy, chunks: int, stop: int, seeds: Sequence[int] = (1, 2)) -> tuple[Step, ...]:
    """Roll out as `watch` does without a switch, put the rollout down after some chunks, and go on with another.

    Args:
        policy: To run with.
        chunks: How many to generate.
        stop: After how many of them.
        seeds: One per row of the batch.

    Returns:
        What was made after the stop.

    Raises:
        NotResumableError: the caches hold something that can't be put down.
    """
    with torch.inference_mode():
        first, second = (_start(policy, HISTORY + chunks, seeds, torch.float32, "cpu") for _ in range(2))
        for _ in first.rollout.history(first.truth[:, : CHUNK_FRAMES * HISTORY]):
            pass
        for _ in islice(first.rollout.generate(chunks), stop):
            pass
        kinds = kinds_of(first.rollout.attention.caches)
        second.rollout.restore(unpack(*pack(first.rollout.state(), kinds), kinds))
        return tuple(second.rollout.generate(chunks - stop))


@dataclass(frozen=True)
class _Started:
    rollout: Rollout
    truth: Tensor
    text: Callable[[int], TextCache]
    """The prompts of that number."""


def _start(policy: CachePolicy, chunks: int, seeds: Sequence[int], dtype: torch.dtype, device: str) -> _Started:
    """A rollout that has made nothing yet."""
    model, writer = (network.to(device, dtype) for network in _networks())
    loop: type[Rollout] = load_object(policy.rollout)
    truth = seeded_noise([-seed for seed in seeds], (CHUNK_FRAMES * chunks, _CONFIG.in_channels, *_SIZE), dtype, device)

    def prompt(number: int) -> Tensor:
        rows = [torch.randn(4, 8, generator=torch.Generator().manual_seed(100 * number + seed)) for seed in seeds]
        return torch.stack(rows).to(device, dtype)

    rollout = loop(
        model,
        policy,
        OdeSampler(steps=2),
        model.encode_text(prompt(0)),
        seeded_noise(seeds, (CHUNK_FRAMES, _CONFIG.in_channels, *_SIZE), dtype, device),
        _SIZE,
        memory=Writer(writer, writer.encode_text(torch.zeros_like(prompt(0)))),
        truth=truth(0, 0),
        reencode=lambda latents: latents[:, :1],
    )
    return _Started(rollout, truth(0, 0), lambda number: model.encode_text(prompt(number)))


def _networks() -> tuple[CausalWanTransformer, CausalWanTransformer]:
    """A generator and a memory network in which the past matters."""
    with torch.random.fork_rng(devices=[]):
        return _network(0), _network(1)


def _network(seed: int) -> CausalWanTransformer:
    torch.manual_seed(seed)
    network = CausalWanTransformer(_CONFIG).eval().requires_grad_(False)
    for name, weight in network.named_parameters():
        if name.endswith(("self_attn.v.weight", "self_attn.o.weight")):
            weight.mul_(3.0)
        elif name.startswith("blocks.") and name.endswith(".modulation"):
            weight[:, 2] += 1.0  # the gate of self-attention
    torch.nn.init.normal_(network.head.head.weight, std=0.1)
    return network


class _Watching:
    """A policy whose caches are watched."""

    def __init__(self, policy: CachePolicy, calls: list[Shown | Stored]) -> None:
        self._policy, self._calls, self._made = policy, calls, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def layer(self, geometry: Geometry) -> LayerCache:
        cache, number = self._policy.layer(geometry), self._made
        self._made += 1
        past, commit = cache.past, cache.commit

        def watched_past(chunk: Chunk, q: Tensor, k: Tensor) -> Past:
            before = q.clone(), k.clone()
            shown = past(chunk, q, k)
            for what, tensor in (("keys", shown.keys), ("values", shown.values)):
                if (tensor.dtype, tensor.device) != (q.dtype, q.device):
                    found, wanted = f"{tensor.dtype} on {tensor.device}", f"{q.dtype} on {q.device}"
                    raise ConfigError(f"its {what} are {found}, the queries {wanted}")
            tokens = shown.keys.shape[1]
            copy = replace(shown, keys=shown.keys.clone(), values=shown.values[:, :tokens].clone())
            room, misuse = shown.values.shape[1] - tokens, _misuse(cache, (q, k), before)
            self._calls.append(Shown(number, chunk, copy, room, before[0], cache.frames, misuse))
            return shown

        def watched_commit(chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
            before = q.clone(), k.clone(), v.clone()
            commit(chunk, q, k, v)
            said, held = cache.nbytes + cache.state_bytes, sum(reachable(cache).values())
            misuse = _misuse(cache, (q, k, v), before)
            self._calls.append(Stored(number, chunk, before[1], before[2], said, held, misuse))

        cache.past, cache.commit = watched_past, watched_commit  # type: ignore[method-assign]
        return cache


def _misuse(cache: LayerCache, given: Sequence[Tensor], before: Sequence[Tensor]) -> str:
    if not all(torch.equal(now, then) for now, then in zip(given, before, strict=True)):
        return "changes the tensors it was given"
    if {tensor.untyped_storage().data_ptr() for tensor in given} & reachable(cache).keys():
        return "keeps the tensors it was given, not copies of them"
    return ""


def reachable(thing: Any) -> dict[int, int]:
    """Bytes of all tensors that an object holds, by the address of their storage, each storage once."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    left = [thing]
    while left:
        item = left.pop()
        if id(item) in seen or isinstance(item, Geometry | type):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            if storage.nbytes():
                found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, Mapping):
            left += item.values()
        elif isinstance(item, Sequence | set | frozenset) and not isinstance(item, str | bytes):
            left += item
        elif not inspect.isroutine(item):
            left += getattr(item, "__dict__", {}).values()
            left += [getattr(item, name) for name in getattr(item, "__slots__", ()) if hasattr(item, name)]
    return found
