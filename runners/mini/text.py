"""Text for `mini`: a sentence becomes six ids, one per slot, and each id one learned row."""

import torch
from torch import Tensor, nn

from magbench.data.mini_world import VOCABULARY, Scene

TOKENS = tuple(f"{slot}:{word}" for slot, words in VOCABULARY.items() for word in words)
"""The vocabulary: every word in its role, e.g. `sky:night` and `body:red`; a token's id is its index."""


def token_ids(scene: Scene) -> list[int]:
    """The ids of a scene, one per slot, in the order of VOCABULARY."""
    return [TOKENS.index(f"{slot}:{getattr(scene, slot)}") for slot in VOCABULARY]


class MiniText(nn.Module):
    """The embedding table; the transformer pads the rows to its text length.

    Args:
        dim: Width of a text row.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(len(TOKENS), dim)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids int64 [B, 6] to rows [B, 6, dim]."""
        rows: Tensor = self.table(ids)
        return rows

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        """A prompt to its rows [1, 6, dim], zeros for the empty one.

        Raises:
            ConfigError: The prompt is not a sentence of the mini world.
        """
        if not prompt:
            return self.table.weight.new_zeros(1, len(VOCABULARY), self.table.embedding_dim)
        ids = torch.tensor([token_ids(Scene.parse(prompt))], device=self.table.weight.device)
        return self.forward(ids)
