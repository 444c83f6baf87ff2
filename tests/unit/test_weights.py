import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from magbench.errors import ConfigError, MissingWeightsError
from magbench.metrics import weights
from magbench.metrics.weights import cache_folder, find, load_state, manifest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_every_entry_says_where_it_is_from_and_how_to_check_it() -> None:
    assert manifest()
    for entry in manifest().values():
        assert entry.url.startswith("https://")
        assert "/" not in entry.file
        assert entry.licence
        assert entry.megabytes > 0
        assert entry.sha256 is None or set(entry.sha256) <= set("0123456789abcdef")


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
