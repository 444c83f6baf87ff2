import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import mannwhitneyu, spearmanr

from magbench.cli import group
from magbench.data.damage import DAMAGES, LASTING
from magbench.data.video import write_video
from magbench.errors import ConfigError
from magbench.metrics import METRICS
from magbench.options import ValidateOptions
from magbench.reports.validation import page
from magbench.runners.validation import Worker, prepare_validation, run_validation
from magbench.validation import (
    CLEAN,
    Finding,
    Measured,
    ValidationRecord,
    ValidationSpec,
    area,
    conclude,
    load_spec,
    spearman,
)
from tests.unit.clips import pan

DOCS = Path(__file__).parents[2] / "docs"
END = "made@default/number"


def test_ranks_and_areas_are_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 6, 9).astype(float), rng.integers(0, 6, 9).astype(float)
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
        u = mannwhitneyu(x, y).statistic
        assert area(x, y) == pytest.approx(u / 81)
    assert spearman([0, 1, 2, 3], [1, 1, 1, 1]) == 0
    assert spearman([0, 1, 2, 3], [0, 1, np.nan, 2]) == 1
    assert area(x, np.array([])) is None


def spec(claims: Mapping[str, list[str]]) -> ValidationSpec:
    shipped = load_spec().model_dump()
    return ValidationSpec.model_validate({**shipped, "levels": 8, "claims": {END: claims}})


def measured(clip: str, damage: str, values: list[float | None], reason: str = "") -> Measured:
    count = len(values)
    return Measured(
        clip=clip,
        damage=damage,
        onset=0.25,
        identity="",
        versions={},
        strengths=tuple(range(count)) if damage == CLEAN else tuple(range(1, count + 1)),
        psnr=tuple(42.0 - 4 * n for n in range(count)),
        values={END: tuple(values)},
        reasons={END: reason} if reason else {},
    )


def finding(claims: Mapping[str, list[str]], number: Callable[[int, int], float | None], clips: int = 4) -> Finding:
    """Of a metric that reads `number(clip, level)`, level 0 being the clean clip; the damage is blur."""
    found = [measured(f"c{c}", CLEAN, [number(c, 0)]) for c in range(clips)]
    found += [measured(f"c{c}", "blur", [number(c, n) for n in range(1, 9)], "frozen") for c in range(clips)]
    (one,) = conclude(spec(claims), {END: ("blur",)}, found[::-1])[1]
    return one


def test_a_metric_that_follows_the_damage_sees_it() -> None:
    one = finding({"rises": ["blur"]}, lambda clip, level: 10 * clip + level**2)
    assert (one.verdict, one.rho, one.series) == ("holds", 1.0, 4)
    # the first level of at most 30 dB is the fourth; 10 c + 16 against 10 c, of 16 pairs 10 and no tie
    assert one.auc == pytest.approx(np.mean([10 * a + 16 > 10 * b for a in range(4) for b in range(4)]))
    assert one.change == pytest.approx(64 / np.std([0, 10, 20, 30], ddof=1))
    assert finding({"falls": ["blur"]}, lambda clip, level: 10 * clip + level**2).verdict == "fails"
    falling = finding({"falls": ["blur"]}, lambda clip, level: 10 * clip - level)
    assert (falling.verdict, falling.rho) == ("holds", -1.0)
    assert finding({"open": ["blur"]}, lambda clip, level: level).verdict == "no claim"


def test_noise_is_not_seeing() -> None:
    rng = np.random.default_rng(1)
    one = finding({"rises": ["blur"]}, lambda clip, level: float(rng.normal()))
    assert one.verdict == "fails"
    assert abs(one.rho or 0) < 0.6


def test_blind_is_less_than_the_clean_clips_differ() -> None:
    assert finding({"blind": ["blur"]}, lambda clip, level: clip + 0.1 * level).verdict == "holds"
    assert finding({"blind": ["blur"]}, lambda clip, level: clip + 0.2 * level).verdict == "fails"
    assert finding({"blind": ["blur"]}, lambda clip, level: 1.0).verdict == "holds"
    assert finding({"blind": ["blur"]}, lambda clip, level: float(level > 4)).verdict == "fails"
    one = finding({"blind": ["blur"]}, lambda clip, level: 1.0, clips=1)
    assert (one.verdict, one.reason) == ("not measured", "one clean clip has no spread: give two")


def test_a_number_that_is_missing_says_why() -> None:
    one = finding({"rises": ["blur"]}, lambda clip, level: None if level > 3 else level)
    assert (one.verdict, one.reason) == ("not measured", "frozen")
    one = finding({"rises": ["blur"]}, lambda clip, level: None if level == 8 else level)
    assert (one.verdict, one.rho) == ("holds", 1.0)


def test_the_shipped_claims_are_about_what_there_is() -> None:
    shipped = load_spec()
    assert set(shipped.damages) == set(DAMAGES)
    assert shipped.levels >= 8
    assert len(shipped.onsets) >= 2
    assert all(s.strongest >= shipped.visible.seconds for d, s in shipped.damages.items() if d in LASTING)
    for endpoint in shipped.claims:
        name, _, reduction = endpoint.partition("/")
        assert reduction in {declared.name for declared in METRICS[name].reductions}, endpoint
    seen = {d for claims in shipped.claims.values() for d in (*claims.rises, *claims.falls)}
    assert seen >= {"identity", "exposure", "blur", "colour", "freeze", "seams"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"claims": {END: {"rises": ["rust"]}}}, "names the unknown damage 'rust'"),
        ({"claims": {END: {"rises": ["blur"], "blind": ["blur"]}}}, "names twice the damage 'blur'"),
        ({"levels": 3}, "levels"),
        ({"damages": {"blur": {"weakest": 2, "strongest": 1}}}, "not below the strongest"),
    ],
)
def test_claims_that_cannot_be_used_are_named(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    import yaml

    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump({**load_spec().model_dump(mode="json"), **change}))
    with pytest.raises(ConfigError, match=problem):
        load_spec(file)


def claims_file(folder: Path, claims: dict[str, object]) -> Path:
    """A small job: short clips, few of them."""
    shipped = load_spec().model_dump(mode="json")
    small = {"seconds": 5, "clean": 2, "damaged": 1, "onsets": [0.25], "levels": 5, "claims": claims}
    (folder / "claims.yaml").write_text(json.dumps({**shipped, **small}))  # JSON is YAML
    return folder / "claims.yaml"


def test_given_clips_are_damaged_scored_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        write_video(tmp_path / f"clip {seed}.mkv", pan(60, seed=seed), 8.0)
    claims = {
        "appearance_drift@default/drift": {"rises": ["exposure"]},
        "appearance_drift@default/colour": {"falls": ["exposure"]},
        "lpips_consecutive@mini/median": {"rises": ["exposure"]},
    }
    words = ["validate", *(str(tmp_path / f"clip {n}.mkv") for n in (0, 1)), "--workers", "0"]
    words += ["--claims", str(claims_file(tmp_path, claims)), "--out", str(tmp_path / "out")]

    def call(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(group, [*words, *more], standalone_mode=False)
        assert done.exception is None, done.output
        return done.return_value, done.output

    code, told = call()
    assert code == 3  # the distance of colours doesn't fall
    record = ValidationRecord.model_validate_json((tmp_path / "out/validation.json").read_text())
    assert {f.endpoint: f.verdict for f in record.findings} == {
        "appearance_drift@default/drift": "holds",
        "appearance_drift@default/colour": "fails",
        "lpips_consecutive@mini/median": "not measured",
    }
    assert "the judge reads 64x64" in told
    assert "identity: only a rendered clip has another subject" in told
    assert not list((tmp_path / "out/clips").glob(".*"))
    lost = next((tmp_path / "out/measured").glob("clip-0*.exposure.*"))
    lost.unlink()
    did: list[str] = []
    carry_out = Worker.__call__
    monkeypatch.setattr(
        Worker, "__call__", lambda self, task, emit: did.append(task.key) or carry_out(self, task, emit)
    )
    assert call()[0] == 3
    assert did == [lost.stem]
    assert ValidationRecord.model_validate_json((tmp_path / "out/validation.json").read_text()) == record


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no validation"):
        prepare_validation([], ValidateOptions(out=tmp_path))


def stored() -> ValidationRecord:
    return ValidationRecord.model_validate_json((DOCS / "validation.json").read_text(encoding="utf-8"))


def test_the_documented_table_is_the_stored_record() -> None:
    record = stored()
    assert page(record) in (DOCS / "validation.md").read_text(encoding="utf-8")
    assert record.spec == load_spec(), "the claims have changed: run magbench validate again"
    assert {name: METRICS[name].version for name in record.versions} == record.versions, "run magbench validate again"
    assert record.count("fails") == 0
    wanted = {endpoint: claims.damages for endpoint, claims in record.spec.claims.items()}
    levels, findings = conclude(record.spec, wanted, record.measured)
    assert levels == record.levels
    assert set(findings) == set(record.findings)


def test_the_stored_numbers_come_out_again(tmp_path: Path) -> None:
    """One clip, darkened in full, and two metrics."""
    record = stored()
    endpoints = ("appearance_drift@default/drift", "subject_consistency@mini/anchor")
    small = {"clean": 2, "damaged": 1, "onsets": [0.25], "claims": {e: {"open": ["exposure"]} for e in endpoints}}
    file = tmp_path / "claims.yaml"
    file.write_text(json.dumps({**record.spec.model_dump(mode="json"), **small}))
    options = ValidateOptions(claims=file, workers=0, out=tmp_path / "out")
    again = run_validation(prepare_validation([], options), lambda event: None)
    assert len(again.measured) == 3
    for one in again.measured:
        (before,) = (m for m in record.measured if (m.clip, m.damage, m.onset) == (one.clip, one.damage, one.onset))
        assert one.psnr == pytest.approx(before.psnr, abs=0.05)
        for endpoint in endpoints:
            assert one.values[endpoint] == pytest.approx(before.values[endpoint], rel=0.02, abs=0.002)
