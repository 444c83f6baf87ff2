"""Sizes of the causal Wan transformer. Importing this file imports no torch."""

from dataclasses import dataclass

from magbench.errors import ConfigError

CHUNK_FRAMES = 3
"""Latent frames generated together, in every published method."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of one `CausalWanTransformer`.

    Raises:
        ConfigError: `dim` does not split into heads of an even width of at least 12.
    """

    dim: int
    ffn_dim: int
    heads: int
    layers: int
    text_dim: int
    text_len: int
    freq_dim: int
    in_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.head_dim < 12 or self.head_dim % 2:
            raise ConfigError(
                f"dim {self.dim} does not split into {self.heads} heads of an even width of at least 12.",
                "choose dim = heads x head width, for example 128 = 2 x 64",
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads


CONFIGS: dict[str, TransformerConfig] = {
    "mini": TransformerConfig(dim=128, ffn_dim=512, heads=2, layers=4, text_dim=64, text_len=8, freq_dim=64),
    "toy": TransformerConfig(dim=128, ffn_dim=256, heads=2, layers=2, text_dim=32, text_len=32, freq_dim=64),
    "wan2.1-1.3b": TransformerConfig(
        dim=1536, ffn_dim=8960, heads=12, layers=30, text_dim=4096, text_len=512, freq_dim=256
    ),
}
"""`mini` is the embedded model, `toy` the size of the golden tensors, `wan2.1-1.3b` the released checkpoints."""
