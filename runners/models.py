"""The models that methods run on. Importing this file, and listing models, imports no torch."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

from magbench.data.mini_world import FPS, SIZE, Scene
from magbench.errors import ConfigError, MissingWeightsError
from magbench.records import Applicability
from magbench.registry import did_you_mean, load_object
from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.suite import Suite

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from magbench.runners.wan.sampler import Sampler
    from magbench.runners.wan.transformer import CausalWanTransformer, TextCache

TRANSFER: tuple[Applicability, str] = "training-free transfer", "the model was not trained with this cache"


class VideoModel(Protocol):
    """What a loaded model offers to the runner."""

    transformer: "CausalWanTransformer"
    memory: "CausalWanTransformer | None"
    """MAG's second network, which writes the cache; None where there is none."""
    sampler: "Sampler"
    latent_size: tuple[int, int]
    """(H, W) of a latent frame."""

    def rows(self, prompts: Sequence[str]) -> "Tensor":
        """Embed prompts, also the empty one: [B, n, text_dim].

        Raises:
            ConfigError: a prompt the model can't read.
        """

    def text(self, prompts: Sequence[str]) -> "TextCache":
        """Encode prompts for the transformer; the batch is their number, "" is the empty prompt.

        Raises:
            ConfigError: a prompt the model can't read.
        """

    def encode(self, frames: "npt.NDArray[np.uint8]") -> "Tensor":
        """Frames uint8 [T, height, width, 3] to latents [F, C, H, W]."""

    def decode(self, latents: "Tensor") -> "npt.NDArray[np.uint8]":
        """Latents [F, C, H, W] to frames uint8 [T, height, width, 3]."""

    def decode_stream(self, latents: "Iterable[Tensor]") -> "Iterator[npt.NDArray[np.uint8]]":
        """Latents block by block to frames block by block, the same as `decode` makes of all blocks in a row."""


@dataclass(frozen=True)
class Fit:
    """What a model's training says about a cache.

    Args:
        policy: Name of the policy.
        where: Parameters that must have these values; the others are free.
        reason: What training showed, or didn't.
        applicability: What it makes of the cache.
    """

    policy: str
    where: Mapping[str, Any]
    reason: str
    applicability: Applicability = "in-distribution"


@dataclass(frozen=True)
class ModelInfo:
    """One entry of `magbench list models`."""

    name: str
    title: str
    loader: str
    """`module:function` that takes (device, dtype) and returns a `VideoModel`."""
    package: str
    """Package whose folder `weights` holds the weights and whose `MODEL_CARD.md` describes the model."""
    weights: tuple[str, ...]
    """Files in it that decide pixels. Beside them, `config.json` tells the sampler and the trained span."""
    fps: float
    """Pixel frames per second."""
    size: tuple[int, int]
    """Width and height of a pixel frame."""
    grammar: Callable[[str], object] | None = None
    """Raises ConfigError for a prompt that the model can't read; None: it reads any."""
    dtype: str = "float32"
    stride: int = 1
    """Pixel frames per latent frame after the first."""
    chunk: int = CHUNK_FRAMES
    """Latent frames generated together."""
    fits: tuple[Fit, ...] = ()
    """Caches that training has shown or ruled out; the first that matches counts, others are a transfer."""

    def load(self, device: str, dtype: str) -> VideoModel:
        """Load the model; imports torch.

        Raises:
            MissingWeightsError: its weights are not here.
        """
        model: VideoModel = load_object(self.loader)(device, dtype)
        return model

    def weights_sha256(self) -> dict[str, str]:
        """SHA-256 of each weights file.

        Raises:
            MissingWeightsError: a file is not there.
        """
        return {name: hashlib.sha256(self._read(name)).hexdigest() for name in self.weights}

    @property
    def trained_frames(self) -> int:
        """Longest context seen in training, in latent frames. A cache that grows beyond it is not applicable."""
        return int(self._config["trained_span_frames"])

    @property
    def sampler(self) -> str:
        """The sampler with its constants, as it enters a sample's identity."""
        return " ".join(f"{name}={value}" for name, value in sorted(self._config["sampler"].items()))

    @cached_property
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self._read("config.json"))
        return config

    def _read(self, name: str) -> bytes:
        file = resources.files(self.package) / "weights" / name
        if not file.is_file():
            raise MissingWeightsError(
                f"model {self.name!r} lacks its file {name!r}",
                f"reinstall, or train it: python -m {self.package}.train",
            )
        return file.read_bytes()

    def require_readable(self, prompt: str) -> None:
        """Refuse a prompt that the model can't read; every model reads the empty one.

        Raises:
            ConfigError: it can't.
        """
        if prompt and self.grammar:
            self.grammar(prompt)

    def pixel_frames(self, latent_frames: int) -> int:
        """Pixel frames of the first `latent_frames` latent frames, which is also the index of the next one's first."""
        return (latent_frames - 1) * self.stride + 1 if latent_frames else 0

    def card(self) -> str:
        """Text of the model card; empty when there is none."""
        file = resources.files(self.package) / "MODEL_CARD.md"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def applicability(self, policy: str, parameters: Mapping[str, Any]) -> tuple[Applicability, str]:
        """What a policy with these parameters, defaults resolved, is on this model, and why."""
        for fit in self.fits:
            if fit.policy == policy and fit.where.items() <= parameters.items():
                return fit.applicability, fit.reason
        return TRANSFER

    def refuses(self, budget: float | None, frames: int) -> str:
        """Why a method with this budget has no meaning at this length; empty when it has.

        Args:
            budget: Most past frames a pass sees; None when it grows with the video.
            frames: Latent frames in all.
        """
        if budget is not None or frames <= self.trained_frames:
            return ""
        return f"its cache grows to {frames} frames, {self.name} was trained on at most {self.trained_frames}"


MODELS: dict[str, ModelInfo] = {
    "mini": ModelInfo(
        name="mini",
        title="embedded 64x64 model of a procedural world; checks software and metrics, is no evidence about Wan",
        loader="magbench.runners.mini.model:load_mini",
        package="magbench.runners.mini",
        weights=("transformer.safetensors", "text.safetensors", "vae.safetensors", "memory.safetensors"),
        fps=FPS,
        size=(SIZE, SIZE),
        grammar=Scene.parse,
        fits=(
            Fit("full", {}, "trained on whole clips"),
            Fit("fifo", {"sink": 0}, "trained on windows of contiguous frames"),
            Fit("fifo", {"sink": CHUNK_FRAMES}, "trained on a sink and recent frames at their own indices"),
            Fit("longlive", {"sink": CHUNK_FRAMES}, "trained on a sink and recent frames at their own indices"),
            Fit("longlive-infinity", {"sink": CHUNK_FRAMES}, "trained on a sink and recent frames at slot positions"),
            Fit(
                "memrope",
                {"memory": "none", "sink": CHUNK_FRAMES},
                "trained on a sink and recent frames at slot positions",
            ),
            Fit("causvid", {}, "trained on windows of contiguous frames, counted from 0"),
            Fit(
                "mag",
                {"writer": "memory"},
                "the memory network was trained, the generator was not trained to read what it writes",
                "training-free transfer",
            ),
            Fit(
                "rolling-forcing",
                {},
                "not trained for chunks of different noise that see each other",
                "not applicable",
            ),
        ),
    )
}
"""All models by name."""

ANNOUNCED: dict[str, ModelInfo] = {
    "wan2.1-1.3b/self-forcing": ModelInfo(
        name="wan2.1-1.3b/self-forcing",
        title="Wan2.1 1.3B, 480x832, made causal by Self-Forcing",
        loader="",
        package="magbench.runners.wan",
        weights=(),
        fps=16,
        size=(832, 480),
        dtype="bfloat16",
        stride=4,
    )
}
"""Models that suites are written for and nothing here loads: what is known of them is how they count frames."""


def generated(suite: Suite) -> tuple[int, int, float] | None:
    """What one method makes of a suite: videos, frames and seconds, given history left out; None for unknown models."""
    model = {**ANNOUNCED, **MODELS}.get(suite.model)
    if model is None:
        return None
    videos = frames = 0
    for track, spec in suite.tracks.items():
        for case in suite.cases(track):
            videos += len(spec.seeds)
            made = model.pixel_frames(case.frames) - model.pixel_frames(case.history_frames)
            frames += len(spec.seeds) * made
    return videos, frames, frames / model.fps


def find_model(name: str) -> ModelInfo:
    """The model called `name`.

    Raises:
        ConfigError: no such model, then the hint names the closest one; or one that can't be loaded yet.
    """
    if name in ANNOUNCED:
        raise ConfigError(
            f"model {name!r} cannot run yet: this version of magbench cannot load it",
            "make the videos elsewhere, from the prompts in `magbench show SUITE --json`, and give them to "
            "`magbench score`; or run a suite of the embedded model, such as --suite mini",
        )
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}", did_you_mean(name, MODELS))
    return MODELS[name]
