"""RAFT (Teed and Deng 2020): dense optical flow, the most expensive backbone here by far."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.models.optical_flow import raft_large

from magbench.metrics.backbones import pretrained
from magbench.metrics.base import Clip, Extractor
from magbench.metrics.resize import planes

UPDATES = 20
"""Refinements of the flow; torchvision's default is 12."""
SMALLEST = 128
"""Pixels per side, after padding, below which the correlation pyramid runs out of cells."""


class RAFT(Extractor):
    """Flow between consecutive frames of a clip, at the frames' own size padded to multiples of 8 on both sides.

    Args:
        net: torchvision's `raft_large`.
        device: Where to compute.
        weights_sha256: Of the weights file.
    """

    def __init__(self, net: Any, device: str, weights_sha256: str = "") -> None:
        self.device = torch.device(device)
        self.weights_sha256 = weights_sha256
        self._net = net.eval().to(self.device)

    @torch.no_grad()
    def __call__(self, clip: Clip) -> Tensor:
        """float32 [n - 1, 2, h, w]: pixels to the right and down from each frame to the next, the padding included."""
        images = padded(clip.view(planes).to(self.device).div(127.5).sub(1))
        flows = [
            self._net(images[index : index + 1], images[index + 1 : index + 2], num_flow_updates=UPDATES)[-1]
            for index in range(len(images) - 1)
        ]
        return torch.cat([images.new_zeros(0, 2, *images.shape[2:]), *flows])


def padded(images: Tensor) -> Tensor:
    """Repeat the border until both sides are multiples of 8; an odd column goes right, an odd row to the bottom."""
    down, right = (-side % 8 for side in images.shape[2:])
    return pad(images, (right // 2, right - right // 2, down // 2, down - down // 2), mode="replicate")


def raft_things(device: str) -> RAFT:
    """RAFT trained on FlyingChairs and FlyingThings, torchvision's port of the release.

    Raises:
        MissingWeightsError: its weights aren't in the cache folder.
    """
    net, sha256 = pretrained("raft-large-things", raft_large, "RAFT large")
    return RAFT(net, device, sha256)
