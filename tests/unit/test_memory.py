"""Memory classes: what a metric holds, and what becomes of one that holds too much."""

from collections import deque
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from magbench.data.video import video_ref, write_video
from magbench.errors import MagbenchError
from magbench.metrics import engine
from magbench.metrics.base import Clip, Declared, Extractor, Info, Metric, NotApplicable, Scores
from magbench.metrics.consecutive import Pairs
from magbench.metrics.engine import score
from magbench.metrics.memory import ALLOWANCE, FRAME_BYTES, PIXEL_BYTES, SERIES_BYTES, MemoryGuard, held_bytes
from magbench.metrics.ssim_consecutive import SSIMConsecutive
from tests.unit.clips import pan, sample

MB = 1_000_000
SLACK = 6000
"""Bytes of the objects around the numbers."""


class Weights(Extractor):
    def __init__(self) -> None:
        self.table = torch.zeros(MB)

    def __call__(self, clip: Clip) -> None: ...


class Slots:
    __slots__ = ("hidden",)

    def __init__(self) -> None:
        self.hidden = bytearray(MB)


def generator() -> Any:
    inside = np.zeros(MB, np.uint8)
    yield
    yield inside


def started() -> Any:
    running = generator()
    next(running)
    return running


BASE = np.zeros(MB, np.uint8)
TENSOR = torch.zeros(MB, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (np.zeros(MB, np.uint8), MB),
        (torch.zeros(MB // 4), MB),
        (b"x" * MB, MB),
        ("x" * MB, MB),
        ([[{"a": (bytes(MB),)}]], MB),
        (deque([torch.zeros(MB, dtype=torch.uint8)]), MB),
        ({"one": BASE, "same": BASE}, MB),
        ([BASE[5:7], BASE[:3].reshape(1, 3)], MB),
        ([TENSOR[0], TENSOR[1:3]], MB),
        ([TENSOR, TENSOR[4:].numpy()], MB),
        (torch.from_numpy(np.zeros(MB, np.uint8))[3:4], MB),
        (np.frombuffer(bytes(MB), np.uint8)[1:2], MB),
        (np.array([bytes(MB), None], dtype=object), MB),
        (memoryview(bytearray(MB)), MB),
        (partial(len, bytes(MB)), MB),
        (lambda held=bytes(MB): held, MB),
        (Slots(), MB),
        (started(), MB),
        ([float(i) for i in range(10_000)], 10_000 * 32),
        (Clip(0, (0.0,), torch.zeros(1, MB, 1, 1, dtype=torch.uint8), extractors={"x": Weights()}), MB),
        (nn.Linear(1000, 1000), 0),
        (Weights(), 0),
        (Slots, 0),
        (Info(sample(), 8.0, 1, 1, 1), 0),
    ],
)
def test_everything_held_is_found_once_and_nothing_else(thing: Any, expected: int) -> None:
    assert expected <= held_bytes([thing]) <= expected + SLACK


def test_what_refers_to_itself_is_no_problem() -> None:
    loop: list[Any] = [bytes(MB)]
    loop.append(loop)
    assert MB <= held_bytes(loop) < MB + SLACK


class Holds(Metric):
    """Keeps something of every frame."""

    name, title = "holds", "test"
    reductions = (Declared("frames"),)

    def start(self, info: Info) -> NotApplicable | None:
        self.frames = 0
        self.held: list[Any] = []
        return None

    def update(self, item: Clip) -> None:
        self.frames += len(item)
        self.keep(item)

    def keep(self, item: Clip) -> None: ...

    def finish(self) -> Scores:
        return Scores({"frames": float(self.frames)})


class HoldsPictures(Holds):
    name = "pictures"

    def keep(self, item: Clip) -> None:
        self.held.append({"deep": [item.frames]})


class HoldsOnePixel(Holds):
    """Means to keep a pixel, and keeps the chunk that it is a part of."""

    name = "one_pixel"

    def keep(self, item: Clip) -> None:
        self.held.append(item.frames[0, 0, 0, 0])


class HoldsFeatures(Holds):
    name, memory = "features", "frame"

    def keep(self, item: Clip) -> None:
        self.held.append(np.zeros((len(item), 1000), np.float32))


class HoldsTooLargeFeatures(Holds):
    name, memory = "large_features", "frame"

    def keep(self, item: Clip) -> None:
        self.held.append(np.zeros((len(item), 4000), np.float32))


class HoldsPairs(Holds):
    name, memory, memory_cap = "pairs", "pairs", 10 * MB

    def keep(self, item: Clip) -> None:
        self.held.append(np.zeros((len(item), 4000), np.float32))


class HoldsNumbers(Holds):
    name = "numbers"

    def keep(self, item: Clip) -> None:
        self.held += [(time, time + 1, time + 2) for time in item.times]


GOOD, BAD = (HoldsFeatures, HoldsPairs, HoldsNumbers), (HoldsPictures, HoldsOnePixel, HoldsTooLargeFeatures)


def test_who_breaks_its_class_is_an_error_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "METRICS", {f"{metric.name}@default": metric for metric in (*GOOD, *BAD)})
    write_video(tmp_path / "v.mkv", np.tile(pan(8), (75, 1, 1, 1)), 8)
    names = [f"{metric.name}@default" for metric in (*BAD, *GOOD)]
    records = score(sample(video=video_ref(tmp_path / "v.mkv")), tmp_path, [], names)
    for record in records[: len(BAD)]:
        assert record.state == "error"
        memory = "frame" if record.metric == "large_features" else "constant"
        assert f"memory class {memory!r} allows" in record.reason
        assert record.reason.startswith("it holds ")
        assert "\n" not in record.reason
        assert "declare the class that fits" in record.hint
    assert [record.reductions[0].value for record in records[len(BAD) :]] == [600.0] * len(GOOD)


def test_pairs_have_a_cap_of_their_own() -> None:
    metric = HoldsPairs()
    info = Info(sample(), 8.0, 0, 64, 48)
    metric.start(info)
    guard = MemoryGuard(metric, info)
    metric.held = [bytes(9 * MB)]
    guard.saw([i / 8 for i in range(1000)])
    metric.held.append(bytes(MB))
    with pytest.raises(MagbenchError, match="it holds 10 MB after 1000 frames, and memory class 'pairs'"):
        guard.weigh()


def test_limits_grow_with_frames_shown_and_not_with_those_announced() -> None:
    info = Info(sample(), 16.0, 10**6, 832, 480)
    for metric, each in ((HoldsNumbers(), SERIES_BYTES), (HoldsFeatures(), FRAME_BYTES)):
        metric.start(info)
        guard = MemoryGuard(metric, info)
        guard.saw([i / 16 for i in range(1000)])
        assert guard.limit == ALLOWANCE + PIXEL_BYTES * 832 * 480 * 5 + 1000 * each
        guard.saw([1000 / 16 + i / 128 for i in range(60)])
        burst = 17 + 2  # frames in an eighth of a second at 128 fps, both ends counted; the clip has 16
        assert guard.limit == ALLOWANCE + PIXEL_BYTES * 832 * 480 * burst + 1060 * each


def test_a_metric_is_weighed_often_and_all_looks_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    info = Info(sample(), 16.0, 0, 832, 480)
    metric = HoldsNumbers()
    metric.start(info)
    guard, looks = MemoryGuard(metric, info), list[int]()
    monkeypatch.setattr(guard, "weigh", lambda: looks.append(seen))
    seen = 0
    for _ in range(57_600 // 7):
        seen += 7
        guard.saw([(seen - 7 + i) / 16 for i in range(7)])
    assert looks[0] <= 40
    assert all(after <= 1.5 * before + 7 for before, after in pairwise(looks))
    assert sum(looks) < 3.1 * 57_600


def test_what_waits_for_its_partner_does_not_keep_its_chunk() -> None:
    pairs = Pairs[torch.Tensor](keep=torch.clone)
    for chunk in range(3):
        frames = torch.zeros(10, 10_000)
        pairs.add(10 * chunk, [(10 * chunk + i) / 16 for i in range(10)], list(frames))
    assert held_bytes(pairs) < 3 * 40_000 + SLACK
    loose = Pairs[torch.Tensor]()
    loose.add(0, [i / 16 for i in range(10)], list(torch.zeros(10, 10_000)))
    assert held_bytes(loose) > 10 * 40_000


def test_a_metric_that_failed_holds_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", pan(8), 8)
    run = engine._Run(SSIMConsecutive, sample(video=video_ref(tmp_path / "v.mkv")), [], "cpu")
    run.start(Info(run.sample, 8.0, 8, 64, 48))
    run.show(Clip(0, (0.0,), torch.from_numpy(pan(1))))
    assert held_bytes(run.metric) > 64 * 48 * 3
    run._failed(ValueError("no"))
    assert held_bytes(run.metric) < SLACK
