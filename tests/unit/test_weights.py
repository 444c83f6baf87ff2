import contextlib
import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from magbench import download
from magbench.errors import ConfigError, DownloadError, MissingWeightsError
from magbench.metrics import METRICS, weights
from magbench.metrics.weights import (
    Weights,
    cache_folder,
    fetch,
    find,
    load_state,
    manifest,
    needed_by,
    require,
    state,
    verify,
)
from magbench.registry import load_object
from tests.unit.download_server import Server, serving

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_every_entry_says_where_it_is_from_and_how_to_check_it() -> None:
    assert manifest()
    for entry in manifest().values():
        assert entry.url.startswith("https://")
        assert entry.licence
        assert entry.megabytes > 0
        assert entry.sha256 is None or set(entry.sha256) <= set("0123456789abcdef")


def test_every_metric_is_named_that_needs_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the manifest says under `metrics` is what the metrics' features look for, up to the first missing one."""
    asked: set[str] = set()
    looked_up = weights.lookup
    monkeypatch.setattr(weights, "lookup", lambda name: asked.add(name) or looked_up(name))
    for metric in METRICS:
        asked.clear()
        for feature in METRICS[metric].needs.features:
            with contextlib.suppress(MissingWeightsError):
                load_object(feature.removesuffix("@bf16"))("cpu")
        needed = needed_by([metric])
        assert asked <= set(needed), f"{metric} needs {asked}: say so under `metrics` in data/weights.yaml"
        assert bool(asked) == bool(needed), f"{metric} does without {needed}: data/weights.yaml says otherwise"
    assert {metric for entry in manifest().values() for metric in entry.metrics} <= set(METRICS)


def test_a_manifest_cannot_name_a_place_outside_the_cache_folder() -> None:
    entry = manifest()["dino-vitb16"].model_dump()
    for file in ("../up.bin", "/etc/passwd", ".hidden", "a/b", ""):
        with pytest.raises(ValueError, match="file"):
            Weights(**{**entry, "file": file})


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("Apache-2.0", False),
        ("CC BY 4.0", False),
        ("MIT, from SYNC", False),
        ("CC BY-NC 4.0", True),
        ("CC BY-NC-SA 4.0", True),
        ("PolyForm Noncommercial 1.0.0", True),
        ("S-Lab, non-commercial", True),
    ],
)
def test_licences_that_forbid_commercial_use_are_told(licence: str, forbids: bool) -> None:
    assert manifest()["dino-vitb16"].model_copy(update={"licence": licence}).non_commercial == forbids


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MAGBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "magbench" / "weights"
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "weights"


def test_a_missing_file_is_named_with_source_size_and_place(folder: Path) -> None:
    with pytest.raises(MissingWeightsError, match="the weights dino-vitb16 are not here") as caught:
        find("dino-vitb16")
    for part in ("https://huggingface.co/timm/", "343 MB", "Apache-2.0", str(folder / "dino-vitb16.safetensors")):
        assert part in (caught.value.hint or "")


def test_another_file_of_that_name_is_refused(folder: Path) -> None:
    (folder / "alexnet-owt-7be5be79.pth").write_bytes(b"something else")
    with pytest.raises(MissingWeightsError, match="is not the published file"):
        find("lpips-alexnet-trunk")


@pytest.mark.parametrize("digits", [8, 64])
def test_the_right_file_is_found_with_its_hash(folder: Path, monkeypatch: pytest.MonkeyPatch, digits: int) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    entry = manifest()["dino-vitb16"].model_copy(update={"file": "w.bin", "sha256": sha256[:digits]})
    monkeypatch.setattr(weights, "manifest", lambda: {"w": entry})
    (folder / "w.bin").write_bytes(b"weights")
    assert find("w") == (folder / "w.bin", sha256)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown weights 'dino'"):
        find("dino")


Use = Callable[[str | None], None]


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving(CONTENT) as found:
        yield found


@pytest.fixture
def use(server: Server, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Put an entry `w` with this hash into the manifest, for two metrics; the server sends its file."""
    entry = manifest()["dino-vitb16"]

    def put(sha256: str | None) -> None:
        update = {"file": "w.bin", "sha256": sha256, "url": server.url, "megabytes": 1, "metrics": ("a@x", "b@x")}
        monkeypatch.setattr(weights, "manifest", lambda: {"w": entry.model_copy(update=update)})

    return put


def get(name: str = "w") -> Path:
    return fetch(name, lambda done, total: None, lambda: None)


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], None])
def test_fetched_weights_are_found_and_verified(folder: Path, use: Use, sha256: str | None) -> None:
    use(sha256)
    assert state("w") == ("missing", 0)
    assert get() == folder / "w.bin"
    assert find("w") == verify("w") == (folder / "w.bin", SHA256)
    assert state("w") == ("verified", len(CONTENT))


@pytest.mark.parametrize("sha256", ["0" * 64, "0" * 8])
def test_a_wrong_hash_leaves_nothing(folder: Path, use: Use, sha256: str) -> None:
    use(sha256)
    with pytest.raises(MissingWeightsError, match=f"is not the published file: its SHA-256 is {SHA256}, not {sha256}"):
        get()
    assert [file.name for file in folder.iterdir()] == ["w.bin.lock"]
    assert state("w") == ("missing", 0)


@pytest.mark.parametrize("sha256", [SHA256[:8], None])
def test_the_first_use_decides_where_no_hash_is_known(folder: Path, use: Use, sha256: str | None) -> None:
    use(sha256)
    (folder / "w.bin").write_bytes(CONTENT)
    assert state("w")[0] == "unverified"
    find("w")
    assert state("w")[0] == "verified"
    (folder / "w.bin").write_bytes(b"something else")
    assert state("w")[0] == "unverified"
    with pytest.raises(MissingWeightsError, match="is not the file that was used first" if not sha256 else "published"):
        find("w")
    (folder / "w.bin").unlink()
    assert get() == folder / "w.bin"


def test_another_file_is_not_fetched_in_place_of_the_one_used_first(folder: Path, use: Use, server: Server) -> None:
    use(None)
    get().unlink()
    server.content = b"something else"
    with pytest.raises(MissingWeightsError, match=r"sends is not the file that was used first") as caught:
        get()
    assert str(folder / "w.bin.json") in str(caught.value.hint)
    (folder / "w.bin.json").unlink()
    assert get().read_bytes() == b"something else"


def test_a_change_that_keeps_size_and_time_is_seen_by_verify(folder: Path, use: Use) -> None:
    use(None)
    path = get()
    then = path.stat().st_mtime_ns
    path.write_bytes(b"W" + CONTENT[1:])
    os.utime(path, ns=(then, then))
    with pytest.raises(MissingWeightsError, match="used first"):
        verify("w")


def test_a_record_that_cannot_be_read_is_no_licence_to_trust(folder: Path, use: Use) -> None:
    use(None)
    get()
    (folder / "w.bin.json").write_text("{")
    assert state("w")[0] == "unverified"
    with pytest.raises(MissingWeightsError, match=r"w\.bin\.json, the record of w\.bin, cannot be read"):
        find("w")


def test_a_file_of_another_size_is_not_even_fetched(folder: Path, use: Use, server: Server) -> None:
    use(SHA256)
    server.announced = "3000000"
    with pytest.raises(MissingWeightsError, match=r"is 3\.0 MB, expected 1 MB"):
        get()
    assert state("w") == ("missing", 0)


def test_a_part_is_said_to_be_one(folder: Path, use: Use, server: Server) -> None:
    use(SHA256)
    server.cuts = [3000] + [0] * download.ATTEMPTS
    with pytest.raises(DownloadError, match="broke after 3000 of 7000"):
        get()
    assert state("w") == ("partial", 3000)


def test_all_that_is_missing_is_named_at_once(folder: Path) -> None:
    require(["motion@default"])
    with pytest.raises(MissingWeightsError) as caught:
        require(["subject_consistency@default", "motion@default", "lpips_consecutive@default"])
    for part in ("dino-vitb16", "lpips-alexnet-trunk", "343 MB, for subject_consistency@default", str(folder)):
        assert part in caught.value.message
    assert "magbench weights fetch lpips-alexnet-trunk dino-vitb16;" in str(caught.value.hint)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("harm"),)  # type: ignore[return-value]


def test_code_in_a_weights_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(MissingWeightsError, match="cannot be read as weights"):
            load_state(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(MissingWeightsError, match="is not a state dict"):
        load_state(tmp_path / "list.pth")
    (tmp_path / "w.safetensors").write_bytes(b"garbage")
    with pytest.raises(MissingWeightsError, match="cannot be read as weights"):
        load_state(tmp_path / "w.safetensors")
