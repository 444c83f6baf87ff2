"""Learned features of frames, one pass per frame, shared by all metrics that need them."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import alexnet

from magbench.errors import MissingWeightsError
from magbench.metrics.base import Clip, Extractor
from magbench.metrics.weights import find, load_state

Network = TypeVar("Network", bound=nn.Module)

BATCH = 8
"""Frames per pass."""


class AlexNetLPIPS(Extractor):
    """Features of LPIPS v0.1 (Zhang et al. 2018) with its AlexNet trunk.

    The distance of two images is the sum over five layers of the mean over cells of sum_c w_c (f_c - g_c)^2.

    Args:
        trunk: State dict of torchvision's `alexnet`.
        heads: The five channel weights, float32 [C] each, none negative.
        device: Where to compute.
        weights_sha256: Of the trunk's file.
    """

    _SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
    _AFTER = (1, 4, 7, 9, 11)
    """The layers end after the five activations of the trunk."""

    def __init__(self, trunk: dict[str, Tensor], heads: list[Tensor], device: str, weights_sha256: str = "") -> None:
        with torch.device("meta"):
            net = alexnet()
        net.load_state_dict(trunk, assign=True)
        self.device = torch.device(device)
        self.weights_sha256 = weights_sha256
        self._trunk = net.features[: self._AFTER[-1] + 1].eval().to(self.device)
        self._heads = [head.to(self.device) for head in heads]
        self._shift, self._scale = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (self._SHIFT, self._SCALE)
        )

    @torch.no_grad()
    def layers(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Unit-normalised features and channel weights of each layer.

        Args:
            images: float32 [N, 3, H, W] in [-1, 1], both sides at least 31.

        Returns:
            Five pairs (float32 [N, C, h, w], float32 [C]).
        """
        x = (images.to(self.device) - self._shift) / self._scale
        found: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(self._trunk):
            x = layer(x)
            if index in self._AFTER:
                norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
                found.append((x / (norm + 1e-10), self._heads[len(found)]))
        return found

    def __call__(self, clip: Clip) -> list[tuple[Tensor, Tensor]]:
        """The layers of a clip's frames; see `layers`."""
        return self.layers(clip.frames.permute(0, 3, 1, 2).float().div(127.5).sub(1))


def lpips_heads() -> list[Tensor]:
    """Channel weights of LPIPS v0.1 AlexNet, shipped with the lpips package."""
    with resources.as_file(resources.files("lpips") / "weights/v0.1/alex.pth") as path:
        state = load_state(Path(path))
    return [state[f"lin{layer}.model.1.weight"].flatten() for layer in range(5)]


def pretrained(name: str, make: Callable[[], Network], what: str) -> tuple[Network, str]:
    """A network with its weights, and the SHA-256 of their file.

    Args:
        name: Of the weights, in the manifest.
        make: Makes the network, here without memory; all its tensors come from the file, which holds no others.
        what: Its name, for messages.

    Raises:
        MissingWeightsError: the weights aren't in the cache folder, or the file holds other tensors than the network.
    """
    path, sha256 = find(name)
    with torch.device("meta"):
        net = make()
    try:
        net.load_state_dict(load_state(path), assign=True)
    except RuntimeError as error:
        raise MissingWeightsError(f"{path} does not fit {what}: {error}", "delete it and get it again") from error
    return net, sha256


def lpips_alex(device: str) -> AlexNetLPIPS:
    """LPIPS v0.1 AlexNet.

    Raises:
        MissingWeightsError: its trunk isn't in the cache folder.
    """
    path, sha256 = find("lpips-alexnet-trunk")
    try:
        return AlexNetLPIPS(load_state(path), lpips_heads(), device, sha256)
    except RuntimeError as error:
        raise MissingWeightsError(f"{path} does not fit AlexNet: {error}", "delete it and get it again") from error


class FrameEncoder(Extractor):
    """A network that turns each frame into a vector, a batch at a time.

    Args:
        net: The network.
        view: What it reads, float32 [n, 3, h, w], before normalisation by ImageNet's mean and deviation.
        device: Where to compute.
        weights_sha256: Of the weights file.
    """

    _MEAN: tuple[float, ...] = (0.485, 0.456, 0.406)
    _STD: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __init__(self, net: Any, view: Callable[[Clip], Tensor], device: str, weights_sha256: str = "") -> None:
        self.device = torch.device(device)
        self.weights_sha256 = weights_sha256
        self._net, self._view = net.eval().to(self.device), view
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (self._MEAN, self._STD)
        )

    @torch.no_grad()
    def __call__(self, clip: Clip) -> Tensor:
        """float32 [n, width of the vector], not normalised."""
        images = (clip.view(self._view).to(self.device) - self._mean) / self._std
        return torch.cat([self._encode(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])

    def _encode(self, images: Tensor) -> Tensor:
        vectors: Tensor = self._net(images)
        return vectors


class DINO(FrameEncoder):
    """The class token of DINO ViT-B/16 (Caron et al. 2021), float32 [n, 768].

    Args:
        net: A timm vision transformer without head.
        device: Where to compute.
        weights_sha256: Of the weights file.
    """

    def __init__(self, net: nn.Module, device: str, weights_sha256: str = "") -> None:
        super().__init__(net, short_224, device, weights_sha256)


def short_224(clip: Clip) -> Tensor:
    """View: float32 [n, 3, h, w] in [0, 1], the short side 224, the other a multiple of 16; bilinear, antialiased."""
    frames = clip.frames.permute(0, 3, 1, 2).float().div(255)
    size = [round(224 / 16 * side / min(frames.shape[2:])) * 16 for side in frames.shape[2:]]
    return interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)


def dino_network() -> nn.Module:
    """The architecture, with random weights; nothing is downloaded."""
    net: nn.Module = timm.create_model(
        "vit_base_patch16_224.dino", pretrained=False, num_classes=0, dynamic_img_size=True
    )
    return net


def dino_vitb16(device: str) -> DINO:
    """DINO ViT-B/16.

    Raises:
        MissingWeightsError: its weights aren't in the cache folder.
    """
    net, sha256 = pretrained("dino-vitb16", dino_network, "DINO ViT-B/16")
    return DINO(net, device, sha256)
