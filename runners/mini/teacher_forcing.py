"""Flow matching with teacher forcing: one pass over [clean frames | noisy chunks].

Each clean chunk attends to the clean chunks up to itself; each noisy chunk attends to the clean chunks before it and
to itself, as in a rollout with a cache. Sources: CausVid, Self-Forcing (teacher-forcing variant).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.runners.wan.rope import Rope, rotate
from magbench.runners.wan.transformer import CausalWanTransformer, attention

PAST_NOISE = 0.2
"""The past is shown with noise of a random strength up to this, so that a rollout's own errors are no surprise."""


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


def flow_loss(
    model: CausalWanTransformer,
    rope: Rope,
    clean: Tensor,
    rows: Tensor,
    shown: Sequence[int],
    chunks: Sequence[int],
    generator: torch.Generator,
    layout: float = 0.0,
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
    """
    batch, frames = clean.shape[:2]
    device = clean.device
    chosen = [chunk * CHUNK_FRAMES + i for chunk in chunks for i in range(CHUNK_FRAMES)]
    target = clean[:, chosen]
    sigma = draw_sigmas((batch, len(chunks)), generator, layout).repeat_interleave(CHUNK_FRAMES, 1).to(device)
    noise = torch.randn(target.shape, generator=generator).to(device)
    mixed = target + sigma[..., None, None, None] * (noise - target)
    blur = PAST_NOISE * torch.rand(batch, 1, 1, 1, 1, generator=generator).to(device)
    past = (clean + blur * torch.randn(clean.shape, generator=generator).to(device))[:, : chunks[-1] * CHUNK_FRAMES]
    known = past.shape[1]
    timesteps = torch.cat([sigma.new_zeros(batch, known), 1000 * sigma], 1)

    table = rope.grid((*shown[:known], *(shown[i] for i in chosen)), device)
    tokens = CHUNK_FRAMES * rope.rows * rope.cols
    end = known // CHUNK_FRAMES * tokens

    def attend(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = rotate(q, table), rotate(k, table)
        out = []
        for start in range(0, end, tokens):
            seen = slice(0, start + tokens)
            out.append(attention(q[:, start : start + tokens], k[:, seen], v[:, seen]))
        for i, chunk in enumerate(chunks):
            own = slice(end + i * tokens, end + (i + 1) * tokens)
            before = slice(0, chunk * tokens)
            keys, values = torch.cat([k[:, before], k[:, own]], 1), torch.cat([v[:, before], v[:, own]], 1)
            out.append(attention(q[:, own], keys, values))
        return torch.cat(out, 1)

    with sdpa_kernel(SDPBackend.MATH if frames <= _PLAIN_ATTENTION else SDPBackend.FLASH_ATTENTION):
        flow: Tensor = model(torch.cat([past, mixed], 1), timesteps, model.encode_text(rows), attend)
    return (flow[:, known:].float() - (noise - target)).square().mean()
