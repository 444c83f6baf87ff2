"""Memory and time of scoring the same content at growing lengths.

    python -m tests.benchmarks.engine [--seconds 30 300 3600] [--size 832x480] [--metrics NAME ...]

A synthetic clip is made on the spot and looped by copying its packets, so that a longer video differs in nothing but
its length. Each length is scored in a fresh process by all metrics of the constant memory class that need no weights
and nothing but frames, in one decode. Time is CPU time of one thread, so that other programs disturb it less.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from magbench.cli import console
from magbench.data.video import Frame, VideoReader, video_ref, write_video
from magbench.metrics import METRICS, engine
from magbench.records import CaseRecord, MethodRecord, SampleRecord, Timing

FPS = 16
LOOP = 10
"""Seconds of the clip that is looped."""
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engine", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, nargs="+", default=[30, 300, 3600], help=f"multiples of {LOOP}")
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--metrics", nargs="+", default=constant_metrics())
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        json.dump(measure(options.child, options.metrics), sys.stdout)
        return
    width, height = map(int, options.size.split("x"))
    console.say(f"{options.size}, {FPS} fps, one thread: {', '.join(options.metrics)}")
    console.say()
    console.say("| length | file | peak above the loaded metrics | CPU s per minute of video | decoding |")
    console.say("|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_video(clip, scenery(FPS * LOOP, width, height), FPS, "preview")
        for seconds in options.seconds:
            video = Path(folder) / f"{seconds}.mkv"
            loop(clip, video, seconds // LOOP)
            found = in_fresh_process(video, options.metrics)
            console.say(
                f"| {seconds} s | {video.stat().st_size / MIB:.0f} MiB | {found['peak'] / MIB:.0f} MiB "
                f"| {60 * found['all'] / seconds:.1f} | {found['decoding'] / found['all']:.0%} |"
            )
            video.unlink()


def constant_metrics() -> list[str]:
    """Default metrics of the constant class that need frames and nothing else."""
    found = {name: METRICS[name] for name in METRICS if name.endswith("@default")}
    return [
        name
        for name, metric in found.items()
        if metric.memory == "constant"
        and metric.needs.frames
        and not (metric.needs.features or metric.needs.truth or metric.needs.trace)
    ]


def scenery(frames: int, width: int, height: int) -> Iterator[Frame]:
    """A textured panorama that a camera pans over and back, so that the end meets the start, with a little noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, : 2 * width]
    panorama = np.zeros((height, 2 * width, 3))
    for _ in range(40):
        down, right, turn = rng.uniform(0, 30), rng.integers(0, 60), rng.uniform(0, 1)
        panorama += np.cos(2 * np.pi * (down * y / height + right * x / width / 2 + turn))[..., None] * rng.normal(
            size=3
        )
    panorama = 128 + 20 * panorama / panorama.std()
    for index in range(frames):
        at = round(width / 2 * (1 - np.cos(2 * np.pi * index / frames)))
        noisy = panorama[:, at : at + width] + rng.normal(0, 2, (height, width, 3))
        yield np.clip(noisy, 0, 255).astype(np.uint8)


def loop(clip: Path, to: Path, times: int) -> None:
    """Write the clip several times in a row, by copying packets."""
    with av.open(str(to), "w", format="matroska") as target:
        stream: Any = None
        for turn in range(times):
            with av.open(str(clip)) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.dts is None:
                        continue
                    shift = round(turn * LOOP / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    target.mux(packet)


def in_fresh_process(video: Path, metrics: Sequence[str]) -> dict[str, float]:
    """What `measure` finds in a process that has done nothing else."""
    command = [sys.executable, "-m", "tests.benchmarks.engine", "--child", str(video), "--metrics", *metrics]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(video: Path, metrics: Sequence[str]) -> dict[str, float]:
    """Score a video: CPU seconds in all and of decoding, and peak bytes above what the process held before."""
    sample = SampleRecord(
        key="clip",
        case=CaseRecord(id="clip", track="videos"),
        method=MethodRecord(label="clip", policy="file", applicability="external"),
        model="",
        seed=0,
        status="ok",
        video=(ref := video_ref(video)),
        timing=Timing(chunk_borders=tuple(range(9, ref.frames, 12)), latent_borders=tuple(range(1, ref.frames, 4))),
    )
    classes = [METRICS[name] for name in metrics]
    for path in {path for metric in classes for path in metric.needs.features}:
        engine._extractor(path, "cpu")
    spent = 0.0

    class Clocked(VideoReader):
        def __iter__(self) -> Iterator[tuple[float, Frame]]:
            nonlocal spent
            frames = super().__iter__()
            while True:
                start = time.process_time()
                item = next(frames, None)
                spent += time.process_time() - start
                if item is None:
                    return
                yield item

    engine.open_video = Clocked  # type: ignore[assignment]
    before, start = resident(), time.process_time()
    records = engine.score(sample, video.parent, [], metrics)
    seconds = time.process_time() - start
    if wrong := [f"{record.name}: {record.reason}" for record in records if record.state != "value"]:
        raise SystemExit("\n".join(wrong))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"all": seconds, "decoding": spent, "peak": peak - before}


def resident() -> int:
    """Bytes of memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
