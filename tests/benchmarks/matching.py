"""All pairs of generated and truth frames: one pass per frame and a matrix product, against the released algorithm.

    python -m tests.benchmarks.matching [--frames 48 96] [--size 480x832] [--rows 1] [--repeats 3]

The released scorer of MAG-Bench (Xilluill/MAG, revision 08008c6) gives each generated frame and the whole truth to
`lpips.LPIPS(spatial=True)`: N + 1 frame passes for each of N generated frames. All of that is alike, so only some
generated frames are timed, and the time is scaled up. Ours is timed whole. Both run in turn on the same float32 frames,
with random AlexNet weights: time does not depend on them, and the distances are compared.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import lpips
import torch
from torch import Tensor
from torchvision.models import alexnet

from magbench.cli import console
from magbench.metrics.backbones import AlexNetLPIPS, lpips_heads
from magbench.metrics.matching import Layers, pairwise


def networks() -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Layers]]:
    """The package's distance, and our features; the same random weights."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, about the arguments that lpips gives it
        package = lpips.LPIPS(net="alex", pnet_rand=True, spatial=True, verbose=False).eval()
    trunk = alexnet()
    trunk.features.load_state_dict(
        dict(zip(trunk.features.state_dict(), package.net.state_dict().values(), strict=True))
    )
    backbone = AlexNetLPIPS(trunk.state_dict(), lpips_heads(), "cpu")

    def released(frame: Tensor, truth: Tensor) -> Tensor:
        found: Tensor = package(*(images(frames) for frames in (frame, truth))).mean((1, 2, 3))
        return found

    return released, lambda frames: backbone.layers(images(frames))


def images(frames: Tensor) -> Tensor:
    return frames.permute(0, 3, 1, 2).float().div(127.5).sub(1)


@dataclass(frozen=True)
class Took:
    """Seconds of one call, and what it found."""

    wall: float
    cpu: float
    found: Tensor


def timed(call: Callable[[], Tensor]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return Took(time.perf_counter() - wall, time.process_time() - cpu, found)


@torch.inference_mode()
def table(counts: Sequence[int], size: tuple[int, int], rows: int, repeats: int) -> Iterator[str]:
    """Lines of Markdown."""
    released, features = networks()
    threads = torch.get_num_threads()
    yield f"{size[0]}x{size[1]}, float32, torch {torch.__version__}, CPU, {threads} threads, {repeats} repeats"
    yield ""
    yield "| frames | passes: released, ours | released: one row | all rows | ours | wall ratio | CPU ratio | apart |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for count in counts:
        dice = torch.Generator().manual_seed(count)
        truth, generated = (torch.randint(256, (count, *size, 3), generator=dice).byte() for _ in range(2))

        def theirs(chosen: list[int], generated: Tensor = generated, truth: Tensor = truth) -> Tensor:
            return torch.stack([released(generated[i, None], truth) for i in chosen])

        def ours(generated: Tensor = generated, truth: Tensor = truth) -> Tensor:
            return pairwise(features, generated, truth, size)

        runs, apart = [], 0.0
        for repeat in range(repeats):
            chosen = [(repeat * rows + row) % count for row in range(rows)]
            one, other = timed(lambda chosen=chosen: theirs(chosen)), timed(ours)
            apart = max(apart, float((other.found[chosen] - one.found).abs().max()))
            runs.append((one.wall / rows, other.wall, one.cpu / rows, other.cpu))
        row, own = (median(run[i] for run in runs) for i in (0, 1))
        wall, cpu = (spread([count * run[i] / run[i + 1] for run in runs]) for i in (0, 2))
        passes = f"{count * (count + 1)}, {2 * count}"
        cells = (f"{count} × {count}", passes, f"{row:.1f} s", f"{row * count / 60:.1f} min", f"{own:.1f} s", wall, cpu)
        yield f"| {' | '.join(cells)} | {apart:.0e} |"


def spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.matching", description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[48, 96])
    parser.add_argument("--size", default="480x832", help="height x width")
    parser.add_argument("--rows", type=int, default=1, help="generated frames timed with the released algorithm")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    for line in table(options.frames, (height, width), options.rows, options.repeats):
        console.say(line)


if __name__ == "__main__":
    main()
