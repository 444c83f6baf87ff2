"""What a rollout holds: raw keys, rotated keys and values, one copy each, and between chunks no rotated ones."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from magbench.registry import load_object
from magbench.runners.methods import METHODS, parse_method
from magbench.runners.rollout import Writer
from magbench.runners.wan.configs import CONFIGS
from magbench.runners.wan.sampler import FewStepSampler
from magbench.runners.wan.transformer import CausalWanTransformer
from tests.benchmarks.policies import held_bytes

CONFIG = CONFIGS["toy"]
TOKEN = CONFIG.dim * CONFIG.layers * 4
"""Bytes of one token's keys in all layers."""
SLACK = 1.05
"""For indices of tokens and the averages of memories."""


@pytest.mark.parametrize("name", METHODS)
@torch.inference_mode()
def test_one_copy_each(name: str) -> None:
    torch.manual_seed(0)
    model, policy = CausalWanTransformer(CONFIG).eval(), parse_method(name).policy
    text = model.encode_text(torch.zeros(1, CONFIG.text_len, CONFIG.text_dim))
    run = load_object(policy.rollout)(
        model,
        policy,
        FewStepSampler(),
        text,
        lambda chunk, step: torch.randn(1, 3, 16, 4, 4, generator=torch.Generator().manual_seed(chunk)),
        (4, 4),
        memory=Writer(model, text) if policy.writer == "memory" else None,
        reencode=lambda latents: latents[:, :1],
    )
    list(run.history(torch.randn(1, 72, 16, 4, 4)))
    real, passes = run._flow, 0

    def flow(latents: Tensor, timesteps: Sequence[float], writer: Writer | None = None) -> Tensor:
        nonlocal passes
        out: Tensor = real(latents, timesteps, writer)
        seen = run.attention
        held = held_bytes([seen.caches, seen._buffers])
        raw = sum(cache.nbytes for cache in seen.caches) // 2
        if seen.committing:
            assert 2 * raw <= held <= SLACK * 2 * raw
        else:
            shown = (seen.past_tokens + 4 * latents.shape[1]) * TOKEN
            # Rolling Forcing shows frames that it does not store: the values that it shows are a copy of their own.
            least = 2 * shown + (2 * raw if name == "rolling-forcing" else seen.past_tokens * TOKEN)
            assert least <= held <= SLACK * least
            passes += 1
        return out

    run._flow = flow
    made = run.generate(100)
    for _ in range(4):
        next(made)
    assert passes >= 4
