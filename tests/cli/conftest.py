"""A suite small enough to run in seconds, and a way to call the command line."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from magbench.cli import main

WALK = (
    "A walker in a red coat and a tall blue hat crosses a meadow under a clear sky, while the camera pans right slowly."
)
BACK = WALK.replace("slowly", "and comes back")

SUITE = f"""
name: tiny
version: 1
model: mini
baselines: [fifo]
tracks:
  long-horizon:
    frames: 15
    metrics: [ssim_consecutive@default, motion@default]
    cases:
      - {{id: a, world_seed: 7, prompt: "{WALK}"}}
      - {{id: b, world_seed: 8, prompt: "{WALK.replace("red", "blue")}"}}
  mag-bench:
    references: [real, static]
    metrics: [retention@default]
    cases:
      - id: back
        world_seed: 9
        history_frames: 12
        frames: 18
        path: {{speed: 4.0, lead_in: 3, arrive: 3, leave: 2, away: 4}}
        prompt: "{BACK}"
"""
SAMPLES = 2 * 5 + 4


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Invoke = Callable[..., Outcome]


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Call `magbench` in this process."""

    def call(*words: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit, match=r"\d+") as end:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(int(str(end.value.code)), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small suite."""
    path = tmp_path_factory.mktemp("suite") / "tiny.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="session")
def finished(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of it, from first to last in this process. Not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.raises(SystemExit, match="0"):
        main(["run", "--method", "memrope", "--suite", str(suite), "--workers", "0", "--out", str(out)])
    return out


def fingerprint(run: Path) -> dict[str, str]:
    """Hash of every file that has to come out the same: pixels, scores, results. Not times."""
    files = [run / "results.json", *run.glob("samples/*/video.mkv"), *run.glob("samples/*/sample.json")]
    files += run.glob("samples/*/metrics/[!.]*.json")  # a kill may leave a temporary file, which nothing reads
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)}
