"""`magbench compare`: what it prints, what it writes, and how it ends."""

import json
import shutil
from pathlib import Path

import pytest

from magbench.records import RunRecord
from magbench.store import RunStore
from tests.cli.conftest import Invoke
from tests.synthetic_run import make_entries, run_record


def write(root: Path, worse: float) -> Path:
    """Two methods on one track, without a reference row; the recall of one of them is worse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        store = RunStore.create(root, run_record())
        for sample, metrics, _ in make_entries():
            if sample.case.track != "mag-bench" or sample.method.label not in ("memrope", "fifo"):
                continue
            for record in metrics:
                if sample.method.label == "memrope" and record.metric == "landmark_recall":
                    first, *others = record.reductions
                    value = (first.value or 0) - worse * (1 + 0.01 * int(sample.case.id[-2:]))
                    record = record.model_copy(
                        update={"reductions": (first.model_copy(update={"value": value}), *others)}
                    )
                store.write_metric(sample.key, record)
            store.publish(sample.key, "video.mkv", lambda path: path.touch())
            store.write_sample(sample)
    return root


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "old", 0)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "new", 0.1)


def changed(root: Path, to: Path, **update: object) -> Path:
    shutil.copytree(root, to)
    store = RunStore.open(to)
    store.write_run(RunRecord.model_validate({**store.run.model_dump(), **update}))
    return to


def test_it_prints_what_changed(old: Path, new: Path, invoke: Invoke) -> None:
    done = invoke("compare", old, new)
    assert done.code == 0, done.err
    assert f"A: {old} (suite mini version 1, model mini, started 2026-01-02)" in done.out
    [recall] = [line for line in done.out.splitlines() if line.startswith("recall")]
    assert recall.split()[-3:] == ["-0.105", "-", "<0.001"]
    assert "mag-bench · memrope (12 cases)" in done.out
    assert "fifo (12" not in done.out
    assert "mag-bench: primary: 1 worse, 3 the same in every case" in done.out
    assert "--all shows them" in done.out


def test_all_prints_everything(old: Path, new: Path, invoke: Invoke) -> None:
    done = invoke("compare", old, new, "--all")
    assert done.code == 0
    assert done.out.count("(12 cases)") == 2
    assert "--all" not in done.out
    assert done.out.count("= the same in every case") == 1, "one legend for all tables"


def test_a_run_against_itself(old: Path, invoke: Invoke) -> None:
    done = invoke("compare", old, old)
    assert done.code == 0
    assert "- A and B are the same folder" in done.out
    assert "(12 cases)" not in done.out


def test_files_for_machines(old: Path, new: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("compare", old, new, "--json", tmp_path / "c.json", "--markdown", tmp_path / "c.md")
    assert done.code == 0, done.err
    data = json.loads((tmp_path / "c.json").read_text())
    [memrope] = [m for m in data["tracks"]["mag-bench"]["methods"] if m["b"] == "memrope"]
    [row] = [r for r in memrope["rows"] if r["key"] == "landmark_recall@mini/recall"]
    assert (row["mark"], row["primary"], row["direction"]) == ("-", True, "higher")
    assert row["difference"]["value"] == pytest.approx(-0.1055)
    text = (tmp_path / "c.md").read_text()
    assert text.startswith("## magbench compare\n")
    assert "<details><summary>All rows</summary>" in text


def test_stdout_holds_only_what_was_asked_for(old: Path, new: Path, invoke: Invoke) -> None:
    assert json.loads(invoke("compare", old, new, "--json", "-").out)["comparable"] is True
    assert invoke("compare", old, new, "--markdown", "-").out.startswith("## magbench compare\n")
    both = invoke("compare", old, new, "--markdown", "-", "--json", "-")
    assert (both.code, both.out) == (2, "")
    assert "only one of --markdown and --json can go to stdout" in both.err


def test_runs_that_cannot_be_compared(old: Path, tmp_path: Path, invoke: Invoke) -> None:
    other = changed(old, tmp_path / "other", weights={"mini": "cd" * 32})
    done = invoke("compare", old, other, "--json", tmp_path / "c.json", "--markdown", tmp_path / "c.md")
    assert (done.code, done.out) == (2, "")
    assert "error: the runs cannot be compared: weights of model mini: mini differ" in done.err
    data = json.loads((tmp_path / "c.json").read_text())
    assert (data["comparable"], data["blocking"]) == (False, ["weights of model mini: mini differ"])
    assert data["tracks"] == {}
    assert "- not comparable: weights of model mini: mini differ" in (tmp_path / "c.md").read_text()


def test_folders_without_videos(old: Path, new: Path, tmp_path: Path, invoke: Invoke) -> None:
    slim = tmp_path / "slim"
    shutil.copytree(old, slim, ignore=shutil.ignore_patterns("*.mkv", "*.mp4", "*.jpg", "trace.jsonl"))
    whole, thin = (json.loads(invoke("compare", a, new, "--json", "-").out) for a in (old, slim))
    assert whole == thin


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "nowhere"], "there is no run folder 'nowhere'"),
        ([".", "."], "'.' is not a run folder: it has no readable run.json"),
        (["nowhere"], "Missing argument 'B'"),
        (["nowhere", "nowhere", "--json="], "the name of an output file is empty"),
    ],
)
def test_bad_requests(
    words: list[str], message: str, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("compare", *words)
    assert done.code == 2
    assert message in done.err


def test_a_file_that_cannot_be_written(old: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("compare", old, old, "--markdown", tmp_path / "none" / "c.md")
    assert done.code == 1
    assert "c.md': No such file or directory" in done.err
