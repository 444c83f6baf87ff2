"""The example of docs/mag_bench.md: ten clips of the mini world to start from, and the table of the finished run.

python docs/mag_bench.py clips footage
magbench data build-mag footage -o clips --model mini
magbench run --clips clips --method memrope --method mag ... --out runs/clips
python docs/mag_bench.py table runs/clips
"""

import argparse
import csv
import random
from pathlib import Path

import magbench
from magbench.data.mag_clips import CAPTION, CATEGORY, DURATION, VIDEO
from magbench.data.mini_world import FPS, Scene, World
from magbench.data.video import write_video
from magbench.results import Results
from magbench.stats import case_means, mean_estimate

PAGE = Path(__file__).parent / "mag_bench.md"
START, END = "<!-- table: docs/mag_bench.py -->", "<!-- end of table -->"
CLIPS, FRAMES = 10, 24
FIRST_SEED = 6_000_000
"""World seeds of no suite and no training."""
COLUMNS = {
    "aligned PSNR, unheld": "retention@default/aligned_psnr@unheld",
    "aligned PSNR": "retention@default/aligned_psnr",
    "coverage PSNR": "retention@default/coverage_psnr",
    "best-match PSNR": "retention@mini/psnr",
    "matched share": "retention@mini/matched_share",
}


def clips(folder: Path) -> None:
    """Render clips of one camera motion each, and a CSV file with their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow((VIDEO, CAPTION, DURATION, CATEGORY))
        for index in range(CLIPS):
            side = ("left", "right")[index % 2]
            scene = Scene.draw(random.Random(f"magbench docs mag-bench {index}"), camera=f"pans {side} quickly")
            name = f"{side}-{index:02d}.mkv"
            write_video(folder / name, World(scene, FIRST_SEED + index).clip(FRAMES), FPS)
            lines.writerow((name, scene.sentence(), FRAMES / FPS, side))


def table(results: Results) -> str:
    """Means over clips with 95 % intervals, methods first, then the reference rows."""
    rows = dict.fromkeys((*results.run.methods, "static", "shuffled", "real"))
    lines = [f"| method | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows:
        cells = [_cell(results, row, endpoint) for endpoint in COLUMNS.values()]
        lines.append(f"| `{row}` | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(results: Results, label: str, endpoint: str) -> str:
    metric, _, reduction = endpoint.partition("/")
    values: dict[str, list[float]] = {}
    for sample in results.samples:
        if sample.method.label == label:
            found = [r for record in results.metrics[sample.key] if record.name == metric for r in record.reductions]
            values.setdefault(sample.case.id, []).extend(
                r.value for r in found if r.name == reduction and r.value is not None
            )
    known = case_means({case: each for case, each in values.items() if each})
    if not known:
        return "–"
    estimate = mean_estimate([*known.values()])
    clips = f", {len(known)} clips" if len(known) < len(values) else ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}{clips}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f}{clips})"


def main() -> None:
    """Render, or rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("clips").add_argument("folder", type=Path)
    commands.add_parser("table").add_argument("run", type=Path)
    given = parser.parse_args()
    if given.command == "clips":
        clips(given.folder)
        return
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    found = table(magbench.load(given.run))
    PAGE.write_text(f"{before}{START}\n\n{found}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
