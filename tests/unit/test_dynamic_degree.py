"""VBench's dynamic degree: its table of verdicts, the frames it keeps, and torchvision's RAFT called directly."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.optical_flow import raft_large, raft_small

from magbench.metrics.base import Clip, Scores
from magbench.metrics.dynamic_degree import DynamicDegree, fastest, is_dynamic, threshold
from magbench.metrics.raft import RAFT, padded
from tests.unit.clips import Frames, numbers, pan, reason, run


@pytest.mark.parametrize(
    ("kept", "hits", "verdict"),
    [
        (16, 3, False),
        (16, 4, True),
        (2, 0, True),
        (1, 0, False),
        (3, 0, False),
        (3, 1, True),
        (10, 1, False),
        (10, 2, True),
        (14, 3, False),
        (14, 4, True),
    ],
)
def test_verdicts(kept: int, hits: int, verdict: bool) -> None:
    """Halves are rounded to even: 10 frames need 2 hits, 14 need 4."""
    assert is_dynamic([index < hits for index in range(kept - 1)], kept) == verdict


def test_the_threshold_follows_the_short_side() -> None:
    assert (threshold(256), threshold(480)) == (6, 11.25)


def test_the_fastest_twentieth_of_the_pixels_counts() -> None:
    """200 pixels at 0 but for eleven at 5 px: the fastest ten are 5; of 210 pixels int(10.5) are taken as well."""
    flow = torch.zeros(1, 2, 10, 20)
    flow[0, :, 0, :11] = torch.tensor([3.0, 4.0])[:, None]
    assert fastest(flow).tolist() == [5.0]
    flow[0, :, 0, 5:11] = 0
    assert fastest(flow).tolist() == [2.5]
    assert fastest(torch.nn.functional.pad(flow, (0, 1))).tolist() == [2.5]


def numbered(frames: int, height: int = 136, width: int = 128) -> Frames:
    """Frames that carry their own index."""
    return np.stack([np.full((height, width, 3), index, np.uint8) for index in range(frames)])


def steps(clip: Clip) -> Tensor:
    """A flow of as many pixels as lie frames between two neighbours."""
    index = clip.frames[:, 0, 0, 0].float()
    return (index[1:] - index[:-1])[:, None, None, None] * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)


@pytest.mark.parametrize(("fps", "every", "kept"), [(8, 1, 40), (12, 2, 20), (16, 2, 20), (25, 3, 14), (30, 4, 10)])
@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_kept_frames_do_not_depend_on_chunks(fps: float, every: int, kept: int, chunk: int) -> None:
    answer = run(DynamicDegree(), numbered(40), fps, feature=steps, chunk=chunk)
    assert isinstance(answer, Scores)
    assert answer.series[0].values == (every,) * (kept - 1)
    assert answer.series[0].times == pytest.approx([index * every / fps for index in range(1, kept)])
    assert numbers(answer)["hits"] == (every > 6 * 128 / 256)
    assert numbers(answer)["dynamic"] == (every == 4)


def test_two_kept_frames_are_always_dynamic_and_that_is_said() -> None:
    answer = run(DynamicDegree(), np.zeros((2, 128, 128, 3), np.uint8), feature=steps)
    assert numbers(answer) == {"dynamic": 1, "hits": 0}
    assert isinstance(answer, Scores)
    assert "any such video" in answer.warnings[0]
    one = run(DynamicDegree(), numbered(1), feature=steps)
    assert numbers(one) == {"dynamic": 0}
    assert "no pair" in reason(one, "hits")


def test_frames_too_small_for_raft_are_not_applicable() -> None:
    assert "at least 128x128, this one is 128x120" in reason(run(DynamicDegree(), numbered(2, 120), feature=steps))


@pytest.mark.parametrize(("height", "width"), [(128, 128), (121, 133), (130, 127)])
def test_padding_repeats_the_border_on_both_sides(height: int, width: int) -> None:
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    found = padded(images)
    extra = [(-side) % 8 for side in (height, width)]
    sides = [(0, 0), (0, 0), *((more // 2, more - more // 2) for more in extra)]
    assert np.array_equal(found.numpy(), np.pad(images.numpy(), sides, mode="edge"))


def test_flow_equals_torchvision_called_directly() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: Any = raft_small().eval()
    frames = torch.from_numpy(pan(2, 5, 128, 136))
    found = RAFT(net, "cpu")(Clip(0, (0.0, 0.1), frames))
    before, after = (frames.permute(0, 3, 1, 2).float() / 255 * 2 - 1).split(1)
    with torch.no_grad():
        expected = net(before, after, num_flow_updates=20)[-1]
    assert found.shape == (1, 2, 128, 136)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    assert RAFT(net, "cpu")(Clip(0, (0.0,), frames[:1])).shape == (0, 2, 128, 136)


def test_the_architecture_is_raft_large() -> None:
    """torchvision publishes 5,257,536 parameters for these weights."""
    with torch.device("meta"):
        net = raft_large()
    assert sum(parameter.numel() for parameter in net.parameters()) == 5_257_536
