"""A policy in a file of the user, or in a plug-in, is a method like any other."""

from pathlib import Path

import pytest

from magbench.api import carry_out
from magbench.options import RunOptions
from magbench.records import SampleRecord
from magbench.runners.models import MODELS
from magbench.runners.prepare import prepare
from magbench.store import RunStore
from tests.cli.conftest import WALK, Invoke
from tests.tiny_model import TINY

MINE = '''
from dataclasses import dataclass
from magbench.runners.policies.fifo import Fifo

@dataclass(frozen=True)
class Mine(Fifo):
    """A FIFO of mine."""
    window: int = 6
'''
SUITE = f"""
name: one
version: 1
model: mini
tracks:
  long-horizon:
    frames: 12
    references: []
    cases: [{{id: a, world_seed: 7, prompt: "{WALK}"}}]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user stands, with a policy and a suite of one case."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "one.yaml").write_text(SUITE)
    return tmp_path


def samples() -> dict[str, SampleRecord]:
    return {sample.method.label: sample for sample in RunStore.open(Path("run")).samples()}


RUN = ["run", "--suite", "one.yaml", "--out", "run", "--workers"]


def test_it_runs_and_is_made_again_when_it_was_edited(
    here: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = here / "site" / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[magbench.policies]\nplugged = mine_plugged_cli:Mine\n")
    (here / "site" / "mine_plugged_cli.py").write_text(MINE)
    monkeypatch.syspath_prepend(here / "site")
    methods = ["--method", "./mine.py:Mine", "--method", "mine.py:Mine:sink=1", "--method", "plugged"]
    done = invoke(*RUN, "1", *methods)
    assert done.code == 0, done.err
    assert "mine.py:Mine: training-free transfer, budget 3 frames" in done.err
    before = samples()
    assert list(before) == ["mine.py:Mine:sink=1", "mine.py:Mine", "plugged"]
    assert {sample.status for sample in before.values()} == {"ok"}
    assert len({sample.method.code_sha256 for sample in before.values()}) == 1
    assert "mine.py:Mine" in done.out

    (here / "mine.py").write_text(MINE.replace("6", "9"))
    dry = invoke(*RUN, "0", "--method", "mine.py:Mine", "--dry-run")
    assert samples() == before
    done = invoke(*RUN, "0", "--method", "mine.py:Mine")
    for said in (dry.err, done.err):
        assert "mine.py:Mine has been edited: samples of the old code will be replaced (1)" in said
        assert "mine.py:Mine:sink=1 has been edited since its samples were made" in said
    assert done.code == 0, done.err
    after = samples()
    assert after["mine.py:Mine"].method.budget_frames == 6
    assert after["mine.py:Mine"].key != before["mine.py:Mine"].key
    assert after["mine.py:Mine:sink=1"] == before["mine.py:Mine:sink=1"]
    assert after["plugged"] == before["plugged"]
    assert not (here / "run" / "samples" / before["mine.py:Mine"].key).exists()
    prints = RunStore.open(Path("run")).fingerprints()
    assert prints["mine.py:Mine"].code_sha256 == after["mine.py:Mine"].method.code_sha256

    video = here / "run" / "samples" / after["mine.py:Mine"].key / "video.mkv"
    made = video.stat().st_mtime_ns
    done = invoke(*RUN, "0", "--method", "./mine.py:Mine")
    assert "will be replaced" not in done.err
    assert video.stat().st_mtime_ns == made
    (here / "mine.py").write_text(MINE)
    assert invoke(*RUN, "0", "--method", "mine.py:Mine", "--existing", "error").code == 2
    assert samples() == after


def test_editing_it_meanwhile_changes_nothing(here: Path) -> None:
    prepared = prepare(RunOptions.parse({"method": "mine.py:Mine", "suite": "one.yaml", "out": "run", "workers": 0}))
    (here / "mine.py").write_text("half a sentence")
    results = carry_out(prepared, "skip", lambda event: None)
    assert [sample.status for sample in results.samples] == ["ok"]
    assert [record.state for record in RunStore.open(Path("run")).fingerprints().values()] == ["value"]


def test_what_goes_wrong_in_it_is_said_to_be_its_fault(here: Path, invoke: Invoke) -> None:
    (here / "mine.py").write_text(f"{MINE}    def layer(self, geometry):\n        return geometry.nothing\n")
    done = invoke(*RUN, "0", "--method", "mine.py:Mine")
    assert done.code == 4
    sample = samples()["mine.py:Mine"]
    assert sample.reason == "AttributeError: 'Geometry' object has no attribute 'nothing' (mine.py, line 10)"
    assert sample.hint == "this is a fault in the policy; its traceback is above"


def test_a_mistake_is_one_sentence_before_anything_is_written(here: Path, invoke: Invoke) -> None:
    for method, message in (
        ("no.py:Mine", "there is no policy file 'no.py'."),
        ("mine.py:Yours", "'mine.py' defines no class 'Yours'."),
        ("one.yaml", "unknown method 'one.yaml'."),
    ):
        done = invoke(*RUN, "0", "--method", method)
        assert (done.code, done.out) == (2, "")
        assert f"error: {message}" in done.err
        assert "Traceback" not in done.err
    assert not (here / "run").exists()


def test_the_gate_sees_what_an_edit_does(here: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", TINY)

    def take(folder: str) -> None:
        done = invoke("fingerprint", "--model", "tiny", "--method", "mine.py:Mine", "--out", folder)
        assert done.code == 0, done.err

    take("a")
    (here / "mine.py").write_text(f"# a remark\n{MINE}")
    take("b")
    assert invoke("gate", "b", "--baseline", "a").code == 0
    (here / "mine.py").write_text(MINE.replace("int = 6", "int = 6\n    sink: int = 1"))
    take("b")
    done = invoke("gate", "b", "--baseline", "a")
    assert done.code == 3
    assert "parameter sink was 0 and is 1" in done.out
