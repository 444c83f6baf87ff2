"""`magbench weights`, and `--offline` wherever something is scored."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from magbench.data.video import write_video
from magbench.metrics import weights
from tests.cli.conftest import Invoke
from tests.cli.test_score import clip
from tests.unit.download_server import Server, serving

CONTENT = b"weights" * 1000


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Two entries of the manifest, one of them for non-commercial use, and where they come from."""
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path / "cache"))
    entry = weights.manifest()["dino-vitb16"]
    with serving(CONTENT) as found:
        update = {"url": found.url, "sha256": None, "megabytes": 1}
        free = {**update, "file": "free.bin", "metrics": ("motion@default",)}
        bound = {**update, "file": "nc.bin", "metrics": ("ssim_consecutive@default",), "licence": "CC BY-NC 4.0"}
        entries = {"free": entry.model_copy(update=free), "bound": entry.model_copy(update=bound)}
        monkeypatch.setattr(weights, "manifest", lambda: entries)
        monkeypatch.setattr("magbench.cli.weights.manifest", lambda: entries)
        yield found


def states(invoke: Invoke) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(invoke("weights", "list", "--json").out)}


def test_fetch_list_verify(server: Server, tmp_path: Path, invoke: Invoke) -> None:
    assert states(invoke) == {"free": "missing", "bound": "missing"}
    done = invoke("weights", "fetch", "--all")
    assert done.code == 0
    assert "free: here and genuine" in done.out
    assert "left out, since its licence forbids commercial use: bound (CC BY-NC 4.0)" in done.err
    assert states(invoke) == {"free": "verified", "bound": "missing"}
    done = invoke("weights", "fetch", "--for", "ssim_consecutive")
    assert done.code == 0
    assert "bound may not be used commercially: its licence is CC BY-NC 4.0" in done.err
    assert invoke("weights", "verify").code == 0
    (tmp_path / "cache" / "weights" / "free.bin").write_bytes(b"other")
    done = invoke("weights", "verify")
    assert done.code == 4
    assert "free.bin is not the file that was used first" in done.err
    assert "bound: genuine" in done.out
    line = invoke("weights", "list").out.splitlines()[1].split("\t")
    assert line[:5] == ["bound", "verified", "1 MB", "CC BY-NC 4.0", "ssim_consecutive@default"]


def test_one_that_fails_keeps_no_other_from_being_fetched(server: Server, invoke: Invoke) -> None:
    server.statuses = [404]
    done = invoke("weights", "fetch", "free", "bound")
    assert done.code == 4
    assert "the server says 404" in done.err
    assert states(invoke) == {"free": "missing", "bound": "verified"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fetch"], "nothing to fetch"),
        (["fetch", "fre"], "did you mean 'free'?"),
        (["verify", "fre"], "did you mean 'free'?"),
        (["fetch", "--for", "motoin"], "did you mean 'motion@default'?"),
    ],
)
def test_bad_words(server: Server, invoke: Invoke, words: list[str], says: str) -> None:
    done = invoke("weights", *words)
    assert done.code == 2
    assert says in done.err
    assert server.asked == []


def test_offline_nothing_is_asked_for(server: Server, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGBENCH_OFFLINE", "1")
    done = invoke("weights", "fetch", "free")
    assert done.code == 4
    assert "the weights free are not here" in done.err
    assert server.asked == []


def test_offline_scoring_fails_before_anything_is_decoded(
    server: Server, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video: reading it would fail")
    words = ["score", tmp_path / "v.mp4", "--metrics", "motion", "--metrics", "ssim_consecutive"]
    words += ["--workers", "0", "--out", tmp_path / "out"]
    done = invoke(*words, "--offline")
    assert done.code == 2
    for part in ("offline, and weights are missing", "free.bin", "nc.bin"):
        assert part in done.err
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("MAGBENCH_OFFLINE", "1")
    assert "weights are missing" in invoke(*words).err
    monkeypatch.setenv("MAGBENCH_OFFLINE", "0")
    assert "weights are missing" not in invoke(*words).err
    assert server.asked == []


def test_offline_scoring_with_everything_here(server: Server, tmp_path: Path, invoke: Invoke) -> None:
    write_video(tmp_path / "v.mkv", clip(12), 8)
    assert invoke("weights", "fetch", "free").code == 0
    words = ["score", tmp_path / "v.mkv", "--metrics", "motion", "--workers", "0", "--out", tmp_path / "out"]
    assert invoke(*words, "--offline").code == 0
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["command"].endswith("--offline --out " + str(tmp_path / "out"))


def test_offline_runs_fail_before_anything_is_generated(
    server: Server, suite: Path, tmp_path: Path, invoke: Invoke
) -> None:
    words = ["run", "--method", "fifo", "--suite", suite, "--workers", "0", "--out", tmp_path / "out", "--offline"]
    done = invoke(*words)
    assert done.code == 2
    assert "motion@default" in done.err
    assert not (tmp_path / "out").exists()
