"""`magbench score --manifest` and `--layout`: several methods on the same cases."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import magbench
from magbench.data.video import Frame, write_video
from magbench.store import RunStore
from tests.cli.conftest import Invoke

ONLY = ("--metrics", "motion@default", "--metrics", "retention@default", "--workers", "0")
NAMES = ("-v a#%&.mp4", "%03d é\n\U0001f408.mp4", "a:b.mp4", "x" * 251 + ".mp4")


def clip(frames: int = 20, seed: int = 0) -> list[Frame]:
    picture = np.random.default_rng(seed).integers(0, 255, (32, 48, 3), np.uint8)
    return [np.roll(picture, t, axis=1) for t in range(frames)]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two methods on two cases, with truth, in files with the names that break things."""
    folder = tmp_path / "their videos"
    folder.mkdir()
    write_video(folder / "truth.mkv", clip(), 8)
    for seed, name in enumerate(NAMES):
        write_video(folder / "v.mkv", clip(seed=seed), 8)
        (folder / "v.mkv").rename(folder / name)
    rows = [
        {
            "id": f"case {i % 2}\n<b>", "path": name, "method": ("memrope", "fifo")[i // 2], "prompt": f"p{i % 2}",
            "seed": 7, "chunk_borders": [3, 9, 15], "truth": "truth.mkv", "history_frames": 3,
            "schedule": [{"at": 1.0, "prompt": "then"}],
        }
        for i, name in enumerate(NAMES)
    ]  # fmt: skip
    return write(folder / "m.jsonl", rows)


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_rows_of_one_id_are_compared_pair_by_pair(
    manifest: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(manifest.parent)
    words = ("score", "--manifest", manifest.name, *ONLY, "--out", tmp_path / "out")
    done = invoke(*words)
    assert done.code == 0, done.err
    store = RunStore.open(tmp_path / "out")
    assert store.run.methods == ("memrope", "fifo")
    samples = store.samples()
    cells = sorted((s.case.id, s.method.label) for s in samples)
    rows = ("fifo", "memrope", "real", "shuffled", "static")
    assert cells == sorted((f"case {i}\n<b>", label) for i in range(2) for label in rows)
    for sample in samples:
        assert (sample.status, sample.seed, sample.history_frames) == ("ok", 7, 3)
        assert sample.timing.chunk_borders == (3, 9, 15)
        assert sample.timing.switch_borders == (9,), "1 s at 8 fps is frame 8; the next chunk starts at 9"
        assert {record.state for record in store.metrics(sample.key)} == {"value"}
    values = {(s.case.id, s.method.label): store.metrics(s.key)[1].reductions for s in samples}
    psnr = {at: {r.name: r.value for r in found}["aligned_psnr"] for at, found in values.items()}
    assert psnr["case 0\n<b>", "memrope"] == psnr["case 0\n<b>", "real"] == 60.0, "the first file is the truth"
    assert (psnr["case 1\n<b>", "memrope"] or 60) < 20
    assert "case 0\n<b>" not in (tmp_path / "out" / "report.html").read_text()
    compared = magbench.compare(tmp_path / "out", tmp_path / "out")
    (track,) = compared.tracks
    assert {(method.label, track.cases) for method in track.methods} == {("memrope", 2), ("fifo", 2)}

    stamp = {s.key: (store.sample_dir(s.key) / "sample.json").stat().st_mtime_ns for s in samples}
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[3]["seed"] = 8
    write(manifest, lines)
    assert invoke(*words).code == 0
    again = {s.key: (store.sample_dir(s.key) / "sample.json").stat().st_mtime_ns for s in store.samples()}
    assert sum(stamp.get(key) == at for key, at in again.items()) == 9, "only what belongs to the row is made again"
    assert len(again) == 4 + 3 * 3


def test_faults_are_listed_before_anything_runs(manifest: Path, tmp_path: Path, invoke: Invoke) -> None:
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[0]["seed"], lines[2]["path"] = -1, "\x1b[31mgone"
    done = invoke("score", "--manifest", write(manifest, lines), *ONLY, "--out", tmp_path / "out")
    assert done.code == 2
    assert "has 2 faults:" in done.err
    assert "row 1: seed is -1, expected a whole number, 0 or more" in done.err
    assert "row 3: path '\\x1b[31mgone' does not exist" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_what_only_the_video_shows_costs_its_sample_alone(manifest: Path, tmp_path: Path, invoke: Invoke) -> None:
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[1]["chunk_borders"] = [3, 900]
    (manifest.parent / lines[3]["path"]).write_bytes(b"")
    done = invoke("score", "--manifest", write(manifest, lines), *ONLY, "--out", tmp_path / "out")
    assert done.code == 4
    assert "has 20 frames, and its chunk_borders in the manifest reach 900" in done.err
    assert "the file is empty (0 bytes)" in done.err
    status = [s.status for s in RunStore.open(tmp_path / "out").samples()]
    assert sorted(status) == ["error"] * 2 + ["not_applicable"] * 3 + ["ok"] * 5


def test_importers_show_what_they_understood_and_write_it_down(tmp_path: Path, invoke: Invoke) -> None:
    for method in ("memrope", "fifo"):
        (tmp_path / method).mkdir()
        write_video(tmp_path / method / "rank0-1-0_lora.mkv", clip(), 8)
    (tmp_path / "fifo" / "grid.mp4").touch()
    (tmp_path / "prompts.txt").write_text("A cat\nA dog\n")
    before = sorted(tmp_path.rglob("*"))
    words = ("score", tmp_path / "memrope", tmp_path / "fifo", "--layout", "memrope")
    words = (*words, "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "out", *ONLY)
    done = invoke(*words, "--dry-run")
    assert done.code == 0
    assert done.out.splitlines() == [
        f"{tmp_path}/{method}/rank0-1-0_lora.mkv\t0001\tA dog\t0\t{method}" for method in ("memrope", "fifo")
    ]
    assert "left out: " in done.err
    assert "grid.mp4': not named as rank0-12-0_lora.mp4" in done.err
    assert sorted(tmp_path.rglob("*")) == before
    saved = tmp_path / "m.jsonl"
    assert invoke(*words, "--dry-run", "--save-manifest", saved).code == 0
    assert json.loads(saved.read_text().splitlines()[0]) == {
        "id": "0001", "path": "memrope/rank0-1-0_lora.mkv", "prompt": "A dog", "method": "memrope",
        "chunk_borders": "9+12", "latent_borders": "1+4",
    }  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert invoke(*words).code == 0
    first = RunStore.open(tmp_path / "out").samples()[0]
    assert (first.timing.chunk_borders, first.timing.latent_borders) == ((9,), (1, 5, 13, 17))
    assert RunStore.open(tmp_path / "out").run.resolved["left_out"] == [f"{tmp_path}/fifo/grid.mp4"]
    here = magbench.score(manifest=saved, metrics="motion@default", workers=0, out=tmp_path / "again")
    assert {s.key for s in here.samples} == {s.key for s in RunStore.open(tmp_path / "out").samples()}
    refused = invoke("score", tmp_path / "memrope", "--save-manifest", saved)
    assert (refused.code, "--save-manifest needs names to read" in refused.err) == (2, True)
