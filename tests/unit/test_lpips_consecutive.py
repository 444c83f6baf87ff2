from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
from torchvision.models import alexnet

from magbench.errors import MissingWeightsError
from magbench.metrics.backbones import AlexNetLPIPS, lpips_alex, lpips_heads
from magbench.metrics.base import Scores
from magbench.metrics.lpips_consecutive import LPIPSConsecutive, LPIPSConsecutiveNative
from tests.unit.clips import numbers, pan, reason, run, texture


@pytest.fixture(scope="module")
def trunk() -> dict[str, Any]:
    """A random AlexNet with activations of the usual size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return alexnet().state_dict()


@pytest.fixture(scope="module")
def ours(trunk: dict[str, Any]) -> AlexNetLPIPS:
    return AlexNetLPIPS(trunk, lpips_heads(), "cpu")


@pytest.fixture(scope="module")
def theirs(trunk: dict[str, Any]) -> Any:
    """The reference implementation with its shipped heads on the same trunk."""
    net = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False).eval()
    slices = [net.net.slice1, net.net.slice2, net.net.slice3, net.net.slice4, net.net.slice5]
    for part in slices:
        for index, layer in part.named_children():
            for name, parameter in layer.named_parameters():
                parameter.data.copy_(trunk[f"features.{index}.{name}"])
    return net


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80), (63, 97)])
def test_distances_equal_the_lpips_package(ours: AlexNetLPIPS, theirs: Any, height: int, width: int) -> None:
    clip = pan(6, 3, height, width)
    answer = run(LPIPSConsecutive(), clip, fps=16, feature=ours, chunk=4)
    assert isinstance(answer, Scores)
    images = torch.from_numpy(clip).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = theirs(images[2:], images[:-2]).flatten().tolist()
    assert min(expected) > 1e-4
    assert answer.series[0].values == pytest.approx(expected, abs=1e-6)


def test_the_native_profile_compares_neighbours(ours: AlexNetLPIPS, theirs: Any) -> None:
    clip = pan(5, 3, 48, 64)
    answer = run(LPIPSConsecutiveNative(), clip, fps=16, feature=ours)
    assert isinstance(answer, Scores)
    images = torch.from_numpy(clip).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = theirs(images[1:], images[:-1]).flatten().tolist()
    assert answer.series[0].values == pytest.approx(expected, abs=1e-6)
    assert numbers(answer)["gap"] == pytest.approx(1 / 16)


def test_pans_loops_exposure_steps_and_reversal(ours: AlexNetLPIPS) -> None:
    clip = pan(20, 1, 32, 48)
    answer = run(LPIPSConsecutive(), np.tile(clip, (3, 1, 1, 1)), feature=ours)
    assert isinstance(answer, Scores)
    values = np.array(answer.series[0].values)
    assert values[20:] == pytest.approx(values[:-20], abs=1e-6)
    assert np.ptp(values[:19]) < 0.5 * np.median(values)
    backwards = numbers(run(LPIPSConsecutive(), np.tile(clip, (3, 1, 1, 1))[::-1], feature=ours))
    assert backwards == pytest.approx(numbers(answer), rel=1e-4)
    stepped = pan(40, 1, 32, 48)
    stepped[20:] //= 3
    assert numbers(run(LPIPSConsecutive(), stepped, feature=ours))["spike_rate"] == pytest.approx(1 / 39)


def test_each_frame_passes_the_backbone_once(ours: AlexNetLPIPS) -> None:
    seen = 0

    def counting(clip: Any) -> Any:
        nonlocal seen
        seen += len(clip)
        return ours(clip)

    run(LPIPSConsecutive(), pan(20), fps=16, feature=counting)
    assert seen == 20


def test_a_held_frame_is_at_distance_zero_and_a_seam_shows(ours: AlexNetLPIPS) -> None:
    held = run(LPIPSConsecutive(), np.repeat(texture()[None], 20, 0), feature=ours)
    assert numbers(held)["median"] == 0.0
    assert "stands still" in reason(held, "spike_rate")
    cut = np.concatenate([pan(20), pan(20, seed=5)])
    assert numbers(run(LPIPSConsecutive(), cut, feature=ours))["spike_rate"] >= 1 / 39


def test_tiny_frames_are_not_applicable(ours: AlexNetLPIPS) -> None:
    assert "too small" in reason(run(LPIPSConsecutive(), pan(4, height=30), feature=ours))


def test_without_its_trunk_it_says_which_file_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"no file .*alexnet-owt-7be5be79\.pth") as caught:
        lpips_alex("cpu")
    assert "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth" in (caught.value.hint or "")
