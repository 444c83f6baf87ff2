"""Writes the suites of the embedded model: `python -m magbench.data.mini_suites`.

`mini` is what everybody runs. `mini-gate` is for CI: in seconds of video every tier of a cache is needed, the sink to
go on from one chunk, the rest to come back. `mini-card` holds the 64 prompts and 84 histories on which the model card's
numbers are measured, `mini-minute` the rollouts of 60 s, `long` those of a minute, four minutes and an hour.
`interactive` switches the prompt half-way; it has two primary endpoints because either alone has a cheap answer: a
cache that forgets everything follows any prompt, one that forgets nothing keeps all that the prompt did not change. No
two suites share a world, and none shares one with training.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from magbench.data.mag_bench import AWAY, mini_case, mini_cases, mini_opening, truth_sha256
from magbench.data.mini_case import world_of
from magbench.data.mini_world import CAMERAS, COLOURS, FPS, GROUNDS, HATS, SKIES, Scene, World
from magbench.records import CaseRecord, Switch

SUITES = Path(__file__).parent / "suites"
WALK_SEEDS = range(1_000_000, 1_000_016)
CARD_WALK_SEEDS = range(1_100_000, 1_100_064)
CARD_RETURN_SEEDS = (range(2_100_000, 2_100_064), range(2_100_064, 2_100_068), range(2_100_068, 2_100_084))
"""The last ranges were added later: four because some histories have no landmark hidden long enough to be due, 16
because as many of the first had been looked at before training was over."""
MINUTE_SEEDS = range(1_200_000, 1_200_012)
GATE_WALK_SEEDS = range(1_300_000, 1_300_012)
GATE_RETURN_SEEDS, GATE_OPENING_SEEDS = range(2_200_000, 2_200_012), range(2_300_000, 2_300_012)
SWITCH_SEEDS = range(1_400_000, 1_400_016)
LONG_SEEDS = range(1_500_000, 1_500_010)
LONG_SECONDS = (60,) * 6 + (240,) * 3 + (3600,)
"""One for each: an hour takes a CPU core half an hour."""
SWITCH_FRAMES, SWITCH_AT = 129, 8.0
"""Latent frames, and seconds: the switch acts at frame 66."""
CHANGES = {"subject": ("body", "hat_colour", "hat_shape"), "place": ("sky", "ground")}
"""What a switch changes, and the slots of the sentence that says so."""

_WALK_METRICS = (
    "subject_consistency@mini",
    "appearance_drift@default",
    "subject_identity@mini",
    "ssim_consecutive@default",
    "lpips_consecutive@mini",
    "temporal_flickering@default",
    "self_retention@default",
    "motion@default",
    "cuts@default",
    "sink_returns@default",
    "efficiency@default",
)
_LONG_METRICS = (
    "subject_consistency@mini",
    "appearance_drift@default",
    "subject_identity@mini",
    "self_retention@default",
    "motion@default",
    "cuts@default",
    "sink_returns@default",
    "efficiency@default",
)
"""What drifts, fails, or comes back. Seams are the same at any length, and cost as much again."""
_GATE_METRICS = ("subject_consistency@mini", "appearance_drift@default", "subject_identity@mini", "efficiency@default")
_SWITCH_METRICS = (
    "prompt_adherence@mini",
    "ssim_consecutive@default",
    "lpips_consecutive@mini",
    "motion@default",
    "efficiency@default",
)
_SWITCH_PRIMARY = ("prompt_adherence@mini/after", "prompt_adherence@mini/kept")
_RETURN_METRICS = ("landmark_recall@mini", "retention@default", "retention@mini", "efficiency@default")
_WALK_PRIMARY = ("subject_consistency@mini/consistency", "appearance_drift@default/drift")
_HORIZONS = ("appearance_drift@default/drift > 0.85", "subject_identity@mini/prompted attributes < 0.67")
"""Beyond what the truth ever does; docs/horizon_thresholds.py measures it."""
_RETURN_PRIMARY = ("landmark_recall@mini/recall", "retention@default/aligned_psnr")


def scenes(seeds: range) -> list[Scene]:
    """One scene per seed, every word of a slot used equally often, up to one, coat and hat never of one colour."""
    dice = random.Random(f"magbench mini walks {seeds.start}")

    def spread(words: Sequence[str]) -> list[str]:
        drawn = [words[i % len(words)] for i in range(len(seeds))]
        dice.shuffle(drawn)
        return drawn

    skies, grounds, bodies, hats, shapes, cameras = map(spread, (SKIES, GROUNDS, COLOURS, COLOURS, HATS, CAMERAS))
    while any(body == hat for body, hat in zip(bodies, hats, strict=True)):
        dice.shuffle(hats)
    return list(map(Scene, skies, grounds, bodies, hats, shapes, cameras))


def walks(seeds: range, frames: int) -> tuple[CaseRecord, ...]:
    """One prompt per seed; see `scenes`."""
    found = enumerate(zip(seeds, scenes(seeds), strict=True))
    return tuple(_walk(f"walk-{i:02d}", scene, seed, frames) for i, (seed, scene) in found)


def long_walks(seeds: range, seconds: Sequence[int]) -> tuple[CaseRecord, ...]:
    """One prompt per seed, each of its own length; see `scenes`."""
    found = enumerate(zip(seeds, scenes(seeds), seconds, strict=True))
    return tuple(
        _walk(f"walk-{length}s-{i - seconds.index(length)}", scene, seed, length * FPS)
        for i, (seed, scene, length) in found
    )


def _walk(name: str, scene: Scene, seed: int, frames: int) -> CaseRecord:
    return CaseRecord(
        id=name,
        track="long-horizon",
        prompt=scene.sentence(),
        world_seed=seed,
        frames=frames,
        truth_sha256=truth_sha256(World(scene, seed), frames),
        stratum="pans and returns" if "back" in scene.camera else scene.camera.partition(" ")[0],
    )


def switches(seeds: range) -> tuple[CaseRecord, ...]:
    """One switch per seed: the first half change the subject, the rest the place; every other one is a cut."""
    cases = []
    for i, (seed, scene) in enumerate(zip(seeds, scenes(seeds), strict=True)):
        kind, cut = ("subject" if i < len(seeds) // 2 else "place"), bool(i % 2)
        after = _changed(scene, CHANGES[kind], random.Random(f"magbench mini switch {seed}"))
        case = CaseRecord(
            id=f"{kind}-{i % (len(seeds) // 2):02d}",
            track="long-horizon",
            prompt=scene.sentence(),
            world_seed=seed,
            frames=SWITCH_FRAMES,
            schedule=(Switch(at=SWITCH_AT, prompt=after.sentence(), cut=cut),),
            stratum=f"{kind}, cut" if cut else kind,
        )
        truth = truth_sha256(world_of(case, seed), SWITCH_FRAMES)
        cases.append(case.model_copy(update={"truth_sha256": truth}))
    return tuple(cases)


def _changed(scene: Scene, slots: Sequence[str], dice: random.Random) -> Scene:
    """The scene with another word in each of these slots, coat and hat of two colours."""
    while True:
        drawn = Scene.draw(dice)
        after = replace(scene, **{slot: getattr(drawn, slot) for slot in slots})
        if after.body != after.hat_colour and all(getattr(after, slot) != getattr(scene, slot) for slot in slots):
            return after


def suites() -> dict[str, dict[str, Any]]:
    """Suite name to its contents."""
    both = {
        "long-horizon": _track(_WALK_METRICS, _WALK_PRIMARY, walks(WALK_SEEDS, 24 * FPS), _HORIZONS),
        "mag-bench": _track(_RETURN_METRICS, _RETURN_PRIMARY, mini_cases()),
    }
    card = {
        "long-horizon": _track(
            ("subject_identity@mini",), ("subject_identity@mini/shown@3s",), walks(CARD_WALK_SEEDS, 24)
        ),
        "mag-bench": _track(
            _RETURN_METRICS, _RETURN_PRIMARY, [case for seeds in CARD_RETURN_SEEDS for case in mini_cases(seeds)]
        ),
    }
    minute = {"long-horizon": _track(_WALK_METRICS, _WALK_PRIMARY, walks(MINUTE_SEEDS, 60 * FPS), _HORIZONS)}
    long = {"long-horizon": _track(_LONG_METRICS, _WALK_PRIMARY, long_walks(LONG_SEEDS, LONG_SECONDS), _HORIZONS)}
    long["long-horizon"] |= {"references": ["real"]}
    interactive = {"long-horizon": _track(_SWITCH_METRICS, _SWITCH_PRIMARY, switches(SWITCH_SEEDS))}
    gate_cases = [
        *(mini_case(seed, AWAY[i % 2]) for i, seed in enumerate(GATE_RETURN_SEEDS)),
        *map(mini_opening, GATE_OPENING_SEEDS),
    ]
    gate = {
        "long-horizon": _track(_GATE_METRICS, _WALK_PRIMARY, walks(GATE_WALK_SEEDS, 33)),
        "mag-bench": _track(_RETURN_METRICS, _RETURN_PRIMARY, gate_cases),
    }
    return {
        "mini-gate": _suite("mini-gate", "12 walks, 12 returns, 12 clips to go on from one chunk: for CI", gate),
        "mini": _suite(
            "mini", "leave-and-return and 24 s of walking in the procedural world, minutes on a laptop", both
        ),
        "mini-card": _suite("mini-card", "64 first three seconds and 84 leave-and-return clips: the model card", card),
        "mini-minute": _suite("mini-minute", "12 walks of 60 s in the procedural world", minute),
        "long": _suite("long", "walks of 60 s, 240 s and an hour in the procedural world", long)
        | {"baselines": ["fifo"]},
        "interactive": _suite(
            "interactive", "16 walks of 16 s whose prompt switches: is the new followed, is the rest kept", interactive
        ),
    }


def _suite(
    name: str, title: str, tracks: dict[str, Any], baselines: Sequence[str] = ("fifo", "memrope:memory=none")
) -> dict[str, Any]:
    return {
        "name": name,
        "version": 1,
        "model": "mini",
        "title": title,
        "baselines": list(baselines),
        "tracks": tracks,
    }


def _track(
    metrics: Iterable[str], primary: Iterable[str], cases: Iterable[CaseRecord], horizons: Iterable[str] = ()
) -> dict[str, Any]:
    rows = [case.model_dump(mode="json", exclude_defaults=True, exclude={"track"}) for case in cases]
    lists = {"metrics": list(metrics), "primary": list(primary), "horizons": list(horizons)}
    return {"seeds": [0], **{name: values for name, values in lists.items() if values}, "cases": rows}


def main() -> None:
    """Write the files."""
    for name, contents in suites().items():
        text = yaml.safe_dump(contents, sort_keys=False, width=200, allow_unicode=True)
        (SUITES / f"{name}.yaml").write_text(
            f"# Written by magbench.data.mini_suites. Immutable once released.\n{text}"
        )


if __name__ == "__main__":
    main()
