"""Our prompts, the suites made of them, and published prompt files."""

import hashlib
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from magbench.data import prompts, wan_suites
from magbench.data.mini_world import Scene
from magbench.data.prompts import KnownFile, known_files, own_prompts, recognise
from magbench.errors import ConfigError
from magbench.options import RunOptions
from magbench.runners.models import ANNOUNCED, find_model, generated
from magbench.runners.prepare import prepare
from magbench.suite import load_suite, parse_suite, suite_names

STRATA = ("static camera", "moving camera", "several subjects", "scenery")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def test_every_stratum_has_eight_prompts_for_each_half() -> None:
    found = Counter((prompt.stratum, prompt.split) for prompt in own_prompts())
    assert found == {(stratum, split): 8 for stratum in STRATA for split in ("dev", "test")}
    assert len({prompt.id for prompt in own_prompts()}) == 64
    assert {prompt.id for prompt in own_prompts("dev")}.isdisjoint(prompt.id for prompt in own_prompts("test"))


def test_prompts_are_plain_text_of_40_to_90_words() -> None:
    for prompt in own_prompts():
        assert 40 <= len(prompt.prompt.split()) <= 90, prompt.id
        assert re.fullmatch(r"[A-Z][ -~]+[.]", prompt.prompt), prompt.id


def test_no_two_prompts_are_alike() -> None:
    """Of the words of more than three letters that two prompts use, they share less than a quarter."""
    sets = {prompt.id: {word for word in words(prompt.prompt) if len(word) > 3} for prompt in own_prompts()}
    for one, other in combinations(sets, 2):
        assert len(sets[one] & sets[other]) / len(sets[one] | sets[other]) < 0.25, (one, other)
    openings = [" ".join(words(prompt.prompt)[:8]) for prompt in own_prompts()]
    assert len(set(openings)) == 64


def test_nothing_is_asked_for_that_a_single_shot_cannot_show() -> None:
    """No cut, caption or logo; a static camera doesn't move, and where it closes a path it says that it comes back."""
    for prompt in own_prompts():
        assert not {"caption", "subtitle", "logo", "title", "montage", "scene"} & set(words(prompt.prompt)), prompt.id
        if prompt.stratum == "static camera":
            assert {"still", "fixed", "move", "moves", "exactly", "place", "picture", "tripod"} & set(
                words(prompt.prompt)
            ), prompt.id
        if prompt.closed_path:
            assert {"back", "again", "returns", "round"} & set(words(prompt.prompt)), prompt.id


def test_closed_camera_paths_are_in_both_halves() -> None:
    closed = Counter(prompt.split for prompt in own_prompts() if prompt.closed_path)
    assert closed == {"dev": 6, "test": 6}
    assert not any(prompt.closed_path for prompt in own_prompts() if prompt.stratum == "static camera")


def test_the_licence_is_with_the_prompts() -> None:
    folder = Path(prompts.__file__).parent / "prompts"
    assert "CC0 1.0" in (folder / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["wan-quick", "wan-standard", "wan-long"])
def test_suite_files_are_what_their_code_writes(name: str) -> None:
    assert name in suite_names()
    written = parse_suite(yaml.safe_dump(wan_suites.suites()[name]), name)
    assert load_suite(name) == written


@pytest.mark.parametrize(
    ("name", "split", "videos", "frames"),
    [
        ("wan-quick", "dev", 8, 8 * 477),
        ("wan-standard", "test", 64, 64 * 957),
        ("wan-long", "test", 10, 8 * 3837 + 2 * 57597),
    ],
)
def test_suites_are_as_large_as_promised(name: str, split: str, videos: int, frames: int) -> None:
    """A latent frame is four pixel frames, the first is one: 1 + 4 x 119 = 477."""
    suite = load_suite(name)
    assert generated(suite) == (videos, frames, frames / 16)
    cases = suite.cases("long-horizon")
    texts = {prompt.prompt: prompt for prompt in own_prompts()}
    for case in cases:
        own = texts[case.prompt]
        assert own.split == split
        assert (case.stratum, case.closed_path) == (own.stratum, own.closed_path)
        assert case.frames % ANNOUNCED[suite.model].chunk == 0
    assert {case.stratum for case in cases} == set(STRATA)
    assert any(case.closed_path for case in cases)


def test_a_model_that_cannot_be_loaded_yet_says_so() -> None:
    with pytest.raises(ConfigError, match=r"model 'wan2\.1-1\.3b/self-forcing' cannot run yet") as caught:
        prepare(RunOptions(method=("memrope",), suite="wan-quick"))
    assert "magbench score" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="unknown model 'wan'"):
        find_model("wan")


KNOWN = KnownFile(title="t", source="s", file="known.txt", prompts=2, sha256=None)
TEXT = "a cat\na dog\n"
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that bears a known name, and an empty cache."""
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prompts, "known_files", lambda: {"pets": KNOWN})
    (tmp_path / "known.txt").write_text(TEXT)
    return tmp_path / "known.txt"


def test_known_files_say_where_they_are_from() -> None:
    assert "moviegenbench-128-refined" in known_files()
    for entry in known_files().values():
        assert entry.source.startswith("https://")
        assert entry.title


def test_a_published_hash_is_recognised_whatever_the_name(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "known_files", lambda: {"pets": KNOWN.model_copy(update={"sha256": SHA256})})
    other = known.rename(known.with_name("mine.txt"))
    assert recognise(other, 2).known == "pets"
    other.write_text(TEXT + "\n")
    found = recognise(other, 2)
    assert (found.known, found.sha256) == ("", hashlib.sha256((TEXT + "\n").encode()).hexdigest())


def test_an_unknown_hash_is_recorded_at_first_use_and_holds_from_then_on(known: Path, tmp_path: Path) -> None:
    first = recognise(known, 2)
    assert (first.known, first.sha256, first.note) == ("pets", SHA256, "by its name; its hash is now recorded")
    assert (tmp_path / "cache" / "prompts" / "pets.sha256").read_text() == SHA256 + "\n"
    assert recognise(known.rename(tmp_path / "mine.txt"), 2).note == "by the hash of its first use"
    known.write_text("a cat\na cow\n")
    assert recognise(known, 2).known == ""
    assert recognise(known, 2).note == f"not pets: that has the sha256 {SHA256}"


def test_a_file_with_another_number_of_prompts_is_not_taken_for_a_known_one(known: Path, tmp_path: Path) -> None:
    assert recognise(known, 3).note == "not pets: that holds 2 prompts"
    assert not (tmp_path / "cache").exists()


def test_any_other_file_has_its_hash_only(known: Path, tmp_path: Path) -> None:
    found = recognise(known.rename(tmp_path / "mine.txt"), 2)
    assert (found.known, found.note, found.sha256) == ("", "", SHA256)


def test_the_run_record_says_which_prompts(known: Path, tmp_path: Path) -> None:
    text = "\n".join(Scene("clear", "meadow", *colours, "tall", "stands still").sentence() for colours in COATS) + "\n"
    known.write_text(text)
    options = RunOptions(method=("fifo",), prompts=known, seconds=3, out=tmp_path / "run")
    said = prepare(options).record.resolved["prompts"]
    assert said == {
        "file": str(known),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "prompts": 2,
        "known": "pets",
        "note": "by its name; its hash is now recorded",
    }


COATS = (("red", "blue"), ("blue", "red"))
