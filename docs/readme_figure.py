"""The picture at the top of the README, from a finished run: `python docs/readme_figure.py runs/mini-memrope`.

One leave-and-return case after the switch, the truth above the methods, and one drift curve of the long-horizon track.
"""

import argparse
from pathlib import Path

from magbench import reports
from magbench.data.video import open_video
from magbench.records import SampleRecord
from magbench.reports import plots
from magbench.store import RunStore

FRAMES = 8
"""Frames shown of each video."""


def main() -> None:
    """Write docs/result.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--case", default="return-24-0")
    parser.add_argument("--panel", default="subject_identity@mini · prompted attributes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "result.png")
    options = parser.parse_args()
    store = RunStore.open(options.run)
    report = reports.load(store)
    long = next(track for track in report.tracks if track.name == "long-horizon")
    panel = next(panel for panel in long.panels if panel.title == options.panel)
    look = plots.styles(report)
    rows = ["real", *report.labels]
    samples = {s.method.label: s for s in store.samples() if s.case.id == options.case}
    with plots.plotting():
        figure = plots.drift_figure([panel], long.timeline, look)
        drift = plots.png(figure, dpi=250)
    options.out.write_bytes(_compose([_strip(store, samples[row]) for row in rows], rows, look, drift))
    print(options.out)


def _strip(store: RunStore, sample: SampleRecord) -> list[object]:
    """Frames after the given history, evenly spaced."""
    if sample.video is None:
        raise SystemExit(f"{sample.key} has no video: {sample.reason}")
    with open_video(store.sample_dir(sample.key) / sample.video.path) as reader:
        frames = [frame for _, frame in reader][sample.history_frames :]
    return [frames[round(i * (len(frames) - 1) / (FRAMES - 1))] for i in range(FRAMES)]


def _compose(strips: list[list[object]], rows: list[str], look: dict[str, plots.Style], drift: bytes) -> bytes:
    import io

    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image

    chart = np.asarray(Image.open(io.BytesIO(drift)).convert("RGB"))
    height = 3.0
    width = height * chart.shape[1] / chart.shape[0]
    cell = (height - 0.3) / len(strips)
    figure = Figure(figsize=(1.75 + FRAMES * cell + 0.15 + width, height), dpi=200)
    full_w, full_h = figure.get_size_inches()
    for r, (strip, label) in enumerate(zip(strips, rows, strict=True)):
        bottom = (height - 0.3 - (r + 1) * cell) / full_h
        name = "ground truth" if label == "real" else label
        figure.text(
            1.68 / full_w,
            bottom + cell / 2 / full_h,
            name,
            ha="right",
            va="center",
            fontsize=8,
            color=look[label].color if label != "real" else "#333333",
            family="DejaVu Sans",
        )
        for c, frame in enumerate(strip):
            ax = figure.add_axes(((1.75 + c * cell) / full_w, bottom, cell * 0.96 / full_w, cell * 0.96 / full_h))
            ax.imshow(frame, interpolation="nearest")
            ax.set_axis_off()
    title = "Leave a scene, come back: 2.6 s continued after 1 s to 6 s away"
    figure.text(1.75 / full_w, 1 - 0.2 / full_h, title, fontsize=8, color="#333333", family="DejaVu Sans")
    ax = figure.add_axes((1 - width / full_w, 0, width / full_w, 1))
    ax.imshow(chart)
    ax.set_axis_off()
    return plots.png(figure, dpi=200)


if __name__ == "__main__":
    main()
