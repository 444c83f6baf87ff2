"""Kill a long video anywhere: the same command goes on inside it, and its bytes are those of a run nobody killed."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from magbench.cli import main
from magbench.runners import generate, reel
from magbench.runners.models import MODELS
from tests.cli.conftest import WALK, Invoke, fingerprint
from tests.tiny_model import TINY

SUITE = f"""
name: long-tiny
version: 1
model: tiny
tracks:
  long-horizon:
    frames: 120
    references: []
    metrics: [motion@default]
    cases:
      - {{id: a, world_seed: 7, prompt: "{WALK}", schedule: [{{at: 5, prompt: "{WALK.replace("red", "pink")}"}}]}}
      - {{id: b, world_seed: 8, prompt: "{WALK}", schedule: [{{at: 5, prompt: "{WALK.replace("blue", "black")}"}}]}}
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", TINY)
    monkeypatch.setattr(reel, "PART_FRAMES", 12)


def saved(run: Path) -> dict[str, Any]:
    """What the state says of itself; empty where there is none."""
    for path in run.glob(f"work/*/{reel.STATE}"):
        with safe_open(path, "pt") as file:
            found: dict[str, Any] = json.loads(file.metadata()["about"])
            return found
    return {}


def kill_when(condition: Callable[[], bool], words: list[str]) -> None:
    process = multiprocessing.get_context("fork").Process(target=main, args=(words,))
    process.start()
    end = time.monotonic() + 120
    while not condition():
        assert process.is_alive() and time.monotonic() < end
        time.sleep(0.002)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")
def test_kill_inside_a_video(tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, run, whole = tmp_path / "suite.yaml", tmp_path / "run", tmp_path / "whole"
    suite.write_text(SUITE)
    words = ["run", "--method", "memrope", "--no-baselines", "--suite", str(suite), "--workers", "0"]
    assert invoke(*words, "--out", whole).code == 0
    assert not (whole / "work").exists()
    to_run = [*words, "--out", str(run)]

    kill_when(lambda: saved(run).get("done", 0) >= 24, to_run)
    first = saved(run)
    kill_when(lambda: saved(run)["done"] >= first["done"] + 36, to_run)
    second = saved(run)
    assert second["parts"][: len(first["parts"])] == first["parts"], "none was made again: its time would be another"
    kill_when(lambda: any(run.glob("samples/*/.*video.mkv")), to_run)
    assert saved(run)["done"] == 120

    monkeypatch.setattr(generate, "begin", lambda *_: pytest.fail("all of it is there"))
    assert invoke(*to_run).code == 0
    assert fingerprint(run) == fingerprint(whole)
    assert not (run / "work").exists()
