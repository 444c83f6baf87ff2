"""LAION's aesthetic predictor, version 1: one linear layer on CLIP ViT-L/14."""

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from magbench.errors import MissingWeightsError
from magbench.metrics.base import Clip, Extractor
from magbench.metrics.weights import find, load_state


class LAIONLinear(Extractor):
    """Ratings of frames, a tenth of the 1 to 10 that people gave; as a prediction it may leave [0, 1].

    Args:
        weight: float32 [1, width of the embedding].
        bias: float32 [1].
        tower: Import path of the image feature that it reads, which whoever needs this one needs too.
        weights_sha256: Of the weights file.
    """

    def __init__(self, weight: Tensor, bias: Tensor, tower: str, weights_sha256: str = "") -> None:
        self._weight, self._bias, self._tower = weight, bias, tower
        self.weights_sha256 = weights_sha256

    @torch.no_grad()
    def __call__(self, clip: Clip) -> Tensor:
        """float32 [n]."""
        embedded = normalize(clip.feature(self._tower).float(), dim=1)
        return linear(embedded, self._weight.to(embedded.device), self._bias.to(embedded.device))[:, 0] / 10


TOWER = "magbench.metrics.clip:vit_l_14"
TOWER_VBENCH = "magbench.metrics.clip:vit_l_14_vbench"


def laion_linear(device: str) -> LAIONLinear:
    """The head on `TOWER`.

    Raises:
        MissingWeightsError: its weights aren't in the cache folder.
    """
    return _head(TOWER)


def laion_linear_vbench(device: str) -> LAIONLinear:
    """The head on `TOWER_VBENCH`; raises as `laion_linear`."""
    return _head(TOWER_VBENCH)


def _head(tower: str) -> LAIONLinear:
    path, sha256 = find("laion-aesthetic-linear")
    state = load_state(path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    if shapes != {"weight": (1, 768), "bias": (1,)}:
        raise MissingWeightsError(
            f"{path} is not the linear head on ViT-L/14: it holds {shapes}", "delete it and get it again"
        )
    return LAIONLinear(state["weight"].float(), state["bias"].float(), tower, sha256)
