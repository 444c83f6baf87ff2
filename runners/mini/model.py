"""Load and save `mini`: transformer, text table, VAE and the sampler they were tuned for."""

import json
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from magbench.errors import MissingWeightsError
from magbench.runners.mini.text import MiniText
from magbench.runners.mini.vae import MiniVAE
from magbench.runners.wan.configs import CONFIGS
from magbench.runners.wan.sampler import OdeSampler
from magbench.runners.wan.transformer import CausalWanTransformer, TextCache

WEIGHTS = Path(__file__).parent / "weights"
PARTS = ("transformer", "text", "vae")
"""Each part's weights are `<part>.safetensors`, stored as float16."""
MEMORY = "memory"
"""A part that may be absent: the memory network's blocks. All else of it is the transformer's."""


@dataclass(frozen=True)
class MiniModel:
    """The embedded model, ready to roll out.

    Args:
        transformer: Predicts the flow of a chunk.
        memory: MAG's second network, which writes the cache; None while it isn't trained.
        text_table: Prompt to rows.
        vae: Frames to normalised latents and back.
        sampler: The sampler that goes with these weights.
        config: Contents of `config.json`: fps, chunk, trained_span_frames, sampler, recipe.
        latent_size: Rows and columns of a latent frame.
    """

    transformer: CausalWanTransformer
    memory: CausalWanTransformer | None
    text_table: MiniText
    vae: MiniVAE
    sampler: OdeSampler
    config: dict[str, Any]
    latent_size: tuple[int, int] = (8, 8)

    @torch.inference_mode()
    def rows(self, prompts: Sequence[str]) -> Tensor:
        """Prompts as text rows [B, 6, text_dim]; "" is rows of zeros.

        Raises:
            ConfigError: A prompt is not a sentence of the mini world.
        """
        return torch.cat([self.text_table.encode(prompt) for prompt in prompts]).to(self.transformer.dtype)

    @torch.inference_mode()
    def text(self, prompts: Sequence[str]) -> TextCache:
        """Encode prompts into the transformer's text cache; the batch is their number.

        Raises:
            ConfigError: A prompt is not a sentence of the mini world.
        """
        return self.transformer.encode_text(self.rows(prompts))

    def encode(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Frames uint8 [T, 64, 64, 3] to normalised latents [T, 16, 8, 8] in the transformer's dtype."""
        return self.vae.encode(frames).to(self.transformer.dtype)

    def decode(self, latents: Tensor) -> npt.NDArray[np.uint8]:
        """Normalised latents [T, 16, 8, 8] to frames uint8 [T, 64, 64, 3]."""
        return self.vae.decode(latents)

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[npt.NDArray[np.uint8]]:
        """`decode` block by block: a latent is a frame."""
        return map(self.decode, latents)


def load_mini(device: str = "cpu", dtype: str = "float32", folder: Path = WEIGHTS) -> MiniModel:
    """Load `mini`; the VAE and the text table stay in float32 whatever the transformer's `dtype`.

    Raises:
        MissingWeightsError: A weights file is not there.
    """
    config = read_config(folder)
    transformer = CausalWanTransformer(CONFIGS["mini"])
    text, vae = MiniText(transformer.config.text_dim), MiniVAE()
    for name, module in zip(PARTS, (transformer, text, vae), strict=True):
        tensors = load_file(folder / f"{name}.safetensors")
        module.load_state_dict({key: value.float() for key, value in tensors.items()})
        module.to(device).eval().requires_grad_(False)
    transformer.to(getattr(torch, dtype))
    memory = None
    if (folder / f"{MEMORY}.safetensors").exists():
        memory = deepcopy(transformer)
        blocks = load_file(folder / f"{MEMORY}.safetensors")
        memory.blocks.load_state_dict({key.removeprefix("blocks."): value for key, value in blocks.items()})
    vae.to(memory_format=torch.channels_last)
    return MiniModel(transformer, memory, text, vae, OdeSampler(**config["sampler"]), config)


def read_config(folder: Path = WEIGHTS) -> dict[str, Any]:
    """`config.json` beside the weights.

    Raises:
        MissingWeightsError: A file is not there.
    """
    missing = [name for name in ("config.json", *(f"{p}.safetensors" for p in PARTS)) if not (folder / name).exists()]
    if missing:
        raise MissingWeightsError(
            f"the model mini lacks {', '.join(missing)} in {folder}",
            "reinstall magbench, or train it: python -m magbench.runners.mini.train --out DIR",
        )
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def save_part(name: str, tensors: dict[str, Tensor] | nn.Module, folder: Path = WEIGHTS) -> None:
    """Write one part's weights as float16, atomically."""
    if isinstance(tensors, nn.Module):
        tensors = tensors.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.part"
    save_file({key: value.detach().cpu().half().contiguous() for key, value in tensors.items()}, partial)
    partial.replace(folder / f"{name}.safetensors")
