"""What each cache policy adds to plain attention, and what it holds.

    python -m tests.benchmarks.policies [--size toy] [--methods fifo memrope:window=9] [--chunks 6] [--repeats 9]

Plain attention is the same transformer in the same passes over as many keys, whose past is one fixed tensor of keys,
already rotated, and one of values per layer; each pass puts them before its own. It has no cache, no sampler and no
trace: all that the rollout does beside the transformer counts for the policy. Drawing noise, and what CausVid decodes
and encodes, counts for neither. On a CPU, time is CPU time of one thread, so that other programs disturb it less.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from magbench.cli import console
from magbench.registry import load_object
from magbench.runners.methods import METHODS, parse_method
from magbench.runners.policies.base import CachePolicy, Geometry
from magbench.runners.rollout import Rollout, Step, Writer
from magbench.runners.wan.configs import CHUNK_FRAMES, CONFIGS
from magbench.runners.wan.rope import Rope, rotate
from magbench.runners.wan.sampler import FewStepSampler, OdeSampler, Sampler
from magbench.runners.wan.transformer import Attend, CausalWanTransformer, attention
from tests.benchmarks.released import ReleasedMemRope

RELEASED = "memrope, released loop"
FILL, FILL_UNBOUNDED, WARM_UP = 24, 7, 2
"""Chunks of given history before the clock runs, as many for policies without a budget, and generated ones."""


@dataclass(frozen=True)
class Size:
    config: str
    latent: tuple[int, int]
    sampler: Sampler
    device: str = "cpu"
    dtype: torch.dtype = torch.float32


SIZES = {
    "toy": Size("toy", (8, 12), FewStepSampler()),
    "mini": Size("mini", (8, 8), OdeSampler(10, 3.0)),
    "wan": Size("wan2.1-1.3b", (60, 104), FewStepSampler(), "cuda", torch.bfloat16),
}
INSTEAD = {"mini": {"rolling-forcing": "rolling-forcing:window=33"}}
"""Ten steps need a window of ten chunks."""


@dataclass(frozen=True)
class Pass:
    """One pass of a rollout, to be run again with plain attention."""

    latents: Tensor
    timesteps: Sequence[float]
    writer: Writer | None
    past: int
    """Past tokens."""
    own_frames: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One line of a table; bytes are the most at any time."""

    label: str
    passes: float
    """Per chunk."""
    frames: float
    """Of keys per pass, the chunk's own included."""
    ratios: list[float]
    cache: int
    state: int
    network: int
    peak: int
    """On a GPU all that is allocated beside weights; on a CPU what stands between passes: K, V, rotated K and state."""
    latents: Tensor
    """What the repeated chunks were, for a comparison."""


class Bench:
    """A transformer of random weights, and rollouts of it."""

    def __init__(self, size: Size) -> None:
        self.size = size
        torch.manual_seed(0)
        torch.set_num_threads(1)
        config = CONFIGS[size.config]
        with torch.device(size.device):
            self.model = CausalWanTransformer(config).to(size.dtype).eval().requires_grad_(False)
        text = self._random(1, config.text_len, config.text_dim)
        self.text = self.model.encode_text(text)
        self.second = Writer(deepcopy(self.model), self.model.encode_text(torch.zeros_like(text)))
        self.noise = self._random(1, CHUNK_FRAMES, config.in_channels, *size.latent)
        self.given = self._random(1, FILL * CHUNK_FRAMES, config.in_channels, *size.latent)
        rows, cols = (side // step for side, step in zip(size.latent, config.patch[1:], strict=True))
        self.geometry = Geometry(1, config.heads, Rope(config.head_dim, rows, cols), size.dtype, size.device)

    def start(self, policy: CachePolicy) -> tuple[Rollout, Iterator[Step]]:
        """A rollout with a full cache, and the chunks that it is about to make."""
        run: Rollout = load_object(policy.rollout)(
            self.model,
            policy,
            self.size.sampler,
            self.text,
            lambda chunk, step: self.noise,
            self.size.latent,
            memory=self.second if policy.writer == "memory" else None,
            reencode=lambda latents: latents[:, :1],
        )
        fill = FILL_UNBOUNDED if policy.budget is None else FILL
        for _ in run.history(self.given[:, : fill * CHUNK_FRAMES]):
            pass
        made = run.generate(10**6)
        for _ in range(WARM_UP):
            next(made)
        return run, made

    def plain(self, passes: Sequence[Pass]) -> Callable[[Pass], object]:
        """Runs a pass with plain attention."""
        most, shape = max(one.past for one in passes), self.geometry.empty().shape
        layers = range(self.model.config.layers)
        past = [[self._random(1, most, *shape[2:]) for _ in range(2)] for _ in layers]

        def run(one: Pass) -> Tensor:
            network, text = (self.model, self.text) if one.writer is None else (one.writer.network, one.writer.text)
            times = torch.tensor(one.timesteps, dtype=torch.float32, device=self.size.device)[None]
            flow: Tensor = network(one.latents, times, text, self._attend(past, one))
            return flow

        return run

    def _attend(self, past: list[list[Tensor]], one: Pass) -> Attend:
        table = self.geometry.rope.grid(one.own_frames, self.size.device)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = (x[:, : one.past] for x in past[layer])
            keys = torch.cat([keys, rotate(k, table)], dim=1)
            return attention(rotate(q, table), keys, torch.cat([values, v], dim=1))

        return attend

    @torch.inference_mode()
    def measure(self, label: str, policy: CachePolicy, chunks: int, repeats: int) -> Row:
        """Chunks of the policy and of plain attention in turn, the same ones in each repeat."""
        steps, passes, peak = self._record(policy, chunks)
        flat = [one for chunk in passes for one in chunk]
        plain = self.plain(flat)
        plain(flat[0])
        ratios = []
        for repeat in range(repeats):
            _, made = self.start(policy)
            spent = [0.0, 0.0]
            for index, chunk in enumerate(passes):
                both = (lambda made=made: next(made), lambda chunk=chunk: [plain(one) for one in chunk])
                for side in (0, 1) if (index + repeat) % 2 else (1, 0):
                    spent[side] += self._seconds(both[side])
            ratios.append(spent[0] / spent[1])
        seen = sum(one.past / self.geometry.tokens_per_frame + len(one.own_frames) for one in flat)
        traces = [step.trace for step in steps]
        return Row(
            label,
            len(flat) / chunks,
            seen / len(flat),
            ratios,
            max(trace.cache_bytes for trace in traces),
            max(trace.state_bytes for trace in traces),
            max(trace.network_bytes for trace in traces),
            peak,
            torch.cat([step.latents for step in steps], dim=1),
        )

    def _record(self, policy: CachePolicy, chunks: int) -> tuple[list[Step], list[list[Pass]], int]:
        """Some chunks, their passes, and the most bytes held on the way."""
        cuda = self.size.device == "cuda"
        before = torch.cuda.memory_allocated() if cuda else 0
        run, made = self.start(policy)
        real, passes, peak = run._flow, [], 0

        def flow(latents: Tensor, timesteps: Sequence[float], writer: Writer | None = None) -> Tensor:
            nonlocal peak
            out = real(latents, timesteps, writer)
            seen = run.attention
            passes[-1].append(Pass(latents, timesteps, writer, seen.past_tokens, seen.shown.own_frames))
            peak = max(peak, held_bytes(seen))
            return out

        run._flow = flow  # type: ignore[method-assign]
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        steps = []
        for _ in range(chunks):
            passes.append([])
            steps.append(next(made))
        return steps, passes, torch.cuda.max_memory_allocated() - before if cuda else peak

    def _seconds(self, call: Callable[[], object]) -> float:
        start = self._now()
        call()
        return self._now() - start

    def _now(self) -> float:
        if self.size.device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.size.device, dtype=self.size.dtype)


def held_bytes(thing: Any) -> int:
    """Bytes of all tensor storages that can be reached from `thing`, each counted once, rotation tables left out."""
    found: dict[int, int] = {}
    todo, seen = [thing], set()
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, Geometry | CachePolicy):
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            if not one.is_complex():
                found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        elif isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, list | tuple | set):
            todo += one
        else:
            todo += [vars(one)] if hasattr(one, "__dict__") else []
    return sum(found.values())


def table(name: str, methods: Sequence[str], chunks: int, repeats: int) -> Iterator[str]:
    """Lines of Markdown."""
    size = SIZES[name]
    if size.device == "cuda" and not torch.cuda.is_available():
        yield f"{name}: needs a GPU, and there is none."
        return
    bench = Bench(size)
    machine = torch.cuda.get_device_name() if size.device == "cuda" else "CPU, one thread"
    yield f"{name}: {machine}, {size.dtype}, torch {torch.__version__}, {chunks} chunks, {repeats} repeats"
    yield ""
    yield "| method | passes | frames | time / plain | K and V | other state | second network | peak |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    rows = {}
    for spec in methods:
        bound = None if spec == RELEASED else parse_method(INSTEAD.get(name, {}).get(spec, spec))
        label, policy = (spec, ReleasedMemRope()) if bound is None else (bound.label, bound.policy)
        row = rows[spec] = bench.measure(label, policy, chunks, repeats)
        spread = f"{median(row.ratios):.2f} ({min(row.ratios):.2f}-{max(row.ratios):.2f})"
        sizes = " | ".join(amount(count) for count in (row.cache, row.state, row.network, row.peak))
        yield f"| {row.label} | {row.passes:.3g} | {row.frames:.3g} | {spread} | {sizes} |"
    if "memrope" in rows and RELEASED in rows:
        difference = (rows["memrope"].latents - rows[RELEASED].latents).abs().max()
        yield ""
        yield f"Latents of memrope and of its released loop differ by at most {difference:.1e}."


def amount(count: int) -> str:
    unit = next(power for power in (3, 2, 1) if count >= 1000 * 1024 ** (power - 1) or power == 1)
    return f"{count / 1024**unit:.3g} {'KMG'[unit - 1]}iB" if count else "-"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.policies", description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, nargs="+", default=[*SIZES])
    parser.add_argument(
        "--methods", nargs="+", default=[*METHODS, RELEASED], help=f"as `magbench run`, or {RELEASED!r}"
    )
    parser.add_argument(
        "--chunks", type=int, default=6, help="per repeat; CausVid's rollouts have 6, Deep Forcing compresses every 2"
    )
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    for name in options.size:
        for line in table(name, options.methods, options.chunks, options.repeats):
            console.say(line)
        console.say()


if __name__ == "__main__":
    main()
