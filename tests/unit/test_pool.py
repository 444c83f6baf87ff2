"""Worker processes: one thread each, deaths are told, errors made on purpose come through whole."""

import os
import signal
import threading
import time
from typing import Any

import pytest
import torch

from magbench.errors import StoreError
from magbench.runners.pool import Death, Pool, WorkerSpec

SPEC = WorkerSpec("tests.unit.pool_worker:make", "hello")


def test_tasks_are_shared_and_workers_kept() -> None:
    heard: list[Any] = []
    with Pool(SPEC, 2) as pool:
        pool.run(["a", "b", "c"], heard.append)
        pool.run(["d"], heard.append)
    assert sorted(task for _, task, _, _ in heard) == ["a", "b", "c", "d"]
    assert len({pid for _, _, pid, _ in heard}) <= 2
    assert os.getpid() not in {pid for _, _, pid, _ in heard}
    assert {(setup, threads) for setup, _, _, threads in heard} == {("hello", 1)}


def test_a_killed_worker_is_told_and_replaced() -> None:
    heard: list[Any] = []
    with Pool(SPEC, 1) as pool:
        pool.run(["die", "leave", "a"], heard.append)
    assert heard[:2] == [Death("die", signal.SIGKILL), Death("leave", signal.SIGTERM)]
    assert [message[1] for message in heard[2:]] == ["a"]


def test_errors_made_on_purpose_come_through(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoreError, match="disk full") as caught, Pool(SPEC, 1) as pool:
        pool.run(["refuse", "a"], print)
    assert caught.value.hint == "free some space"
    with pytest.raises(RuntimeError, match="a worker ended with code 1"), Pool(SPEC, 1) as pool:
        pool.run(["crash"], print)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_leaving_stops_a_busy_worker() -> None:
    threading.Timer(4, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match=r"^$"), Pool(SPEC, 1) as pool:
        pool.run(["sleep"], print)
    assert time.monotonic() - start < 30


def test_without_workers_it_works_here() -> None:
    threads, heard = torch.get_num_threads(), list[Any]()
    try:
        with Pool(SPEC, 0) as pool:
            pool.run(["a"], heard.append)
    finally:
        torch.set_num_threads(threads)
    assert heard == [("hello", "a", os.getpid(), 1)]
