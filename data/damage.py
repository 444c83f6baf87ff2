"""Damages planted into clean clips, each graded by one strength: what a metric says of them, `magbench validate` asks.

A damage takes the frames of a clip in order and gives as many back, keeping no more than a second of them. Most ramp
up in a straight line from the onset to the clip's end, so that their strength is that of the last frame.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import gaussian

from magbench.data.video import Frame

LOOP_SECONDS = 1.0
"""Period of the loop."""
TINT = np.array([1.0, -0.4, -1.0])
"""Red, green and blue gains per unit of colour shift: towards orange."""


@dataclass(frozen=True)
class Dose:
    """How much of a damage a clip gets, and when."""

    strength: float
    onset: int
    """The first frame that may change."""
    frames: int
    """Of the clip."""
    fps: float
    borders: tuple[int, ...] = ()
    """The chunk borders, for seams."""
    other: Callable[[], Iterable[Frame]] | None = None
    """The same clip with another subject, for a change of identity."""

    def at(self, t: int) -> float:
        """The strength at frame `t`: nothing up to the onset, all of it in the last frame."""
        return self.strength * min(1.0, max(0.0, (t - self.onset) / (self.frames - 1 - self.onset)))


Damage = Callable[[Iterable[Frame], Dose], Iterator[Frame]]


def identity(frames: Iterable[Frame], dose: Dose) -> Iterator[Frame]:
    """The subject fades into another one; strength: share of the other.

    Raises:
        ValueError: the clip has no other subject; see `Dose.other`.
    """
    if dose.other is None:
        raise ValueError("only a rendered clip has another subject to change into")
    for t, (frame, other) in enumerate(zip(frames, dose.other(), strict=True)):
        yield _pixels(frame + dose.at(t) * (other.astype(np.float64) - frame))


def exposure(frames: Iterable[Frame], dose: Dose) -> Iterator[Frame]:
    """The picture darkens; strength: share of the light that is lost."""
    return _ramped(frames, dose, lambda frame, strength, _: frame * (1 - strength))


def colour(frames: Iterable[Frame], dose: Dose) -> Iterator[Frame]:
    """The picture turns orange; strength: gain of red."""
    return _ramped(frames, dose, lambda frame, strength, _: frame * (1 + strength * TINT))


def blur(frames: Iterable[Frame], dose: Dose) -> Iterator[Frame]:
    """Gaussian blur; strength: standard deviation as a share of the frame's short side."""

    def change(frame: NDArray[np.float64], strength: float, _: int) -> NDArray[np.float64]:
        sigma = strength * min(frame.shape[:2])
        blurred: NDArray[np.float64] = gaussian(frame, sigma, mode="nearest", channel_axis=-1)  # type: ignore[no-untyped-call]
        return blurred

    return _ramped(frames, dose, change)


def noise(frames: Iterable[Frame], dose: Dose) -> Iterator[Frame]:
    """Gaussian noise, new in each frame, the same each time; strength: standard deviation, 1 being white."""
    return _ramped(frames, dose, lambda f, s, t: f + 255 * s * np.random.default_rng(t).normal(size=f.shape))


def freeze(frames: Iterable[Frame], dose: Dose) -> Iterator[Frame]:
    """The frame before the onset stands; strength: for how many seconds."""
    end, held = dose.onset + round(dose.strength * dose.fps), None
    for t, frame in enumerate(frames):
        held = frame if t < dose.onset or held is None else held
        yield held if dose.onset <= t < end else frame


def loop(frames: Iterable[Frame], dose: Dose) -> Iterator[Frame]:
    """The second before the onset comes again and again; strength: for how many seconds."""
    end = dose.onset + round(dose.strength * dose.fps)
    last = deque[Frame](maxlen=min(dose.onset, round(LOOP_SECONDS * dose.fps)))
    for t, frame in enumerate(frames):
        if t < dose.onset:
            last.append(frame)
        yield last[(t - dose.onset) % len(last)] if dose.onset <= t < end and last else frame


def seams(frames: Iterable[Frame], dose: Dose) -> Iterator[Frame]:
    """Every other chunk is darker; strength: share of the light that it lacks. No ramp."""
    for t, frame in enumerate(frames):
        darker = t >= dose.onset and sum(dose.onset <= border <= t for border in dose.borders) % 2
        yield _pixels(frame * (1 - dose.strength)) if darker else frame


def flicker(frames: Iterable[Frame], dose: Dose) -> Iterator[Frame]:
    """Every other frame is darker; strength: share of the light that it lacks. No ramp."""
    for t, frame in enumerate(frames):
        yield _pixels(frame * (1 - dose.strength)) if t >= dose.onset and (t - dose.onset) % 2 else frame


DAMAGES: Mapping[str, Damage] = {
    made.__name__: made for made in (identity, exposure, colour, blur, noise, freeze, loop, seams, flicker)
}
LASTING = frozenset({"freeze", "loop"})
"""Damages whose strength is in seconds."""


def _ramped(
    frames: Iterable[Frame], dose: Dose, change: Callable[[NDArray[np.float64], float, int], NDArray[np.float64]]
) -> Iterator[Frame]:
    for t, frame in enumerate(frames):
        strength = dose.at(t)
        yield _pixels(change(frame.astype(np.float64), strength, t)) if strength else frame


def _pixels(picture: NDArray[np.floating[Any]]) -> Frame:
    return picture.round().clip(0, 255).astype(np.uint8)


def changed_psnr(pairs: Iterable[tuple[Frame, Frame]]) -> float | None:
    """Peak signal to noise ratio, dB, over the pixels that differ between the frames of each pair; None if none does.

    Args:
        pairs: Clean and damaged frames.
    """
    total, count = 0.0, 0
    for clean, damaged in pairs:
        square = (clean.astype(np.float64) - damaged) ** 2
        total += float(square.sum())
        count += square[(square > 0).any(-1)].size
    return float(10 * np.log10(255**2 * count / total)) if count else None
