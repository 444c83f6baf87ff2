"""Worker processes that outlive a task, die with their parent, and never hang it.

Each worker has a pipe of its own. When the parent is killed, the pipe ends and the worker stops at its next word;
when a worker is killed, the parent learns which task went down with it. Importing this file imports no torch.
"""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from magbench.errors import MagbenchError
from magbench.registry import load_object

THREADS = 1
"""Threads per worker, whatever the number of workers: sums come out in one order."""

LEAVE_SECONDS = 10
"""A worker that hasn't left by then is killed; it has nothing half-way that counts."""

_TERMINATED = 128 + signal.SIGTERM
"""Exit code of a worker on SIGTERM."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class WorkerSpec:
    """How workers are made.

    Args:
        factory: `module:name` of a callable that takes `setup` and returns the worker: `worker(task, emit)`.
        setup: Its argument; must pickle.
    """

    factory: str
    setup: Any


@dataclass(frozen=True)
class Death:
    """A worker was killed by a signal.

    Args:
        task: What it was doing.
        signal: Number of the signal; 9 often means that memory ran out.
    """

    task: Any
    signal: int


class _Finished:
    """A task is done."""


@dataclass(frozen=True)
class _Refused:
    """A task ended the run: an error made on purpose."""

    error: MagbenchError


class Pool:
    """Workers, started when there is work. Use it as a context manager: leaving it stops them.

    Args:
        spec: How workers are made.
        size: How many; 0 works in this process, with its own thread settings changed to match.
    """

    def __init__(self, spec: WorkerSpec, size: int) -> None:
        self._spec, self._size = spec, size
        self._idle: list[tuple[Connection, BaseProcess]] = []
        self._busy: dict[Connection, tuple[BaseProcess, Any]] = {}
        self._here: Callable[[Any, Callable[[Any], None]], None] | None = None

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        idle, busy = [process for _, process in self._idle], [process for process, _ in self._busy.values()]
        for connection, _process in self._idle:
            connection.close()  # an idle worker leaves when its pipe ends
        for process in busy:
            process.terminate()
        for process in idle + busy:
            process.join(LEAVE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._idle, self._busy = [], {}

    def run(self, tasks: Sequence[Any], receive: Callable[[Any], None]) -> None:
        """Do all tasks, in any order.

        Args:
            tasks: Picklable.
            receive: Gets everything the workers emit, and a `Death` for a task whose worker was killed.

        Raises:
            MagbenchError: a task raised it; the other tasks are abandoned.
            RuntimeError: a worker crashed; its traceback is on stderr.
        """
        if self._size == 0:
            self._run_here(tasks, receive)
            return
        pending = deque(tasks)
        while pending or self._busy:
            while pending and len(self._busy) < self._size:
                connection, process = self._idle.pop() if self._idle else self._start()
                self._busy[connection] = process, pending.popleft()
                connection.send(self._busy[connection][1])
            ready = wait(list(self._busy))
            for connection in [c for c in self._busy if c in ready]:
                self._listen(connection, receive)

    def _listen(self, connection: Connection, receive: Callable[[Any], None]) -> None:
        process, task = self._busy[connection]
        try:
            message = connection.recv()
        except (EOFError, ConnectionResetError):
            del self._busy[connection]
            process.join()
            code = process.exitcode or 0
            if code == _TERMINATED:
                code = -signal.SIGTERM
            if code >= 0:
                raise RuntimeError(f"a worker ended with code {code}; its traceback is above") from None
            receive(Death(task, -code))
            return
        if isinstance(message, _Refused):
            raise message.error
        if isinstance(message, _Finished):
            del self._busy[connection]
            self._idle.append((connection, process))
        else:
            receive(message)

    def _start(self) -> tuple[Connection, BaseProcess]:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._spec), daemon=True)
        process.start()
        theirs.close()
        return ours, process

    def _run_here(self, tasks: Sequence[Any], receive: Callable[[Any], None]) -> None:
        if self._here is None:
            self._here = _make(self._spec)
        for task in tasks:
            self._here(task, receive)


def _make(spec: WorkerSpec) -> Callable[[Any, Callable[[Any], None]], None]:
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(THREADS)
    import torch

    torch.set_num_threads(THREADS)
    worker: Callable[[Any, Callable[[Any], None]], None] = load_object(spec.factory)(spec.setup)
    return worker


def _serve(connection: Connection, spec: WorkerSpec) -> None:
    """A worker's life. Ctrl-C is the parent's business; it sends SIGTERM, on which temporary files are removed."""

    def leave(_: int, __: FrameType | None) -> None:
        sys.exit(_TERMINATED)

    def emit(message: Any) -> None:
        try:
            connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            sys.exit()  # the parent is gone, which no task may take for a failure of its own

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave)
    worker = _make(spec)
    try:
        while True:
            task = connection.recv()
            try:
                worker(task, emit)
                connection.send(_Finished())
            except MagbenchError as error:
                connection.send(_Refused(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
