"""Thresholds of coherence horizons, from the `real` rows of a run: `python docs/horizon_thresholds.py RUN [RULE ...]`.

For every series that doesn't follow the camera: the distribution over cases of the largest and of the smallest 5 s mean
of a real or ground truth video. A threshold at the 95 % quantile calls one in twenty of them lost. With rules, as a
suite has them: for each row, how many of its videos they call lost.
"""

import sys
from pathlib import Path

import numpy as np

from magbench.horizon import CAMERA_DEPENDENT, Duration, parse, window_means
from magbench.reports.curves import Entry, origin
from magbench.reports.horizons import durations_of
from magbench.store import RunStore


def main() -> None:
    """Print."""
    store, rules = RunStore.open(Path(sys.argv[1])), sys.argv[2:]
    entries = [Entry(s, {m.name: m for m in store.metrics(s.key)}, ()) for s in store.samples()]
    for track in sorted({entry.sample.case.track for entry in entries}):
        mine = [entry for entry in entries if entry.sample.case.track == track]
        print(f"{track}: 5 s means of the `real` row, quantiles over cases")
        print(
            f"{'':48}{'cases':>6}{'largest 50 %':>13}{'95 %':>7}{'100 %':>7}{'smallest 50 %':>15}{'5 %':>7}{'0 %':>7}"
        )
        for name, (largest, smallest) in extremes(mine).items():
            cells = [*np.quantile(largest, (0.5, 0.95, 1)), *np.quantile(smallest, (0.5, 0.05, 0))]
            text = "".join(f"{cell:{width}.3f}" for cell, width in zip(cells, (13, 7, 7, 15, 7, 7), strict=True))
            print(f"{name:48}{len(largest):6}{text}")
        for rule in map(parse, rules):
            print(f"\n{rule}: videos lost, frozen, and held until 5 s before their end; seconds, the mean")
            by_row: dict[str, list[Duration]] = {}
            for place, found in durations_of(mine, rule).items():
                by_row.setdefault(mine[place].sample.method.label, []).append(found)
            for label, durations in by_row.items():
                endings = [sum(d.ending == ending for d in durations) for ending in ("lost", "frozen", "censored")]
                print(
                    f"  {label:46}{''.join(f'{n:6}' for n in endings)}{np.mean([d.seconds for d in durations]):8.1f} s"
                )


def extremes(entries: list[Entry]) -> dict[str, tuple[list[float], list[float]]]:
    """Series -> the largest and the smallest 5 s mean of each real video."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for entry in entries:
        if entry.sample.method.label != "real":
            continue
        for record in entry.metrics.values():
            for series in record.series:
                if series.axis == "time" and record.metric not in CAMERA_DEPENDENT:
                    means = window_means(np.array(series.times) - origin(entry.sample), series.values)[1]
                    if len(means):
                        largest, smallest = found.setdefault(f"{record.name}/{series.name}", ([], []))
                        largest.append(float(means.max()))
                        smallest.append(float(means.min()))
    return found


if __name__ == "__main__":
    main()
