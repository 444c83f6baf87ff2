"""CLIP against open_clip itself, at a small size."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from magbench.errors import MissingWeightsError
from magbench.metrics import clip, weights
from magbench.metrics.base import Clip
from magbench.metrics.clip import CLIP, causal, clip_input, clip_input_vbench, clip_network
from magbench.metrics.laion import LAIONLinear, laion_linear
from tests.unit.clips import Told, pan


def small() -> Any:
    """A CLIP of the same class and format."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.CLIP(
            16,
            CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=32, image_size=224),
            CLIPTextCfg(width=32, heads=2, layers=2),
            quick_gelu=True,
        ).eval()


@pytest.fixture(scope="module")
def net() -> Any:
    return small()


def frames(count: int = 10) -> Clip:
    return Clip(0, tuple(index / 8 for index in range(count)), torch.from_numpy(pan(count, 5, 60, 104)))


@pytest.mark.parametrize("view", [clip_input, clip_input_vbench])
def test_images_equal_open_clip(net: Any, view: Any) -> None:
    normalise = open_clip.image_transform(224, is_train=False).transforms[-1]
    with torch.no_grad():
        expected = net.encode_image(normalise(view(frames())))
    found = CLIP(net, view, "cpu")(frames())
    assert found.shape == (10, 16)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[5], atol=1e-3)


def test_texts_equal_open_clip(net: Any) -> None:
    prompts = ["A cat's walk.", "a dog " * 60]
    with torch.no_grad():
        expected = net.encode_text(open_clip.get_tokenizer("ViT-L-14-quickgelu")(prompts))
    torch.testing.assert_close(CLIP(net, clip_input, "cpu").texts(prompts), expected)


def test_a_long_prompt_is_cut_after_75_tokens_and_that_is_said(net: Any) -> None:
    tower = CLIP(net, clip_input, "cpu")
    long = "cat dog " * 50
    assert tower.tokens_cut(long) == 25
    assert [tower.tokens_cut("cat " * words) for words in (1, 75, 76)] == [0, 0, 1]
    whole, cut = tower.texts([long, "cat dog " * 37 + "cat"])
    torch.testing.assert_close(whole, cut)


@pytest.mark.parametrize(
    ("name", "architecture", "width", "layers"),
    [("clip-vit-b-32", "ViT-B-32-quickgelu", 512, 12), ("clip-vit-l-14", "ViT-L-14-quickgelu", 768, 24)],
)
def test_the_architectures_have_the_tensors_of_the_published_files(
    name: str, architecture: str, width: int, layers: int
) -> None:
    """The files are their tensors in single precision and a small header; names are OpenAI's."""
    network: Any = clip_network(architecture)
    state = network.state_dict()
    assert 0 < 1e6 * weights.manifest()[name].megabytes - 4 * sum(value.numel() for value in state.values()) < 1e6
    assert state["text_projection"].shape[1] == state["visual.proj"].shape[1] == width
    assert f"visual.transformer.resblocks.{layers - 1}.attn.in_proj_weight" in state
    assert isinstance(network.visual.transformer.resblocks[0].mlp.gelu, QuickGELU)
    assert isinstance(network.transformer.resblocks[0].mlp.gelu, QuickGELU)


@pytest.fixture
def cached(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with the small network in the place of ViT-B/32; its path."""
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path))
    entry = weights.manifest()["clip-vit-b-32"].model_copy(update={"sha256": None})
    monkeypatch.setattr(weights, "manifest", lambda: {"clip-vit-b-32": entry})

    def on_meta(_: str) -> Any:
        with torch.device("meta"):
            return small()

    monkeypatch.setattr(clip, "clip_network", on_meta)
    clip._loaded.cache_clear()
    path = weights.cache_folder() / entry.file
    path.parent.mkdir()
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    return path


def test_one_network_is_loaded_for_all_who_read_it(net: Any, cached: Path) -> None:
    ours, vbench = clip.vit_b_32("cpu"), clip.vit_b_32_vbench("cpu")
    assert ours._net is vbench._net
    assert len(ours.weights_sha256) == 64
    assert torch.equal(ours(frames(2)), CLIP(net, clip_input, "cpu")(frames(2)))
    assert torch.equal(vbench(frames(2)), CLIP(net, clip_input_vbench, "cpu")(frames(2)))
    assert torch.equal(ours.texts(["a cat"]), CLIP(net, clip_input, "cpu").texts(["a cat"]))


def test_another_file_is_refused(cached: Path) -> None:
    save_file({"something": torch.zeros(1)}, cached)
    with pytest.raises(MissingWeightsError, match="does not fit CLIP ViT-B-32-quickgelu"):
        clip.vit_b_32("cpu")


def test_the_mask_of_a_network_without_memory_is_that_of_open_clip(net: Any) -> None:
    with torch.device("meta"):
        empty = small()
    assert torch.equal(causal(empty).attn_mask, net.attn_mask)


def test_laions_head_is_a_dot_product_of_the_unit_embedding() -> None:
    generator = torch.Generator().manual_seed(0)
    embedded, weight = torch.randn(3, 8, generator=generator) * 5, torch.randn(1, 8, generator=generator)
    clip = frames(3)
    clip.extractors = {"tower": Told(lambda _: embedded)}
    found = LAIONLinear(weight, torch.tensor([4.0]), "tower")(clip)
    expected = [
        (sum(float(f * w) for f, w in zip(row, weight[0], strict=True)) / float(row.norm()) + 4) / 10
        for row in embedded
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_head_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"no file .*sa_0_4_vit_l_14_linear\.pth"):
        laion_linear("cpu")
    entry = weights.manifest()["laion-aesthetic-linear"].model_copy(update={"sha256": None})
    monkeypatch.setattr(weights, "manifest", lambda: {"laion-aesthetic-linear": entry})
    path = weights.cache_folder() / entry.file
    path.parent.mkdir()
    torch.save(torch.nn.Linear(768, 1).state_dict(), path)
    assert len(laion_linear("cpu").weights_sha256) == 64
    torch.save(torch.nn.Linear(512, 1).state_dict(), path)
    path.with_name(path.name + ".json").unlink()
    with pytest.raises(MissingWeightsError, match=r"is not the linear head on ViT-L/14"):
        laion_linear("cpu")
