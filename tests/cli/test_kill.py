"""Kill it anywhere: the same command finishes it, and the result is that of a run nobody killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from magbench.store import RunStore
from tests.cli.conftest import SAMPLES, Invoke, fingerprint

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120


def generated(run: Path) -> list[Path]:
    return [p for p in run.glob("samples/*") if ".fifo." in p.name or ".memrope." in p.name]


def generating(run: Path) -> bool:
    """The first task, rendering the real rows, is done: a batch is being sampled."""
    reals = list(run.glob("samples/*.real.*/metrics/[!.]*.json"))
    return len(reals) == 2 * 2 + 1


def writing(run: Path) -> bool:
    """The first generated video of the first batch is being written."""
    return bool(generated(run))


def between_video_and_record(run: Path) -> bool:
    return any((p / "video.mkv").exists() and not (p / "sample.json").exists() for p in generated(run))


def scoring(run: Path) -> bool:
    return any((p / "sample.json").exists() and not (p / "metrics").exists() for p in generated(run))


def start(run: Path, suite: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "magbench", "run", "--method", "memrope", "--suite", str(suite)]
    command += ["--workers", "1", "--out", str(run)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            pytest.fail("never came to that point")
        time.sleep(0.002)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes through /proc")
def test_kill_it_anywhere(suite: Path, finished: Path, tmp_path: Path, invoke: Invoke) -> None:
    run = tmp_path / "run"
    for point in (generating, between_video_and_record, scoring):
        process = start(run, suite)
        wait_for(lambda point=point, process=process: point(run) or process.poll() is not None)
        assert process.poll() is None, f"over before it was {point.__name__}: {process.communicate()[1]}"
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        wait_for(lambda workers=workers: all(gone(pid) for pid in workers))
        samples = RunStore.open(run).samples()
        assert len(samples) < SAMPLES
        assert {sample.status for sample in samples} == {"ok"}

    process = start(run, suite)
    assert process.stderr is not None
    while "workers" not in process.stderr.readline():
        pass
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert f"continue with: magbench run --method memrope --suite {suite} --workers 1 --out {run}" in err

    assert invoke("run", "--method", "memrope", "--suite", suite, "--workers", "0", "--out", run).code == 0
    assert fingerprint(run) == fingerprint(finished)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes through /proc")
def test_a_killed_worker_costs_no_more_than_its_batch(
    suite: Path, finished: Path, tmp_path: Path, invoke: Invoke
) -> None:
    run = tmp_path / "run"
    process = start(run, suite)
    wait_for(lambda: writing(run) or process.poll() is not None)
    tracker, worker = sorted(children(process.pid))[:2]
    assert "resource_tracker" in Path(f"/proc/{tracker}/cmdline").read_text()
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 4, err
    assert "was killed by SIGKILL" in err or "scores are missing: a worker was killed" in err
    assert "fewer --workers" in err
    samples = RunStore.open(run).samples()
    assert len(samples) == SAMPLES
    assert sum(sample.status == "error" for sample in samples) <= 2
    words = ["run", "--method", "memrope", "--suite", suite, "--workers", "0", "--out", run]
    assert invoke(*words, "--existing", "redo-failed").code == 0
    assert fingerprint(run) == fingerprint(finished)


def test_sigterm_ends_a_run_like_ctrl_c(suite: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "run", suite)
    assert process.stderr is not None
    while "workers" not in process.stderr.readline():
        pass
    time.sleep(1)
    process.terminate()
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, err
    assert "error: interrupted; everything finished is kept\nhint: continue with: magbench run" in err
    assert RunStore.open(tmp_path / "run").run.status == "interrupted"
