"""The judge of the mini world as features that metrics share."""

import hashlib
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from magbench.metrics.base import Clip, Extractor
from magbench.metrics.judge import WEIGHTS, Judge, load_judge


class JudgeFeature(Extractor):
    """Something the judge says of a clip's frames. It runs on the CPU: it is small.

    Args:
        ask: From the judge and uint8 frames [N, 64, 64, 3] to the answer.
    """

    def __init__(self, ask: Callable[[Judge, Tensor], Any]) -> None:
        self.judge = load_judge()
        self.ask = ask
        self.weights_sha256 = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()

    def __call__(self, clip: Clip) -> Any:
        """The answer for the clip's frames."""
        return self.ask(self.judge, clip.frames.cpu())


def reading(device: str) -> Extractor:
    """What the judge reads: `Reading`."""
    return JudgeFeature(Judge.read)


def embedding(device: str) -> Extractor:
    """Identity of the walker: unit vectors, float32 [N, 240]."""
    return JudgeFeature(Judge.embed)


def layers(device: str) -> Extractor:
    """Perceptual features: see `judge_layers`."""
    return JudgeFeature(judge_layers)


def judge_layers(judge: Judge, frames: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The judge's feature maps as layers of a perceptual distance of the LPIPS family.

    Each cell's channels are scaled to unit length, all channels weigh the same, and the three layers are averaged: the
    distance is the mean over layers and cells of |f − g|², in [0, 2].

    Args:
        judge: The network.
        frames: uint8 [N, 64, 64, 3].

    Returns:
        Per layer features float32 [N, C, h, w] and weights [C].
    """
    maps = judge.features(frames)
    return [(normalize(layer, dim=1, eps=1e-10), layer.new_full((layer.shape[1],), 1.0 / len(maps))) for layer in maps]
