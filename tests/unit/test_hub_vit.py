"""DINO as its torch.hub code runs it: timm's forward pass with position embeddings resampled by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torchvision.transforms.v2.functional import normalize

from magbench.errors import MissingWeightsError
from magbench.metrics import hub_vit, weights
from magbench.metrics.base import Clip
from magbench.metrics.hub_vit import (
    HubViT,
    dino_input_vbench,
    dino_vitb16_vbench,
    dinov2_input_vbench,
    dinov2_network,
    dinov2_vitb14_vbench,
)

WIDTH = 24


def small(size: Any = 224, patch: int = 16, **options: Any) -> VisionTransformer:
    """A transformer of the same class and format, random enough that its class token depends on positions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = VisionTransformer(
            size, patch, embed_dim=WIDTH, depth=2, num_heads=2, num_classes=0, qkv_bias=True, **options
        )
        for name, value in net.named_parameters():
            if name == "pos_embed" or "attn.qkv.weight" in name or "attn.proj.weight" in name:
                torch.nn.init.normal_(value, std=1.0 if name == "pos_embed" else 0.5)
    return net.eval()


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resample(old: int, new: int, scale: float) -> NDArray[np.float64]:
    """Matrix [new, old]: output cell i sits at (i + 0.5) / scale - 0.5, the border is repeated."""
    matrix = np.zeros((new, old))
    for index in range(new):
        at = (index + 0.5) / scale - 0.5
        for source in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            matrix[index, min(max(source, 0), old - 1)] += cubic(at - source)
    return matrix


def reference(net: VisionTransformer, images: Tensor, patch: int) -> Tensor:
    """timm's forward pass on whole patches, positions resampled by (patches + 0.1) / side."""
    side = int((net.pos_embed.shape[1] - 1) ** 0.5)
    rows, columns = (length // patch for length in images.shape[2:])
    down, across = (resample(side, count, (count + 0.1) / side) for count in (rows, columns))
    grid = net.pos_embed[0, 1:].detach().double().numpy().reshape(side, side, WIDTH)
    moved = np.einsum("ri,cj,ijd->rcd", down, across, grid).reshape(1, rows * columns, WIDTH)
    state = {**net.state_dict(), "pos_embed": torch.cat([net.pos_embed[:, :1], torch.from_numpy(moved).float()], 1)}
    other = small((rows * patch, columns * patch), patch)
    other.load_state_dict(state)
    with torch.no_grad():
        return other.forward_features(images[..., : rows * patch, : columns * patch])[:, 0]


def clip_of(height: int, width: int) -> Clip:
    generator = torch.Generator().manual_seed(1)
    return Clip(0, (0.0, 0.1), torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=generator))


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize(("height", "width"), [(480, 832), (300, 224), (224, 230)])
def test_other_sizes_equal_an_independent_composition(height: int, width: int) -> None:
    net, clip = small(), clip_of(height, width)
    found = HubViT(net, dino_input_vbench, "cpu")(clip)
    images = normalize(dino_input_vbench(clip), **IMAGENET)
    assert found.shape == (2, WIDTH)
    torch.testing.assert_close(found, reference(net, images, 16), atol=2e-5, rtol=0)


def test_the_trained_size_keeps_its_positions() -> None:
    net, clip = small(), clip_of(224, 224)
    with torch.no_grad():
        plain = net.forward_features(normalize(dino_input_vbench(clip), **IMAGENET))[:, 0]
    torch.testing.assert_close(HubViT(net, dino_input_vbench, "cpu")(clip), plain, atol=1e-5, rtol=0)


def test_timm_interpolates_otherwise() -> None:
    net = small(dynamic_img_size=True)
    clip = clip_of(480, 832)
    with torch.no_grad():
        theirs = net.forward_features(normalize(dino_input_vbench(clip)[..., :384], **IMAGENET))[:, 0]
    ours = HubViT(net, dino_input_vbench, "cpu")(clip)
    assert ((ours - theirs).norm() / theirs.norm()).item() > 0.003


def test_dinov2_keeps_its_large_grid_and_resamples_it_for_each_picture() -> None:
    net, clip = small(518, 14), clip_of(120, 200)
    found = HubViT(net, dinov2_input_vbench, "cpu")(clip)
    images = normalize(dinov2_input_vbench(clip), **IMAGENET)
    torch.testing.assert_close(found, reference(net, images, 14), atol=2e-5, rtol=0)


def test_dinov2_has_the_shapes_of_the_published_file() -> None:
    """346,334,872 bytes are its tensors and a header of some kilobytes."""
    with torch.device("meta"):
        state = dinov2_network().state_dict()
    assert state["pos_embed"].shape == (1, 1 + 37 * 37, 768)
    assert state["blocks.11.ls2.gamma"].shape == (768,)
    assert 0 < 346_334_872 - 4 * sum(value.numel() for value in state.values()) < 50_000


@pytest.mark.parametrize(
    ("load", "name"), [(dino_vitb16_vbench, "dino-vitb16"), (dinov2_vitb14_vbench, "dinov2-vitb14")]
)
def test_weights_come_from_the_cache_folder(
    load: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=rf"no file .*{name}"):
        load("cpu")
    net = small()
    path = weights.cache_folder() / weights.manifest()[name].file
    path.parent.mkdir()
    save_file(net.state_dict(), path)
    open_entry = weights.manifest()[name].model_copy(update={"sha256": None})
    monkeypatch.setattr(weights, "manifest", lambda: {name: open_entry})
    monkeypatch.setattr(hub_vit, "dino_network", small)
    monkeypatch.setattr(hub_vit, "dinov2_network", small)
    loaded = load("cpu")
    view = dino_input_vbench if name == "dino-vitb16" else dinov2_input_vbench
    assert torch.equal(loaded(clip_of(64, 64)), HubViT(net, view, "cpu")(clip_of(64, 64)))
    assert len(loaded.weights_sha256) == 64
    save_file({"something": torch.zeros(1)}, path)
    path.with_name(path.name + ".json").unlink()
    with pytest.raises(MissingWeightsError, match="does not fit DINO"):
        load("cpu")
