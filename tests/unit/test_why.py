"""The figure and table of diagnostics, from records whose numbers are known."""

import io

import numpy as np
import pytest
from PIL import Image

from magbench.records import ChunkWhy, MethodRecord, MethodWhy, Reduction, RunRecord, VideoWhy, WhyRecord
from magbench.reports.plots import plotting, png, svg
from magbench.reports.tables import markdown
from magbench.reports.why import captions, why_grid, why_rows
from magbench.reports.why_figure import why_figure

RUN = RunRecord(
    magbench_version="0",
    kind="why",
    suite="mini",
    suite_version=1,
    model="mini",
    resolved={"frames": {"long-horizon": [30]}, "model": "no evidence about anything"},
)


def method(label: str, budget: float | None, applicability: str = "in-distribution") -> MethodRecord:
    policy = label.partition(":")[0]
    return MethodRecord(label=label, policy=policy, family=label, budget_frames=budget, applicability=applicability)


def effects(border: float, update: float | None) -> tuple[Reduction, ...]:
    none = Reduction(name="update_effect", state="not_applicable", reason="the policy never re-arranged its cache")
    found = none if update is None else Reduction(name="update_effect", state="value", value=update)
    return Reduction(name="border_effect", state="value", value=border), found


def window(case: int) -> VideoWhy:
    """A past of 9 frames; new tokens get three times the attention of old ones in the second half, as much before."""
    chunks = []
    for index in range(10):
        new = 3 if index >= 5 else 1
        mass = {"recent": 6 * 0.05, "newly cached": 3 * 0.05 * new}
        chunks.append(
            ChunkWhy(
                first_frame=3 * index,
                overlap=None if index < 2 else 0.25 if index < 5 else 0.75,
                ages=(1.0, 0, 0, 0, 0, 0, 0) if index < 5 else (0.25, 0.75, 0, 0, 0, 0, 0),
                keys={"recent": 0.5, "newly cached": 0.25, "own": 0.25},
                mass={**mass, "own": 1 - sum(mass.values())},
            )
        )
    ssim = {"chunk": 0.8 + case / 100, "other": 0.8 + case / 100, "latent": 0.9}
    return VideoWhy(case=f"c{case}", seed=0, chunks=tuple(chunks), ssim=ssim, effects=effects(-0.1 + case / 100, None))


def chosen(case: int) -> VideoWhy:
    """Every second chunk chooses: half of the tokens again, which get a fifth of what a new one gets."""
    chunks = []
    for index in range(10):
        keys = {"sink": 0.5, "chosen before": 0.1, "newly chosen": 0.1, "newly cached": 0.1, "own": 0.2}
        mass = {"sink": 0.2, "chosen before": 0.05, "newly chosen": 0.25, "newly cached": 0.1, "own": 0.4}
        chunks.append(
            ChunkWhy(
                first_frame=3 * index,
                overlap=None if index < 2 else 1.0,
                chosen_overlap=1 / 3 if index % 2 else None,
                chosen_chance=1 / 7 if index % 2 else None,
                ages=(0.5, 0, 0, 0, 0, 0.5, 0),
                keys=keys,
                mass=mass,
            )
        )
    ssim = {"chunk": 0.75, "other": 0.8, "update": 0.7, "latent": 0.9}
    return VideoWhy(case=f"c{case}", seed=0, chunks=tuple(chunks), ssim=ssim, effects=effects(-0.15, -0.1))


RECORD = WhyRecord(
    methods=(
        MethodWhy(method=method("fifo", 9), videos=tuple(map(window, range(7)))),
        MethodWhy(
            method=method("deep-forcing:keep=9,sink=4,window=12", 9, "training-free transfer"),
            videos=tuple(map(chosen, range(7))),
        ),
        MethodWhy(method=method("full", None), state="not_applicable", reason="its cache grows to 192 frames"),
        MethodWhy(method=method("mag", 9), state="error", reason="ConfigError: <the> model & none"),
    )
)


def test_numbers_are_those_of_the_second_half() -> None:
    fifo, forcing, *_ = why_rows(RECORD)
    assert fifo.overlap == tuple((3 * index, 0.25 if index < 5 else 0.75) for index in range(2, 10))
    assert fifo.numbers["overlap"].value == 0.75
    assert fifo.ages == (0.25, 0.75, 0, 0, 0, 0, 0)
    assert fifo.mass == pytest.approx({"recent": 0.3, "newly cached": 0.45, "own": 0.25})
    assert fifo.numbers["newly cached"].value == pytest.approx(3)
    assert fifo.numbers["other"].value == pytest.approx(-0.07)
    assert fifo.numbers["border_effect"].value == pytest.approx(-0.07)
    assert {"update", "update_effect", "newly chosen", "chosen_overlap"}.isdisjoint(fifo.numbers)
    assert fifo.reasons == {"update_effect": "the policy never re-arranged its cache"}
    assert forcing.numbers["chosen_overlap"].value == pytest.approx(1 / 3)
    assert [first for first, _ in forcing.chosen_overlap] == [3, 9, 15, 21, 27]
    assert forcing.numbers["newly chosen"].value == pytest.approx(5)
    assert forcing.numbers["newly cached"].value == pytest.approx((0.1 / 0.1) / (0.5 / 0.7))
    assert (forcing.numbers["update"].value, forcing.numbers["other"].value) == pytest.approx((-0.2, -0.1))


def test_seeds_are_averaged_within_a_case() -> None:
    again = window(3).model_copy(update={"seed": 1})
    one = WhyRecord(methods=(MethodWhy(method=method("fifo", 9), videos=(window(0), window(3), again)),))
    (row,) = why_rows(one)
    assert (row.numbers["other"].n, row.numbers["other"].value) == (2, pytest.approx(-0.085))


def test_table_says_what_is_missing_and_why() -> None:
    text = markdown(why_grid(why_rows(RECORD), RUN))
    lines = text.splitlines()
    fifo, forcing, full, mag = (next(line for line in lines if line.startswith(f"| {name}")) for name in (
        "fifo", "deep-forcing", "full", "mag"))  # fmt: skip
    assert "| -0.070<br><sub>" in fifo
    assert "| –<sup>1</sup> |" in fifo
    assert "-0.100" in forcing
    assert "†" in forcing
    assert "<sup>2</sup>" in full
    assert "<sup>3</sup>" in mag
    assert "not applicable: its cache grows to 192 frames" in text
    assert "error: ConfigError: &lt;the&gt; model &amp; none" in text
    assert "descriptive only below 10 cases" in text
    assert "no evidence about anything" in text


def test_what_is_drawn() -> None:
    rows = why_rows(RECORD)
    with plotting():
        figure = why_figure(rows, captions(rows, RUN))
        text = svg(figure)
    overlaps, ages, attention, ratios, seams = figure.axes
    fifo, forcing, again, chance = (line for line in overlaps.get_lines() if len(line.get_xdata()) > 2)
    assert list(fifo.get_xdata()) == list(forcing.get_xdata()) == list(range(6, 30, 3))
    assert np.diff(fifo.get_ydata()) == pytest.approx([0, 0, -0.76 / 2, 0, 0, 0, 0], abs=1e-9), "0.25 to 0.75"
    assert list(again.get_xdata()) == list(chance.get_xdata()) == [3, 9, 15, 21, 27]
    assert chance.get_ydata() - again.get_ydata() == pytest.approx(0.76 * (1 / 3 - 1 / 7))
    for ax, row, widths in ((ages, 0, (0.25, 0.75)), (attention, 0, (0.3, 0.45, 0.25))):
        found = [bar.get_width() for bar in ax.patches if row < bar.get_y() + bar.get_height() / 2 < row + 0.6]
        assert [width for width in found if 0 < width < 1] == pytest.approx(widths)
    dots = {(line.get_marker(), round(float(line.get_xdata()[0]), 3)) for line in ratios.get_lines()}
    assert {("o", 3.0), ("o", 1.4), ("D", 5.0)} <= dots
    dots = {(line.get_marker(), round(float(line.get_xdata()[0]), 3)) for line in seams.get_lines()}
    assert {("o", -0.07), ("o", -0.1), ("D", -0.2)} <= dots
    assert "error: ConfigError: &lt;the&gt; model &amp; none" in text
    assert "not applicable: its cache grows" in text
    assert "keep=9,sink=4,window=12" in text
    for sentence in captions(rows, RUN):
        assert sentence[:20] in text


def test_same_record_same_bytes() -> None:
    def draw() -> tuple[str, bytes]:
        rows = why_rows(RECORD)
        with plotting():
            figure = why_figure(rows, captions(rows, RUN))
            return svg(figure), png(figure)

    first, second = draw(), draw()
    assert first == second
    assert Image.open(io.BytesIO(first[1])).width > 1500


def test_a_record_of_failures_only_can_be_drawn() -> None:
    rows = why_rows(WhyRecord(methods=RECORD.methods[2:]))
    with plotting():
        assert svg(why_figure(rows, captions(rows, RUN))).startswith("<?xml")
