from pathlib import Path

import numpy as np
import pytest

from magbench.agreement import Agreement, Human, agreement, read_choices
from magbench.errors import ConfigError
from magbench.records import CaseRecord, MethodRecord, MetricRecord, Reduction, RunRecord, SampleRecord, VideoRef
from magbench.reports.agreement import agreement_csv, grids
from magbench.reports.tables import markdown
from magbench.results import Results
from magbench.stats import mean_estimate

HEAD = "first,second,choice"


def results(values: dict[str, float | None], policy: str = "fifo", direction: str = "lower") -> Results:
    """Samples `case-label` with the metric `made@default`: reductions `one` as given, and `level` without direction."""
    samples, metrics = [], {}
    for key, value in values.items():
        case, _, label = key.partition("-")
        samples.append(
            SampleRecord(
                key=key,
                case=CaseRecord(id=case if policy != "file" else key, track="videos"),
                method=MethodRecord(label=label, policy=policy, applicability="external"),
                model="any",
                seed=0,
                status="ok",
                video=VideoRef(path=f"/videos/{key}.mp4", sha256="0", frames=9, fps=8, width=64, height=64),
            )
        )
        state = "not_applicable" if value is None else "value"
        one = Reduction(
            name="one", state=state, value=value, reason="" if value is not None else "frozen", direction=direction
        )
        level = Reduction(name="level", state="value", value=1.0)
        record = MetricRecord(
            metric="made", profile="default", version=1, state="value", video_sha256="", reductions=(level, one)
        )
        metrics[key] = (record,)
    return Results(Path("run"), RunRecord(magbench_version="0", kind="run"), tuple(samples), metrics)


def found(tmp_path: Path, run: Results, *lines: str, head: str = HEAD) -> Human:
    (tmp_path / "pairs.csv").write_text("\n".join((head, *lines)))
    return agreement(run, read_choices([tmp_path / "pairs.csv"]))


def only(human: Human) -> Agreement:
    (one,) = human.agreements
    return one


CASES = [f"c{index}" for index in range(8)]


def test_agreement_is_the_share_of_choices_that_the_metric_shares(tmp_path: Path) -> None:
    """Lower is better: `a` wins in all cases; people said so in six of eight."""
    run = results({f"{case}-{label}": value for case in CASES for label, value in (("a", 0.1), ("b", 0.2))})
    lines = [f"{case}-a,{case}-b,{'first' if index < 6 else 'second'}" for index, case in enumerate(CASES)]
    one = only(found(tmp_path, run, *lines))
    assert one.endpoint == "made@default/one"
    assert one.estimate is not None
    assert one.estimate.value == 0.75
    expected = mean_estimate([1.0] * 6 + [0.0] * 2)
    assert (one.estimate.low, one.estimate.high) == pytest.approx((expected.low, min(1.0, expected.high or 0)))
    turned = only(
        found(
            tmp_path,
            results({s.key: 0.1 if s.key.endswith("a") else 0.2 for s in run.samples}, direction="higher"),
            *lines,
        )
    )
    assert turned.estimate is not None
    assert turned.estimate.value == 0.25


def test_ties_of_people_are_left_out_and_ties_of_the_metric_count_half(tmp_path: Path) -> None:
    run = results({"x-a": 0.1, "x-b": 0.2, "y-a": 0.3, "y-b": 0.3, "z-a": 0.4, "z-b": 0.1})
    human = found(tmp_path, run, "x-a,x-b,first", "y-b,y-a,second", "z-a,z-b,tie")
    one = only(human)
    assert human.ties == {"overall": 1}
    assert one.estimate is not None
    assert (one.estimate.value, one.choices, one.tied) == (0.75, 2, 1)


def test_each_case_weighs_the_same(tmp_path: Path) -> None:
    """Nine agreeing choices in one case, one disagreeing in another: a half, not nine tenths."""
    run = results({"x-a": 0.1, "x-b": 0.2, "y-a": 0.1, "y-b": 0.2})
    head = f"{HEAD},annotator"
    lines = [*(f"x-a,x-b,first,p{index}" for index in range(9)), "y-a,y-b,second,p0"]
    one = only(found(tmp_path, run, *lines, head=head))
    assert one.estimate is not None
    assert one.estimate.value == 0.5
    assert (one.estimate.low, one.estimate.note) == (None, "no interval below 6 cases")


def test_annotators_who_differ_widen_the_interval(tmp_path: Path) -> None:
    """Every case says the same on average, and every annotator something else."""
    run = results({f"{case}-{label}": value for case in CASES for label, value in (("a", 0.1), ("b", 0.2))})
    rng = np.random.default_rng(0)
    said = [
        (case, f"p{n}", "first" if rng.random() < (0.95 if n < 4 else 0.3) else "second")
        for case in CASES
        for n in range(8)
    ]
    lines = [f"{case}-a,{case}-b,{side}" for case, _, side in said]
    alone = only(found(tmp_path, run, *lines)).estimate
    named = only(
        found(
            tmp_path,
            run,
            *(f"{line},{who}" for line, (_, who, _) in zip(lines, said, strict=True)),
            head=f"{HEAD},annotator",
        )
    ).estimate
    assert alone is not None
    assert named is not None
    assert named.value == pytest.approx(alone.value)
    assert (named.high or 0) - (named.low or 0) > (alone.high or 0) - (alone.low or 0) + 0.1


def test_aspects_are_kept_apart_and_what_has_no_number_says_why(tmp_path: Path) -> None:
    run = results({"x-a": 0.1, "x-b": 0.2, "y-a": None, "y-b": 0.2})
    human = found(
        tmp_path, run, "x-a,x-b,first,look", "x-a,x-b,second,motion", "y-a,y-b,first,look", head=f"{HEAD},aspect"
    )
    look, motion = human.agreements
    assert (look.aspect, look.estimate and look.estimate.value, look.unscored, look.reason) == (
        "look",
        1.0,
        1,
        "frozen",
    )
    assert (motion.aspect, motion.estimate and motion.estimate.value) == ("motion", 0.0)
    assert human.left_out == {"made@default/level": "neither more nor less of it is better"}
    text = "".join(map(markdown, grids(human)))
    assert "1 choices not scored: frozen" in text
    assert "neither more nor less of it is better" in agreement_csv(human)


def test_given_videos_go_by_the_names_of_their_files(tmp_path: Path) -> None:
    run = results({"one": 0.1, "two": 0.2}, policy="file")
    assert only(found(tmp_path, run, "one.mp4,two.mp4,first")).estimate is not None
    assert found(tmp_path, run, "one.mp4,two,first").cases == {"overall": 1}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("x-a,x-b,better", "line 2: choice 'better' is none of first, second, tie"),
        ("x-a,x-c,first", "the run has no video 'x-c'"),
        ("x-a,x-a,first", "names the video 'x-a' twice"),
        ("x-a,x-b,first,more", "line 2: more cells than columns"),
        ("", "no choice in"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        found(tmp_path, results({"x-a": 0.1, "x-b": 0.2}), line)


def test_a_file_without_a_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no column 'choice'"):
        found(tmp_path, results({"x-a": 0.1, "x-b": 0.2}), "x-a,x-b", head="first,second")
    with pytest.raises(ConfigError, match="cannot read"):
        read_choices([tmp_path / "nothing.csv"])


PUBLISHED = """
Self Forcing,.320,.885,.907
Rolling Forcing,.553,.933,.935
Deep Forcing,.526,.899,.916
Reward Forcing,.573,.903,.927
Causal Forcing,.210,.824,.873
CausVid,.283,.879,.896
LongLive-RAG,.615,.861,.897
MemRoPE,.640,.892,.908
TetherMem,.780,.855,.895
"""


def test_the_published_case_that_the_docs_tell_of() -> None:
    """People's expected preference against VBench's subject and background consistency, all pairs of nine methods."""
    rows = np.array([[float(cell) for cell in line.split(",")[1:]] for line in PUBLISHED.split("\n") if line])
    one, other = np.triu_indices(len(rows), 1)
    signs = np.sign(rows[one] - rows[other])
    subject, background = ((signs[:, 0] == signs[:, column]).sum() for column in (1, 2))
    page = (Path(__file__).parents[2] / "docs" / "validation.md").read_text(encoding="utf-8")
    assert f"{subject} of {len(one)} pairs" in page
    assert f"{background} of {len(one)} pairs" in page
