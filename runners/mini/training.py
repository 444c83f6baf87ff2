"""A training loop that can be killed at any moment: same seed, same steps, same weights as without the kill.

Every step draws its batch and noise from generators seeded by (seed, step), so a checkpoint holds no random state.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

MATRIX_RATE = 4.0
"""Learning rate of matrices trained with Muon, in units of the schedule's."""


@dataclass(frozen=True)
class Schedule:
    """How one stage is trained.

    Args:
        steps: Optimiser steps in all.
        rate: Peak learning rate of AdamW; that of Muon is MATRIX_RATE times it.
        warmup: Steps of linear warm-up.
        constant: Share of the steps before the rate falls linearly to 2 % of its peak.
        average: Decay of the exponential average of the weights, reached after the first steps.
        seed: Seed of everything random in the stage.
    """

    steps: int
    rate: float = 2e-3
    warmup: int = 200
    constant: float = 0.55
    average: float = 0.995
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        done = step / self.steps
        tail = 1.0 if done < self.constant else max(0.02, (1 - done) / (1 - self.constant))
        return self.rate * min(1.0, (step + 1) / self.warmup) * tail

    def average_at(self, step: int) -> float:
        """Decay of the weight average at a step, counted from 0: short memory at first."""
        return min(self.average, (step + 1) / (step + 10))


def step_seed(seed: int, step: int) -> int:
    """A seed for one step, different for neighbouring (seed, step) pairs."""
    return (seed * 1_000_003 + step) * 2_654_435_761 % 2**63


def train(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    folder: Path,
    *,
    matrices: Iterable[nn.Parameter] = (),
    stop_after: int | None = None,
    checkpoint_seconds: float = 120,
    exported: Callable[[dict[str, Tensor], int], None] | None = None,
) -> dict[str, Tensor]:
    """Train `model` in place and return the averaged weights; continues from `folder` if it holds a checkpoint.

    Args:
        model: Trained in place; every parameter and buffer is averaged.
        loss: Step index (from 0) to a scalar loss, random only through `step_seed`.
        schedule: Steps, rates and seed.
        folder: Holds `checkpoint.pt`, written atomically every `checkpoint_seconds`.
        matrices: Parameters of shape [out, in] that Muon trains (Jordan et al. 2024) instead of AdamW.
        stop_after: Write a checkpoint and return early after this many steps of the whole schedule.
        checkpoint_seconds: Wall time between checkpoints.
        exported: Called with the averaged weights and the number of steps done at every checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "checkpoint.pt"
    matrices = list(matrices)
    own = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in own]
    optimisers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.AdamW(rest, schedule.rate, betas=(0.9, 0.95), weight_decay=0.01), 1.0)
    ]
    if matrices:
        muon = torch.optim.Muon(matrices, schedule.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        optimisers.append((muon, MATRIX_RATE))
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    done = 0
    if file.exists():
        state = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        for (optimiser, _), saved_state in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved_state)
        average = {name: value.to(average[name].device) for name, value in state["average"].items()}
        done = int(state["steps"])

    def save() -> None:
        partial = file.with_suffix(".part")
        states = [optimiser.state_dict() for optimiser, _ in optimisers]
        state = {"model": model.state_dict(), "optimisers": states, "average": average, "steps": done}
        torch.save(state, partial)
        partial.replace(file)
        if exported:
            exported(average, done)

    last = min(schedule.steps, stop_after or schedule.steps)
    started = saved = time.monotonic()
    recent: list[float] = []
    model.train()
    for step in range(done, last):
        for optimiser, factor in optimisers:
            optimiser.param_groups[0]["lr"] = factor * schedule.rate_at(step)
        value = loss(step)
        model.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, _ in optimisers:
            optimiser.step()
        done = step + 1
        with torch.no_grad():
            for name, weight in model.state_dict().items():
                average[name].lerp_(weight, 1 - schedule.average_at(step))
        recent.append(value.item())
        if not math.isfinite(recent[-1]):
            raise FloatingPointError(f"the loss became {recent[-1]} at step {step}")
        if done % 50 == 0:
            seconds = time.monotonic() - started
            log.info("step %d/%d  %.0f s  loss %.4f", done, schedule.steps, seconds, sum(recent) / len(recent))
            recent.clear()
        if time.monotonic() - saved > checkpoint_seconds:
            save()
            saved = time.monotonic()
    save()
    return average
