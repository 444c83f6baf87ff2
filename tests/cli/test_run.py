"""`magbench run`, from first to last."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

import magbench
from magbench.records import MetricRecord, SampleRecord
from magbench.store import RunStore
from tests.cli.conftest import SAMPLES, WALK, Invoke, fingerprint


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A run to do things to."""
    return shutil.copytree(finished, tmp_path / "run")


def by_label(run: Path) -> dict[str, list[SampleRecord]]:
    found: dict[str, list[SampleRecord]] = {}
    for sample in RunStore.open(run).samples():
        found.setdefault(sample.method.label, []).append(sample)
    return found


def test_a_run_makes_everything(finished: Path) -> None:
    store = RunStore.open(finished)
    rows = by_label(finished)
    assert {label: len(found) for label, found in rows.items()} == {
        "fifo": 3, "memrope": 3, "real": 3, "static": 3, "shuffled": 2
    }  # fmt: skip
    assert all(sample.status == "ok" for sample in store.samples())
    for sample in rows["fifo"] + rows["memrope"]:
        names = {path.name for path in store.sample_dir(sample.key).iterdir()}
        assert names == {"sample.json", "video.mkv", "preview.mp4", "preview.jpg", "trace.jsonl", "metrics"}
        assert [t.chunk for t in store.trace(sample.key)] == list(range(sample.case.frames // 3))
    for sample in rows["static"]:
        assert sample.video is not None
        assert (store.sample_dir(sample.key) / sample.video.path).is_file()
        assert sample.video.hold_from == sample.history_frames
    assert store.run.status == "complete"
    assert store.run.methods == ("fifo", "memrope")
    for name in ("results.json", "efficiency.json", "report.html", "tables/long-horizon.md"):
        assert (finished / name).is_file()
    assert not list(finished.rglob(".*"))


def test_truth_and_timing(finished: Path) -> None:
    for sample in RunStore.open(finished).samples():
        assert (sample.truth is not None) == (sample.case.track == "mag-bench")
        history = sample.case.history_frames
        assert sample.history_frames == history
        borders = range(history + 1, sample.case.frames)
        assert sample.timing.chunk_borders == tuple(b for b in borders if b % 3 == 0)
        assert sample.timing.latent_borders == tuple(b for b in borders if b % 3)


def test_real_rows_score_like_the_truth(finished: Path) -> None:
    store = RunStore.open(finished)
    scores = {s.method.label: store.metrics(s.key)[0] for s in store.samples() if s.case.track == "mag-bench"}
    value = {label: {r.name: r.value for r in m.reductions}["aligned_psnr"] for label, m in scores.items()}
    best = max(v for label, v in value.items() if label != "real" and v is not None)
    assert value["real"] is not None
    assert value["real"] >= best + 10, "an identical frame counts as much as the cap"


def test_repeating_the_command_changes_no_sample(finished: Path, suite: Path, copy: Path, invoke: Invoke) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.glob("samples/**/*") if path.is_file()}
    done = invoke("run", "--method", "memrope", "--suite", suite, "--workers", "0", "--out", copy)
    assert done.code == 0
    assert {path: path.stat().st_mtime_ns for path in copy.glob("samples/**/*") if path.is_file()} == before
    assert fingerprint(copy) == fingerprint(finished)
    assert "memrope" in done.out
    assert f"report: {copy / 'report.html'}" in done.out
    assert "(14/14" in done.err
    assert "\x1b" not in done.out + done.err, "no colours off a terminal"


def test_worker_processes_and_missing_samples_give_the_same_bytes(
    finished: Path, suite: Path, copy: Path, invoke: Invoke
) -> None:
    for sample in by_label(copy)["memrope"][:2] + by_label(copy)["real"][:1]:
        shutil.rmtree(copy / "samples" / sample.key)
    assert invoke("run", "--method", "memrope", "--suite", suite, "--workers", "2", "--out", copy).code == 0
    assert fingerprint(copy) == fingerprint(finished)


def test_outdated_scores_are_made_again_and_others_not(suite: Path, copy: Path, invoke: Invoke, finished: Path) -> None:
    store = RunStore.open(copy)
    key = by_label(copy)["fifo"][0].key
    kept, old = store.metrics(key)[0], store.metrics(key)[-1]
    assert kept.name != old.name
    marked = [r.model_copy(update={"value": 12345.0}) for r in old.reductions if r.state == "value"]
    store.write_metric(key, MetricRecord.model_validate({**old.model_dump(), "version": 0, "reductions": marked}))
    store.write_metric(key, kept.model_copy(update={"warnings": ("kept",)}))
    assert invoke("score", copy, "--workers", "0").code == 0
    assert {m.name: m for m in store.metrics(key)}[old.name] == old
    assert {m.name: m for m in store.metrics(key)}[kept.name].warnings == ("kept",)


def test_a_full_cache_beyond_its_training_is_not_applicable(suite: Path, tmp_path: Path, invoke: Invoke) -> None:
    text = suite.read_text().replace("    frames: 15\n", "    frames: 15\n    references: []\n")
    (tmp_path / "s.yaml").write_text(text)
    words = ["run", "--method", "full", "--suite", tmp_path / "s.yaml", "--track", "long-horizon", "--no-baselines"]
    done = invoke(*words, "--seconds", "3600", "--workers", "0", "--out", tmp_path / "run")
    assert done.code == 0
    samples = RunStore.open(tmp_path / "run").samples()
    assert [s.status for s in samples] == ["not_applicable"] * 2
    assert "its cache grows to 28800 frames" in samples[0].reason
    assert "full: not applicable on 2 samples: its cache grows to 28800 frames" in done.err


def test_dry_run_writes_nothing(suite: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("run", "--method", "memrope", "--suite", suite, "--out", tmp_path / "run", "--dry-run")
    assert done.code == 0
    assert "long-horizon: 2 cases of 15 latent frames, 10 samples" in done.err
    assert "memrope: training-free transfer, budget 9 frames" in done.err
    assert not (tmp_path / "run").exists()


def test_own_prompts_and_seconds(suite: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "p.txt").write_text(WALK.replace("red", "pink") + "\n")
    words = ["run", "--method", "fifo", "--suite", suite, "--prompts", tmp_path / "p.txt", "--seconds", "0.5"]
    assert invoke(*words, "--workers", "0", "--seeds", "1-2", "--out", tmp_path / "run").code == 0
    rows = by_label(tmp_path / "run")
    assert {(s.seed, s.case.frames) for s in rows["fifo"]} == {(1, 6), (2, 6)}
    assert {s.case.track for s in rows["fifo"]} == {"long-horizon"}
    videos = [sample.video.sha256 for sample in rows["fifo"] + rows["real"] if sample.video]
    assert len(set(videos)) == 4, "other seeds give other noise and other worlds"


def test_a_failing_sample_is_recorded_and_can_be_redone(
    suite: Path, copy: Path, invoke: Invoke, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from magbench.runners import execute

    def explode(store: RunStore, key: str, video: Path, given: int = 0) -> None:
        if "long-horizon.b" in key:
            raise RuntimeError("boom")
        whole(store, key, video, given)

    whole = execute.write_previews
    for sample in by_label(copy)["memrope"]:
        shutil.rmtree(copy / "samples" / sample.key)
    monkeypatch.setattr(execute, "write_previews", explode)
    words = ["run", "--method", "memrope", "--suite", suite, "--workers", "0", "--out", copy]
    done = invoke(*words)
    assert done.code == 4
    assert "error: b, memrope: RuntimeError: boom" in done.err
    assert f"try the failed samples again: magbench run --method memrope --suite {suite}" in done.err
    assert [s.status for s in by_label(copy)["memrope"]] == ["ok", "error", "ok"]
    assert RunStore.open(copy).run.status == "incomplete"
    monkeypatch.undo()
    assert invoke(*words).code == 4, "a failure stays until it is redone on purpose"
    assert invoke(*words, "--existing", "redo-failed").code == 0
    assert fingerprint(copy) == fingerprint(finished)


def test_a_full_disk_ends_the_run_and_loses_nothing(
    suite: Path, copy: Path, invoke: Invoke, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = by_label(copy)["memrope"]
    for sample in lost:
        shutil.rmtree(copy / "samples" / sample.key)
    real_fsync, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    words = ["run", "--method", "memrope", "--suite", suite, "--workers", "0", "--out", copy]
    done = invoke(*words)
    assert done.code == 1
    assert "No space left on device" in done.err
    assert "hint: free some space" in done.err
    assert "continue with: magbench run" in done.err
    assert "Traceback" not in done.err
    monkeypatch.undo()
    assert len(RunStore.open(copy).samples()) >= SAMPLES - len(lost)
    assert invoke(*words).code == 0
    assert fingerprint(copy) == fingerprint(finished)


def test_existing_error_and_redo(suite: Path, copy: Path, invoke: Invoke, finished: Path) -> None:
    words = ["run", "--method", "fifo", "--track", "mag-bench", "--suite", suite, "--workers", "0", "--out", copy]
    refused = invoke(*words, "--existing", "error")
    assert refused.code == 2
    assert "already holds 3 of the 3 samples" in refused.err
    video = copy / "samples" / by_label(copy)["fifo"][-1].key / "video.mkv"
    before = video.stat().st_mtime_ns
    assert invoke(*words, "--existing", "redo").code == 0
    assert video.stat().st_mtime_ns > before
    assert set(RunStore.open(copy).run.methods) == {"fifo", "memrope"}
    assert fingerprint(copy) == fingerprint(finished)


def test_other_settings_do_not_mix(suite: Path, copy: Path, invoke: Invoke) -> None:
    base = ["run", "--suite", suite, "--workers", "0", "--out", copy]
    longer = invoke(*base, "--method", "memrope", "--seconds", "5")
    assert longer.code == 2
    assert "made with other settings" in longer.err
    other = suite.parent / "other.yaml"
    other.write_text(suite.read_text().replace("version: 1", "version: 2"))
    newer = invoke("run", "--method", "memrope", "--suite", other, "--out", copy)
    assert newer.code == 2
    assert "holds a run with suite version 1, this one has 2" in newer.err


def test_from_python(suite: Path, copy: Path) -> None:
    results = magbench.run(method="memrope", suite=str(suite), workers=0, out=copy)
    assert len(results.samples) == SAMPLES
    frame = magbench.load(copy).frame
    assert set(frame["method"]) == {"fifo", "memrope", "real", "static", "shuffled"}
    valued = frame[frame["state"] == "value"]
    assert valued["value"].notna().all()
    assert frame[frame["state"] != "value"]["reason"].str.len().gt(0).all()
    with pytest.raises(magbench.errors.ConfigError, match="unknown option 'methods'"):  # type: ignore[attr-defined]
        magbench.run(methods="memrope")


def test_missing_scores_are_counted(copy: Path) -> None:
    assert magbench.load(copy).unscored() == 0
    next(copy.glob("samples/long-horizon.a.*fifo*/metrics/motion@default.json")).unlink()
    assert magbench.load(copy).unscored() == 1


def test_another_numeric_type_is_another_run(suite: Path, tmp_path: Path, invoke: Invoke, finished: Path) -> None:
    words = ["run", "--method", "fifo", "--no-baselines", "--suite", suite, "--track", "long-horizon"]
    assert invoke(*words, "--dtype", "bfloat16", "--workers", "0", "--out", tmp_path / "run").code == 0
    half, whole = by_label(tmp_path / "run")["fifo"][0], by_label(finished)["fifo"][0]
    assert half.key != whole.key
    assert half.video is not None
    assert whole.video is not None
    assert half.video.sha256 != whole.video.sha256


def test_options_from_the_environment(
    suite: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGBENCH_METHOD", "fifo longlive")
    monkeypatch.setenv("MAGBENCH_SUITE", str(suite))
    monkeypatch.setenv("MAGBENCH_SEEDS", "0-2")
    done = invoke("run", "--dry-run", "--out", tmp_path / "x")
    assert done.code == 0
    assert "longlive: in-distribution" in done.err
    assert "2 cases of 15 latent frames, 30 samples" in done.err


def test_baselines_get_the_budget_of_the_named_method(suite: Path, tmp_path: Path, invoke: Invoke) -> None:
    words = ["run", "--suite", suite, "--dry-run", "--out", tmp_path / "x", "--method"]
    assert "fifo:window=15: in-distribution, budget 12" in invoke(*words, "memrope:window=15").err
    assert "fifo:window=18: in-distribution, budget 15" in invoke(*words, "memrope", "--budget", "15").err


def test_results_hold_no_time(finished: Path) -> None:
    text = (finished / "results.json").read_text()
    json.loads(text)
    for word in ("fps", "ms", "seconds_per", "hostname", str(finished)):
        assert f'"{word}"' not in text
