"""The transformer: released names and sizes, independence of rows and frames, training, precision."""

import pytest
import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.wan.configs import CONFIGS, TransformerConfig
from magbench.runners.wan.transformer import CausalWanTransformer, attention

SMALL = TransformerConfig(dim=24, ffn_dim=32, heads=2, layers=2, text_dim=8, text_len=4, freq_dim=16)


def small() -> CausalWanTransformer:
    torch.manual_seed(0)
    return CausalWanTransformer(SMALL)


def within_chunk(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q, k, v)


def within_frame(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each frame alone: 4 x 6 latents have 6 tokens."""
    q, k, v = (torch.unflatten(x, 1, (-1, 6)).flatten(0, 1) for x in (q, k, v))
    return attention(q, k, v).reshape(-1, 18, *q.shape[2:])


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, 3, 16, 4, 6, generator=generator)
    timesteps = 1000 * torch.rand(batch, 3, generator=generator)
    return latents, timesteps, torch.randn(batch, 4, 8, generator=generator)


def test_released_checkpoint_fits() -> None:
    with torch.device("meta"):
        state = CausalWanTransformer(CONFIGS["wan2.1-1.3b"]).state_dict()
    assert len(state) == 825
    assert sum(tensor.numel() for tensor in state.values()) == 1_418_996_800
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    assert shapes["patch_embedding.weight"] == [1536, 16, 1, 2, 2]
    assert shapes["text_embedding.2.weight"] == [1536, 1536]
    assert shapes["time_projection.1.weight"] == [9216, 1536]
    assert shapes["blocks.29.modulation"] == [1, 6, 1536]
    assert shapes["blocks.0.self_attn.norm_q.weight"] == [1536]
    assert shapes["blocks.0.norm3.bias"] == [1536]
    assert shapes["blocks.0.ffn.2.weight"] == [1536, 8960]
    assert shapes["head.modulation"] == [1, 2, 1536]
    assert shapes["head.head.weight"] == [64, 1536]
    assert sum(name.startswith("blocks.0.") for name in shapes) == 27


def test_rows_do_not_mix() -> None:
    model = small()
    latents, timesteps, text = inputs()
    both = model(latents, timesteps, model.encode_text(text), within_chunk)
    for row in range(2):
        one = slice(row, row + 1)
        alone = model(latents[one], timesteps[one], model.encode_text(text[one]), within_chunk)
        torch.testing.assert_close(both[one], alone, atol=1e-5, rtol=0)


def test_every_frame_has_its_own_timestep() -> None:
    model = small()
    latents, timesteps, text = inputs()
    before = model(latents, timesteps, model.encode_text(text), within_frame)
    timesteps[:, 2] = 0
    after = model(latents, timesteps, model.encode_text(text), within_frame)
    torch.testing.assert_close(after[:, :2], before[:, :2], atol=1e-6, rtol=0)
    assert (after[:, 2] - before[:, 2]).abs().max() > 1e-4


def test_patches_come_back_where_they_were() -> None:
    """With nothing attended, a change of one patch changes that patch of the flow only."""
    model = small()
    latents, timesteps, text = inputs()
    cache = model.encode_text(text)

    def nothing(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(q)

    before = model(latents, timesteps, cache, nothing)
    latents[0, 1, :, 2:4, 4:6] += 1
    changed = (model(latents, timesteps, cache, nothing) - before).abs() > 1e-6
    assert changed[0, 1, :, 2:4, 4:6].all()
    assert int(changed.sum()) == 16 * 4


def test_short_texts_are_filled_with_zero_rows() -> None:
    model = small()
    short = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(0))
    full = torch.cat([short, torch.zeros(1, 2, 8)], 1)
    for (keys, values), (full_keys, full_values) in zip(model.encode_text(short), model.encode_text(full), strict=True):
        assert keys.shape == (1, 4, 2, 12)
        assert torch.equal(keys, full_keys)
        assert torch.equal(values, full_values)


def test_trains_under_bf16_autocast() -> None:
    model = small()
    model.init_weights()
    latents, timesteps, text = inputs()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            flow = model(latents, timesteps, model.encode_text(text), within_chunk)
        loss = (flow.float() - latents).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(latents.square().mean().item(), abs=1e-4)
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bf16_weights_stay_close_to_fp32() -> None:
    model = small()
    latents, timesteps, text = inputs()
    exact = model(latents, timesteps, model.encode_text(text), within_chunk)
    model.bfloat16()
    rough = model(latents.bfloat16(), timesteps, model.encode_text(text.bfloat16()), within_chunk)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize(("dim", "heads"), [(100, 3), (20, 2), (39, 3)])
def test_heads_must_fit(dim: int, heads: int) -> None:
    with pytest.raises(ConfigError, match=f"dim {dim} does not split into {heads} heads"):
        TransformerConfig(dim=dim, ffn_dim=8, heads=heads, layers=1, text_dim=8, text_len=4, freq_dim=16)
