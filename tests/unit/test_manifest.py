"""Manifests, the hostile kind included."""

import json
from pathlib import Path
from typing import Any

import pytest

from magbench.data import manifest
from magbench.data.manifest import borders, manifest_text, read_manifest
from magbench.errors import ConfigError

FULL: dict[str, Any] = {
    "id": "a\u2028b, \"c\"\n#%", "path": "-v é\n%03d.mp4", "prompt": "p", "method": "m:x=1", "seed": 3,
    "schedule": [{"at": 2.5, "prompt": "q", "cut": True}], "chunk_borders": [9, 21], "latent_borders": [1, 5],
    "truth": "t.mp4", "history_frames": 9,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (FULL["path"], "t.mp4", "v.mp4", "w.mp4", "x" * 251 + ".mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    return tmp_path


def write(folder: Path, text: str | bytes, name: str = "m.jsonl") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def line(**fields: Any) -> str:
    return json.dumps({"id": "a", "path": "v.mp4", **fields}) + "\n"


def faults(file: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_manifest(file)
    assert caught.value.hint
    return [one.strip() for one in caught.value.message.split("\n")[1:]] or [caught.value.message]


def test_every_field_of_json_lines(folder: Path) -> None:
    (row,) = read_manifest(write(folder, "\ufeff\n" + json.dumps(FULL, ensure_ascii=False) + "\n\n"))
    expected = {**FULL, "path": str(folder / FULL["path"]), "truth": str(folder / "t.mp4")}
    assert json.loads(row.model_dump_json()) == expected


def test_every_field_of_csv(folder: Path) -> None:
    text = (
        "id,path,prompt,schedule,chunk_borders,latent_borders,truth,history_frames,seed,method\r\n"
        '"a, ""b""\nc",v.mp4,p,"[{""at"": 2.5, ""prompt"": ""q""}]",9 21,"[1, 5]",t.mp4,9,3,m\r\n'
        "\r\n"
        "d,w.mp4,,,,1+4,,,,\r\n"
    )
    first, second = read_manifest(write(folder, text, "m.csv"))
    assert (first.id, first.schedule[0].at, first.chunk_borders, first.latent_borders) == (
        'a, "b"\nc', 2.5, (9, 21), (1, 5)
    )  # fmt: skip
    assert (first.seed, first.history_frames, first.truth) == (3, 9, str(folder / "t.mp4"))
    assert second.latent_borders == "1+4"
    assert (second.method, second.seed, second.prompt, second.truth) == ("videos", 0, "", "")


def test_what_is_written_reads_back_from_another_place(folder: Path) -> None:
    rows = read_manifest(write(folder, json.dumps(FULL) + "\n" + line(path="x" * 251 + ".mp4")))
    text = manifest_text(rows, folder)
    assert str(folder) not in text
    assert read_manifest(write(folder, text, "again.jsonl")) == rows
    (folder / "sub").mkdir()
    assert read_manifest(write(folder / "sub", manifest_text(rows, folder / "sub"))) == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (line(seed=-1), "row 1: seed is -1, expected a whole number, 0 or more"),
        (line(seed=True), "row 1: seed is True, expected a whole number"),
        (line(seed=1.5), "row 1: seed is 1.5, expected a whole number"),
        (line(seed=2**63), "row 1: seed is 9223372036854775808, expected"),
        ('{"id": "a", "path": "v.mp4", "seed": NaN}', "row 1: is not JSON (NaN is not strict JSON)"),
        ('{"id": "a", "id": "b", "path": "v.mp4"}', "row 1: is not JSON (a field stands there twice)"),
        ('{"seed": ' + "[" * 100_000, "row 1: is not JSON ("),
        ('{"seed": ' + "9" * 5000 + "}", "row 1: is not JSON ("),
        ('[{"id": "a", "path": "v.mp4"}]', "row 1: is [{'id': 'a', 'path': 'v.mp4'}], expected one JSON object"),
        (line(promt="x"), "row 1: unknown field 'promt', did you mean 'prompt'?"),
        ('{"id": "a"}', "row 1: path is missing, expected the path of a video file"),
        (line(id=""), "row 1: id is '', expected a text"),
        (line(id="a" * 1001), "row 1: id is 'aaaa"),
        ('{"id": "\\ud800", "path": "v.mp4"}', "row 1: id is "),
        (line(method="static"), "row 1: method is 'static', expected a text of 1 to 1000 characters, none of real"),
        (line(chunk_borders=[9, 9]), "row 1: chunk_borders is [9, 9], expected ascending"),
        (line(chunk_borders=[0]), "row 1: chunk_borders is [0], expected ascending pixel-frame numbers above 0"),
        (line(latent_borders="1 b"), "row 1: latent_borders is '1 b', expected ascending"),
        (line(chunk_borders="9+0"), "row 1: chunk_borders is '9+0', expected ascending"),
        (line(chunk_borders="0+9"), "row 1: chunk_borders is '0+9', expected ascending"),
        (line(chunk_borders=9), "row 1: chunk_borders is 9, expected ascending"),
        (line(schedule=[{"at": 2, "prompt": "x"}, {"at": 1, "prompt": "y"}]), "row 1: schedule is [{'at': 2"),
        (line(schedule=[{"at": 0, "prompt": "x"}]), "row 1: schedule 0 at is 0, expected"),
        (line(schedule="[{"), "row 1: schedule is '[{', expected"),
        (line(path="gone\n.mp4"), "row 1: path 'gone\\n.mp4' does not exist"),
        (line(path="a\0b"), "row 1: path 'a\\x00b' does not exist"),
        (line(path="x" * 300), "cannot be read (File name too long)"),
        (line(path="folder.mp4"), "row 1: path 'folder.mp4' is a folder"),
        (line(truth="gone.mp4"), "row 1: truth 'gone.mp4' does not exist"),
        (line() * 2, "row 2: id 'a', method 'videos', seed 0 is row 1 already"),
        (line() + line(method="m", prompt="q"), "row 2: id 'a' has another prompt than in row 1"),
        (line() + line(method="m", truth="t.mp4"), "row 2: id 'a', seed 0 has another truth than in row 1"),
        ("id,path\na,v.mp4,b\n", "row 2: has 3 cells and the header 2"),
        ("id,path,id\n", "row 1: the column 'id' stands there twice"),
        ("id,pfad\n", "row 1: unknown field 'pfad', did you mean 'path'?"),
        ('id,path\n"a"b,v.mp4\n', "row 2: is not CSV ("),
        ("id,path\n" + "a" * 200_000 + ",v.mp4\n", "row 2: is not CSV (field larger than field limit"),
        ("", "holds no row"),
        ("id,path\n", "holds no row"),
        (b'{"id": "\xff"}', "is not UTF-8 text (byte 0xff at position 8)"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_that_names_the_row_the_value_and_what_to_do(
    folder: Path, text: str | bytes, says: str
) -> None:
    (found,) = faults(write(folder, text))
    assert says in found
    assert len(found) < 400


def test_all_faults_are_listed_at_once_in_the_order_of_rows(folder: Path) -> None:
    text = line(seed="x", path="w.mp4") + line(id="b", path="gone") + "{\n" + line(id="b", path="gone", method="m")
    assert [found[:6] for found in faults(write(folder, text))] == ["row 1:", "row 2:", "row 3:", "row 4:"]
    many = faults(write(folder, "".join(line(id=str(i), seed=-1) for i in range(150))))
    assert len(many) == manifest.SHOWN + 1
    assert many[-1] == "... and 50 more"


def test_a_manifest_has_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_ROWS", 2)
    assert "row 3: more than 2 rows" in faults(write(folder, "".join(line(id=str(i)) for i in range(9))))[0]
    monkeypatch.setattr(manifest, "MAX_BYTES", 2**20)
    assert "larger than 1 MiB" in faults(write(folder, b" " * (2**20 + 1)))[0]
    assert "there is no manifest" in faults(Path("/dev/zero"))[0]
    assert "there is no manifest" in faults(folder)[0]


def test_borders_at_equal_distances_end_with_the_video() -> None:
    assert borders("9+12", 34) == (9, 21, 33)
    assert borders("9+12", 33) == (9, 21)
    assert borders("9+12", 9) == ()
    assert borders((4, 6), 5) == (4, 6), "those that were counted out are checked, not cut"
