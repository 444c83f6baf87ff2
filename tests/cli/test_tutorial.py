"""`docs/your_own_policy.md` works as it stands, on a suite that takes less time."""

import re
import shlex
from pathlib import Path

import pytest

from magbench.records import SampleRecord
from magbench.store import RunStore
from tests.cli.conftest import WALK, Invoke, Outcome

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "your_own_policy.md").read_text(encoding="utf-8")
SUITE = f"""
name: mini-gate
version: 1
model: mini
tracks:
  long-horizon:
    frames: 15
    metrics: [motion@default]
    references: []
    cases: [{{id: a, world_seed: 7, prompt: "{WALK}"}}]
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_policy_is_short() -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) < 40


@pytest.fixture
def done(tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcome]:
    """Outcomes of the page's commands, by what each does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strided.py").write_text(blocks("python")[0])
    (tmp_path / "short.yaml").write_text(SUITE)
    outcomes = {}
    for command in "".join(blocks("sh")).splitlines():
        words = shlex.split(command.replace("mini-gate", "short.yaml"))
        assert words[0] == "magbench"
        outcomes[words[1]] = invoke(*words[1:], *(["--workers", "0", "--out", "run"] if words[1] == "run" else []))
    return outcomes


def test_the_page_works(done: dict[str, Outcome]) -> None:
    assert {name: outcome.code for name, outcome in done.items()} == {"check-policy": 0, "show": 0, "run": 0}
    checks, tables = blocks("text")
    assert done["check-policy"].out == checks
    assert "  stride=4   Frames between" in done["show"].out
    samples = {sample.method.label: sample for sample in RunStore.open(Path("run")).samples()}
    assert list(samples) == ["fifo", "memrope", "strided.py:Strided"]
    assert {budget(sample) for sample in samples.values()} == {9}
    row = next(line for line in done["run"].out.splitlines() if line.startswith("strided.py:Strided"))
    assert row.startswith("strided.py:Strided [")
    for label in samples:
        assert f"\n{label} [" in done["run"].out
        assert len(re.findall(rf"^{label} \[", tables, re.MULTILINE)) == 2


def budget(sample: SampleRecord) -> float | None:
    assert sample.status == "ok"
    return sample.method.budget_frames
