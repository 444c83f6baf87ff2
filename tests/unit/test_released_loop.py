"""The loop that `memrope` is measured against in benchmarks gives the released latents, and so does `memrope`."""

import torch
from torch import Tensor

from magbench.registry import load_object
from magbench.runners.policies.base import CachePolicy
from magbench.runners.policies.memrope import MemRope
from magbench.runners.wan.sampler import FewStepSampler
from tests.benchmarks.released import ReleasedMemRope
from tests.golden.reader import ATOL, model, tensors


def latents(policy: CachePolicy) -> Tensor:
    inputs = tensors("inputs")

    def noise(chunk: int, step: int) -> Tensor:
        return inputs["renoise"][chunk, step - 1][None] if step else inputs["noise"][:, 3 * chunk : 3 * chunk + 3]

    start, text = load_object(policy.rollout), model().encode_text(inputs["text"])
    run = start(model(), policy, FewStepSampler(), text, noise, inputs["noise"].shape[-2:])
    return torch.cat([step.latents for step in run.generate(len(tensors("memrope")["latents"]))])


def test_latents() -> None:
    made = latents(ReleasedMemRope(window=12, sink=3))
    torch.testing.assert_close(made, tensors("memrope")["latents"], atol=ATOL, rtol=0)
    torch.testing.assert_close(made, latents(MemRope(window=12, sink=3)), atol=ATOL, rtol=0)


def test_other_averages_differ() -> None:
    made = latents(ReleasedMemRope(window=12, sink=3, alpha_short=0.2))
    assert (made - tensors("memrope")["latents"]).abs().max() > 1e-3
