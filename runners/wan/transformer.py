"""The causal Wan2.1 text-to-video transformer.

Parameter names and shapes are those of the released checkpoints. The model knows nothing of caches or positions: it
hands each layer's un-rotated queries, keys and values to `attend`, and goes on with what comes back. A rollout passes
cached attention there, training a masked one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from magbench.runners.wan.configs import TransformerConfig

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer index, q, k, v), each un-rotated [B, L, heads, d] -> [B, L, heads, d]."""

TextCache = Sequence[tuple[Tensor, Tensor]]
"""Per layer the keys and values of the text, [B, text_len, heads, d]."""


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention with scale d^-1/2 over [B, L, heads, d]; `mask` is True where a query may look."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2)


def sinusoid(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of `timesteps` [...], cosines first: fp64 [..., dim]."""
    half = dim // 2
    scale = torch.pow(10000.0, -torch.arange(half, dtype=torch.float64, device=timesteps.device) / half)
    angle = timesteps.double()[..., None] * scale
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the full width, before the split into heads."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., dim] in fp32, then scale in the dtype of `x`."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight.to(x.dtype)


class Projections(nn.Module):
    """Query, key, value and output projections of one attention, with normed queries and keys."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)

    def queries(self, x: Tensor) -> Tensor:
        """[B, L, dim] -> [B, L, heads, d]."""
        return self._split(self.norm_q(self.q(x)))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, L, dim] -> two of [B, L, heads, d]."""
        return self._split(self.norm_k(self.k(x))), self._split(self.v(x))

    def output(self, attended: Tensor) -> Tensor:
        """[B, L, heads, d] -> [B, L, dim]."""
        projected: Tensor = self.o(attended.flatten(-2))
        return projected

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, -1))


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, the first and last modulated by each frame's own timestep."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.self_attn = Projections(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.cross_attn = Projections(config)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, config.dim)
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: tuple[Tensor, Tensor],
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Map tokens `x` [B, F, P, dim] with modulation `time` [B, F, 6, dim] to [B, F, P, dim]."""
        grid = x.shape[1:3]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (self.modulation + time).unsqueeze(3).unbind(2)
        seen = modulate(x, shift_a, scale_a, self.eps).flatten(1, 2)
        attended = attend(self.self_attn.queries(seen), *self.self_attn.keys_values(seen))
        x = x + gate_a * torch.unflatten(self.self_attn.output(attended), 1, grid)
        asked = self.cross_attn.queries(self.norm3(x).flatten(1, 2))
        x = x + torch.unflatten(self.cross_attn.output(attention(asked, *text)), 1, grid)
        fed: Tensor = self.ffn(modulate(x, shift_f, scale_f, self.eps))
        return x + gate_f * fed


class Head(nn.Module):
    """Modulated projection from tokens to the values of their patches."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.eps = config.eps
        patch_values = config.patch[0] * config.patch[1] * config.patch[2] * config.in_channels
        self.head = nn.Linear(config.dim, patch_values)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map tokens [B, F, P, dim] with time embedding [B, F, dim] to [B, F, P, patch values]."""
        shift, scale = (self.modulation + time.unsqueeze(2)).unsqueeze(3).unbind(2)
        values: Tensor = self.head(modulate(x, shift, scale, self.eps))
        return values


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm without parameters over the last axis, then scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift


class CausalWanTransformer(nn.Module):
    """Predicts the flow (noise - clean) of a chunk of latent frames, given text and whatever past `attend` shows.

    Source: Wan2.1-T2V in the causal form of Self-Forcing: every frame has its own timestep, text rows are attended
    without a mask, and there is no other mask than `attend`'s.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embedding = nn.Conv3d(config.in_channels, dim, kernel_size=config.patch, stride=config.patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(config)

    def init_weights(self) -> None:
        """Start values for training from scratch: Xavier projections, small embeddings, a head that predicts zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        for embedding in (self.text_embedding, self.time_embedding):
            for layer in embedding:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.head.head.weight)

    def encode_text(self, embeddings: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Turn a prompt into every layer's cross-attention keys and values, once per prompt.

        Args:
            embeddings: [B, n, text_dim] with n <= text_len; zero rows fill up to text_len and are attended.

        Returns:
            Per layer two of [B, text_len, heads, d].
        """
        padded = F.pad(embeddings, (0, 0, 0, self.config.text_len - embeddings.shape[1]))
        rows = self.text_embedding(padded)
        return [block.cross_attn.keys_values(rows) for block in self._blocks()]

    def forward(self, latents: Tensor, timesteps: Tensor, text: TextCache, attend: Attend) -> Tensor:
        """Predict the flow of one chunk.

        Args:
            latents: [B, F, in_channels, H, W], noisy or clean; H and W even.
            timesteps: [B, F] in [0, 1000], one per frame.
            text: From `encode_text`, with the same B.
            attend: Self-attention over L = F * H/2 * W/2 tokens, ordered (frame, row, column).

        Returns:
            Flow [B, F, in_channels, H, W].
        """
        patches = self.patch_embedding(latents.transpose(1, 2))
        rows, cols = patches.shape[-2:]
        x = patches.flatten(3).permute(0, 2, 3, 1)
        time = self.time_embedding(sinusoid(timesteps, self.config.freq_dim).to(self.dtype))
        modulation = self.time_projection(time).unflatten(-1, (6, -1))
        for index, block in enumerate(self._blocks()):
            x = block(x, modulation, text[index], lambda q, k, v, index=index: attend(index, q, k, v))
        return self._unpatchify(self.head(x, time), rows, cols)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return self.patch_embedding.weight.dtype

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def _unpatchify(self, values: Tensor, rows: int, cols: int) -> Tensor:
        """[B, F, rows*cols, ph*pw*c], channel fastest -> [B, F, c, rows*ph, cols*pw]."""
        _, height, width = self.config.patch
        grid = torch.unflatten(torch.unflatten(values, 2, (rows, cols)), -1, (height, width, -1))
        return grid.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
