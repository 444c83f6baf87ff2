"""A worker for the tests of the pool; it has to be importable by spawned processes."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import torch

from magbench.errors import StoreError


def make(setup: str) -> Callable[[Any, Callable[[Any], None]], None]:
    def work(task: str, emit: Callable[[Any], None]) -> None:
        if task == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "leave":
            os.kill(os.getpid(), signal.SIGTERM)
        if task == "refuse":
            raise StoreError("disk full", "free some space")
        if task == "crash":
            raise ZeroDivisionError
        if task == "sleep":
            time.sleep(60)
        emit((setup, task, os.getpid(), torch.get_num_threads()))

    return work
