"""The picture at the top of the README, from a finished run: `python docs/readme_figure.py runs/mini-all`.

Left: one leave-and-return case after the switch, ground truth above the methods. Right: a mean curve of the
long-horizon track with its 95 % band.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from magbench import reports
from magbench.data.mini_world import Frame
from magbench.data.video import open_video
from magbench.records import SampleRecord
from magbench.reports import plots
from magbench.store import RunStore

METHODS = ("full", "fifo", "longlive", "memrope", "deep-forcing", "mag")
"""Families that the picture shows; the report has all."""
FRAMES, CHART = 8, 5
"""Columns of the picture: frames of each video, then the chart."""


def main() -> None:
    """Write docs/result.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--case", default="return-06-00")
    parser.add_argument("--panel", default="appearance_drift@default · drift")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "result.png")
    options = parser.parse_args()
    store = RunStore.open(options.run)
    report = reports.load(store)
    track = next(track for track in report.tracks if track.name == "long-horizon")
    panel = next(panel for panel in track.panels if panel.title == options.panel)
    look = plots.styles(report)
    samples = {sample.method.label: sample for sample in store.samples() if sample.case.id == options.case}
    rows = ["real", *(label for name in METHODS for label in report.labels if label.partition(":")[0] == name)]
    rows = [label for label in rows if label in samples and samples[label].method.family in ("", *METHODS)]
    panel = replace(panel, curves=tuple(curve for curve in panel.curves if curve.label in rows))
    with plots.plotting():
        figure = Figure(figsize=(10.0, 0.72 * len(rows) + 0.35))
        space = {"wspace": 0.04, "hspace": 0.06, "left": 0.15, "right": 0.99, "top": 0.89, "bottom": 0.13}
        grid = figure.add_gridspec(len(rows), FRAMES + CHART, **space)
        for row, label in enumerate(rows):
            for column, frame in enumerate(_frames(store, samples[label])):
                ax = figure.add_subplot(grid[row, column])
                ax.imshow(frame, interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
                if not column:
                    name = "ground truth" if label == "real" else samples[label].method.family
                    ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8, color=look[label].color)
                if not row and not column:
                    ax.set_title(f"{options.case}: back at a scene left behind", fontsize=8, loc="left")
        ax = figure.add_subplot(grid[:, FRAMES + 1 :])
        plots.draw_curves(ax, panel, look)
        ax.set_title("appearance drift, lower is better", fontsize=8, loc="left")
        ax.set_xlabel("seconds", fontsize=8, labelpad=1)
        ax.set_ylim(0, None)
        options.out.write_bytes(plots.png(figure, dpi=170))


def _frames(store: RunStore, sample: SampleRecord) -> list[Frame]:
    """Evenly spaced frames after the given history."""
    if sample.video is None:
        raise SystemExit(f"{sample.key} has no video: {sample.reason}")
    with open_video(store.sample_dir(sample.key) / sample.video.path) as reader:
        frames = [frame for _, frame in reader][sample.history_frames :]
    return [frames[round(i * (len(frames) - 1) / (FRAMES - 1))] for i in range(FRAMES)]


if __name__ == "__main__":
    main()
