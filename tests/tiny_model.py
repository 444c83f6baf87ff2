"""A model of random weights, small enough for a rollout in milliseconds, in which the past matters."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from magbench.runners.models import ModelInfo
from magbench.runners.wan.configs import TransformerConfig
from magbench.runners.wan.sampler import OdeSampler
from magbench.runners.wan.transformer import CausalWanTransformer, TextCache

CONFIG = TransformerConfig(dim=24, ffn_dim=32, heads=2, layers=2, text_dim=8, text_len=4, freq_dim=16)


@dataclass(frozen=True)
class TinyModel:
    """As `VideoModel` says. `side` is what it encodes frames to, `latent_size` what it generates."""

    transformer: CausalWanTransformer
    memory: CausalWanTransformer
    sampler: OdeSampler = OdeSampler(steps=3)  # noqa: RUF009
    latent_size: tuple[int, int] = (4, 4)
    side: int = 4

    def rows(self, prompts: Sequence[str]) -> Tensor:
        seeds = [int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4]) for prompt in prompts]
        rows = [torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        rows = [row if prompt else torch.zeros(4, 8) for row, prompt in zip(rows, prompts, strict=True)]
        return torch.stack(rows).to(self.transformer.dtype)

    def text(self, prompts: Sequence[str]) -> TextCache:
        return self.transformer.encode_text(self.rows(prompts))

    def encode(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        cells = frames.reshape(len(frames), self.side, 64 // self.side, self.side, 64 // self.side, 3).mean((2, 4))
        colours = torch.from_numpy(cells).float() / 64 - 2
        return torch.matmul(colours, _mixing()).permute(0, 3, 1, 2).to(self.transformer.dtype)

    def decode(self, latents: Tensor) -> npt.NDArray[np.uint8]:
        colours = torch.matmul(latents.float().cpu().permute(0, 2, 3, 1), torch.linalg.pinv(_mixing()))
        cells = ((colours + 2) * 64).clamp(0, 255).byte().numpy()
        return cells.repeat(64 // self.side, 1).repeat(64 // self.side, 2)

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[npt.NDArray[np.uint8]]:
        return map(self.decode, latents)


def _mixing() -> Tensor:
    return torch.randn(3, 16, generator=torch.Generator().manual_seed(3))


def load_tiny(device: str = "cpu", dtype: str = "float32") -> TinyModel:
    return TinyModel(*(_network(seed).to(device, getattr(torch, dtype)) for seed in (0, 1)))


def _network(seed: int) -> CausalWanTransformer:
    torch.manual_seed(seed)
    transformer = CausalWanTransformer(CONFIG).eval().requires_grad_(False)
    for name, weight in transformer.named_parameters():
        if name.endswith(("self_attn.v.weight", "self_attn.o.weight")):
            weight.mul_(3.0)
        elif name.startswith("blocks.") and name.endswith(".modulation"):
            weight[:, 2] += 1.0  # the gate of self-attention
    return transformer


class TinyInfo(ModelInfo):
    """Its entry, without files."""

    sampler = "steps=3"

    def weights_sha256(self) -> dict[str, str]:
        return {"seed": "ab" * 32}


TINY = TinyInfo(
    name="tiny",
    title="random weights",
    loader="tests.tiny_model:load_tiny",
    package="tests",
    weights=(),
    fps=8,
    size=(64, 64),
)
