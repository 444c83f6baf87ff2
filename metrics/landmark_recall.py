"""Do the landmarks come back? The headline of the mag-bench track on the mini world."""

from dataclasses import dataclass

import torch

from magbench.data.mini_world import COLOURS, SHAPES, SIZE, World
from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.judge import CELL, COLUMNS, Reading
from magbench.metrics.mini_case import not_mini, world_of
from magbench.records import Series

WINDOW = 12
"""Frames: the largest cache of the mini suite."""
CHUNK = 3
"""Frames generated together."""
HIDDEN = WINDOW + CHUNK
"""Frames a landmark must have been out of sight, so that no cache of WINDOW frames held it when its return was
generated."""
READABLE = 0.75
"""Share of a landmark's pixels inside the frame and not behind the walker from which it counts as in view."""

Sighting = tuple[int, int, int, int]
"""Landmark (its number in the world), column of 8 pixels, colour (index into COLOURS), shape (index into SHAPES)."""


@dataclass(frozen=True)
class Expected:
    """What one generated frame owes.

    Args:
        due: Remembered landmarks that are in view.
        free: Columns more than one column away from any landmark of the truth, however little of it is in view.
    """

    due: tuple[Sighting, ...]
    free: frozenset[int]


def forgotten(world: World, history: int, frames: int) -> frozenset[int]:
    """Numbers of the landmarks that only a memory can bring back; the same for every method, since no cache is asked.

    They were readable in the history but not in its first WINDOW frames (a sink would hold those as they are), then
    wholly out of sight for at least HIDDEN frames until they return after the history.

    Args:
        world: The truth.
        history: Frames given.
        frames: Frames in all.
    """
    shares = [{world.landmarks.index(view.landmark): view.visible for view in world.visible(t)} for t in range(frames)]
    found = set()
    for number in range(len(world.landmarks)):
        seen = [t for t, share in enumerate(shares) if number in share]
        before = [t for t in seen if t < history]
        after = [t for t in seen if t >= history]
        if not before or not after or before[0] < WINDOW or after[0] - before[-1] - 1 < HIDDEN:
            continue
        if max(shares[t][number] for t in before) >= READABLE:
            found.add(number)
    return frozenset(found)


def expectations(world: World, history: int, frames: int) -> list[Expected]:
    """What each frame after the history owes; see `Expected`."""
    wanted = forgotten(world, history, frames)
    answer = []
    for t in range(history, frames):
        due, taken = [], set[int]()
        for view in world.visible(t):
            column = int(view.screen_x // CELL)
            taken |= {column - 1, column, column + 1}
            number = world.landmarks.index(view.landmark)
            if number in wanted and view.visible >= READABLE and 0 <= view.screen_x < SIZE:
                colour, shape = COLOURS.index(view.landmark.colour), SHAPES.index(view.landmark.shape)
                due.append((number, column, colour, shape))
        answer.append(Expected(tuple(due), frozenset(range(COLUMNS)) - taken))
    return answer


class LandmarkRecall(Metric):
    """Share of the forgotten landmarks that reappear with the right colour and shape in the right place.

    `recall` (the headline): a landmark scores the share of the frames it is due in in which the judge reads a landmark
    of its colour and shape at most one column of 8 pixels (one latent cell) from its own; then the mean over landmarks.
    Due are the landmarks of `forgotten`, in frames of the truth that show at least 75 % of them: one cut by the frame's
    edge or behind the walker is neither asked for nor held against the video. `false_alarm`: of the columns more than
    one column away from any landmark of the truth, the share in which the judge reads one. `landmarks`: how many were
    due.

    The series is the share of due landmarks read right over time, at the frames where any is due.

    The judge errs too. It has a reject class and is never used in training; on 2,000 rendered frames of other worlds
    it missed no landmark in view, misread none, and claimed none in an empty column; blurred, noisy or recoloured, it
    missed 0.1 %. What it does to the truth of a case is the `real` row of every table.
    Blind to: everything that isn't a landmark; what a method remembers beyond its window in cases that are away for
    less.
    """

    name = "landmark_recall"
    profile = "mini"
    title = "Forgotten landmarks that reappear with the right colour, shape and place"
    clock = "every frame after the given history"
    needs = Needs(features=("magbench.metrics.mini_judge:reading",))
    memory = "frame"
    reductions = (
        Declared("recall", "higher", "", 0, 1),
        Declared("false_alarm", "lower", "", 0, 1),
        Declared("landmarks", "none", "", 0),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """Work out what is due; not applicable to other videos than mini's, and where no landmark is."""
        super().start(info)
        sample = info.sample
        world = world_of(sample.case)
        if reason := not_mini(info):
            return reason
        if isinstance(world, NotApplicable):
            return world
        if not sample.history_frames:
            return NotApplicable("there is no given history (mag-bench track only)")
        self._expected = expectations(world, sample.history_frames, sample.case.frames)
        if not any(frame.due for frame in self._expected):
            return NotApplicable(f"no landmark comes back after at least {HIDDEN} frames out of sight")
        self._hits: dict[int, list[bool]] = {}
        self._times: list[float] = []
        self._shares: list[float] = []
        self._claimed = self._free = self._frames = 0
        return None

    def update(self, item: Clip) -> None:
        """Read the clip's frames and compare."""
        reading: Reading = item.feature(self.needs.features[0])
        for i, time in enumerate(item.times):
            index = item.first + i - self.info.sample.history_frames
            if index >= len(self._expected):
                break
            self._compare(time, self._expected[index], reading.landmarks(i))

    def _compare(self, time: float, expected: Expected, read: list[tuple[int, int, int]]) -> None:
        self._frames += 1
        self._free += len(expected.free)
        self._claimed += len(expected.free & {column for column, _, _ in read})
        hits = [
            any(abs(at - column) <= 1 and (of, form) == (colour, shape) for at, of, form in read)
            for _, column, colour, shape in expected.due
        ]
        for sighting, hit in zip(expected.due, hits, strict=True):
            self._hits.setdefault(sighting[0], []).append(hit)
        if hits:
            self._times.append(time)
            self._shares.append(sum(hits) / len(hits))

    def finish(self) -> Scores | NotApplicable:
        """Average over frames, then over landmarks."""
        if self._frames < len(self._expected):
            return NotApplicable(
                f"the video ends after {self._frames} of {len(self._expected)} frames of the continuation"
            )
        shares = torch.tensor([sum(hits) / len(hits) for hits in self._hits.values()])
        return Scores(
            {
                "recall": float(shares.mean()),
                "false_alarm": self._claimed / self._free if self._free else NotApplicable("no column is free"),
                "landmarks": len(self._hits),
            },
            (Series(name="recall", times=tuple(self._times), values=tuple(self._shares)),),
        )
