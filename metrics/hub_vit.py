"""DINO and DINOv2 as their torch.hub code runs them, which VBench scores with: any input size, its own way."""

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from magbench.metrics.backbones import FrameEncoder, dino_network, pretrained
from magbench.metrics.base import Clip
from magbench.metrics.resize import centre, planes, short_side


def dino_input_vbench(clip: Clip) -> Tensor:
    """View: float32 [n, 3, h, w] in [0, 1]; short side 224, bilinear without antialias, no crop: 480x832 is 224x388."""
    return short_side(clip.view(planes), 224, "bilinear", antialias=False).div(255)


def dinov2_input_vbench(clip: Clip) -> Tensor:
    """View: float32 [n, 3, 224, 224]; short side 256, bicubic, antialiased, not clamped, centre crop."""
    return centre(short_side(clip.view(planes), 256, "bicubic", antialias=True), 224).div(255)


class HubViT(FrameEncoder):
    """The class token of a vision transformer on pictures of any size.

    What differs from timm: the convolution drops the rows and columns that don't fill a patch, and position embeddings
    are interpolated by scale factors of (patches + 0.1) / side, bicubic, without antialias. A square picture of the
    trained size keeps them as they are.

    Args:
        net: A timm vision transformer with a class token and a square grid of position embeddings, without head.
        view: What it reads, float32 [n, 3, h, w] in [0, 1].
        device: Where to compute.
        weights_sha256: Of the weights file.
    """

    def _encode(self, images: Tensor) -> Tensor:
        patches = self._net.patch_embed.proj(images)
        rows, columns = patches.shape[2:]
        square = images.shape[2] == images.shape[3]
        tokens = torch.cat([self._net.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], 1)
        normed: Tensor = self._net.norm(self._net.blocks(tokens + self._positions(rows, columns, square)))
        return normed[:, 0]

    def _positions(self, rows: int, columns: int, square: bool) -> Tensor:
        known: Tensor = self._net.pos_embed
        side = int((known.shape[1] - 1) ** 0.5)
        if square and rows * columns == side * side:
            return known
        grid = known[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([known[:, :1], grid.flatten(2).mT], 1)


def dinov2_network() -> nn.Module:
    """The architecture of DINOv2 ViT-B/14, position embeddings on their own 37 x 37 grid; nothing is downloaded."""
    net: nn.Module = timm.create_model("vit_base_patch14_dinov2.lvd142m", pretrained=False, num_classes=0)
    return net


def dino_vitb16_vbench(device: str) -> HubViT:
    """DINO ViT-B/16 on frames prepared as VBench does.

    Raises:
        MissingWeightsError: its weights aren't in the cache folder.
    """
    net, sha256 = pretrained("dino-vitb16", dino_network, "DINO ViT-B/16")
    return HubViT(net, dino_input_vbench, device, sha256)


def dinov2_vitb14_vbench(device: str) -> HubViT:
    """DINOv2 ViT-B/14 (Oquab et al. 2023) on frames prepared as VBench-Long does.

    Raises:
        MissingWeightsError: its weights aren't in the cache folder.
    """
    net, sha256 = pretrained("dinov2-vitb14", dinov2_network, "DINOv2 ViT-B/14")
    return HubViT(net, dinov2_input_vbench, device, sha256)
