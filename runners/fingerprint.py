"""The fingerprint of a method: a rollout of seconds on fixed inputs, in which every tier of its cache is in use."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magbench import __version__, provenance
from magbench.data.mini_world import Scene, World
from magbench.fingerprint import encode_latents
from magbench.jobs import Plan
from magbench.options import FingerprintOptions
from magbench.records import ChunkPrint, FingerprintRecord, RunRecord
from magbench.runners.execute import Setup, blame
from magbench.runners.methods import BoundMethod, all_methods, parse_method
from magbench.runners.models import ModelInfo, VideoModel, find_model
from magbench.runners.policies.base import CachePolicy
from magbench.runners.prepare import find_device
from magbench.runners.rollout import Rollout, Step, begin
from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.runners.wan.sampler import seeded_noise
from magbench.store import RunStore

RECIPE = 1
"""Version of the fixed inputs."""
GENERATED = 2
"""Chunks generated after the history."""
UPDATES = 6
"""Chunks of history after the cache is full: several, so that what averages evicted frames has moved."""
_SEED = 3_000_000
_GROWING = 9
"""Frames taken for the budget of a cache that grows."""


class Fingerprinter:
    """Takes fingerprints on one model, which is loaded when the first one is taken.

    Args:
        info: The model.
        device: Torch device.
        dtype: Numeric type of the rollout; None takes the model's.
    """

    def __init__(self, info: ModelInfo, device: str = "cpu", dtype: str | None = None) -> None:
        self.info, self.device, self.dtype = info, device, dtype or info.dtype

    @cached_property
    def model(self) -> VideoModel:
        """The model, ready to generate."""
        return self.info.load(self.device, self.dtype)

    def take(self, method: BoundMethod) -> FingerprintRecord:
        """Roll out and write down. What a method does wrong becomes a record of state `error`.

        Raises:
            MissingWeightsError: the model's weights are not here.
        """
        frames, model = history_frames(method.policy), self.model
        applicability, reason = self.info.applicability(method.method.name, method.parameters)
        if applicability == "not applicable":
            return FingerprintRecord(**self._identity(method), state="not_applicable", reason=reason)
        try:
            chunks = prints(model, method.policy, self.history(frames), prompt(), stride=self.info.stride)
            outcome: dict[str, Any] = {"chunks": chunks}
        except Exception as error:  # the per-sample boundary: one method's fault ends no run
            reason, hint = blame(error)
            outcome = {"state": "error", "reason": reason, "hint": hint}
        return FingerprintRecord(**self._identity(method), **outcome)

    def is_current(self, stored: FingerprintRecord | None, method: BoundMethod) -> bool:
        """Whether `stored` came from the same inputs and holds a result."""
        if stored is None or stored.state != "value":
            return False
        return all(getattr(stored, name) == value for name, value in self._identity(method).items())

    def _identity(self, method: BoundMethod) -> dict[str, Any]:
        return {
            "recipe": RECIPE,
            "method": method.label,
            "parameters": method.parameters,
            "code_sha256": method.code_sha256,
            "budget_frames": method.policy.budget,
            "model": self.info.name,
            "weights_sha256": self._weights,
            "dtype": self.dtype,
            "sampler": self.info.sampler,
            "history_frames": history_frames(method.policy),
        }

    @cached_property
    def _weights(self) -> str:
        return "+".join(self.info.weights_sha256().values())

    def history(self, frames: int) -> Tensor:
        """Latents [1, frames, C, H, W] of the rendered world, or noise where the model can't encode its size."""
        world = World(Scene.parse(prompt()), _SEED)
        with torch.inference_mode():
            latents = self.model.encode(world.clip(self.info.pixel_frames(frames)))
        if tuple(latents.shape[-2:]) != self.model.latent_size:
            shape = (frames, self.model.transformer.config.in_channels, *self.model.latent_size)
            return seeded_noise([_SEED + 1], shape)(0, 0)
        return latents[None]


@dataclass(frozen=True)
class PreparedFingerprint:
    """All that `magbench fingerprint` needs."""

    root: Path
    record: RunRecord
    methods: tuple[BoundMethod, ...]
    fingerprinter: Fingerprinter

    def take(self) -> Iterator[FingerprintRecord]:
        """One after the other."""
        return map(self.fingerprinter.take, self.methods)


def prepare_fingerprint(options: FingerprintOptions) -> PreparedFingerprint:
    """Decide everything before anything is written.

    Raises:
        ConfigError: an option or method can't be used.
        MissingWeightsError: the model's weights are not here.
    """
    info = find_model(options.model)
    names = [name for given in options.method for name in (all_methods() if given == "all" else (given,))]
    methods = {method.label: method for method in (parse_method(name, options.budget) for name in names)}
    device, dtype = find_device(options.device), options.dtype or info.dtype
    record = RunRecord(
        magbench_version=__version__,
        kind="fingerprint",
        model=info.name,
        methods=tuple(methods),
        arguments=options.model_dump(mode="json", exclude_unset=True),
        resolved={"device": device, "dtype": dtype, "sampler": info.sampler},
        started=provenance.now(),
        versions=provenance.versions(),
        hardware=provenance.hardware(),
        git=provenance.git(),
        weights=info.weights_sha256(),
    )
    return PreparedFingerprint(options.out, record, tuple(methods.values()), Fingerprinter(info, device, dtype))


def fingerprint_plan(store: RunStore, plan: Plan, setup: Setup, again: bool = False) -> None:
    """Take the fingerprint of each method of a run that has none of these inputs yet.

    Args:
        store: The run.
        plan: Names the methods.
        setup: Tells model, device and numeric type.
        again: Take them all again.

    Raises:
        StoreError: the run folder cannot be written.
    """
    fingerprinter = Fingerprinter(find_model(setup.model), setup.device, setup.dtype)
    stored = {} if again else store.fingerprints()
    kinds = ("reference", "not applicable")
    for label in sorted({job.method.label for job in plan.jobs if job.method.applicability not in kinds}):
        method = parse_method(label)
        if not fingerprinter.is_current(stored.get(label), method):
            store.write_fingerprint(fingerprinter.take(method))


def prompt() -> str:
    """The prompt of all fingerprints."""
    return Scene.draw(random.Random("magbench fingerprint"), camera="pans right quickly").sentence()


def history_frames(policy: CachePolicy) -> int:
    """Latent frames of given history: enough to fill the cache and to push `UPDATES` chunks out of it."""
    budget = _GROWING if policy.budget is None else policy.budget
    return CHUNK_FRAMES * (-(-budget // CHUNK_FRAMES) + 1 + UPDATES)


def prints(
    model: VideoModel, policy: CachePolicy, history: Tensor, text: str, batch: int = 1, stride: int = 1
) -> tuple[ChunkPrint, ...]:
    """One chunk from text alone; then, in another rollout, the history and `GENERATED` chunks.

    Args:
        model: To run on.
        policy: To run with.
        history: Latents [1, F, C, H, W], F a multiple of the chunk.
        text: The prompt.
        batch: Equal rows to roll out at once. Only the first is written down.
        stride: Pixel frames per latent frame after the first.

    Returns:
        The chunk from text, then those of the second rollout in order.
    """
    transformer, size = model.transformer, model.latent_size
    device = next(transformer.parameters()).device
    shape = (CHUNK_FRAMES, transformer.config.in_channels, *size)
    noise = seeded_noise([_SEED] * batch, shape, transformer.dtype, device)
    given = history.to(device, transformer.dtype).expand(batch, -1, -1, -1, -1)

    def start() -> Rollout:
        return begin(model, policy, [text] * batch, noise, stride)

    with torch.inference_mode():
        first, long = start(), start()
        made = [_print(first, step, "the first chunk from text") for step in first.generate(1)]
        made += [_print(long, step, f"history chunk {step.trace.chunk}") for step in long.history(given)]
        made += [_print(long, step, f"generated chunk {step.trace.chunk}") for step in long.generate(GENERATED)]
    return tuple(made)


def _print(rollout: Rollout, step: Step, name: str) -> ChunkPrint:
    trace, shown = step.trace, rollout.attention.shown
    row = shown.frames if shown.frames.ndim == 1 else shown.frames[0]
    latents = step.latents[0].float().cpu() if trace.kind == "generate" else None
    return ChunkPrint(
        **trace.model_dump(include=set(ChunkPrint.model_fields) & set(type(trace).model_fields)),
        name=name,
        shown=tuple(_runs(row.tolist())),
        own_frames=shown.own_frames,
        hide_own=shown.hide_own,
        shape=() if latents is None else tuple(latents.shape),
        latents="" if latents is None else encode_latents(latents.numpy()),
    )


def _runs(values: Sequence[int]) -> Iterator[tuple[int, int]]:
    return ((value, len(list(group))) for value, group in groupby(values))
