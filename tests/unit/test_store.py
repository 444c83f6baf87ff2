"""The run folder: whole files or none, and nothing outside it."""

import errno
import json
import math
import multiprocessing
import os
from pathlib import Path

import pytest

from magbench.errors import ConfigError, StoreError
from magbench.records import (
    CaseRecord,
    MethodRecord,
    MetricRecord,
    Reduction,
    RunRecord,
    SampleRecord,
    TraceRecord,
    VideoRef,
)
from magbench.store import RunStore, write_json

RUN = RunRecord(magbench_version="0", kind="run")
METHOD = MethodRecord(label="fifo", policy="fifo", parameters={"window": 12}, applicability="in-distribution")


def sample(key: str = "long-horizon.a.s0.fifo.0123", video: VideoRef | None = None) -> SampleRecord:
    return SampleRecord(
        key=key,
        case=CaseRecord(id="a", track="long-horizon"),
        method=METHOD,
        model="mini",
        seed=0,
        status="ok",
        video=video,
    )


def metric(value: float = 0.5) -> MetricRecord:
    reduction = Reduction(name="median", state="value", value=value)
    return MetricRecord(
        metric="ssim", profile="default", version=1, state="value", video_sha256="0", reductions=(reduction,)
    )


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path / "run", RUN)


def test_what_is_written_is_read(store: RunStore) -> None:
    trace = [
        TraceRecord(
            chunk=i,
            kind="generate",
            first_frame=3 * i,
            frames=3,
            ms=1.5,
            passes=4,
            past_frames=0,
            cached_frames=0,
            cache_bytes=0,
        )
        for i in range(3)
    ]
    store.write_trace(sample().key, trace)
    store.write_metric(sample().key, metric())
    store.write_sample(sample())
    again = RunStore.open(store.root)
    assert again.run == RUN
    assert again.samples() == [sample()]
    assert again.metrics(sample().key) == [metric()]
    assert again.trace(sample().key) == trace
    assert sorted(p.name for p in store.sample_dir(sample().key).iterdir()) == ["metrics", "sample.json", "trace.jsonl"]


def test_half_a_character_is_written_as_json_can(store: RunStore) -> None:
    broken = sample().model_copy(update={"reason": "no such file: caf\udce9 \u00e9"})
    store.write_sample(broken)
    assert store.sample(broken.key) == broken


def test_samples_come_in_key_order(store: RunStore) -> None:
    for key in ("b", "a.2", "a.10", "c"):
        store.write_sample(sample(key))
    assert [s.key for s in store.samples()] == ["a.10", "a.2", "b", "c"]


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[]", b'{"key": NaN}', b'{"key": "x"}', b"\xff", b"\0" * 100])
def test_an_unreadable_record_counts_as_absent(store: RunStore, text: bytes) -> None:
    store.write_sample(sample())
    store.write_metric(sample().key, metric())
    folder = store.sample_dir(sample().key)
    (folder / "metrics" / "ssim@default.json").write_bytes(text)
    assert store.metrics(sample().key) == []
    (folder / "sample.json").write_bytes(text)
    assert not store.has(sample().key)
    assert store.samples() == []


def test_every_truncation_of_a_record_counts_as_absent(store: RunStore) -> None:
    store.write_sample(sample())
    path = store.sample_dir(sample().key) / "sample.json"
    whole = path.read_bytes().rstrip()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not store.has(sample().key)


def test_a_sample_under_another_key_counts_as_absent(store: RunStore) -> None:
    store.write_sample(sample("one"))
    store.sample_dir("one").rename(store.sample_dir("two"))
    assert store.samples() == []


def test_a_sample_without_its_video_is_incomplete(store: RunStore, tmp_path: Path) -> None:
    ref = VideoRef(path="video.mkv", sha256="0", frames=1, fps=8, width=64, height=64)
    store.write_sample(sample(video=ref))
    assert not store.has(sample().key)
    store.publish(sample().key, "video.mkv", lambda path: path.write_bytes(b"x") and None)
    assert store.has(sample().key)
    theirs = ref.model_copy(update={"path": str(tmp_path / "gone.mp4")})
    store.write_sample(sample(video=theirs))
    assert store.has(sample().key), "a user's file may have moved since it was scored"


@pytest.mark.parametrize("key", ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\n", "a\0", "ä", "x" * 300])
def test_no_key_leads_out_of_the_folder(store: RunStore, key: str) -> None:
    with pytest.raises(StoreError, match="cannot be a file name"):
        store.sample_dir(key)
    with pytest.raises(StoreError, match="cannot be a file name"):
        store.publish("a", key, lambda path: None)
    with pytest.raises(StoreError, match="cannot be a file name"):
        store.publish_at(f"tables/{key}/../x.csv", lambda path: None)


def test_a_failed_write_leaves_the_old_file_and_no_other(store: RunStore) -> None:
    def half(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.publish("a", "video.mkv", lambda path: path.write_text("old") and None)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        store.publish("a", "video.mkv", half)
    assert "free some space" in str(caught.value.hint)
    assert {p.name: p.read_text() for p in store.sample_dir("a").iterdir()} == {"video.mkv": "old"}


def test_an_interrupted_write_leaves_nothing(store: RunStore) -> None:
    def interrupted(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        store.publish("a", "video.mkv", interrupted)
    assert list(store.sample_dir("a").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence() -> None:
    with pytest.raises(StoreError, match="cannot make the run folder '/proc/nothing/run'"):
        RunStore.create(Path("/proc/nothing/run"), RUN)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("I am a file")
    with pytest.raises(StoreError, match="cannot make the run folder") as caught:
        RunStore.create(tmp_path / "run", RUN)
    assert "--out" in str(caught.value.hint)


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run folder"):
        RunStore.open(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"no readable run\.json"):
        RunStore.open(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_is_strict(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_a_method_are_strict_too(store: RunStore) -> None:
    method = METHOD.model_copy(update={"parameters": {"alpha": math.nan}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_sample(sample().model_copy(update={"method": method}))
    assert not store.has(sample().key)


def _write_often(root: Path, value: float) -> None:
    store = RunStore.open(root)
    for _ in range(100):
        store.write_metric(sample().key, metric(value))


def test_two_processes_never_spoil_each_other(store: RunStore) -> None:
    store.write_metric(sample().key, metric(0))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(store.root, value)) for value in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        [found] = store.metrics(sample().key)
        assert found.reductions[0].value in (0, 1, 2)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [p.name for p in (store.sample_dir(sample().key) / "metrics").iterdir()] == ["ssim@default.json"]


def test_a_broken_trace_is_an_error_not_an_empty_one(store: RunStore) -> None:
    store.publish("a", "trace.jsonl", lambda path: path.write_text('{"chunk": 0}\n') and None)
    with pytest.raises(StoreError, match=r"cannot read .*trace\.jsonl"):
        store.trace("a")


def test_records_are_plain_json(store: RunStore) -> None:
    store.write_sample(sample())
    text = (store.sample_dir(sample().key) / "sample.json").read_text(encoding="utf-8")
    assert json.loads(text)["method"]["parameters"] == {"window": 12}


def test_a_discarded_sample_takes_its_scores_along(store: RunStore) -> None:
    """Some depend on the trace, which is measured anew although the pixels come out the same."""
    store.write_sample(sample())
    store.write_metric(sample().key, metric())
    store.discard(sample().key)
    store.write_sample(sample())
    assert store.metrics(sample().key) == []
