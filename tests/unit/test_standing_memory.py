"""While a chunk is in the making, a layer holds keys, values and rotated keys once each, and nothing else so large."""

from typing import Any

import pytest
import torch
from torch import Tensor

from magbench.registry import load_object
from magbench.runners.methods import METHODS, parse_method
from magbench.runners.policies.base import CachePolicy, Geometry
from magbench.runners.rollout import PromptSwitch, Rollout, Writer
from magbench.runners.wan.configs import TransformerConfig
from magbench.runners.wan.sampler import OdeSampler, seeded_noise
from magbench.runners.wan.transformer import CausalWanTransformer

CONFIG = TransformerConfig(dim=24, ffn_dim=32, heads=2, layers=2, text_dim=8, text_len=4, freq_dim=16)
BATCH, SIZE = 2, 6
TOKEN = BATCH * CONFIG.dim * 4
"""Bytes of a key, in all rows."""


def storages(thing: Any, found: dict[int, int], seen: set[int]) -> None:
    """Bytes of all tensor storages reachable from `thing`, by address; tables of the rotary embedding aside."""
    if id(thing) in seen or isinstance(thing, Geometry | CachePolicy):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        found[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        return
    inside = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else ()
    for value in [*inside, *getattr(thing, "__dict__", {}).values()]:
        storages(value, found, seen)


def large(run: Rollout) -> list[int]:
    """Sizes in tokens of what is reachable and as large as half of a layer's past keys, ascending."""
    found: dict[int, int] = {}
    storages(run.attention, found, set())
    least = run.attention.past_tokens * TOKEN / 2
    return sorted(size // TOKEN for size in found.values() if size >= least)


@pytest.mark.parametrize(
    "spec",
    [
        *(name for name in METHODS if name not in ("full", "causvid", "rolling-forcing")),
        "memrope:adaptive=true",
        "memrope:variant=paper",
        "deep-forcing:keep=10,sink=3,window=12",
    ],
)
def test_one_copy_of_each(spec: str) -> None:
    policy = parse_method(spec).policy
    torch.manual_seed(0)
    model = CausalWanTransformer(CONFIG).eval().requires_grad_(False)
    text, other = (model.encode_text(torch.randn(BATCH, 4, 8)) for _ in range(2))
    noise = seeded_noise((1, 2), (3, 16, 4, 6))
    sampler = OdeSampler(steps=2)
    run = load_object(policy.rollout)(model, policy, sampler, text, noise, (4, 6), memory=Writer(model, text))
    real, sizes = run._flow, []

    def flow(latents: Tensor, timesteps: list[float], writer: Writer | None = None) -> Tensor:
        out: Tensor = real(latents, timesteps, writer)
        if not run.attention.committing:
            past, own = run.attention.past_tokens, latents.shape[1] * SIZE
            sizes.append((large(run), sorted([past, past + own, past + own] * CONFIG.layers)))
        return out

    run._flow = flow
    list(run.generate(12, {10: PromptSwitch(other)}))
    assert len(sizes) == 24
    for found, expected in sizes[2:]:
        assert found == expected
    assert max(expected[-1] for _, expected in sizes) >= 0.5 * ((policy.budget or 0) + 3) * SIZE
    assert not run.attention._buffers, "rotated keys do not outlive their chunk"
