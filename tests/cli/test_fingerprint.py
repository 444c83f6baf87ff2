"""`magbench fingerprint`, and the fingerprints that `magbench run` leaves."""

import json
import shutil
from pathlib import Path

import pytest

import magbench.api
from magbench.fingerprint import check
from magbench.runners import fingerprint as taking
from magbench.runners.models import MODELS
from magbench.store import RunStore
from tests.cli.conftest import Invoke
from tests.tiny_model import TINY


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that loads in no time."""
    monkeypatch.setitem(MODELS, "tiny", TINY)


def test_it_writes_a_run_folder_without_samples(tmp_path: Path, invoke: Invoke) -> None:
    words = ["fingerprint", "--model", "tiny", "--method", "memrope", "--method", "fifo:sink=1", "--budget", "12"]
    done = invoke(*words, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    assert "memrope:window=15: 14 chunks" in done.out
    store = RunStore.open(tmp_path / "a")
    assert (store.run.kind, store.run.status, store.run.model) == ("fingerprint", "complete", "tiny")
    assert store.samples() == []
    found = store.fingerprints()
    assert list(found) == list(store.run.methods[::-1]) == ["fifo:sink=1,window=15", "memrope:window=15"]
    assert {record.budget_frames for record in found.values()} == {12}
    assert not list((tmp_path / "a").rglob(".*"))
    assert invoke(*words, "--out", tmp_path / "b").code == 0
    again = RunStore.open(tmp_path / "b").fingerprints()
    assert {label: check(record, again[label]) for label, record in found.items()} == dict.fromkeys(found, ())


def test_methods_can_be_added_and_are_taken_afresh(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke("fingerprint", "--model", "tiny", "--method", "fifo", "--out", tmp_path / "a").code == 0
    assert list(magbench.api.fingerprint(model="tiny", method="memrope", out=tmp_path / "a")) == ["fifo", "memrope"]
    assert RunStore.open(tmp_path / "a").run.methods == ("memrope", "fifo")
    monkeypatch.setattr(taking, "RECIPE", 77)
    recipes = {label: r.recipe for label, r in magbench.api.fingerprint(
        model="tiny", method="memrope", out=tmp_path / "a").items()}  # fmt: skip
    assert recipes == {"fifo": 1, "memrope": 77}


def test_a_method_that_fails_is_said(tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("magbench.runners.policies.fifo.Fifo.layer", explode)
    words = ["fingerprint", "--model", "tiny", "--method", "fifo", "--method", "memrope", "--out", tmp_path / "a"]
    done = invoke(*words)
    assert done.code == 4
    assert "error: fifo: RuntimeError: boom" in done.err
    assert "memrope: 13 chunks" in done.out
    assert RunStore.open(tmp_path / "a").run.status == "incomplete"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method", "memrop"], "unknown method 'memrop'"),
        (["--method", "fifo", "--model", "none"], "unknown model 'none'"),
        (["--method", "fifo", "--dtype", "float8"], "option --dtype 'float8'"),
        (["--method", "fifo", "--device", "tpu"], "unknown device 'tpu'"),
        ([], "option --method is needed"),
    ],
)
def test_bad_requests_write_nothing(words: list[str], told: str, tmp_path: Path, invoke: Invoke) -> None:
    model = [] if "--model" in words else ["--model", "tiny"]
    done = invoke("fingerprint", *model, *words, "--out", tmp_path / "a")
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "a").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("x")
    done = invoke("fingerprint", "--model", "tiny", "--method", "fifo", "--out", tmp_path / "a")
    assert done.code == 2
    assert "is not empty and not a run folder" in done.err


def test_a_run_leaves_one_per_method(finished: Path) -> None:
    found = RunStore.open(finished).fingerprints()
    assert list(found) == ["fifo", "memrope"]
    assert {(record.state, record.model, record.budget_frames) for record in found.values()} == {("value", "mini", 9)}


def test_a_continued_run_takes_only_what_is_not_current(
    finished: Path, suite: Path, tmp_path: Path, invoke: Invoke
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    first, second = sorted((run / "fingerprints").iterdir())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (first, second)}
    outdated = json.loads(second.read_text())
    second.write_text(json.dumps({**outdated, "weights_sha256": "0"}))
    words = ["run", "--method", "memrope", "--suite", suite, "--workers", "0", "--out", run]
    assert invoke(*words).code == 0
    assert first.stat().st_mtime_ns == before[first][0]
    assert second.read_bytes() == before[second][1]
    assert invoke("fingerprint", "--method", "memrope", "--out", run).code == 2, "a run is no place for others"
