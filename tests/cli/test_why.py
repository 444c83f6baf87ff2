"""`magbench why` on a model of random weights."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import magbench
from magbench.runners.models import MODELS
from magbench.store import RunStore
from tests.cli.conftest import Invoke
from tests.tiny_model import TINY


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", TINY)


def words(suite: Path, *more: str | Path) -> list[str | Path]:
    return ["why", "--suite", suite, "--model", "tiny", "--seconds", "6", "--workers", "0", *more]


def test_it_writes_a_figure_a_table_and_all_numbers(suite: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "a"
    methods = ("--method", "fifo", "--method", "deep-forcing", "--method", "memrope")
    done = invoke(*words(suite, *methods, "--out", out))
    assert done.code == 0, done.err
    assert f"figure: {out / 'plots' / 'why.svg'}" in done.out
    assert "the policy never re-arranged its cache" in done.out
    store = RunStore.open(out)
    assert (store.run.kind, store.run.status, store.run.methods) == (
        "why",
        "complete",
        ("fifo", "deep-forcing", "memrope"),
    )
    found = store.why()
    assert found is not None
    assert [method.method.label for method in found.methods] == ["fifo", "deep-forcing", "memrope"]
    fifo, forcing, memrope = found.methods
    assert [video.case for video in fifo.videos] == ["a", "b"]
    for method in found.methods:
        for video in method.videos:
            assert [chunk.first_frame for chunk in video.chunks] == list(range(0, 48, 3))
            assert {"chunk", "latent", "other"} <= video.ssim.keys()
    assert fifo.videos[0].chunks[-1].overlap == pytest.approx(2 / 3, abs=1e-5)
    assert memrope.videos[0].chunks[-1].keys["memory"] == pytest.approx(2 / 12, abs=1e-5)
    chosen = [chunk.first_frame for chunk in forcing.videos[0].chunks if chunk.chosen_overlap is not None]
    assert chosen == [27, 33, 39, 45]
    assert "update" in forcing.videos[0].ssim
    assert ET.fromstring((out / "plots" / "why.svg").read_text()).tag.endswith("svg")
    assert (out / "plots" / "why.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "tables" / "why.md").read_text().count("\n| ") == 3 + 2
    assert not list(out.rglob(".*"))
    assert not (out / "samples").exists()


def test_again_gives_the_same_and_replaces_what_was_there(suite: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "a"
    assert invoke(*words(suite, "--method", "fifo", "--method", "memrope", "--cases", "1", "--out", out)).code == 0
    first = json.loads((out / "why.json").read_text())
    found = magbench.why(suite=str(suite), model="tiny", seconds=6, workers=0, method="fifo", cases=1, out=out)
    second = json.loads((out / "why.json").read_text())
    assert second["methods"] == first["methods"][:1] == json.loads(found.model_dump_json())["methods"]
    assert RunStore.open(out).run.methods == ("fifo",)
    assert [video["case"] for video in second["methods"][0]["videos"]] == ["a"]


def test_a_method_that_fails_is_a_row_of_its_own(
    suite: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("magbench.runners.policies.fifo.Fifo.layer", explode)
    out = tmp_path / "a"
    done = invoke(*words(suite, "--method", "fifo", "--method", "memrope", "--cases", "1", "--out", out))
    assert done.code == 4
    assert "error: fifo: RuntimeError: boom" in done.err
    assert "error: RuntimeError: boom" in (out / "plots" / "why.svg").read_text()
    store = RunStore.open(out)
    assert store.run.status == "incomplete"
    found = store.why()
    assert found is not None
    assert [(method.state, len(method.videos)) for method in found.methods] == [("error", 0), ("value", 1)]


def test_a_budget_that_a_method_cannot_have_is_no_error(suite: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "a"
    methods = ("--method", "mag:writer=generator", "--method", "fifo", "--budget", "2,9")
    done = invoke(*words(suite, *methods, "--cases", "1", "--out", out))
    assert done.code == 0, done.err
    found = RunStore.open(out).why()
    assert found is not None
    assert {method.state for method in found.methods} == {"value", "not_applicable"}


POLICY = """
from dataclasses import dataclass
from magbench.runners.policies.base import CachePolicy, FrameCache

@dataclass(frozen=True)
class Newest(CachePolicy):
    window: int = 5

    def layer(self, geometry):
        return NewestCache(geometry)

    @property
    def budget(self):
        return self.window - 3

class NewestCache(FrameCache):
    def past(self, chunk, q, k):
        dropped = self.remove(0, max(0, len(self.sources) - 2))
        return self.past_at(self.sources, chunk, dropped=dropped, events=("evict",) * bool(dropped))
"""


def test_a_policy_of_your_own(suite: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "mine.py").write_text(POLICY)
    done = invoke(*words(suite, "--method", f"{tmp_path / 'mine.py'}:Newest", "--cases", "1", "--out", tmp_path / "a"))
    assert done.code == 0, done.err
    found = RunStore.open(tmp_path / "a").why()
    assert found is not None
    last = found.methods[0].videos[0].chunks[-1]
    assert last.keys == pytest.approx({"newly cached": 0.4, "own": 0.6})
    assert last.overlap == 0
    assert "mine.py:Newest" in (tmp_path / "a" / "plots" / "why.svg").read_text()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--method", "memrop"], "unknown method 'memrop'"),
        (["--method", "fifo", "--cases", "0"], "option --cases '0': Input should be greater"),
        (["--method", "fifo", "--suite", "none"], "unknown suite 'none'"),
        ([], "option --method is needed"),
    ],
)
def test_bad_requests_write_nothing(more: list[str], told: str, suite: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke(*words(suite, *more, "--out", tmp_path / "a"))
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "a").exists()


def test_a_run_is_no_place_for_it(finished: Path, suite: Path, invoke: Invoke) -> None:
    done = invoke("why", "--suite", suite, "--method", "fifo", "--workers", "0", "--out", finished)
    assert done.code == 2
    assert "holds a run with kind 'run', this one has 'why'" in done.err
