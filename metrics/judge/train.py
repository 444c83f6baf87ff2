"""Train the judge: `python -m magbench.metrics.judge.train --out judge.safetensors`.

Deterministic from its seed; takes minutes on a laptop. It never sees a frame made by a model: only rendered frames,
damaged in the ways of `frames.py`.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from magbench.data.mini_world import COLOURS
from magbench.metrics.judge.frames import HELD_OUT_SEEDS, IGNORE, TRAINING_SEEDS, Labelled, damage, render
from magbench.metrics.judge.network import REJECT, SLOTS, Judge

log = logging.getLogger(__name__)

BATCH = 96
RATE = 2e-3


def loss(judge: Judge, frames: Tensor, slots: Tensor, columns: Tensor) -> Tensor:
    """Cross entropy of slots and of landmark colour and shape, plus binary cross entropy of presence."""
    named, read = judge.forward(frames)
    total = torch.zeros(())
    for i, (slot, words) in enumerate(SLOTS.items()):
        target = torch.where(slots[:, i] == REJECT, len(words), slots[:, i])
        total = total + F.cross_entropy(named[slot].float(), target, ignore_index=IGNORE)
    read = read.float()
    known = columns[:, 0] != IGNORE
    total = total + 4 * F.binary_cross_entropy_with_logits(read[:, 0][known], columns[:, 0][known].float())
    total = total + F.cross_entropy(read[:, 1 : 1 + len(COLOURS)], columns[:, 1], ignore_index=IGNORE)
    return total + F.cross_entropy(read[:, 1 + len(COLOURS) :], columns[:, 2], ignore_index=IGNORE)


def train(steps: int, worlds: int, seed: int) -> Judge:
    """Train a judge for `steps` batches on frames of `worlds` worlds."""
    torch.manual_seed(seed)
    data = render(TRAINING_SEEDS[:worlds], 8, garbled=0.4)
    judge = Judge()
    judge.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(judge.parameters(), RATE, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100, 0.01 + 2.5 * (1 - step / steps))
        pick = torch.randint(len(data.frames), (BATCH,), generator=generator)
        frames = damage(data.frames[pick], generator)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(judge, frames, data.slots[pick], data.columns[pick])
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if (step + 1) % 50 == 0:
            log.info("step %d/%d  loss %.4f", step + 1, steps, value.item())
    return judge.eval()


def error_rates(judge: Judge, data: Labelled) -> dict[str, float]:
    """How often the judge errs, as shares.

    Per slot: wrong readings and refusals of readable slots, acceptances of garbled ones. Landmarks: missed, false
    alarms per empty column, wrong colour, wrong shape.
    """
    reading = judge.read(data.frames)
    rates: dict[str, float] = {}
    for i, slot in enumerate(SLOTS):
        truth, read = data.slots[:, i], getattr(reading, slot)
        good, bad = truth >= 0, truth == REJECT
        rates[f"{slot} wrong"] = _share((read != truth) & (read != REJECT), good)
        rates[f"{slot} refused"] = _share(read == REJECT, good)
        if bad.any():
            rates[f"{slot} accepted"] = _share(read != REJECT, bad)
    there, empty = data.columns[:, 0] == 1, data.columns[:, 0] == 0
    seen = reading.presence >= 0.5
    rates["landmark missed"] = _share(~seen, there)
    rates["landmark false alarm"] = _share(seen, empty)
    rates["landmark colour wrong"] = _share(reading.colour != data.columns[:, 1], there & seen)
    rates["landmark shape wrong"] = _share(reading.shape != data.columns[:, 2], there & seen)
    return rates


def _share(hits: Tensor, among: Tensor) -> float:
    return float((hits & among).sum() / among.sum().clamp(min=1))


def main() -> None:
    """Train, report held-out error rates, and write the weights as float16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--worlds", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    judge = train(options.steps, options.worlds, options.seed)
    save_file({name: value.half().contiguous() for name, value in judge.state_dict().items()}, options.out)
    for garbled in (0.0, 1.0):
        rates = error_rates(judge, render(HELD_OUT_SEEDS[:400], 8, garbled))
        log.info("held out, garbled %s: %s", garbled, json.dumps({k: round(v, 4) for k, v in rates.items()}, indent=1))


if __name__ == "__main__":
    main()
