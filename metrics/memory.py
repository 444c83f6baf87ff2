"""How much a metric holds, and how much its memory class allows."""

import gc
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from logging import Logger
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from magbench.errors import MagbenchError
from magbench.metrics.base import Extractor, Info, Metric
from magbench.metrics.consecutive import GAP
from magbench.records import CaseRecord, SampleRecord, Timing, TraceRecord

ALLOWANCE = 2**20
"""Bytes that any metric may hold, whatever the video."""
PIXEL_BYTES = 64
"""Bytes per pixel of the frames that a metric may keep until their partner comes, `GAP` later: AlexNet's five feature
maps take 40, a picture in float32 takes 12."""
SERIES_BYTES = 512
"""Bytes per frame of the constant class: the numbers of a few series, as Python holds them, and no picture."""
FRAME_BYTES = 4096
"""Bytes per frame of the frame class."""
FIRST_LOOK = 32
"""Frames after which a metric is first weighed; then after half as many again, so that all looks together cost no
more than three times the last."""

_NOT_ITS_OWN = (
    Extractor, Info, SampleRecord, CaseRecord, Timing, TraceRecord, nn.Module, Logger, ModuleType, type
)  # fmt: skip
"""What the engine gave it, weights, and what is not of this video."""


class MemoryGuard:
    """Weighs one metric as its video goes by.

    Args:
        metric: The metric, which has been started.
        info: Of the video.
    """

    def __init__(self, metric: Metric, info: Info) -> None:
        self._metric = metric
        self._pixels = info.width * info.height
        self._frames = self._waiting = 0
        self._recent: deque[float] = deque()
        self._next = FIRST_LOOK

    def saw(self, times: Sequence[float]) -> None:
        """Count frames, given by their ascending times, that the metric was shown, and weigh it from time to time.

        Raises:
            MagbenchError: it holds more than its class allows.
        """
        self._frames += len(times)
        for time in times:
            self._recent.append(time)
            while self._recent[0] < time - GAP:
                self._recent.popleft()
            self._waiting = max(self._waiting, len(self._recent))
        if self._frames >= self._next:
            self.weigh()
            self._next = self._frames * 3 // 2

    def weigh(self) -> None:
        """Weigh the metric now; otherwise as `saw`."""
        metric, limit = self._metric, self.limit
        held = held_bytes(metric)
        if held > limit:
            raise MagbenchError(
                f"it holds {_megabytes(held)} after {self._frames} frames, and memory class {metric.memory!r} "
                f"allows {_megabytes(limit)}",
                "keep less of each frame, or declare the class that fits: see docs/engine.md",
            )

    @property
    def limit(self) -> int:
        """Bytes that the metric may hold after the frames it was shown."""
        if self._metric.memory == "pairs":
            return self._metric.memory_cap
        each = SERIES_BYTES if self._metric.memory == "constant" else FRAME_BYTES
        return ALLOWANCE + PIXEL_BYTES * self._pixels * (self._waiting + 2) + each * self._frames


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3g} MB"


def held_bytes(thing: object) -> int:
    """Bytes that an object keeps alive, each object and each block of numbers in it counted once.

    A slice of a tensor or array counts as the whole block that it keeps from being freed. Left out are what the engine
    gave the metric (`Info`, records, extractors), the weights of networks, modules and classes.
    """
    total = 0
    todo: list[Any] = [thing]
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        while isinstance(one, np.ndarray) and isinstance(one.base, np.ndarray | Tensor):
            one = one.base
        inside: Iterable[Any] = ()
        if isinstance(one, Tensor):
            block = one.untyped_storage()
            key, size = block.data_ptr(), block.nbytes()
        elif isinstance(one, np.ndarray):
            key, size = one.ctypes.data, one.nbytes
            inside = one.tolist() if one.dtype.hasobject else ()
        elif isinstance(one, _NOT_ITS_OWN):
            continue
        elif isinstance(one, FunctionType):
            key, size = id(one), 0
            inside = one.__closure__, one.__defaults__, one.__kwdefaults__
        else:
            key, size, inside = id(one), sys.getsizeof(one), gc.get_referents(one)
        if key not in seen:
            seen.add(key)
            total += size
            todo += inside
    return total
