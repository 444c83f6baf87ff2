"""Suites: strict files, clear messages."""

from pathlib import Path

import pytest

from magbench.errors import ConfigError
from magbench.records import Switch
from magbench.suite import load_suite, parse_suite, prompt_cases, suite_names

GOOD = """
name: small
version: 2
model: mini
tracks:
  long-horizon:
    frames: 12
    seeds: [0, 1]
    metrics: [motion@default]
    primary: [motion@default/median]
    cases:
      - {id: a, prompt: one}
      - {id: b, prompt: two, frames: 24}
"""


def test_track_defaults_fill_cases() -> None:
    suite = parse_suite(GOOD, "x")
    assert [(c.id, c.frames, c.track) for c in suite.cases("long-horizon")] == [
        ("a", 12, "long-horizon"),
        ("b", 24, "long-horizon"),
    ]
    assert suite.tracks["long-horizon"].references == ("real", "static", "shuffled")


def test_a_schedule_reaches_the_case() -> None:
    suite = parse_suite(GOOD.replace("prompt: one", "prompt: one, schedule: [{at: 1, prompt: p, cut: true}]"), "x")
    assert [case.schedule for case in suite.cases("long-horizon")] == [(Switch(at=1, prompt="p", cut=True),), ()]


def test_horizons_are_kept_in_one_spelling() -> None:
    suite = parse_suite(
        GOOD.replace("frames: 12", 'horizons: ["motion@default/still - real  >  0.50"]\n    frames: 12'), "x"
    )
    assert suite.tracks["long-horizon"].horizons == ("motion@default/still-real>0.5",)
    assert parse_suite(GOOD, "x").tracks["long-horizon"].horizons == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 2", "version: 0", "version: Input should be greater than or equal to 1"),
        ("name: small", "name: ../up", "name: String should match pattern"),
        ("frames: 12", "framse: 12", "framse: Extra inputs are not permitted"),
        ("    frames: 12\n", "", "case 'a' has no frames, nor has its track"),
        ("id: b", "id: a", "case ids used twice: a"),
        ("prompt: two", "prompt: two, history_frames: 24", "case 'b': history_frames 24 leaves nothing of 24"),
        ("[motion@default/median]", "[ssim@default/median]", "primary endpoint 'ssim@default/median' is of no metric"),
        ("[motion@default]", "[motion]", "String should match pattern"),
        ("frames: 12", 'horizons: ["drift > 1"]', "'drift > 1' is no horizon: write"),
        ("frames: 12", 'horizons: ["motion@default/still > 1"]', "motion@default follows the camera"),
        ("frames: 12", 'frames: 12\n    horizons: ["x@default/y > 1"]', "horizon 'x@default/y>1' is of no metric"),
        ("seeds: [0, 1]", "seeds: []", "seeds: Tuple should have at least 1 item"),
        ("long-horizon:", "long-track:", "tracks.long-track"),
        ("name: small", "name: [", "is not YAML"),
        (
            "prompt: one",
            "prompt: one, schedule: [{at: 1, prompt: p}, {at: 1, prompt: q}]",
            "cases.0.schedule: Value error, switches must come in the order of their times, 1 s follows 1 s",
        ),
        ("prompt: one", "prompt: one, schedule: [{at: 0, prompt: p}]", "schedule.0.at: Input should be greater than 0"),
        ("prompt: one", "prompt: one, schedule: [{at: 1}]", "schedule.0.prompt: Field required"),
    ],
)
def test_a_bad_suite_names_its_fault(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse_suite(GOOD.replace(old, new), "x")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_unknown_suite_is_guessed() -> None:
    with pytest.raises(ConfigError, match="unknown suite 'mimi'") as caught:
        load_suite("mimi")
    assert "did you mean 'mini'?" in str(caught.value.hint)


def test_suite_file(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(GOOD)
    assert load_suite(str(tmp_path / "own.yaml")).name == "small"
    with pytest.raises(ConfigError, match="cannot read suite file"):
        load_suite(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_of_the_package_loads(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert all(len(spec.primary) <= 3 for spec in suite.tracks.values())


def test_mini_is_as_large_as_promised() -> None:
    tracks = load_suite("mini").tracks
    assert {track: len(spec.cases) >= 16 for track, spec in tracks.items()} == {"long-horizon": True, "mag-bench": True}


def test_prompts_keep_their_ids_when_lines_move(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# comment\n\nA cat, asleep.\n  A dog!  \n", encoding="utf-8")
    first = prompt_cases(file)
    assert [case.prompt for case in first] == ["A cat, asleep.", "A dog!"]
    file.write_text("A dog!\nA bird\nA cat, asleep.\n", encoding="utf-8")
    assert {case.prompt: case.id for case in first}.items() <= {c.prompt: c.id for c in prompt_cases(file)}.items()


@pytest.mark.parametrize(
    ("text", "message"), [("", "holds no prompt"), ("#x\n", "holds no prompt"), ("a\nb\na\n", "same prompt twice: 'a'")]
)
def test_bad_prompt_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        prompt_cases(tmp_path / "p.txt")
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot read prompts file"):
        prompt_cases(tmp_path / "p.txt")
