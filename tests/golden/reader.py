"""Golden folders: what is in them, and the rollouts that must reproduce them."""

import json
import os
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor

from magbench.registry import load_object
from magbench.runners import rollout
from magbench.runners.policies import deep_forcing
from magbench.runners.policies.base import MEMORY, CachePolicy, Chunk, Past
from magbench.runners.policies.causvid import CausVid
from magbench.runners.policies.deep_forcing import DeepForcing, DeepForcingCache
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

OWN = Path(__file__).parent / "data"
FOLDER = Path(os.environ.get("MAGBENCH_GOLDEN") or OWN)
ATOL = 2e-5


def _window(arguments: dict[str, Any]) -> CachePolicy:
    window = arguments["local_attn_size"]
    return Full() if window == -1 else Fifo(window=window, sink=arguments["sink_size"])


def _longlive(arguments: dict[str, Any]) -> CachePolicy:
    if arguments.get("infinity"):
        return LongLiveInfinity(**_sizes(arguments))
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
    "sf": _window,
    "longlive_v1": _longlive,
    "infrope": lambda arguments: InfinityRope(**_sizes(arguments)),
    "memrope": _memrope,
    "deepforcing": _deep,
    "mag": _mag,
    "rolling": lambda arguments: RollingForcing(),
    "causvid": lambda arguments: CausVid(rollout_frames=arguments["rollout_frames"]),
}
"""Released code, as `ref` in the files' `config` -> the policy that must reproduce it."""

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


@lru_cache
def covered() -> list[str]:
    """Rollout files that a policy must reproduce."""
    return [name for name in names() if meta(name).get("config", {}).get("ref") in POLICIES]


def covered_with(prefix: str) -> list[str]:
    """Covered files that hold tensors under `prefix`."""
    return [name for name in covered() if any(key.startswith(prefix) for key in tensors(name))]


def uncovered() -> list[str]:
    return [name for name in names() if name not in covered() and name not in UNITS]


def policy_of(name: str) -> CachePolicy:
    config = meta(name)["config"]
    return POLICIES[config["ref"]](config["policy_args"])


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
class Pass:
    """One pass of a network: what it was given, showed and gave."""

    chunk: int
    """As the files count."""
    name: str
    first: int
    """First frame, in the whole video."""
    timesteps: tuple[float, ...]
    noisy: Tensor
    flow: Tensor
    pasts: list[Past]
    """Per layer, with keys and values of memories only."""
    keys: int
    """Tokens that attention looked at."""
    writers: list[str | None]
    """The pass that made the values of each attended frame of layer 0, told by the values alone; None for a memory."""
    shown: list[tuple[Tensor, Tensor]]
    """Per layer the keys, as rotated, and the values that attention looked at, [T, heads, d]; if the file has them."""


@dataclass(frozen=True)
class Compression:
    """What one layer of Deep Forcing chose once."""

    chunk: int
    tokens: int
    """Cached tokens and the chunk's own."""
    counts: Tensor
    """How often each candidate had been chosen before."""
    scores: Tensor
    barred: Tensor
    chosen: Tensor
    """Indices into all tokens."""


class Replay:
    """A golden rollout run again by `policy`, with everything that happened inside it.

    `pipeline` replaces entries of the file's pipeline. Unwatched, there are latents and traces only.
    """

    def __init__(self, name: str, policy: CachePolicy, watch: bool = True, **pipeline: Any) -> None:
        self.config, inputs = meta(name)["config"], tensors("inputs")
        arguments, pipeline = self.config["policy_args"], self.config["pipeline"] | pipeline
        steps = tuple(step for step in pipeline["denoising_step_list"] if step)
        self.sampler = FewStepSampler(steps, pipeline["timestep_shift"], pipeline["warp_denoising_step"])
        self.prefill = self.config["prefill_frames"] // 3
        self.policy = policy
        self.per_rollout = policy.rollout_frames // 3 if isinstance(policy, CausVid) else 0
        """Chunks of each of several rollouts; 0 when there is one."""
        self.passes: list[Pass] = []
        self.asked: list[tuple[int, int]] = []
        """Chunk and step of the noise that was added, in order, as the files count."""
        self.compressions: list[Compression] = []
        ends: list[Tensor] = []
        given = inputs["initial_latent"][:, : 3 * self.prefill]

        def noise(chunk: int, step: int) -> Tensor:
            own = self._file_chunk(chunk) - self.prefill
            if step == 0:
                return inputs["noise"][:, 3 * own : 3 * own + 3]
            self.asked.append((own, step - 1))
            added = inputs["renoise"][own, step - 1] if step < 4 else tensors("inputs_extra")["renoise_step3"][own]
            return added[None]

        def reencode(latents: Tensor) -> Tensor:
            ends.append(latents)
            return inputs["initial_latent"][:, :1]

        height, width = inputs["noise"].shape[-2:]
        self.tokens_per_frame = height * width // 4
        run = load_object(policy.rollout)(
            model(),
            policy,
            self.sampler,
            model().encode_text(inputs["text"]),
            noise,
            (height, width),
            memory=memory() if policy.writer == "memory" else None,
            truth=torch.cat([given, inputs["gt_latent"]], dim=1) if policy.writes_truth else None,
            reencode=reencode,
        )
        total = self.config["num_chunks"]
        if self.per_rollout:
            total -= (total - 1) // self.per_rollout
        with self._watching(run, tensors(name)) if watch else nullcontext():
            made = [*run.history(given)] if self.prefill else []
            made += run.generate(total, self._switches(arguments))
        chunks = [step.latents for step in made if step.latents.numel()][self.prefill :]
        for rollout_index, end in enumerate(ends, start=1):
            chunks.insert(rollout_index * self.per_rollout - 1, end)
        self.latents = torch.cat(chunks)
        """[chunks, 3, C, H, W] as in the files: with the end of a rollout that the next one takes the place of."""
        self.traces = [step.trace for step in made]

    def _file_chunk(self, chunk: int) -> int:
        """How the files count chunks: those that a rollout shares with the last one count twice."""
        return chunk + max(0, chunk - 1) // (self.per_rollout - 1) if self.per_rollout else chunk

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
    def _watching(self, run: rollout.Rollout, given: Container[str]) -> Iterator[None]:
        """Look into `run`; `given` are the names of the file's tensors."""
        real_attention, real_flow, real_open = rollout.attention, run._flow, rollout.CachedAttention._open
        real_choose, real_compress = deep_forcing.choose, DeepForcingCache._compress
        shown: list[tuple[Tensor, Tensor]] = []
        pasts: list[Past] = []
        steps: dict[Chunk, int] = {}
        made: dict[int, list[tuple[str, Tensor]]] = {}

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
            shown.append((k[0], v[0]))
            return real_attention(q, k, v, mask)

        def open_layer(attention: rollout.CachedAttention, layer: int, q: Tensor, k: Tensor) -> None:
            if layer == 0:
                pasts.clear()
            seen: list[Past] = []
            real = attention.caches[layer]
            attention.caches[layer] = WrappedCache(real, lambda past: seen.append(past) or past)  # type: ignore[func-returns-value]
            real_open(attention, layer, q, k)
            attention.caches[layer] = real
            past, memories = seen[0], seen[0].sources == MEMORY
            keys, values = past.keys, past.values[:, : past.keys.shape[1]]
            if memories.ndim > 1:
                memories = memories.any(0)
            pasts.append(replace(past, keys=keys[:, memories], values=values[:, memories]))

        def compress(cache: DeepForcingCache, chunk: Chunk, q: Tensor) -> None:
            before, sink = cache.tokens, cache.policy.sink * self.tokens_per_frame
            with mock.patch.object(deep_forcing, "choose", side_effect=real_choose) as chooser:
                real_compress(cache, chunk, q)
            (scores, barred, count), _ = chooser.call_args
            index, missing = real_choose(scores, barred, count)
            self.compressions.append(
                Compression(
                    chunk=chunk.first // 3 - self.prefill,
                    tokens=before.keys.shape[1] + q.shape[1],
                    counts=before.chosen[0, sink : sink + scores.shape[1]],
                    scores=scores[0],
                    barred=barred[0],
                    chosen=index[0][~missing[0]] + sink,
                )
            )

        def flow(latents: Tensor, timesteps: list[float], writer: Writer | None = None) -> Tensor:
            shown.clear()
            out = real_flow(latents, timesteps, writer)
            chunk, ended = run.attention.chunk, run.attention.committing
            index = steps[chunk] = steps.get(chunk, -1) + 1
            rolling = isinstance(self.policy, RollingForcing)
            names = {"generate": "ctx" if ended else f"step{index}", "history": "ctx" if rolling else "prefill"}
            number = self._file_chunk(chunk.first // 3) - self.prefill
            if chunk.kind == "recache":
                number = (chunk.first + chunk.frames) // 3
            elif rolling:
                number = sum(one.name == "window" for one in self.passes) - (chunk.kind == "history")
            elif self.per_rollout and chunk.kind == "history":
                number += 1
            name = names.get(chunk.kind, chunk.kind)
            values = shown[0][1]
            one = Pass(
                chunk=number,
                name=name,
                first=chunk.first,
                timesteps=tuple(timesteps),
                noisy=latents[0],
                flow=out[0],
                pasts=[*pasts],
                keys=len(values),
                writers=[],
                shown=[
                    (k.clone(), v.clone()) for k, v in shown if f"attended/c{number}/{name}/layer0/k_every_fsl" in given
                ],
            )
            self.passes.append(one)
            one.writers.extend(self._writers(one, values, made))
            return out

        with (
            mock.patch.object(rollout, "attention", attend),
            mock.patch.object(rollout.CachedAttention, "_open", open_layer),
            mock.patch.object(DeepForcingCache, "_compress", compress),
            mock.patch.object(run, "_flow", flow),
        ):
            yield

    def _writers(self, one: Pass, values: Tensor, made: dict[int, list[tuple[str, Tensor]]]) -> list[str | None]:
        """See `Pass`; puts the values of the pass's own frames into `made`. Nothing where frames are broken up."""
        frames = [frame for frame, _, _ in self.tokens(one.chunk, one.name)][:: self.tokens_per_frame]
        seen = values.split(self.tokens_per_frame)
        own = len(one.timesteps) - one.pasts[0].hide_own
        for frame, new in zip(frames[-own:], seen[-own:], strict=True):
            made.setdefault(frame, []).append((one.name, new.clone()))
        return [
            next((name for name, known in made.get(frame, ()) if torch.equal(known, part)), None)
            for frame, part in zip(frames, seen, strict=True)
        ]

    def _file_frame(self, frame: int, one: Pass) -> int:
        """How the files count frames: like chunks."""
        return frame + 3 * (one.chunk // self.per_rollout) if self.per_rollout else frame

    def start_of(self, one: Pass) -> int:
        """First frame of a pass, counted in its rollout."""
        return self._file_frame(one.first, one) % (3 * self.per_rollout) if self.per_rollout else one.first

    def find(self, chunk: int, name: str) -> Pass:
        """A pass by the numbers and names of the files."""
        (found,) = (one for one in self.passes if (one.chunk, one.name) == (chunk, name))
        return found

    def past(self, chunk: int, name: str = "step0", layer: int = 0) -> Past:
        return self.find(chunk, name).pasts[layer]

    def attended(self, chunk: int, name: str, layer: int) -> tuple[Tensor, Tensor]:
        """Keys, as rotated, and values of a pass: two of [T, heads, d]."""
        return self.find(chunk, name).shown[layer]

    def tokens(self, chunk: int, name: str) -> list[tuple[int, int, int]]:
        """(source frame, grid cell, time index) of every attended token of layer 0, the chunk's own last."""
        one = self.find(chunk, name)
        past, size = one.pasts[0], self.tokens_per_frame
        count = past.sources.shape[-1]
        cells = torch.arange(count) % size if past.cells is None else _row(past.cells)
        sources = [MEMORY if f == MEMORY else self._file_frame(f, one) for f in _row(past.sources).tolist()]
        held = zip(sources, cells.tolist(), _row(past.frames).tolist(), strict=True)
        own = [
            (self._file_frame(one.first + index, one), cell, position)
            for index, position in enumerate(past.own_frames)
            for cell in range(size)
        ]
        return [*held, *own[past.hide_own * size :]]

    def layout(self, chunk: int, name: str) -> list[tuple[int, int]]:
        """(source frame, time index) of every attended frame, the chunk's own last."""
        tokens, size = self.tokens(chunk, name), self.tokens_per_frame
        frames = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        if any({(source, position) for source, _, position in f} != {(f[0][0], f[0][2])} for f in frames):
            raise ValueError(f"chunk {chunk}: the tokens of a frame differ in source or time index")
        return [(frame[0][0], frame[0][2]) for frame in frames]


def _row(x: Tensor) -> Tensor:
    """Of [T] or [1, T]."""
    return x if x.ndim == 1 else x[0]


@lru_cache
def replay(name: str) -> Replay:
    return Replay(name, policy_of(name))
