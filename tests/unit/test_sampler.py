"""The schedule in closed form, and both samplers on flows whose answer is known."""

import pytest
import torch
from torch import Tensor

from magbench.errors import ConfigError
from magbench.runners.wan.sampler import FewStepSampler, OdeSampler, Sampler, Schedule, seeded_noise

CLEAN, NOISE = torch.randn(2, 1, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))


def no_noise() -> Tensor:
    raise AssertionError("no noise was due")


def solve(sampler: Sampler, fresh: Tensor | None = None) -> list[Tensor]:
    """Run a sampler with the perfect flow for `CLEAN` as seen from wherever it is."""
    noisy, trail = NOISE, []
    for index, timestep in enumerate(sampler.timesteps):
        flow = (noisy - CLEAN) / (timestep / 1000)
        noisy = sampler.step(index, noisy, flow, no_noise if fresh is None else lambda: fresh)
        trail.append(noisy)
    return trail


def test_released_steps() -> None:
    assert FewStepSampler().timesteps == pytest.approx((1000, 937.5, 833.3333, 625), abs=1e-3)
    assert FewStepSampler(steps=(1000, 800, 600, 400, 200)).timesteps == pytest.approx(
        (1000, 952.38104, 882.35291, 769.23077, 555.55560), abs=1e-3
    )
    assert FewStepSampler(shift=8.0).timesteps == pytest.approx((1000, 960, 888.8889, 727.2728), abs=1e-3)


def test_steps_that_are_timesteps_already() -> None:
    """CausVid: passed to the model as they are; the noise level is that of the nearest timestep in the table."""
    sampler = FewStepSampler(steps=(1000, 757, 522), shift=8.0, warp=False)
    assert sampler.timesteps == (1000.0, 757.0, 522.0)
    for index, sigma in enumerate((1.0, 0.756757, 0.521739)):
        torch.testing.assert_close(sampler.clean(index, NOISE, CLEAN), NOISE - sigma * CLEAN, atol=3e-6, rtol=0)
    moved = FewStepSampler(steps=(1000, 757, 522), warp=False)
    assert moved.timesteps == sampler.timesteps
    assert (moved.clean(2, NOISE, CLEAN) - sampler.clean(2, NOISE, CLEAN)).abs().max() > 1e-4


@pytest.mark.parametrize("sampler", [FewStepSampler(), OdeSampler(steps=3), OdeSampler(steps=3, shift=5.0)])
def test_clean_is_where_the_flow_points(sampler: Sampler) -> None:
    """From every pass the perfect flow points to the same latents, which the last step returns."""
    noisy = NOISE
    for index, timestep in enumerate(sampler.timesteps):
        flow = (noisy - CLEAN) / (timestep / 1000)
        torch.testing.assert_close(sampler.clean(index, noisy, flow), CLEAN, atol=1e-5, rtol=0)
        noisy = sampler.step(index, noisy, flow, lambda: NOISE)
    torch.testing.assert_close(noisy, CLEAN, atol=1e-5, rtol=0)


def test_sigma_takes_the_nearest_level() -> None:
    schedule = Schedule(5.0)
    assert schedule.sigma(0) == pytest.approx(0.00498008, abs=1e-8)
    assert Schedule(8.0).sigma(757) == pytest.approx(0.756757, abs=1e-6)
    assert schedule.sigma(1000) == 1


def test_few_steps_predict_and_add_fresh_noise() -> None:
    fresh = torch.full_like(NOISE, 2.0)
    trail = solve(FewStepSampler(), fresh)
    for noisy, sigma in zip(trail, (0.9375, 0.8333333, 0.625), strict=False):
        torch.testing.assert_close(noisy, (1 - sigma) * CLEAN + sigma * fresh, atol=1e-5, rtol=0)
    torch.testing.assert_close(trail[-1], CLEAN, atol=1e-5, rtol=0)
    assert len(trail) == 4


@pytest.mark.parametrize("sampler", [OdeSampler(steps=1), OdeSampler(steps=10), OdeSampler(steps=7, shift=3.0)])
def test_ode_follows_a_straight_line_to_its_end(sampler: OdeSampler) -> None:
    trail = solve(sampler)
    assert len(trail) == sampler.steps
    for noisy, timestep in zip(trail, sampler.timesteps[1:], strict=False):
        sigma = timestep / 1000
        torch.testing.assert_close(noisy, (1 - sigma) * CLEAN + sigma * NOISE, atol=1e-5, rtol=0)
    torch.testing.assert_close(trail[-1], CLEAN, atol=1e-5, rtol=0)


def test_ode_levels() -> None:
    assert OdeSampler(steps=4).timesteps == pytest.approx((1000, 750, 500, 250))
    assert OdeSampler(steps=4, shift=5.0).timesteps == pytest.approx((1000, 937.5, 833.3333, 625), abs=1e-3)


@pytest.mark.parametrize("values", [{"steps": 0}, {"shift": 0.0}, {"shift": float("nan")}])
def test_ode_refuses_senseless_values(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="steps >= 1 and shift > 0"):
        OdeSampler(**values)


def test_seeded_noise_depends_on_seed_chunk_and_step_only() -> None:
    shape = (3, 16, 4, 4)
    pair, alone = seeded_noise((7, 8), shape), seeded_noise((8,), shape)
    assert pair(0, 0).shape == (2, *shape)
    assert torch.equal(pair(5, 1)[1], alone(5, 1)[0])
    draws = [pair(chunk, step)[row] for chunk in (0, 1) for step in (0, 1) for row in (0, 1)]
    assert len({draw.sum().item() for draw in draws}) == len(draws)
    assert torch.cat(draws).std() == pytest.approx(1, abs=0.03)
    assert seeded_noise((7,), shape, dtype=torch.bfloat16)(0, 0).dtype == torch.bfloat16
