"""A rollout that is put down between two chunks and taken up in another object makes the video it would have made."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from magbench.registry import load_object
from magbench.runners.methods import METHODS, parse_method
from magbench.runners.policies.base import CachePolicy, FrameCache, Geometry
from magbench.runners.policies.fifo import FifoCache
from magbench.runners.rollout import PromptSwitch, Rollout, Step, Writer
from magbench.runners.state import NotResumableError, kinds_of, pack, unpack
from magbench.runners.wan.sampler import OdeSampler, seeded_noise
from tests.tiny_model import load_tiny

SHAPE = (3, 16, 4, 4)
CHUNKS, SWITCH, CUT = 12, 5, 9
PLACES = 5, 6, 8


networks = cache(lambda dtype: load_tiny(dtype=dtype))


def begin(policy: CachePolicy, dtype: str) -> tuple[Rollout, dict[int, PromptSwitch]]:
    model = networks(dtype)
    text, other, third = (model.text([f"{name} {row}" for row in "ab"]) for name in ("one", "two", "three"))
    noise = seeded_noise((1, 2), SHAPE, model.transformer.dtype)
    rollout: Rollout = load_object(policy.rollout)(
        model.transformer,
        policy,
        OdeSampler(steps=3),
        text,
        noise,
        (4, 4),
        memory=Writer(model.memory, model.memory.encode_text(model.rows(["", ""]))),
        reencode=lambda latents: (latents[:, :1] * 1.5).to(latents.dtype),
    )
    return rollout, {SWITCH: PromptSwitch(other), CUT: PromptSwitch(third, cut=True)}


def on_disk(rollout: Rollout) -> dict[str, Any]:
    """The state as it comes back from bytes."""
    kinds = kinds_of(rollout.attention.caches)
    text, tensors = pack(rollout.state(), kinds)
    found: dict[str, Any] = unpack(text, load(save(tensors)), kinds)
    return found


def same(one: Step, other: Step) -> bool:
    traces = [step.trace.model_copy(update={"ms": 0.0}) for step in (one, other)]
    return torch.equal(one.latents, other.latents) and traces[0] == traces[1]


SPECS = {name: name for name in METHODS} | {
    "deep-forcing": "deep-forcing:window=12,sink=3,keep=10",
    "deep-sink": "deep-sink:window=12,sink=6",
    "mag": "mag:ring=4",
    "causvid": "causvid:rollout_frames=9",
    "rolling-forcing": "rolling-forcing:window=12",
}
"""Sizes at which every cache overflows."""


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [*((spec, "float32") for spec in SPECS.values()), ("memrope:adaptive=true", "bfloat16")],
)
def test_taken_up_anywhere(spec: str, dtype: str) -> None:
    policy = parse_method(spec).policy
    with torch.inference_mode():
        whole, switches = begin(policy, dtype)
        given = torch.randn(2, 6, *SHAPE[1:], generator=torch.Generator().manual_seed(2)).to(whole.geometry.dtype)
        list(whole.history(given))
        expected, states = [], {2: on_disk(whole)}
        for step in whole.generate(CHUNKS - 2, switches):
            expected.append(step)
            if step.latents.shape[1]:
                states[step.trace.chunk + 1] = on_disk(whole)
        assert len(states) == CHUNKS - 1
        for at in PLACES:
            rollout, switches = begin(policy, dtype)
            rollout.restore(states[at], switches)
            made = list(rollout.generate(CHUNKS - at, switches))
            left = [step for step in expected if step.trace.chunk >= at or step.trace.kind == "recache"][-len(made) :]
            assert sum(step.latents.shape[1] for step in made) == 3 * (CHUNKS - at)
            assert all(map(same, made, left)), at


@dataclass
class Held:
    value: Tensor
    ages: dict[int, tuple[float, ...]]


class Odd:
    pass


@dataclass(frozen=True)
class Owner(CachePolicy):
    budget = 9

    def layer(self, geometry: Geometry) -> "OwnCache":
        return OwnCache(self, geometry)


class OwnCache(FifoCache):
    def __init__(self, policy: Owner, geometry: Geometry) -> None:
        super().__init__(12, 0, geometry)
        self.policy, self.held, self.odd = policy, None, None


def test_a_cache_may_hold_dataclasses_of_its_own_module() -> None:
    geometry = begin(Owner(), "float32")[0].geometry
    mine = Owner().layer(geometry)
    value = torch.tensor([[True, False]])
    mine.held = Held(value[:, :1], {3: (0.1, float("inf")), -1: ()})
    text, tensors = pack(mine.state(), kinds_of([mine]))
    other = Owner().layer(geometry)
    other.restore(unpack(text, tensors, kinds_of([other])))
    assert torch.equal(other.held.value, value[:, :1]) and other.held.ages == mine.held.ages
    assert (other.policy, other.geometry, other.sources) == (mine.policy, mine.geometry, ())
    assert other.held.value.data_ptr() != value.data_ptr()


@pytest.mark.parametrize("thing", [Odd(), {1, 2}, len, FrameCache, 1j])
def test_what_cannot_be_put_down_is_named(thing: object) -> None:
    mine = OwnCache(Owner(), begin(Owner(), "float32")[0].geometry)
    mine.odd = [thing]
    with pytest.raises(NotResumableError, match=type(thing).__name__):
        pack(mine.state(), kinds_of([mine]))
