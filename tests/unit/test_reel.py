"""Latents on their way to disk and back; what is damaged or of another batch is not believed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from magbench.records import RunRecord, TraceRecord
from magbench.runners import reel
from magbench.runners.reel import Packed, Reel
from magbench.runners.rollout import Step
from magbench.store import RunStore

FRAMES, PART = 45, 12
ROWS = {"one": 0, "three": 2}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reel, "PART_FRAMES", PART)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path / "run", RunRecord(magbench_version="0", kind="run"))


def steps(frames: int = FRAMES) -> list[Step]:
    latents = torch.randn(3, frames, 2, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = []
    for first in range(0, frames, 3):
        if first == 24:
            found.append(Step(latents[:, :0], trace(first, "recache")))
        found.append(Step(latents[:, first : first + 3], trace(first)))
    return found


def trace(first: int, kind: str = "generate") -> TraceRecord:
    sizes = {"past_frames": 1 / 3, "cached_frames": 2.0, "cache_bytes": 5}
    return TraceRecord(chunk=first // 3, kind=kind, first_frame=first, frames=3, ms=0.1 * first, passes=2, **sizes)


def state(at: int) -> Packed:
    return json.dumps({"at": at}), {"0": torch.full((2, 3), float(at)), "1": torch.tensor(True)}


def open_reel(store: RunStore, rows: dict[str, int] = ROWS, identity: str = "a", frames: int = FRAMES) -> Reel:
    return Reel(store, "batch", identity, dict(rows), frames)


def feed(made: Reel, given: list[Step], resumable: bool = True) -> None:
    for step in given:
        made.add(step, lambda: state(made.done) if resumable else None)
        assert len(made._latents) <= 2 * PART // 3 + 1, "no more in memory than two parts"


def names(store: RunStore) -> list[str]:
    folder = store.work("batch")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_what_goes_in_comes_out(store: RunStore) -> None:
    made, given = open_reel(store), steps()
    feed(made, given)
    assert made.complete and len(names(store)) == 3 + 1
    for key, row in ROWS.items():
        blocks = list(made.latents(key))
        assert [len(block) for block in blocks] == [12, 12, 21]
        assert torch.equal(torch.cat(blocks), torch.cat([step.latents[row] for step in given]))
    assert made.trace() == [step.trace for step in given]
    again = open_reel(store)
    assert again.complete and again.saved is None and again.trace() == made.trace()
    made.clear()
    assert not (store.root / "work").exists()


def test_short_ones_stay_in_memory(store: RunStore) -> None:
    made, given = open_reel(store, frames=21), steps(21)
    for step in given:
        made.add(step, lambda: pytest.fail("no state is needed"))
    assert made.complete and names(store) == [] and not (store.root / "work").exists()
    assert torch.equal(torch.cat([*made.latents("three")]), torch.cat([step.latents[2] for step in given]))
    assert made.trace() == [step.trace for step in given]


@pytest.mark.parametrize("stop", [4, 5, 9, 14])
def test_goes_on_behind_the_last_part(store: RunStore, stop: int) -> None:
    given = steps()
    feed(open_reel(store), given[:stop])
    again = open_reel(store, rows={"three": 2})
    assert again.done == PART * min(2, len([s for s in given[:stop] if s.latents.shape[1]]) * 3 // PART)
    assert again.rows == ROWS, "the batch is what it was"
    text, tensors = again.saved or ("", {})
    assert json.loads(text) == {"at": again.done} and torch.equal(tensors["0"], state(again.done)[1]["0"])
    feed(again, [step for step in given if step.trace.first_frame >= again.done])
    assert torch.equal(torch.cat([*again.latents("one")]), torch.cat([step.latents[0] for step in given]))
    assert again.trace() == [step.trace for step in given]


def test_without_a_state_it_starts_over(store: RunStore) -> None:
    feed(open_reel(store), steps()[:9], resumable=False)
    assert len(names(store)) == 2 and open_reel(store).done == 0
    made = open_reel(store)
    feed(made, steps(), resumable=False)
    assert made.complete and open_reel(store).complete


@pytest.mark.parametrize("change", [{"identity": "b"}, {"rows": {"one": 0, "two": 1}}])
def test_another_batch_is_not_taken_up(store: RunStore, change: dict[str, object]) -> None:
    feed(open_reel(store), steps()[:9])
    assert open_reel(store).done == 24
    assert open_reel(store, **change).done == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [0.02, 0.5, 0.9, -1])
@pytest.mark.parametrize("kind", ["state", "part-00001"])
def test_damage_is_seen(store: RunStore, kind: str, place: float) -> None:
    feed(open_reel(store), steps()[:9])
    (path,) = store.work("batch").glob(f"{kind}*")
    data = bytearray(path.read_bytes())
    if place < 0:
        del data[-3:]
    else:
        data[int(place * len(data))] ^= 0x40
    path.write_bytes(data)
    assert open_reel(store).done == 0
    made = open_reel(store)
    feed(made, steps())
    assert torch.equal(torch.cat([*made.latents("one")]), torch.cat([step.latents[0] for step in steps()]))


def test_a_part_that_is_gone_is_missed(store: RunStore) -> None:
    feed(open_reel(store), steps()[:9])
    next(store.work("batch").glob("part-00000*")).unlink()
    assert open_reel(store).done == 0


@pytest.mark.parametrize("change", [{"parts": ["../../secret"]}, {"parts": [7]}, {"parts": None}, {"rows": []}])
def test_a_forged_state_is_ignored(store: RunStore, change: dict[str, object]) -> None:
    feed(open_reel(store), steps()[:9])
    path = store.work("batch") / reel.STATE
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    tensors, text = load_file(path), json.dumps(about | change)
    save_file(tensors, path, {"about": text, "digest": reel._digest(tensors, text)})
    assert open_reel(store).done == 0
