import math

import pytest
import torch

from magbench.metrics.aesthetic import Aesthetic
from magbench.metrics.background_consistency import BackgroundConsistency
from magbench.metrics.base import Clip, Scores
from tests.unit.clips import numbers, pan, reason, run


def falling(clip: Clip) -> torch.Tensor:
    """Loses 0.3 a minute."""
    return torch.tensor([0.6 - 0.005 * time for time in clip.times], dtype=torch.float64)


@pytest.mark.parametrize("fps", [8, 24])
def test_a_falling_rating_has_closed_forms(fps: int) -> None:
    answer = run(Aesthetic(), pan(20 * fps), fps, feature=falling)
    assert isinstance(answer, Scores)
    assert answer.series[0].times == pytest.approx([index / 2 for index in range(40)])
    found = numbers(answer)
    assert found["rating"] == pytest.approx(0.6 - 0.005 * 19.5 / 2)
    assert found["slope"] == pytest.approx(-0.3)
    assert found["start_end@5s"] == pytest.approx(-0.005 * 14.5)
    assert found["worst_window"] == pytest.approx(0.6 - 0.005 * 19.5)


def test_one_frame_has_a_rating_and_no_drift() -> None:
    answer = run(Aesthetic(), pan(1), feature=falling)
    assert numbers(answer)["rating"] == 0.6
    assert "too short" in reason(answer, "start_end@5s")


def test_background_consistency_has_the_clock_and_reductions_of_subject_consistency() -> None:
    def turning(clip: Clip) -> torch.Tensor:
        angle = torch.tensor(clip.times, dtype=torch.float64) * 0.2
        return torch.stack([angle.cos(), angle.sin()], 1)

    found = numbers(run(BackgroundConsistency(), pan(12 * 24), 24, feature=turning))
    assert found["lag_5s"] == pytest.approx(math.cos(1.0), abs=1e-6)
    assert found["gap"] == pytest.approx(1 / 8)
