from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.transforms.v2 import Compose, InterpolationMode, Normalize, Resize, ToDtype

from magbench.errors import MissingWeightsError
from magbench.metrics import weights
from magbench.metrics.backbones import DINO, dino_network, dino_vitb16
from magbench.metrics.base import Clip, Scores
from magbench.metrics.subject_consistency import SubjectConsistency
from tests.unit.clips import numbers, pan, reason, run


def turning(degrees_per_second: float) -> Any:
    """A feature that turns in a plane: frames dt apart have cosine cos(speed dt)."""

    def tell(clip: Clip) -> torch.Tensor:
        angle = torch.tensor(clip.times, dtype=torch.float64) * np.deg2rad(degrees_per_second)
        return torch.stack([angle.cos(), angle.sin()], 1) * 7

    return tell


def cosine(degrees: Any) -> Any:
    return np.cos(np.deg2rad(degrees))


@pytest.mark.parametrize("fps", [8, 16, 24])
def test_reductions_of_a_turning_feature_have_closed_forms(fps: int) -> None:
    speed, seconds = 8.0, 12
    answer = run(SubjectConsistency(), pan(seconds * fps), fps=fps, feature=turning(speed))
    found = numbers(answer)
    times = np.arange(0, seconds, 1 / 8)
    expected = (cosine(speed / 8) + cosine(speed * times[1:])) / 2
    assert found["consistency"] == pytest.approx(expected.mean(), abs=1e-6)
    anchor = np.array([cosine(speed * (time - times[:8])).mean() for time in times])
    assert found["anchor"] == pytest.approx(anchor[8:].mean(), abs=1e-6)
    assert found["anchor.worst_window"] == pytest.approx(anchor[8:].min(), abs=1e-6)
    assert found["anchor.start_end@15%"] < -0.5
    for lag in (0.5, 1.0, 2.0, 5.0, 10.0):
        assert found[f"lag_{lag:g}s"] == pytest.approx(cosine(speed * lag), abs=1e-6)
    assert found["gap"] == pytest.approx(1 / 8)
    assert "30 s apart" in reason(answer, "lag_30s")
    assert isinstance(answer, Scores)
    assert [(series.name, series.axis) for series in answer.series] == [
        ("consistency", "time"), ("anchor", "time"), ("lag", "lag"),
    ]  # fmt: skip
    assert len(answer.series[0].values) == len(times) - 1


def test_a_slower_video_is_labelled_with_its_gap() -> None:
    """At 5 frames per second neighbours are further apart, and turn further: 8 degrees a second over 1/5 s."""
    found = numbers(run(SubjectConsistency(), pan(60), fps=5, feature=turning(8)))
    assert found["gap"] == pytest.approx(1 / 5)
    times = np.arange(1, 60) / 5
    assert found["consistency"] == pytest.approx((cosine(8 / 5) + cosine(8 * times)).mean() / 2, abs=1e-6)


def test_a_loop_shows_in_the_lag_curve() -> None:
    found = numbers(run(SubjectConsistency(), pan(96), feature=turning(180)))
    assert found["lag_2s"] == pytest.approx(1)
    assert found["lag_1s"] == pytest.approx(-1)


def test_a_feature_that_never_changes_is_consistent() -> None:
    found = numbers(run(SubjectConsistency(), pan(96), feature=turning(0)))
    assert found["consistency"] == pytest.approx(1)
    assert found["anchor.slope"] == pytest.approx(0, abs=1e-9)


def test_short_clips_say_what_is_missing() -> None:
    assert reason(run(SubjectConsistency(), pan(1), feature=turning(1))) == "one frame: nothing to compare"
    assert "not longer than the 1 s" in reason(run(SubjectConsistency(), pan(8), feature=turning(1)), "anchor")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return dino_network().eval()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (60, 104)])
def test_features_equal_an_independent_composition(network: torch.nn.Module, height: int, width: int) -> None:
    frames = torch.from_numpy(pan(2, 5, height, width))
    ours = DINO(network, "cpu")(Clip(0, (0.0, 0.125), frames))
    size = [224, 224 if height == width else 384]
    prepare = Compose(
        [
            Resize(size, InterpolationMode.BILINEAR, antialias=True),
            Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    images = prepare(ToDtype(torch.float32, scale=True)(frames.permute(0, 3, 1, 2)))
    with torch.no_grad():
        theirs = network.forward_features(images)[:, 0]
    assert ours.shape == (2, 768)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours[0], ours[1], atol=1e-4)


def test_the_architecture_is_dino_with_its_class_token(network: torch.nn.Module) -> None:
    reference = timm.create_model("vit_base_patch16_224.dino", num_classes=0)
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in reference.state_dict().items()
    }
    assert reference.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)


def test_weights_from_the_cache_folder_are_used_and_checked(
    network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"no file .*dino-vitb16"):
        dino_vitb16("cpu")
    path = tmp_path / "weights" / "dino-vitb16.safetensors"
    path.parent.mkdir()
    save_file(network.state_dict(), path)
    with pytest.raises(MissingWeightsError, match="is not the published file"):
        dino_vitb16("cpu")
    open_entry = weights.manifest()["dino-vitb16"].model_copy(update={"sha256": None})
    monkeypatch.setattr(weights, "manifest", lambda: {"dino-vitb16": open_entry})
    loaded = dino_vitb16("cpu")
    clip = Clip(0, (0.0,), torch.from_numpy(pan(1, height=64)))
    assert torch.equal(loaded(clip), DINO(network, "cpu")(Clip(0, (0.0,), clip.frames)))
    assert len(loaded.weights_sha256) == 64
    save_file({"something": torch.zeros(1)}, path)
    path.with_name(path.name + ".json").unlink()
    with pytest.raises(MissingWeightsError, match="does not fit DINO"):
        dino_vitb16("cpu")
