"""Expansion and identity: the key follows what changes pixels and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from magbench.errors import ConfigError
from magbench.jobs import (
    BATCH,
    CASE_IDENTITY,
    Group,
    ModelIdentity,
    Plan,
    expand,
    of_other_code,
    reference_method,
    refuse_mixture,
    sample_key,
    sample_seed,
    slug,
)
from magbench.records import CaseRecord, MethodRecord, RunRecord, SampleRecord, Switch, Track
from magbench.store import RunStore
from magbench.suite import Suite, load_suite, parse_suite

MODEL = ModelIdentity("mini", "w1", "float32", "ode steps=10")
CASE = CaseRecord(
    id="a",
    track="long-horizon",
    prompt="p",
    world_seed=1,
    path={"speed": 1.0},
    history_frames=3,
    frames=12,
    stratum="s",
)
FIFO = MethodRecord(label="fifo", policy="fifo", parameters={"window": 12, "sink": 0}, applicability="in-distribution")
MEMROPE = MethodRecord(label="memrope", policy="memrope", parameters={"window": 12}, applicability="in-distribution")


def suite(cases: int = 10, version: int = 1, seeds: str = "[0]") -> Suite:
    lines = "\n".join(f"      - {{id: c{i:02d}, prompt: p{i}}}" for i in range(cases))
    head = f"name: s\nversion: {version}\nmodel: mini\ntracks:\n  long-horizon:\n    frames: 12\n    seeds: {seeds}\n"
    return parse_suite(f"{head}    cases:\n{lines}\n", "x")


def key(**changes: Any) -> str:
    arguments: dict[str, Any] = {"suite": suite(), "case": CASE, "seed": 0, "method": FIFO, "model": MODEL}
    return sample_key(**(arguments | changes))


def case(**changes: Any) -> CaseRecord:
    return CASE.model_copy(update=changes)


def method(**changes: Any) -> MethodRecord:
    return FIFO.model_copy(update=changes)


def model(**changes: str) -> ModelIdentity:
    return ModelIdentity(**{**MODEL.__dict__, **changes})


PIXELS = [
    {"suite": suite(version=2)},
    {"seed": 1},
    {"case": case(id="b")},
    {"case": case(prompt="q")},
    {"case": case(world_seed=2)},
    {"case": case(path=None)},
    {"case": case(history_frames=6)},
    {"case": case(frames=24)},
    {"case": case(track="mag-bench")},
    {"case": case(schedule=(Switch(at=1, prompt="q"),))},
    {"case": case(clip_sha256="ff")},
    {"method": method(policy="other")},
    {"method": method(parameters={"window": 15, "sink": 0})},
    {"method": method(code_sha256="ab")},
    {"model": model(name="m")},
    {"model": model(weights_sha256="w2")},
    {"model": model(dtype="bfloat16")},
    {"model": model(sampler="ode steps=4")},
]
NOT_PIXELS = [
    {"case": case(stratum="t")},
    {"case": case(truth_sha256="ff")},
    {"case": case(clip="/elsewhere/a.mkv", mirror=11)},
    {"case": case(visits=((0.0, 1.0), (4.0, 5.0)), closed_path=True)},
    {"method": method(applicability="training-free transfer", reason="r")},
    {"method": method(budget_frames=9.0)},
    {"suite": suite(cases=3, seeds="[4, 5]")},
    {"suite": suite().model_copy(update={"title": "t", "baselines": ("fifo",)})},
    {"method": method(parameters={"sink": 0, "window": 12})},
]


@pytest.mark.parametrize("change", PIXELS, ids=str)
def test_what_changes_pixels_changes_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


@pytest.mark.parametrize("change", NOT_PIXELS, ids=str)
def test_what_does_not_change_pixels_does_not_change_the_key(change: dict[str, Any]) -> None:
    assert key(**change) == key()


def test_every_field_of_a_case_is_either_in_or_out_on_purpose() -> None:
    out = {"truth_sha256", "stratum", "clip", "mirror", "visits", "closed_path"}
    assert set(CaseRecord.model_fields) - set(CASE_IDENTITY) == out


@pytest.mark.parametrize(
    ("name", "track", "digests"),
    [
        ("mini", "long-horizon", ["a8fc8db183d0", "6afed228d8d7"]),
        ("mini", "mag-bench", ["87a7a7e63258", "134040469689"]),
        ("mini-gate", "long-horizon", ["4d4c2fa0e7fc", "d5fdbdb7dbee"]),
    ],
)
def test_keys_from_before_schedules_still_hold(name: str, track: Track, digests: list[str]) -> None:
    released = load_suite(name)
    first = released.cases(track)[0]
    keys = [sample_key(released, first, 0, row, MODEL) for row in (FIFO, reference_method("real"))]
    assert [key.rpartition(".")[2] for key in keys] == digests


@pytest.mark.parametrize("change", [{"at": 2.0}, {"prompt": "r"}, {"cut": True}])
def test_every_field_of_a_switch_changes_the_key(change: dict[str, Any]) -> None:
    switch = Switch(at=1, prompt="q")
    other = switch.model_copy(update=change)
    assert key(case=case(schedule=(switch,))) != key(case=case(schedule=(other,)))


def test_reference_rows_do_not_depend_on_the_model() -> None:
    real = reference_method("real")
    assert key(method=real) == key(method=real, model=model(weights_sha256="w2", dtype="bfloat16"))
    assert key(method=real) != key(method=reference_method("static"))


def test_keys_are_readable_and_stable() -> None:
    weird = method(label="my method:α=0.5,path=../x")
    assert key(method=weird).startswith("long-horizon.a.s0.my-method-=0-5-path=-x.")
    assert key() == "long-horizon.a.s0.fifo." + key().rpartition(".")[2]
    assert slug("///") == "x"


def test_expansion_is_the_product_in_key_order() -> None:
    plan = expand(suite(cases=3), [FIFO, MEMROPE, FIFO], MODEL, seeds=(0, 7))
    assert len(plan.jobs) == 3 * 2 * (2 + 3)
    assert [job.key for job in plan.jobs] == sorted({job.key for job in plan.jobs})
    assert {job.method.label for job in plan.jobs} == {"fifo", "memrope", "real", "static", "shuffled"}
    job = plan.references("shuffled")[0]
    real = next(j for j in plan.jobs if j.key == plan.real_key(job))
    assert (real.method.label, real.case, real.seed) == ("real", job.case, job.seed)


def test_groups_are_of_one_method_and_length_and_full_but_the_last() -> None:
    plan = expand(suite(cases=10), [FIFO, MEMROPE], MODEL)
    groups = list(plan.groups())
    assert [len(group.jobs) for group in groups] == [BATCH, BATCH, 10 - 2 * BATCH] * 2
    assert all(len({(job.method.label, job.case.frames) for job in group.jobs}) == 1 for group in groups)
    assert sorted(job.key for group in groups for job in group.jobs) == [
        job.key for job in plan.jobs if job.method.policy != "reference"
    ]


def test_a_batch_switches_all_at_once() -> None:
    schedules = ["", ", schedule: [{at: 0.5, prompt: q}]", ", schedule: [{at: 0.5, prompt: q, cut: true}]"]
    lines = "".join(f"      - {{id: c{i}, prompt: p{schedules[i % 3]}}}\n" for i in range(6))
    head = "name: s\nversion: 1\nmodel: mini\ntracks:\n  long-horizon:\n    frames: 12\n    cases:\n"
    groups = expand(parse_suite(head + lines, "x"), [FIFO], MODEL).groups()
    assert sorted(sorted(job.case.id for job in group.jobs) for group in groups) == [
        ["c0", "c3"],
        ["c1", "c4"],
        ["c2", "c5"],
    ]


def test_other_methods_and_missing_samples_do_not_move_a_job() -> None:
    alone = list(expand(suite(), [FIFO], MODEL).groups())
    among = [g for g in expand(suite(), [MEMROPE, FIFO], MODEL).groups() if g.jobs[0].method.label == "fifo"]
    assert alone == among
    group = alone[0]
    for missing in ({group.jobs[2].key}, {group.jobs[0].key, group.jobs[3].key}):
        slots = group.slots(missing)
        assert len(slots) == BATCH
        assert {job.key for job in slots} == missing
        assert all(slots[group.jobs.index(job)] == job for job in group.jobs if job.key in missing)


def test_a_short_group_is_padded() -> None:
    jobs = expand(suite(cases=2), [FIFO], MODEL).jobs
    group = Group(tuple(job for job in jobs if job.method.policy != "reference"))
    assert len(group.slots(job.key for job in group.jobs)) == BATCH


def test_noise_is_a_function_of_case_and_seed() -> None:
    assert sample_seed(CASE, 0) == sample_seed(case(prompt="q", frames=24), 0)
    seeds = {sample_seed(case(id=name), seed) for name in "abc" for seed in range(100)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(CASE, 0) == 1836249030406026994


def test_samples_of_other_settings_are_not_mixed_in() -> None:
    plan = expand(suite(cases=1), [FIFO], MODEL)
    job = next(job for job in plan.jobs if job.method.label == "fifo")
    stored = SampleRecord(key=job.key, case=job.case, method=job.method, model="mini", seed=job.seed, status="ok")
    refuse_mixture(plan, [stored])
    refuse_mixture(plan, [stored.model_copy(update={"key": "k", "seed": 1})])
    with pytest.raises(ConfigError, match="already holds 'fifo' on case 'c00', seed 0, made with other settings"):
        refuse_mixture(plan, [stored.model_copy(update={"key": "k"})])


def test_a_plan_without_a_real_row() -> None:
    plan = expand(suite(cases=1), [FIFO], MODEL)
    bare = Plan(plan.suite, tuple(job for job in plan.jobs if job.method.label == "fifo"))
    assert bare.real_key(bare.jobs[0]) is None


@pytest.mark.parametrize("text", ["_hidden", "=cmd", "+1", "-", "_", "é", "a" * 100, "_" * 60 + "a"])
def test_a_slug_can_be_a_file_name_of_a_run(text: str, tmp_path: Path) -> None:
    store = RunStore(tmp_path, RunRecord(magbench_version="0", kind="run"))
    assert store.sample_dir(slug(text)).name == slug(text)


def test_samples_of_a_policy_file_go_out_of_date_when_it_is_edited() -> None:
    def row(label: str, code: str) -> MethodRecord:
        return method(label=label, policy=label.partition(",")[0], code_sha256=code)

    def stored(plan: Plan) -> list[SampleRecord]:
        return [job.record(status="error", reason="x") for job in plan.jobs]

    old = stored(expand(suite(2), [FIFO, row("mine", "a"), row("mine,2", "a"), row("other", "a")], MODEL))
    plan = expand(suite(1), [FIFO, row("mine", "b")], MODEL)
    found = [(sample.method.label, sample.case.id) for sample in of_other_code(plan, old)]
    assert sorted(found) == [("mine", "c00"), ("mine", "c01"), ("mine,2", "c00"), ("mine,2", "c01")]
    assert of_other_code(plan, stored(plan)) == ()


def test_long_ones_are_sampled_one_by_one() -> None:
    head = "name: s\nversion: 1\nmodel: mini\ntracks:\n  long-horizon:\n    cases:\n"
    lines = "".join(
        f"      - {{id: c{i}, prompt: p, frames: {frames}}}\n" for i, frames in enumerate([960] * 3 + [963] * 3)
    )
    groups = list(expand(parse_suite(head + lines, "x"), [FIFO], MODEL).groups())
    assert sorted((group.jobs[0].case.frames, len(group.jobs)) for group in groups) == [(960, 3), *[(963, 1)] * 3]
    for group in groups:
        assert len(group.slots({group.jobs[0].key})) == (BATCH if group.jobs[0].case.frames == 960 else 1)
