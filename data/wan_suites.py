"""Writes the suites for Wan: `python -m magbench.data.wan_suites`.

`wan-quick` is for a first look, on prompts to develop on. `wan-standard` and `wan-long` hold prompts to report on:
all 32 at a minute, and eight at four minutes with two at an hour. Frames are latent frames: 16 fps, of which one latent
frame makes four, but for the first, which makes one. So 120 are 29.8 s, which everybody calls 30.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from magbench.data.prompts import Prompt, Split, own_prompts

SUITES = Path(__file__).parent / "suites"
MODEL = "wan2.1-1.3b/self-forcing"
HALF_MINUTE, MINUTE, FOUR_MINUTES, HOUR = 120, 240, 960, 14_400
"""Latent frames."""
AT_AN_HOUR = ("static-12", "moving-06")

METRICS = (
    "appearance_drift@default",
    "subject_consistency@default",
    "background_consistency@default",
    "aesthetic@default",
    "text_alignment@default",
    "ssim_consecutive@default",
    "lpips_consecutive@default",
    "temporal_flickering@default",
    "motion@default",
    "loops@default",
    "cuts@default",
    "sink_returns@default",
    "efficiency@default",
)
PRIMARY = (
    "appearance_drift@default/drift",
    "subject_consistency@default/anchor",
    "ssim_consecutive@default/border_effect",
)


def spread(split: Split, each: int) -> list[Prompt]:
    """The first `each` prompts of every stratum, one with a closed camera path among them where the stratum has any."""
    chosen: list[Prompt] = []
    prompts = own_prompts(split)
    for stratum in dict.fromkeys(prompt.stratum for prompt in prompts):
        of_it = [prompt for prompt in prompts if prompt.stratum == stratum]
        closed = [prompt for prompt in of_it if prompt.closed_path][:1]
        others = [prompt for prompt in of_it if prompt not in closed]
        chosen += sorted([*closed, *others[: each - len(closed)]], key=lambda prompt: prompt.id)
    return chosen


def suites() -> dict[str, dict[str, Any]]:
    """Suite name to its contents."""
    hours = [prompt for prompt in own_prompts("test") if prompt.id in AT_AN_HOUR]
    long = [*_cases(spread("test", 2), FOUR_MINUTES), *_cases(hours, HOUR, "-1h")]
    return {
        "wan-quick": _suite(
            "wan-quick", "8 videos of 30 s from prompts to develop on", [0], _cases(spread("dev", 2), HALF_MINUTE)
        ),
        "wan-standard": _suite(
            "wan-standard", "32 prompts to report on, 2 seeds, 60 s", [0, 1], _cases(own_prompts("test"), MINUTE)
        ),
        "wan-long": _suite("wan-long", "8 videos of 4 minutes and 2 of an hour", [0], long),
    }


def _cases(prompts: Iterable[Prompt], frames: int, suffix: str = "") -> list[dict[str, Any]]:
    return [
        {"id": prompt.id + suffix, "prompt": prompt.prompt, "stratum": prompt.stratum, "frames": frames}
        | ({"closed_path": True} if prompt.closed_path else {})
        for prompt in prompts
    ]


def _suite(name: str, title: str, seeds: Sequence[int], cases: list[dict[str, Any]]) -> dict[str, Any]:
    track = {
        "seeds": list(seeds),
        "references": [],  # nobody has filmed these prompts
        "metrics": list(METRICS),
        "primary": list(PRIMARY),
        "cases": cases,
    }
    return {
        "name": name,
        "version": 1,
        "model": MODEL,
        "title": title,
        "baselines": ["fifo", "memrope:memory=none"],
        "tracks": {"long-horizon": track},
    }


def main() -> None:
    """Write the files."""
    for name, contents in suites().items():
        text = yaml.safe_dump(contents, sort_keys=False, width=200, allow_unicode=True)
        (SUITES / f"{name}.yaml").write_text(f"# Written by magbench.data.wan_suites. Immutable once released.\n{text}")


if __name__ == "__main__":
    main()
