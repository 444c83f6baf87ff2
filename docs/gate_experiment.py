"""How often the gate cries wolf, and how often it sees a planted fault: `python docs/gate_experiment.py OUT`.

Runs of memrope with seeds of their own are gated in disjoint pairs, then runs with a fault against runs without. Every
number comes from the package's own worker, metrics and gate; only the fault is put in from outside. Repeat the command
to continue. Margins are looked at on development seeds only (`--develop`), the measurement takes others.
"""

import argparse
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from magbench.data.mini_world import Frame
from magbench.data.video import video_ref, write_video
from magbench.gate import judge
from magbench.gate_policy import FingerprintRule, GatePolicy, load_policy
from magbench.options import RunOptions
from magbench.records import CaseRecord, RunRecord, VideoRef
from magbench.runners import execute, generate
from magbench.runners.methods import BoundMethod, parse_method
from magbench.runners.models import VideoModel, find_model
from magbench.runners.policies.base import CachePolicy, Chunk, Geometry, LayerCache, Past
from magbench.runners.prepare import Prepared, prepare
from magbench.runners.references import render, truth_frames
from magbench.runners.rollout import Rollout, Writer, begin
from magbench.runners.wan.sampler import renoise
from magbench.store import RunStore

METHOD, SUITE = "memrope", "mini-gate"
DEVELOPMENT, FRESH = 10_000, 20_000
"""First seed of either kind."""
NOISE = 0.5
"""Noise level of the pass that writes the cache, in the fault `cache written from a noisy pass`."""
LATE = 3
"""Frames by which queries and the chunk's own keys are shown too late, in the fault `queries shown late`."""
SOUND = "none"


# --- the faults --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Faulty(CachePolicy):
    """A policy that shows something else than it should."""

    inner: CachePolicy
    change: Callable[[Past, Geometry], Past]

    def layer(self, geometry: Geometry) -> LayerCache:
        return FaultyCache(self.inner.layer(geometry), geometry, self.change)

    @property
    def budget(self) -> int | None:
        return self.inner.budget


class FaultyCache(LayerCache):
    def __init__(self, cache: LayerCache, geometry: Geometry, change: Callable[[Past, Geometry], Past]) -> None:
        self.cache, self.geometry, self.change = cache, geometry, change

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        return self.change(self.cache.past(chunk, q, k), self.geometry)

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        self.cache.commit(chunk, q, k, v)

    @property
    def frames(self) -> float:
        return self.cache.frames

    @property
    def nbytes(self) -> int:
        return self.cache.nbytes


class NoisyRollout(Rollout):
    """Fills the cache from latents with noise on them, at that noise's timestep, instead of from clean ones."""

    def _flow(self, latents: Tensor, timesteps: Sequence[float], writer: Writer | None = None) -> Tensor:
        if not any(timesteps):
            noise = self.noise(self.frames // 3, 1000)
            return super()._flow(renoise(latents, noise, NOISE), [1000 * NOISE] * len(timesteps), writer)
        return super()._flow(latents, timesteps, writer)


def sink_zeroed(past: Past, geometry: Geometry) -> Past:
    cut = parse_method(METHOD).parameters["sink"] * geometry.tokens_per_frame
    keys, values = past.keys.clone(), past.values.clone()
    keys[:, :cut], values[:, :cut] = 0, 0
    return replace(past, keys=keys, values=values)


def shown_late(past: Past, geometry: Geometry) -> Past:
    return replace(past, own_frames=tuple(frame + LATE for frame in past.own_frames))


FAULTS: dict[str, tuple[Callable[[Past, Geometry], Past] | None, type[Rollout]]] = {
    "sink zeroed": (sink_zeroed, Rollout),
    f"queries shifted by {LATE}": (shown_late, Rollout),
    "cache written from a noisy pass": (None, NoisyRollout),
}


# --- one run -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    gates: int
    """Comparisons of sound runs, of disjoint seeds."""
    faulty: int
    """Gates per fault."""
    seeds: int
    """Seeds per run."""
    tracks: tuple[str, ...]


@dataclass(frozen=True)
class Set:
    """One run: a fault or none, and a set of seeds."""

    fault: str
    first: int
    """Its first seed."""


def prepared(root: Path, one: Set, size: Size) -> Prepared:
    seeds = tuple(range(one.first, one.first + size.seeds))
    name = f"{one.fault.replace(' ', '-')}-{one.first}"
    plan = prepare(
        RunOptions.parse(
            {"method": METHOD, "suite": SUITE, "no_baselines": True, "seeds": seeds, "track": size.tracks,
             "workers": 0, "device": "cpu", "out": root / "runs" / name}
        )
    )  # fmt: skip
    metrics = {track: tuple(dict.fromkeys(e.partition("/")[0] for e in ends)) for track, ends in
               plan.record.primary.items()}  # fmt: skip
    record = plan.record.model_copy(update={"resolved": {**plan.record.resolved, "metrics": metrics}})
    return replace(plan, record=record, setup=replace(plan.setup, metrics=metrics))


def make(root: Path, one: Set, size: Size) -> float:
    """Generate and score one run; keep records only. Returns seconds, 0 if it was there."""
    torch.set_num_threads(1)
    start = time.monotonic()
    work = prepared(root, one, size)
    if RunStore.exists(work.setup.root) and RunStore.open(work.setup.root).run.status == "complete":
        return 0.0
    store = RunStore.create(work.setup.root, work.record)
    change, loop = FAULTS.get(one.fault, (None, Rollout))

    def method(label: str) -> BoundMethod:
        bound = parse_method(label)
        return replace(bound, policy=Faulty(bound.policy, change)) if change else bound

    def begun(*arguments: Any) -> Rollout:
        rollout = begin(*arguments)
        rollout.__class__ = loop
        return rollout

    names: dict[tuple[ModuleType, str], object] = {
        (generate, "parse_method"): method,
        (generate, "begin"): begun,
        (generate, "truth_frames"): lambda case, seed, frames: truth_frames(case, 0, frames),
        (execute, "write_previews"): lambda *_: None,
        (execute, "truth_of"): lambda job, real: truth(root, job.case),
    }
    before = {(module, name): getattr(module, name) for module, name in names}
    try:
        for (module, name), value in names.items():
            setattr(module, name, value)
        worker = execute.Worker(work.setup)
        worker.generator.__dict__["model"] = model()
        for group in work.plan.groups():
            worker(execute.Task(group.jobs, (None,) * len(group.jobs)), lambda event: None)
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)
    bad = [s.reason for s in store.samples() if s.status != "ok"]
    bad += [m.reason for s in store.samples() for m in store.metrics(s.key) if m.state == "error"]
    if bad:
        raise RuntimeError(f"{one}: {bad[0]}")
    for video in store.root.glob("samples/*/video.mkv"):
        video.unlink()
    store.write_run(RunRecord.model_validate({**store.run.model_dump(), "status": "complete"}))
    return time.monotonic() - start


class Remembering:
    """A model that encodes each history, and decodes its whole blocks, once: all runs of a process share them."""

    def __init__(self, model: VideoModel) -> None:
        self._model = model
        self._encoded: dict[bytes, Tensor] = {}
        self._decoded: dict[bytes, Frame] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, frames: Frame) -> Tensor:
        key = _digest(frames)
        if key not in self._encoded:
            latents = self._encoded[key] = self._model.encode(frames)
            for block in torch.split(latents, execute.DECODE_FRAMES):
                if len(block) == execute.DECODE_FRAMES:
                    self._decoded[_digest(block.numpy())] = self._model.decode(block)
        return self._encoded[key]

    def decode(self, latents: Tensor) -> Frame:
        found = self._decoded.get(_digest(latents.numpy()))
        return self._model.decode(latents) if found is None else found

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Frame]:
        return map(self.decode, latents)


def _digest(values: npt.NDArray[Any]) -> bytes:
    return hashlib.sha256(values.tobytes()).digest()


@lru_cache
def model() -> Remembering:
    return Remembering(find_model("mini").load("cpu", "float32"))


def truth(root: Path, case: CaseRecord) -> VideoRef | None:
    """The rendered truth, written once for all runs; it doesn't depend on the seed."""
    if not case.history_frames:
        return None
    path = (root / "truth" / f"{case.id}.mkv").resolve()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{case.id}-{time.monotonic_ns()}.mkv")
        write_video(part, iter(render(case, 0)), 8, "lossless")
        part.replace(path)
    return video_ref(path)


def make_all(root: Path, sets: Sequence[Set], size: Size, workers: int) -> list[float]:
    """Make the runs that aren't there, on so many processes; 0 works in this one."""
    arguments = [(root, one, size) for one in sets]
    if not workers:
        return [make(*a) for a in arguments]
    took = []
    with get_context("spawn").Pool(workers) as pool:
        for done, seconds in enumerate(pool.imap_unordered(_make, arguments), 1):
            took.append(seconds)
            print(f"{done}/{len(arguments)} runs, {seconds:.0f} s", flush=True)
    return took


def _make(arguments: tuple[Path, Set, Size]) -> float:
    return make(*arguments)


# --- the gates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gated:
    """What one gate said."""

    fault: str
    baseline: int
    run: int
    verdict: str
    regressions: tuple[str, ...]
    """Endpoints."""
    better_by: dict[str, float]
    half: dict[str, float]
    """Half width of each interval."""


def gate(root: Path, size: Size, old: Set, new: Set, policy: GatePolicy) -> Gated:
    """Exactly `magbench gate` on two of the runs, without the fingerprint part."""
    a, b = (RunStore.open(prepared(root, one, size).setup.root) for one in (old, new))
    outcome = judge(
        b, a, policy.model_copy(update={"fingerprint": FingerprintRule(require=False)}), datetime.now(UTC).date()
    )
    tested = [c for c in outcome.checks if c.better_by is not None and c.low is not None and c.high is not None]
    return Gated(
        new.fault, old.first, new.first, outcome.verdict,
        tuple(c.endpoint for c in tested if c.verdict == "REGRESSION"),
        {c.endpoint: c.better_by for c in tested},
        {c.endpoint: (c.high - c.low) / 2 for c in tested},
    )  # fmt: skip


def pairs(size: Size, first: int) -> tuple[list[tuple[Set, Set]], list[tuple[Set, Set]]]:
    """Gates of sound runs, no run used twice; and of faulty runs, each against another sound one."""
    seed = [first + i * size.seeds for i in range(2 * size.gates + size.faulty * len(FAULTS))]
    sound = [(Set(SOUND, seed[2 * i]), Set(SOUND, seed[2 * i + 1])) for i in range(size.gates)]
    faulty = [
        (Set(SOUND, seed[i]), Set(fault, seed[2 * size.gates + i + k * size.faulty]))
        for k, fault in enumerate(FAULTS)
        for i in range(size.faulty)
    ]
    return sound, faulty


def upper_bound(hits: int, n: int, level: float = 0.95) -> float:
    """One-sided exact (Clopper-Pearson) upper bound of a share: the p at which <= hits of n has probability 1-level."""
    if hits == n:
        return 1.0
    low, high = hits / n, 1.0
    for _ in range(60):
        p = (low + high) / 2
        tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits + 1))
        low, high = (p, high) if tail > 1 - level else (low, p)
    return high


def lower_bound(hits: int, n: int, level: float = 0.95) -> float:
    """One-sided exact lower bound."""
    return 1 - upper_bound(n - hits, n, level)


def report(gated: Iterable[Gated], size: Size, policy: GatePolicy, first: int, seconds: float) -> str:
    """The section for the documentation."""
    found = list(gated)
    sound = [g for g in found if g.fault == SOUND]
    alarms = sum(g.verdict == "REGRESSION" for g in sound)
    bound = upper_bound(alarms, len(sound))
    verdicts = Counter(g.verdict for g in sound)
    counted = ", ".join(f"{name} {count}" for name, count in verdicts.most_common())
    lines = [
        f"{len(sound)} gates between runs of the same `{METHOD}`, no run used twice; then runs with a fault against",
        f"runs without, {size.faulty} gates per fault. Seeds per run: {size.seeds}, the first being {first}; tracks:",
        f"{' and '.join(size.tracks)}. Made in {seconds / 60:.0f} minutes of one core.",
        "",
        f"False alarms: **{alarms} of {len(sound)}** gates said REGRESSION. The exact upper 95 % bound of their share",
        f"is **{bound:.1%}**. All verdicts: {counted}.",
        "",
        "| planted fault | found | share | lower 95 % bound | by which endpoint |",
        "|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        those = [g for g in found if g.fault == fault]
        hits = sum(g.verdict == "REGRESSION" for g in those)
        by = Counter(endpoint for g in those for endpoint in g.regressions)
        told = ", ".join(f"`{endpoint}` {count}" for endpoint, count in by.most_common()) or "none"
        share = f"{hits / len(those):.0%} | {lower_bound(hits, len(those)):.0%}" if those else "- | -"
        lines.append(f"| {fault} | {hits} of {len(those)} | {share} | {told} |")
    lines += ["", *spreads(found, policy)]
    return "\n".join(lines) + "\n"


def spreads(found: Sequence[Gated], policy: GatePolicy) -> Iterator[str]:
    """What margins are weighed against: how far apart runs are, sound and faulty."""
    yield "| endpoint | margin | half interval | sound runs differ by | " + " | ".join(FAULTS) + " |"
    yield "|---" * (4 + len(FAULTS)) + "|"
    for endpoint in dict.fromkeys(e for g in found for e in g.better_by):
        margin = policy.margins[endpoint]
        told = [f"{margin.absolute:g}"] if margin.absolute is not None else []
        told += [f"{margin.relative:.0%}"] if margin.relative is not None else []
        cells = [" or ".join(told), f"{mean(g.half[endpoint] for g in found if endpoint in g.half):.3f}"]
        for fault in (SOUND, *FAULTS):
            values = [g.better_by[endpoint] for g in found if g.fault == fault and endpoint in g.better_by]
            cells.append(f"{mean(values):+.3f} ± {spread(values):.3f}" if values else "-")
        yield f"| `{endpoint}` | " + " | ".join(cells) + " |"
    yield ""
    yield "Differences are turned so that more is better: mean over the gates ± standard deviation between them."


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan


def spread(values: Sequence[float]) -> float:
    middle = mean(values)
    return math.sqrt(sum((v - middle) ** 2 for v in values) / max(1, len(values) - 1))


def experiment(root: Path, size: Size, first: int, policy: GatePolicy, workers: int) -> tuple[str, list[Gated]]:
    """Make all runs, gate them, write `gates-FIRST.json` and `gates-FIRST.md` into `root`."""
    sound, faulty = pairs(size, first)
    sets = list(dict.fromkeys(one for pair in (*sound, *faulty) for one in pair))
    for case in prepared(root, sets[0], size).plan.suite.cases("mag-bench"):
        truth(root, case)
    took = root / f"seconds-{first}.json"
    before: list[float] = json.loads(took.read_text()) if took.exists() else []
    spent = before + [s for s in make_all(root, sets, size, workers) if s]
    took.write_text(json.dumps(spent))
    gated = [gate(root, size, old, new, policy) for old, new in (*sound, *faulty)]
    text = report(gated, size, policy, first, sum(spent))
    rows = [{f.name: getattr(g, f.name) for f in fields(g)} for g in gated]
    (root / f"gates-{first}.json").write_text(json.dumps(rows, indent=1))
    (root / f"gates-{first}.md").write_text(text)
    return text, gated


BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def insert(page: Path, text: str) -> None:
    """Put the section between its marks in the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


BOTH = ("long-horizon", "mag-bench")
SIZES = {
    "measure": Size(gates=100, faulty=15, seeds=1, tracks=BOTH),
    "develop": Size(gates=4, faulty=4, seeds=1, tracks=BOTH),
    "quick": Size(gates=1, faulty=1, seeds=1, tracks=("mag-bench",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs; the same command continues")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--develop", action="store_true", help="development seeds, to look at margins")
    kind.add_argument("--quick", action="store_true", help="the short version of the tests")
    parser.add_argument("--gates", type=int, help="comparisons of sound runs")
    parser.add_argument("--faulty", type=int, help="gates per fault")
    parser.add_argument("--seeds", type=int, help="seeds per run")
    parser.add_argument("--track", action="append", choices=BOTH, help="only this track")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--policy", type=Path, help="gate policy; default: that of suite mini")
    parser.add_argument("--page", type=Path, help="page to put the result into, between its marks")
    options = parser.parse_args()
    size = SIZES["develop" if options.develop else "quick" if options.quick else "measure"]
    given = {name: getattr(options, name) for name in ("gates", "faulty", "seeds")}
    given["tracks"] = tuple(options.track) if options.track else None
    size = replace(size, **{name: value for name, value in given.items() if value is not None})
    first = FRESH if not options.develop and not options.quick else DEVELOPMENT
    text, _ = experiment(options.out, size, first, load_policy(options.policy), options.workers)
    print(text)
    if options.page:
        insert(options.page, text)


if __name__ == "__main__":
    main()
