"""Memory of a long run, sampled from outside: is it the same at 60 s, 240 s and an hour?

    python -m tests.benchmarks.long --seconds 3600 --out DIR [--method memrope] [--kill 1] [--tiny] [--every 5]

Takes one case of that length of the suite `long`, runs `magbench run` on it with one worker, and adds up the resident
memory of the processes. With `--kill N` everything is killed (SIGKILL) that many times, each time when about as many
more parts of the rollout lie on disk, and the same command goes on. `--tiny` puts the model of the tests, whose weights
are random, in the place of `mini`, and scores what needs no weights: an hour then takes minutes.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from magbench.cli import console
from magbench.cli import main as magbench
from magbench.data.mini_world import FPS
from magbench.runners.models import MODELS
from magbench.runners.reel import PART_FRAMES
from magbench.suite import load_suite
from tests.tiny_model import TINY


@dataclass
class Peak:
    """Most MiB seen in a stage, and for how long it was sampled."""

    mib: float = 0.0
    seconds: float = 0.0


def one_case(seconds: int, path: Path, tiny: bool) -> None:
    """Write the suite with the first case of this length, without reference rows."""
    suite = load_suite("long").model_dump(mode="json", exclude_defaults=True)
    track = suite["tracks"]["long-horizon"]
    track["cases"] = [case for case in track["cases"] if case["frames"] == seconds * FPS][:1]
    if not track["cases"]:
        raise SystemExit(f"the suite long has no case of {seconds} s")
    track["references"] = []
    if tiny:
        track["metrics"], track["primary"] = ["appearance_drift@default", "efficiency@default"], []
        suite["model"] = TINY.name
    path.write_text(yaml.safe_dump(suite | {"name": f"long-{seconds}s", "version": 1}))


def tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from tree(int(child))


def resident(pids: Iterator[int]) -> float:
    """MiB in memory; a page that processes share counts once, in shares."""
    found = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        found += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return found / 1024


def stage(run: Path) -> str:
    """What the run is doing, as its files tell."""
    if any(run.glob("samples/*/sample.json")):
        return "score, report"
    if any(run.glob("samples/*/video.mkv")):
        return "preview"
    return "encode" if any(run.glob("samples/*/.*video.mkv")) else "generate"


def parts(run: Path) -> int:
    """Parts of the rollout on disk."""
    return len(list(run.glob("work/*/part-*")))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--method", default="memrope")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=float, default=5.0)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    suite = options.out.with_suffix(".yaml")
    one_case(options.seconds, suite, options.tiny)
    command = [sys.executable, "-m", __spec__.name if options.tiny else "magbench", "run", "--suite", str(suite)]
    command += ["--method", options.method, "--no-baselines", "--workers", "0" if options.tiny else "1"]
    command += ["--out", str(options.out)]
    whole = options.seconds * FPS // PART_FRAMES
    deaths = [whole * (number + 1) // (options.kill + 1) for number in range(options.kill)]
    peaks: dict[str, Peak] = {}
    start = time.monotonic()
    process = subprocess.Popen(command)
    while process.poll() is None:
        time.sleep(options.every)
        now, mib = stage(options.out), resident(tree(process.pid))
        peak = peaks.setdefault(now, Peak())
        peak.mib, peak.seconds = max(peak.mib, mib), peak.seconds + options.every
        console.note(f"{time.monotonic() - start:7.0f} s  {now:<14} {parts(options.out):4d} parts  {mib:6.0f} MiB")
        if deaths and parts(options.out) >= deaths[0]:
            deaths.pop(0)
            for pid in [*tree(process.pid)]:
                os.kill(pid, signal.SIGKILL)
            process.wait()
            console.note("killed; the same command again")
            process = subprocess.Popen(command)
    for name, peak in peaks.items():
        console.say(f"{options.seconds} s, {name}: at most {peak.mib:.0f} MiB, {peak.seconds:.0f} s")
    raise SystemExit(process.returncode)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        MODELS[TINY.name] = TINY
        magbench(sys.argv[1:])
    else:
        main()
