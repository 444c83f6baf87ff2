"""Golden folders: what is in them, and the rollouts that must reproduce them."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor

from magbench.runners import rollout
from magbench.runners.policies.base import CachePolicy, Geometry, LayerCache, Past
from magbench.runners.policies.fifo import Fifo
from magbench.runners.policies.full import Full
from magbench.runners.policies.memrope import MemRope
from magbench.runners.wan.configs import CONFIGS, TransformerConfig
from magbench.runners.wan.sampler import FewStepSampler
from magbench.runners.wan.transformer import CausalWanTransformer
from tests.wrapped_cache import WrappedCache

FOLDER = Path(os.environ.get("MAGBENCH_GOLDEN") or Path(__file__).parent / "data")
ATOL = 2e-5


def _window(arguments: dict[str, Any]) -> CachePolicy:
    window = arguments["local_attn_size"]
    return Full() if window == -1 else Fifo(window=window, sink=arguments["sink_size"])


def _memrope(arguments: dict[str, Any]) -> CachePolicy:
    sizes = {"window": arguments["local_attn_size"], "sink": arguments["sink_size"]}
    if arguments.get("compression_method", "eviction") == "eviction":
        return MemRope(**sizes, memory="none")
    alphas = {"alpha_long": arguments["ema_alpha_long"], "alpha_short": arguments["ema_alpha_short"]}
    return MemRope(**sizes, **alphas, adaptive=arguments["ema_adaptive"])


POLICIES: dict[str, Callable[[dict[str, Any]], CachePolicy]] = {
    "sf_full": _window,
    "sf_window": _window,
    "sf_window_prefill": _window,
    "longlive": _window,
    "longlive_infinity": _memrope,
    "memrope": _memrope,
    "memrope_adaptive": _memrope,
    "memrope_eviction": _memrope,
}
"""Golden file -> the policy that must reproduce it."""

UNITS = ("units_core", "units_relrope", "units_mag")
"""Unit files that a test reads; `units_mag` belongs to the retention metric."""


@lru_cache
def tensors(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / f"{name}.safetensors")


@lru_cache
def meta(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def names() -> list[str]:
    """Rollout and unit files of the folder."""
    found = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "sensitivity")
    if not found:
        raise FileNotFoundError(f"no golden files in {FOLDER}")
    return found


def covered() -> list[str]:
    return [name for name in names() if name in POLICIES]


def covered_with(prefix: str) -> list[str]:
    """Covered files that hold tensors under `prefix`."""
    return [name for name in covered() if any(key.startswith(prefix) for key in tensors(name))]


def uncovered() -> list[str]:
    return [name for name in names() if name not in POLICIES and name not in UNITS]


@lru_cache
def model() -> CausalWanTransformer:
    """The folder's transformer, its sizes read from the weights."""
    weights = {key.removeprefix("model."): value for key, value in tensors("weights").items()}
    config: TransformerConfig = replace(
        CONFIGS["toy"],
        heads=next((meta(name)["config"]["model"]["num_heads"] for name in covered()), CONFIGS["toy"].heads),
        dim=weights["head.modulation"].shape[-1],
        ffn_dim=weights["blocks.0.ffn.0.bias"].shape[0],
        layers=sum(key.endswith("ffn.0.bias") for key in weights),
        text_dim=weights["text_embedding.0.weight"].shape[1],
        freq_dim=weights["time_embedding.0.weight"].shape[1],
        text_len=tensors("inputs")["text"].shape[1],
    )
    transformer = CausalWanTransformer(config)
    transformer.load_state_dict(weights, strict=True)
    return transformer.eval().requires_grad_(False)


@dataclass(frozen=True)
class Watched(CachePolicy):
    """A policy whose answers are written down."""

    inner: CachePolicy
    pasts: list[list[Past]] = field(default_factory=list)

    def layer(self, geometry: Geometry) -> LayerCache:
        seen: list[Past] = []
        self.pasts.append(seen)

        def see(past: Past) -> Past:
            seen.append(past)
            return past

        return WrappedCache(self.inner.layer(geometry), see)

    @property
    def budget(self) -> int | None:
        return self.inner.budget


@dataclass(frozen=True)
class WatchedSampler(FewStepSampler):
    """A sampler that keeps every (input, flow)."""

    calls: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def step(self, index: int, noisy: Tensor, flow: Tensor, fresh: Callable[[], Tensor]) -> Tensor:
        self.calls.append((noisy, flow))
        return super().step(index, noisy, flow, fresh)


class Replay:
    """A golden rollout run again by `policy`, with everything that happened inside it."""

    def __init__(self, name: str, policy: CachePolicy, chunks: int | None = None) -> None:
        config, inputs = meta(name)["config"], tensors("inputs")
        pipeline = config["pipeline"]
        sampler = WatchedSampler(steps=tuple(pipeline["denoising_step_list"]), shift=pipeline["timestep_shift"])
        watched = Watched(policy)
        self.prefill = config["prefill_frames"] // 3
        self.layers = model().config.layers
        self.shown: list[tuple[Tensor, Tensor]] = []
        """Keys and values that self-attention looked at, one entry per pass and layer."""

        def noise(chunk: int, step: int) -> Tensor:
            own = chunk - self.prefill
            return inputs["noise"][:, 3 * own : 3 * own + 3] if step == 0 else inputs["renoise"][own, step - 1][None]

        def spy(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.shown.append((k.clone(), v.clone()))
            return real(q, k, v)

        real = rollout.attention
        text = model().encode_text(inputs["text"])
        height, width = inputs["noise"].shape[-2:]
        self.tokens_per_frame = height * width // 4
        run = rollout.Rollout(model(), watched, sampler, text, noise, (height, width))
        with mock.patch.object(rollout, "attention", spy):
            given = list(run.history(inputs["initial_latent"][:, : 3 * self.prefill])) if self.prefill else []
            made = list(run.generate(chunks or config["num_chunks"]))
        self.latents = torch.cat([step.latents for step in made])
        self.traces = [step.trace for step in given + made]
        self.calls = sampler.calls
        self.steps = len(sampler.steps)
        self.pasts = watched.pasts

    def flow(self, chunk: int, step: int) -> Tensor:
        return self.calls[chunk * self.steps + step][1][0]

    def noisy(self, chunk: int, step: int) -> Tensor:
        return self.calls[chunk * self.steps + step][0][0]

    def past(self, chunk: int, layer: int = 0) -> Past:
        """Chunks count as in the files: from the first generated one, given ones below 0."""
        return self.pasts[layer][chunk + self.prefill]

    def attended(self, chunk: int, name: str, layer: int) -> tuple[Tensor, Tensor]:
        """Keys, as rotated, and values of a pass: two of [T, heads, d]."""
        if chunk < 0:
            index = chunk + self.prefill
        else:
            step = self.steps if name == "ctx" else int(name.removeprefix("step"))
            index = self.prefill + chunk * (self.steps + 1) + step
        keys, values = self.shown[index * self.layers + layer]
        return keys[0], values[0]

    def layout(self, chunk: int) -> list[tuple[int, int]]:
        """(source frame, time index) of every attended frame, the chunk's own last."""
        past, first = self.past(chunk), 3 * (chunk + self.prefill)
        size = self.tokens_per_frame
        pairs = torch.stack([past.sources, past.frames], 1).view(-1, size, 2)
        if not (pairs == pairs[:, :1]).all():
            raise ValueError(f"chunk {chunk}: the tokens of a frame differ in source or time index")
        own = [(first + index, position) for index, position in enumerate(past.own_frames)]
        return [(int(source), int(position)) for source, position in pairs[:, 0]] + own


@lru_cache
def replay(name: str) -> Replay:
    return Replay(name, POLICIES[name](meta(name)["config"]["policy_args"]))
