import numpy as np
import pytest

from magbench.metrics.motion import Motion
from tests.unit.clips import numbers, pan, reason, run, texture


@pytest.mark.parametrize("step", [1, 2])
def test_a_pan_is_camera_motion_of_its_speed(step: int) -> None:
    found = numbers(run(Motion(), pan(10, step, 64, 64)))
    expected = step * 8 / np.hypot(64, 64)
    assert found["camera"] == pytest.approx(expected, rel=0.1)
    assert found["residual"] < 0.25 * expected
    assert found["freeze_share"] == 0


def test_speed_does_not_depend_on_frame_rate_or_size() -> None:
    slow = numbers(run(Motion(), pan(10, 2, 64, 64)))["camera"]
    assert numbers(run(Motion(), pan(20, 1, 64, 64), fps=16))["camera"] == pytest.approx(slow, rel=0.1)
    large = pan(6, 2, 64, 64).repeat(3, 1).repeat(3, 2)
    assert numbers(run(Motion(), large))["camera"] == pytest.approx(slow, rel=0.15)


def test_a_moving_subject_before_a_still_camera_is_residual() -> None:
    clip = np.repeat(texture(64, 64)[None], 10, 0)
    subject = pan(10, 2, 64, 64, seed=9)
    clip[:, 20:44, 20:44] = subject[:, 20:44, 20:44]
    found = numbers(run(Motion(), clip))
    assert found["camera"] < 0.01
    assert found["residual"] > 0.01


def test_frozen_parts_are_counted_and_noise_below_sight_is_frozen() -> None:
    moving = pan(20, 2)
    held = np.repeat(moving[-1:], 20, 0)
    held[::2, ::8, ::8] ^= 1
    found = numbers(run(Motion(), np.concatenate([moving, held])))
    assert found["freeze_share"] == pytest.approx(20 / 39)
    assert numbers(run(Motion(), held))["magnitude"] == 0.0


def test_one_frame_does_not_move() -> None:
    assert reason(run(Motion(), pan(1))) == "one frame: nothing moves"
