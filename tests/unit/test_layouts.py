"""What file names of released generators are taken to say."""

import os
from pathlib import Path

import pytest

from magbench.data.layouts import Layout, understand
from magbench.errors import ConfigError

LONG = "A very long prompt about a lighthouse keeper who climbs the stairs " * 3
PROMPTS = ("A cat-like robot - 3 of them", "Snow, 50% #1", LONG.strip())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "memrope").mkdir()
    return tmp_path / "memrope"


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def prompts(folder: Path) -> Path:
    file = folder.parent / "prompts.txt"
    file.write_text("\n".join(PROMPTS) + "\n")
    return file


@pytest.mark.parametrize(
    ("layout", "name", "expected"),
    [
        ("vbench", "A cat-like robot - 3 of them-4.mp4", (0, 4)),
        ("vbench", "Snow, 50% #1-0.gif", (1, 0)),
        ("memrope", "rank3-1-0_lora.mp4", (1, 0)),
        ("memrope", "rank0-0-2_regular.mp4", (0, 2)),
        ("memrope", "rank0-2-1_ema.mp4", (2, 1)),
        ("memrope", f"rank1-{LONG[:100]}-0.mp4", (2, 0)),
        ("memrope", "rank1-Snow, 50% #1-1_lora.mp4", (1, 1)),
        ("self-forcing", "1-0_ema.mp4", (1, 0)),
        ("self-forcing", "0-3_regular.mp4", (0, 3)),
        ("self-forcing", f"{LONG[:100]}-1.mp4", (2, 1)),
    ],
)
def test_names_of_every_convention(layout: Layout, name: str, expected: tuple[int, int], folder: Path) -> None:
    make(folder, name)
    (row,) = understand(layout, [folder], prompts(folder)).rows
    index, sample = expected
    assert (row.id, row.prompt, row.seed, row.method) == (f"{index:04d}", PROMPTS[index], sample, "memrope")
    assert row.path == str(folder / name)
    assert (row.chunk_borders, row.latent_borders) == ((), ()) if layout == "vbench" else ("9+12", "1+4")


def test_without_prompts_names_say_what_they_can_and_the_rest_is_asked_for(folder: Path) -> None:
    make(folder, "rank0-7-0_lora.mp4", f"rank0-{LONG[:100]}-0.mp4", "rank0-A dog-0.mp4")
    found = understand("memrope", [folder])
    assert {row.id: row.prompt for row in found.rows} == {
        "0007": "", LONG[:100]: LONG[:100], "A dog": "A dog"
    }  # fmt: skip
    assert len(found.notes) == 3
    assert "1 files without a prompt" in found.notes[0]
    assert "1 prompts of 100 characters are probably cut" in found.notes[1]


def test_what_is_not_understood_is_left_out_with_the_reason(folder: Path) -> None:
    make(folder, "rank0-1-0_lora.mp4", "rank1-1-0_lora.mp4", "grid.mp4", "log.txt", "rank0-9-0_lora.mp4", ".hidden.mp4")
    make(folder, "rank0-Nobody asked-0.mp4")
    found = understand("memrope", [folder], prompts(folder))
    assert {file.name: reason for file, reason in found.left_out} == {
        "grid.mp4": "not named as rank0-12-0_lora.mp4 or rank0-PROMPT-0.mp4",
        "log.txt": "not a video by its name",
        "rank0-9-0_lora.mp4": "the prompts file has no prompt 9, counted from 0",
        "rank0-Nobody asked-0.mp4": "its prompt is not in the prompts file",
        "rank1-1-0_lora.mp4": "stands for the same prompt and sample as 'rank0-1-0_lora.mp4'",
    }
    with pytest.raises(ConfigError, match=r"no file below .* is named as in layout 'self-forcing'"):
        understand("self-forcing", [folder], prompts(folder))


def test_a_name_that_is_no_text_is_left_out(folder: Path) -> None:
    make(folder, "a-0.mp4")
    try:
        (folder / "a-0.mp4").rename(folder / os.fsdecode(b"b\xff-0.mp4"))
    except OSError:
        pytest.skip("this file system has no such names")
    make(folder, "a-0.mp4")
    ((_, reason),) = understand("vbench", [folder]).left_out
    assert "not valid UTF-8" in reason


def test_folders_are_methods_and_variants_only_where_there_are_several(tmp_path: Path) -> None:
    make(tmp_path / "x" / "out", "0-0_ema.mp4")
    make(tmp_path / "y" / "out", "0-0_ema.mp4", "0-0_regular.mp4")
    make(tmp_path / "static", "0-0_ema.mp4")
    folders = [tmp_path / "x" / "out", tmp_path / "y" / "out", tmp_path / "static"]
    methods = [row.method for row in understand("self-forcing", folders).rows]
    assert methods == ["x/out", "y/out ema", "y/out regular", f"{tmp_path.name}/static"]
    assert {row.id for row in understand("self-forcing", folders).rows} == {"0000"}


def test_outputs_of_mag_with_the_csv_of_the_benchmark(folder: Path) -> None:
    make(folder, "room_01-none-0.mp4", "room_01-caption-0.mp4", "x-none-0.mp4", "result/result_all.json")
    make(folder.parent / "bench", "clips/room_01.mp4")
    csv = folder.parent / "bench" / "mag.csv"
    csv.write_text('video_path,raw_caption,duration(sec)\nclips/room_01.mp4,"A room, seen",10\n')
    found = understand("mag", [folder], csv)
    assert [(row.method, row.id, row.prompt) for row in found.rows] == [
        ("memrope caption", "room_01", "A room, seen"),
        ("memrope none", "room_01", "A room, seen"),
    ]
    # floor(10 * 0.75 * 16) = 120; the next 12 n - 3 is 129
    assert {(row.history_frames, row.truth) for row in found.rows} == {
        (129, str(folder.parent / "bench/clips/room_01.mp4"))
    }
    assert sorted(reason for _, reason in found.left_out) == ["'x' is no clip of the CSV", "not a video by its name"]
    csv.write_text("video_path,raw_caption,duration(sec)\nclips/room_01.mp4,x,nan\n")
    with pytest.raises(ConfigError, match="row 2: duration 'nan'"):
        understand("mag", [folder], csv)
    csv.write_text("video_path,caption\n")
    with pytest.raises(ConfigError, match="has no column 'raw_caption'"):
        understand("mag", [folder], csv)
