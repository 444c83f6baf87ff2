"""Evaluation suite for KV-cache policies in autoregressive long-video generation.

`magbench.run(...)`, `magbench.score(...)`, `magbench.why(...)`, `magbench.load(folder)` and `magbench.compare(a, b)`
mirror the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["compare", "load", "run", "score", "why"]

if TYPE_CHECKING:
    from magbench.api import load, run, score, why
    from magbench.comparison import compare


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("magbench.comparison" if name == "compare" else "magbench.api"), name)
    raise AttributeError(f"module 'magbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
