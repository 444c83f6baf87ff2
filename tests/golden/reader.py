"""Golden folders: what is in them, and the rollouts that must reproduce them."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor

from magbench.registry import load_object
from magbench.runners import rollout
from magbench.runners.policies.base import CachePolicy, Chunk, Past
from magbench.runners.policies.causvid import CausVid
from magbench.runners.policies.deep_forcing import DeepForcing
from magbench.runners.policies.deep_sink import DeepSink
from magbench.runners.policies.fifo import Fifo
from magbench.runners.policies.full import Full
from magbench.runners.policies.infinity_rope import InfinityRope
from magbench.runners.policies.longlive import LongLive
from magbench.runners.policies.longlive_infinity import LongLiveInfinity
from magbench.runners.policies.mag import Mag
from magbench.runners.policies.memrope import MemRope
from magbench.runners.policies.rolling_forcing import RollingForcing
from magbench.runners.rollout import PromptSwitch, Writer
from magbench.runners.wan.configs import CONFIGS, TransformerConfig
from magbench.runners.wan.sampler import FewStepSampler
from magbench.runners.wan.transformer import CausalWanTransformer, TextCache
from tests.wrapped_cache import WrappedCache

FOLDER = Path(os.environ.get("MAGBENCH_GOLDEN") or Path(__file__).parent / "data")
ATOL = 2e-5


def _window(arguments: dict[str, Any]) -> CachePolicy:
    window = arguments["local_attn_size"]
    return Full() if window == -1 else Fifo(window=window, sink=arguments["sink_size"])


def _longlive(arguments: dict[str, Any]) -> CachePolicy:
    return LongLive(**_sizes(arguments), global_sink=arguments.get("global_sink", True))


def _memrope(arguments: dict[str, Any]) -> CachePolicy:
    if arguments["compression_method"] == "eviction":
        return MemRope(**_sizes(arguments), memory="none")
    alphas = {"alpha_long": arguments["ema_alpha_long"], "alpha_short": arguments["ema_alpha_short"]}
    return MemRope(**_sizes(arguments), **alphas, adaptive=arguments["ema_adaptive"])


def _deep(arguments: dict[str, Any]) -> CachePolicy:
    if arguments["is_ds_only"]:
        return DeepSink(**_sizes(arguments))
    return DeepForcing(**_sizes(arguments), keep=arguments["budget"], recent=arguments["recent"])


def _mag(arguments: dict[str, Any]) -> CachePolicy:
    return Mag(
        ring=arguments["local_attn_size"],
        sink=arguments["sink_size"],
        writer="generator" if "only_generator" in arguments["mode"] else "memory",
        write_back="truth" if arguments.get("use_gt") else "generated",
    )


def _sizes(arguments: dict[str, Any]) -> dict[str, int]:
    return {"window": arguments["local_attn_size"], "sink": arguments["sink_size"]}


POLICIES: dict[str, Callable[[dict[str, Any]], CachePolicy]] = {
    "sf_full": _window,
    "sf_window": _window,
    "sf_window_prefill": _window,
    "longlive": _longlive,
    "longlive_recache": _longlive,
    "longlive_recache_early": _longlive,
    "longlive_recache_nosink": _longlive,
    "longlive_infinity": lambda arguments: LongLiveInfinity(**_sizes(arguments)),
    "infinity_rope": lambda arguments: InfinityRope(**_sizes(arguments)),
    "infinity_rope_flush": lambda arguments: InfinityRope(**_sizes(arguments)),
    "infinity_rope_flush_sink2": lambda arguments: InfinityRope(**_sizes(arguments)),
    "infinity_rope_cut": lambda arguments: InfinityRope(**_sizes(arguments)),
    "memrope": _memrope,
    "memrope_adaptive": _memrope,
    "memrope_eviction": _memrope,
    "deep_sink": _deep,
    "deep_forcing": _deep,
    "deep_forcing_long": _deep,
    "mag_t2v": _mag,
    "mag_initial": _mag,
    "mag_initial_gt": _mag,
    "mag_initial_generator_only": _mag,
    "rolling_forcing": lambda arguments: RollingForcing(),
    "rolling_forcing_5step": lambda arguments: RollingForcing(),
    "causvid": lambda arguments: CausVid(rollout_frames=arguments["rollout_frames"]),
    "causvid_warped": lambda arguments: CausVid(rollout_frames=arguments["rollout_frames"]),
}
"""Golden file -> the policy that must reproduce it."""

UNITS = ("units_core", "units_relrope", "units_delta", "units_mag")
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


def _weights(name: str) -> dict[str, Tensor]:
    return {key.removeprefix("model."): value for key, value in tensors(name).items()}


@lru_cache
def model() -> CausalWanTransformer:
    """The folder's transformer, its sizes read from the weights."""
    weights = _weights("weights")
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
    return _network(config, weights)


@lru_cache
def memory() -> Writer:
    """MAG's second network and its prompt."""
    network = _network(model().config, {**_weights("weights"), **_weights("memory_weights")})
    return Writer(network, network.encode_text(tensors("inputs")["text_empty"]))


def _network(config: TransformerConfig, weights: dict[str, Tensor]) -> CausalWanTransformer:
    transformer = CausalWanTransformer(config)
    transformer.load_state_dict(weights, strict=True)
    return transformer.eval().requires_grad_(False)


@dataclass(frozen=True)
class WatchedSampler(FewStepSampler):
    """A sampler that keeps every (input, flow)."""

    calls: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def step(self, index: int, noisy: Tensor, flow: Tensor, fresh: Callable[[], Tensor]) -> Tensor:
        self.calls.append((noisy, flow))
        return super().step(index, noisy, flow, fresh)


@dataclass(frozen=True)
class Pass:
    """One pass of a network: what it was given, showed and gave."""

    chunk: int
    """As the files count."""
    name: str
    first: int
    """First frame, in the whole video."""
    timesteps: tuple[float, ...]
    flow: Tensor
    pasts: list[Past]
    """Per layer."""
    shown: list[tuple[Tensor, Tensor]]
    """Per layer the keys, as rotated, and the values that attention looked at: [B, T, heads, d]."""


class Replay:
    """A golden rollout run again by `policy`, with everything that happened inside it."""

    def __init__(self, name: str, policy: CachePolicy, chunks: int | None = None) -> None:
        self.config, inputs = meta(name)["config"], tensors("inputs")
        pipeline, arguments = self.config["pipeline"], self.config["policy_args"]
        steps = tuple(step for step in pipeline["denoising_step_list"] if step)
        sampler = WatchedSampler(steps, pipeline["timestep_shift"], pipeline["warp_denoising_step"])
        self.prefill = self.config["prefill_frames"] // 3
        self.overlaps, self.policy = isinstance(policy, CausVid), policy
        self.passes: list[Pass] = []
        self.reencoded: list[Tensor] = []
        given = inputs["initial_latent"][:, : 3 * self.prefill]

        def noise(chunk: int, step: int) -> Tensor:
            own = self._file_chunk(chunk) - self.prefill
            if step == 0:
                return inputs["noise"][:, 3 * own : 3 * own + 3]
            return inputs["renoise"][own, step - 1][None] if step < 4 else tensors("inputs_extra")["renoise_step3"][own][None]

        def reencode(latents: Tensor) -> Tensor:
            self.reencoded.append(latents)
            return inputs["initial_latent"][:, :1]

        height, width = inputs["noise"].shape[-2:]
        self.tokens_per_frame = height * width // 4
        run = load_object(policy.rollout)(
            model(),
            policy,
            sampler,
            model().encode_text(inputs["text"]),
            noise,
            (height, width),
            memory=memory() if policy.writer == "memory" else None,
            truth=torch.cat([given, inputs["gt_latent"]], dim=1) if policy.writes_truth else None,
            reencode=reencode,
        )
        with self._watching(run):
            made = [*run.history(given)] if self.prefill else []
            total = self.config["num_chunks"] - (self.config["num_chunks"] - 1) // 7 * self.overlaps
            made += run.generate(chunks or total, self._switches(arguments))
        self.latents = torch.cat([step.latents for step in made if step.latents.numel()][self.prefill :])
        self.traces = [step.trace for step in made]
        self.calls = sampler.calls
        self.steps = len(steps)

    def _file_chunk(self, chunk: int) -> int:
        """How the files count chunks: those that a rollout shares with the last one count twice."""
        shared = self.policy.rollout_frames // 3 - 1 if isinstance(self.policy, CausVid) else 0
        return chunk + max(0, chunk - 1) // shared if shared else chunk

    def _switches(self, arguments: dict[str, Any]) -> dict[int, PromptSwitch]:
        """Prompt switches by chunk."""
        if "switch_frame" in arguments:
            return {-(-arguments["switch_frame"] // 3): PromptSwitch(self._text("B"))}
        found, first, cut = {}, 0, None
        for text, blocks, cuts in arguments.get("scenes", ()):
            if first:
                found[first] = PromptSwitch(self._text(text), bool(cut))
            first, cut = first + blocks, cuts
        return found

    @staticmethod
    def _text(name: str) -> TextCache:
        return model().encode_text(tensors("inputs")["text"] if name == "A" else tensors("inputs_extra")["text2"])

    @contextmanager
    def _watching(self, run: rollout.Rollout) -> Iterator[None]:
        real_attention, real_flow, real_open = rollout.attention, run._flow, rollout.CachedAttention._open
        shown: list[tuple[Tensor, Tensor]] = []
        pasts: list[Past] = []
        steps: dict[Chunk, int] = {}

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
            shown.append((k.clone(), v.clone()))
            return real_attention(q, k, v, mask)

        def open_layer(attention: rollout.CachedAttention, layer: int, q: Tensor, k: Tensor) -> None:
            if layer == 0:
                pasts.clear()
            seen: list[Past] = []
            real = attention.caches[layer]
            attention.caches[layer] = WrappedCache(real, lambda past: seen.append(past) or past)  # type: ignore[func-returns-value]
            real_open(attention, layer, q, k)
            attention.caches[layer] = real
            pasts.append(seen[0])

        def flow(latents: Tensor, timesteps: list[float], writer: Writer | None = None) -> Tensor:
            shown.clear()
            out = real_flow(latents, timesteps, writer)
            chunk, clean = run.attention.chunk, run.attention.committing
            index = steps[chunk] = steps.get(chunk, -1) + 1
            rolling = isinstance(self.policy, RollingForcing)
            names = {"generate": "ctx" if clean else f"step{index}", "history": "ctx" if rolling else "prefill"}
            number = self._file_chunk(chunk.first // 3) - self.prefill
            if chunk.kind == "recache":
                number = (chunk.first + chunk.frames) // 3
            elif rolling:
                number = sum(one.name == "window" for one in self.passes) - (chunk.kind == "history")
            elif self.overlaps and chunk.kind == "history":
                number += 1
            name = names.get(chunk.kind, chunk.kind)
            self.passes.append(Pass(number, name, chunk.first, tuple(timesteps), out[0], [*pasts], [*shown]))
            return out

        with (
            mock.patch.object(rollout, "attention", attend),
            mock.patch.object(rollout.CachedAttention, "_open", open_layer),
            mock.patch.object(run, "_flow", flow),
        ):
            yield

    def find(self, chunk: int, name: str) -> Pass:
        """A pass by the numbers and names of the files."""
        (found,) = (one for one in self.passes if (one.chunk, one.name) == (chunk, name))
        return found

    def flow(self, chunk: int, step: int) -> Tensor:
        return self.find(chunk, f"step{step}").flow

    def noisy(self, chunk: int, step: int) -> Tensor:
        return self.calls[chunk * self.steps + step][0][0]

    def past(self, chunk: int, name: str = "step0", layer: int = 0) -> Past:
        return self.find(chunk, name).pasts[layer]

    def attended(self, chunk: int, name: str, layer: int) -> tuple[Tensor, Tensor]:
        """Keys, as rotated, and values of a pass: two of [T, heads, d]."""
        keys, values = self.find(chunk, name).shown[layer]
        return keys[0], values[0]

    def tokens(self, chunk: int, name: str) -> list[tuple[int, int, int]]:
        """(source frame, grid cell, time index) of every attended token of layer 0, the chunk's own last."""
        one = self.find(chunk, name)
        past, size = one.pasts[0], self.tokens_per_frame
        count = past.keys.shape[1]
        row = (lambda x: x if x.ndim == 1 else x[0])  # noqa: E731
        cells = torch.arange(count) % size if past.cells is None else row(past.cells)
        held = zip(row(past.sources).tolist(), cells.tolist(), row(past.frames).tolist(), strict=True)
        own = [
            (one.first + index, cell, position)
            for index, position in enumerate(past.own_frames)
            for cell in range(size)
        ]
        return [*held, *own[past.hide_own * size :]]

    def layout(self, chunk: int, name: str) -> list[tuple[int, int]]:
        """(source frame, time index) of every attended frame, the chunk's own last."""
        tokens = self.tokens(chunk, name)
        size = self.tokens_per_frame
        frames = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        if any({(source, position) for source, _, position in frame} != {(frame[0][0], frame[0][2])} for frame in frames):
            raise ValueError(f"chunk {chunk}: the tokens of a frame differ in source or time index")
        return [(frame[0][0], frame[0][2]) for frame in frames]


@lru_cache
def replay(name: str) -> Replay:
    return Replay(name, POLICIES[name](meta(name)["config"]["policy_args"]))
