"""The models that methods run on. Importing this file, and listing models, imports no torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

from magbench.data.mini_world import FPS
from magbench.errors import ConfigError, MissingWeightsError
from magbench.records import Applicability
from magbench.registry import did_you_mean, load_object
from magbench.runners.wan.configs import CHUNK_FRAMES

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
    sampler: "Sampler"
    latent_size: tuple[int, int]
    """(H, W) of a latent frame."""

    def text(self, prompts: Sequence[str]) -> "TextCache":
        """Encode prompts; the batch is their number.

        Raises:
            ConfigError: a prompt the model can't read.
        """

    def encode(self, frames: "npt.NDArray[np.uint8]") -> "Tensor":
        """Frames uint8 [T, height, width, 3] to latents [F, C, H, W]."""

    def decode(self, latents: "Tensor") -> "npt.NDArray[np.uint8]":
        """Latents [F, C, H, W] to frames uint8 [T, height, width, 3]."""


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
    """Files in it that decide pixels."""
    sampler: str
    """The sampler with its constants, as it enters a sample's identity."""
    fps: float
    """Pixel frames per second."""
    trained_frames: int
    """Longest context seen in training, in latent frames. A cache that grows beyond it is not applicable."""
    dtype: str = "float32"
    chunk: int = CHUNK_FRAMES
    """Latent frames generated together."""
    trained_with: Mapping[str, str] = field(default_factory=dict)
    """Method names that the model's training covers, and how."""

    def load(self, device: str, dtype: str) -> VideoModel:
        """Load the model; imports torch.

        Raises:
            MissingWeightsError: its weights are not here.
        """
        self.weights_sha256()
        model: VideoModel = load_object(self.loader)(device, dtype)
        return model

    def weights_sha256(self) -> dict[str, str]:
        """SHA-256 of each weights file.

        Raises:
            MissingWeightsError: a file is not there.
        """
        folder = resources.files(self.package) / "weights"
        found = {}
        for name in self.weights:
            if not (folder / name).is_file():
                raise MissingWeightsError(
                    f"model {self.name!r} lacks its weights file {name!r}", f"train it: python -m {self.package}.train"
                )
            found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        return found

    def card(self) -> str:
        """Text of the model card; empty when there is none."""
        file = resources.files(self.package) / "MODEL_CARD.md"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def applicability(self, method: str) -> tuple[Applicability, str]:
        """What a method is on this model, and why."""
        return ("in-distribution", self.trained_with[method]) if method in self.trained_with else TRANSFER

    def refuses(self, budget: float | None, frames: int) -> str:
        """Why a method with this budget has no meaning at this length; empty when it has.

        Args:
            budget: Most past frames a pass sees; None when it grows with the video.
            frames: Latent frames in all.
        """
        if budget is None and frames > self.trained_frames:
            return f"its cache grows to {frames} frames, beyond the {self.trained_frames} that {self.name} was trained on"
        return ""


MODELS: dict[str, ModelInfo] = {
    "mini": ModelInfo(
        name="mini",
        title="embedded 64x64 model of a procedural world; checks software and metrics, is no evidence about Wan",
        loader="magbench.runners.mini.model:load_mini",
        package="magbench.runners.mini",
        weights=("transformer.safetensors", "vae.safetensors"),
        sampler="ode steps=10 shift=1",
        fps=FPS,
        trained_frames=60,
        trained_with={
            "full": "trained on contiguous clips",
            "fifo": "trained on contiguous windows",
            "longlive": "trained on a sink and recent frames",
        },
    )
}
"""All models by name."""


def find_model(name: str) -> ModelInfo:
    """The model called `name`.

    Raises:
        ConfigError: no such model; the hint names the closest one.
    """
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}", did_you_mean(name, MODELS))
    return MODELS[name]


def describe(model: ModelInfo) -> dict[str, Any]:
    """Its fields as plain values, for `magbench show` and `--json`."""
    return {
        "name": model.name,
        "title": model.title,
        "fps": model.fps,
        "chunk_frames": model.chunk,
        "trained_frames": model.trained_frames,
        "dtype": model.dtype,
        "sampler": model.sampler,
        "trained_with": dict(model.trained_with),
    }
