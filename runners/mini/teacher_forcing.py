"""Flow matching with teacher forcing: one pass over [clean frames | noisy chunks].

Each chunk, clean or noisy, attends to what a cache holds of the clean frames before it, and to itself, as in a rollout.
Sources: CausVid, Self-Forcing (teacher-forcing variant).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.runners.wan.rope import Rope, rotate
from magbench.runners.wan.transformer import CausalWanTransformer, attention

PAST_NOISE = 0.2
"""The past is shown with noise of a random strength up to this, so that a rollout's own errors are no surprise."""

Cached = Callable[[Tensor, int], Tensor]
"""(clean frames [B, F, ...], chunk) -> those of them that the cache holds when the chunk begins, [B, n, ...]."""

_PLAIN_ATTENTION = 24
"""Clips of up to this many frames train faster with the unfused attention kernel on a CPU."""


def draw_sigmas(shape: Sequence[int], generator: torch.Generator, layout: float = 0.0) -> Tensor:
    """Noise levels in (0, 1): logit-normal, biased to the noisy end.

    Args:
        shape: Of the result.
        generator: CPU generator.
        layout: Share of the levels that are drawn from [0.85, 1] instead, where a picture's layout is decided.
    """
    sigmas = torch.sigmoid(0.8 + 1.2 * torch.randn(*shape, generator=generator))
    if layout:
        high = 0.85 + 0.15 * torch.rand(*shape, generator=generator)
        sigmas = torch.where(torch.rand(*shape, generator=generator) < layout, high, sigmas)
    return sigmas


def everything(frames: Tensor, chunk: int) -> Tensor:
    """A cache that keeps all frames."""
    return frames[:, : chunk * CHUNK_FRAMES]


def by_frame(x: Tensor, rope: Rope) -> Tensor:
    """[B, F * tokens, ...] -> [B, F, tokens, ...]."""
    return torch.unflatten(x, 1, (-1, rope.rows * rope.cols))


def chunkwise(q: Tensor, k: Tensor, v: Tensor, reads: Sequence[int], cached: Cached) -> Tensor:
    """Attention in which each chunk sees itself and a cache.

    Args:
        q: Rotated queries by frame, [B, F, tokens, heads, d].
        k: Rotated keys.
        v: Values.
        reads: For each of the F / CHUNK_FRAMES chunks, the chunk at whose beginning it sees the cache.
        cached: What that holds.

    Returns:
        [B, F * tokens, heads, d].
    """
    out = []
    for i, chunk in enumerate(reads):
        own = slice(i * CHUNK_FRAMES, (i + 1) * CHUNK_FRAMES)
        keys, values = (torch.cat([cached(x, chunk), x[:, own]], 1).flatten(1, 2) for x in (k, v))
        out.append(attention(q[:, own].flatten(1, 2), keys, values))
    return torch.cat(out, 1)


def flow_loss(
    model: CausalWanTransformer,
    rope: Rope,
    clean: Tensor,
    rows: Tensor,
    shown: Sequence[int],
    chunks: Sequence[int],
    generator: torch.Generator,
    layout: float = 0.0,
    cached: Cached = everything,
    rebuild: bool = False,
) -> Tensor:
    """Mean squared error of the predicted flow (noise - clean) over the chosen chunks.

    Args:
        model: Predicts the flow.
        rope: Rotation for the latent grid.
        clean: Normalised latents [B, F, 16, 8, 8], F a multiple of CHUNK_FRAMES, on the model's device.
        rows: Text rows [B, n, text_dim].
        shown: The time index at which each of the F frames is shown.
        chunks: Indices of the chunks to denoise, ascending.
        generator: CPU generator of noise levels and noise.
        layout: See `draw_sigmas`.
        cached: What a chunk sees of the clean frames before it.
        rebuild: Noisy chunks see the cache as their own clean chunk has left it.
    """
    batch, frames = clean.shape[:2]
    device = clean.device
    chosen = [chunk * CHUNK_FRAMES + i for chunk in chunks for i in range(CHUNK_FRAMES)]
    target = clean[:, chosen]
    sigma = draw_sigmas((batch, len(chunks)), generator, layout).repeat_interleave(CHUNK_FRAMES, 1).to(device)
    noise = torch.randn(target.shape, generator=generator).to(device)
    mixed = target + sigma[..., None, None, None] * (noise - target)
    blur = PAST_NOISE * torch.rand(batch, 1, 1, 1, 1, generator=generator).to(device)
    known = (chunks[-1] + rebuild) * CHUNK_FRAMES
    past = (clean + blur * torch.randn(clean.shape, generator=generator).to(device))[:, :known]
    timesteps = torch.cat([sigma.new_zeros(batch, known), 1000 * sigma], 1)

    table = rope.grid((*shown[:known], *(shown[i] for i in chosen)), device)
    reads = [*range(known // CHUNK_FRAMES), *(chunk + rebuild for chunk in chunks)]

    def attend(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (by_frame(x, rope) for x in (rotate(q, table), rotate(k, table), v))
        return chunkwise(q, k, v, reads, cached)

    with sdpa_kernel(SDPBackend.MATH if frames <= _PLAIN_ATTENTION else SDPBackend.FLASH_ATTENTION):
        flow: Tensor = model(torch.cat([past, mixed], 1), timesteps, model.encode_text(rows), attend)
    return (flow[:, known:].float() - (noise - target)).square().mean()
