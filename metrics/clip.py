"""CLIP (Radford et al. 2021): images and texts in one space. OpenAI's weights, their QuickGELU, single precision."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from magbench.metrics.backbones import FrameEncoder, pretrained
from magbench.metrics.base import Clip
from magbench.metrics.resize import centre, planes, short_side

_SIDE = 224
_ARCHITECTURES = {"clip-vit-b-32": "ViT-B-32-quickgelu", "clip-vit-l-14": "ViT-L-14-quickgelu"}
"""Weights to the model of open_clip that they fit. Without QuickGELU the same weights load and give other numbers."""


def clip_input(clip: Clip) -> Tensor:
    """View: float32 [n, 3, 224, 224] in [0, 1]; bicubic, antialiased, clamped, centre crop."""
    return centre(short_side(clip.view(planes), _SIDE, "bicubic", antialias=True), _SIDE).div(255).clamp(0, 1)


def clip_input_vbench(clip: Clip) -> Tensor:
    """View: float32 [n, 3, 224, 224], as VBench prepares them: bicubic without antialias, no clamp, centre crop.

    A sharp edge overshoots [0, 1]. OpenAI's own preparation is another: the two differ by some 32 dB.
    """
    return centre(short_side(clip.view(planes), _SIDE, "bicubic", antialias=False), _SIDE).div(255)


class CLIP(FrameEncoder):
    """Embeddings of frames and of texts.

    Args:
        net: A CLIP of open_clip.
        view: What its image tower reads, float32 [n, 3, side, side], before normalisation.
        device: Where to compute.
        weights_sha256: Of the weights file.
    """

    _MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def _encode(self, images: Tensor) -> Tensor:
        vectors: Tensor = self._net.encode_image(images)
        return vectors

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """float32 [prompts, width of the embedding], not normalised; see `tokens_cut` for what isn't read."""
        tokens = _tokenizer()(list(prompts), context_length=self._net.context_length).to(self.device)
        embedded: Tensor = self._net.encode_text(tokens)
        return embedded

    def tokens_cut(self, prompt: str) -> int:
        """Tokens at the end of a prompt that the text tower doesn't read: it takes 75, and a start and an end."""
        return max(0, len(_tokenizer().encode(prompt)) + 2 - int(self._net.context_length))


@cache
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def clip_network(architecture: str) -> nn.Module:
    """A CLIP of open_clip by its name there, on the meta device: shapes without memory."""
    import open_clip

    with torch.device("meta"):
        net: nn.Module = open_clip.CLIP(**open_clip.get_model_config(architecture))
    return net


@cache
def _loaded(name: str, device: str) -> tuple[nn.Module, str]:
    """One network for all that read it, and the SHA-256 of its weights."""
    architecture = _ARCHITECTURES[name]
    net, sha256 = pretrained(name, lambda: clip_network(architecture), f"CLIP {architecture}")
    return causal(net).to(device), sha256


def causal(net: Any) -> Any:
    """Give a CLIP made on the meta device the mask that its weights file doesn't hold: no token sees a later one."""
    length = net.context_length
    net.attn_mask = torch.full((length, length), float("-inf")).triu(1)
    return net


def _clip(name: str, view: Callable[[Clip], Tensor], device: str) -> CLIP:
    net, sha256 = _loaded(name, device)
    return CLIP(net, view, device, sha256)


def vit_b_32(device: str) -> CLIP:
    """CLIP ViT-B/32.

    Raises:
        MissingWeightsError: its weights aren't in the cache folder.
    """
    return _clip("clip-vit-b-32", clip_input, device)


def vit_b_32_vbench(device: str) -> CLIP:
    """CLIP ViT-B/32 on frames prepared as VBench does; raises as `vit_b_32`."""
    return _clip("clip-vit-b-32", clip_input_vbench, device)


def vit_l_14(device: str) -> CLIP:
    """CLIP ViT-L/14; raises as `vit_b_32`."""
    return _clip("clip-vit-l-14", clip_input, device)


def vit_l_14_vbench(device: str) -> CLIP:
    """CLIP ViT-L/14 on frames prepared as VBench does; raises as `vit_b_32`."""
    return _clip("clip-vit-l-14", clip_input_vbench, device)
