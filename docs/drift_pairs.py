"""Does `appearance_drift` rank a decaying clip above a twin that only moves? `python docs/drift_pairs.py CLIPS...`

Each clip, which should be sound, is played back and forth for 24 s. Its twins move (a window wanders over it, zooms in
or out of it; another clip's middle enters it); its decays ramp up over three fifths of it. The rank accuracy is the
share of (decay, twin) pairs of the same clip in which the decay has more drift. Version 1 of the metric, the mean of
six components in older units, is computed from the same components.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.filters import gaussian
from torch.nn.functional import interpolate

from magbench.data.video import open_video
from magbench.metrics.appearance_drift import AppearanceDrift
from magbench.metrics.base import Clip, Info, Scores
from magbench.records import CaseRecord, MethodRecord, SampleRecord

FPS, FRAMES, HEIGHT, WIDTH = 2, 48, 120, 208
VERSION_1 = {"colour": 10, "layout": 10, "tails": 0.2, "contrast": 5, "saturation": 5, "sharpness": 0.5}
PAST = np.linspace(0, 1, FRAMES)
RAMP = np.clip((PAST - 0.25) / 0.6, 0, 1)[:, None, None, None]

Frames = NDArray[np.float64]


def sound(path: Path, seconds: float) -> Frames:
    """The first seconds of a clip, small, back and forth."""
    found = []
    with open_video(path) as video:
        for time, frame in video:
            if time >= seconds:
                break
            if time >= len(found) / FPS:
                picture = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
                found.append(interpolate(picture, size=(HEIGHT, WIDTH), mode="area")[0].permute(1, 2, 0).numpy())
    turn = np.arange(FRAMES) % max(1, 2 * len(found) - 2)
    return np.stack(found).astype(float)[np.minimum(turn, 2 * len(found) - 2 - turn)]


def window(clip: Frames, t: int, left: float, top: float, share: float) -> Frames:
    """A window of `share` of the frame, `left` and `top` being shares of the way it can go, at full size."""
    height, width = round(HEIGHT * share), round(WIDTH * share)
    y, x = round(top * (HEIGHT - height)), round(left * (WIDTH - width))
    part = torch.from_numpy(clip[t, y : y + height, x : x + width].copy()).permute(2, 0, 1)[None]
    shown = interpolate(part, size=(HEIGHT, WIDTH), mode="bilinear", antialias=True)
    return np.asarray(shown[0].permute(1, 2, 0))


def twins(clip: Frames, other: Frames) -> Iterator[tuple[str, Frames]]:
    """Clips that are sound and move."""
    paths = {
        "pan": [(u, 0.5, 0.6) for u in PAST],
        "pan to and fro": [(0.5 - 0.5 * np.cos(8 * np.pi * u + 0.5), 0.5, 0.6) for u in PAST],
        "diagonal pan": [(1 - u, u, 0.6) for u in PAST],
        "zoom in": [(0.5, 0.5, 1 - u / 2) for u in PAST],
        "zoom out": [(0.5, 0.5, 0.5 + u / 2) for u in PAST],
    }
    yield "as it is", clip
    for name, path in paths.items():
        yield name, np.stack([window(clip, t, *place) for t, place in enumerate(path)])
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    entering = []
    for t, u in enumerate(PAST):
        middle = -60 + 180 * np.clip((u - 0.25) / 0.4, 0, 1)
        mask = np.clip((1.15 - np.hypot((y - 70) / 48, (x - middle) / 42)) * 8, 0, 1)[..., None]
        entering.append(clip[t] * (1 - mask) + np.roll(other[t], round(middle - WIDTH / 2), 1) * mask)
    yield "something enters", np.stack(entering)


def decays(clip: Frames, strength: float) -> Iterator[tuple[str, Frames]]:
    """Clips that decay."""
    ramp, dice = RAMP * strength, np.random.default_rng(0)
    grey = (clip @ np.array([0.299, 0.587, 0.114]))[..., None]

    def blotches(sigma: float) -> Frames:
        field = gaussian(dice.normal(size=(HEIGHT, WIDTH, 3)), sigma, channel_axis=-1)
        return np.asarray(field / field.std())

    yield "oversaturated", grey + (clip - grey) * (1 + 1.6 * ramp)
    yield "garish", 128 + (grey + (clip - grey) * (1 + ramp) - 128) * (1 + 0.6 * ramp)
    yield "dark", clip * (1 - 0.65 * ramp)
    yield "bright", 255 - (255 - clip) * (1 - 0.65 * ramp)
    yield "tinted", clip * (1 + ramp * np.array([0.35, -0.15, -0.4]))
    yield "washed out", 128 + (clip - 128) * (1 - 0.75 * ramp)
    yield "blotches", clip + ramp * 55 * blotches(10)
    yield (
        "blurred",
        np.stack([gaussian(f, 4 * float(r.item()) + 1e-9, channel_axis=-1) for f, r in zip(clip, ramp, strict=True)]),
    )
    yield "noisy", clip + ramp * dice.normal(0, 45, clip.shape)
    lines = dice.normal(size=WIDTH)
    yield "streaks", clip + ramp * 45 * np.where(np.abs(lines) > 0.8, lines, 0)[:, None]


def drifts(clip: Frames) -> tuple[float, float]:
    """`drift` of version 1 and of now."""
    frames = torch.from_numpy(np.clip(clip, 0, 255).round().astype(np.uint8))
    sample = SampleRecord(
        key="clip",
        case=CaseRecord(id="clip", track="videos"),
        method=MethodRecord(label="any", policy="file", applicability="external"),
        model="",
        seed=0,
        status="ok",
    )
    metric = AppearanceDrift()
    metric.start(Info(sample, FPS, FRAMES, WIDTH, HEIGHT))
    metric.update(Clip(0, tuple(t / FPS for t in range(FRAMES)), frames))
    answer = metric.finish()
    if not isinstance(answer, Scores):
        raise ValueError(answer.reason)
    values = {name: value for name, value in answer.values.items() if isinstance(value, float)}
    return float(np.mean([values[name] / scale for name, scale in VERSION_1.items()])), values["drift"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each clip, before it decays itself")
    parser.add_argument("--strength", type=float, action="append", help="of the decays, up to 1; repeatable")
    options = parser.parse_args()
    strengths = options.strength or [0.4, 0.8]
    found: dict[float, list[tuple[str, str, float, float]]] = {strength: [] for strength in strengths}
    clips = [sound(path, options.seconds) for path in options.clips]
    for index, clip in enumerate(clips):
        healthy = {name: drifts(made) for name, made in twins(clip, clips[(index + 1) % len(clips)])}
        for strength in strengths:
            for name, made in decays(clip, strength):
                one = drifts(made)
                found[strength] += [(name, twin, one[0] > was[0], one[1] > was[1]) for twin, was in healthy.items()]
        print(f"{options.clips[index].name}: done", flush=True)
    for strength, rows in found.items():
        print(f"\nstrength {strength:g}: {len(rows)} pairs, ranked rightly by version 1 and now")
        for column in (None, 0, 1):
            for key in dict.fromkeys(row[column] if column is not None else "all pairs" for row in rows):
                those = [row for row in rows if column is None or row[column] == key]
                shares = [np.mean([row[which] for row in those]) for which in (2, 3)]
                print(f"  {key:18s} {shares[0]:.2f} {shares[1]:.2f}")
        print(flush=True)


if __name__ == "__main__":
    main()
