"""The judge: a small network with its own weights that reads videos of the mini world."""

from functools import lru_cache
from pathlib import Path

from safetensors.torch import load_file

from magbench.errors import MissingWeightsError
from magbench.metrics.judge.network import CELL, COLUMNS, REJECT, SLOTS, Judge, Reading

__all__ = ["CELL", "COLUMNS", "REJECT", "SLOTS", "WEIGHTS", "Judge", "Reading", "load_judge"]

WEIGHTS = Path(__file__).parent / "weights.safetensors"


@lru_cache(maxsize=1)
def load_judge() -> Judge:
    """The judge with its shipped weights, in evaluation mode, on the CPU in float32; loaded once.

    Raises:
        MissingWeightsError: The package was installed without its weights.
    """
    if not WEIGHTS.exists():
        raise MissingWeightsError(f"the judge's weights {WEIGHTS} are missing", "reinstall magbench")
    judge = Judge()
    judge.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return judge.eval()
