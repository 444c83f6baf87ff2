"""What a frame costs each backbone on one CPU core, with random weights: python docs/learned_cost.py."""

import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torchvision.models.optical_flow import raft_large

from magbench.metrics.backbones import DINO, dino_network
from magbench.metrics.base import Clip, Extractor
from magbench.metrics.clip import CLIP, causal, clip_input, clip_network
from magbench.metrics.hub_vit import HubViT, dino_input_vbench, dinov2_input_vbench, dinov2_network
from magbench.metrics.raft import RAFT

HEIGHT, WIDTH = 480, 832


def randomised(net: Any) -> Any:
    """Small random numbers in the place of a network's weights."""
    net = net.to_empty(device="cpu")
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.normal_(std=0.02)
    return net


def on_meta(make: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        return make()


def clip_extractor(architecture: str) -> Extractor:
    return CLIP(causal(randomised(clip_network(architecture))), clip_input, "cpu")


BACKBONES: dict[str, tuple[Callable[[], Extractor], int]] = {
    "CLIP ViT-B/32": (lambda: clip_extractor("ViT-B-32-quickgelu"), 8),
    "CLIP ViT-L/14": (lambda: clip_extractor("ViT-L-14-quickgelu"), 8),
    "DINO ViT-B/16": (lambda: DINO(randomised(on_meta(dino_network)), "cpu"), 8),
    "DINO ViT-B/16, VBench": (lambda: HubViT(randomised(on_meta(dino_network)), dino_input_vbench, "cpu"), 8),
    "DINOv2 ViT-B/14, VBench-Long": (
        lambda: HubViT(randomised(on_meta(dinov2_network)), dinov2_input_vbench, "cpu"),
        8,
    ),
    "RAFT large, 20 updates, per pair": (lambda: RAFT(randomised(on_meta(raft_large)), "cpu"), 3),
}


def main() -> None:
    torch.set_num_threads(1)
    print(f"| backbone, frames of {HEIGHT}x{WIDTH} | CPU seconds per frame | peak so far |\n|---|--:|--:|")
    for name, (make, frames) in BACKBONES.items():
        extractor = make()
        pixels = torch.randint(0, 256, (frames, HEIGHT, WIDTH, 3), dtype=torch.uint8)
        clip = Clip(0, tuple(index / 8 for index in range(frames)), pixels)
        begun = time.process_time()
        extractor(clip)
        seconds = (time.process_time() - begun) / (frames - ("pair" in name))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {name} | {seconds:.2f} | {peak:.1f} GiB |", flush=True)
        del extractor


if __name__ == "__main__":
    main()
