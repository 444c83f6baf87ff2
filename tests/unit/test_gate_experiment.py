"""The experiment on the gate: its statistics, its faults, and a short version of it."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from magbench.gate_policy import load_policy
from magbench.runners.methods import parse_method
from magbench.runners.policies.base import CachePolicy, Geometry, Past
from magbench.runners.rollout import Rollout
from magbench.runners.wan.rope import Rope
from magbench.runners.wan.sampler import seeded_noise
from tests.tiny_model import load_tiny

SCRIPT = Path(__file__).parents[2] / "docs" / "gate_experiment.py"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("gate_experiment", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize(("hits", "n"), [(0, 100), (1, 100), (3, 120), (24, 30), (30, 30), (0, 30)])
def test_bounds_are_those_of_clopper_and_pearson(script: ModuleType, hits: int, n: int) -> None:
    exact = binomtest(hits, n).proportion_ci(0.90, "exact")  # two-sided 90 % has one-sided 95 % ends
    assert script.upper_bound(hits, n) == pytest.approx(exact.high, abs=1e-9)
    assert script.lower_bound(hits, n) == pytest.approx(exact.low, abs=1e-9)


def test_a_hundred_quiet_gates_are_enough(script: ModuleType) -> None:
    assert script.SIZES["measure"].gates >= 100
    assert script.upper_bound(0, 100) < 0.05


@pytest.mark.parametrize("kind", ["measure", "develop", "quick"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_no_seed_is_used_twice(script: ModuleType, kind: str, seeds: int) -> None:
    size = script.replace(script.SIZES[kind], seeds=seeds)
    sound, faulty = script.pairs(size, 500)
    runs = [one for pair in sound for one in pair] + [new for _, new in faulty]
    used = [run.first + i for run in runs for i in range(seeds)]
    assert len(used) == len(set(used)) == (2 * size.gates + 3 * size.faulty) * seeds
    assert {one.fault for pair in sound for one in pair} == {"none"}
    assert all(old.fault == "none" and old.first != new.first for old, new in faulty)
    develop, fresh = script.DEVELOPMENT, script.FRESH
    assert develop + 3 * (2 * 200 + 3 * 100) < fresh, "development and measurement share no seed"


def rolled(policy: CachePolicy, loop: type[Rollout] = Rollout) -> tuple[list[Tensor], Rollout]:
    model = load_tiny()
    noise = seeded_noise([1], (3, 16, 4, 4))
    run = loop(model.transformer, policy, model.sampler, model.text(["a"]), noise, (4, 4))
    history = torch.randn(1, 15, 16, 4, 4, generator=torch.Generator().manual_seed(2))
    steps = [*run.generate(1), *run.history(history), *run.generate(1)]
    return [step.latents for step in steps], run


def test_each_fault_leaves_the_first_chunk_and_changes_later_ones(script: ModuleType) -> None:
    policy = parse_method("memrope").policy
    sound, _ = rolled(policy)
    for name, (change, loop) in script.FAULTS.items():
        wrong, run = rolled(script.Faulty(policy, change) if change else policy, loop)
        first = (wrong[0] - sound[0]).abs().max()
        assert first < 1e-6 or "queries" in name, "without a past only the chunk's own indices can differ"
        assert all(torch.equal(a, b) for a, b in zip(wrong[1:-1], sound[1:-1], strict=True)), "a history is given"
        assert (wrong[-1] - sound[-1]).abs().max() > 1e-2 * sound[-1].std(), name
        own = run.attention.shown.own_frames
        assert own == ((12, 13, 14) if "queries" in name else (9, 10, 11))


def test_a_zeroed_sink_is_the_first_three_frames(script: ModuleType) -> None:
    geometry = Geometry(batch=1, heads=2, rope=Rope(12, 2, 2))
    tokens, index = torch.ones(1, 20, 2, 12), torch.arange(20)
    zeroed = script.sink_zeroed(Past(tokens, tokens, frames=index, sources=index, own_frames=(5, 6, 7)), geometry)
    for seen in (zeroed.keys, zeroed.values):
        assert not seen[:, :12].any()
        assert seen[:, 12:].eq(1).all()


def test_the_report_counts(script: ModuleType) -> None:
    end = "landmark_recall@mini/recall"

    def gated(fault: str, verdict: str, better: float) -> object:
        told = (end,) if verdict == "REGRESSION" else ()
        return script.Gated(fault, 0, 1, verdict, told, {end: better}, {end: 0.1})

    found = [gated("none", "PASS", 0.01), gated("none", "REGRESSION", -0.3), gated("none", "INCONCLUSIVE", -0.02)]
    found += [gated("sink zeroed", "REGRESSION", -0.3), gated("sink zeroed", "PASS", -0.1)]
    text = script.report(found, script.SIZES["quick"], load_policy(), 7, 120.0)
    assert "False alarms: **1 of 3** gates said REGRESSION." in text
    assert f"is **{binomtest(1, 3).proportion_ci(0.90, 'exact').high:.1%}**" in text
    assert "| sink zeroed | 1 of 2 | 50% | 3% | `landmark_recall@mini/recall` 1 |" in text
    assert "| cache written from a noisy pass | 0 of 0 | - | - | none |" in text
    assert "| `landmark_recall@mini/recall` | 0.05 | 0.100 | -0.103 ± 0.171 | -0.200 ± 0.141 | - | - |" in text
    assert "Made in 2 minutes of one core." in text


def test_the_result_goes_between_its_marks(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"a\n{script.BEGIN}\nold\n{script.END}\nb\n")
    script.insert(page, "new\n")
    script.insert(page, "newer\n")
    assert page.read_text() == f"a\n{script.BEGIN}\nnewer\n{script.END}\nb\n"


def test_the_short_version(script: ModuleType, tmp_path: Path) -> None:
    """One gate between sound runs and one per fault, on the leave-and-return track."""
    size = script.SIZES["quick"]
    text, gated = script.experiment(tmp_path, size, script.DEVELOPMENT, load_policy(), workers=0)
    verdicts = {g.fault: g.verdict for g in gated}
    assert verdicts.pop("none") in ("PASS", "INCONCLUSIVE", "IMPROVED")
    assert verdicts.keys() == script.FAULTS.keys()
    assert set(verdicts.values()) == {"REGRESSION"}
    assert "False alarms: **0 of 1**" in text
    assert not list(tmp_path.glob("runs/*/samples/*/video.mkv")), "records only"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/*.json")}
    assert script.experiment(tmp_path, size, script.DEVELOPMENT, load_policy(), workers=0)[0] == text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/*.json")} == before, "it continues"
