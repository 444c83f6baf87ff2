"""Options of `magbench run` to a plan: which samples, on which model, into which folder."""

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magbench import __version__, provenance
from magbench.data.mini_case import world_of
from magbench.data.prompts import recognise
from magbench.errors import ConfigError
from magbench.jobs import ModelIdentity, Plan, expand
from magbench.metrics import METRICS
from magbench.metrics.weights import require
from magbench.names import slug
from magbench.options import OWN, RunOptions
from magbench.records import MethodRecord, RunRecord
from magbench.runners.clip_suite import clip_suite
from magbench.runners.differences import released_frames
from magbench.runners.execute import Setup
from magbench.runners.methods import BoundMethod, BudgetError, PolicyFile, all_methods, bind, parse_method, split_spec
from magbench.runners.models import ModelInfo, find_model
from magbench.runners.user_policies import code_of
from magbench.store import RunStore
from magbench.suite import Suite, load_suite, prompt_cases


@dataclass(frozen=True)
class Prepared:
    """All that a run needs."""

    plan: Plan
    setup: Setup
    record: RunRecord
    workers: int
    notes: tuple[str, ...] = ()
    """What to know before it starts."""

    def store(self) -> RunStore:
        """The run folder, once it exists."""
        return RunStore.open(self.setup.root)


def prepare(options: RunOptions) -> Prepared:
    """Decide everything before anything is written.

    Raises:
        ConfigError: an option, method, suite or prompt can't be used.
        MissingWeightsError: the model's weights are not here; or offline, those of a metric.
    """
    clips = None if options.clips is None else clip_suite(options, options.clips)
    suite = clips.suite if clips else _suite(options)
    model = find_model(options.model or suite.model)
    suite = _with_length(suite, options.seconds, model)
    _check(suite, model)
    if options.offline:
        require(name for spec in suite.tracks.values() for name in spec.metrics)
    methods = _methods(options, suite)
    device = find_device(options.device)
    dtype = options.dtype or model.dtype
    weights = model.weights_sha256()
    identity = ModelIdentity(model.name, "+".join(weights.values()), dtype, model.sampler)
    plan = expand(suite, [_record(method, model) for method in methods], identity, options.seeds)
    out = options.out or Path("runs") / default_name(options, suite)
    metrics = {track: spec.metrics for track, spec in suite.tracks.items()}
    record = RunRecord(
        magbench_version=__version__,
        kind="run",
        suite=suite.name,
        suite_version=suite.version,
        model=model.name,
        methods=tuple(method.label for method in methods),
        primary={track: spec.primary for track, spec in suite.tracks.items()},
        horizons={track: spec.horizons for track, spec in suite.tracks.items() if spec.horizons},
        arguments=options.model_dump(mode="json", exclude_unset=True),
        resolved={
            "tracks": {track: len(spec.cases) for track, spec in suite.tracks.items()},
            "metrics": metrics,
            "seeds": {track: options.seeds or spec.seeds for track, spec in suite.tracks.items()},
            "frames": {track: sorted({c.frames for c in suite.cases(track)}) for track in suite.tracks},
            "methods": {method.label: method.parameters for method in methods},
            "device": device,
            "dtype": dtype,
            "sampler": model.sampler,
            **(clips.resolved if clips else {}),
            **_prompt_file(options, suite),
        },
        command=command(options),
        started=provenance.now(),
        versions=provenance.versions(),
        hardware=provenance.hardware(),
        git=provenance.git(),
        weights=weights,
    )
    files = {m.method.path: code_of(m.method.policy) for m in methods if isinstance(m.method, PolicyFile)}
    setup = Setup(out, model.name, device, dtype, metrics, files)
    workers = _default_workers(device) if options.workers is None else options.workers
    return Prepared(plan, setup, record, workers, clips.notes if clips else ())


def default_name(options: RunOptions, suite: Suite) -> str:
    """A folder name that depends on what makes two runs incomparable, so that the same command finds its own run."""
    named = [slug("-".join(filter(None, split_spec(method)))) for method in options.method]
    clips = [slug(options.clips.stem)] if options.clips else []
    captions = ["no-captions"] if options.caption == "none" else []
    parts = [slug(suite.name), *clips, *captions, *named]
    if options.model and options.model != suite.model:
        parts.append(slug(options.model))
    if options.seconds:
        parts.append(f"{options.seconds:g}s")
    if options.budget:
        parts.append("budget" + "-".join(map(str, options.budget)))
    if options.dtype:
        parts.append(options.dtype)
    return "-".join(part.strip("-") for part in parts)[:120]


def command(options: RunOptions) -> str:
    """The command that continues the run. What was to be redone has been discarded by then, so it isn't repeated."""
    words = ["magbench", "run"]
    for name, value in options.model_dump(mode="json", exclude_defaults=True).items():
        flag = "--" + name.replace("_", "-")
        if name == "existing":
            continue
        if name in ("seeds", "budget"):
            words += [flag, ",".join(map(str, value))]
        elif value is True:
            words.append(flag)
        else:
            for item in value if isinstance(value, list) else [value]:
                words += [flag, str(item)]
    return shlex.join(words)


def _suite(options: RunOptions) -> Suite:
    for name in ("clips_root", "caption", "faulty_clips"):
        if name in options.model_fields_set:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} is about clips, and there are none", "give them with --clips")
    suite = load_suite(options.suite)
    if options.prompts is not None:
        if "mag-bench" in options.track:
            raise ConfigError("--prompts makes long-horizon cases, not mag-bench ones", "leave out --track mag-bench")
        suite = suite.with_tracks(("long-horizon",))
        frames = max(case.frames for case in suite.cases("long-horizon"))
        cases = tuple(case.model_copy(update={"frames": frames}) for case in prompt_cases(options.prompts))
        name = f"{suite.name}-{slug(options.prompts.stem)}"
        suite = suite.with_long_horizon(cases=cases).model_copy(update={"name": name})
    return suite.with_tracks(options.track) if options.track else suite


def _prompt_file(options: RunOptions, suite: Suite) -> dict[str, dict[str, str | int]]:
    """Which file the prompts are from, for `run.json`."""
    if options.prompts is None:
        return {}
    return {"prompts": recognise(options.prompts, len(suite.tracks["long-horizon"].cases)).model_dump()}


def _with_length(suite: Suite, seconds: float | None, model: ModelInfo) -> Suite:
    if seconds is None:
        return suite
    if "long-horizon" not in suite.tracks:
        raise ConfigError("--seconds sets the length of long-horizon videos, and there are none", "leave out --seconds")
    chunks = max(1, math.ceil(seconds * model.fps / model.stride / model.chunk - 1e-9))
    frames = chunks * model.chunk
    spec = suite.tracks["long-horizon"]
    cases = tuple(c.model_copy(update={"frames": frames, "truth_sha256": None}) for c in spec.cases)
    return suite.with_long_horizon(cases=cases)


def _check(suite: Suite, model: ModelInfo) -> None:
    """Find what can't be generated before the first sample is."""
    for track, spec in suite.tracks.items():
        for name in spec.metrics:
            if name not in METRICS:
                METRICS[name]  # raises, and names the closest one
        for case in suite.cases(track):
            if case.frames % model.chunk or case.history_frames % model.chunk:
                raise ConfigError(
                    f"case {case.id!r}: {case.frames} frames with a history of {case.history_frames} "
                    f"do not split into chunks of {model.chunk}"
                )
            if case.clip is None:
                world_of(case, 0)


def _methods(options: RunOptions, suite: Suite) -> list[BoundMethod]:
    """Baselines first, since the report compares with the first, then what was named, at each budget.

    Without a budget in options or suite, baselines get that of the first method named, and `all` that of the first
    baseline. A method named by itself at one budget must be able to use it; otherwise it is a row without numbers.
    """
    everything = "all" in options.method
    named = dict.fromkeys(name for given in options.method for name in (all_methods() if given == "all" else (given,)))
    budgets: tuple[int | str | None, ...] = options.budget or (suite.budget,)
    if everything and budgets == (None,) and suite.baselines:
        budgets = (parse_method(suite.baselines[0]).policy.budget,)
    baselines = () if options.no_baselines else suite.baselines
    found = []
    for budget in budgets:
        frames = budget if isinstance(budget, int) else None
        lenient = everything or len(budgets) > 1
        bound = [_bind(name, frames, options.budget is None, lenient) for name in named]
        own = next((method.policy.budget for method in bound if method.policy.budget is not None), None)
        found += [*_baselines(baselines, None if budget == OWN else frames or own, lenient), *bound]
    return _unique(found)


def _baselines(names: Sequence[str], budget: int | None, lenient: bool) -> list[BoundMethod]:
    try:
        return [bind(name, budget) if lenient else parse_method(name, budget) for name in names]
    except ConfigError as error:
        raise ConfigError(f"as a baseline: {error.message}", "leave the baselines out with --no-baselines") from error


def _bind(name: str, budget: int | None, default: bool, lenient: bool) -> BoundMethod:
    """A default budget is outranked by what the method's name says; `--budget` beside that is an error."""
    if default:
        try:
            return parse_method(name, budget)
        except BudgetError:
            if not lenient:
                raise
        except ConfigError:
            return parse_method(name)
    return bind(name, budget) if lenient else parse_method(name, budget)


def _unique(methods: Sequence[BoundMethod]) -> list[BoundMethod]:
    return list({method.label: method for method in methods}.values())


def _record(method: BoundMethod, model: ModelInfo) -> MethodRecord:
    applicability, reason = model.applicability(method.method.name, method.parameters)
    if method.refusal:
        applicability, reason = "not applicable", method.refusal
    return MethodRecord(
        label=method.label,
        policy=method.method.name,
        parameters=method.parameters,
        budget_frames=method.refused or method.policy.budget,
        own_budget_frames=parse_method(method.family).policy.budget,
        family=method.family,
        matched=method.policy.matched,
        released_frames=released_frames(method.method.name),
        applicability=applicability,
        reason=reason,
        code_sha256=method.code_sha256,
    )


def find_device(name: str) -> str:
    """The torch device an option names.

    Raises:
        ConfigError: it has no such name, or isn't there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|cuda(?::(0|[1-9]\d{0,3}))?", name, re.ASCII)
    if match is None:
        raise ConfigError(f"unknown device {name!r}", "use auto, cpu, cuda or cuda:0")
    if name == "cpu":
        return name
    if not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} is not there: torch finds no CUDA device", "use --device cpu")
    count = torch.cuda.device_count()
    if int(match[1] or 0) >= count:
        raise ConfigError(f"device {name!r} is not there: torch finds {count}", f"use cuda:0 to cuda:{count - 1}")
    return name


def _default_workers(device: str) -> int:
    return 1 if device.startswith("cuda") else provenance.cores()
