"""The measured part of mini's model card, from finished runs.

    magbench run --suite mini-card --method full --method fifo --no-baselines --out runs/card
    magbench run --suite mini-minute --method memrope --method longlive --out runs/minute
    python docs/mini_card.py --card runs/card --minute runs/minute

With more than one `--card`, the others are of other training seeds: their ranks are compared with the first one's.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

import magbench
from magbench import reports
from magbench.reports import plots
from magbench.results import Results
from magbench.runners.mini.model import load_mini
from magbench.runners.mini.train_vae import held_out_psnr
from magbench.stats import Difference, Estimate, case_means, mean_estimate, paired_difference
from magbench.store import RunStore

CARD = Path(__file__).parents[1] / "runners" / "mini" / "MODEL_CARD.md"
START, END = "<!-- measured: docs/mini_card.py -->", "<!-- end of measured -->"
SHOWN = "subject_identity@mini/shown@3s"
RECALL, ALIGNED = "landmark_recall@mini/recall", "retention@default/aligned_psnr"
LOOKED_AT = {
    *(f"walk-{i:02d}" for i in range(16)),
    *(f"return-{away:02d}-{first + i:02d}" for first, away in ((0, 6), (16, 12), (32, 24), (48, 48)) for i in range(4)),
}
"""Cases of `mini-card` that were seen while the shipped model was being trained: they don't count."""
SLOTS = ("body", "hat_colour", "hat_shape")
PANELS = ("subject_identity@mini · prompted attributes", "appearance_drift@default · drift")
FIGURE = Path(__file__).parent / "mini_minute.png"
WALKS = ("subject_identity@mini/all", "subject_consistency@mini/consistency", "appearance_drift@default/drift")


def cases(results: Results, method: str, endpoint: str, stratum: str = "") -> dict[str, float]:
    """Case -> mean over seeds of one endpoint (`metric@profile/reduction`) of one method."""
    metric, _, reduction = endpoint.partition("/")
    found: dict[str, list[float]] = {}
    for sample in results.samples:
        case, looked_at = sample.case, results.run.suite == "mini-card" and sample.case.id in LOOKED_AT
        if sample.method.label != method or looked_at or stratum not in ("", case.stratum):
            continue
        for record in results.metrics[sample.key]:
            values = [r.value for r in record.reductions if (record.name, r.name) == (metric, reduction)]
            found.setdefault(case.id, []).extend(value for value in values if value is not None)
    return case_means(found)


def average(values: Mapping[str, float]) -> float:
    """Mean over cases."""
    return sum(values.values()) / len(values)


def mean(values: Mapping[str, float], digits: int) -> str:
    """Mean over cases with its interval."""
    estimate = mean_estimate(list(values.values()))
    return f"{estimate.value:.{digits}f}{interval(estimate, digits)}"


def interval(estimate: Estimate | Difference, digits: int) -> str:
    """` [low, high]`, or nothing where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def difference(a: Mapping[str, float], b: Mapping[str, float], digits: int) -> str:
    """Mean paired difference with interval and p."""
    found = paired_difference(a, b)
    p = "" if found.p is None else f", p {'< 0.001' if found.p < 0.001 else f'= {found.p:.3f}'}"
    return f"{found.value:+.{digits}f}{interval(found, digits)} over {found.n} cases{p}"


def first_seconds(results: Results) -> list[str]:
    """How many prompts show their walker."""
    method = results.run.methods[0]
    lines = []
    for name, endpoint in (
        ("videos that show the prompted walker: coat, hat colour and hat shape right in most of the first 3 s", SHOWN),
        *((f"frames with the prompted {slot.replace('_', ' ')}", f"subject_identity@mini/{slot}") for slot in SLOTS),
    ):
        values = cases(results, method, endpoint)
        lines.append(f"| {name} | {100 * average(values):.0f} % of {len(values)} |")
    return lines


def memory(results: Results) -> list[str]:
    """Leave and return: full against fifo, and against a held frame."""
    recall = {m: cases(results, m, RECALL) for m in ("full", "fifo", "static", "shuffled", "real")}
    aligned = {m: cases(results, m, ALIGNED) for m in ("full", "fifo", "static", "shuffled")}
    lines = ["| | landmark recall | aligned PSNR, dB |", "|---|---|---|"]
    lines += [f"| {m} | {mean(recall[m], 3)} | {mean(aligned[m], 2)} |" for m in ("full", "fifo", "static", "shuffled")]
    lines.append(f"| real (what the judge reads of the truth) | {mean(recall['real'], 3)} | |")
    lines.append(
        f"| full − fifo | {difference(recall['full'], recall['fifo'], 3)} "
        f"| {difference(aligned['full'], aligned['fifo'], 2)} |"
    )
    lines.append(
        f"| full − last frame held | {difference(recall['full'], recall['static'], 3)} "
        f"| {difference(aligned['full'], aligned['static'], 2)} |"
    )
    strata = sorted({s.case.stratum for s in results.samples if s.case.track == "mag-bench"})
    lines += ["", "| " + " | ".join(("", *strata)) + " |", "|---" * (len(strata) + 1) + "|"]
    for method in ("full", "fifo"):
        found = [(cases(results, method, RECALL, s), cases(results, method, ALIGNED, s)) for s in strata]
        cells = [f"{average(recalls):.2f}, {average(psnrs):.1f} dB" for recalls, psnrs in found]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def minute(results: Results) -> list[str]:
    """The 60 s rollouts, each policy beside the rendered truth."""
    lines = ["| | " + " | ".join(f"`{endpoint}`" for endpoint in WALKS) + " |", "|---|---|---|---|"]
    for method in (*results.run.methods, "real", "static", "shuffled"):
        values = [cases(results, method, endpoint) for endpoint in WALKS]
        if all(values):
            lines.append(f"| {method} | {' | '.join(mean(v, 3) for v in values)} |")
    return lines


def ranks(runs: Sequence[Results], endpoint: str) -> str:
    """The methods in the order of their means, one order per run."""
    orders = []
    for results in runs:
        means = {m: v for m in results.run.methods if (v := cases(results, m, endpoint))}
        sign = -1 if "drift" in endpoint else 1
        order = sorted(means, key=lambda m: -sign * average(means[m]))
        orders.append(", ".join(f"{m} {average(means[m]):.3g}" for m in order))
    return "; ".join(f"seed {i}: {order}" for i, order in enumerate(orders))


def draw(run: Path) -> None:
    """The drift curves of the 60 s rollouts, with 95 % bands."""
    report = reports.load(RunStore.open(run))
    look = plots.styles(report)
    panels = {panel.title: panel for panel in report.tracks[0].panels}
    with plots.plotting():
        figure = Figure(figsize=(9.0, 3.2), layout="constrained")
        for ax, title in zip(figure.subplots(1, 2), PANELS, strict=True):
            plots.draw_curves(ax, panels[title], look)
            ax.set_title(title, fontsize=8, loc="left")
            ax.set_xlabel("seconds", fontsize=8)
            ax.set_ylim(0, None)
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=7, frameon=False)
        FIGURE.write_bytes(plots.png(figure, dpi=150))


def main() -> None:
    """Rewrite the card's measured part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", type=Path, action="append", required=True)
    parser.add_argument("--minute", type=Path, action="append", required=True)
    options = parser.parse_args()
    card = [magbench.load(path) for path in options.card]
    long = [magbench.load(path) for path in options.minute]
    lines = [START, "", "| what | value |", "|---|---|"]
    lines.append(f"| VAE round trip, unseen worlds | {held_out_psnr(load_mini().vae):.1f} dB PSNR |")
    lines += [*first_seconds(card[0]), "", *memory(card[0]), "", *minute(long[0]), ""]
    lines += ["![Drift over 60 s, with bands; grey: the rendered truth](../../docs/mini_minute.png)", ""]
    draw(options.minute[0])
    if len(card) > 1:
        lines += ["Orders of the means, per training seed (the shipped weights are of seed 0):", ""]
        for endpoint, runs in ((RECALL, card), (ALIGNED, card), *((endpoint, long) for endpoint in WALKS)):
            lines.append(f"* `{endpoint}`: {ranks(runs, endpoint)}")
        for i, results in enumerate(card):
            lines.append(f"* seed {i} shows the prompted walker: {first_seconds(results)[0].split('|')[2].strip()}")
    lines += ["", END]
    text = CARD.read_text(encoding="utf-8")
    before, rest = text.split(START)
    CARD.write_text(before + "\n".join(lines) + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
