"""Frames against the prompt of their time, with embeddings whose cosines are known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from magbench.data.video import video_ref, write_video
from magbench.metrics import engine
from magbench.metrics.base import Clip, Extractor, Info, NotApplicable, Scores
from magbench.metrics.laion import TOWER
from magbench.metrics.text_alignment import TextAlignment
from magbench.records import CaseRecord, SampleRecord, Switch, Timing
from tests.unit.clips import numbers, pan, reason, sample


class Towers(Extractor):
    """Prompts are axes; the picture leans towards them as the time says."""

    def __init__(self, axes: Sequence[str], leaning: Any, cut: int = 0) -> None:
        self.axes, self.leaning, self.cut = list(axes), leaning, cut

    def __call__(self, clip: Clip) -> Tensor:
        cosines = torch.tensor([self.leaning(time) for time in clip.times], dtype=torch.float64)
        rest = (1 - cosines.square().sum(1, keepdim=True)).sqrt()
        return (torch.cat([cosines, rest], 1) * 7).float()

    def texts(self, prompts: Sequence[str]) -> Tensor:
        return torch.eye(len(self.axes) + 1)[[self.axes.index(prompt) for prompt in prompts]] * 3

    def tokens_cut(self, prompt: str) -> int:
        return self.cut * (len(prompt) > 20)


def case(*prompts: str, at: Sequence[float] = (), borders: tuple[int, ...] = ()) -> SampleRecord:
    schedule = tuple(Switch(at=time, prompt=prompt) for time, prompt in zip(at, prompts[1:], strict=True))
    return sample(
        case=CaseRecord(id="clip", track="videos", prompt=prompts[0], schedule=schedule),
        timing=Timing(switch_borders=borders),
    )


def scored(
    record: SampleRecord, towers: Towers, seconds: float, fps: int = 8, chunk: int = 7
) -> Scores | NotApplicable:
    metric, count = TextAlignment(), round(seconds * fps)
    if refused := metric.start(Info(record, fps, count, 8, 8)):
        return refused
    for first in range(0, count, chunk):
        times = tuple(index / fps for index in range(first, min(first + chunk, count)))
        metric.update(Clip(first, times, torch.zeros(len(times), 8, 8, 3, dtype=torch.uint8), None, {TOWER: towers}))
    return metric.finish()


@pytest.mark.parametrize(("fps", "chunk"), [(8, 7), (24, 64), (2, 1)])
def test_windows_of_a_falling_similarity(fps: int, chunk: int) -> None:
    """34 s are three windows: the rest of 4 s is too short for one of its own."""
    towers = Towers(["a cat"], lambda time: (0.3 - 0.005 * time,))
    answer = scored(case("a cat"), towers, 34, fps, chunk)
    found = numbers(answer)
    assert isinstance(answer, Scores)
    assert [series.name for series in answer.series] == ["window", "frame"]
    assert answer.series[0].times == pytest.approx([0, 10, 20])
    middles = [0.005 * (start + length / 2 - 0.25) for start, length in ((0, 10), (10, 10), (20, 14))]
    assert answer.series[0].values == pytest.approx([0.3 - fall for fall in middles], abs=1e-6)
    assert found["worst_window"] == pytest.approx(0.3 - middles[-1], abs=1e-6)
    assert found["similarity"] == pytest.approx(0.3 - 0.005 * 33.5 / 2, abs=1e-6)
    assert found["slope"] == pytest.approx(-0.3, abs=1e-5)
    assert found["tokens_cut"] == 0
    assert "no frame follows a switch" in reason(answer, "switch_gain")
    assert answer.warnings == ()


def test_a_rest_of_more_than_half_a_window_is_one() -> None:
    answer = scored(case("a cat"), Towers(["a cat"], lambda _: (0.2,)), 26)
    assert isinstance(answer, Scores)
    assert answer.series[0].times == pytest.approx([0, 10, 20])


@pytest.mark.parametrize(("borders", "acts"), [((), 12.0), ((108,), 13.5)])
def test_each_frame_is_held_to_the_prompt_of_its_time(borders: tuple[int, ...], acts: float) -> None:
    """0.3 to its own prompt and 0.1 to the other, from where the switch acts: the model's border, else the schedule."""
    towers = Towers(["a cat", "a dog"], lambda time: (0.3, 0.1) if time < acts else (0.1, 0.3))
    answer = scored(case("a cat", "a dog", at=[12], borders=borders), towers, 24)
    found = numbers(answer)
    assert isinstance(answer, Scores)
    assert found["similarity"] == pytest.approx(0.3, abs=1e-6)
    assert found["switch_gain"] == pytest.approx(0.2, abs=1e-6)
    assert answer.series[0].times == pytest.approx([0, acts])
    assert "the prompt switches" in reason(answer, "slope")


def test_a_video_that_ignores_the_switch_loses() -> None:
    towers = Towers(["a cat", "a dog"], lambda _: (0.3, 0.1))
    found = numbers(scored(case("a cat", "a dog", at=[10]), towers, 20))
    assert found["similarity"] == pytest.approx(0.2, abs=1e-6)
    assert found["worst_window"] == pytest.approx(0.1, abs=1e-6)
    assert found["switch_gain"] == pytest.approx(-0.2, abs=1e-6)


def test_a_video_that_ends_before_the_switch_has_one_prompt() -> None:
    answer = scored(case("a cat", "a dog", at=[30]), Towers(["a cat", "a dog"], lambda _: (0.3, 0.1)), 20)
    assert numbers(answer)["slope"] == pytest.approx(0, abs=1e-5)
    assert "no frame follows a switch" in reason(answer, "switch_gain")


def test_a_cut_prompt_is_counted_and_warned_of() -> None:
    long = "a cat and " * 20
    answer = scored(case("a cat", long, at=[5]), Towers(["a cat", long], lambda _: (0.1, 0.1), cut=9), 10)
    assert numbers(answer)["tokens_cut"] == 9
    assert isinstance(answer, Scores)
    assert "the last 9 were not compared" in answer.warnings[0]


def test_without_a_prompt_it_is_not_applicable() -> None:
    towers = Towers(["a cat"], lambda _: (0.1,))
    assert "not known" in reason(scored(case(" "), towers, 4))
    assert "no generated frames" in reason(scored(case("a cat"), towers, 0))


def test_the_warning_of_a_metric_arrives_in_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.mkv", pan(8), 8)
    long = "a cat and " * 20
    monkeypatch.setattr(engine, "_extractor", lambda path, device: Towers([long], lambda _: (0.25,), cut=9))
    record = case(long).model_copy(update={"video": video_ref(tmp_path / "v.mkv", tmp_path)})
    (found,) = engine.score(record, tmp_path, [], ["text_alignment@default"])
    assert found.reductions[0].value == pytest.approx(0.25, abs=1e-6)
    assert ["were not compared" in warning for warning in found.warnings] == [True]
    assert np.isfinite(found.series[0].values).all()
